"""What happens to links, addresses and routes, as the kernel tells it.

Subscribe first and look then (`netlink.py`): what changes in between is told and not lost. Who reads too slowly loses
events; that is told too, and only a new look helps.
"""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net.netlink import DATAGRAM_BYTES, netlink_socket
from hostagent.net.wire import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
)
from hostagent.net.wire_answers import decode_address, decode_link, decode_routes, messages

if TYPE_CHECKING:
    from hostagent.net.devices import Address, Link, Route
    from hostagent.net.wire_answers import Message

GROUPS = 0x1 | 0x10 | 0x100 | 0x40 | 0x400
"""RTMGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR, _IPV4_ROUTE, _IPV6_ROUTE."""
RECEIVE_BYTES = 8 << 20
"""An event of a link counts for some 4 KiB of it, and one new port is several events; unused it costs nothing."""
AT_ONCE = 256
"""Datagrams in one read: who is flooded comes to do other things in between."""


class Event(NamedTuple):
    """Something is there, new or changed, or is `gone`. Routes are those of the main table."""

    gone: bool
    what: Link | Address | Route


class Follower:
    """A subscribed socket, in the network namespace of the thread that makes it. A context manager."""

    def __init__(self, receive_bytes: int = RECEIVE_BYTES) -> None:
        """Raises NetlinkError."""
        self._socket = netlink_socket(receive_bytes, GROUPS)
        self._socket.settimeout(0)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Readable when there is something to read."""
        return self._socket.fileno()

    def wait(self, timeout_s: float) -> bool:
        """Whether there is something to read, at the latest after `timeout_s`."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def read(self) -> list[Event] | None:
        """What happened, in order, without waiting; None when events were lost and a new look is needed.

        After a loss everything that had come before it is dropped: the look has it. Raises MalformedMessage.
        """
        events: list[Event] = []
        for _ in range(AT_ONCE):
            try:
                data = self._socket.recv(DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._drop()
                return None
            for message in messages(data):
                events += decode_event(message)
        return events

    def _drop(self) -> None:
        """Empty the socket, as far as it was filled when events were lost."""
        for _ in range(RECEIVE_BYTES // 512):
            try:
                self._socket.recv(DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


def decode_event(message: Message) -> list[Event]:
    """The events of one message, none if it is about something else; raises MalformedMessage.

    A bridge tells of its ports in link messages of its own family, where "gone" means only: no port any more. They are
    passed over, for the device's own message comes too.
    """
    type_, body = message.type, message.body
    if type_ in (RTM_NEWLINK, RTM_DELLINK):
        return [Event(type_ == RTM_DELLINK, decode_link(body))] if body[:1] == _ANY_FAMILY else []
    if type_ in (RTM_NEWADDR, RTM_DELADDR):
        address = decode_address(body)
        return [] if address is None else [Event(type_ == RTM_DELADDR, address)]
    if type_ in (RTM_NEWROUTE, RTM_DELROUTE):
        return [Event(type_ == RTM_DELROUTE, route) for route in decode_routes(body)]
    return []


_ANY_FAMILY = bytes([socket.AF_UNSPEC])
