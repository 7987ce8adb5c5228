# mypy: disable-error-code="union-attr,arg-type"
# each test knows which object it has
"""Changes of bonds, of the management interface and of internal networks on a kernel with the rules of a real one."""

from __future__ import annotations

import contextlib

import pytest

from hostagent.errors import KernelError
from hostagent.net import bring, journal
from hostagent.net.apply import RolledBackError
from hostagent.net.attached import attached
from hostagent.net.leases_server import Served
from hostagent.netctl.plug import Network
from tests.pure.netctl_plugs import Refused, a_host, bonded, raised, state

# --- bonds ---


def test_a_bond_takes_over_management_and_gives_it_back(net, host):
    single, bond = a_host().records("xenbr0"), bonded()
    raised(net, single, "eth0")
    before = state(host)

    with net.bring_up(bond, ["bond0"], was=single, down=["eth0"], becoming_management="bond0"):
        pass
    assert attached(bond, host.look()) == {"bond0"}
    assert "xenbr0" not in host.look().by_name()

    with net.bring_up(single, ["eth0"], was=bond, down=["bond0"], becoming_management="eth0"):
        pass
    links, addresses, routes = state(host)
    assert {name: links[name] for name in ("xenbr0", "eth0")} == {
        name: before[0][name] for name in ("xenbr0", "eth0")
    }
    assert (addresses, routes) == before[1:]
    assert "bond0" not in links


def test_guests_follow_to_the_bridge_of_the_bond(net, host):
    single, bond = a_host().records("xenbr0"), bonded()
    raised(net, single, "eth0")
    host.kernel.nic("vif1.0", 50, up=True)
    host.kernel.links[50].kind = "tun"
    host.kernel._enslave(host.kernel.links[50], host.look().by_name()["xenbr0"].ifindex)
    moved = {single.pifs["eth0"].network: bond.pifs["bond0"].network}

    with net.bring_up(bond, ["bond0"], was=single, down=["eth0"], becoming_management="bond0", moved=moved):
        pass

    links = host.look().by_name()
    assert links["vif1.0"].master == links["xapi0"].ifindex


def test_guests_move_between_networks_that_both_stay(net, host):
    records = a_host().records("xenbr0")
    raised(net, records, "eth1", "eth2")
    host.kernel.nic("vif1.0", 50, up=True)
    host.kernel.links[50].kind = "tun"
    links = host.look().by_name()
    host.kernel._enslave(host.kernel.links[50], links["xenbr1"].ifindex)
    moved = {records.pifs["eth1"].network: records.pifs["eth2"].network}

    with contextlib.suppress(Refused), net.bring_up(records, ["eth2"], was=records, moved=moved):
        assert host.look().by_name()["vif1.0"].master == links["xenbr2"].ifindex
        raise Refused

    assert host.look().by_name()["vif1.0"].master == links["xenbr1"].ifindex


# --- the management interface ---


def other_address():
    return a_host(ip="10.1.0.77", gateway="10.1.0.1").records("xenbr0")


def test_a_management_interface_whose_gateway_answers_is_changed_under_a_timer(net, host):
    records = a_host().records("xenbr0")
    raised(net, records, "eth0")

    with net.bring_up(other_address(), ["eth0"], was=records):
        assert (host.armed, host.disarmed) == (1, 0)

    assert host.disarmed == 1
    assert {probe.target for probe in host.asked} == {"10.1.0.1"}
    assert ("xenbr0", "10.1.0.77") in state(host)[1]


def test_a_change_that_loses_the_gateway_is_undone(net, host, folder, monkeypatch):
    records = a_host().records("xenbr0")
    raised(net, records, "eth0")
    before = state(host)
    answers = host.ask

    def only_the_first(probe):
        found = answers(probe)
        host.answers = False
        return found

    monkeypatch.setattr(host, "ask", only_the_first)

    with pytest.raises(RolledBackError, match=r"10\.1\.0\.1"):
        _change(net, other_address(), records)

    assert state(host) == before
    assert host.disarmed
    assert journal.pending(folder) is None


def _change(network, records, was):
    with network.bring_up(records, ["eth0"], was=was):
        pytest.fail("it was entered")


def test_a_gateway_that_was_silent_before_may_be_silent_after(net, host):
    records = a_host().records("xenbr0")
    raised(net, records, "eth0")
    host.answers = False

    with net.bring_up(other_address(), ["eth0"], was=records):
        pass

    assert ("xenbr0", "10.1.0.77") in state(host)[1]


def test_a_timer_that_was_faster_than_its_being_stopped_finds_nothing_to_undo(
    net, host, tmp_path, monkeypatch
):
    records = a_host().records("xenbr0")
    raised(net, records, "eth0")

    def late():
        raise KernelError("the confirmation came too late", hint="")

    monkeypatch.setattr(host, "disarm", late)

    with net.bring_up(other_address(), ["eth0"], was=records):
        pass
    after = state(host)

    assert bring.undo(host.open(tmp_path))["outcome"] == "nothing"
    assert state(host) == after


