"""Which PIF owns the default route and which the resolver, and why: operators ask (networking.md 1.4).

The order is the reference's: a PIF that says so itself, the PIF that is becoming management, the management PIF, the
first one with an address. Two things differ. Only PIFs that are up, or coming up, can own: an owner that is unplugged
leaves the host without a gateway. And each family has its own owner, so that a PIF without IPv6 does not take
the IPv6 gateway away from the one that has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hostagent.net.records import Pif, Records


class Owner(NamedTuple):
    ref: str
    """Of a PIF; empty: nobody."""
    reason: str


def gateway_owner(
    records: Records, up: Iterable[str], family: int, *, becoming_management: str = ""
) -> Owner:
    """The owner of the default route of a family (4 or 6) when these PIFs are up."""
    candidates = [pif for ref in up if _has_address(pif := records.pifs[ref], family)]
    return _choose(
        candidates, "defaultroute", keys.wants_default_route, becoming_management, f"an IPv{family} address"
    )


def dns_owner(records: Records, up: Iterable[str], *, becoming_management: str = "") -> Owner:
    """The owner of the resolver when these PIFs are up."""
    candidates = [pif for ref in up if _has_primary_address(pif := records.pifs[ref])]
    return _choose(
        candidates, "peerdns", keys.wants_dns, becoming_management, "an address of its primary family"
    )


def _has_address(pif: Pif, family: int) -> bool:
    mode = pif.ip_mode if family == 4 else pif.ipv6_mode
    return mode != "None" and not pif.bond_slave_of and pif.managed


def _has_primary_address(pif: Pif) -> bool:
    return _has_address(pif, 6 if pif.primary_address_type == "IPv6" else 4)


def other_management(records: Records, up: Iterable[str], causes: Iterable[str], ref: str) -> str:
    """How another PIF than `ref` becomes the management interface, as a hint: the first with an address of its
    `causes`, those that take its place, else of those that are up."""
    others = [*causes, *sorted(up, key=lambda each: in_order(records.pifs[each]))]
    for pif in (records.pifs[each] for each in others if each != ref):
        if _has_address(pif, 4) or _has_address(pif, 6):
            return f"hostagent xe host-management-reconfigure pif-uuid={pif.uuid}"
    return "give another PIF an address and make that the management interface first"


def could_route4(pif: Pif) -> bool:
    """Whether it could have the default route of IPv4; the next two the same of IPv6 and of the resolver."""
    return pif.ip_mode == "DHCP" or (pif.ip_mode == "Static" and bool(pif.gateway))


def could_route6(pif: Pif) -> bool:
    return pif.ipv6_mode in ("DHCP", "Autoconf") or (pif.ipv6_mode == "Static" and bool(pif.ipv6_gateway))


def could_resolve(pif: Pif) -> bool:
    return bool(pif.dns) or "DHCP" in (pif.ip_mode, pif.ipv6_mode)


def dns_is_told(pif: Pif) -> bool:
    """Whether its name servers come with a lease: of others they are configuration."""
    return "DHCP" == (pif.ipv6_mode if pif.primary_address_type == "IPv6" else pif.ip_mode)


def _choose(
    candidates: list[Pif],
    key: str,
    asks: Callable[[Mapping[str, str]], bool],
    becoming: str,
    what: str,
) -> Owner:
    if not candidates:
        return Owner("", f"no PIF that is up has {what}")
    candidates.sort(key=in_order)
    asking = [pif for pif in candidates if asks(pif.other_config)]
    if asking:
        others = f", the first of {len(asking)} that do" if asking[1:] else ""
        return Owner(asking[0].ref, f"it has other_config:{key}=true{others}")
    for pif in candidates:
        if pif.ref == becoming:
            return Owner(pif.ref, f"it is becoming the management interface, and no PIF has {key}=true")
    for pif in candidates:
        if pif.management:
            return Owner(pif.ref, f"it is the management interface, and no PIF has {key}=true")
    return Owner(
        candidates[0].ref, f"it is the first PIF with {what}; no PIF has {key}=true and none is management"
    )


def in_order(pif: Pif) -> tuple[int, int, str, str]:
    """The order of "first": untagged before tagged, eth2 before eth10."""
    return pif.vlan, len(pif.device), pif.device, pif.uuid
