"""Links, addresses and routes that we make, in a network namespace of the test's own; iproute2 says what is there."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hostagent.net.devices import Address, Route
from hostagent.net.follow import Follower
from hostagent.net.netlink import Netlink, NetlinkError
from hostagent.net.operation import Operation
from tests.netns.netlink_links import BRIDGE, SOON_S, A, B, add, change, device, ip, ip_json, link

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.net.devices import Kernel
    from hostagent.net.operation import Value


def test_a_bridge_is_there_as_asked_for_in_one_message(netlink: Netlink) -> None:
    netlink.execute([BRIDGE])

    seen = device("xapi1")
    data = seen["linkinfo"]["info_data"]
    assert (seen["ifindex"], seen["address"], seen["mtu"], seen["group"]) == (
        A,
        "02:00:00:00:00:01",
        1400,
        "171",
    )
    assert "UP" in seen["flags"]
    assert seen["linkinfo"]["info_kind"] == "bridge"
    assert (data["forward_delay"], data["mcast_snooping"], data["priority"], data["ageing_time"]) == (
        0,
        0,
        4096,
        12000,
    )


def test_a_look_says_what_ip_says(netlink: Netlink) -> None:
    ip("link", "add", "veth0", "mtu", "1300", "type", "veth", "peer", "name", "veth1")
    netlink.execute([BRIDGE, change("link-set", "xapi1", A, altname="network-of-the-guests")])
    ip("link", "set", "veth0", "master", "xapi1", "up")
    ip("link", "set", "veth1", "up")

    deadline = time.monotonic() + SOON_S
    kernel, seen = netlink.look(), ip_json("-d", "link")
    while (after := netlink.look()) != kernel and time.monotonic() < deadline:  # carrier comes when it does
        kernel, seen = after, ip_json("-d", "link")
    assert after == kernel
    _assert_they_say_the_same(kernel, {entry["ifindex"]: entry for entry in seen})


def _assert_they_say_the_same(kernel: Kernel, seen: dict[int, dict[str, Any]]) -> None:
    assert kernel.links.keys() == seen.keys()
    for index, ours in kernel.links.items():
        theirs = seen[index]
        assert (ours.name, ours.mtu, ours.mac) == (theirs["ifname"], theirs["mtu"], theirs["address"])
        assert ours.kind == theirs.get("linkinfo", {}).get("info_kind", "")
        assert (ours.min_mtu, ours.max_mtu) == (theirs["min_mtu"], theirs["max_mtu"])
        assert list(ours.altnames) == theirs.get("altnames", [])
        assert bool(ours.flags & 1) == ("UP" in theirs["flags"])
        assert ours.carrier == ("LOWER_UP" in theirs["flags"]) or ours.name == "lo"
        assert (kernel.links[ours.master].name if ours.master else None) == theirs.get("master")
    data = seen[A]["linkinfo"]["info_data"]
    ours_too = {name: value for name, value in kernel.links[A].settings.items() if name in data}
    assert {name: int(str(data[name]), 0) for name in ours_too} == ours_too
    assert {"forward_delay", "ageing_time", "mcast_snooping", "priority"} <= kernel.links[A].settings.keys()


def test_a_link_is_changed_in_place(netlink: Netlink) -> None:
    netlink.execute([BRIDGE])
    netlink.execute(
        [
            change(
                "link-set",
                "xapi1",
                A,
                up=False,
                mac="02:00:00:00:00:09",
                mtu=9000,
                group=5,
                settings={"forward_delay": 200},
            )
        ]
    )

    seen = device("xapi1")
    assert (seen["address"], seen["mtu"], seen["group"]) == ("02:00:00:00:00:09", 9000, "5")
    assert "UP" not in seen["flags"]
    assert seen["linkinfo"]["info_data"]["forward_delay"] == 200
    assert seen["linkinfo"]["info_data"]["ageing_time"] == 12000


def test_a_port_joins_and_leaves(netlink: Netlink) -> None:
    ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    port = link(netlink, "veth0").ifindex
    netlink.execute([BRIDGE, change("link-set", "veth0", port, master=A, up=True)])
    assert device("veth0")["master"] == "xapi1"

    netlink.execute([change("link-set", "veth0", port, master=0)])
    assert "master" not in device("veth0")
    assert "UP" in device("veth0")["flags"]


def test_alternative_names_come_and_go(netlink: Netlink) -> None:
    long = "enp129s0f1np1.4094-of-the-second-floor"
    netlink.execute(
        [BRIDGE, change("link-set", "xapi1", A, altname=long), change("link-set", "xapi1", A, altname="b")]
    )
    assert sorted(device(long)["altnames"]) == ["b", long]

    netlink.execute([change("link-set", "xapi1", A, altname_gone=long)])
    assert device("xapi1")["altnames"] == ["b"]


def test_the_address_generation_mode_holds_when_it_comes_with_up(netlink: Netlink) -> None:
    if not Path("/proc/sys/net/ipv6").exists():
        pytest.skip("the kernel has no IPv6")
    ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    ip("link", "set", "veth1", "up")
    port = link(netlink, "veth0").ifindex
    netlink.execute([change("link-set", "veth0", port, addrgen=1, up=True)])

    assert device("veth0")["inet6_addr_gen_mode"] == "none"
    assert [address for address in netlink.look().addresses if address.device == port] == []
    other = link(netlink, "veth1").ifindex
    assert [address.scope for address in netlink.look().addresses if address.device == other] == [253]


def test_a_deleted_link_is_gone(netlink: Netlink) -> None:
    netlink.execute([BRIDGE, change("link-del", "xapi1", A)])

    assert [entry["ifname"] for entry in ip_json("link")] == ["lo"]


def test_addresses_come_and_go(netlink: Netlink) -> None:
    netlink.execute(
        [
            BRIDGE,
            change("address-add", "xapi1", A, text="192.0.2.1", prefix=24),
            change("address-add", "xapi1", A, text="192.0.2.2", prefix=32, flags=0, valid_s=600),
            change("address-add", "xapi1", A, text="2001:db8::1", prefix=64),
        ]
    )

    def seen() -> dict[str, tuple[int, bool]]:
        [entry] = ip_json("addr", "show", "dev", "xapi1")
        return {
            info["local"]: (info["prefixlen"], bool(info.get("dynamic")))
            for info in entry["addr_info"]
            if info["scope"] == "global"
        }

    assert seen() == {"192.0.2.1": (24, False), "192.0.2.2": (32, True), "2001:db8::1": (64, False)}
    ours = {a.text: a for a in netlink.look().addresses if a.scope == 0 and a.device == A}
    assert {text: (a.prefix, not a.flags & 0x80) for text, a in ours.items()} == seen()
    assert 590 <= ours["192.0.2.2"].valid_s <= 600
    assert ours["192.0.2.1"] == Address(A, "192.0.2.1", 24, set_cs=ours["192.0.2.1"].set_cs)

    netlink.execute(
        [
            change("address-add", "xapi1", A, text="192.0.2.2", prefix=32),
            change("address-del", "xapi1", A, text="192.0.2.1", prefix=24),
            change("address-del", "xapi1", A, text="2001:db8::1", prefix=64),
        ]
    )
    assert seen() == {"192.0.2.2": (32, False)}


WAYS = [
    ("-4", "default", {"destination": "default4", "gateway": "192.0.2.254"}),
    ("-4", "198.51.100.0/24", {"destination": "198.51.100.0/24", "gateway": "192.0.2.253", "metric": 7}),
    ("-4", "203.0.113.0/24", {"destination": "203.0.113.0/24", "gateway": ""}),
    ("-6", "default", {"destination": "default6", "gateway": "2001:db8::ff"}),
    ("-6", "2001:db8:1::/48", {"destination": "2001:db8:1::/48", "gateway": "2001:db8::fe", "metric": 9}),
]


@pytest.fixture
def addressed(netlink: Netlink) -> Netlink:
    """xapi1 with 192.0.2.1/24 and 2001:db8::1/64, and carrier; no address comes by itself later."""
    ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    ip("link", "set", "veth1", "addrgenmode", "none", "up")
    port = link(netlink, "veth0").ifindex
    netlink.execute(
        [
            BRIDGE._replace(args={**BRIDGE.args, "up": False}),
            change("link-set", "xapi1", A, addrgen=1, up=True),
            change("link-set", "veth0", port, master=A, addrgen=1, up=True),
            change("address-add", "xapi1", A, text="192.0.2.1", prefix=24),
            change("address-add", "xapi1", A, text="2001:db8::1", prefix=64),
        ]
    )
    return netlink


@pytest.mark.parametrize(("family", "name", "args"), WAYS, ids=[f"{w[0]}-{w[1]}" for w in WAYS])
def test_a_route_comes_and_goes(
    addressed: Netlink, family: str, name: str, args: Mapping[str, Value]
) -> None:
    route = Operation("route-add", "xapi1", A, {**args, "protocol": 171})
    addressed.execute([route, route])  # it replaces

    [seen] = ip_json(family, "route", "show", name, "proto", "171")
    assert (seen["dev"], seen.get("gateway", "")) == ("xapi1", args["gateway"])
    metric = args.get("metric") or (1024 if family == "-6" else 0)
    assert seen.get("metric", 0) == metric
    wanted = Route(A, str(args["destination"]), str(args["gateway"]), 171, int(str(metric)))
    assert [r for r in addressed.look().routes if r.protocol == 171] == [wanted]

    addressed.execute([route._replace(verb="route-del")])
    assert ip_json(family, "route", "show", "proto", "171") == []


@pytest.mark.parametrize("valid_s", [600, 0xFFFFFFFF])
def test_an_address_tells_when_it_was_set_last_and_its_event_the_same(
    addressed: Netlink, valid_s: int
) -> None:
    def set_cs() -> int:
        return next(one.set_cs for one in addressed.look().addresses if one.text == "192.0.2.9")

    again = change("address-add", "xapi1", A, text="192.0.2.9", prefix=24, flags=0, valid_s=valid_s)
    addressed.execute([again])
    first = set_cs()
    time.sleep(0.05)
    assert set_cs() == first > 0
    with Follower() as follower:
        addressed.execute([again])
        told = [event.what for event in follower.read() or ()]
    assert [one.set_cs for one in told if isinstance(one, Address) and one.text == "192.0.2.9"] == [set_cs()]
    assert set_cs() > first


def test_a_default_route_moves_to_another_gateway_and_one_of_another_owner_stays(addressed: Netlink) -> None:
    ip("route", "add", "default", "via", "192.0.2.100", "metric", "1002", "proto", "dhcp")
    for gateway in ("192.0.2.254", "192.0.2.253"):
        addressed.execute(
            [change("route-add", "xapi1", A, destination="default4", gateway=gateway, protocol=171, metric=0)]
        )

    def gateways() -> dict[str, str]:
        return {entry["gateway"]: entry["protocol"] for entry in ip_json("-4", "route", "show", "default")}

    assert gateways() == {"192.0.2.253": "171", "192.0.2.100": "dhcp"}
    addressed.execute(
        [change("route-del", "xapi1", A, destination="default4", gateway="192.0.2.253", protocol=171)]
    )
    assert gateways() == {"192.0.2.100": "dhcp"}


def test_routes_that_the_kernel_made_are_seen_as_its_own(addressed: Netlink) -> None:
    routes = addressed.look().routes

    assert Route(A, "192.0.2.0/24", "", 2) in routes
    assert not [route for route in routes if route.destination.startswith(("127.", "ff00"))]


REFUSALS = [
    pytest.param(add("xapi9", A), errno.EEXIST, id="index-taken"),
    pytest.param(add("xapi1", B), errno.EEXIST, id="name-taken"),
    pytest.param(change("link-set", "xapi2", B, up=True), errno.ENODEV, id="no-device-to-set"),
    pytest.param(change("link-del", "xapi2", B), errno.ENODEV, id="no-device-to-delete"),
    pytest.param(change("link-set", "xapi1", A, master=B), errno.EINVAL, id="no-master"),
    pytest.param(change("link-set", "xapi1", A, altname="xapi1"), errno.EEXIST, id="altname-taken"),
    pytest.param(change("link-set", "xapi1", A, altname_gone="nobody"), errno.ENOENT, id="no-altname"),
    pytest.param(change("link-set", "xapi1", A, mtu=10), errno.EINVAL, id="mtu-too-small"),
    pytest.param(add("a-name-of-16-byt", B), errno.ERANGE, id="name-too-long"),
    pytest.param(add("xapi2", B, "no-such-kind"), errno.EOPNOTSUPP, id="no-kind"),
    pytest.param(
        change("address-del", "xapi1", A, text="192.0.2.9", prefix=24), errno.EADDRNOTAVAIL, id="no-address"
    ),
    pytest.param(
        change("address-add", "xapi2", B, text="192.0.2.1", prefix=24), errno.ENODEV, id="no-device"
    ),
    pytest.param(
        change("route-add", "xapi1", A, destination="default4", gateway="198.51.100.1"),
        errno.ENETUNREACH,
        id="gateway-out-of-reach",
    ),
    pytest.param(
        change("route-del", "xapi1", A, destination="default4", gateway="192.0.2.254"),
        errno.ESRCH,
        id="no-route",
    ),
]


@pytest.mark.parametrize(("operation", "number"), REFUSALS)
def test_a_refusal_has_its_errno_and_changes_nothing(
    addressed: Netlink, operation: Operation, number: int
) -> None:
    before = addressed.look()
    with pytest.raises(NetlinkError) as caught:
        addressed.execute([operation])

    assert caught.value.errno == number
    assert (caught.value.position, caught.value.executed) == (0, ())
    after = addressed.look()
    assert (after.links.keys(), after.addresses) == (before.links.keys(), before.addresses)


def test_the_kernels_words_are_in_the_error(netlink: Netlink) -> None:
    with pytest.raises(NetlinkError, match="Unknown device type") as caught:
        netlink.execute([add("xapi2", B, "no-such-kind")])

    assert caught.value.text == "Unknown device type"
    assert "xapi2" in caught.value.found


def test_after_a_failure_the_rest_of_the_chunk_happened_and_no_later_chunk(netlink: Netlink) -> None:
    bridges = [add(f"b{i}", A + i) for i in range(210)]
    bridges[3] = add("b3", A + 3, master=0x1FFFFFFE)
    with pytest.raises(NetlinkError) as caught:
        netlink.execute(bridges)

    there = {entry["ifname"] for entry in ip_json("link")} - {"lo"}
    assert caught.value.position == 3
    assert there == {f"b{i}" for i in caught.value.executed} == {f"b{i}" for i in range(200) if i != 3}


def test_all_failures_of_a_chunk_are_answered_within_the_buffer(netlink: Netlink) -> None:
    netlink.execute([BRIDGE])
    with pytest.raises(NetlinkError) as caught:
        netlink.execute([add("xapi1", B)] * 200)

    assert caught.value.failures == dict.fromkeys(range(200), (errno.EEXIST, caught.value.text))
    assert netlink.look().by_name().keys() == {"lo", "xapi1"}


def test_who_may_not_change_may_look(netlink: Netlink) -> None:
    netlink.execute([BRIDGE])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            with Netlink() as allowed:
                seen = sorted(allowed.look().by_name())
                try:
                    allowed.execute([change("link-del", "xapi1", A)])
                except NetlinkError as error:
                    seen.append(errno.errorcode[error.errno])
            os.write(writer, json.dumps(seen).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert json.load(pipe) == ["lo", "xapi1", "EPERM"]
    os.waitpid(child, 0)
