# mypy: disable-error-code="union-attr,attr-defined,arg-type,index"
# each test knows which outcome it has
"""What was left unfinished is settled before the management interface is raised."""

from __future__ import annotations

import pytest

from hostagent.net import adopt_files, journal
from hostagent.net.operation import Plan
from hostagent.net.unfinished import state_of
from hostagent.startup import network, steps_net
from hostagent.startup.step import Change
from hostagent.xen import inventory
from tests.pure.startup_management import STATIC, compared, left_over, on, pif


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    """Hundreds of small files and rows, each made durable, take minutes on a busy disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.mark.parametrize("state", [journal.BEGUN, journal.APPLIED, journal.WAITING])
def test_what_was_left_unfinished_is_undone_first_of_all(synced, nics, state):
    nics.kernel.one(left_over(network.folder(synced.config), state=state))

    outcome = compared(synced, steps_net.plan_management, steps_net.raise_management)

    assert on(nics, "eth1") == set()
    assert Change("network change 'a test'", state, "(undone)") in outcome.changes
    assert journal.pending(network.folder(synced.config)) is None
    assert nics.stood_down == 1


def test_a_takeover_that_was_decided_before_the_power_went_is_kept(synced, nics, tmp_path):
    folder, switch = network.folder(synced.config), tmp_path / "00-hostagent-eth9.network"
    folder.mkdir(parents=True, exist_ok=True)
    switch.write_text("ours")
    step = adopt_files.file_step(adopt_files.Change(str(switch), None, "ours"), str(switch))
    left = journal.begin(folder, Plan((step,)), boot="earlier", digest="", what="adopt eth9")
    journal.mark(folder, left, journal.APPLIED)

    outcome = compared(synced, steps_net.plan_management, steps_net.raise_management)

    assert Change("network change 'adopt eth9'", journal.APPLIED, "(kept)") in outcome.changes
    assert journal.pending(folder) is None
    assert switch.read_text() == "ours"


def test_an_undo_that_failed_is_told_and_nobody_says_that_it_is_undone(synced, nics):
    nics.kernel.one(left_over(network.folder(synced.config), state=journal.UNDO_FAILED))

    outcome = compared(synced, steps_net.plan_management, steps_net.raise_management)

    assert on(nics, "eth1") == {"198.51.100.9/24"}
    assert not [change for change in outcome.changes if change.what.startswith("network change")]
    assert any("HAS FAILED IN PART: a test" in told for told in outcome.warnings)


def test_a_change_of_a_daemon_that_died_is_undone_at_once_though_its_timer_runs(adopted, nics):
    """Neither is the timer waited for, nor is the ladder climbed."""
    nics.waits = True
    nics.kernel.one(left_over(network.folder(adopted.config), state=journal.APPLIED))

    outcome = steps_net.raise_management(adopted)

    assert on(nics, "eth1") == set()
    assert on(nics, "xenbr0") == {"192.0.2.10/24"}
    assert nics.stood_down == 1
    assert any(told.startswith("undid what was left unfinished: a test") for told in outcome.warnings)


@pytest.mark.parametrize("moved_to", ["xenbr1", "xapi7"])
def test_a_move_that_was_broken_off_before_the_database_had_it_did_not_happen(adopted, nics, moved_to):
    """To another NIC, whose PIF has no address in the database; to a bond, which it does not know."""
    adopted.host.inventory = inventory.update(
        adopted.config.paths.inventory, {"MANAGEMENT_INTERFACE": moved_to}
    )
    path = adopted.config.paths.inventory
    assert Change(f"{path}#MANAGEMENT_INTERFACE", moved_to, "xenbr0") in steps_net.plan_management(adopted)

    outcome = steps_net.raise_management(adopted)

    assert f"the inventory named {moved_to} as the management interface" in outcome.warnings[0]
    assert adopted.host.inventory.management_interface == "xenbr0"
    assert inventory.read(path).management_interface == "xenbr0"
    assert on(nics, "xenbr0") == {"192.0.2.10/24"}
    assert pif(adopted, "eth0")["management"] is True


def test_a_management_interface_that_was_moved_by_hand_stays_where_it_has_an_address(adopted, nics):
    with adopted.host.database.write() as w:
        (ref,) = w.where("PIF", device="eth1")
        w.update("PIF", ref, {**STATIC, "IP": "198.51.100.7"})
    adopted.host.inventory = inventory.update(
        adopted.config.paths.inventory, {"MANAGEMENT_INTERFACE": "xenbr1"}
    )

    steps_net.raise_management(adopted)

    assert adopted.host.inventory.management_interface == "xenbr1"
    assert on(nics, "xenbr1") == {"198.51.100.7/24"}


def test_a_move_that_the_inventory_calls_unfinished_did_not_happen_though_its_target_has_an_address(
    adopted, nics
):
    with adopted.host.database.write() as w:
        (ref,) = w.where("PIF", device="eth1")
        w.update("PIF", ref, {**STATIC, "IP": "198.51.100.7"})
    network.set_management(adopted.config, adopted.host, "xenbr1", "IPv4", "xenbr0")

    steps_net.raise_management(adopted)

    assert adopted.host.inventory.management_interface == "xenbr0"
    assert on(nics, "xenbr0") == {"192.0.2.10/24"}
    assert adopted.host.inventory.values[network.FORMER] == ""


@pytest.mark.parametrize("content", [b"\0\0\0\0", b'{"version":99,"state":"applied"}\n'])
def test_a_journal_that_cannot_be_read_does_not_keep_the_management_interface_down(adopted, nics, content):
    folder = network.folder(adopted.config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / journal.NAME).write_bytes(content)
    aside = "journal.version-99" if b"99" in content else journal.DAMAGED
    assert Change(str(folder / journal.NAME), "(damaged)", "(set aside)") in steps_net.plan_management(
        adopted
    )

    outcome = steps_net.raise_management(adopted)

    assert on(nics, "xenbr0") == {"192.0.2.10/24"}
    assert (folder / aside).read_bytes() == content
    assert any(
        told.startswith("THE JOURNAL OF THE LAST NETWORK CHANGE WAS LOST") for told in outcome.warnings
    )


def test_somebody_who_changes_the_network_for_long_does_not_end_the_step(adopted, nics):
    folder = network.folder(adopted.config)
    left_over(folder, state=journal.BEGUN)
    holder = journal.Lock(folder, "interface-reconfigure", wait_s=0)
    step = adopted
    with holder:
        warnings: list[str] = []
        lock_s, steps_net.LOCK_S = steps_net.LOCK_S, 0.0
        try:
            assert steps_net._mend_journal(step, warnings, dry=False) == ()
        finally:
            steps_net.LOCK_S = lock_s

    assert "interface-reconfigure (pid" in warnings[0]


def test_a_whole_change_that_the_database_has_is_kept(adopted, nics):
    with adopted.host.database.read() as view:
        digest = state_of(steps_net.records_in(view, adopted, "xenbr0"))
    nics.kernel.one(left_over(network.folder(adopted.config), state=journal.APPLIED, digest=digest))

    outcome = steps_net.raise_management(adopted)

    assert on(nics, "eth1") == {"198.51.100.9/24"}
    assert Change("network change 'a test'", journal.APPLIED, "(kept)") in outcome.changes
    assert journal.pending(network.folder(adopted.config)) is None


def test_a_change_that_waits_for_its_confirmation_is_left_to_its_timer(synced, nics):
    nics.waits = True
    nics.kernel.one(left_over(network.folder(synced.config), state=journal.WAITING))

    assert not [one for one in steps_net.plan_management(synced) if "a test" in one.what]
    outcome = steps_net.raise_management(synced)

    assert not [one for one in outcome.changes if "a test" in one.what]
    assert on(nics, "eth1") == {"198.51.100.9/24"}


def test_while_a_change_waits_the_management_interface_is_left_as_it_is(adopted, nics):
    """It is not down: nothing else may be changed, and no rung of the ladder would help."""
    nics.waits = True
    left_over(network.folder(adopted.config), state=journal.WAITING)

    assert not [one for one in steps_net.plan_management(adopted) if "xenbr0" in one.what]
    outcome = steps_net.raise_management(adopted)

    assert nics.done == []
    assert any("a test waits for its confirmation" in told for told in outcome.warnings)


def test_a_change_of_an_earlier_boot_is_over_with_it(synced, nics):
    left_over(network.folder(synced.config), state=journal.APPLIED, boot="boot-0")

    steps_net.raise_management(synced)

    assert nics.done == []
    assert journal.pending(network.folder(synced.config)) is None
