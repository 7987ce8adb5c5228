"""What Bond.create, destroy, set_mode and set_property refuse (networking.md 1.3 and 1.7): pure over a View."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.db.datatype import NULL_REF
from hostagent.errors import InvalidValueError
from hostagent.netctl import objects_nics, refusals
from hostagent.netctl.errors import RefusedError
from hostagent.netctl.fields import flag, pairs, text, texts
from hostagent.netctl.refusals import device_of, label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hostagent.db.view import View
    from hostagent.net.nics_types import Nic

MODES = ("ip_configuration_mode", "ipv6_configuration_mode")
LACP, ONE_AT_A_TIME = "lacp", "active-backup"
DEFAULTS = {"hashing_algorithm": "tcpudp_ports", "lacp-time": "slow", "lacp-fallback-ab": "true"}
"""Properties of a bond in mode lacp that always have a value (networking.md 1.2)."""
CHOICES = {
    "hashing_algorithm": ("src_mac", "tcpudp_ports"),
    "lacp-time": ("fast", "slow"),
    "lacp-fallback-ab": ("true", "false"),
}
KEY = "lacp-aggregation-key"
KEY_LAST = 1023
"""The kernel's `ad_user_port_key` has 10 bits (networking.md 3.4)."""


def create(view: View, network: str, members: Sequence[str], mac: str, host: str) -> None:
    """All of `Bond.create` but its mode and properties, and the speed of its members."""
    refusals.managed_network(view, network)
    if not members:
        raise RefusedError(
            "PIF_BOND_NEEDS_MORE_MEMBERS", found="a bond without members was asked for", hint="name its PIFs"
        )
    for pif in members:
        refusals.managed(view, pif)
        _can_be_member(view, pif)
    hosts = {text(view, "PIF", pif, "host") for pif in members}
    if len(hosts) > 1:
        raise RefusedError(
            "PIF_CANNOT_BOND_CROSS_HOST",
            found="the members are of several hosts",
            hint="name PIFs of one host",
        )
    refusals.this_host(hosts.pop(), host, "Bond.create")
    _one_address(view, members)
    if any(
        pairs(view, "PIF", pif, "properties") != pairs(view, "PIF", members[0], "properties")
        for pif in members
    ):
        raise RefusedError(
            "INCOMPATIBLE_PIF_PROPERTIES",
            found="the members have different properties",
            hint="make them the same first: PIF.set_property",
        )
    family = text(view, "PIF", members[0], "primary_address_type")
    for pif in members:
        if text(view, "PIF", pif, "primary_address_type") != family:
            raise RefusedError(
                "PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE",
                pif,
                found=f"{device_of(view, pif)} has another primary family of addresses than the first member",
                hint="make them the same first: PIF.set_primary_address_type",
            )
    for pif in members:
        _management_stays(view, pif)
    for pif in members:
        refusals.fcoe(view, pif)
    _network_fits(view, network, host)
    refusals.not_connected(view, network, host)
    if mac:
        refusals.mac(mac)


def speeds(view: View, members: Sequence[str], mode: str, nics: Sequence[Nic]) -> None:
    """Row 11 of the failure catalogue: links of several speeds are no one aggregate, and one of them would stand idle.

    PIF_CONFIGURATION_ERROR [first member; table of the members]. Of an active-backup bond one member carries at a time:
    there a slower spare is a choice. A link that is down has no speed to compare. Nor are MTUs compared: the bond gives
    its own to its members, and what a driver does not take is refused when it is planned (row 16).
    """
    if mode == ONE_AT_A_TIME or not members:
        return
    found = objects_nics.match(view, text(view, "PIF", members[0], "host"), nics)
    links = [(pif, found[pif].speed if pif in found and found[pif].carrier else 0) for pif in members]
    if len({speed for _, speed in links if speed > 0}) > 1:
        table = ", ".join(
            f"{device_of(view, pif)} {f'{speed} Mb/s' if speed > 0 else 'unknown'}" for pif, speed in links
        )
        told = f"the members have links of different speeds: {table}"
        hint = "set the switch's ports alike, or use mode active-backup"
        raise RefusedError("PIF_CONFIGURATION_ERROR", members[0], f"{told}; {hint}", found=told, hint=hint)


def destroy(view: View, bond: str) -> None:
    """What lies on the bond goes to its primary member, and does not stand in the way."""
    master = text(view, "Bond", bond, "master")
    refusals.managed(view, master)
    _management_stays(view, master)
    for pif in texts(view, "Bond", bond, "slaves"):
        refusals.fcoe(view, pif)


def mode(value: str, why_not: Callable[[str], str]) -> None:
    """The mode can be had here: never silently another one (decisions: balance-slb)."""
    reason = why_not(value)
    if reason:
        raise RefusedError(
            "VALUE_NOT_SUPPORTED",
            "mode",
            value,
            reason,
            found=f"a bond of mode {value} cannot be made here: {reason}",
            hint="active-backup works with any switch, lacp with one that is set up for it",
        )


