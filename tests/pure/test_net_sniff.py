"""Frames that tell what a NIC is plugged into, and what is made of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nested_xen.frames import Ethernet, EtherType, LacpEnd, LacpState
from nested_xen.frames import Lacpdu as SentLacpdu

from hostagent.net import sniff
from hostagent.net.sniff import Heard
from hostagent.net.sniff_frames import (
    LLDP,
    SLOW,
    Frame,
    Lacpdu,
    Neighbour,
    frame_of,
    lacpdu_of,
    neighbour_of,
)

SWITCH, US = "02:00:00:00:00:01", "02:00:00:00:00:99"
STATE = LacpState.ACTIVITY | LacpState.AGGREGATION


def lacpdu(system=SWITCH, key=9, port=1):
    nobody = LacpEnd("00:00:00:00:00:00", 0, 0, LacpState(0))
    return bytes(SentLacpdu(LacpEnd(system, key, port, STATE), nobody).frame(system))


def ordinary(*vlans):
    return bytes(Ethernet(US, SWITCH, EtherType.LOCAL, b"hello", vlans))


def tlv(kind, value):
    return struct.pack("!H", kind << 9 | len(value)) + value


def lldp(*tlvs):
    return b"".join(tlvs) + tlv(0, b"")


def lldp_frame(*tlvs):
    return bytes(Ethernet("01:80:c2:00:00:0e", SWITCH, EtherType.LLDP, lldp(*tlvs)))


CHASSIS = tlv(1, b"\x04" + bytes.fromhex(SWITCH.replace(":", "")))
PORT = tlv(2, b"\x05ge-0/0/7")
TTL = tlv(3, b"\x00\x78")


# frames


@pytest.mark.parametrize(
    ("data", "tag", "vlan"),
    [
        pytest.param(ordinary(), -1, -1, id="untagged"),
        pytest.param(ordinary(0x2064), -1, 100, id="tagged-with-priority"),
        pytest.param(ordinary(100, 200), -1, 100, id="two-tags"),
        pytest.param(ordinary(), 0x2064, 100, id="tag-taken-out"),
        pytest.param(ordinary(200), 100, 100, id="outer-tag-taken-out"),
        pytest.param(ordinary(0xE000), -1, 0, id="priority-only"),
    ],
)
def test_the_vlan_of_a_frame_is_that_of_its_outermost_tag(data, tag, vlan):
    frame = frame_of(data, tag)

    assert frame is not None
    assert (frame.type, frame.vlan, frame.payload[:5]) == (EtherType.LOCAL, vlan, b"hello")


def test_a_frame_that_is_cut_short_is_none():
    assert frame_of(ordinary()[:13]) is None
    assert frame_of(ordinary(100)[:17]) is None
    assert frame_of(ordinary()[:14]) == Frame(EtherType.LOCAL, -1, b"")


def test_both_ends_of_a_lacpdu_are_read():
    frame = frame_of(lacpdu(key=0x1234, port=7))
    assert frame is not None
    found = lacpdu_of(frame.payload)

    assert found is not None
    assert frame.type == SLOW
    assert (found.actor.system, found.actor.key, found.actor.port) == (SWITCH, 0x1234, 7)
    assert found.actor.state == STATE
    assert found.partner.system == "00:00:00:00:00:00"


def test_the_fields_of_an_end_are_where_the_standard_has_them():
    end = struct.pack("!H6sHHHB3x", 0x8001, bytes.fromhex("0200000000aa"), 2, 0x8003, 4, 0x3D)
    found = lacpdu_of(b"\x01\x01" + b"\x01\x14" + end + b"\x02\x14" + end + bytes(66))

    assert found is not None
    assert found == Lacpdu(found.partner, found.actor)
    assert found.actor == ("02:00:00:00:00:aa", 0x8001, 2, 4, 0x8003, 0x3D)


@pytest.mark.parametrize("change", [(0, 2), (2, 3), (3, 0x15), (22, 1), (23, 0)])
def test_other_slow_protocols_are_no_lacpdus(change):
    frame = frame_of(lacpdu())
    assert frame is not None
    payload = bytearray(frame.payload)
    assert lacpdu_of(bytes(payload)) is not None
    payload[change[0]] = change[1]

    assert lacpdu_of(bytes(payload)) is None
    assert lacpdu_of(frame.payload[:41]) is None


def test_a_switch_tells_who_it_is_and_which_vlans_its_port_has():
    found = neighbour_of(
        lldp(
            CHASSIS,
            PORT,
            TTL,
            tlv(4, b"to host 7"),
            tlv(5, b"sw1"),
            tlv(6, b"Switch\r\n\x1b[31mOS 1"),
            tlv(8, b"\x05\x01" + bytes([192, 0, 2, 9]) + b"\x02\0\0\0\x01\0"),
            tlv(8, b"\x11\x02" + bytes(15) + b"\x01" + b"\x02\0\0\0\x01\0"),
            tlv(127, b"\x00\x80\xc2\x01" + struct.pack("!H", 20)),
            tlv(127, b"\x00\x80\xc2\x03" + struct.pack("!H", 30) + b"\x04prod"),
            tlv(127, b"\x00\x80\xc2\x03" + struct.pack("!H", 10) + b"\x03dmz"),
            tlv(127, b"\x00\x12\x0f\x03\x03" + struct.pack("!I", 5)),
            tlv(127, b"\x00\x12\x0f\x04" + struct.pack("!H", 9216)),
        )
    )

    assert found == Neighbour(
        SWITCH,
        "ge-0/0/7",
        120,
        port_description="to host 7",
        system_name="sw1",
        system_description="Switch   [31mOS 1",
        address="192.0.2.9",
        untagged_vlan=20,
        vlans=(10, 30),
        aggregated=True,
        largest_frame=9216,
    )


@pytest.mark.parametrize(("status", "aggregated"), [(0, False), (1, False), (3, True)])
def test_a_port_that_could_be_aggregated_is_not_yet(status, aggregated):
    found = neighbour_of(
        lldp(CHASSIS, PORT, TTL, tlv(127, b"\x00\x80\xc2\x07" + bytes((status,)) + bytes(4)))
    )

    assert found is not None
    assert found.aggregated == aggregated


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"\x04\x02\x00\x00\x00\x00\x01", SWITCH),
        (b"\x05\x01\xc0\x00\x02\x09", "192.0.2.9"),
        (b"\x05\x02" + bytes(15) + b"\x01", "::1"),
        (b"\x07rack 3", "rack 3"),
    ],
)
def test_a_chassis_is_told_in_the_form_it_has(value, told):
    found = neighbour_of(lldp(tlv(1, value), PORT, TTL))

    assert found is not None
    assert found.chassis == told


def test_lldp_that_does_not_say_whose_port_it_is_is_nothing():
    assert neighbour_of(lldp(CHASSIS, TTL)) is None
    assert neighbour_of(lldp(PORT, TTL)) is None
    assert neighbour_of(CHASSIS + PORT[:5]) is None


@given(st.binary(max_size=120), st.integers(-1, 0xFFFF))
def test_any_bytes_are_a_frame_or_none(data, tag):
    frame = frame_of(data, tag)

    assert frame is None or -1 <= frame.vlan <= 4095


@given(st.binary(max_size=120))
def test_any_payload_is_read_without_an_error(data):
    assert lacpdu_of(b"\x01\x01\x01\x14" + data) is None or len(data) >= 38
    found = neighbour_of(data)
    assert found is None or (found.chassis and found.port)


@given(st.lists(st.tuples(st.integers(3, 127), st.binary(max_size=40)), max_size=6))
def test_whatever_a_neighbour_says_can_be_printed(tlvs):
    found = neighbour_of(lldp(CHASSIS, PORT, TTL, *(tlv(kind, value) for kind, value in tlvs)))

    assert found is not None
    assert "".join(map(str, found)).isprintable()


# what was heard


def heard(*frames):
    each = Heard()
    for frame in frames:
        each.count(frame, -1)
        each.control(frame)
    return each.told()


def test_frames_are_counted_by_vlan():
    found = heard(ordinary(), ordinary(20), ordinary(10), ordinary(20), ordinary(0), b"short")

    assert (found.frames, found.untagged, found.vlans) == (5, 1, {0: 1, 10: 1, 20: 2})
    assert list(found.vlans) == [0, 10, 20]


def test_the_last_word_of_each_sender_counts():
    found = heard(
        lacpdu(key=1),
        lacpdu(key=2),
        lacpdu(port=5, key=3),
        lldp_frame(CHASSIS, PORT, TTL, tlv(5, b"old")),
        lldp_frame(CHASSIS, PORT, TTL, tlv(5, b"new")),
    )

    assert [(each.actor.port, each.actor.key) for each in found.lacp] == [(1, 2), (5, 3)]
    assert [each.system_name for each in found.neighbours] == ["new"]
    assert found.frames == 5
    assert LLDP == EtherType.LLDP


@pytest.mark.parametrize(
    ("ancillary", "tag"),
    [
        ([], -1),
        (
            [
                (
                    sniff.SOL_PACKET,
                    sniff.AUXILIARY,
                    struct.pack("=IIIHHHH", 0x10, 60, 60, 0, 14, 0x2064, 0x8100),
                )
            ],
            0x2064,
        ),
        ([(sniff.SOL_PACKET, sniff.AUXILIARY, struct.pack("=IIIHHHH", 0, 60, 60, 0, 14, 5, 0x8100))], -1),
        ([(sniff.SOL_PACKET, sniff.AUXILIARY, b"short")], -1),
        ([(1, sniff.AUXILIARY, bytes(20))], -1),
    ],
)
def test_a_tag_that_was_taken_out_is_told_beside_the_frame(ancillary, tag):
    assert sniff._tag(ancillary) == tag
