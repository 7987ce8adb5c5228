"""Messages to and from rtnetlink. pyroute2 reads what we write and writes what we read; the socket is a fake kernel."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from hostagent.errors import BugError
from hostagent.net import follow, netlink
from hostagent.net.devices import GROUP, LEAVING, Address, Route
from hostagent.net.follow import Event, Follower, decode_event
from hostagent.net.netlink import CHUNK, LOOKS, Netlink, NetlinkError
from hostagent.net.netlink_names import BOND_SETTINGS, BRIDGE_SETTINGS, IPV6_SETTINGS
from hostagent.net.operation import Operation
from hostagent.net.wire import ACK, DUMP, encode
from hostagent.net.wire_answers import (
    MalformedMessage,
    Message,
    decode_address,
    decode_error,
    decode_link,
    decode_routes,
    messages,
    spans,
)

INDEX = 0x10000005
NEW_LINK, DEL_LINK, NEW_ADDRESS, DEL_ADDRESS, NEW_ROUTE, DEL_ROUTE = 16, 17, 20, 21, 24, 25
DONE, ERROR = 3, 2
UNKNOWN_TO_PYROUTE2 = {"peer_notif_delay", "ad_lacp_active", "missed_max"}
MARSHAL = MarshalRtnl()
LARGEST = {"B": 0xFF, "H": 0xFFFF, "I": 0xFFFFFFFF}

macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
names = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/:"), min_size=1, max_size=15
)
indexes = st.integers(1, 0x7FFFFFFF)
words = st.integers(0, 0xFFFFFFFF)
addresses4 = st.ip_addresses(v=4).map(str)
addresses6 = st.ip_addresses(v=6).map(lambda ip: socket.inet_ntop(socket.AF_INET6, ip.packed))


def settings_of(known: Any) -> st.SearchStrategy[dict[str, int]]:
    return st.fixed_dictionaries(
        {}, optional={name: st.integers(0, LARGEST[form]) for name, (_, form) in known.items()}
    )


def op(verb: str, args: dict[str, Any] | None = None, device: str = "xapi1") -> Operation:
    return Operation(verb, device, INDEX, args or {})


def read_by_pyroute2(data: bytes) -> list[Any]:
    return list(MARSHAL.parse(data))


def written_by_pyroute2(message: Any, type_: int, attributes: list[tuple[str, Any]], **fields: int) -> bytes:
    for name, value in fields.items():
        message[name] = value
    message["header"]["type"] = type_
    message["attrs"] = attributes
    message.encode()
    [found] = messages(bytes(message.data))
    return found.body


def link_body(*attributes: tuple[str, Any], index: int = INDEX) -> bytes:
    return written_by_pyroute2(ifinfmsg(), NEW_LINK, list(attributes), index=index)


def nested(*attributes: tuple[str, Any]) -> dict[str, Any]:
    return {"attrs": list(attributes)}


def test_many_devices_go_in_one_message_by_the_group_of_what_leaves_and_by_no_other():
    [made] = read_by_pyroute2(encode(Operation("group-del", "", 0, {"group": LEAVING}), 9))

    assert (made["header"]["type"], made["index"]) == (17, 0)
    assert [tuple(one) for one in made["attrs"]] == [("IFLA_GROUP", LEAVING)]
    for operation in (
        Operation("group-del", "", 0, {"group": GROUP}),
        Operation("group-del", "", 0, {"group": 0}),
        Operation("group-del", "eth0", INDEX, {"group": LEAVING}),
        Operation("group-del", "", 0, {}),
    ):
        with pytest.raises(BugError, match="group-del"):
            encode(operation, 9)


def test_a_name_is_of_a_bridge_or_of_a_bond_and_each_has_a_number_of_its_own():
    assert BRIDGE_SETTINGS.keys().isdisjoint(BOND_SETTINGS)
    for known in (BRIDGE_SETTINGS, BOND_SETTINGS):
        assert len({number for number, _ in known.values()}) == len(known)


# What we write


@given(settings_of(BRIDGE_SETTINGS), macs, words.filter(bool), names)
def test_a_bridge_is_made_in_one_message_with_all_its_settings(settings, mac, mtu, name):
    operation = op(
        "link-add",
        {"kind": "bridge", "mac": mac, "mtu": mtu, "group": 171, "up": True, "settings": settings},
        name,
    )
    [made] = read_by_pyroute2(encode(operation, 9, ack=True))

    assert (made["header"]["type"], made["header"]["sequence_number"]) == (NEW_LINK, 9)
    assert made["header"]["flags"] == 0x605  # request, ack, create, exclusive
    assert (made["index"], made["flags"], made["change"]) == (INDEX, 1, 1)
    assert made.get_attr("IFLA_IFNAME") == name
    assert made.get_attr("IFLA_ADDRESS") == mac
    assert made.get_attr("IFLA_MTU") == mtu
    assert made.get_attr("IFLA_GROUP") == 171
    assert made.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"
    data = made.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    assert dict(data["attrs"] if data else []) == {f"IFLA_BR_{key.upper()}": v for key, v in settings.items()}


@given(settings_of(BOND_SETTINGS))
def test_a_bond_is_made_with_all_its_settings_in_the_same_message(settings):
    [made] = read_by_pyroute2(encode(op("link-add", {"kind": "bond", "settings": settings}), 1))

    data = made.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    seen = {name: value for name, value in data["attrs"] if name != "UNKNOWN"} if data else {}
    assert made.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bond"
    assert seen == {f"IFLA_BOND_{k.upper()}": v for k, v in settings.items() if k not in UNKNOWN_TO_PYROUTE2}


@given(st.integers(0, 4094), indexes, indexes)
def test_a_vlan_is_made_on_a_device_and_as_a_port(tag, lower, master):
    args = {"kind": "vlan", "vlan_id": tag, "lower": lower, "master": master}
    [made] = read_by_pyroute2(encode(op("link-add", args), 1))

    assert (made.get_attr("IFLA_LINK"), made.get_attr("IFLA_MASTER")) == (lower, master)
    data = made.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    assert (data.get_attr("IFLA_VLAN_ID"), data.get_attr("IFLA_VLAN_PROTOCOL")) == (tag, 0x8100)
    assert (made["flags"], made["change"]) == (0, 0)


@pytest.mark.parametrize(
    ("args", "flags", "change"), [({"up": True}, 1, 1), ({"up": False}, 0, 1), ({"mtu": 1400}, 0, 0)]
)
def test_what_is_not_named_stays_as_it_is(args, flags, change):
    [made] = read_by_pyroute2(encode(op("link-set", args), 1))

    assert (made["flags"], made["change"], made["header"]["flags"]) == (flags, change, 1)
    assert [name for name, _ in made["attrs"]] == (["IFLA_MTU"] if "mtu" in args else [])


def test_a_port_leaves_with_master_zero():
    [made] = read_by_pyroute2(encode(op("link-set", {"master": 0}), 1))

    assert [tuple(attribute) for attribute in made["attrs"]] == [("IFLA_MASTER", 0)]


@pytest.mark.parametrize(("name", "kind"), [("forward_delay", "bridge"), ("miimon", "bond")])
def test_settings_of_a_device_that_is_there_name_its_kind(name, kind):
    [made] = read_by_pyroute2(encode(op("link-set", {"settings": {name: 5}}), 1))

    assert made.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == kind


def test_the_address_generation_mode_goes_before_up_and_names_go_last_and_only_the_last_is_answered():
    args = {"up": True, "addrgen": 1, "altname": "new", "altname_gone": "old"}
    made = read_by_pyroute2(encode(op("link-set", args), 4, ack=True))

    first, main, gone, added = made
    af_spec = first.get_attr("IFLA_AF_SPEC").get_attr("AF_INET6")
    assert af_spec.get_attr("IFLA_INET6_ADDR_GEN_MODE") == 1
    assert first["change"] == 0
    assert main["flags"] == 1
    assert (gone["event"], added["event"]) == ("RTM_DELLINKPROP", "RTM_NEWLINKPROP")
    assert gone.get_attr("IFLA_PROP_LIST").get_attr("IFLA_ALT_IFNAME") == "old"
    assert added.get_attr("IFLA_PROP_LIST").get_attr("IFLA_ALT_IFNAME") == "new"
    assert [bool(one["header"]["flags"] & ACK) for one in made] == [False, False, False, True]
    assert {one["header"]["sequence_number"] for one in made} == {4}
    assert {one["index"] for one in made} == {INDEX}


def test_an_operation_that_asks_for_nothing_is_still_answered():
    [made] = read_by_pyroute2(encode(op("link-set"), 1, ack=True))

    assert made["header"]["flags"] & ACK
    assert (made["attrs"], made["change"]) == ([], 0)


@given(st.one_of(addresses4, addresses6), st.integers(0, 32))
def test_addresses(text, prefix):
    [added] = read_by_pyroute2(encode(op("address-add", {"text": text, "prefix": prefix}), 1))
    [gone] = read_by_pyroute2(encode(op("address-del", {"text": text, "prefix": prefix}), 1))

    for made in (added, gone):
        assert made["family"] == (socket.AF_INET6 if ":" in text else socket.AF_INET)
        assert (made["index"], made["prefixlen"]) == (INDEX, prefix)
        assert made.get_attr("IFA_LOCAL") == made.get_attr("IFA_ADDRESS") == text
    assert (added["header"]["type"], added["header"]["flags"]) == (NEW_ADDRESS, 0x501)
    assert (gone["header"]["type"], gone["header"]["flags"]) == (DEL_ADDRESS, 1)


def test_an_address_of_a_lease_has_its_lifetime():
    args = {"text": "192.0.2.1", "prefix": 24, "flags": 0, "valid_s": 600}
    [made] = read_by_pyroute2(encode(op("address-add", args), 1))

    assert made.get_attr("IFA_FLAGS") == 0
    assert made.get_attr("IFA_CACHEINFO")["ifa_valid"] == 600


@given(
    st.one_of(
        st.tuples(st.just("default4"), addresses4),
        st.tuples(st.just("default6"), addresses6),
        st.tuples(st.tuples(addresses4, st.integers(1, 32)), st.one_of(addresses4, st.just(""))),
        st.tuples(st.tuples(addresses6, st.integers(1, 128)), st.one_of(addresses6, st.just(""))),
    ),
    st.integers(0, 255),
    words,
)
def test_routes(way, protocol, metric):
    where, gateway = way
    destination = where if isinstance(where, str) else f"{where[0]}/{where[1]}"
    six = where == "default6" or ":" in where[0]
    args = {"destination": destination, "gateway": gateway, "protocol": protocol, "metric": metric}
    [added] = read_by_pyroute2(encode(op("route-add", args), 1))
    [gone] = read_by_pyroute2(encode(op("route-del", args), 1))

    for made in (added, gone):
        assert made["family"] == (socket.AF_INET6 if six else socket.AF_INET)
        assert (made["table"], made["proto"], made["type"]) == (254, protocol, 1)
        assert made.get_attr("RTA_OIF") == INDEX
        assert (made.get_attr("RTA_GATEWAY") or "") == gateway
        assert (made.get_attr("RTA_DST"), made["dst_len"]) == ((None, 0) if isinstance(where, str) else where)
        assert (made.get_attr("RTA_PRIORITY") or 0) == (metric or (1024 if six else 0))
    assert (added["header"]["flags"], added["scope"]) == (0x501, 0 if gateway else 253)
    assert (gone["header"]["flags"], gone["scope"]) == (1, 255)


def test_routes_are_ours_unless_said_otherwise():
    [made] = read_by_pyroute2(encode(op("route-add", {"destination": "default4", "gateway": "192.0.2.1"}), 1))

    assert made["proto"] == 171


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(op("sysctl", {"path": "x", "value": "0"}), id="another-verb"),
        pytest.param(Operation("link-set", "xapi1", 0, {"up": False}), id="no-index-means-the-whole-group"),
        pytest.param(op("link-add", {"mtu": 1500}), id="no-kind"),
        pytest.param(op("link-add", {"kind": "bridge", "colour": 1}), id="unknown-arg"),
        pytest.param(op("link-add", {"kind": "bridge", "settings": {"miimon": 1}}), id="setting-of-a-bond"),
        pytest.param(op("link-set", {"settings": {"miimon": 1, "forward_delay": 1}}), id="settings-of-both"),
        pytest.param(op("link-set", {"settings": {"mode": 256}}), id="value-too-large"),
        pytest.param(op("link-set", {"settings": {"mode": "802.3ad"}}), id="value-no-number"),
        pytest.param(op("link-set", {"settings": 5}), id="settings-no-map"),
        pytest.param(op("link-add", {"kind": "vlan", "vlan_id": 70000, "lower": 1}), id="tag-too-large"),
        pytest.param(op("link-set", {"mac": "02:00:zz"}), id="mac"),
        pytest.param(op("address-add", {"text": "192.0.2.300", "prefix": 24}), id="address"),
        pytest.param(op("address-add", {"text": "192.0.2.3"}), id="no-prefix"),
        pytest.param(op("route-add", {"destination": "192.0.2.0/x"}), id="prefix-no-number"),
        pytest.param(op("route-add", {"destination": "default"}), id="default-of-no-family"),
    ],
)
def test_what_cannot_be_a_message_is_a_bug_that_names_it(operation):
    with pytest.raises(BugError, match=operation.verb):
        encode(operation, 1)


# What we read


@given(names, macs, words, indexes, st.lists(names, max_size=3), settings_of(BRIDGE_SETTINGS))
def test_a_bridge_is_read(name, mac, mtu, master, altnames, settings):
    data = nested(*((f"IFLA_BR_{key.upper()}", value) for key, value in settings.items()))
    link = decode_link(
        link_body(
            ("IFLA_IFNAME", name),
            ("IFLA_ADDRESS", mac),
            ("IFLA_MTU", mtu),
            ("IFLA_MASTER", master),
            ("IFLA_GROUP", 171),
            ("IFLA_CARRIER", 1),
            ("IFLA_OPERSTATE", "UP"),
            ("IFLA_MIN_MTU", 68),
            ("IFLA_MAX_MTU", 65535),
            ("IFLA_PROP_LIST", nested(*(("IFLA_ALT_IFNAME", one) for one in altnames))),
            ("IFLA_LINKINFO", nested(("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data))),
        )
    )

    assert (link.ifindex, link.name, link.kind, link.mac) == (INDEX, name, "bridge", mac)
    assert (link.mtu, link.master, link.group, link.carrier, link.operstate) == (mtu, master, 171, True, 6)
    assert (link.min_mtu, link.max_mtu, link.altnames) == (68, 65535, tuple(altnames))
    assert link.settings == settings


def test_a_real_device_has_its_permanent_mac_and_its_place():
    link = decode_link(
        link_body(
            ("IFLA_IFNAME", "eth0"),
            ("IFLA_PERM_ADDRESS", bytes.fromhex("020000000007")),
            ("IFLA_PARENT_DEV_NAME", "0000:00:03.0"),
        )
    )

    assert (link.permanent_mac, link.parent, link.kind) == ("02:00:00:00:00:07", "0000:00:03.0", "")


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=70))
def test_ipv6_settings_are_read_as_far_as_the_kernel_tells_them(conf):
    of_family = struct.pack(f"=HH{len(conf)}i", 4 + 4 * len(conf), 2, *conf)
    raw = struct.pack("=HH", 4 + len(of_family), socket.AF_INET6) + of_family
    body = link_body(("IFLA_IFNAME", "eth0")) + struct.pack("=HH", 4 + len(raw), 26 | 0x8000) + raw

    expected = {name: conf[place] for name, place in IPV6_SETTINGS.items() if place < len(conf)}
    assert decode_link(body).ipv6 == expected


def test_a_vlan_is_read():
    data = nested(("IFLA_VLAN_ID", 4094), ("IFLA_VLAN_PROTOCOL", 0x88A8))
    info = nested(("IFLA_INFO_KIND", "vlan"), ("IFLA_INFO_DATA", data))
    link = decode_link(link_body(("IFLA_LINK", 7), ("IFLA_LINKINFO", info)))

    assert (link.kind, link.lower, link.vlan_id, link.vlan_protocol) == ("vlan", 7, 4094, 0x88A8)


def test_a_device_below_in_another_namespace_is_none_of_ours():
    assert decode_link(link_body(("IFLA_LINK", 7), ("IFLA_LINK_NETNSID", 0))).lower == 0


@pytest.mark.parametrize(
    ("mac", "partner"), [("02:00:00:00:00:08", "02:00:00:00:00:08"), ("00:00:00:00:00:00", "")]
)
def test_a_bond_tells_its_partner_when_there_is_one(mac, partner):
    lacp = nested(("IFLA_BOND_AD_INFO_PARTNER_KEY", 3), ("IFLA_BOND_AD_INFO_PARTNER_MAC", mac))
    data = nested(("IFLA_BOND_MODE", 4), ("IFLA_BOND_AD_LACP_RATE", 1), ("IFLA_BOND_AD_INFO", lacp))
    info = nested(("IFLA_INFO_KIND", "bond"), ("IFLA_INFO_DATA", data))
    link = decode_link(link_body(("IFLA_LINKINFO", info)))

    assert link.settings == {"mode": 4, "ad_lacp_rate": 1}
    assert link.partner == partner


def test_a_port_of_a_bond_tells_its_state():
    data = nested(
        ("IFLA_BOND_SLAVE_STATE", 1),
        ("IFLA_BOND_SLAVE_MII_STATUS", 3),
        ("IFLA_BOND_SLAVE_LINK_FAILURE_COUNT", 70000),
        ("IFLA_BOND_SLAVE_AD_AGGREGATOR_ID", 2),
    )
    # pyroute2 has no names for the two states
    states = struct.pack("=HHB3xHHH2x", 5, 7, 0x3D, 6, 8, 0x3F)
    body = link_body(
        ("IFLA_LINKINFO", nested(("IFLA_INFO_SLAVE_KIND", "bond"), ("IFLA_INFO_SLAVE_DATA", data)))
    )
    length_of_info, length_of_data = (
        struct.unpack_from("=H", body, 16)[0],
        struct.unpack_from("=H", body, 32)[0],
    )
    body = (
        body[:16]
        + struct.pack("=H", length_of_info + len(states))
        + body[18:32]
        + struct.pack("=H", length_of_data + len(states))
        + body[34:]
        + states
    )

    assert decode_link(body).port == {
        "state": 1,
        "mii_status": 3,
        "link_failure_count": 70000,
        "ad_aggregator_id": 2,
        "ad_actor_state": 0x3D,
        "ad_partner_state": 0x3F,
    }


@given(st.one_of(addresses4, addresses6), st.integers(0, 32), words, words)
def test_addresses_are_read(text, prefix, flags, valid_s):
    times = {"ifa_preferred": 1, "ifa_valid": valid_s, "cstamp": 0, "tstamp": 0}
    body = written_by_pyroute2(
        ifaddrmsg(),
        NEW_ADDRESS,
        [("IFA_ADDRESS", text), ("IFA_FLAGS", flags), ("IFA_CACHEINFO", times)],
        family=socket.AF_INET6 if ":" in text else socket.AF_INET,
        prefixlen=prefix,
        index=INDEX,
        scope=253,
    )

    assert decode_address(body) == Address(INDEX, text, prefix, flags, 253, valid_s)


def test_an_address_with_a_peer_is_ours_and_not_the_peers():
    attributes = [("IFA_ADDRESS", "192.0.2.9"), ("IFA_LOCAL", "192.0.2.1")]
    body = written_by_pyroute2(
        ifaddrmsg(), NEW_ADDRESS, attributes, family=2, prefixlen=32, index=3, flags=0x80
    )

    assert decode_address(body) == Address(3, "192.0.2.1", 32)


def route_body(attributes: list[tuple[str, Any]], **fields: int) -> bytes:
    return written_by_pyroute2(
        rtmsg(), NEW_ROUTE, attributes, **{"family": 2, "table": 254, "type": 1, "proto": 4, **fields}
    )


@given(st.one_of(addresses4, addresses6), st.integers(1, 32), words)
def test_routes_are_read(text, bits, metric):
    body = route_body(
        [("RTA_DST", text), ("RTA_OIF", 3), ("RTA_PRIORITY", metric), ("RTA_TABLE", 254)],
        family=socket.AF_INET6 if ":" in text else socket.AF_INET,
        dst_len=bits,
    )

    assert decode_routes(body) == (Route(3, f"{text}/{bits}", "", 4, metric),)


def test_a_default_route_over_several_hops_is_a_route_each():
    hops = [
        {"hops": 0, "oif": 3, "flags": 0, "attrs": [("RTA_GATEWAY", "192.0.2.1")]},
        {"hops": 0, "oif": 4, "flags": 0, "attrs": [("RTA_GATEWAY", "192.0.2.2")]},
    ]

    assert decode_routes(route_body([("RTA_MULTIPATH", hops)])) == (
        Route(3, "default4", "192.0.2.1", 4),
        Route(4, "default4", "192.0.2.2", 4),
    )


def test_a_gateway_may_be_of_the_other_family():
    body = route_body([("RTA_OIF", 3), ("RTA_VIA", {"family": 10, "addr": "fe80::1"})])

    assert decode_routes(body) == (Route(3, "default4", "fe80::1", 4),)


@pytest.mark.parametrize(
    "fields",
    [{"table": 255}, {"type": 6}, {"family": 128}, {"flags": 0x200}],
    ids=["another-table", "blackhole", "another-family", "cached"],
)
def test_routes_that_are_none_of_the_main_table_are_left_out(fields):
    assert decode_routes(route_body([("RTA_OIF", 3)], **fields)) == ()


def test_the_table_is_the_attributes_when_both_name_one():
    assert decode_routes(route_body([("RTA_OIF", 3), ("RTA_TABLE", 1000)])) == ()


@given(settings_of(BOND_SETTINGS), names)
def test_what_we_write_we_read(settings, name):
    [message] = messages(encode(op("link-add", {"kind": "bond", "mtu": 9000, "settings": settings}, name), 1))
    link = decode_link(message.body)

    assert (link.ifindex, link.name, link.kind, link.mtu, link.settings) == (
        INDEX,
        name,
        "bond",
        9000,
        settings,
    )


# Bytes that are no message


decoders = st.sampled_from(
    [decode_link, decode_address, decode_routes, spans, lambda raw: list(messages(raw))]
)
valid_bodies = st.sampled_from(
    [
        link_body(
            ("IFLA_IFNAME", "bond0"),
            ("IFLA_PROP_LIST", nested(("IFLA_ALT_IFNAME", "a"), ("IFLA_ALT_IFNAME", "b"))),
            (
                "IFLA_LINKINFO",
                nested(
                    ("IFLA_INFO_KIND", "bond"),
                    (
                        "IFLA_INFO_DATA",
                        nested(("IFLA_BOND_AD_INFO", nested(("IFLA_BOND_AD_INFO_AGGREGATOR", 1)))),
                    ),
                    ("IFLA_INFO_SLAVE_KIND", "bond"),
                    ("IFLA_INFO_SLAVE_DATA", nested(("IFLA_BOND_SLAVE_STATE", 1))),
                ),
            ),
        ),
        written_by_pyroute2(
            ifaddrmsg(), NEW_ADDRESS, [("IFA_LOCAL", "192.0.2.1")], family=2, prefixlen=24, index=3
        ),
        route_body(
            [("RTA_MULTIPATH", [{"hops": 0, "oif": 3, "flags": 0, "attrs": [("RTA_GATEWAY", "192.0.2.1")]}])]
        ),
        route_body(
            [("RTA_DST", "192.0.2.0"), ("RTA_OIF", 3), ("RTA_VIA", {"family": 10, "addr": "::1"})], dst_len=24
        ),
    ]
)


def refuses_or_reads(decode: Any, data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        decode(data)


@given(decoders, st.binary(max_size=200))
def test_garbage_is_refused_or_read_but_never_another_error(decode, data):
    refuses_or_reads(decode, data)


@given(decoders, valid_bodies, st.integers(0, 200))
def test_so_is_a_truncated_message(decode, body, cut):
    refuses_or_reads(decode, body[:cut])


@given(decoders, valid_bodies, st.integers(0, 200), st.integers(0, 255))
def test_so_is_one_with_a_changed_byte(decode, body, where, byte):
    where %= len(body)
    refuses_or_reads(decode, body[:where] + bytes([byte]) + body[where + 1 :])


@given(st.binary(max_size=60), st.integers(0, 0xFFFF))
def test_so_is_an_error(body, flags):
    refuses_or_reads(decode_error, Message(ERROR, flags, 1, body))  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_an_attribute_that_claims_more_or_less_than_there_is_is_refused(length):
    with pytest.raises(MalformedMessage):
        spans(struct.pack("=HHI", length, 1, 0))


def walked(data: bytes) -> dict[int, bytes]:
    """Plainly, without a memory."""
    found, position = {}, 0
    while len(data) - position >= 4:
        length, number = struct.unpack_from("=HH", data, position)
        found[number & 0x3FFF] = data[position + 4 : position + length]
        position += (length + 3) & ~3
    return found


lists_of_attributes = st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=9)), max_size=6)


def joined(attributes: list[tuple[int, bytes]]) -> bytes:
    return b"".join(
        struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
        for number, value in attributes
    )


@given(lists_of_attributes, st.data())
def test_what_is_remembered_of_a_shape_is_true_of_others_like_it(attributes, data):
    alike = [(n, data.draw(st.binary(min_size=len(value), max_size=len(value)))) for n, value in attributes]
    other_numbers = [(data.draw(st.integers(0, 0xFFFF)), value) for n, value in attributes]
    for one in (attributes, alike, other_numbers, attributes):
        raw = joined(one)
        assert {n: raw[where] for n, where in spans(raw).items()} == walked(raw)


# Errors


def error_message(
    number: int, text: str = "", *, sequence: int = 1, capped: bool = True, type_: int = ERROR
) -> bytes:
    refused = struct.pack("=IHHII", 16 if capped else 24, 16, 5, sequence, 0) + (b"" if capped else bytes(8))
    body = struct.pack("=i", -number) + (refused if type_ == ERROR else b"")
    flags = 0x100 if capped else 0
    if text:
        flags |= 0x200
        body += joined([(1, text.encode() + b"\0"), (2, bytes(4))])
    return struct.pack("=IHHII", 16 + len(body), type_, flags, sequence, 0) + body


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernels_own_words_come_out_of_an_error(capped):
    [message] = messages(error_message(errno.EOPNOTSUPP, "Unknown device type", capped=capped))

    assert decode_error(message) == (errno.EOPNOTSUPP, "Unknown device type")


def test_an_acknowledgement_is_no_error():
    [message] = messages(error_message(0))

    assert decode_error(message) == (0, "")


# Events


def event_of(type_: int, body: bytes) -> list[Event]:
    return decode_event(Message(type_, 0, 0, body))


def test_a_device_comes_and_goes():
    body = link_body(("IFLA_IFNAME", "eth0"))

    assert event_of(NEW_LINK, body) == [Event(gone=False, what=decode_link(body))]
    assert event_of(DEL_LINK, body) == [Event(gone=True, what=decode_link(body))]


def test_a_port_that_leaves_a_bridge_is_not_gone():
    body = bytes([socket.AF_BRIDGE]) + link_body(("IFLA_IFNAME", "eth0"))[1:]

    assert event_of(DEL_LINK, body) == []


def test_routes_of_other_tables_and_other_messages_are_no_events():
    assert event_of(NEW_ROUTE, route_body([("RTA_OIF", 3)], table=255)) == []
    assert event_of(28, bytes(12)) == []
    assert event_of(DEL_ROUTE, route_body([("RTA_OIF", 3)])) == [
        Event(gone=True, what=Route(3, "default4", "", 4))
    ]


# The socket


class FakeKernel:
    """Answers as a netlink socket does: in order, each request by its sequence number."""

    def __init__(self) -> None:
        self.queue: list[bytes | OSError] = []
        self.sent: list[list[Message]] = []
        self.refused: dict[str, int] = {}
        """Device -> errno of every operation on it."""
        self.interrupted = 0
        """How many dumps of links still are interrupted."""
        self.lost_sends: set[int] = set()
        """Sends whose answers do not fit into the buffer."""
        self.links = [link_body(("IFLA_IFNAME", f"eth{i}"), index=i) for i in (1, 2)]

    def settimeout(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        found = list(messages(data))
        self.sent.append(found)
        for message in found:
            if message.flags & DUMP == DUMP:
                self._dump(message)
            else:
                self._execute(message)
        if len(self.sent) - 1 in self.lost_sends:
            self.queue = [OSError(errno.ENOBUFS, "No buffer space available")]

    def recv(self, size: int) -> bytes:
        if not self.queue:
            raise BlockingIOError
        came = self.queue.pop(0)
        if isinstance(came, OSError):
            raise came
        return came

    def _execute(self, message: Message) -> None:
        number = self.refused.get(decode_link(message.body).name, 0)
        if number or message.flags & ACK:
            self.queue.append(error_message(number, "no" if number else "", sequence=message.sequence))

    def _dump(self, message: Message) -> None:
        bodies = self.links if message.type == 18 else []
        cut = message.type == 18 and self.interrupted > 0
        self.interrupted -= cut
        # an interrupted dump has a device missing, and says so on one message
        for body in bodies[cut:]:
            head = struct.pack(
                "=IHHII", 16 + len(body), NEW_LINK, 2 | (0x10 if cut else 0), message.sequence, 0
            )
            self.queue.append(head + body)
        self.queue.append(error_message(0, sequence=message.sequence, type_=DONE))


@pytest.fixture
def kernel(monkeypatch):
    fake = FakeKernel()
    monkeypatch.setattr(netlink, "netlink_socket", lambda *_: fake)
    monkeypatch.setattr(follow, "netlink_socket", lambda *_: fake)
    return fake


def adds(count: int) -> list[Operation]:
    return [Operation("link-add", f"b{i}", INDEX + i, {"kind": "bridge"}) for i in range(count)]


@pytest.mark.parametrize("times", [1, LOOKS - 1])
def test_an_interrupted_look_is_repeated_until_it_is_whole(kernel, times):
    kernel.interrupted = times

    with Netlink() as socket_:
        assert set(socket_.look().links) == {1, 2}


def test_a_look_that_never_is_whole_is_an_error_and_no_half_truth(kernel):
    kernel.interrupted = LOOKS
    with Netlink() as socket_, pytest.raises(NetlinkError) as caught:
        socket_.look()

    assert caught.value.errno == errno.EINTR


def test_a_look_that_was_lost_is_repeated(kernel):
    kernel.lost_sends = {0}

    with Netlink() as socket_:
        assert set(socket_.look().links) == {1, 2}


def test_only_the_last_of_a_chunk_is_acknowledged(kernel):
    with Netlink() as socket_:
        socket_.execute(adds(2 * CHUNK + 1))

    assert [len(chunk) for chunk in kernel.sent] == [CHUNK, CHUNK, 1]
    assert [[bool(m.flags & ACK) for m in chunk].index(True) for chunk in kernel.sent] == [
        CHUNK - 1,
        CHUNK - 1,
        0,
    ]
    assert sum(bool(m.flags & ACK) for chunk in kernel.sent for m in chunk) == 3


@pytest.mark.parametrize("failing", [(0,), (CHUNK - 1,), (CHUNK, CHUNK + 7), (2 * CHUNK - 1,)])
def test_a_failure_tells_what_failed_and_what_did_happen(kernel, failing):
    kernel.refused = {f"b{i}": errno.EEXIST for i in failing}
    with Netlink() as socket_, pytest.raises(NetlinkError) as caught:
        socket_.execute(adds(3 * CHUNK))

    error = caught.value
    tried = CHUNK if failing[0] < CHUNK else 2 * CHUNK
    assert (error.position, error.errno, error.text) == (failing[0], errno.EEXIST, "no")
    assert error.failures == dict.fromkeys(failing, (errno.EEXIST, "no"))
    assert error.executed == tuple(i for i in range(tried) if i not in failing)
    assert f"b{failing[0]}" in error.found
    assert sum(map(len, kernel.sent)) == tried


def test_an_answer_left_over_from_a_failure_is_not_taken_for_another(kernel):
    with Netlink() as socket_:
        kernel.refused = {
            "": errno.EINVAL
        }  # both messages of the operation fail, the first is answered first
        with pytest.raises(NetlinkError):
            socket_.execute([op("link-set", {"mtu": 1, "altname": "x"})])
        kernel.refused = {}
        assert kernel.queue

        socket_.execute(adds(1))
        assert set(socket_.look().links) == {1, 2}


def test_lost_answers_are_told_as_not_known(kernel):
    kernel.lost_sends = {1}
    with Netlink() as socket_, pytest.raises(NetlinkError) as caught:
        socket_.execute(adds(3 * CHUNK))

    assert caught.value.errno == errno.ENOBUFS
    assert (caught.value.position, caught.value.executed) == (CHUNK, tuple(range(CHUNK)))
    assert len(kernel.sent) == 2


def test_nothing_is_done_when_one_operation_is_none(kernel):
    with Netlink() as socket_, pytest.raises(BugError):
        socket_.execute([*adds(2 * CHUNK), op("dns")])

    assert kernel.sent == []


def test_nothing_to_do_is_done(kernel):
    with Netlink() as socket_:
        socket_.execute([])

    assert kernel.sent == []


def link_event(name: str) -> bytes:
    body = link_body(("IFLA_IFNAME", name))
    return struct.pack("=IHHII", 16 + len(body), NEW_LINK, 0, 0, 0) + body


def test_events_come_in_order_and_then_none(kernel):
    kernel.queue = [link_event("a") + link_event("b"), link_event("c")]
    with Follower() as follower:
        assert [event.what.name for event in follower.read() or []] == ["a", "b", "c"]  # type: ignore[union-attr]
        assert follower.read() == []


def test_lost_events_are_told_once_and_what_came_before_is_dropped(kernel):
    kernel.queue = [link_event("a"), OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)), link_event("b")]
    with Follower() as follower:
        assert follower.read() is None
        assert follower.read() == []
