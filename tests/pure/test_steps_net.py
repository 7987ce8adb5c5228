# mypy: disable-error-code="union-attr,attr-defined,arg-type,index"
# each test knows which outcome it has
"""The steps about the network on a kernel with the rules of a real one: a stock host, an adopted one, failures."""

from __future__ import annotations

import dataclasses

import pytest

from hostagent.api import certificate
from hostagent.errors import KernelError
from hostagent.net import cache, early, journal
from hostagent.net.devices import Address, Kernel, Link
from hostagent.net.foreign_files import Owner
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.unfinished import state_of
from hostagent.netctl import observed
from hostagent.startup import network, steps_net, steps_networks
from hostagent.startup.role import supporter_of
from hostagent.startup.step import Change, Changed, Skipped, Unchanged
from hostagent.xen import inventory
from tests.pure.host_samples import HOST_UUID
from tests.pure.startup_database import rows
from tests.pure.startup_network import BOOT, nic_files
from tests.pure.startup_tree import Hooks, context_of, put

STATIC = {
    "ip_configuration_mode": "Static",
    "IP": "192.0.2.10",
    "netmask": "255.255.255.0",
    "gateway": "192.0.2.1",
}


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    """Hundreds of small files and rows, each made durable, take minutes on a busy disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def owners(monkeypatch):
    """NIC → the daemon that has it."""
    found: dict[str, Owner] = {}
    from hostagent.net import foreign

    monkeypatch.setattr(foreign, "owners", lambda nic, _root: (found[nic.name],) if nic.name in found else ())
    return found


@pytest.fixture
def nics(paths, network_host, owners):
    """eth0 to eth2."""
    for number in range(3):
        network_host.kernel.nic(f"eth{number}", number + 2, up=True)
        nic_files(paths.root, f"eth{number}", number + 2)
    return network_host


@pytest.fixture
def stock(nics, owners):
    """ifupdown has eth0, with the host's address."""
    nics.address("eth0", "192.0.2.10", gateway="192.0.2.1")
    owners["eth0"] = Owner(
        "ifupdown", "eth0", "Static", ("192.0.2.10/24",), files=("etc/network/interfaces",)
    )
    return nics


@pytest.fixture
def recorded(nics, synced):
    """PIFs of all NICs are there."""
    steps_networks.record_attachment(synced)
    return synced


@pytest.fixture
def adopted(recorded, nics):
    """eth0's PIF is the management interface, on xenbr0, with the address of STATIC; nothing is up yet."""
    with recorded.host.database.write() as w:
        (ref,) = w.where("PIF", device="eth0")
        w.update("PIF", ref, {**STATIC, "management": True})
    recorded.host.inventory = inventory.update(
        recorded.config.paths.inventory, {"MANAGEMENT_INTERFACE": "xenbr0"}
    )
    return recorded


def pif(context, device):
    return next(record for record in rows(context)["PIF"].values() if record["device"] == device)


def links(host):
    return host.look().by_name()


def on(host, name):
    """Addresses of a device."""
    index = links(host)[name].ifindex
    return {f"{one.text}/{one.prefix}" for one in host.look().addresses if one.device == index}


def compared(context, plan, run):
    """Plan, run, run again: the run does what the plan said, the second run nothing."""
    planned = plan(context)
    outcome = run(context)
    assert getattr(outcome, "changes", ()) == planned
    assert plan(context) == ()
    assert isinstance(run(context), Unchanged)
    return outcome


# --- a stock host: nothing was adopted ---


def test_a_stock_host_keeps_its_network_and_is_managed_where_its_address_is(stock, synced):
    before = stock.look()

    outcome = compared(synced, steps_net.plan_management, steps_net.raise_management)
    steps_networks.record_attachment(synced)
    steps_networks.raise_networks(synced)

    assert "eth0, 192.0.2.10" in outcome.note
    assert synced.host.inventory.management_interface == "eth0"
    after = stock.look()
    index = before.by_name()["eth0"].ifindex
    assert after.links[index] == before.links[index]
    assert [one for one in after.addresses if one.device == index] == list(before.addresses)
    assert set(before.routes) <= set(after.routes)
    assert not [operation for operation in stock.done if operation.device in ("eth0", "xenbr0")]


@pytest.fixture
def bridged(nics):
    """Somebody's own script has made a bridge that is called as ours would be, with the host's address."""
    nics.kernel.one(Operation("link-add", "xenbr0", 40, {"kind": "bridge", "up": True}))
    nics.kernel.one(Operation("link-set", "eth0", 2, {"master": 40}))
    nics.address("xenbr0", "192.0.2.10", gateway="192.0.2.1")
    return nics


