# mypy: disable-error-code="union-attr,arg-type,index"
# each test knows which object it has
"""Records that follow the kernel: what is observed, and what events mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net.devices import Address, Kernel, Route
from hostagent.net.follow import Event
from hostagent.netctl import observed
from hostagent.netctl.observed import Speed, observe
from hostagent.netctl.status import taken_in
from tests.pure.net_records import DHCP, STATIC
from tests.pure.netctl_kernel import a_host, a_kernel


def test_attached_is_the_whole_chain():
    seen = observe(a_host(), a_kernel())

    assert {ref for ref, values in seen.pifs.items() if values["currently_attached"]} == {
        "eth0",
        "bond0",
        "bond0.5",
    }
    assert {ref for ref, values in seen.pifs.items() if values["management"]} == {"eth0"}
    assert (seen.pifs["bond0"]["MTU"], seen.pifs["bond0.5"]["MTU"]) == (9000, 1500)


@pytest.mark.parametrize(
    ("settings", "status"),
    [({"mcast_snooping": 1}, "enabled"), ({"mcast_snooping": 0}, "disabled"), ({}, "unknown")],
)
def test_multicast_snooping_is_that_of_the_bridge(settings, status):
    kernel = a_kernel()
    links = {
        index: one._replace(settings=settings) if one.kind == "bridge" else one
        for index, one in kernel.links.items()
    }

    seen = observe(a_host(), Kernel(links)).pifs

    assert seen["eth0"]["igmp_snooping_status"] == status
    assert {v["igmp_snooping_status"] for v in seen.values() if not v["currently_attached"]} == {"unknown"}


@pytest.mark.parametrize("missing", [11, 13, 14])
def test_a_chain_with_a_part_missing_is_not_attached(missing):
    kernel = a_kernel()
    links = {index: one for index, one in kernel.links.items() if index != missing}

    assert observe(a_host(), Kernel(links)).pifs["bond0.5"]["currently_attached"] is False


@pytest.mark.parametrize(("carrier", "links_up", "speed"), [(True, 2, 2000), (False, 1, 1000)])
def test_a_bond_has_the_carrier_of_its_members_and_the_speed_that_its_mode_adds_up_to(
    carrier, links_up, speed
):
    seen = observe(a_host(), a_kernel(carrier=carrier), speed=lambda _: Speed(1000, duplex=True))

    assert seen.metrics["bond0"] == {"carrier": True, "speed": speed, "duplex": True}
    assert seen.metrics["eth0"]["carrier"] is carrier
    assert seen.bonds["bond-bond0"] == {"links_up": links_up}
    assert "bond0.5" not in seen.metrics  # those of what it lies on


def test_addresses_of_dhcp_follow_the_kernel_and_go_with_it():
    kernel = a_kernel(
        addresses=[Address(10, "192.0.2.33", 24), Address(10, "fe80::1", 64, scope=253)],
        routes=[Route(10, "default4", "192.0.2.1", protocol=16, metric=1024)],
    )

    values = observe(a_host(**DHCP), kernel, servers=lambda bridge: "192.0.2.53").pifs["eth0"]
    found = (values["IP"], values["netmask"], values["gateway"])
    assert found == ("192.0.2.33", "255.255.255.0", "192.0.2.1")
    assert values["DNS"] == "192.0.2.53"
    assert observe(a_host(**DHCP), a_kernel()).pifs["eth0"]["IP"] == ""
    assert "IPv6" not in values


def test_what_an_operator_set_is_not_overwritten_by_what_is_there():
    kernel = a_kernel(addresses=[Address(10, "198.51.100.1", 24)])

    values = observe(a_host(**STATIC), kernel, servers=lambda _: "192.0.2.53").pifs["eth0"]

    assert set(values) == {"currently_attached", "management", "MTU", "igmp_snooping_status"}


def test_addresses_from_router_advertisements_are_recorded():
    kernel = a_kernel(
        addresses=[Address(10, "2001:db8::7", 64), Address(10, "fe80::1", 64, scope=253)],
        routes=[Route(10, "default6", "fe80::9", protocol=9, metric=1024)],
    )

    values = observe(a_host(ipv6_mode="Autoconf"), kernel, family="IPv6")

    assert values.pifs["eth0"]["IPv6"] == ["2001:db8::7/64"]
    assert values.pifs["eth0"]["ipv6_gateway"] == "fe80::9"
    assert values.address == "2001:db8::7"


def test_the_device_with_the_default_route_needs_an_address():
    routes = [Route(10, "default4", "192.0.2.1"), Route(12, "default4", "198.51.100.1", metric=5)]
    kernel = a_kernel(addresses=[Address(12, "198.51.100.7", 24)], routes=routes)

    assert observed.default_device(kernel) == "xapi0"
    assert observed.default_device(a_kernel(routes=routes)) == ""
    assert observed.default_device(a_kernel()) == ""


# --- events, pure ---


def test_events_that_tell_all_are_taken_in():
    kernel = a_kernel(routes=[Route(10, "default4", "192.0.2.1")])
    down = kernel.links[2]._replace(carrier=False)
    events = [
        Event(gone=False, what=down),
        Event(gone=False, what=Address(10, "192.0.2.9", 24)),
        Event(gone=True, what=Route(10, "default4", "192.0.2.1")),
        Event(gone=False, what=Route(10, "default4", "192.0.2.2")),
    ]

    after = taken_in(kernel, events)

    assert after.links[2].carrier is False
    assert after.addresses == (Address(10, "192.0.2.9", 24),)
    assert after.routes == (Route(10, "default4", "192.0.2.2"),)


def test_events_after_which_routes_may_be_gone_without_a_word_need_a_look():
    kernel = a_kernel(addresses=[Address(10, "192.0.2.9", 24)])

    assert taken_in(kernel, [Event(gone=True, what=kernel.links[13])]) is None
    assert taken_in(kernel, [Event(gone=False, what=kernel.links[2]._replace(flags=0))]) is None
    assert taken_in(kernel, [Event(gone=True, what=Address(10, "192.0.2.9", 24))]) is None


@given(
    st.lists(
        st.one_of(
            st.builds(
                Address,
                st.sampled_from([10, 12]),
                st.sampled_from(["192.0.2.1", "::1"]),
                st.just(24),
                valid_s=st.integers(0, 3),
            ),
            st.builds(
                Route,
                st.sampled_from([10, 12]),
                st.just("default4"),
                st.sampled_from(["192.0.2.1", "192.0.2.2"]),
            ),
        ),
        max_size=8,
    )
)
def test_what_is_told_twice_is_there_once(whats):
    events = [Event(gone=False, what=what) for what in whats]

    once, twice = taken_in(a_kernel(), events), taken_in(a_kernel(), [*events, *events])

    assert once == twice
    told = {(what.device, what.text): what for what in whats if isinstance(what, Address)}
    assert set(once.addresses) == set(told.values())  # the latest word counts
    assert set(once.routes) == {what for what in whats if isinstance(what, Route)}
