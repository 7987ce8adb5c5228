"""Commands for networks, PIFs, bonds, VLANs and tunnels (xenapi.md 6.5)."""

from __future__ import annotations

from hostagent.xe.command import Call, command, create, parameters, plain
from hostagent.xe.session import ApiError


def _vlan_create(call: Call) -> None:
    """Prints the uuid of the VLAN's own PIF, which is what the operator plugs and destroys it by."""
    given = parameters(call, "VLAN.create", tagged_PIF="pif-uuid", tag="vlan", network="network-uuid")
    vlan = call.api.call("VLAN.create", *given)
    call.print_ref("PIF", call.api.call("VLAN.get_untagged_PIF", vlan))


def _vlan_destroy(call: Call) -> None:
    """Takes the uuid of the VLAN, or of its PIF."""
    uuid = call.need("uuid")
    try:
        vlan = call.find("VLAN", uuid)
    except ApiError as error:
        if error.code != "UUID_INVALID":
            raise
        vlan = str(call.api.call("PIF.get_VLAN_master_of", call.find("PIF", uuid)))
    call.api.call("VLAN.destroy", vlan)


COMMANDS = (
    create(
        "network-create",
        "network",
        "name-label",
        "name-description MTU bridge managed",
        "Create a network.",
    ),
    plain("network-destroy", "network.destroy", "uuid", "", "Destroy a network.", self="uuid"),
    plain(
        "pif-scan",
        "PIF.scan",
        "host-uuid",
        "",
        "Look for new network interfaces of a host.",
        host="host-uuid",
    ),
    plain(
        "pif-introduce",
        "PIF.introduce",
        "host-uuid device",
        "mac managed",
        "Make a PIF for a network interface of a host.",
        host="host-uuid",
        MAC="mac",
    ),
    plain("pif-plug", "PIF.plug", "uuid", "", "Bring a PIF up.", self="uuid"),
    plain("pif-unplug", "PIF.unplug", "uuid", "", "Take a PIF down.", self="uuid"),
    plain("pif-forget", "PIF.forget", "uuid", "", "Forget a PIF; the interface stays as it is.", self="uuid"),
    plain(
        "pif-reconfigure-ip",
        "PIF.reconfigure_ip",
        "uuid mode",
        "IP netmask gateway DNS",
        "Give a PIF its IPv4 address: mode=none, dhcp or static.",
        self="uuid",
    ),
    plain(
        "pif-reconfigure-ipv6",
        "PIF.reconfigure_ipv6",
        "uuid mode",
        "IPv6 gateway DNS",
        "Give a PIF its IPv6 address: mode=none, dhcp, static or autoconf.",
        self="uuid",
    ),
    plain(
        "bond-create",
        "Bond.create",
        "network-uuid pif-uuids",
        "mac mode properties:",
        "Bond PIFs of a host.",
        network="network-uuid",
        members="pif-uuids",
        MAC="mac",
    ),
    plain("bond-destroy", "Bond.destroy", "uuid", "", "Take a bond apart.", self="uuid"),
    plain(
        "bond-set-mode",
        "Bond.set_mode",
        "uuid mode",
        "",
        "Change how a bond works.",
        self="uuid",
        value="mode",
    ),
    command(
        "vlan-create",
        "pif-uuid vlan network-uuid",
        "",
        "Create a VLAN on a host; prints the uuid of its PIF.",
        _vlan_create,
    ),
    command("vlan-destroy", "uuid", "", "Destroy a VLAN, named by itself or its PIF.", _vlan_destroy),
    plain(
        "tunnel-create",
        "tunnel.create",
        "pif-uuid network-uuid",
        "protocol",
        "Create a tunnel on a host.",
        transport_PIF="pif-uuid",
        network="network-uuid",
    ),
    plain("tunnel-destroy", "tunnel.destroy", "uuid", "", "Destroy a tunnel.", self="uuid"),
)
