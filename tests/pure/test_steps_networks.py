# mypy: disable-error-code="union-attr,attr-defined,arg-type,index"
# each test knows which outcome it has
"""The steps about PIFs, bridges and networks on a kernel with the rules of a real one."""

from __future__ import annotations

import pytest

from hostagent.net import journal, keys, leases_server
from hostagent.net.nics import FILE
from hostagent.net.operation import Operation
from hostagent.startup import network, steps_net, steps_networks
from hostagent.startup.step import Change, Changed, Skipped
from tests.pure.startup_database import rows
from tests.pure.startup_management import compared, links, pif
from tests.pure.startup_tree import context_of


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    """Hundreds of small files and rows, each made durable, take minutes on a busy disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)


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
    keys.check_network(record["other_config"])  # the range has not the end of another
    assert keys.of_network(record["other_config"]).last == "10.9.255.254"


def test_guests_get_addresses_from_the_start_where_the_internal_network_persists(synced, nics):
    steps_networks.make_internal_network(synced)
    with synced.host.database.write() as w:
        (ref,) = w.where("network", bridge="xenapi")
        config = w.get("network", ref, "other_config")
        w.update("network", ref, {"other_config": {**config, "persist": "true"}})

    steps_networks.raise_networks(synced)
    served = leases_server.Served("xenapi", "169.254.0.2", "169.254.255.254", "255.255.0.0")
    assert nics.served == {"xenapi": served}

    with synced.host.database.write() as w:
        w.update("network", ref, {"other_config": config})
    control = network.control_of(synced.config, synced.host)
    assert steps_networks.clean_bridges(control, nics.look()) == ("xenapi",)
    assert nics.served == {}


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


def a_bridge_of_another_program(nics, name):
    nics.kernel.one(Operation("link-add", name, 900, {"kind": "bridge", "up": True}))
    nics.address(name, "198.51.100.7")


def test_a_bond_that_would_remove_a_bridge_of_another_program_is_told_and_the_rest_comes_up(recorded, nics):
    a_bridge_of_another_program(nics, "xenbr1")
    with recorded.host.database.write() as w:
        bond, master = a_bond(w)
        w.update("PIF", master, {"managed": True})
        (eth1,) = w.where("PIF", device="eth1")
        w.update("PIF", eth1, {"bond_slave_of": bond})
        w.update("Bond", bond, {"primary_slave": eth1})
    steps_networks.mend_bonds_and_vlans(recorded)

    outcome = steps_networks.raise_networks(recorded)

    (told,) = outcome.warnings
    assert "xenbr1 was made by another program, and would be removed" in told
    assert {"xenbr0", "xenbr1", "xenbr2"} == {n for n, link in links(nics).items() if link.kind == "bridge"}
    assert [one.text for one in nics.kernel.addresses if one.device == 900] == ["198.51.100.7"]


def test_a_network_that_persists_leaves_the_bridge_of_another_program_alone(recorded, nics):
    a_bridge_of_another_program(nics, "virbr0")
    with recorded.host.database.write() as w:
        for name in ("virbr0", "xapi5"):
            w.create("network", {"name_label": name, "bridge": name, "other_config": {"persist": "true"}})
    planned = steps_networks.plan_networks(recorded)

    outcome = steps_networks.raise_networks(recorded)

    (told,) = outcome.warnings
    assert "has no bridge: virbr0 is there already, made by another program" in told
    assert [one.text for one in nics.kernel.addresses if one.device == 900] == ["198.51.100.7"]
    assert links(nics)["virbr0"].group == 0
    assert "xapi5" in links(nics)
    assert not any("virbr0" in change.what for change in planned)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_nic_that_is_missing_is_a_warning(recorded, nics, damaged):
    """Also where the list that says since when cannot be read: it must keep no network down."""
    del nics.kernel.links[3]
    if damaged:
        folder = network.folder(recorded.config)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text("[")

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
