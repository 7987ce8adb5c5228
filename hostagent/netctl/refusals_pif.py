"""What calls of the class PIF and of the management interface refuse (networking.md 1.7): pure over a View."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from hostagent.db.datatype import NULL_REF
from hostagent.errors import InvalidValueError
from hostagent.named import NamedTuple
from hostagent.net import addressing, inet
from hostagent.net.devices import WantedAddress
from hostagent.netctl import refusals
from hostagent.netctl.errors import RefusedError
from hostagent.netctl.fields import flag, text, texts
from hostagent.netctl.refusals import device_of, label_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hostagent.db.view import View
    from hostagent.net.nics_types import Nic


class Ipv4(NamedTuple):
    """What PIF.reconfigure_ip asks for."""

    mode: str
    address: str
    netmask: str
    gateway: str
    dns: str


class Ipv6(NamedTuple):
    """What PIF.reconfigure_ipv6 asks for; `address` is `address/prefix`."""

    mode: str
    address: str
    gateway: str
    dns: str


def plug(view: View, pif: str, has_bridge: Callable[[str], bool]) -> None:
    refusals.managed(view, pif)
    refusals.not_a_member(view, pif)
    for tunnel in texts(view, "PIF", pif, "tunnel_access_PIF_of"):
        transport(view, text(view, "tunnel", tunnel, "transport_PIF"))
        openvswitch()
    refusals.not_sriov(view, pif)
    bridge_available(view, text(view, "PIF", pif, "network"), has_bridge)


def transport(view: View, pif: str) -> None:
    """A tunnel needs an address to lie on, of IPv4 (networking.md 1.3)."""
    if text(view, "PIF", pif, "ip_configuration_mode") == "None":
        raise RefusedError(
            "TRANSPORT_PIF_NOT_CONFIGURED",
            pif,
            found=f"{device_of(view, pif)}, which is to carry a tunnel, has no IPv4 address",
            hint="give it one: PIF.reconfigure_ip",
        )


def openvswitch() -> NoReturn:
    raise RefusedError(
        "OPENVSWITCH_NOT_ACTIVE",
        found="this host's bridges are the kernel's",
        hint="tunnels need Open vSwitch, which hostagent does not use yet",
    )


def bridge_available(view: View, network: str, has_bridge: Callable[[str], bool]) -> None:
    """The bridge of a network that somebody else looks after is there."""
    bridge = text(view, "network", network, "bridge")
    if not flag(view, "network", network, "managed") and not (bridge and has_bridge(bridge)):
        raise RefusedError(
            "BRIDGE_NOT_AVAILABLE",
            bridge,
            found=f"there is no bridge '{bridge}', and '{label_of(view, network)}' is not ours to make",
            hint="whoever looks after that network must make its bridge",
        )


def unplug(view: View, pif: str) -> None:
    """`PIF.unplug`, and the part of VLAN.destroy that takes its PIF down."""
    network, host = text(view, "PIF", pif, "network"), text(view, "PIF", pif, "host")
    refusals.managed(view, pif)
    refusals.not_management(view, pif)
    allows_unplug(view, pif)
    refusals.fcoe(view, pif)
    refusals.ha_plan(view, network)
    refusals.protection(view)
    refusals.no_vif_in_use(view, network, host)


def allows_unplug(view: View, pif: str) -> None:
    if flag(view, "PIF", pif, "disallow_unplug"):
        raise RefusedError(
            "PIF_DOES_NOT_ALLOW_UNPLUG",
            pif,
            found=f"{device_of(view, pif)} is marked as one that must stay plugged",
            hint="PIF.set_disallow_unplug value=false, if nothing needs it",
        )


def reconfigure_ip(view: View, pif: str, wanted: Ipv4) -> None:
    _reconfigure(view, pif, wanted.mode)
    is_static = wanted.mode == "Static"
    _valid("IP", wanted.address, refusals.is_ipv4, needed=is_static)
    _valid("netmask", wanted.netmask, refusals.is_netmask, needed=is_static)
    _valid("gateway", wanted.gateway, refusals.is_ipv4)
    if is_static:
        prefix = inet.prefix_of(wanted.netmask)
        if not addressing.is_host(wanted.address, prefix):
            raise _unusable("IP", wanted.address, f"is no host's with the netmask {wanted.netmask}")
        _gateway_on_link(wanted.gateway, wanted.address, prefix)
    _valid_dns(wanted.dns)
    _stays_reachable(view, pif, "IPv4", wanted.mode)
    fields = ("ip_configuration_mode", "IP", "netmask", "gateway")
    present = tuple(text(view, "PIF", pif, field) for field in fields)
    if wanted.mode != "Static" or present != wanted[:-1]:
        _unprotected(view, pif)


def reconfigure_ipv6(view: View, pif: str, wanted: Ipv6) -> None:
    _reconfigure(view, pif, wanted.mode)
    if wanted.mode == "Static" or wanted.address:
        if not refusals.is_ipv6_prefix(wanted.address):
            raise RefusedError(
                "INVALID_CIDR_ADDRESS_SPECIFIED",
                "IPv6",
                found=f"'{wanted.address}' is no IPv6 address with its prefix",
                hint="for example 2001:db8::7/64",
            )
        if inet.is_link_local(wanted.address):
            raise RefusedError(
                "INVALID_CIDR_ADDRESS_SPECIFIED",
                "IPv6",
                found=f"'{wanted.address}' is a link-local address, and the interface has one by itself",
                hint="give another one, for example 2001:db8::7/64; a gateway may be link-local",
            )
    _valid("gateway", wanted.gateway, refusals.is_ipv6)
    if wanted.mode == "Static" and (own := inet.cidr(wanted.address)):
        _gateway_on_link(wanted.gateway, *own)
    _valid_dns(wanted.dns)
    _stays_reachable(view, pif, "IPv6", wanted.mode)
    present = (
        text(view, "PIF", pif, "ipv6_configuration_mode"),
        texts(view, "PIF", pif, "IPv6"),
        text(view, "PIF", pif, "ipv6_gateway"),
    )
    if wanted.mode != "Static" or present != (wanted.mode, [wanted.address], wanted.gateway):
        _unprotected(view, pif)


def _reconfigure(view: View, pif: str, mode: str) -> None:
    refusals.managed(view, pif)
    if mode != "None":
        refusals.not_a_member(view, pif)


def _stays_reachable(view: View, pif: str, family: str, mode: str) -> None:
    if mode == "None" and text(view, "PIF", pif, "primary_address_type") == family:
        refusals.not_management(view, pif)


def _unprotected(view: View, pif: str) -> None:
    refusals.protection(view)
    refusals.clustering(view, pif)


def _valid(name: str, value: str, is_valid: Callable[[str], bool], *, needed: bool = False) -> None:
    if (value or needed) and not is_valid(value):
        raise _unusable(name, value, "is not an address that can be used for it")


def _gateway_on_link(gateway: str, address: str, prefix: int) -> None:
    """What the gateway is asked for when the PIF comes up (`addressing`), already when it is said."""
    found = inet.address(gateway)
    if found and not addressing.on_link(found, [WantedAddress("", address, prefix)]):
        raise _unusable("gateway", gateway, f"is no other host in the subnet of {address}/{prefix}")


def _unusable(name: str, value: str, why: str) -> RefusedError:
    return RefusedError(
        "INVALID_IP_ADDRESS_SPECIFIED",
        name,
        found=f"{name}: '{value}' {why}",
        hint="an address as it is written in numbers, of the family that the call is for",
    )


def _valid_dns(servers: str) -> None:
    for server in split(servers):
        _valid("DNS", server, lambda value: refusals.is_ipv4(value) or refusals.is_ipv6(value))


def split(servers: str) -> list[str]:
    """The members of a comma list."""
    return [server.strip() for server in servers.split(",") if server.strip()]


def set_primary_address_type(view: View, pif: str) -> None:
    refusals.managed(view, pif)
    refusals.protection(view)
    refusals.not_management(view, pif)


def set_disallow_unplug(view: View, pif: str, *, value: bool) -> None:
    if not value:
        refusals.clustering(view, pif)


def set_property(view: View, pif: str, name: str, value: str) -> None:
    refusals.managed(view, pif)
    if name != "gro" or value not in ("on", "off"):
        raise InvalidValueError(
            name, value, f"a PIF has no property {name} = {value}", hint="gro = on, or gro = off"
        )
    is_bond = bool(texts(view, "PIF", pif, "bond_master_of"))
    is_free = flag(view, "PIF", pif, "physical") and not text(view, "PIF", pif, "bond_slave_of")
    if not is_bond and not is_free:
        raise RefusedError(
            "CANNOT_CHANGE_PIF_PROPERTIES",
            pif,
            found=f"{device_of(view, pif)} has the properties of what it lies on or belongs to",
            hint="set them on the physical PIF, or on the bond",
        )


def forget(view: View, pif: str) -> None:
    """Bonds, VLANs and tunnels are unmade by calls of their own."""
    refusals.not_management(view, pif)
    if text(view, "PIF", pif, "bond_slave_of") or texts(view, "PIF", pif, "bond_master_of"):
        raise RefusedError(
            "PIF_ALREADY_BONDED",
            pif,
            found=f"{device_of(view, pif)} belongs to a bond",
            hint="destroy the bond first: Bond.destroy",
        )
    if text(view, "PIF", pif, "VLAN_master_of"):
        raise RefusedError(
            "PIF_IS_VLAN", pif, found=f"{device_of(view, pif)} is a VLAN's", hint="use VLAN.destroy"
        )
    nothing_on_it(view, pif)
    if texts(view, "PIF", pif, "sriov_logical_PIF_of"):
        raise RefusedError(
            "CANNOT_FORGET_SRIOV_LOGICAL",
            pif,
            found=f"{device_of(view, pif)} is the logical side of SR-IOV",
            hint="use network_sriov.destroy",
        )
    allows_unplug(view, pif)
    refusals.fcoe(view, pif)
    refusals.clustering(view, pif)
    refusals.protection(view)
    if flag(view, "PIF", pif, "currently_attached"):
        refusals.no_vif_in_use(view, text(view, "PIF", pif, "network"), text(view, "PIF", pif, "host"))


def nothing_on_it(view: View, pif: str) -> None:
    """Nothing lies on a PIF that is to go."""
    for code, field, what in (
        ("PIF_VLAN_STILL_EXISTS", "VLAN_slave_of", "a VLAN"),
        ("PIF_TUNNEL_STILL_EXISTS", "tunnel_transport_PIF_of", "a tunnel"),
        ("PIF_SRIOV_STILL_EXISTS", "sriov_physical_PIF_of", "an SR-IOV network"),
    ):
        if texts(view, "PIF", pif, field):
            raise RefusedError(
                code, pif, found=f"{what} lies on {device_of(view, pif)}", hint="destroy that first"
            )


def destroy(view: View, pif: str) -> str:
    """The VLAN that `PIF.destroy` is to destroy."""
    vlan = text(view, "PIF", pif, "VLAN_master_of")
    if not vlan:
        raise RefusedError(
            "PIF_IS_PHYSICAL",
            pif,
            found=f"{device_of(view, pif)} is not a VLAN's",
            hint="a NIC is forgotten (PIF.forget), a bond destroyed (Bond.destroy)",
        )
    return vlan


def introduce(
    view: View, host: str, mac: str, device: str, nics: Iterable[Nic], known: Mapping[str, Nic]
) -> Nic:
    """The NIC that `PIF.introduce` means. `known`: which NIC each PIF is (`objects_nics.match`)."""
    wanted = refusals.mac(mac) if mac else ""
    for _, record in view.records("PIF"):
        if record["host"] == host and record["device"] == device and record["physical"] is True:
            raise RefusedError(
                "DUPLICATE_PIF_DEVICE_NAME",
                device,
                found=f"there is a PIF for {device} already",
                hint="PIF.get_all_records lists them",
            )
    for nic in nics:
        if nic.present and nic.name == device and wanted in ("", nic.mac.lower()):
            _is_new(view, nic, known)
            return nic
    raise RefusedError(
        "COULD_NOT_FIND_NETWORK_INTERFACE_WITH_SPECIFIED_DEVICE_NAME_AND_MAC_ADDRESS",
        device,
        mac,
        found=f"this host has no NIC {device}" + (f" with the MAC address {mac}" if mac else ""),
        hint="`ip link` lists them",
    )


def _is_new(view: View, nic: Nic, known: Mapping[str, Nic]) -> None:
    """A NIC that was renamed, or put in the place of another one, has its PIF still."""
    for pif, other in known.items():
        if other == nic:
            raise RefusedError(
                "DUPLICATE_PIF_DEVICE_NAME",
                nic.name,
                found=f"{nic.name} has a PIF already, by the name {device_of(view, pif)}",
                hint="PIF.scan gives that PIF the name of now",
            )


def management(view: View, pif: str) -> None:
    """`host.management_reconfigure`."""
    refusals.high_availability(view)
    refusals.managed(view, pif)
    refusals.not_a_member(view, pif)
    refusals.not_sriov(view, pif)
    is_ipv6 = text(view, "PIF", pif, "primary_address_type") == "IPv6"
    field = "ipv6_configuration_mode" if is_ipv6 else "ip_configuration_mode"
    if text(view, "PIF", pif, field) == "None":
        raise RefusedError(
            "PIF_HAS_NO_V6_NETWORK_CONFIGURATION" if is_ipv6 else "PIF_HAS_NO_NETWORK_CONFIGURATION",
            pif,
            found=f"{device_of(view, pif)} has no address of its primary family",
            hint="give it one: PIF.reconfigure_ipv6" if is_ipv6 else "give it one: PIF.reconfigure_ip",
        )
    _same_family(view, pif)


def _same_family(view: View, pif: str) -> None:
    """Hosts of a pool reach each other by one family: only a host that is alone can change it."""
    if len(view.refs("host")) < 2:
        return
    host, family = text(view, "PIF", pif, "host"), text(view, "PIF", pif, "primary_address_type")
    for _, record in view.records("PIF"):
        is_present = record["host"] == host and record["management"] is True
        if is_present and record["primary_address_type"] != family:
            raise RefusedError(
                "PIF_INCOMPATIBLE_PRIMARY_ADDRESS_TYPE",
                pif,
                found=f"{device_of(view, pif)} is of {family}, and management of the other family",
                hint="choose another PIF, or make its primary family the same: PIF.set_primary_address_type",
            )


def management_disable(view: View, host: str) -> None:
    refusals.high_availability(view)
    pool = view.the_only("pool")
    if pool != NULL_REF and text(view, "pool", pool, "master") != host:
        raise RefusedError(
            "SLAVE_REQUIRES_MANAGEMENT_INTERFACE",
            found="this host belongs to a pool that another host coordinates",
            hint="it reaches its coordinator through the management interface; eject it first",
        )


def device_named(view: View, host: str, device: str) -> str:
    """The PIF that carries VLANs for `PIF.create_VLAN` and `pool.create_VLAN`: a NIC, or a bond."""
    for ref, record in view.records("PIF"):
        if record["host"] == host and record["device"] == device and record["VLAN"] == -1:
            if record["physical"] is True or record["bond_master_of"]:
                return ref
    raise RefusedError(
        "PIF_DEVICE_NOT_FOUND",
        found=f"this host has no PIF {device}",
        hint="PIF.scan makes one for each NIC",
    )
