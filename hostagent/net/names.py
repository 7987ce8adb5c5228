"""Names of bridges, bonds and VLAN devices, and what the kernel takes as a name (networking.md 1.5)."""

from __future__ import annotations

from hostagent.errors import InvalidValueError

LENGTH = 15
"""Bytes of a device name: IFNAMSIZ less the final NUL."""
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
