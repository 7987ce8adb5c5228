"""Addresses as texts: what is one, its form as the kernel prints it, and which subnet it lies in.

`ipaddress` costs more to import than all of this; these functions stand on `inet_pton`, which takes exactly what the
kernel's own tools take (no leading zeros, no short forms of IPv4).
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

BITS = {4: 32, 6: 128}


def family(text: str) -> int:
    """4 or 6, by the look of a text that is an address."""
    return 6 if ":" in text else 4


def address(text: str) -> str:
    """An address in the kernel's form; empty when the text is none."""
    kind = AF_INET6 if ":" in text else AF_INET
    try:
        return inet_ntop(kind, inet_pton(kind, text))
    except (OSError, ValueError):  # ValueError: a NUL or a character that is not ASCII
        return ""


def number(text: str) -> int:
    """An address as a number; it has been through `address`."""
    return int.from_bytes(inet_pton(AF_INET6 if ":" in text else AF_INET, text))


def of_number(value: int) -> str:
    """The IPv4 address of a number from 0 to 2^32 - 1."""
    return inet_ntop(AF_INET, value.to_bytes(4))


def prefix_of(netmask: str) -> int:
    """Length of the prefix that a dotted netmask stands for; -1 when it is none."""
    if ":" in netmask or not address(netmask):
        return -1
    inverted = number(netmask) ^ 0xFFFFFFFF
    return -1 if inverted & (inverted + 1) else 32 - inverted.bit_length()


def cidr(text: str) -> tuple[str, int] | None:
    """`address/length`, the address in the kernel's form; None when the text is no such thing."""
    head, slash, tail = text.partition("/")
    found = address(head)
    if not (found and slash and tail.isascii() and tail.isdigit() and len(tail) <= 3):
        return None
    return None if int(tail) > BITS[family(found)] else (found, int(tail))


def subnet(text: str, prefix: int) -> str:
    """The first address of the subnet of that length that an address lies in."""
    bits = BITS[family(text)]
    first = number(text) >> (bits - prefix) << (bits - prefix)
    return inet_ntop(AF_INET6 if bits == 128 else AF_INET, first.to_bytes(bits // 8))


def contains(subnet_of: str, prefix: int, text: str) -> bool:
    """Whether the subnet of that length around one address holds another."""
    if family(subnet_of) != family(text):
        return False
    hosts = BITS[family(text)] - prefix
    return number(subnet_of) >> hosts == number(text) >> hosts


def is_link_local(text: str) -> bool:
    """Whether an address, alone or as `address/length`, is IPv6's of its link alone (fe80::/10)."""
    found = address(text.partition("/")[0])
    return ":" in found and number(found) >> 118 == 0xFE80 >> 6


def is_mac(text: str) -> bool:
    """Whether a text is the MAC address of one device, in lower case: no group's, not all zeros."""
    parts = text.split(":")
    digits = all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts)
    return len(parts) == 6 and digits and not int(parts[0], 16) & 1 and text != "00:00:00:00:00:00"
