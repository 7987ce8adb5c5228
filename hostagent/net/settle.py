"""Waiting for what comes by itself after a change: carrier, and addresses of DHCP servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostagent.net.bring import Host
    from hostagent.net.devices import Kernel, Wanted

CARRIER_S = 6.0
"""A copper port takes some 3 s to find its speed."""
POLL_S = 0.1
SCOPE_LINK = 253


def settle(wanted: Wanted, ref: str, host: Host, deadline: float) -> list[str]:
    """Wait for carrier and leases of a PIF; what is missing when the time is over, in words."""
    serving = {device.name: device for device in wanted.devices if ref in device.serves}
    uplinks = [name for name, device in serving.items() if device.kind == "physical"]
    leases = [lease for lease in wanted.leases if lease.device in serving]
    began = host.clock()
    while True:
        kernel = host.tools.netlink.look()
        indexes = {link.name: index for index, link in kernel.links.items()}
        passed = host.clock() - began
        dark = [name for name in uplinks if name in indexes and not kernel.links[indexes[name]].carrier]
        without = [lease for lease in leases if not _has_address(kernel, indexes[lease.device], lease.family)]
        late = host.clock() >= deadline
        if late or ((not dark or passed >= CARRIER_S) and not without):
            break
        host.wait(POLL_S)
    return [
        *(f"no carrier on {name}: look at the cable, the switch port, the transceiver" for name in dark),
        *(
            f"no {'DHCP' if lease.family == 4 else 'DHCPv6'} answer on {lease.device} after {passed:.0f} s;"
            " the client goes on trying"
            for lease in without
        ),
    ]


def _has_address(kernel: Kernel, index: int, family: int) -> bool:
    return any(
        address.device == index and (":" in address.text) == (family == 6) and address.scope < SCOPE_LINK
        for address in kernel.addresses
    )