def properties(of: str, given: Mapping[str, str]) -> dict[str, str]:
    """The properties of a bond of this mode, defaults filled in. Only lacp has any. Raises InvalidValueError."""
    if of != LACP:
        for name, value in given.items():
            raise InvalidValueError(
                name, value, f"a bond of mode {of} has no properties", hint="leave it out, or use mode lacp"
            )
        return {}
    for name, value in given.items():
        _property(name, value)
    return {**DEFAULTS, **given}


def _property(name: str, value: str) -> None:
    if name == KEY:
        fits = value.isdecimal() and value.isascii() and len(value) < 5 and int(value) <= KEY_LAST
        hint = f"a number from 0 to {KEY_LAST}"
    else:
        fits = value in CHOICES.get(name, ())
        known = " or ".join(CHOICES.get(name, ())) or f"one of {', '.join((*CHOICES, KEY))}"
        hint = f"it is {known}" if name in CHOICES else f"a property is {known}"
    if not fits:
        raise InvalidValueError(name, value, f"a bond cannot have {name} = {value}", hint=hint)


def _can_be_member(view: View, pif: str) -> None:
    """Table 1.3, row "bond"; a bond of bonds is refused too."""
    device = device_of(view, pif)
    refusals.not_a_tunnel(view, pif)
    if text(view, "PIF", pif, "VLAN_master_of"):
        raise RefusedError(
            "PIF_VLAN_EXISTS", pif, found=f"{device} is a VLAN's", hint="bond the PIF that it lies on"
        )
    refusals.not_sriov(view, pif)
    if text(view, "PIF", pif, "bond_slave_of") or texts(view, "PIF", pif, "bond_master_of"):
        raise RefusedError(
            "PIF_ALREADY_BONDED", pif, found=f"{device} belongs to a bond", hint="destroy that one first"
        )


def _one_address(view: View, members: Sequence[str]) -> None:
    """One member at most has an address of its own, and so have the VLANs of one tag."""
    tags: dict[str, list[str]] = {}
    for pif in members:
        for vlan in texts(view, "PIF", pif, "VLAN_slave_of"):
            upper = text(view, "VLAN", vlan, "untagged_PIF")
            tags.setdefault(str(view.get("VLAN", vlan, "tag")), []).append(upper)
    for alike in (members, *tags.values()):
        having = [pif for pif in alike if has_address(view, pif)]
        if len(having) > 1:
            which = ", ".join(f"{device_of(view, pif)} ({_addresses(view, pif)})" for pif in having)
            raise RefusedError(
                "PIF_BOND_MORE_THAN_ONE_IP",
                found=f"several members, or VLANs of the same tag on them, have addresses of their own: {which}",
                hint="take them away from all but one: PIF.reconfigure_ip mode=None, PIF.reconfigure_ipv6 mode=None",
            )


def _addresses(view: View, pif: str) -> str:
    """The addresses that it is configured for; where they are not known, how it gets them."""
    mode, mode6 = (text(view, "PIF", pif, field) for field in MODES)
    found = [] if mode == "None" else [text(view, "PIF", pif, "IP") or mode]
    return ", ".join(found if mode6 == "None" else [*found, *(texts(view, "PIF", pif, "IPv6") or [mode6])])


def has_address(view: View, pif: str) -> bool:
    """Is it configured for either family?"""
    return any(text(view, "PIF", pif, field) != "None" for field in MODES)


def is_management(view: View, pif: str) -> bool:
    """Is it the management interface, or carries it that as a VLAN?"""
    above = (text(view, "VLAN", vlan, "untagged_PIF") for vlan in texts(view, "PIF", pif, "VLAN_slave_of"))
    return any(flag(view, "PIF", one, "management") for one in (pif, *above))


def _management_stays(view: View, pif: str) -> None:
    pool = view.the_only("pool")
    if pool != NULL_REF and flag(view, "pool", pool, "ha_enabled") and is_management(view, pif):
        raise RefusedError(
            "HA_CANNOT_CHANGE_BOND_STATUS_OF_MGMT_IFACE",
            found=f"high availability is on, and {device_of(view, pif)} carries the management interface",
            hint="switch it off first: pool.disable_ha",
        )


def _network_fits(view: View, network: str, host: str) -> None:
    """What other hosts have on the network of a bond are bonds."""
    for pif in texts(view, "network", network, "PIFs"):
        if text(view, "PIF", pif, "host") != host and not texts(view, "PIF", pif, "bond_master_of"):
            raise RefusedError(
                "NETWORK_INCOMPATIBLE_WITH_BOND",
                network,
                found=f"on another host, {device_of(view, pif)} on '{label_of(view, network)}' is no bond",
                hint="choose or make another network",
            )