def test_a_bridge_of_others_that_is_called_as_ours_keeps_its_address(bridged, synced):
    before = bridged.look()

    for _ in range(2):
        outcome = steps_net.raise_management(synced)
        steps_networks.record_attachment(synced)
        steps_networks.raise_networks(synced)

    assert synced.host.inventory.management_interface == "xenbr0"
    assert any("xenbr0 with 192.0.2.10 was made by another program" in told for told in outcome.warnings)
    after = bridged.look()
    assert {index: after.links[index] for index in (2, 40)} == {
        index: before.links[index] for index in (2, 40)
    }
    assert (after.addresses, after.routes) == (before.addresses, before.routes)


def test_the_unit_leaves_a_bridge_of_others_with_its_address(cached, paths):
    cached.kernel.one(Operation("link-add", "xenbr0", 40, {"kind": "bridge", "up": True}))
    cached.address("xenbr0", "198.51.100.1", gateway="198.51.100.254")
    before = cached.look()

    assert boot(cached, paths) == 0

    assert cached.look() == before


def test_a_management_interface_that_is_to_have_no_address_is_not_raised(adopted, nics):
    with adopted.host.database.write() as w:
        (ref,) = w.where("PIF", device="eth0")
        w.update("PIF", ref, {"ip_configuration_mode": "None", "ipv6_configuration_mode": "None"})

    steps_net.raise_management(adopted)

    assert "xenbr0" not in links(nics)


def test_nics_of_a_stock_host_that_nobody_has_get_their_bridges(stock, synced):
    steps_net.raise_management(synced)
    steps_networks.record_attachment(synced)

    outcome = compared(synced, steps_networks.plan_networks, steps_networks.raise_networks)

    assert {name for name, link in links(stock).items() if link.kind == "bridge"} == {"xenbr1", "xenbr2"}
    assert outcome.warnings == (), "that of another daemon has no settings here"
    assert [pif(synced, f"eth{n}")["currently_attached"] for n in range(3)] == [False, True, True]


def test_a_nic_that_has_settings_here_and_another_daemon_is_a_warning(stock, synced):
    steps_net.raise_management(synced)
    steps_networks.record_attachment(synced)
    with synced.host.database.write() as transaction:
        ref = next(ref for ref, record in transaction.records("PIF") if record["device"] == "eth0")
        transaction.set("PIF", ref, "ip_configuration_mode", "DHCP")

    outcome = steps_networks.raise_networks(synced)

    assert any("eth0 is configured by ifupdown" in told for told in outcome.warnings)


def test_a_nic_with_an_address_from_somewhere_is_left_alone_whoever_gave_it(nics, recorded):
    nics.address("eth1", "198.51.100.7")

    outcome = steps_networks.raise_networks(recorded)

    assert "xenbr1" not in links(nics)
    assert on(nics, "eth1") == {"198.51.100.7/24"}
    assert any("198.51.100.7" in told for told in outcome.warnings)


def test_a_management_interface_that_an_operator_has_disabled_is_not_chosen_again(stock, synced):
    network.set_management(synced.config, synced.host, "", "IPv4")

    assert not [one for one in steps_net.plan_management(synced) if "inventory" in one.what]
    assert "disabled" in steps_net.raise_management(synced).note
    network.set_management(synced.config, synced.host, "xenbr0", "IPv4")
    assert synced.host.inventory.values[network.DISABLED] == ""


def test_a_host_with_an_ipv6_address_alone_is_managed_by_it(nics, synced):
    nics.address("eth0", "2001:db8::10", 64, gateway="fe80::1")

    steps_net.raise_management(synced)

    assert synced.host.inventory.management_address_type is inventory.AddressType.IPV6


# --- S23 ---


def test_the_management_interface_comes_up_as_the_database_has_it(adopted, nics):
    outcome = compared(adopted, steps_net.plan_management, steps_net.raise_management)

    assert links(nics)["eth0"].master == links(nics)["xenbr0"].ifindex
    assert on(nics, "xenbr0") == {"192.0.2.10/24"}
    assert "xenbr0, 192.0.2.10" in outcome.note
    assert cache.read_verified(network.folder(adopted.config)).records.bridge == "xenbr0"


