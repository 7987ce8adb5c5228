"""Plans lead to what is wanted, in a safe order, and every step can be undone: in a kernel that has the rules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.net.affected import OccupiedError, VlanInUseError
from hostagent.net.devices import (
    GROUP,
    Address,
    Device,
    Dns,
    Lease,
    Route,
    Wanted,
    WantedAddress,
    WantedRoute,
)
from hostagent.net.layers import routes_due
from hostagent.net.model import want
from hostagent.net.plan import plan
from hostagent.net.resolv_conf import render
from hostagent.net.sysctl import Ipv6, ipv6_files
from hostagent.net.verify import FOREVER, Around, differences
from tests.pure.net_kernel import FakeKernel, RefusedError
from tests.pure.net_records import STATIC, Host

MAC = "52:54:00:00:00:{:02x}"


def nic(name, master="", *, mtu=1500, **more):
    return Device(name, "physical", master=master, mtu=mtu, **more)


def bridge(name, mac=1, *, mtu=1500, **more):
    return Device(name, "bridge", mac=MAC.format(mac), mtu=mtu, ipv6="link-local", **more)


def vlan(lower, tag, master, mac=1, *, mtu=1500):
    return Device(
        f"{lower}.{tag}", "vlan", mac=MAC.format(mac), mtu=mtu, master=master, lower=lower, vlan_id=tag
    )


def bond(name, master, mac=1, *, mtu=1500, **settings):
    values = {"mode": 1, "miimon": 100, "updelay": 31000, "downdelay": 200, **settings}
    return Device(name, "bond", mac=MAC.format(mac), mtu=mtu, master=master, settings=values)


ADDRESS, GATEWAY = "10.0.0.5", "10.0.0.1"


def with_address(name, *devices, gone=()):
    return Wanted(
        devices,
        (WantedAddress(name, ADDRESS, 24),),
        (WantedRoute(name, "default4", GATEWAY),),
        gone=gone,
    )


PLAIN = with_address("xenbr0", nic("eth0", "xenbr0"), bridge("xenbr0"))
VLANS = with_address(
    "xenbr0",
    nic("eth0", "xenbr0"),
    bridge("xenbr0"),
    bridge("xapi3"),
    vlan("eth0", 5, "xapi3"),
    gone=("bond0.5",),
)
MANAGEMENT_ON_VLAN = with_address(
    "xapi3", nic("eth0", "xenbr0"), bridge("xenbr0"), bridge("xapi3"), vlan("eth0", 5, "xapi3")
)
TWO = with_address("xenbr0", nic("eth0", "xenbr0"), nic("eth1", "xenbr1"), bridge("xenbr0"), bridge("xenbr1", 2),
    gone=("bond0", "xapi2", "bond0.5", "xapi3"))  # fmt: skip
BOND = with_address(
    "xapi2", nic("eth0", "bond0"), nic("eth1", "bond0"), bond("bond0", "xapi2"), bridge("xapi2"),
    bridge("xapi3"), vlan("bond0", 5, "xapi3"), gone=("xenbr0", "xenbr1", "eth0.5"),
)  # fmt: skip
LACP = BOND._replace(
    devices=tuple(
        d._replace(settings={**d.settings, "mode": 4, "ad_lacp_rate": 1, "ad_user_port_key": 3})
        if d.kind == "bond"
        else d
        for d in BOND.devices
    )
)
SLOW = BOND._replace(
    devices=tuple(
        d._replace(settings={**d.settings, "updelay": 0}) if d.kind == "bond" else d for d in BOND.devices
    )
)
JUMBO = BOND._replace(devices=tuple(d._replace(mtu=9000) for d in BOND.devices))
NOTHING = Wanted(
    (nic("eth0"), nic("eth1")), gone=("xenbr0", "xenbr1", "bond0", "xapi2", "xapi3", "eth0.5", "bond0.5")
)
ALL = {
    "plain": PLAIN, "vlans": VLANS, "management on vlan": MANAGEMENT_ON_VLAN, "two": TWO, "bond": BOND, "lacp": LACP,
    "slow": SLOW, "jumbo": JUMBO, "nothing": NOTHING,
}  # fmt: skip


def a_kernel(*, nics=2, promote=False):
    kernel = FakeKernel(promote=promote)
    for number in range(nics):
        kernel.nic(f"eth{number}", number + 1)
    return kernel


def netlink(steps):
    return [step.do for step in steps if step.do.verb.startswith(("link", "group", "address", "route"))]


def carry_out(kernel, wanted, around=None):
    made = plan(wanted, kernel.look(), around)
    kernel.execute(netlink(made.steps))
    return made


def take_back(kernel, steps):
    for step in reversed(steps):
        for operation in step.undo:
            if operation.verb.startswith(("link", "address", "route")):
                try:
                    kernel.execute([operation])
                except RefusedError as error:
                    if error.errno not in (17, 19, 99, 3, 2):
                        raise


def every_prefix_can_be_undone(kernel, wanted):
    before = kernel.look()
    made = plan(wanted, before)
    for count in range(len(made.steps) + 1):
        there = FakeKernel(before, promote=kernel.promote)
        there.execute(netlink(made.steps[:count]))
        take_back(there, made.steps[:count])
        assert there.look() == before, f"after {count} steps: {made.steps[:count]}"


@pytest.mark.parametrize("promote", [False, True])
@pytest.mark.parametrize("first", ALL)
@pytest.mark.parametrize("second", ALL)
def test_from_each_network_to_each_other_and_back_from_every_point(first, second, promote):
    kernel = a_kernel(promote=promote)
    carry_out(kernel, ALL[first])
    assert differences(ALL[first], kernel.look()) == ()

    every_prefix_can_be_undone(kernel, ALL[second])
    carry_out(kernel, ALL[second])

    assert differences(ALL[second], kernel.look()) == ()
    assert plan(ALL[second], kernel.look()).steps == ()


@st.composite
def networks(draw):
    """A consistent wish for three NICs: some bonded, tags on them, MTUs, and where the address is."""
    devices, uplinks, used = [], [], set()
    bonded = draw(st.sampled_from([(), ("eth0", "eth1"), ("eth1", "eth2"), ("eth0", "eth1", "eth2")]))
    if bonded:
        mtu = draw(st.sampled_from([1500, 4000, 9000]))
        mode = draw(st.sampled_from([1, 4]))
        more = {"ad_lacp_rate": draw(st.integers(0, 1)), "ad_user_port_key": 1} if mode == 4 else {}
        more["downdelay"] = draw(st.sampled_from([0, 200]))
        devices += [nic(name, "bond0", mtu=mtu) for name in bonded]
        devices += [bond("bond0", "xapi2", mtu=mtu, mode=mode, **more), bridge("xapi2", mtu=mtu)]
        uplinks.append(("bond0", "xapi2", mtu))
    for number in range(3):
        name = f"eth{number}"
        if name not in bonded and draw(st.booleans()):
            mtu = draw(st.sampled_from([1500, 9000]))
            devices += [nic(name, f"xenbr{number}", mtu=mtu), bridge(f"xenbr{number}", number + 1, mtu=mtu)]
            uplinks.append((name, f"xenbr{number}", mtu))
    for lower, _, mtu in tuple(uplinks):
        for tag in draw(st.sets(st.sampled_from([5, 6]))):
            if tag not in used:
                used.add(tag)
                own = draw(st.sampled_from([1500, mtu]))
                devices += [bridge(f"xapi{tag}", mtu=own), vlan(lower, tag, f"xapi{tag}", mtu=own)]
    bridges = [device.name for device in devices if device.kind == "bridge"]
    names = {device.name for device in devices}
    gone = tuple(name for name in EVERYTHING if name not in names)
    if not bridges or draw(st.integers(0, 5)) == 0:
        return Wanted(tuple(devices), gone=gone)
    where = draw(st.sampled_from(bridges))
    texts = draw(st.sets(st.sampled_from(["10.0.0.5", "10.0.0.6", "10.1.0.5"]), min_size=1))
    addresses = [WantedAddress(where, text, 24) for text in sorted(texts)]
    addresses += draw(st.sampled_from([[], [WantedAddress(where, "fd00::5", 64)]]))
    routes = [WantedRoute(where, "default4", sorted(texts)[0][:-1] + "1")]
    if len(addresses) > len(texts):
        routes.append(WantedRoute(where, "default6", "fd00::1"))
    return Wanted(tuple(devices), tuple(addresses), tuple(routes), gone=gone)


EVERYTHING = ["bond0", "xapi2", "xapi5", "xapi6", *(f"xenbr{n}" for n in range(3)),
    *(f"{lower}.{tag}" for lower in ("eth0", "eth1", "eth2", "bond0") for tag in (5, 6))]  # fmt: skip


@given(first=networks(), second=networks(), promote=st.booleans())
@settings(max_examples=60)
def test_any_network_becomes_any_other_and_can_go_back_from_every_point(first, second, promote):
    kernel = a_kernel(nics=3, promote=promote)
    carry_out(kernel, first)
    assert differences(first, kernel.look()) == ()
    kernel.nic("vif7.0", 70, up=True)
    foreign = kernel.look().links[70]
    every_prefix_can_be_undone(kernel, second)
    every_kill_can_be_undone(kernel, second)
    carry_out(kernel, second)

    assert differences(second, kernel.look()) == ()
    assert plan(second, kernel.look()).steps == ()
    assert kernel.look().links[70] == foreign


def every_kill_can_be_undone(kernel, wanted):
    """Killed after any step, all undone from the journal, and once more."""
    before = kernel.look()
    made = plan(wanted, before)
    for count in range(0, len(made.steps) + 1, 3):
        there = FakeKernel(before, promote=kernel.promote)
        there.execute(netlink(made.steps[:count]))
        for _ in range(2):
            take_back(there, made.steps)
            assert there.look() == before, f"killed after {count} steps"


# --- what is not ours, and the order ---


def test_a_foreign_device_in_the_place_of_a_wanted_one_is_named_and_nothing_is_planned():
    kernel = a_kernel()
    kernel.nic("xenbr0", 9)

    with pytest.raises(OccupiedError, match="xenbr0 is a NIC that is not ours where a bridge is wanted"):
        plan(PLAIN, kernel.look())


def test_a_foreign_vlan_with_the_wanted_tag_is_named():
    kernel = a_kernel()
    kernel.links[1].up = True
    kernel._link_add("fcoe5", 9, {"kind": "vlan", "lower": 1, "vlan_id": 5})

    with pytest.raises(VlanInUseError) as caught:
        plan(VLANS, kernel.look())
    assert caught.value.params == ("eth0", "5")


def test_a_stray_nic_leaves_our_bridge_and_a_guest_stays():
    kernel = a_kernel()
    carry_out(kernel, PLAIN)
    xenbr0 = kernel.look().by_name()["xenbr0"].ifindex
    kernel.nic("eth7", 7, up=True)
    kernel.nic("vif1.0", 8, up=True)
    kernel.links[7].master = kernel.links[8].master = xenbr0

    made = carry_out(kernel, PLAIN)

    assert [(step.do.device, dict(step.do.args)) for step in made.steps] == [("eth7", {"master": 0})]
    assert kernel.links[8].master == xenbr0


def test_guests_follow_the_uplink_of_a_bridge_that_goes():
    kernel = a_kernel()
    carry_out(kernel, TWO)
    kernel.nic("vif1.0", 8, up=True)
    kernel.links[8].master = kernel.look().by_name()["xenbr0"].ifindex

    every_prefix_can_be_undone(kernel, BOND)
    carry_out(kernel, BOND)

    assert kernel.links[8].master == kernel.look().by_name()["xapi2"].ifindex


def test_an_address_is_on_its_new_device_before_it_leaves_the_old_one_and_nics_move_after():
    kernel = a_kernel()
    carry_out(kernel, TWO)

    made = plan(BOND, kernel.look()).steps

    verbs = [(step.do.verb, step.do.device) for step in made]
    wanted = (("address-add", "xapi2"), ("route-add", "xapi2"), ("link-del", "xenbr0"))
    on, route, off = (verbs.index(one) for one in wanted)
    moves = [i for i, step in enumerate(made) if step.do.device in ("eth0", "eth1")]
    enslaved = verbs.index(("link-set", "eth0"), min(moves) + 1)
    assert on < route < min(moves) < off < enslaved


def test_a_nic_that_the_system_configured_gives_its_address_to_its_bridge():
    kernel = a_kernel()
    kernel.links[1].up = True
    kernel._address_add(kernel.links[1], {"text": ADDRESS, "prefix": 24, "valid_s": 3000})
    kernel._route_add(
        kernel.links[1], {"destination": "default4", "gateway": GATEWAY, "protocol": 16, "metric": 1024}
    )

    every_prefix_can_be_undone(kernel, PLAIN)
    carry_out(kernel, PLAIN)

    assert differences(PLAIN, kernel.look()) == ()
    assert [route.device for route in kernel.routes] == [kernel.look().by_name()["xenbr0"].ifindex]


def test_one_more_vlan_touches_nothing_that_is_there():
    kernel = a_kernel()
    carry_out(kernel, PLAIN)

    made = plan(VLANS, kernel.look())

    assert {step.do.device for step in made.steps} == {"xapi3", "eth0.5"}


def test_a_bond_changes_live_what_the_kernel_lets_and_goes_down_for_the_lacp_rate():
    kernel = a_kernel()
    carry_out(kernel, LACP)
    slow = with_settings(LACP, downdelay=300)
    rate = with_settings(LACP, ad_lacp_rate=0)

    assert [dict(s.do.args) for s in plan(slow, kernel.look()).steps] == [{"settings": {"downdelay": 300}}]
    assert [dict(s.do.args) for s in plan(rate, kernel.look()).steps] == [
        {"up": False},
        {"settings": {"ad_lacp_rate": 0}},
        {"up": True},
    ]


def with_settings(wanted, **settings):
    return wanted._replace(
        devices=tuple(
            d._replace(settings={**d.settings, **settings}) if d.kind == "bond" else d for d in wanted.devices
        )
    )


def test_what_cannot_be_is_left_out_and_told():
    kernel = a_kernel(nics=1)

    carry_out(kernel, BOND)

    assert {(d.device, d.what) for d in differences(BOND, kernel.look())} == {("eth1", "device")}


def test_leases_modes_and_dns_come_with_what_is_known_around():
    lease = Lease("xenbr0", 4, gateway=True, dns=True, hostname="h")
    wanted = PLAIN._replace(addresses=(), routes=(), leases=(lease,), dns=Dns(("10.0.0.1",), ("a.example",)))
    kernel = a_kernel()
    old = Lease("xenbr0", 4, gateway=False, dns=False)

    made = carry_out(kernel, wanted, Around(leases=(old,), resolver="old\n"))

    others = [
        (step.do.verb, dict(step.do.args))
        for step in made.steps
        if step.do.verb in ("lease-start", "lease-stop", "dns")
    ]
    assert others[0][0] == "lease-start"  # in place: what it was is its undo
    assert others[1][1] == {"before": "old\n", "after": render(wanted.dns)}
    first_up = next(i for i, s in enumerate(made.steps) if s.do.device == "xenbr0" and s.do.args.get("up"))
    assert any(s.do.args.get("path") == "net/ipv6/conf/xenbr0/disable_ipv6" for s in made.steps[:first_up])
    so = {step.do.args["path"]: step.do.args["value"] for step in made.steps if step.do.verb == "sysctl"}
    around = Around(sysctls=so, leases=(lease,), resolver=render(wanted.dns))
    assert plan(wanted, kernel.look(), around).steps == ()
    assert differences(wanted, kernel.look(), around) == ()


def test_a_kernel_without_ipv6_gets_no_modes():
    kernel = a_kernel()

    made = plan(PLAIN, kernel.look(), Around(ipv6=Ipv6(present=False, enabled=False)))

    assert {step.do.device for step in made.steps if step.do.verb == "link-add"} == {"xenbr0"}
    assert [step for step in made.steps if step.do.verb == "sysctl"] == []


# --- what a DHCP client and routers give ---

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


# --- bonds ---


@pytest.mark.parametrize("named", [True, False])
def test_vlans_that_move_to_a_bond_leave_none_behind_on_its_members(named):
    kernel = a_kernel()
    carry_out(kernel, VLANS)
    wanted = BOND if named else BOND._replace(gone=("xenbr0", "xenbr1"))

    every_prefix_can_be_undone(kernel, wanted)
    carry_out(kernel, wanted)

    assert "eth0.5" not in kernel.look().by_name()
    assert differences(wanted, kernel.look()) == ()


def test_a_bond_over_a_nic_with_a_vlan_takes_that_over_by_the_records():
    before = Host()
    before.nic("eth0", **STATIC)
    before.vlan("eth0", 5, bridge="xapi5")
    kernel = a_kernel()
    carry_out(kernel, want(before.records(), ["eth0", "eth0.5"]))
    after = Host()
    after.nic("eth0", currently_attached=True)
    after.nic("eth1")
    after.bond("bond0", ("eth0", "eth1"), bridge="xapi2", **STATIC)
    after.vlan("bond0", 5, bridge="xapi5", currently_attached=True)
    wanted = want(after.records(), ["bond0", "bond0.5"], links=kernel.look().by_name())
    assert "eth0.5" not in wanted.gone

    every_prefix_can_be_undone(kernel, wanted)
    carry_out(kernel, wanted)

    assert {name for name in kernel.look().by_name() if name[:3] not in ("eth", "lo")} == {
        "bond0",
        "bond0.5",
        "xapi2",
        "xapi5",
    }
    assert "eth0.5" not in kernel.look().by_name()
    assert differences(wanted, kernel.look()) == ()


def test_a_vlan_of_ours_on_a_member_is_told_and_goes_and_a_foreign_one_stays():
    kernel = a_kernel()
    carry_out(kernel, BOND)
    kernel._link_add("eth0.7", 90, {"kind": "vlan", "lower": 1, "vlan_id": 7, "group": GROUP})
    kernel._link_add("fcoe", 91, {"kind": "vlan", "lower": 1, "vlan_id": 9})

    assert [(d.device, d.what, d.found) for d in differences(BOND, kernel.look())] == [
        ("eth0", "vlan", "eth0.7")
    ]
    made = carry_out(kernel, BOND)

    assert [(step.do.verb, step.do.device) for step in made.steps] == [("link-del", "eth0.7")]


def test_a_vlan_that_moves_between_nics_is_deleted_where_it_was():
    kernel = a_kernel()
    carry_out(kernel, VLANS)
    moved = Wanted((nic("eth1", "xenbr1"), bridge("xenbr1", 2), bridge("xapi3"), vlan("eth1", 5, "xapi3")))

    every_prefix_can_be_undone(kernel, moved)
    carry_out(kernel, moved)

    assert "eth0.5" not in kernel.look().by_name()
    assert differences(moved, kernel.look()) == ()


def test_the_bond_that_loading_the_module_makes_makes_way():
    kernel = a_kernel()
    kernel._link_add("bond0", 5, {"kind": "bond"})

    every_prefix_can_be_undone(kernel, BOND)
    carry_out(kernel, BOND)

    assert kernel.look().by_name()["bond0"].group == GROUP
    assert [one.device for one in kernel.log if one.verb == "link-del"] == ["bond0"]
    assert differences(BOND, kernel.look()) == ()


def test_a_bond_of_others_that_is_in_use_is_taken_over_as_it_is():
    kernel = a_kernel()
    kernel._link_add("bond0", 5, {"kind": "bond", "settings": {"mode": 1}})
    kernel._link_set(kernel.links[1], {"master": 5})

    carry_out(kernel, BOND)

    assert kernel.look().by_name()["bond0"].ifindex == 5
    assert differences(BOND, kernel.look()) == ()


def test_a_primary_member_is_named_and_becomes_an_index():
    def with_primary(name):
        devices = [d._replace(primary=name) if d.kind == "bond" else d for d in BOND.devices]
        return BOND._replace(devices=tuple(devices))

    kernel = a_kernel()
    carry_out(kernel, TWO)
    every_prefix_can_be_undone(kernel, with_primary("eth1"))
    carry_out(kernel, with_primary("eth1"))
    assert kernel.look().by_name()["bond0"].settings["primary"] == 2
    assert differences(with_primary("eth1"), kernel.look()) == ()

    every_prefix_can_be_undone(kernel, with_primary("eth0"))
    made = carry_out(kernel, with_primary("eth0"))
    assert [dict(step.do.args) for step in made.steps] == [{"settings": {"primary": 1}}]
    assert [(d.what, d.wanted) for d in differences(with_primary("eth1"), kernel.look())] == [
        ("primary", "2")
    ]

    kernel = a_kernel()
    carry_out(kernel, BOND)
    every_prefix_can_be_undone(kernel, with_primary("eth1"))
    assert differences(with_primary("eth7"), kernel.look()) == ()


@pytest.mark.parametrize("slice_", [4, 200])
def test_many_vlans_go_together_and_come_back(monkeypatch, slice_):
    monkeypatch.setattr("hostagent.net.draft.SLICE", slice_)
    tags = range(10, 20)
    many = PLAIN._replace(
        devices=(
            *PLAIN.devices,
            *(bridge(f"xapi{tag}") for tag in tags),
            *(vlan("eth0", tag, f"xapi{tag}") for tag in tags),
        )
    )
    fewer = PLAIN._replace(gone=tuple(f"{what}{tag}" for tag in tags for what in ("eth0.", "xapi")))
    kernel = a_kernel()
    carry_out(kernel, many)
    kernel._link_add("fcoe", 91, {"kind": "vlan", "lower": 1, "vlan_id": 9})

    every_prefix_can_be_undone(kernel, fewer)
    every_kill_can_be_undone(kernel, fewer)
    made = carry_out(kernel, fewer)

    verbs = [step.do.verb for step in made.steps]
    assert (verbs.count("group-del"), verbs.count("link-del")) == (-(-len(tags) // slice_), len(tags))
    assert set(kernel.look().by_name()) == {"eth0", "eth1", "xenbr0", "fcoe"}
    assert differences(fewer, kernel.look()) == ()
