"""Plans with addresses and routes that a DHCP client or routers gave."""

from __future__ import annotations

import pytest

from hostagent.net.devices import Address, Lease, Route, WantedAddress, WantedRoute
from hostagent.net.layers import routes_due
from hostagent.net.plan import plan
from hostagent.net.sysctl import Ipv6, ipv6_files
from hostagent.net.verify import FOREVER, Around, differences
from tests.pure.net_kernel import RefusedError
from tests.pure.net_plans import (
    ADDRESS,
    GATEWAY,
    PLAIN,
    a_kernel,
    carry_out,
    every_prefix_can_be_undone,
    netlink,
)

LEASE = Lease("xenbr0", 4, gateway=True, dns=True)
BY_DHCP = PLAIN._replace(addresses=(), routes=(), leases=(LEASE,))
OVER_DHCP = BY_DHCP._replace(routes=(WantedRoute("xenbr0", "10.9.0.0/16", "10.0.0.9"),))
NO_MODES = Around(ipv6=Ipv6(present=False, enabled=False))
DHCP, RA = 16, 9
CLIENTS = 0x280  # permanent, no route to its subnet


def with_client(*, valid_s=3600, text=ADDRESS):
    """A host whose xenbr0 has an address from dhcpcd, as that sets it."""
    kernel = a_kernel()
    carry_out(kernel, BY_DHCP)
    xenbr0 = kernel.look().by_name()["xenbr0"].ifindex
    kernel.addresses.append(Address(xenbr0, text, 24, CLIENTS if valid_s == FOREVER else 0x200, 0, valid_s))
    kernel.routes += [
        Route(xenbr0, "10.0.0.0/24", "", DHCP, 1024),
        Route(xenbr0, "default4", GATEWAY, DHCP, 1024),
    ]
    return kernel


def run(kernel, wanted, around, *, releases=True):
    """Carry out a plan with a DHCP client that takes its addresses along when it is told to stop."""
    made = plan(wanted, kernel.look(), around)
    for step in made.steps:
        if step.do.verb == "lease-stop" and releases:
            index = kernel.look().by_name()[step.do.device].ifindex
            for have in [a for a in kernel.addresses if a.device == index and a.flags & 0x200]:
                kernel._address_del(index, have.text, have.prefix)
            kernel.routes = [r for r in kernel.routes if r.device != index or r.protocol != DHCP]
        for operation in netlink([step]):
            try:
                kernel.execute([operation])
            except RefusedError as error:
                if not operation.verb.endswith("-del") or error.errno not in (19, 99, 3, 2):
                    raise
    return made


@pytest.mark.parametrize("valid_s", [3600, FOREVER])
def test_what_a_dhcp_client_set_is_right_with_its_lease(valid_s):
    kernel = with_client(valid_s=valid_s)
    around = NO_MODES._replace(leases=(LEASE,))

    assert differences(BY_DHCP, kernel.look(), around) == ()
    assert plan(BY_DHCP, kernel.look(), around).steps == ()


def test_what_dhcpv6_and_routers_gave_is_right_in_mode_dhcp():
    lease = Lease("xenbr0", 6, gateway=True, dns=False)
    of_routers = BY_DHCP.devices[1]._replace(ipv6="dhcp", ipv6_gateway=True)
    wanted = BY_DHCP._replace(leases=(lease,), devices=(BY_DHCP.devices[0], of_routers))
    kernel = a_kernel()
    carry_out(kernel, wanted)
    xenbr0 = kernel.look().by_name()["xenbr0"].ifindex
    kernel.addresses.append(Address(xenbr0, "fd00::77", 128, 0x200, 0, 3600))
    kernel.routes += [
        Route(xenbr0, "fd00::/64", "", RA, 1024),
        Route(xenbr0, "default6", "fe80::1", RA, 1024),
    ]
    around = NO_MODES._replace(leases=(lease,))
    assert plan(wanted, kernel.look(), around).steps == ()

    # the gateway is another's: what routers say of it is heeded no more before their route goes
    other = wanted._replace(devices=(wanted.devices[0], of_routers._replace(ipv6_gateway=False)))
    modes = dict(ipv6_files("xenbr0", "dhcp", gateway=True))
    made = run(kernel, other, Around(modes, leases=(lease,)))

    assert [(s.do.verb, s.do.args.get("destination")) for s in made.steps if s.do.device == "xenbr0"] == [
        ("sysctl", None),
        ("route-del", "default6"),
    ]
    assert [route.destination for route in kernel.routes] == ["fd00::/64"]


