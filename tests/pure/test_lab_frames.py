"""The lab's frames: what is built can be read, and no bytes bring the reader down."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nested_xen.frames import (
    SHORTEST,
    Arp,
    Ethernet,
    EtherType,
    Lacpdu,
    LacpEnd,
    LacpState,
    NotThis,
    arp_request,
    mac_bytes,
    mac_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MACS = st.binary(min_size=6, max_size=6).map(mac_text)
SHORTS = st.integers(0, 0xFFFF)
ADDRESSES = st.ip_addresses(v=4).map(str)
ENDS = st.builds(LacpEnd, MACS, SHORTS, SHORTS, st.integers(0, 255).map(LacpState), SHORTS, SHORTS)


@given(
    MACS,
    MACS,
    st.integers(0x0600, 0xFFFF).filter(lambda kind: kind not in (0x8100, 0x88A8)),
    st.binary(max_size=9000),
    st.lists(SHORTS, max_size=3).map(tuple),
)
def test_a_frame_is_read_as_it_was_built(destination, source, kind, payload, vlans) -> None:
    frame = Ethernet(destination, source, kind, payload, vlans)
    data = bytes(frame)
    read = Ethernet.parse(data)
    assert len(data) >= SHORTEST
    assert (read.destination, read.source, read.type, read.vlans) == (destination, source, kind, vlans)
    assert read.payload[: len(payload)] == payload
    assert not read.payload[len(payload) :].strip(b"\0")


@given(st.integers(1, 2), MACS, ADDRESSES, MACS, ADDRESSES)
def test_arp_is_read_as_it_was_built(operation, sender_mac, sender, target_mac, target) -> None:
    arp = Arp(operation, sender_mac, sender, target_mac, target)
    frame = Ethernet("ff:ff:ff:ff:ff:ff", sender_mac, EtherType.ARP, bytes(arp))
    assert Arp.parse(Ethernet.parse(bytes(frame))) == arp


@given(ENDS, ENDS, MACS)
def test_a_lacpdu_is_read_as_it_was_built(actor, partner, source) -> None:
    data = bytes(Lacpdu(actor, partner).frame(source))
    assert len(data) == 124  # IEEE 802.1AX: 128 with the checksum
    assert Lacpdu.parse(Ethernet.parse(data)) == Lacpdu(actor, partner)


@pytest.mark.parametrize("read", [Ethernet.parse, Arp.parse, Lacpdu.parse])
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(read: Callable[[object], object], data: bytes) -> None:
    with contextlib.suppress(NotThis):
        for kind in (None, EtherType.ARP, EtherType.SLOW):
            frame = Ethernet.parse(data if kind is None else bytes(12) + kind.to_bytes(2, "big") + data)
            if read != Ethernet.parse:
                read(frame)


def test_an_arp_request_looks_as_rfc_826_says() -> None:
    frame = arp_request("02:00:00:00:00:01", "192.0.2.1", "192.0.2.2")
    assert bytes(frame)[:42].hex() == (
        "ffffffffffff0200000000010806" + "0001080006040001" + "020000000001c0000201" + "000000000000c0000202"
    )


@pytest.mark.parametrize("text", ["", "02:00", "02:00:00:00:00:00:00", "02:00:00:00:00:zz"])
def test_what_is_no_mac_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"MAC|int"):
        mac_bytes(text)
