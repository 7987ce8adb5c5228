"""The messages of the thin CLI protocol (`/cli`): bytes in, bytes out; nothing here waits or prints.

Integers are 32 bits, little-endian and signed; a text is its length and its bytes; a message is its length and its
body. Source: xenapi.md 6.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"XenSource thin CLI protocol"
MAJOR, MINOR = 0, 2
GREETING = MAGIC + struct.pack("<ii", MAJOR, MINOR)
COMMAND, RESPONSE, BLOB = 9, 10, 11
PRINT, LOAD, PROMPT, EXIT, ERROR, PRINT_ERROR = 0, 1, 3, 4, 14, 16
OK, FAILED, WAIT = 5, 6, 18
CHUNK, END = 7, 8
BODY_LIMIT_BYTES = 200 << 10
"""Of the request: all arguments together."""
MESSAGE_LIMIT_BYTES = 64
"""Of what a client may send as one message: the longest, a chunk's header, has 12."""


class ProtocolError(Exception):
    """The client does not speak this protocol; the text says what it sent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One message of the client: OK, FAILED, WAIT, END, or a CHUNK of `length` bytes that follow it."""

    tag: int
    length: int = 0


def arguments_of(body: bytes) -> tuple[list[str], str, str]:
    """Arguments, user name and password in the body of a request: a line each. Lines may end in CR LF, and so may the
    last; of two user names or passwords the last counts, the other is an argument. Raises ProtocolError.
    """
    if len(body) > BODY_LIMIT_BYTES:
        raise ProtocolError(f"the arguments have {len(body)} bytes, more than {BODY_LIMIT_BYTES >> 10} KiB")
    try:
        lines = [line.removesuffix("\r") for line in body.decode().split("\n")]
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the arguments are not UTF-8 ({error.reason} at byte {error.start})") from error
    password = _credential(lines, "password=")
    username = _credential(lines, "username=")
    return [line for line in lines if line], username, password


def check_greeting(greeting: bytes) -> None:
    """Raises ProtocolError when a client does not greet, or speaks another major version."""
    if len(greeting) != len(GREETING) or not greeting.startswith(MAGIC):
        raise ProtocolError("the client did not greet as thin CLI clients do")
    major, minor = struct.unpack_from("<ii", greeting, len(MAGIC))
    if major != MAJOR:
        raise ProtocolError(f"the client speaks version {major}.{minor}, not {MAJOR}.{MINOR}")


def command(tag: int, *fields: str | int | Sequence[str]) -> bytes:
    """A message from the server: a command and its fields."""
    return _message(COMMAND, _integer(tag), *(_field(field) for field in fields))


def length_of(head: bytes) -> int:
    """The length of a client's message, from its first four bytes. Raises ProtocolError."""
    (length,) = struct.unpack("<i", head)
    if not 0 < length <= MESSAGE_LIMIT_BYTES:
        raise ProtocolError(f"the client sent a message of {length} bytes")
    return int(length)


def reply_of(message: bytes) -> Reply:
    """A client's message. Raises ProtocolError."""
    if len(message) % 4:
        raise ProtocolError(f"the client sent a message of {len(message)} bytes")
    numbers = struct.unpack(f"<{len(message) // 4}i", message)
    if numbers in ((RESPONSE, OK), (RESPONSE, FAILED), (RESPONSE, WAIT), (BLOB, END)):
        return Reply(numbers[1])
    if len(numbers) == 3 and numbers[:2] == (BLOB, CHUNK) and numbers[2] >= 0:
        return Reply(CHUNK, numbers[2])
    raise ProtocolError(f"the client sent an unknown message ({', '.join(map(str, numbers))})")


def _credential(lines: list[str], name: str) -> str:
    for place in reversed(range(len(lines))):
        if lines[place].startswith(name):
            return lines.pop(place).removeprefix(name)
    raise ProtocolError(f"among the arguments are username= and password=; {name} is missing")


def _message(kind: int, *parts: bytes) -> bytes:
    body = _integer(kind) + b"".join(parts)
    return _integer(len(body)) + body


def _field(value: str | int | Sequence[str]) -> bytes:
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, str):
        text = value.encode(errors="replace")
        return _integer(len(text)) + text
    return _integer(len(value)) + b"".join(_field(item) for item in value)


def _integer(value: int) -> bytes:
    return struct.pack("<i", value)
