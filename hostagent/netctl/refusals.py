"""Refusals that several calls share (networking.md 1.7, first rows): pure over a View of the database."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from hostagent.db.datatype import NULL_REF
from hostagent.net.chains import TAG_MOST
from hostagent.netctl.errors import RefusedError
from hostagent.netctl.fields import flag, number, text, texts

if TYPE_CHECKING:
    from hostagent.db.view import View

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
FCOE_TYPE = "lvmofcoe"
"""Type of the SRs that are on FCoE."""


def ours(view: View, pif: str, host: str, call: str) -> None:
    """Only this host's network can be changed from here."""
    this_host(text(view, "PIF", pif, "host"), host, call)


def this_host(of: str, host: str, call: str) -> None:
    if of != host:
        raise RefusedError(
            "NOT_IMPLEMENTED",
            call,
            found=f"{call} was asked for another host, {of}",
            hint="call it on that host: calls are not passed on yet",
        )


def managed(view: View, pif: str) -> None:
    if not flag(view, "PIF", pif, "managed"):
        raise RefusedError(
            "PIF_UNMANAGED",
            pif,
            found=f"{device_of(view, pif)} is left to others",
            hint="forget it, and introduce it with managed=true",
        )


def managed_network(view: View, network: str) -> None:
    if not flag(view, "network", network, "managed"):
        raise RefusedError(
            "NETWORK_UNMANAGED",
            network,
            found=f"the bridge of network '{label_of(view, network)}' is made by somebody else",
            hint="choose a network that is managed",
        )


def high_availability(view: View) -> None:
    pool = view.the_only("pool")
    if pool != NULL_REF and flag(view, "pool", pool, "ha_enabled"):
        raise RefusedError(
            "HA_IS_ENABLED", found="high availability is on", hint="switch it off first: pool.disable_ha"
        )


def protection(view: View) -> None:
    """Neither high availability nor the redo log, both of which need the network as it is."""
    high_availability(view)
    pool = view.the_only("pool")
    if pool != NULL_REF and flag(view, "pool", pool, "redo_log_enabled"):
        raise RefusedError(
            "REDO_LOG_IS_ENABLED",
            found="the redo log is on",
            hint="switch it off first: pool.disable_redo_log",
        )


def clustering(view: View, pif: str) -> None:
    for ref, record in view.records("Cluster_host"):
        if record["PIF"] == pif and record["enabled"] is True:
            raise RefusedError(
                "CLUSTERING_ENABLED",
                ref,
                found=f"the cluster uses {device_of(view, pif)}",
                hint="disable the cluster on this host first: Cluster_host.disable",
            )


def fcoe(view: View, pif: str) -> None:
    if "fcoe" not in texts(view, "PIF", pif, "capabilities"):
        return
    host = text(view, "PIF", pif, "host")
    for _, record in view.records("PBD"):
        sr = str(record["SR"])
        attached = record["host"] == host and record["currently_attached"] is True
        if attached and view.exists("SR", sr) and text(view, "SR", sr, "type") == FCOE_TYPE:
            raise RefusedError(
                "PIF_HAS_FCOE_SR_IN_USE",
                pif,
                sr,
                found=f"storage is attached over {device_of(view, pif)}",
                hint="unplug its PBD first",
            )


def not_management(view: View, pif: str) -> None:
    if flag(view, "PIF", pif, "management"):
        raise RefusedError(
            "PIF_IS_MANAGEMENT_INTERFACE",
            pif,
            found=f"{device_of(view, pif)} is the management interface",
            hint="move it first: host.management_reconfigure",
        )


def not_a_member(view: View, pif: str) -> None:
    if text(view, "PIF", pif, "bond_slave_of"):
        raise RefusedError(
            "CANNOT_PLUG_BOND_SLAVE",
            pif,
            found=f"{device_of(view, pif)} is a member of a bond",
            hint="use the bond's own PIF",
        )


def not_a_tunnel(view: View, pif: str) -> None:
    if texts(view, "PIF", pif, "tunnel_access_PIF_of"):
        raise RefusedError(
            "IS_TUNNEL_ACCESS_PIF",
            pif,
            found=f"{device_of(view, pif)} is the inner side of a tunnel",
            hint="use the PIF that carries the tunnel",
        )


def not_sriov(view: View, pif: str) -> None:
    if texts(view, "PIF", pif, "sriov_logical_PIF_of"):
        raise RefusedError(
            "PIF_IS_SRIOV_LOGICAL",
            pif,
            found=f"{device_of(view, pif)} is the logical side of SR-IOV",
            hint="use the physical PIF",
        )


