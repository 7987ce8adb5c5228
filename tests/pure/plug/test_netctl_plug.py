# mypy: disable-error-code="union-attr,arg-type"
# each test knows which object it has
"""Changes of objects carried out on a kernel with the rules of a real one, and undone when the database refuses."""

from __future__ import annotations

import contextlib

import pytest

from hostagent.errors import KernelError
from hostagent.net import history, journal
from hostagent.net.attached import attached
from hostagent.net.finding import FindingError
from hostagent.net.foreign_files import Owner
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.unfinished import state_of
from hostagent.netctl import merged, plug
from hostagent.netctl.plug import Network
from tests.pure.netctl_plugs import (
    Refused,
    a_host,
    a_host_without_vlan,
    bonded,
    raised,
    state,
)

# --- done, kept, undone ---


def test_a_change_that_is_left_whole_stays_and_tells_the_mtu(net, host, folder):
    records = a_host().records("xenbr0")

    with net.bring_up(records, ["eth0"], was=records) as mtus:
        assert journal.pending(folder).state == journal.APPLIED

    assert mtus == {"eth0": 1500}
    assert attached(records, host.look()) == {"eth0"}
    assert journal.pending(folder) is None
    (entry,) = history.read(folder)
    assert (entry.outcome, entry.what) == ("changed", "up eth0")


@pytest.mark.parametrize("error", [Refused, KeyboardInterrupt])
def test_a_change_that_the_database_does_not_take_is_undone(net, host, folder, error):
    before = state(host)
    records = a_host().records("xenbr0")

    with pytest.raises(error), net.bring_up(records, ["eth0"], was=records):
        raise error

    assert state(host) == before
    assert journal.pending(folder) is None
    assert [entry.outcome for entry in history.read(folder)] == ["rolled-back"]


def test_a_change_that_fails_in_the_middle_leaves_the_host_as_it_was(net, host, folder):
    before = state(host)
    host.fails = {"xapi101"}

    with (
        pytest.raises(KernelError),
        net.bring_up(a_host().records(), ["eth1.5"], was=a_host().records("xenbr0")),
    ):
        pytest.fail("it was entered")

    assert state(host) == before
    assert journal.pending(folder) is None


def test_what_is_right_is_not_touched(net, host, folder):
    records = a_host().records("xenbr0")
    raised(net, records, "eth0", "eth1", "eth1.5")
    done = len(host.done)

    raised(net, records, "eth0", "eth1", "eth1.5")

    assert len(host.done) == done
    assert net.planned(records, ["eth0", "eth1", "eth1.5"]).steps == ()
    assert len(history.read(folder)) == 1


def test_what_an_earlier_change_left_unfinished_is_undone_before_the_next(net, host, folder, tmp_path):
    records = a_host().records("xenbr0")
    raised(net, records, "eth0")
    before = state(host)
    opened = host.open(tmp_path)
    planned = net.planned(records, ["eth1.5"])
    journal.begin(folder, planned, boot=opened.boot, digest="", what="killed")
    host.execute([step.do for step in planned.steps if step.do.verb in ("link-add", "link-set")][:3])

    raised(net, records, "eth0")

    assert state(host) == before


def test_taking_a_vlan_down_leaves_what_it_lay_on(net, host):
    """Its chain is up, so that it is attached, whoever it was brought up for."""
    records = a_host().records("xenbr0")
    raised(net, records, "eth0", "eth1.5")

    with net.take_down(records, ["eth1.5"]):
        pass

    assert "xapi101" not in host.look().by_name()
    assert attached(records, host.look()) == {"eth0", "eth1"}


def test_taking_down_is_undone_too(net, host):
    records = a_host().records("xenbr0")
    raised(net, records, "eth1.5")
    before = state(host)

    with contextlib.suppress(Refused), net.take_down(records, ["eth1.5"]):
        raise Refused

    assert state(host) == before


def killed_in(folder, change):
    """The journal of a change as it is while the database gets it."""
    with contextlib.suppress(Refused), change:
        left = journal.pending(folder)
        raise Refused
    return left


def test_the_journal_of_what_goes_away_is_told_by_the_database_that_has_it_no_more(net, folder):
    made = a_host()
    records = made.records("xenbr0")
    raised(net, records, "eth0", "eth1.5")
    gone = a_host_without_vlan().records("xenbr0")

    left = killed_in(folder, net.take_down(records, ["eth1.5"], after=gone))

    assert left.digest == state_of(gone)
    assert left.digest != state_of(records)


def test_the_journal_of_an_unplugged_pif_is_told_by_its_being_detached(net, folder):
    records = a_host().records("xenbr0")
    raised(net, records, "eth1.5")
    pifs = {**records.pifs, "eth1.5": records.pifs["eth1.5"]._replace(currently_attached=True)}
    attached_ = records._replace(pifs=pifs)

    left = killed_in(folder, net.take_down(attached_, ["eth1.5"], after=records))

    assert left.digest == state_of(records) != state_of(attached_)


