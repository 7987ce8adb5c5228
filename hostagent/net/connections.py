"""Who has a TCP connection with this host now, by /proc/net/tcp: of those, the neighbours can be asked for."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("proc/net/tcp", "proc/net/tcp6")
ESTABLISHED = "01"
MAPPED = bytes(10) + b"\xff\xff"
LIMIT_BYTES = 4 << 20


def talking(root: Path) -> tuple[tuple[str, str], ...]:
    """Our own address and the other's, each pair once; empty when it cannot be read."""
    found: dict[tuple[str, str], None] = {}
    for name in FILES:
        try:
            with (root / name).open("rb") as file:
                found |= dict.fromkeys(parse(file.read(LIMIT_BYTES).decode("ascii", "replace")))
        except OSError:
            continue
    return tuple(found)


def parse(text: str) -> list[tuple[str, str]]:
    """The pairs of such a file, in its order; lines that are none are passed over."""
    pairs = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 3 and words[3] == ESTABLISHED:
            own, other = _address(words[1]), _address(words[2])
            if own and other:
                pairs.append((own, other))
    return pairs


def _address(text: str) -> str:
    """An address as the kernel writes it there: 32-bit words in this machine's order, then the port."""
    digits = text.partition(":")[0]
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return ""
    if len(digits) not in (8, 32):
        return ""
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    if raw.startswith(MAPPED):
        raw = raw[12:]
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
