"""Looks, operations and events over the socket, which is a fake kernel."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest

from hostagent.errors import BugError
from hostagent.net import follow, netlink
from hostagent.net.devices import Route
from hostagent.net.follow import Event, Follower, decode_event
from hostagent.net.netlink import CHUNK, LOOKS, Netlink, NetlinkError
from hostagent.net.operation import Operation
from hostagent.net.wire import ACK, DUMP
from hostagent.net.wire_answers import Message, decode_link, messages
from tests.pure.net_wire import (
    DEL_LINK,
    DEL_ROUTE,
    DONE,
    INDEX,
    NEW_LINK,
    NEW_ROUTE,
    error_message,
    link_body,
    op,
    route_body,
)

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


# What a refusal says


@pytest.mark.parametrize(("kind", "module"), [("bond", "bonding"), ("vlan", "8021q"), ("bridge", "bridge")])
def test_the_module_that_is_missing_is_named(kind, module):
    operation = Operation("link-add", "new0", 7, {"kind": kind})

    refused = netlink._failed([operation], {0: (errno.EOPNOTSUPP, "Unknown device type")}, 0)

    assert "Unknown device type" in refused.found
    assert refused.found.endswith(f"the kernel lacks the module {module}")
    assert "linux-image" in refused.hint
    assert (refused.errno, refused.position, refused.executed) == (errno.EOPNOTSUPP, 0, ())


def test_another_refusal_names_no_module():
    operation = Operation("link-add", "new0", 7, {"kind": "bond"})

    for number in (errno.EEXIST, errno.EOPNOTSUPP):
        assert "module" not in netlink._failed([operation], {0: (number, "")}, 0).found
