"""What is known of the network beyond records and kernel, for `explain`: journal, history, DHCP, gateways.

Each part is looked at for itself: what cannot be looked at is left out, and never keeps an operator from the rest.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.net import history, journal
from hostagent.net.explain import Evidence

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.net.devices import Kernel
    from hostagent.net.records import Pif, Records

ANSWER_S = 1.0
"""For a gateway on the same network to answer."""


def gather(folder: Path, boot: str) -> Evidence:
    """What files tell: the change that waits, and the last one."""
    found = Evidence()
    with contextlib.suppress(HostagentError):
        left = journal.pending(folder)
        if left is not None and left.boot_id == boot:
            found = found._replace(pending=f"{left.what} ({left.state})")
    with contextlib.suppress(HostagentError):
        for entry in history.read(folder, most=1):
            told = f": {entry.told[-1]}" if entry.told else ""
            found = found._replace(last=f"{entry.what}, {entry.outcome}{told}")
    return found


def ask_around(found: Evidence, records: Records, kernel: Kernel, pif: Pif) -> Evidence:
    """The same, with what only asking tells: whether the gateway answers, and what the DHCP client has tried."""
    network = records.networks.get(pif.network)
    links = kernel.by_name()
    link = links.get(network.bridge) if network else None
    if link is None or network is None:
        return found
    if pif.ip_mode == "DHCP":
        with contextlib.suppress(HostagentError):
            from hostagent.net import dhcp

            tried = dhcp.tries(dhcp.log_of(network.bridge))
            told = (
                f"{tried.discovers} discovers, {tried.offers} offers, {tried.requests} requests,"
                f" {tried.refusals} refusals; last: {tried.last}"
            )
            found = found._replace(dhcp={network.bridge: told})
    routes = [route for route in kernel.routes if route.device == link.ifindex and route.gateway]
    gateways = {}
    for gateway in {route.gateway for route in routes if route.destination.startswith("default")}:
        with contextlib.suppress(HostagentError):
            from hostagent.net import probe

            source = next(
                (
                    a.text
                    for a in kernel.addresses
                    if a.device == link.ifindex and (":" in a.text) == (":" in gateway)
                ),
                "",
            )
            asked = probe.Probe("gateway", gateway, network.bridge, source=source)
            gateways[gateway] = probe.ask(asked, timeout_s=ANSWER_S).answered
    return found._replace(gateways=gateways)
