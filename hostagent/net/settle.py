"""What follows a change of a PIF: carrier, partners of LACP, addresses of DHCP servers and of routers come by
themselves and are waited for; then the neighbours are told of its addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.net import lacp
from hostagent.net.devices import SCOPE_LINK
from hostagent.net.layers import routes_due

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostagent.net.bring import Host
    from hostagent.net.devices import Kernel, Wanted
    from hostagent.net.operation import Plan

CARRIER_S = 6.0
"""A copper port takes some 3 s to find its speed."""
LACP_S = CARRIER_S + 20.0
"""For a bond's first member to carry traffic: LACP takes 5 to 20 s (networking.md 5, row 6)."""
ROUTER_S = 15.0
"""For a router to answer: the kernel asks at once, after some 4 s and after some 12 s, and then ever less often."""
POLL_S = 0.1


def settle(
    wanted: Wanted,
    planned: Plan,
    ref: str,
    host: Host,
    *,
    deadline: float,
    since: float = 0.0,
    bonds: Sequence[str] = (),
) -> list[str]:
    """Wait for carrier, leases, advertised prefixes and partners of LACP (of `bonds`) of a PIF, and announce the fixed
    addresses that the plan has touched; what is missing when the time is over, in words. `since`, on the host's clock
    as `deadline`: when the plan was done; 0 for now."""
    missing = _waited(wanted, ref, host, deadline, since, bonds)
    missing += _late_routes(wanted, host)
    if host.wire is not None and planned.steps and wanted.addresses:
        from hostagent.net.reachable import announce

        missing += announce(wanted, planned, host.wire)
    return missing


def _late_routes(wanted: Wanted, host: Host) -> list[str]:
    """Make the static routes whose subnet came with an address after the plan; what could not be, in words."""
    if not wanted.routes or not (wanted.leases or any(one.ipv6 == "autoconf" for one in wanted.devices)):
        return []
    try:
        due = routes_due(wanted, host.tools.netlink.look())
        if due.steps:
            host.tools.netlink.execute([step.do for step in due.steps])
    except HostagentError as error:
        return [f"static routes of an address that came: {error.found}"]
    return []


def comes(wanted: Wanted, ref: str) -> bool:
    """Whether others give a PIF its address."""
    return bool(wanted.leases) or any(one.ipv6 == "autoconf" and ref in one.serves for one in wanted.devices)


def dark(wanted: Wanted, ref: str, kernel: Kernel) -> list[str]:
    """What carries a PIF and has no carrier, in words."""
    uplinks = {one.name for one in wanted.devices if ref in one.serves and one.kind == "physical"}
    return [
        _no_carrier(link.name) for link in kernel.links.values() if link.name in uplinks and not link.carrier
    ]


def _no_carrier(name: str) -> str:
    return f"no carrier on {name}: look at the cable, the switch port, the transceiver"


def _waited(
    wanted: Wanted, ref: str, host: Host, deadline: float, since: float, bonds: Sequence[str]
) -> list[str]:
    serving = {device.name: device for device in wanted.devices if ref in device.serves}
    uplinks = [name for name, device in serving.items() if device.kind == "physical"]
    leases = [lease for lease in wanted.leases if lease.device in serving]
    listening = [name for name, device in serving.items() if device.ipv6 == "autoconf"]
    began = since or host.clock()
    while True:
        kernel = host.tools.netlink.look()
        indexes = {link.name: index for index, link in kernel.links.items()}
        passed = host.clock() - began
        unlit = [name for name in uplinks if name in indexes and not kernel.links[indexes[name]].carrier]
        without = [lease for lease in leases if not _has_address(kernel, indexes[lease.device], lease.family)]
        lit = not uplinks or len(unlit) < len(uplinks)
        alone = [name for name in listening if lit and not _has_address(kernel, indexes.get(name, 0), 6)]
        idle = [told for name in bonds for told in lacp.idle(kernel, name)]
        waits = (
            without
            or (unlit and passed < CARRIER_S)
            or (alone and passed < ROUTER_S)
            or (idle and passed < LACP_S)
        )
        if not waits or host.clock() >= deadline:
            break
        host.wait(POLL_S)
    return [
        *map(_no_carrier, unlit),
        *idle,
        *(
            f"no {'DHCP' if lease.family == 4 else 'DHCPv6'} answer on {lease.device} after {passed:.0f} s;"
            " the client goes on trying"
            for lease in without
        ),
        *(
            f"no router advertised a prefix on {name} in {passed:.0f} s; one that does so later is heeded"
            for name in alone
        ),
    ]


def _has_address(kernel: Kernel, index: int, family: int) -> bool:
    return any(
        address.device == index and (":" in address.text) == (family == 6) and address.scope < SCOPE_LINK
        for address in kernel.addresses
    )
