"""Names of bridges, bonds and VLAN devices, and what the kernel takes as a name (networking.md 1.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Container

LENGTH = 15
"""Bytes of a device name: IFNAMSIZ less the final NUL."""
HOST_INTERNAL = "xenapi"
"""Bridge of the host-internal management network."""
RESERVED = ("xen", "xapi", "vif", "tap", "eth")
"""How a bridge that an operator names must not begin: such names are given out by us and by the kernel."""
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def is_name(text: str) -> bool:
    """Whether the kernel takes the text as the name of a device (`dev_valid_name`), and it can be printed."""
    if not text or len(text) > LENGTH or not text.isprintable() or text in (".", ".."):
        return False
    if " " in text or "/" in text or ":" in text:
        return False
    # bytes count; every blank but U+0020 is not printable
    return text.isascii() or len(text.encode()) <= LENGTH


def bridge_of_nic(device: str, position: int | None = None) -> str:
    """Bridge of a NIC's own network: by its position, else by the number in `ethN`, else `br` and its name.

    Raises INVALID_VALUE when the name is too long for `br` before it; a position helps.
    """
    if position is None and device.startswith("eth") and device[3:].isascii() and device[3:].isdigit():
        position = int(device[3:])
    name = f"br{device}" if position is None else f"xenbr{position}"
    if not is_name(name):
        raise InvalidValueError(
            "bridge",
            name,
            f"the bridge of {device} would be called {name!r}, which is no device name of at most {LENGTH} bytes",
            hint="give the NIC a position, so that its bridge is called xenbrN",
        )
    return name


def next_bridge(taken: Container[str]) -> str:
    """`xapiN` with the least N that is free in the pool."""
    return _next("xapi", taken)


def next_bond(taken: Container[str]) -> str:
    """`bondN` with the least N that is free on the host."""
    return _next("bond", taken)


def _next(word: str, taken: Container[str]) -> str:
    count = 0
    while f"{word}{count}" in taken:
        count += 1
    return f"{word}{count}"


def check_bridge(name: str) -> None:
    """Raise INVALID_VALUE [bridge; name] for a name that an operator may not give to a bridge."""
    if not is_name(name):
        raise InvalidValueError(
            "bridge",
            name,
            f"{name!r} is no name of a bridge",
            hint=f"use 1 to {LENGTH} bytes without blanks, '/' and ':'",
        )
    for word in RESERVED:
        if name.startswith(word):
            raise InvalidValueError(
                "bridge",
                name,
                f"the name {name!r} begins with {word!r}, which is reserved",
                hint="use a name that begins with none of " + ", ".join(RESERVED),
            )


def vlan_device(lower: str, tag: int) -> tuple[str, str]:
    """Name and alternative name of the VLAN device on another one.

    `eth0.5` and no alternative name where that fits. Else a short name made of a checksum of the lower name, the same
    at every boot and on every host, with the readable form as the alternative name (the kernel allows 127 bytes).
    """
    name = f"{lower}.{tag}"
    if len(name) <= LENGTH and len(name.encode()) <= LENGTH:
        return name, ""
    from zlib import crc32  # here: hardly any host has names so long

    return f"v{_base36(crc32(lower.encode()))}.{tag}", name


def _base36(value: int) -> str:
    digits = ""
    while True:
        value, digit = divmod(value, 36)
        digits = DIGITS[digit] + digits
        if not value:
            return digits