def not_connected(view: View, network: str, host: str) -> None:
    """A network has at most one PIF on each host."""
    for pif in texts(view, "network", network, "PIFs"):
        if text(view, "PIF", pif, "host") == host:
            raise RefusedError(
                "NETWORK_ALREADY_CONNECTED",
                network,
                pif,
                found=f"network '{label_of(view, network)}' has {device_of(view, pif)} on this host already",
                hint="choose or make another network",
            )


def no_vif_in_use(view: View, network: str, host: str) -> None:
    """No guest on this host has an attached interface on the network."""
    for vif in texts(view, "network", network, "VIFs"):
        vm = text(view, "VIF", vif, "VM")
        if flag(view, "VIF", vif, "currently_attached") and view.exists("VM", vm):
            if text(view, "VM", vm, "resident_on") == host:
                raise RefusedError(
                    "VIF_IN_USE",
                    network,
                    vif,
                    found=f"a guest, '{label_of(view, vm, 'VM')}', uses network '{label_of(view, network)}'",
                    hint="unplug its VIF, or shut it down",
                )


def ha_plan(view: View, network: str) -> None:
    """No guest that must be restarted elsewhere uses the network of a PIF that is to go."""
    pool = view.the_only("pool")
    if pool == NULL_REF or not flag(view, "pool", pool, "ha_enabled"):
        return
    if number(view, "pool", pool, "ha_host_failures_to_tolerate") <= 0:
        return
    for vif in texts(view, "network", network, "VIFs"):
        vm = text(view, "VIF", vif, "VM")
        if view.exists("VM", vm) and text(view, "VM", vm, "ha_restart_priority") == "restart":
            raise RefusedError(
                "HA_CONSTRAINT_VIOLATION_NETWORK_NOT_SHARED",
                network,
                found=f"'{label_of(view, vm, 'VM')}' could not be restarted here without '{label_of(view, network)}'",
                hint="take the guest out of high availability first",
            )


def vlan_tag(tag: int) -> None:
    if not 0 <= tag <= TAG_MOST:
        raise RefusedError(
            "VLAN_TAG_INVALID", str(tag), found=f"{tag} is no VLAN tag", hint=f"0 to {TAG_MOST}"
        )


def mac(value: str) -> str:
    """The MAC address in lower case. MAC_INVALID for what is none, or is no single device's."""
    lower = value.lower()
    if not MAC.fullmatch(lower) or int(lower[:2], 16) & 1 or lower == "00:00:00:00:00:00":
        raise RefusedError(
            "MAC_INVALID",
            value,
            found=f"'{value}' is no MAC address of a device",
            hint="six pairs of hexadecimal digits, the first of them even: 02:16:3e:00:00:01",
        )
    return lower


def is_ipv4(value: str) -> bool:
    """An address that a host can have."""
    packed = _packed(socket.AF_INET, value)
    return packed is not None and 0 < packed[0] < 224 and packed[0] != 127


def is_netmask(value: str) -> bool:
    packed = _packed(socket.AF_INET, value)
    if packed is None:
        return False
    hosts = 0xFFFFFFFF ^ int.from_bytes(packed, "big")
    return hosts & (hosts + 1) == 0 and hosts != 0xFFFFFFFF


def is_ipv6(value: str) -> bool:
    """An address that a host can have."""
    packed = _packed(socket.AF_INET6, value)
    return packed is not None and packed[0] != 0xFF and int.from_bytes(packed, "big") > 1


def is_ipv6_prefix(value: str) -> bool:
    """`address/prefix`."""
    address, slash, length = value.partition("/")
    return (
        bool(slash)
        and is_ipv6(address)
        and length.isdecimal()
        and length.isascii()
        and 0 < int(length) <= 128
    )


def _packed(family: int, value: str) -> bytes | None:
    try:
        return socket.inet_pton(family, value)
    except (OSError, ValueError):
        return None


def device_of(view: View, pif: str) -> str:
    """What errors call a PIF."""
    device, tag = text(view, "PIF", pif, "device"), number(view, "PIF", pif, "VLAN")
    return device if tag < 0 else f"VLAN {tag} of {device}"


def label_of(view: View, ref: str, cls: str = "network") -> str:
    """What errors call a network or a guest."""
    return text(view, cls, ref, "name_label")
