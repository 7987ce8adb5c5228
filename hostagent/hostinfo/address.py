"""Which addresses this host has: that of the management interface, and all that its certificate is to name.

`psutil` asks the kernel; choosing among what it says is pure.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Found: TypeAlias = Mapping[str, Sequence[tuple[int, str]]]
"""Interface → address family and address of each, as `look` gives them."""


def look() -> Found:
    """The addresses of every interface, IPv4 and IPv6, in the kernel's order."""
    import psutil

    wanted = (socket.AF_INET, socket.AF_INET6)
    return {
        name: [(int(one.family), one.address) for one in found if one.family in wanted]
        for name, found in psutil.net_if_addrs().items()
    }


def of_interface(interface: str, family: str) -> str:
    """The address of the management interface now, empty when it has none or is not set."""
    return choose(look(), interface, family) if interface else ""


def choose(found: Found, interface: str, family: str) -> str:
    """The first address of that interface and family ("IPv4" or "IPv6") that others can reach, or empty."""
    wanted = socket.AF_INET6 if family == "IPv6" else socket.AF_INET
    for kind, text in found.get(interface, ()):
        if kind == wanted and (usable := _usable(text)) is not None:
            return usable
    return ""


def of_all(found: Found) -> tuple[str, ...]:
    """Every address that others can reach, IPv4 first, each once."""
    usable = {text for addresses in found.values() for _, one in addresses if (text := _usable(one))}
    return tuple(
        sorted(
            usable,
            key=lambda text: (ipaddress.ip_address(text).version, int(ipaddress.ip_address(text))),
        )
    )


def _usable(text: str) -> str | None:
    """The address in its usual form; None for one of this host alone (loopback, link-local) and for garbage."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return None if address.is_loopback or address.is_link_local or address.is_unspecified else str(address)