def test_a_supporter_raises_it_from_the_cache(adopted, nics, paths):
    steps_net.raise_management(adopted)
    links_before = set(links(nics))
    nics.kernel._link_del(nics.kernel._by_name("xenbr0"))
    state = dataclasses.replace(adopted.host, database=None, network=None, role=supporter_of("192.0.2.99"))
    alone = context_of(paths, state)

    steps_net.raise_management(alone)

    assert set(links(nics)) == links_before
    assert on(nics, "xenbr0") == {"192.0.2.10/24"}


def test_where_it_does_not_come_up_the_last_verified_generation_does(adopted, nics):
    steps_net.raise_management(adopted)
    with adopted.host.database.write() as w:
        (ref,) = w.where("PIF", device="eth0")
        (other,) = w.where("PIF", device="eth1")
        w.update("PIF", other, {**STATIC})
        w.update("PIF", ref, {"ip_configuration_mode": "None", "IP": ""})
        w.update("network", w.get("PIF", other, "network"), {"bridge": "xenbr7"})
    adopted.host.inventory = inventory.update(
        adopted.config.paths.inventory, {"MANAGEMENT_INTERFACE": "xenbr7"}
    )
    nics.fails = {"xenbr7"}

    outcome = steps_net.raise_management(adopted)

    assert any("rung 2" in told for told in outcome.warnings)
    assert on(nics, "xenbr0") == {"192.0.2.10/24"}


def test_a_management_interface_that_stays_down_fails_the_step_and_is_told_on_the_console(
    adopted, nics, paths
):
    (paths.root / "dev").mkdir()
    nics.fails = {"xenbr0"}

    with pytest.raises(KernelError, match="did not come up"):
        steps_net.raise_management(adopted)

    assert "rung 1" in (paths.root / "dev/console").read_text()
    assert "xenbr0" not in links(nics)


def left_over(folder, *, state, boot=BOOT, digest="other"):
    """A change that added an address to eth1, and was left in the middle."""
    do = Operation("address-add", "eth1", 3, {"text": "198.51.100.9", "prefix": 24})
    undo = Operation("address-del", "eth1", 3, {"text": "198.51.100.9", "prefix": 24})
    folder.mkdir(parents=True, exist_ok=True)
    made = journal.begin(folder, Plan((Step(do, (undo,)),)), boot=boot, digest=digest, what="a test")
    journal.progress(folder, 1)
    if state != journal.BEGUN:
        journal.mark(folder, made, state)
    return do


@pytest.mark.parametrize("state", [journal.BEGUN, journal.APPLIED, journal.WAITING])
def test_what_was_left_unfinished_is_undone_first_of_all(synced, nics, state):
    nics.kernel.one(left_over(network.folder(synced.config), state=state))

    outcome = compared(synced, steps_net.plan_management, steps_net.raise_management)

    assert on(nics, "eth1") == set()
    assert Change("network change 'a test'", state, "(undone)") in outcome.changes
    assert journal.pending(network.folder(synced.config)) is None
    assert nics.stood_down == 1


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

    steps_net.raise_management(adopted)

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


# --- HTTPS ---


@pytest.fixture
def served(monkeypatch):
    """Sockets and certificate of listeners."""
    monkeypatch.setattr("hostagent.api.tcp.listening_tcp", lambda address, port, _root: f"{address}:{port}")
    monkeypatch.setattr(certificate, "server_context", lambda *_: None)


def test_https_listens_on_the_address_of_the_management_interface(stock, synced, served):
    synced.host.hooks = Hooks()

    outcome = steps_net.raise_management(synced)

    assert synced.host.hooks.api.listeners == {"management": "192.0.2.10:443"}
    assert "HTTPS on 192.0.2.10:443" in outcome.note


def test_without_an_address_nothing_listens(adopted, nics, served):
    adopted.host.hooks = Hooks()
    adopted.host.hooks.api.listeners["management"] = "192.0.2.99:443"

    assert network.serve(adopted.config, adopted.host, "xenbr0", "IPv4") == ""

    assert adopted.host.hooks.api.listeners == {}


@pytest.mark.parametrize(
    ("flags", "found"), [(0xC0, ""), (0x88, ""), (0xC4, "2001:db8::7"), (0x80, "2001:db8::7")]
)
def test_an_ipv6_address_that_is_not_checked_is_no_management_address_yet(flags, found):
    link = Link(2, "xenbr0", "bridge", "52:54:00:00:00:01", 1500, 0, 0, 1, 0, carrier=True, operstate=6)
    kernel = Kernel({2: link}, (Address(2, "2001:db8::7", 64, flags),))

    assert observed.management_address(kernel, "xenbr0", "IPv6") == found


