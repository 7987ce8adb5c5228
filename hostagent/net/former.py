"""The former management interface, when another one takes over in its subnet: it must not keep its address there.

Two interfaces in one subnet answer for each other, and the address that is forgotten there is given out again one day
(networking.md 5, row 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net import inet
from hostagent.net.chains import text

if TYPE_CHECKING:
    from hostagent.net.records import Pif, Records


def cleared(records: Records, becoming: Pif) -> tuple[Records, tuple[str, ...], list[str]]:
    """Records in which the former management PIF, where it is up, has no address in a subnet of the one that is
    becoming management; which PIFs that changes; and what is to be told. `currently_attached` must be true of now."""
    pifs = dict(records.pifs)
    changed, told = [], []
    for pif in records.pifs.values():
        if not pif.management or pif.ref == becoming.ref or not pif.currently_attached:
            continue
        bare, gone = pif._replace(management=False), []
        if _together(_ipv4(pif), _ipv4(becoming)):
            gone.append(pif.ip)
            bare = bare._replace(ip_mode="None", ip="", netmask="", gateway="", dns="")
        if _together(_ipv6(pif), _ipv6(becoming)):
            gone += pif.ipv6
            bare = bare._replace(ipv6_mode="None", ipv6=(), ipv6_gateway="")
        if gone:
            pifs[pif.ref] = bare
            changed.append(pif.ref)
            told.append(
                f"{text(pif)} was the management interface in the same subnet and loses {', '.join(gone)}"
                " (hint: --keep-old lets it have that)"
            )
    return records._replace(pifs=pifs), tuple(changed), told


def _together(some: list[tuple[str, int]], others: list[tuple[str, int]]) -> bool:
    """Whether a subnet of the one overlaps one of the other."""
    return any(
        inet.contains(one, min(prefix, other_prefix), other)
        for one, prefix in some
        for other, other_prefix in others
    )


def _ipv4(pif: Pif) -> list[tuple[str, int]]:
    address, prefix = inet.address(pif.ip), inet.prefix_of(pif.netmask)
    return [(address, prefix)] if pif.ip_mode != "None" and address and prefix >= 0 else []


def _ipv6(pif: Pif) -> list[tuple[str, int]]:
    if pif.ipv6_mode == "None":
        return []
    return [each for element in pif.ipv6 if (each := inet.cidr(element)) and not each[0].startswith("fe80:")]