@pytest.mark.parametrize("releases", [True, False])
@pytest.mark.parametrize("valid_s", [3600, FOREVER])
def test_from_a_lease_to_the_same_address_for_ever(releases, valid_s):
    kernel = with_client(valid_s=valid_s)

    run(kernel, PLAIN, NO_MODES._replace(leases=(LEASE,)), releases=releases)

    assert differences(PLAIN, kernel.look(), NO_MODES) == ()
    assert [address.flags & 0x200 for address in kernel.addresses] == [0]


@pytest.mark.parametrize("releases", [True, False])
def test_what_is_left_of_a_client_that_was_told_to_stop_goes(releases):
    kernel = with_client()
    nobody = BY_DHCP._replace(leases=())

    made = run(kernel, nobody, NO_MODES._replace(leases=(LEASE,)), releases=releases)

    assert made.steps[0].do.verb == "lease-stop"
    assert (kernel.addresses, kernel.routes) == ([], [])


def test_a_client_that_loses_the_gateway_keeps_its_address_and_loses_the_default_route():
    kernel = with_client()
    other = LEASE._replace(gateway=False)

    made = run(kernel, BY_DHCP._replace(leases=(other,)), NO_MODES._replace(leases=(LEASE,)))

    assert [step.do.verb for step in made.steps] == ["lease-start", "route-del"]
    assert made.steps[0].undo[0] == made.steps[0].do._replace(args={**made.steps[0].do.args, "gateway": True})
    assert [address.text for address in kernel.addresses] == [ADDRESS]
    assert [route.destination for route in kernel.routes] == ["10.0.0.0/24"]


def test_dhcpv6_gives_way_to_the_same_address_with_another_prefix():
    kernel = a_kernel()
    carry_out(kernel, BY_DHCP)
    xenbr0 = kernel.look().by_name()["xenbr0"].ifindex
    kernel.addresses.append(Address(xenbr0, "fd00::77", 128, 0x200, 0, 3600))
    wanted = BY_DHCP._replace(leases=(), addresses=(WantedAddress("xenbr0", "fd00::77", 64),))

    every_prefix_can_be_undone(kernel, wanted)
    carry_out(kernel, wanted)

    assert differences(wanted, kernel.look()) == ()


def test_a_static_route_of_a_dhcp_bridge_waits_for_the_address_and_does_not_fail_the_plan():
    kernel = a_kernel()

    made = run(kernel, OVER_DHCP, NO_MODES)

    assert "lease-start" in [step.do.verb for step in made.steps]
    around = NO_MODES._replace(leases=(LEASE,))
    assert differences(OVER_DHCP, kernel.look(), around) == ()
    assert routes_due(OVER_DHCP, kernel.look()).steps == ()

    xenbr0 = kernel.look().by_name()["xenbr0"].ifindex
    kernel.addresses.append(Address(xenbr0, ADDRESS, 24, 0x200, 0, 3600))
    assert [one.what for one in differences(OVER_DHCP, kernel.look(), around)] == ["route"]
    due = routes_due(OVER_DHCP, kernel.look())
    assert due == plan(OVER_DHCP, kernel.look(), around)
    kernel.execute(netlink(due.steps))

    assert [(route.destination, route.gateway) for route in kernel.routes] == [("10.9.0.0/16", "10.0.0.9")]
    assert routes_due(OVER_DHCP, kernel.look()).steps == ()
    assert differences(OVER_DHCP, kernel.look(), around) == ()


def test_a_route_whose_gateway_the_lease_has_not_on_its_net_is_left_out():
    kernel = with_client(text="10.7.0.5")
    kernel.routes = []

    assert routes_due(OVER_DHCP, kernel.look()).steps == ()
    assert routes_due(PLAIN, kernel.look()).steps == ()
