"""What calls of the class network refuse (networking.md 1.5 and 1.7, xenapi.md): pure over a View."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hostagent.errors import InvalidValueError
from hostagent.net import keys
from hostagent.net.names import is_name
from hostagent.netctl import refusals, refusals_pif
from hostagent.netctl.errors import RefusedError
from hostagent.netctl.fields import flag, pairs, text, texts
from hostagent.netctl.refusals import label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hostagent.db.view import View

NAME_BYTES = 15
"""IFNAMSIZ less the final zero."""
RESERVED = ("xen", "xapi", "vif", "tap", "eth", "bond")
"""Beginnings of names that NICs, guests' devices and ours have."""
TAKEN = ("lo", "all", "default")
"""The loopback device, and what stands for all devices below /proc/sys/net."""
BRIDGE = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{NAME_BYTES - 1}}}")
"""It becomes a word of command lines, a file's name and a key of settings; a hyphen in front would be an option."""
SYSTEM = ("is_guest_installer_network", "is_host_internal_management_network")
"""Keys of other_config of networks that the host needs itself."""
EXCLUSIVE = {"nbd": "insecure_nbd", "insecure_nbd": "nbd"}
MTU_FIRST, MTU_LAST = 68, 65535
"""The least that IPv4 needs, the most that a bridge has."""


def bridge(view: View, name: str) -> None:
    """An operator's name for a bridge."""
    devices = {record["device"] for _, record in view.records("PIF")}
    if not BRIDGE.fullmatch(name) or name.startswith(RESERVED) or name in (*TAKEN, *devices):
        raise InvalidValueError(
            "bridge",
            name,
            f"a bridge cannot be called '{name}'",
            hint=f"at most {NAME_BYTES} of letters, digits, _ . and -, not beginning with -, {', '.join(RESERVED)};"
            " or none: one is chosen",
        )
    if any(record["bridge"] == name for _, record in view.records("network")):
        raise RefusedError(
            "BRIDGE_NAME_EXISTS",
            name,
            found=f"another network has the bridge '{name}'",
            hint="leave it out: one is chosen",
        )


def introduced(bridge: str, octets: int, keys_given: dict[str, str]) -> None:
    """What a record that is taken over from another database must be: names that are ours to give are right there."""
    if bridge:
        device_name("bridge", bridge)
    mtu(octets)
    other_config(keys_given)


def introduced_pif(values: Mapping[str, object]) -> None:
    """As `introduced`, for the fields of a PIF."""
    device_name("device", str(values["device"]))
    if isinstance(octets := values["MTU"], int):
        mtu(octets)
    if isinstance(tag := values["VLAN"], int) and tag != -1:
        refusals.vlan_tag(tag)
    if isinstance(given := values["other_config"], dict):
        keys.check_pif({str(key): str(item) for key, item in given.items()})


def device_name(field: str, name: str) -> None:
    if not is_name(name):
        raise InvalidValueError(
            field,
            name,
            f"{name!r} can be no device's name",
            hint=f"1 to {NAME_BYTES} bytes, without blanks, '/' and ':'",
        )


def mtu(value: int) -> None:
    if not MTU_FIRST <= value <= MTU_LAST:
        raise InvalidValueError(
            "MTU",
            str(value),
            f"{value} octets are no MTU",
            hint=f"{MTU_FIRST} to {MTU_LAST}; mostly 1500 or 9000",
        )


def other_config(value: object) -> None:
    """The keys of a new network's other_config that change networking. INVALID_VALUE [other_config:KEY; value]."""
    if isinstance(value, dict):
        keys.check_network({str(key): str(item) for key, item in value.items()})


def destroy(view: View, network: str) -> None:
    for code, field, what in (
        ("NETWORK_CONTAINS_VIF", "VIFs", "guests have interfaces"),
        ("NETWORK_CONTAINS_PIF", "PIFs", "hosts have PIFs"),
    ):
        found = texts(view, "network", network, field)
        if found:
            raise RefusedError(
                code,
                *found,
                found=f"{what} on network '{label_of(view, network)}'",
                hint=f"network.get_{field} names them",
            )
    if is_system(view, network):
        raise RefusedError(
            "CANNOT_DESTROY_SYSTEM_NETWORK",
            network,
            found=f"the host needs network '{label_of(view, network)}' itself",
            hint="leave it",
        )


def is_system(view: View, network: str) -> bool:
    other_config = pairs(view, "network", network, "other_config")
    return any(other_config.get(key) == "true" for key in SYSTEM)


def attach(view: View, network: str, host: str, has_bridge: Callable[[str], bool]) -> None:
    """A network that others reach through their NICs cannot be had where there is no PIF for it."""
    refusals_pif.bridge_available(view, network, has_bridge)
    pifs = texts(view, "network", network, "PIFs")
    shared = pairs(view, "network", network, "other_config").get("assume_network_is_shared") == "true"
    if (pifs or shared) and pif_of(view, network, host) == "":
        raise RefusedError(
            "HOST_CANNOT_ATTACH_NETWORK",
            host,
            network,
            found=f"this host has no PIF on network '{label_of(view, network)}'",
            hint="make one: VLAN.create, Bond.create, or PIF.scan",
        )


def pif_of(view: View, network: str, host: str) -> str:
    """The PIF of a host on a network, empty when there is none."""
    pifs = texts(view, "network", network, "PIFs")
    return next((pif for pif in pifs if text(view, "PIF", pif, "host") == host), "")


def set_default_locking_mode(view: View, network: str) -> None:
    """Attached interfaces that follow the default would not follow its change."""
    for vif in texts(view, "network", network, "VIFs"):
        follows = text(view, "VIF", vif, "locking_mode") == "network_default"
        if follows and flag(view, "VIF", vif, "currently_attached"):
            raise RefusedError(
                "VIF_IN_USE",
                network,
                vif,
                found=f"a guest uses network '{label_of(view, network)}' with its default locking mode",
                hint="unplug that VIF first",
            )


def add_purpose(view: View, network: str, value: str) -> None:
    """Secure and insecure NBD exclude each other, in the whole pool."""
    refusals.managed_network(view, network)
    conflicting = EXCLUSIVE.get(value, "")
    for _, record in view.records("network"):
        purposes = record["purpose"]
        if isinstance(purposes, list) and conflicting in purposes:
            raise RefusedError(
                "NETWORK_INCOMPATIBLE_PURPOSES",
                value,
                conflicting,
                found=f"network '{record['name_label']}' has the purpose {conflicting}",
                hint="remove it there first: network.remove_purpose",
            )
