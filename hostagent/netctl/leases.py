"""What came with the leases of the DHCP clients: name servers, and the static routes that can be by now.

A client's hooks do not run. It is asked where the kernel tells that an address of its bridge is new, or was set anew:
each renewal and each start of a client does that, also where the address stays and only the name servers change.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.net import owners
from hostagent.net.attached import as_now
from hostagent.net.devices import Dns
from hostagent.net.layers import routes_due
from hostagent.net.model import survey
from hostagent.net.verify import DHCP_PREFIX6

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from hostagent.net.devices import Address, Kernel
    from hostagent.net.operation import Operation
    from hostagent.net.records import Records
    from hostagent.netctl.status import Eyes

log = logging.getLogger(__name__)


class Leases:
    """Of the bridges that are up, as they were asked last."""

    def __init__(self) -> None:
        self.servers: dict[str, str | None] = {}
        """Name servers by bridge, as PIF.DNS has them; None where the lease has none."""
        self._seen: dict[str, Hashable] = {}
        """By bridge: what there was to see of it when its client answered."""

    def follow(self, records: Records, kernel: Kernel, eyes: Eyes) -> None:
        """Ask the clients of the bridges where something of theirs changed, or that own the resolver now and did not,
        or the other way round; then make the static routes, there and where a router gave the address."""
        now = as_now(records, kernel)
        up = frozenset(ref for ref, pif in now.pifs.items() if pif.currently_attached)
        resolver = owners.dns_owner(now, up).ref
        links = kernel.by_name()
        addresses: dict[int, set[tuple[str, int]]] = {}
        for one in kernel.addresses:
            addresses.setdefault(one.device, set()).add((one.text, set_by_client(one)))
        changed = False
        for ref in up:
            pif = records.pifs[ref]
            modes = ((4, pif.ip_mode), (6, pif.ipv6_mode))
            families = [family for family, mode in modes if mode == "DHCP"]
            bridge = records.networks[pif.network].bridge
            if not (families or pif.ipv6_mode == "Autoconf") or bridge not in links:
                continue
            seen = frozenset(addresses.get(links[bridge].ifindex, ())), ref == resolver
            if self._seen.get(bridge) == seen:
                continue
            changed = True
            try:
                if families:
                    self._ask(bridge, families, eyes, owns=ref == resolver)
                self._seen[bridge] = seen
            except HostagentError as error:
                log.warning("the lease of %s: %s; %s", bridge, error.found, error.hint)
        if changed:
            _make_routes(now, kernel, eyes)

    def _ask(self, bridge: str, families: Sequence[int], eyes: Eyes, *, owns: bool) -> None:
        leases = [lease for family in families if (lease := eyes.leased(bridge, family)) is not None]
        for lease in leases:
            eyes.keep_lease(bridge, lease)
        servers = tuple(dict.fromkeys(server for lease in leases for server in lease.dns))
        self.servers[bridge] = ",".join(servers) if servers else None  # a good list is not replaced by none
        if owns and servers:
            search = tuple(dict.fromkeys(name for lease in leases for name in lease.search))
            eyes.resolve(Dns(servers, search), bridge)


def _make_routes(now: Records, kernel: Kernel, eyes: Eyes) -> None:
    try:
        if operations := late_routes(now, kernel):
            eyes.carry_out(operations)
    except HostagentError as error:
        log.warning("static routes of addresses that came: %s; %s", error.found, error.hint)


# --- pure ---


def set_by_client(address: Address) -> int:
    """When a DHCP client may have set this address last; 0 of one that routers' advertisements set again and again."""
    return address.set_cs if ":" not in address.text or address.prefix == DHCP_PREFIX6 else 0


def late_routes(now: Records, kernel: Kernel) -> list[Operation]:
    """What makes the static routes that can be by now. A PIF whose records cannot be stops no other's."""
    due = routes_due(survey(now, up_of(now), links=kernel.by_name()).wanted, kernel)
    return [step.do for step in due.steps]


def up_of(now: Records) -> list[str]:
    return [ref for ref, pif in now.pifs.items() if pif.currently_attached and pif.managed]
