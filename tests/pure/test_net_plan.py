"""Plans lead to what is wanted, in a safe order, and every step can be undone: in a kernel with a real one's rules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.net.affected import OccupiedError, VlanInUseError
from hostagent.net.devices import Dns, Lease, Wanted, WantedAddress, WantedRoute
from hostagent.net.plan import plan
from hostagent.net.resolv_conf import render
from hostagent.net.sysctl import Ipv6
from hostagent.net.verify import Around, differences
from tests.pure.net_plans import (
    ADDRESS,
    ALL,
    BOND,
    GATEWAY,
    LACP,
    PLAIN,
    TWO,
    VLANS,
    a_kernel,
    bond,
    bridge,
    carry_out,
    every_kill_can_be_undone,
    every_prefix_can_be_undone,
    nic,
    vlan,
)


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


def test_a_bond_that_looks_at_its_links_more_often_keeps_its_delays():
    kernel = a_kernel()
    carry_out(kernel, BOND)
    often = with_settings(BOND, miimon=50, updelay=500)

    carry_out(kernel, often)

    assert differences(often, kernel.look()) == ()


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
