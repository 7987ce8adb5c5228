"""Messages from rtnetlink: we read what pyroute2 writes, and the kernel's own words in an error."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from hostagent.net.devices import Address, Route
from hostagent.net.netlink_names import BOND_SETTINGS, BRIDGE_SETTINGS, IPV6_SETTINGS
from hostagent.net.wire import encode
from hostagent.net.wire_answers import decode_address, decode_error, decode_link, decode_routes, messages
from tests.pure.net_wire import (
    INDEX,
    NEW_ADDRESS,
    NEW_ROUTE,
    addresses4,
    addresses6,
    error_message,
    indexes,
    link_body,
    macs,
    names,
    nested,
    op,
    settings_of,
    words,
    written_by_pyroute2,
)


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


@given(st.one_of(addresses4, addresses6), st.integers(0, 32), words, words, words)
def test_addresses_are_read(text, prefix, flags, valid_s, set_cs):
    times = {"ifa_preferred": 1, "ifa_valid": valid_s, "cstamp": 0, "tstamp": set_cs}
    body = written_by_pyroute2(
        ifaddrmsg(),
        NEW_ADDRESS,
        [("IFA_ADDRESS", text), ("IFA_FLAGS", flags), ("IFA_CACHEINFO", times)],
        family=socket.AF_INET6 if ":" in text else socket.AF_INET,
        prefixlen=prefix,
        index=INDEX,
        scope=253,
    )

    assert decode_address(body) == Address(INDEX, text, prefix, flags, 253, valid_s, set_cs)


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


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernels_own_words_come_out_of_an_error(capped):
    [message] = messages(error_message(errno.EOPNOTSUPP, "Unknown device type", capped=capped))

    assert decode_error(message) == (errno.EOPNOTSUPP, "Unknown device type")


def test_an_acknowledgement_is_no_error():
    [message] = messages(error_message(0))

    assert decode_error(message) == (0, "")