def test_an_ipv6_address_that_is_being_checked_is_waited_for_and_not_for_ever(synced, monkeypatch):
    link = Link(2, "xenbr0", "bridge", "52:54:00:00:00:01", 1500, 0, 0, 1, 0, carrier=True, operstate=6)
    checking = Kernel({2: link}, (Address(2, "2001:db8::7", 64, 0xC0),))
    looks = iter([checking, checking, checking._replace(addresses=(Address(2, "2001:db8::7", 64),))])
    waited: list[float] = []
    monkeypatch.setattr(network, "look", lambda _: next(looks, checking))
    monkeypatch.setattr(network, "wait", waited.append)

    assert network._address(synced.config, "xenbr0", "IPv6") == "2001:db8::7"
    assert len(waited) == 2
    assert network._address(synced.config, "xenbr0", "IPv6") == ""


def test_a_port_that_is_taken_is_a_warning(stock, synced, monkeypatch, served):
    def taken(*_):
        raise KernelError("port 443 is taken by nginx", hint="stop it")

    monkeypatch.setattr("hostagent.api.tcp.listening_tcp", taken)
    synced.host.hooks = Hooks()

    assert any("nginx" in told for told in steps_net.raise_management(synced).warnings)


# --- S28 ---


def test_a_fresh_host_gets_a_pif_for_each_nic(nics, synced):
    outcome = compared(synced, steps_networks.plan_attachment, steps_networks.record_attachment)

    assert {change.what for change in outcome.changes if change.new == "(made)"} == {
        *(f"PIF eth{n}" for n in range(3)),
        *(f"network Pool-wide network {n}" for n in range(3)),
    }
    assert pif(synced, "eth1")["MAC"] == "52:54:00:00:00:03"
    metrics = rows(synced)["PIF_metrics"][pif(synced, "eth0")["metrics"]]
    assert (metrics["carrier"], metrics["speed"], metrics["duplex"]) == (True, 10000, True)


def test_attached_is_what_the_kernel_has(adopted, nics):
    steps_net.raise_management(adopted)

    compared(adopted, steps_networks.plan_attachment, steps_networks.record_attachment)
    assert pif(adopted, "eth0")["currently_attached"] is True

    nics.kernel._release(nics.kernel._by_name("eth0"))  # the bridge stays, and leads nowhere
    steps_networks.record_attachment(adopted)
    assert pif(adopted, "eth0")["currently_attached"] is False


@pytest.mark.parametrize(
    ("key", "run", "plan"),
    [
        ("sync_pif_params", steps_networks.record_attachment, steps_networks.plan_attachment),
        ("sync_vlans", steps_networks.mend_bonds_and_vlans, steps_networks.plan_bonds_and_vlans),
    ],
)
def test_an_operator_skips_an_item(nics, synced, key, run, plan):
    with synced.host.database.write() as w:
        w.add_to_map("pool", w.the_only("pool"), "other_config", key, "nosync")

    assert isinstance(run(synced), Skipped)
    assert plan(synced) == ()


def a_bond(w, device="bond0"):
    host = w.refs("host")[0]
    net = w.create("network", {"name_label": device, "bridge": "xapi9"})
    master = w.create("PIF", {"device": device, "host": host, "network": net, "VLAN": -1})
    return w.create("Bond", {"master": master, "mode": "active-backup"}), master


def test_bonds_and_vlans_are_made_whole(recorded):
    with recorded.host.database.write() as w:
        (eth1,), (eth2,) = w.where("PIF", device="eth1"), w.where("PIF", device="eth2")
        bond, master = a_bond(w)
        a_bond(w, "bond7")
        for member in (eth1, eth2):
            w.update("PIF", member, {"bond_slave_of": bond, "currently_attached": member == eth2})
        net = w.create("network", {"name_label": "v", "bridge": "xapi5"})
        values = {"device": "old", "host": w.refs("host")[0], "network": net, "VLAN": 5}
        upper = w.create("PIF", values)
        w.create("VLAN", {"tagged_PIF": master, "untagged_PIF": upper, "tag": 5})

    outcome = compared(recorded, steps_networks.plan_bonds_and_vlans, steps_networks.mend_bonds_and_vlans)

    assert {change.what for change in outcome.changes} >= {
        "Bond bond0.primary_slave",
        "PIF eth2.currently_attached",
        "PIF bond0 tag 5.device",
    }
    assert any("bond7 has no member" in told for told in outcome.warnings)
    assert rows(recorded)["PIF"][upper]["device"] == "bond0"


