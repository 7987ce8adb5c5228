"""Bytes that are no message of rtnetlink are refused or read, and never another error."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

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
from tests.pure.net_wire import ERROR, NEW_ADDRESS, joined, link_body, nested, route_body, written_by_pyroute2

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


@given(lists_of_attributes, st.data())
def test_what_is_remembered_of_a_shape_is_true_of_others_like_it(attributes, data):
    alike = [(n, data.draw(st.binary(min_size=len(value), max_size=len(value)))) for n, value in attributes]
    other_numbers = [(data.draw(st.integers(0, 0xFFFF)), value) for n, value in attributes]
    for one in (attributes, alike, other_numbers, attributes):
        raw = joined(one)
        assert {n: raw[where] for n, where in spans(raw).items()} == walked(raw)
