"""What is known before a network change is begun: row by row of the failure catalogue."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from hostagent.net.checks import check
from hostagent.net.devices import Address, Kernel, Route
from hostagent.net.finding import DEGRADE, STOP
from hostagent.net.model import want
from tests.pure.net_records import DHCP, STATIC, Host, changes, kernel_of, link

MAC0, MAC1 = "02:00:00:00:00:00", "02:00:00:00:00:01"
NICS = (link(2, "eth0", mac=MAC0), link(3, "eth1", mac=MAC1))


def two_nics(**fields: Any) -> Host:
    host = Host()
    host.nic("eth0", **fields)
    host.nic("eth1")
    return host


def rows(host: Host, *up: str, **arguments: Any) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(each.row, each.severity, each.refs) for each in check(host.records(), up, **arguments)]


def one(host: Host, kernel: Kernel, *up: str, **arguments: Any):
    (finding,) = check(host.records(), up, kernel=kernel, **arguments)
    return finding


def test_nothing_is_found_where_all_is_well():
    host = two_nics(management=True, **STATIC)
    host.vlan("eth0", 5)
    ours = (link(5, "xenbr0", "bridge"), link(6, "eth0.5", "vlan", lower=2, vlan_id=5))

    assert rows(host, "eth0", "eth0.5", kernel=kernel_of(*NICS, *ours)) == []


def usable(up, findings):
    """What of `up` no finding stops."""
    stopped = {ref for finding in findings if finding.severity == STOP for ref in finding.refs}
    return tuple(ref for ref in up if ref not in stopped)


def test_a_stop_is_an_error_with_its_code_and_leaves_the_others_usable():
    host = two_nics(managed=False)

    findings = check(host.records(), ["eth0", "eth1"])

    assert usable(["eth0", "eth1"], findings) == ("eth1",)
    error = findings[0].error()
    assert (error.code, error.params) == ("PIF_UNMANAGED", ("eth0",))
    assert error.record()["hint"]


@pytest.mark.parametrize(("boot", "severity"), [(False, STOP), (True, DEGRADE)])
def test_half_a_configuration_is_refused_when_asked_for_and_taken_at_boot(boot, severity):
    host = two_nics(**{**STATIC, "gateway": "10.99.0.1"})

    assert rows(host, "eth0", boot=boot) == [(0, severity, ("eth0",))]


def test_row_8_balance_slb_stops_the_bond_and_what_lies_on_it():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"), mode="balance-slb")
    host.vlan("bond0", 5)

    assert rows(host, "bond0", "bond0.5") == [(8, STOP, ("bond0", "bond0.5"))]


@pytest.mark.parametrize(
    ("settings", "why"), [({"disable_ipv6": 1}, "switched off"), ({}, "this kernel has no IPv6")]
)
def test_row_66_ipv6_that_the_host_does_not_have(settings, why):
    host = two_nics(**STATIC)
    host.change("eth1", ipv6_mode="Autoconf")
    kernel = kernel_of(*NICS, link(1, "lo", ipv6=settings))

    finding = one(host, kernel, "eth0", "eth1")

    assert (finding.row, finding.severity, finding.refs, finding.code) == (
        66,
        STOP,
        ("eth1",),
        "PIF_CONFIGURATION_ERROR",
    )
    assert why in finding.found
    assert one(host, kernel, "eth1", boot=True).severity == DEGRADE
    assert rows(host, "eth0", kernel=kernel) == []
    with_it = kernel_of(*NICS, link(1, "lo", ipv6={"disable_ipv6": 0}))
    assert rows(host, "eth0", "eth1", kernel=with_it) == []


def test_row_12_members_with_addresses():
    host = two_nics(**STATIC)
    host.change("eth1", **DHCP)
    host.bond("bond0", ("eth0", "eth1"))

    (finding,) = check(host.records(), ["bond0"])

    assert (finding.row, finding.code, finding.params) == (12, "PIF_BOND_MORE_THAN_ONE_IP", ())
    assert "eth0 (10.1.0.2), eth1 (DHCP)" in finding.found

    host.change("eth1", ip_mode="None", ip="", ipv6_mode="Static", ipv6=("2001:db8::7/64",))
    (finding,) = check(host.records(), ["bond0"])
    assert "eth0 (10.1.0.2), eth1 (2001:db8::7/64)" in finding.found


@pytest.mark.parametrize("management", ["eth0", "eth0.5"])
def test_row_14_management_on_a_member_or_its_vlan(management):
    host = two_nics()
    host.vlan("eth0", 5)
    host.bond("bond0", ("eth0", "eth1"))
    host.change(management, management=True, currently_attached=True)

    (finding,) = check(host.records(), ["bond0"])

    assert (finding.row, finding.refs) == (14, ("bond0", management))
    assert (finding.code, finding.params) == ("PIF_IS_MANAGEMENT_INTERFACE", (management,))
    assert rows(host, "bond0", becoming_management="bond0") == []


def test_row_14_management_taken_down():
    host = two_nics(management=True, currently_attached=True)

    assert rows(host, down=["eth0"]) == [(14, STOP, ("eth0",))]
    assert rows(host, down=["eth0"], becoming_management="eth0") == [(14, STOP, ("eth0",))]
    assert rows(host, "eth1", down=["eth0"], becoming_management="eth1") == []


def test_row_16_an_mtu_that_the_nic_refuses():
    host = two_nics(network={"mtu": 9000})

    finding = one(host, kernel_of(link(2, "eth0", mac=MAC0, max_mtu=3498)), "eth0")

    assert (finding.row, finding.severity) == (16, STOP)
    assert "at most 3498" in finding.found


def test_row_17_a_vlan_above_what_it_lies_on():
    host = two_nics()
    host.vlan("eth0", 5, network={"mtu": 9000})

    assert rows(host, "eth0.5") == [(17, STOP, ("eth0.5",))]
    assert rows(host, "eth0.5", boot=True) == [(17, DEGRADE, ("eth0.5",))]


def test_row_21_a_tag_that_somebody_else_has():
    host = two_nics()
    host.vlan("eth0", 5)
    fcoe = link(9, "fcoe5", "vlan", lower=2, vlan_id=5, group=0)

    finding = one(host, kernel_of(*NICS, fcoe), "eth0.5")

    assert (finding.row, finding.code, finding.params) == (21, "VLAN_IN_USE", ("eth0", "5"))
    assert "fcoe5" in finding.found
    assert rows(host, "eth0.5", kernel=kernel_of(*NICS, fcoe._replace(vlan_id=6))) == []
    assert rows(host, "eth0.5", kernel=kernel_of(*NICS, fcoe._replace(lower=3))) == []


def test_row_26_a_nic_that_has_another_name():
    host = two_nics()
    moved = kernel_of(link(2, "eth7", mac=MAC0))
    swapped = kernel_of(link(2, "eth1", mac=MAC0), link(3, "eth0", mac=MAC1))

    for kernel, name in ((moved, "eth7"), (swapped, "eth1")):
        finding = one(host, kernel, "eth0", boot=True)
        assert (finding.row, finding.severity) == (26, STOP)
        assert f"now called {name}" in finding.found


def test_row_27_another_nic_in_its_place():
    host = two_nics()
    kernel = kernel_of(link(2, "eth0", mac="02:ff:00:00:00:00"))

    assert rows(host, "eth0", kernel=kernel) == [(27, STOP, ("eth0",))]
    assert rows(host, "eth0", kernel=kernel, boot=True) == [(27, DEGRADE, ("eth0",))]


def test_row_29_and_63_records_of_the_same_nic():
    host = two_nics(currently_attached=True)
    host.change("eth1", device="eth0", mac=MAC0)

    assert rows(host, "eth0") == [(63, DEGRADE, ("eth1", "eth0")), (29, DEGRADE, ("eth1", "eth0"))]


def test_row_30_a_nic_that_is_gone():
    host = two_nics()
    host.vlan("eth0", 5)

    assert rows(host, "eth0.5", "eth1", kernel=kernel_of(NICS[1])) == [(30, STOP, ("eth0.5",))]


def test_row_30_a_member_that_is_gone_only_degrades():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"))

    assert rows(host, "bond0", kernel=kernel_of(NICS[1])) == [(30, DEGRADE, ("bond0", "eth0"))]


def test_row_37_subnets_that_overlap():
    host = two_nics(currently_attached=True, management=True, **STATIC)
    host.change("eth1", **{**STATIC, "ip": "10.1.200.3", "netmask": "255.255.0.0"})

    assert rows(host, "eth1") == [(37, DEGRADE, ("eth0", "eth1"))]
    host.change("eth1", ip="10.2.0.3")
    assert rows(host, "eth1") == []


def test_row_37_a_wide_subnet_is_compared_with_all_in_it():
    host = Host()
    host.nic("eth0", **{**STATIC, "ip": "10.0.0.2", "netmask": "255.0.0.0", "gateway": ""})
    host.nic("eth1", **{**STATIC, "ip": "10.1.0.2", "gateway": ""})
    host.nic("eth2", **{**STATIC, "ip": "10.2.0.2", "gateway": ""})

    assert len(rows(host, "eth0", "eth1", "eth2")) == 2


def test_row_40_one_address_twice():
    host = two_nics(currently_attached=True, **STATIC)
    host.change("eth1", **STATIC)

    assert rows(host, "eth1") == [(40, STOP, ("eth1", "eth0"))]


def test_row_44_a_static_route_with_a_typing_error():
    host = two_nics(**STATIC, network={"other_config": {"static-routes": "10.8.0.0/99/10.1.0.1"}})

    assert rows(host, "eth0") == [(44, DEGRADE, ("eth0", "net-xenbr0"))]


def test_row_46_a_nic_that_another_program_has():
    host = two_nics()
    address = kernel_of(*NICS, addresses=(Address(2, "192.0.2.7", 24), Address(2, "fe80::1", 64, scope=253)))
    route = kernel_of(*NICS, routes=(Route(2, "default4", "192.0.2.1", protocol=16),))

    for kernel, word in ((address, "192.0.2.7/24"), (route, "default route over 192.0.2.1")):
        finding = one(host, kernel, "eth0")
        assert (finding.row, finding.severity) == (46, STOP)
        assert word in finding.found
        assert "net adopt" in finding.hint
    assert "fe80" not in one(host, address, "eth0").found
    assert rows(host, "eth1", kernel=address) == []


def test_row_46_a_nic_that_is_a_port_of_somebody_elses_bridge():
    host = two_nics()
    theirs = link(9, "br0", "bridge", group=0)
    nic = link(2, "eth0", mac=MAC0, master=9)

    assert one(host, kernel_of(nic, theirs), "eth0", boot=True).severity == STOP
    assert rows(host, "eth0", kernel=kernel_of(nic, theirs._replace(group=171))) == []


@pytest.mark.parametrize(
    ("there", "severity"),
    [
        (link(9, "xenbr0", "bridge", group=0), DEGRADE),
        (link(9, "xenbr0", "dummy", group=0), STOP),
        (link(9, "xenbr0"), STOP),
    ],
)
def test_row_46_a_name_that_another_program_has(there, severity):
    finding = one(two_nics(), kernel_of(*NICS, there), "eth0", boot=True)

    assert (finding.row, finding.severity) == (46, severity)


def test_row_57_no_carrier():
    host = two_nics()
    dark = link(2, "eth0", mac=MAC0, carrier=False)

    assert rows(host, "eth0", kernel=kernel_of(dark)) == [(57, DEGRADE, ("eth0",))]
    assert rows(host, "eth0", kernel=kernel_of(dark._replace(flags=0))) == []


def test_row_62_inventory_and_records():
    host = two_nics(management=True, **STATIC)

    (finding,) = check(host.records("xapi9"), ["eth0"])

    assert (finding.row, finding.severity) == (62, DEGRADE)
    assert check(host.records("xenbr0"), ["eth0"]) == ()


def test_a_network_that_others_manage_needs_their_bridge():
    host = two_nics(network={"managed": False})

    finding = one(host, kernel_of(*NICS), "eth0")

    assert (finding.code, finding.params) == ("BRIDGE_NOT_AVAILABLE", ("xenbr0",))
    assert rows(host, "eth0", kernel=kernel_of(*NICS, link(9, "xenbr0", "bridge", group=0))) == []


@given(changes())
def test_what_no_finding_stops_can_be_wanted(change):
    for kernel in (None, kernel_of(*NICS)):
        down = tuple(ref for ref in change.down if change.records.pifs[ref].managed)
        arguments: dict[str, Any] = {"down": down, "becoming_management": change.becoming_management}
        findings = check(change.records, change.up, kernel=kernel, boot=True, **arguments)
        rest = usable(change.up, findings)
        links = kernel.by_name() if kernel else None
        if any(finding.severity == STOP and not set(finding.refs) & set(change.up) for finding in findings):
            continue  # what stops `down` is not mended by leaving PIFs out of `up`
        want(change.records, rest, links=links, **arguments)


@given(changes())
def test_a_change_that_is_asked_for_is_stopped_by_all_that_degrades_the_boot_or_less(change):
    now = check(change.records, change.up, down=change.down)
    boot = check(change.records, change.up, down=change.down, boot=True)

    assert {each._replace(severity="") for each in now} == {each._replace(severity="") for each in boot}
    assert {each for each in boot if each.severity == STOP} <= set(now)
    assert all(each.refs and each.found and each.hint for each in now)