def test_what_the_database_cannot_tell_is_never_kept(net, folder):
    """Before and after the change it says the same."""
    records = a_host().records("xenbr0")

    left = killed_in(folder, net.bring_up(records, ["eth0"], was=records))

    assert left.digest == ""


@pytest.mark.parametrize("had", [True, False])
def test_a_whole_change_is_kept_by_the_next_one_where_the_database_has_it(net, host, folder, had):
    """The journal could not be marked when it had been made."""
    records = a_host().records("xenbr0")
    gone = a_host_without_vlan().records("xenbr0")
    raised(net, records, "eth0", "eth1.5")
    left = killed_in(folder, net.take_down(records, ["eth1.5"], after=gone))
    raised(net, records, "eth1.5")
    do = Operation("link-del", "xapi101", host.look().by_name()["xapi101"].ifindex)
    undo = Operation("link-add", "xapi102", 77, {"kind": "bridge", "group": 171})
    journal.begin(folder, Plan((Step(do, (undo,)),)), boot="boot-1", digest=left.digest, what="down")
    journal.mark(folder, journal.pending(folder)._replace(steps=(Step(do, (undo,)),)), journal.APPLIED)

    raised(net, gone if had else records, "eth0")

    assert ("xapi102" in host.look().by_name()) is not had
    assert journal.pending(folder) is None


# --- what another daemon has ---


def test_a_nic_that_another_daemon_has_is_refused_with_its_name(net, host):
    host.owned["eth1"] = (Owner("ifupdown", "eth1", files=("etc/network/interfaces",)),)
    records = a_host().records("xenbr0")

    with pytest.raises(FindingError, match="eth1 is configured by ifupdown") as caught:
        raised(net, records, "eth1.5")

    assert caught.value.params[0] == "eth1.5"
    assert "net adopt" in caught.value.hint
    assert host.done == []


def test_a_nic_that_is_ours_already_is_changed_whatever_old_files_say(net, host):
    records = a_host().records("xenbr0")
    raised(net, records, "eth1")
    host.owned["eth1"] = (Owner("ifupdown", "eth1"),)

    raised(net, records, "eth1.5")

    assert "eth1.5" in attached(records, host.look())


@pytest.mark.parametrize("boot", [False, True])
def test_a_nic_with_somebody_elses_address_is_refused_also_at_boot(net, host, boot):
    host.address("eth1", "198.51.100.7")
    records = a_host().records("xenbr0")

    with pytest.raises(FindingError, match=r"198\.51\.100\.7"):
        raised(Network(net._site, boot=boot), records, "eth1")

    assert host.done == []


def test_at_boot_less_is_better_than_nothing(net, host):
    host.kernel.links[3].permanent_mac = "02:00:00:00:00:99"  # another NIC in the place of eth1
    records = a_host().records("xenbr0")

    with pytest.raises(FindingError):
        raised(net, records, "eth1")
    raised(Network(net._site, boot=True), records, "eth1")

    assert "eth1" in attached(records, host.look())


def test_bridges_with_ports_and_those_of_others_are_not_removed(net, host):
    records = a_host().records("xenbr0")
    raised(net, records, "eth1")
    host.kernel.one(plug_bridge("br0", 900))

    assert net.remove_bridges(["xenbr1", "br0", "nothing"]) == ()

    assert {"xenbr1", "br0"} <= set(host.look().by_name())


def plug_bridge(name, index):
    from hostagent.net.operation import Operation

    return Operation("link-add", name, index, {"kind": "bridge"})


def test_a_vlan_device_of_somebody_else_is_told(net, host):
    from hostagent.net.operation import Operation

    host.kernel.one(Operation("link-add", "fcoe5", 901, {"kind": "vlan", "lower": 3, "vlan_id": 5}))

    assert net.foreign_vlans() == {("eth1", 5): "fcoe5"}


@pytest.mark.parametrize(
    ("mode", "refused"), [("active-backup", False), ("lacp", False), ("balance-slb", True)]
)
def test_a_bond_mode_that_the_kernel_has_not_is_refused_with_the_reason(net, mode, refused):
    assert bool(net.mode_refused(mode)) == refused


def test_records_of_before_and_after_in_one_say_what_is_attached_now(net, host):
    single, bond = a_host().records("xenbr0"), bonded()
    raised(net, single, "eth0")

    both = merged.together(bond, single, host.look())

    assert both.pifs["eth0"].currently_attached
    assert not both.pifs["bond0"].currently_attached
    assert both.pifs["eth0"].bond_slave_of
    assert plug.FOREIGN_ROW == 46