def test_listeners_follow_and_come_back(net, files):
    with net.listen("xapi0", "IPv6"):
        assert (files.management, files.former) == (("xapi0", "IPv6"), "xenbr0")
    assert (files.management, files.former) == (("xapi0", "IPv6"), "")
    with contextlib.suppress(Refused), net.listen("", "IPv6"):
        raise Refused

    assert files.management == ("xapi0", "IPv6")
    assert files.served == [("xapi0", "IPv6"), ("", "IPv6"), ("xapi0", "IPv6")]


def test_a_move_that_the_database_has_stands_though_the_inventory_cannot_say_so(net, files, caplog):
    files.full = True

    with net.listen("xapi0", "IPv4"):
        pass

    assert files.management == ("xapi0", "IPv4")
    assert "no space left" in caplog.text


def test_a_listener_that_cannot_be_leaves_the_former_one(net, files):
    files.fails = True

    with pytest.raises(KernelError), net.listen("xapi0", "IPv4"):
        pytest.fail("it was entered")

    assert files.management == ("xenbr0", "IPv4")
    assert files.served[-1] == ("xenbr0", "IPv4")


def test_at_boot_an_address_that_another_host_has_is_taken_and_told(net, host, caplog):
    host.held["10.1.0.77"] = "52:54:00:aa:aa:aa"
    booting = Network(net._site, boot=True)

    raised(booting, other_address(), "eth0")

    assert ("xenbr0", "10.1.0.77") in state(host)[1]
    assert "another host, 52:54:00:aa:aa:aa, has 10.1.0.77" in caplog.text
    assert host.announced == [("xenbr0", ("10.1.0.77",))]


# --- internal networks, looks ---


def test_an_internal_network_has_a_bridge_from_attach_to_detach(net, host):
    made = a_host()
    ref = made.network("xenapi", other_config={"is_host_internal_management_network": "true", "ip_begin": "169.254.0.1", "netmask": "255.255.0.0"})  # fmt: skip  # noqa: E501
    records = made.records()

    with net.attach(records, ref):
        pass
    assert ("xenapi", "169.254.0.1") in state(host)[1]
    with net.detach(records, ref):
        pass
    assert not net.has_bridge("xenapi")
    with net.detach(records, ref):  # none is right too
        pass


INTERNAL = {"is_host_internal_management_network": "true"}


def internal(**config):
    made = a_host()
    ref = made.network("xenapi", other_config={**INTERNAL, **config})
    return made.records("xenbr0"), ref


def attached_to(net, records, ref):
    with net.attach(records, ref, was=records):
        pass


def test_guests_of_the_internal_network_get_addresses_from_attach_to_detach(net, host):
    records, ref = internal(ip_begin="10.9.0.1", ip_end="10.9.0.9", netmask="255.255.255.0")

    attached_to(net, records, ref)
    assert host.served == {"xenapi": Served("xenapi", "10.9.0.2", "10.9.0.9", "255.255.255.0")}

    longer, _ = internal(ip_begin="10.9.0.1", ip_end="10.9.0.99", netmask="255.255.255.0")
    attached_to(net, longer, ref)  # the bridge is there
    assert host.served["xenapi"].last == "10.9.0.99"

    with net.detach(longer, ref):
        pass
    assert host.served == {}


def test_no_other_network_hands_addresses_out(net, host):
    made = a_host()
    refs = [
        made.network("xapi7", other_config={"ip_begin": "10.9.0.1"}),
        made.network("br7", managed=False, other_config=INTERNAL),
        made.network("xapi8", other_config={**INTERNAL, "ip_begin": "10.9.0.1", "ip_end": "10.9.0.1"}),
    ]
    records = made.records("xenbr0")

    for ref in refs:
        attached_to(net, records, ref)

    assert host.served == {}


@pytest.mark.parametrize("refused", [True, False])
def test_an_attach_that_is_refused_or_undone_hands_nothing_out(net, host, refused):
    records, ref = internal()
    host.fails = {"xenapi"} if refused else set()

    with pytest.raises(RolledBackError if refused else Refused), net.attach(records, ref, was=records):
        raise Refused

    assert host.served == {}
    assert not net.has_bridge("xenapi")


def test_a_detach_that_is_undone_goes_on_handing_out(net, host):
    records, ref = internal()
    attached_to(net, records, ref)
    before = dict(host.served)
    host.served.clear()  # as it ends with its bridge

    with pytest.raises(Refused), net.detach(records, ref):
        raise Refused

    assert net.has_bridge("xenapi")
    assert host.served == before


def test_without_a_server_the_bridge_is_made_and_that_is_told(net, host, caplog):
    records, ref = internal()
    host.no_server = True

    attached_to(net, records, ref)

    assert net.has_bridge("xenapi")
    assert "`dnsmasq` was not found (hint: apt-get install dnsmasq-base)" in caplog.text


def test_a_bridge_that_nobody_needs_takes_its_server_along(net, host):
    records, ref = internal()
    attached_to(net, records, ref)

    assert net.remove_bridges(["xenapi"], records) == ("xenapi",)
    assert host.served == {}


def test_nics_and_management_are_those_of_the_host(net):
    assert [nic.name for nic in net.nics()] == ["eth0"]
    assert (net.management_bridge(), net.management_address_type()) == ("xenbr0", "IPv4")
