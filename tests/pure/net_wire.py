"""Messages of rtnetlink for tests: pyroute2 reads what we write and writes what we read."""

from __future__ import annotations

import socket
import struct
from typing import Any

from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from hostagent.net.operation import Operation
from hostagent.net.wire_answers import messages

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


def route_body(attributes: list[tuple[str, Any]], **fields: int) -> bytes:
    return written_by_pyroute2(
        rtmsg(), NEW_ROUTE, attributes, **{"family": 2, "table": 254, "type": 1, "proto": 4, **fields}
    )


def joined(attributes: list[tuple[int, bytes]]) -> bytes:
    return b"".join(
        struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
        for number, value in attributes
    )


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
