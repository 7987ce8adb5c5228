"""Frames of ARP and neighbour discovery, and what is lost by a change."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import probe
from hostagent.net.probe import Answer, Probe, ProbeError

MAC, OTHER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
FOUR, SIX = socket.inet_aton("10.0.0.7"), socket.inet_pton(socket.AF_INET6, "fd00::12:3456")
ASKER = socket.inet_pton(socket.AF_INET6, "fe80::1")

macs = st.binary(min_size=6, max_size=6)
fours = st.binary(min_size=4, max_size=4)
sixes = st.binary(min_size=16, max_size=16)


def test_a_question_by_arp_is_as_the_rfc_has_it():
    frame = probe.arp_frame(MAC, probe.REQUEST, probe.NOBODY4, FOUR)

    assert frame[:14].hex() == "ffffffffffff" + "020000000001" + "0806"
    assert (
        frame[14:42].hex() == "0001080006040001" + "020000000001" + "00000000" + "000000000000" + "0a000007"
    )
    assert len(frame) == 60


def test_a_solicitation_is_as_the_rfc_has_it():
    frame = probe.solicitation(MAC, ASKER, SIX)

    assert frame[:6].hex() == "3333ff123456"
    assert frame[12:22].hex() == "86dd" + "60000000" + "0020" + "3a" + "ff"
    assert frame[38:54].hex() == "ff0200000000000000000001ff123456"
    assert frame[54:56].hex() == "8700"
    assert frame[-8:].hex() == "0101" + "020000000001"


def test_the_probe_for_a_duplicate_is_from_nobody_and_names_no_link_address():
    frame = probe.solicitation(MAC, probe.NOBODY6, SIX)

    assert frame[22:38] == bytes(16)
    assert len(frame) == 14 + 40 + 24


@given(macs, st.sampled_from([1, 2]), fours, fours)
def test_arp_is_read_back(mac, operation, sender, target):
    found = probe.parse_arp(probe.arp_frame(mac, operation, sender, target))

    assert found == (operation, mac, sender, bytes(6), target)


@given(macs, sixes, sixes)
def test_neighbour_discovery_is_read_back(mac, source, target):
    asked = probe.parse_neighbour(probe.solicitation(mac, source, target))
    told = probe.parse_neighbour(probe.advertisement(mac, target))

    assert asked == (probe.SOLICITATION, source, target, mac)
    assert told == (probe.ADVERTISEMENT, target, target, mac)


@given(st.binary(max_size=200))
def test_no_frame_breaks_the_readers(frame):
    for text in (frame, frame[:12] + b"\x08\x06" + frame[14:], frame[:12] + b"\x86\xdd\x60" + frame[15:]):
        probe.parse_arp(text)
        probe.parse_neighbour(text)
        for address in (FOUR, SIX):
            assert len(probe.claimant(text, address, probing=True)) in (0, 6)


@given(st.integers(0, 85), st.integers(0, 7))
def test_a_damaged_advertisement_is_none(at, bit):
    good = probe.advertisement(MAC, SIX)
    bad = bytearray(good)
    bad[at] ^= 1 << bit

    found = probe.parse_neighbour(bytes(bad))

    # the Ethernet header, traffic class and flow label are not under the checksum, and say nothing here
    assert found is None or at < 12 or 14 <= at < 18


def test_one_from_beyond_a_router_is_none():
    frame = bytearray(probe.advertisement(MAC, SIX))
    frame[21] = 254

    assert probe.parse_neighbour(bytes(frame)) is None


def test_an_option_of_length_zero_does_not_hang_the_reader():
    message = struct.pack("!BBHI", 136, 0, 0, 0) + SIX + bytes(8)
    source = ASKER
    pseudo = source + probe.ALL_NODES + struct.pack("!II", len(message), 58)
    message = message[:2] + struct.pack("!H", probe.checksum(pseudo + message)) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + source + probe.ALL_NODES

    found = probe.parse_neighbour(MAC + OTHER + b"\x86\xdd" + header + message)

    assert found == (136, source, SIX, OTHER)


@pytest.mark.parametrize(
    ("frame", "address", "probing", "holder"),
    [
        (probe.arp_frame(OTHER, probe.REPLY, FOUR, FOUR), FOUR, False, OTHER),
        (probe.arp_frame(OTHER, probe.REQUEST, FOUR, bytes(4)), FOUR, True, OTHER),
        (probe.arp_frame(OTHER, probe.REQUEST, bytes(4), FOUR), FOUR, True, OTHER),
        (probe.arp_frame(OTHER, probe.REQUEST, bytes(4), FOUR), FOUR, False, b""),
        (probe.arp_frame(OTHER, probe.REQUEST, b"\x0a\0\0\x08", FOUR), FOUR, True, b""),
        (probe.advertisement(OTHER, SIX), SIX, False, OTHER),
        (probe.advertisement(OTHER, ASKER), SIX, False, b""),
        (probe.solicitation(OTHER, probe.NOBODY6, SIX), SIX, True, OTHER),
        (probe.solicitation(OTHER, probe.NOBODY6, SIX), SIX, False, b""),
        (probe.solicitation(OTHER, ASKER, SIX), SIX, True, b""),
    ],
)
def test_who_claims_an_address(frame, address, probing, holder):
    assert probe.claimant(frame, address, probing=probing) == holder


@given(st.binary(max_size=99))
def test_data_with_its_checksum_sums_to_nothing(data):
    even = data + bytes(len(data) % 2)

    assert probe.checksum(even + struct.pack("!H", probe.checksum(even))) in (0, 0xFFFF)


@pytest.mark.parametrize("bad", ["", "10.0.0.256", "fe80::1%eth0", "host"])
def test_what_is_no_address_is_refused(bad):
    with pytest.raises(ProbeError, match="is no address"):
        probe.holder("xenbr0", bad, timeout_s=0)


# --- before and after ---

GATEWAY, PEER = Probe("gateway", "10.0.0.1", "xenbr0"), Probe("tcp", "10.0.0.9", port=443)


def answer(asked, works):
    return Answer(asked, answered=works)


def test_only_what_worked_before_can_be_lost():
    before = [answer(GATEWAY, works=True), answer(PEER, works=False)]

    assert probe.worked(before) == (GATEWAY,)
    assert probe.lost(before, [answer(GATEWAY, works=True), answer(PEER, works=False)]) == ()
    assert [gone.probe for gone in probe.lost(before, [answer(GATEWAY, works=False)])] == [GATEWAY]


def test_a_probe_from_another_device_is_the_same_question():
    moved = GATEWAY._replace(device="xapi1", source="10.0.0.8")

    assert probe.lost([answer(GATEWAY, works=True)], [answer(moved, works=True)]) == ()


def test_one_that_was_not_asked_again_is_lost():
    (gone,) = probe.lost([answer(PEER, works=True)], [answer(PEER._replace(port=80), works=True)])

    assert (gone.probe, gone.detail) == (PEER, "not asked again")
