"""Framing: whatever pieces the bytes come in, and whatever they are."""

from __future__ import annotations

import itertools
import socket
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.xen.xenstore import InvalidPath, XenstoreLost, XenstoreProtocol, XenstoreQuota, checked_path
from hostagent.xen.xenstore_wire import LAST_OPERATION, REPLY_MAX_BYTES, Decoder, Packet, SocketConnection

words = st.integers(0, 2**32 - 1)
packets = st.tuples(st.integers(0, LAST_OPERATION), st.binary(max_size=300), words, words).map(
    lambda fields: Packet(*fields)
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(packets, max_size=8), st.lists(st.integers(0, 5000), max_size=12))
def test_packets_come_out_as_they_went_in_however_the_stream_is_cut(sent, cuts):
    stream = b"".join(packet.encode() for packet in sent)
    decoder = Decoder()

    came = [packet for piece in pieces(stream, cuts) for packet in decoder.feed(piece)]

    assert came == sent


@given(packets)
def test_the_header_is_four_native_words_and_the_payload_follows(packet):
    data = packet.encode()

    assert struct.unpack("=IIII", data[:16]) == (packet.op, packet.rq_id, packet.tx_id, len(packet.payload))
    assert data[16:] == packet.payload


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_garbage_is_refused_or_waited_for_but_never_another_error(garbage, cuts):
    decoder = Decoder()
    for piece in pieces(garbage, cuts):
        try:
            came = decoder.feed(piece)
        except XenstoreProtocol:
            return
        assert all(packet.op <= LAST_OPERATION for packet in came)


@given(packets, st.integers(0, 400))
def test_a_truncated_packet_is_not_a_packet(packet, cut):
    data = packet.encode()

    assert Decoder().feed(data[: min(cut, len(data) - 1)]) == []


def test_a_reply_longer_than_the_protocol_allows_is_taken():
    body = b"x" * 11_100  # seen from oxenstored 4.17

    assert Decoder().feed(struct.pack("=IIII", 1, 7, 0, len(body)) + body) == [Packet(1, body, 7)]


def test_a_reply_of_absurd_length_is_refused_before_it_has_come():
    with pytest.raises(XenstoreProtocol):
        Decoder().feed(struct.pack("=IIII", 1, 7, 0, REPLY_MAX_BYTES + 1))


def test_a_request_over_4096_bytes_is_refused_before_it_is_sent():
    with pytest.raises(XenstoreQuota):
        Packet(11, b"x" * 4097, 1).encode()


def test_the_end_of_the_stream_is_a_lost_connection():
    ours, theirs = socket.socketpair()
    connection = SocketConnection(theirs, "pair")
    ours.close()

    with pytest.raises(XenstoreLost):
        connection.recv(time.monotonic() + 5)
    connection.close()


def test_a_receive_ends_at_its_deadline_and_at_an_interrupt():
    ours, theirs = socket.socketpair()
    connection = SocketConnection(theirs, "pair")

    assert connection.recv(time.monotonic() + 0.01) == ()
    connection.interrupt()
    assert connection.recv(time.monotonic() + 60) == ()
    connection.close()
    ours.close()


@pytest.mark.parametrize(
    "path", ["/", "/local/domain/0", "name", "@releaseDomain", "/a-b_c/@d", "/" + "x" * 3071]
)
def test_a_legal_path_is_taken(path):
    assert checked_path(path) == path.encode()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a/",
        "//a",
        "/a//b",
        "/a.b",
        "/a b",
        "/a:b",
        "/a+b",
        "/ä",
        "/a\n",
        "/a\0",
        "/" + "x" * 3072,
        "x" * 2049,
    ],
)
def test_an_illegal_path_is_refused_with_the_rule(path):
    with pytest.raises(InvalidPath) as caught:
        checked_path(path)
    assert caught.value.code == "INVALID_VALUE"
    assert "letters" in caught.value.hint
