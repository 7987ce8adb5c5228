"""What VLAN.create and destroy, tunnel.* and network_sriov.* refuse (networking.md 1.3 and 1.7): pure over a View."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from hostagent.netctl import refusals, refusals_pif
from hostagent.netctl.errors import RefusedError
from hostagent.netctl.fields import flag, text, texts
from hostagent.netctl.refusals import device_of, label_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.db.view import View


def create(
    view: View, tagged: str, tag: int, network: str, host: str, foreign: Mapping[tuple[str, int], str]
) -> None:
    """`foreign` as `Effect.foreign_vlans`."""
    refusals.managed(view, tagged)
    refusals.managed_network(view, network)
    refusals.vlan_tag(tag)
    _can_carry_vlans(view, tagged)
    for _, record in view.records(
        "VLAN"
    ):  # one pass: a look-up of each is a query each, of a thousand on a trunk
        if record["tagged_PIF"] == tagged and record["tag"] == tag:
            used = text(view, "PIF", str(record["untagged_PIF"]), "network")
            raise RefusedError(
                "PIF_VLAN_EXISTS",
                tagged,
                found=f"{device_of(view, tagged)} carries VLAN {tag} already, for network '{label_of(view, used)}'",
                hint=f"use that network ({text(view, 'network', used, 'uuid')}), or VLAN.destroy first",
            )
    refusals.not_connected(view, network, host)
    _network_fits(view, network, sriov=bool(texts(view, "PIF", tagged, "sriov_logical_PIF_of")))
    refusals.not_sriov(view, tagged)
    device = text(view, "PIF", tagged, "device")
    holder = foreign.get((device, tag))
    if holder:
        raise RefusedError(
            "VLAN_IN_USE",
            device,
            str(tag),
            found=f"{holder} is that VLAN already, and was not made by hostagent",
            hint=f"`ip -d link show {holder}`; FCoE makes such devices",
        )


def destroy(view: View, vlan: str) -> None:
    untagged = text(view, "VLAN", vlan, "untagged_PIF")
    refusals.managed(view, untagged)
    refusals.not_management(view, untagged)
    refusals_pif.nothing_on_it(view, untagged)
    refusals.clustering(view, untagged)
    refusals_pif.unplug(view, untagged)


def tunnel(view: View, transport: str, network: str) -> NoReturn:
    """`tunnel.create`: what is wrong with the PIF and the network first, then that Open vSwitch is not there."""
    refusals.managed(view, transport)
    refusals.managed_network(view, network)
    _can_carry_tunnels(view, transport)
    refusals.not_connected(view, network, text(view, "PIF", transport, "host"))
    for pif in texts(view, "network", network, "PIFs"):
        if not texts(view, "PIF", pif, "tunnel_access_PIF_of"):
            raise RefusedError(
                "NETWORK_INCOMPATIBLE_WITH_TUNNEL",
                network,
                found=f"on another host, {device_of(view, pif)} on '{label_of(view, network)}' is of no tunnel",
                hint="choose or make another network",
            )
    refusals_pif.transport(view, transport)
    refusals_pif.openvswitch()


def existing_tunnel(view: View, ref: str) -> NoReturn:
    """Calls on a tunnel that came with a database."""
    view.get("tunnel", ref, "uuid")
    refusals_pif.openvswitch()


def sriov(view: View, pif: str, network: str) -> NoReturn:
    """`network_sriov.create`: what is wrong with the PIF and the network first, then that it is not offered here."""
    refusals.managed(view, pif)
    refusals.managed_network(view, network)
    if not flag(view, "PIF", pif, "physical"):
        raise RefusedError(
            "PIF_IS_NOT_PHYSICAL", pif, found=f"{device_of(view, pif)} is no NIC", hint="name a physical PIF"
        )
    if "sriov" not in texts(view, "PIF", pif, "capabilities"):
        raise RefusedError(
            "PIF_IS_NOT_SRIOV_CAPABLE",
            pif,
            found=f"{device_of(view, pif)} has no virtual functions that hostagent can use",
            hint="use another NIC",
        )
    if texts(view, "PIF", pif, "sriov_physical_PIF_of"):
        raise RefusedError(
            "NETWORK_SRIOV_ALREADY_ENABLED",
            pif,
            found=f"SR-IOV is enabled on {device_of(view, pif)} already",
            hint="use its network",
        )
    refusals.not_connected(view, network, text(view, "PIF", pif, "host"))
    for other in texts(view, "network", network, "PIFs"):
        if not texts(view, "PIF", other, "sriov_logical_PIF_of"):
            raise RefusedError(
                "NETWORK_INCOMPATIBLE_WITH_SRIOV",
                network,
                found=f"on another host, {device_of(view, other)} on '{label_of(view, network)}' has no SR-IOV",
                hint="choose or make another network",
            )
    _no_sriov()


def existing_sriov(view: View, ref: str) -> NoReturn:
    """Calls on an SR-IOV network that came with a database."""
    view.get("network_sriov", ref, "uuid")
    _no_sriov()


def _no_sriov() -> NoReturn:
    raise RefusedError(
        "LICENCE_RESTRICTION",
        "Network_sriov",
        found="hostagent does not do SR-IOV yet",
        hint="pass a whole NIC to the guest, or use a bridge",
    )


def _can_carry_vlans(view: View, pif: str) -> None:
    """Table 1.3, row "VLAN"."""
    device = device_of(view, pif)
    if text(view, "PIF", pif, "bond_slave_of"):
        raise RefusedError(
            "CANNOT_ADD_VLAN_TO_BOND_SLAVE",
            pif,
            found=f"{device} is a member of a bond",
            hint="put the VLAN on the bond's own PIF",
        )
    if text(view, "PIF", pif, "VLAN_master_of"):
        raise RefusedError(
            "PIF_IS_VLAN", pif, found=f"{device} is a VLAN's", hint="put the VLAN on the PIF that it lies on"
        )
    refusals.not_a_tunnel(view, pif)


def _can_carry_tunnels(view: View, pif: str) -> None:
    """Table 1.3, row "tunnel", but for the address that it needs."""
    device = device_of(view, pif)
    if text(view, "PIF", pif, "bond_slave_of"):
        raise RefusedError(
            "CANNOT_ADD_TUNNEL_TO_BOND_SLAVE",
            pif,
            found=f"{device} is a member of a bond",
            hint="put the tunnel on the bond's own PIF",
        )
    refusals.not_a_tunnel(view, pif)
    vlan = text(view, "PIF", pif, "VLAN_master_of")
    lower = text(view, "VLAN", vlan, "tagged_PIF") if vlan else pif
    if texts(view, "PIF", lower, "sriov_logical_PIF_of"):
        raise RefusedError(
            f"CANNOT_ADD_TUNNEL_TO_{'VLAN_ON_' if vlan else ''}SRIOV_LOGICAL",
            pif,
            found=f"{device} is {'on ' if vlan else ''}the logical side of SR-IOV",
            hint="put the tunnel on the physical PIF, or on a VLAN of that",
        )


def _network_fits(view: View, network: str, *, sriov: bool) -> None:
    """What other hosts have on the network of a VLAN are VLANs of the same kind; no guest's interface has trunks."""
    label = label_of(view, network)
    for pif in texts(view, "network", network, "PIFs"):
        vlan = text(view, "PIF", pif, "VLAN_master_of")
        lower = text(view, "VLAN", vlan, "tagged_PIF") if vlan else ""
        if not lower or bool(texts(view, "PIF", lower, "sriov_logical_PIF_of")) != sriov:
            kind = "on SR-IOV" if sriov else "that has a bridge"
            raise RefusedError(
                f"NETWORK_INCOMPATIBLE_WITH_VLAN_ON_{'SRIOV' if sriov else 'BRIDGE'}",
                network,
                found=f"on another host, {device_of(view, pif)} on '{label}' is no VLAN {kind}",
                hint="choose or make another network",
            )
    for vif in texts(view, "network", network, "VIFs"):
        if texts(view, "VIF", vif, "trunks"):
            raise RefusedError(
                "NETWORK_INCOMPATIBLE_WITH_TRUNKS",
                network,
                found=f"a guest's interface on '{label}' carries VLANs itself",
                hint="choose or make another network",
            )