def test_a_pif_with_a_tag_gets_its_vlan_back(recorded):
    with recorded.host.database.write() as w:
        net = w.create("network", {"name_label": "v", "bridge": "xapi5"})
        host = w.refs("host")[0]
        upper = w.create("PIF", {"device": "eth1", "host": host, "network": net, "VLAN": 5})
        w.create("PIF", {"device": "gone", "host": host, "network": net, "VLAN": 6})

    outcome = compared(recorded, steps_networks.plan_vlans, steps_networks.recreate_vlans)

    assert outcome.changes == (Change("VLAN 5 on eth1", None, "(made)"),)
    (vlan,) = rows(recorded)["VLAN"].values()
    assert (vlan["untagged_PIF"], vlan["tag"]) == (upper, 5)
    assert rows(recorded)["PIF"][vlan["tagged_PIF"]]["device"] == "eth1"


# --- S42 ---


def test_bridges_that_nobody_needs_go_and_the_others_stay(adopted, nics):
    steps_net.raise_management(adopted)
    steps_networks.raise_networks(adopted)
    control = network.control_of(adopted.config, adopted.host)
    with adopted.host.database.write() as w:
        refs = {
            name: w.create("network", {"name_label": name, "bridge": name, "other_config": config})
            for name, config in (("xapi1", {}), ("xapi2", {"persist": "true"}))
        }
    for ref in refs.values():
        with adopted.host.database.read() as view:
            records = control.records(view)
        with control.effect.attach(records, ref):
            pass
    index = links(nics)["xenbr2"].ifindex
    nics.kernel._release(nics.kernel._by_name("eth2"))

    gone = steps_networks.clean_bridges(control, nics.look())

    assert gone == ("xapi1",)
    assert {"xenbr0", "xenbr1", "xapi2"} <= set(links(nics))
    assert nics.look().links[index].name == "xenbr2"  # a PIF's, though nothing is plugged in
    assert steps_networks.clean_bridges(control, nics.look()) == ()


def test_only_the_daemon_has_the_clean_up(synced):
    assert isinstance(steps_networks.start_network_jobs(synced), Skipped)


# --- S46 ---


def test_there_is_one_internal_network(synced):
    compared(synced, steps_networks.plan_internal_network, steps_networks.make_internal_network)

    (found,) = [one for one in rows(synced)["network"].values() if one["bridge"] == "xenapi"]
    assert found["other_config"]["ip_begin"] == "169.254.0.1"


def test_what_an_operator_gave_to_the_internal_network_stays(synced):
    steps_networks.make_internal_network(synced)
    with synced.host.database.write() as w:
        (ref,) = w.where("network", bridge="xenapi")
        config = {"ip_begin": "10.9.0.1", "is_host_internal_management_network": "true"}
        w.update("network", ref, {"other_config": config, "name_label": "mine"})

    steps_networks.make_internal_network(synced)

    record = rows(synced)["network"][ref]
    assert (record["name_label"], record["other_config"]["ip_begin"]) == ("mine", "10.9.0.1")
    assert record["other_config"]["netmask"] == "255.255.0.0"


# --- S47 ---


def test_networks_come_up_and_are_recorded(adopted, nics):
    steps_net.raise_management(adopted)

    compared(adopted, steps_networks.plan_networks, steps_networks.raise_networks)

    assert [pif(adopted, f"eth{n}")["currently_attached"] for n in (1, 2)] == [True, True]
    assert journal.pending(network.folder(adopted.config)) is None


def test_one_network_that_fails_stops_no_other(recorded, nics):
    nics.fails = {"xenbr1"}

    outcome = steps_networks.raise_networks(recorded)

    assert {name for name, link in links(nics).items() if link.kind == "bridge"} == {"xenbr0", "xenbr2"}
    assert len(outcome.warnings) == 1
    assert "xenbr1" in outcome.warnings[0]


def test_a_nic_that_is_missing_is_a_warning(recorded, nics):
    del nics.kernel.links[3]

    outcome = steps_networks.raise_networks(recorded)

    assert any("the NIC eth1 is missing" in told for told in outcome.warnings)
    assert {"xenbr0", "xenbr2"} <= set(links(nics))


