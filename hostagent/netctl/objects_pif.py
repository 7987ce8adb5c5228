"""Changes of PIF records: addresses, properties, the management flag."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.netctl import refusals
from hostagent.netctl.fields import flag, pairs, text, texts
from hostagent.netctl.refusals_pif import split

if TYPE_CHECKING:
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.netctl.refusals_pif import Ipv4, Ipv6

NO_IPV4: dict[str, object] = {
    "ip_configuration_mode": "None",
    "IP": "",
    "netmask": "",
    "gateway": "",
    "DNS": "",
}
NO_IPV6: dict[str, object] = {"ipv6_configuration_mode": "None", "IPv6": [], "ipv6_gateway": ""}
ADDRESSES = (*NO_IPV4, *NO_IPV6, "primary_address_type")
"""Fields that go from the primary member of a bond to the bond and back, those of IPv6 too."""
OWNER_KEYS = ("defaultroute", "peerdns", "domain")
"""Keys of other_config that belong to the addresses: they go with them."""


def reconfigure_ip(transaction: Transaction, pif: str, wanted: Ipv4) -> None:
    """What DHCP has found stays until the next lease where DHCP stays."""
    if wanted.mode == text(transaction, "PIF", pif, "ip_configuration_mode") == "DHCP":
        return
    dns = _servers(transaction, pif, wanted.dns, keep_ipv6=True)
    values = {**NO_IPV4, "ip_configuration_mode": wanted.mode, "DNS": dns}
    if wanted.mode == "Static":
        values |= {"IP": wanted.address, "netmask": wanted.netmask, "gateway": wanted.gateway}
    transaction.update("PIF", pif, values)


def reconfigure_ipv6(transaction: Transaction, pif: str, wanted: Ipv6) -> None:
    """As `reconfigure_ip`."""
    present = text(transaction, "PIF", pif, "ipv6_configuration_mode")
    if wanted.mode == present and wanted.mode in ("DHCP", "Autoconf"):
        return
    dns = _servers(transaction, pif, wanted.dns, keep_ipv6=False)
    values = {**NO_IPV6, "ipv6_configuration_mode": wanted.mode, "DNS": dns}
    if wanted.mode == "Static":
        values |= {"IPv6": [wanted.address], "ipv6_gateway": wanted.gateway}
    transaction.update("PIF", pif, values)


def _servers(view: View, pif: str, given: str, *, keep_ipv6: bool) -> str:
    """The given servers, and those of the other family that were there: each call replaces its own family's."""
    kept = [
        server
        for server in split(text(view, "PIF", pif, "DNS"))
        if refusals.is_ipv6(server) == keep_ipv6 and server not in split(given)
    ]
    return ",".join([*split(given), *kept])


def set_property(transaction: Transaction, pif: str, name: str, value: str) -> tuple[str, ...]:
    """Set it here, on the members of a bond and on VLANs. Returns the attached PIFs that it reaches."""
    members = [
        member
        for bond in texts(transaction, "PIF", pif, "bond_master_of")
        for member in texts(transaction, "Bond", bond, "slaves")
    ]
    above = upper(transaction, pif)
    for one in (pif, *members, *above):
        transaction.update(
            "PIF", one, {"properties": {**pairs(transaction, "PIF", one, "properties"), name: value}}
        )
    return attached(transaction, (pif, *above))


def upper(view: View, pif: str) -> tuple[str, ...]:
    """The PIFs of the VLANs on a PIF, lowest tag first."""
    vlans = texts(view, "PIF", pif, "VLAN_slave_of")
    ordered = sorted(vlans, key=lambda vlan: int(str(view.get("VLAN", vlan, "tag"))))
    return tuple(text(view, "VLAN", vlan, "untagged_PIF") for vlan in ordered)


def attached(view: View, pifs: tuple[str, ...]) -> tuple[str, ...]:
    """Those of them that are."""
    return tuple(pif for pif in pifs if flag(view, "PIF", pif, "currently_attached"))


def move_addresses(transaction: Transaction, old: str, new: str) -> None:
    """Give `new` the addresses of `old`, of both families, with the keys that decide about gateway and DNS."""
    record = transaction.record("PIF", old)
    transaction.update("PIF", new, {field: record[field] for field in ADDRESSES})
    transaction.update("PIF", old, {**NO_IPV4, **NO_IPV6})
    ours, theirs = (pairs(transaction, "PIF", one, "other_config") for one in (old, new))
    moving = {key: value for key, value in ours.items() if key in OWNER_KEYS}
    if moving:
        transaction.set("PIF", new, "other_config", {**theirs, **moving})
        rest = {key: value for key, value in ours.items() if key not in moving}
        transaction.set("PIF", old, "other_config", rest)


def flag_management(transaction: Transaction, host: str, bridge: str) -> None:
    """`management` is true for this host's PIF on the network with that bridge, and for no other (S28 s13)."""
    for ref, record in list(transaction.records("PIF")):
        if record["host"] == host:
            own = text(transaction, "network", str(record["network"]), "bridge")
            transaction.set("PIF", ref, "management", bool(bridge) and own == bridge)


def forget(transaction: Transaction, pif: str) -> None:
    """The record goes with its measurements, unless another PIF shares them."""
    metrics = text(transaction, "PIF", pif, "metrics")
    transaction.destroy("PIF", pif)
    shared = any(record["metrics"] == metrics for _, record in transaction.records("PIF"))
    if metrics and not shared and transaction.exists("PIF_metrics", metrics):
        transaction.destroy("PIF_metrics", metrics)
