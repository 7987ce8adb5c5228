"""The address of the last lease, put on a bridge for its DHCP client to find.

dhcpcd 9.4.1 (Debian 12), told to go on with its last lease (`lastleaseextend`), probes for that address when no
server answers; then it begins to ask again, and forgets the probe. Where the bridge has the address it does not probe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net import dhcp_lease, inet, probe
from hostagent.net.devices import Address
from hostagent.net.netlink import Netlink
from hostagent.net.reachable import ConflictError, told_of
from hostagent.net.restore import address_add

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.net.devices import Kernel

LASTS_S = 300
"""So long for the client to take it over, which makes it last; it ends by itself where a server gives another one."""
PROBE_S = 1.0


def put(bridge: str, state_dir: Path) -> None:
    """Have the bridge have it. Raises ConflictError (another host has it), ProbeError (that could not be asked),
    NetlinkError; then the bridge is as it was.
    """
    found = dhcp_lease.last(bridge, 4, state_dir)
    with Netlink() as netlink:
        kernel = netlink.look()
        wanted = missing(bridge, found, kernel)
        if wanted is None:
            return
        if other := probe.holder(bridge, wanted.text, timeout_s=PROBE_S):
            raise ConflictError(
                f"{told_of(wanted.text, other)}, the last lease of {bridge}: not used while no server answers",
                hint="see to the DHCP server, or give the management interface a fixed address",
            )
        netlink.execute([address_add(kernel.links[wanted.device], wanted)])


def missing(bridge: str, found: dhcp_lease.Leased | None, kernel: Kernel) -> Address | None:
    """The address of this lease for the bridge; None where there is no bridge or lease, or the bridge has it."""
    link = kernel.by_name().get(bridge)
    address = inet.cidr(found.addresses[0]) if found is not None and found.addresses else None
    if link is None or address is None:
        return None
    text, prefix = address
    if any(one.device == link.ifindex and one.text == text for one in kernel.addresses):
        return None
    return Address(link.ifindex, text, prefix, valid_s=LASTS_S)