def test_a_management_interface_that_differs_is_left_to_s23(adopted, nics):
    outcome = steps_networks.raise_networks(adopted)

    assert isinstance(outcome, Changed)
    assert "xenbr0" not in links(nics)


def test_a_plan_holds_where_its_row_says(adopted, nics, paths):
    held: list[str] = []
    context = context_of(paths, adopted.host, held=held)

    steps_net.raise_management(context)
    steps_networks.raise_networks(context)

    assert held == ["plan-begun", "plan-applied", "plan-begun", "plan-applied", "rows-written"]


# --- hostagent-network.service ---


def boot(nics, paths):
    """As the unit runs it, below a root of its own."""
    return early.main(paths.root, open_host=lambda root, _bridge: nics.open(root / early.STATE))


@pytest.fixture
def cached(adopted, nics, paths):
    """What the daemon left on the disk, for a root."""
    steps_net.raise_management(adopted)
    source = network.folder(adopted.config) / cache.NEWEST
    put(paths.root / early.STATE / "net" / cache.NEWEST, source.read_text())
    put(paths.root / "etc/hostagent/inventory", f"INSTALLATION_UUID='{HOST_UUID}'\n")
    nics.kernel._link_del(nics.kernel._by_name("xenbr0"))
    return nics


def test_the_unit_raises_the_management_interface_from_the_cache_alone(cached, paths):
    assert boot(cached, paths) == 0

    assert on(cached, "xenbr0") == {"192.0.2.10/24"}


def test_the_unit_leaves_a_nic_to_the_daemon_that_has_it(cached, paths, owners):
    owners["eth0"] = Owner("NetworkManager", "eth0", "DHCP")

    assert boot(cached, paths) == 0

    assert "xenbr0" not in links(cached)


def test_without_a_cache_the_unit_changes_nothing(nics, paths):
    assert boot(nics, paths) == 0

    assert nics.done == []


def test_the_unit_undoes_nothing_of_the_kernel_after_a_power_cut_and_ends_the_journal(cached, paths):
    folder = paths.root / early.STATE / "net"
    left_over(folder, state=journal.BEGUN, boot="boot-0")

    assert boot(cached, paths) == 0

    assert journal.pending(folder) is None


@pytest.mark.parametrize("content", [b"", b"\0" * 9, b'{"version":0,"state":"begun"}\n'])
def test_the_unit_raises_it_whatever_the_journal_holds(cached, paths, content, capsys):
    folder = paths.root / early.STATE / "net"
    (folder / journal.NAME).write_bytes(content)

    assert boot(cached, paths) == 0

    assert on(cached, "xenbr0") == {"192.0.2.10/24"}
    assert "THE JOURNAL OF THE LAST NETWORK CHANGE WAS LOST" in capsys.readouterr().out


def test_the_unit_raises_it_though_an_undo_fails(cached, paths, capsys):
    folder = paths.root / early.STATE / "net"
    do = left_over(folder, state=journal.APPLIED)
    left = journal.pending(folder)
    never = Operation("address-add", "eth9", 99, {"text": "198.51.100.9", "prefix": 24})
    journal.mark(folder, left._replace(steps=(Step(do, (never,)),)), journal.UNDO_FAILED)

    assert boot(cached, paths) == 0

    assert on(cached, "xenbr0") == {"192.0.2.10/24"}
    assert "UNDOING WHAT WAS LEFT UNFINISHED HAS FAILED IN PART" in capsys.readouterr().out
    assert journal.pending(folder) is None


def test_the_unit_waits_for_nics_that_come_late(cached, paths):
    late = cached.kernel.links.pop(2)
    waited = cached.wait

    def wait(seconds):
        waited(seconds)
        cached.kernel.links[2] = late

    cached.wait = wait

    assert boot(cached, paths) == 0
    assert on(cached, "xenbr0") == {"192.0.2.10/24"}


def test_a_management_interface_that_the_unit_cannot_raise_fails_it(cached, paths):
    cached.fails = {"xenbr0"}

    assert boot(cached, paths) == 1


def test_the_last_resort_uses_only_listed_nics(cached, paths):
    """Rung 3: the same address on a listed NIC alone."""
    put(paths.root / "etc/hostagent/hostagent.toml", '[net]\nemergency-nics = ["eth2"]\n')
    cached.fails = {"xenbr0"}

    assert boot(cached, paths) == 0

    assert on(cached, "xenbr2") == {"192.0.2.10/24"}
    assert cache.read(paths.root / early.STATE / "net").cached.records.bridge == "xenbr0"
