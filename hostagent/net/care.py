"""What surrounds the execution of a plan: nobody has the new addresses, and the host stays reachable (`reachable.py`).

An address that another host has ends a change that is asked for now, before anything is touched where it can be asked
for by then. At boot it is taken all the same, and told: a host that cannot be reached helps nobody.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.net import reachable
from hostagent.net.management import concerns

if TYPE_CHECKING:
    from hostagent.net.bring import Host, Request
    from hostagent.net.devices import Kernel, Wanted
    from hostagent.net.management import Wire
    from hostagent.net.operation import Plan
    from hostagent.net.records import Pif, Records

UP = 1
"""IFF_UP."""


class Care:
    """Of one change. `baseline` is what must answer afterwards; `less`: something was found and accepted."""

    def __init__(
        self, request: Request, pif: Pif, records: Records, wanted: Wanted, host: Host, wire: Wire
    ) -> None:
        self.baseline = reachable.Baseline()
        self.less = False
        self._request = request
        self._pif = pif
        self._records = records
        self._wanted = wanted
        self._host = host
        self._wire = wire
        self._asked: set[str] = set()
        self._had: set[str] = set()

    def before(self, kernel: Kernel, planned: Plan) -> list[str]:
        """What is to be told. Raises ConflictError; nothing is touched then."""
        self._had = {address.text for address in kernel.addresses}
        told = self._conflicts(kernel)
        becoming = self._pif.ref if self._request.management else ""
        if concerns(self._records, planned, becoming):
            self.baseline = reachable.before(kernel, self._records.bridge, self._wire)
        return told

    def after(self) -> list[str]:
        """What is to be told, all steps being done. Raises ConflictError, LostError: it is to be undone then."""
        told = self._conflicts(self._host.tools.netlink.look())
        if self.baseline:
            reachable.await_again(
                self.baseline,
                self._wanted,
                self._bridge(),
                self._wire,
                look=self._host.tools.netlink.look,
                wait=self._host.wait,
                clock=self._host.clock,
                ref=self._pif.ref,
            )
        return told

    def undone(self) -> None:
        """All is as before: the neighbours are to know where the addresses of the management interface are."""
        with contextlib.suppress(HostagentError):
            kernel = self._host.tools.netlink.look()
            index = next((i for i, one in kernel.links.items() if one.name == self._records.bridge), -1)
            addresses = [
                one.text
                for one in kernel.addresses
                if one.device == index and one.scope < reachable.SCOPE_LINK
            ]
            if addresses:
                self._wire.announce(self._records.bridge, addresses)

    def _bridge(self) -> str:
        """Of the management interface after the change."""
        if not self._request.management:
            return self._records.bridge
        network = self._records.networks.get(self._pif.network)
        return network.bridge if network and network.bridge else self._pif.device

    def _conflicts(self, kernel: Kernel) -> list[str]:
        """Asked for where the bridge has carrier now: each address once, before the change or else after it."""
        dark = {link.name for link in kernel.links.values() if not (link.flags & UP and link.carrier)}
        there = {link.name for link in kernel.links.values()} - dark

        def carried(device: str) -> str:
            return device if device in there else ""

        new = [one for one in self._wanted.addresses if one.text not in self._had | self._asked]
        asked = self._wanted._replace(addresses=tuple(new))
        found = reachable.conflicts(asked, kernel._replace(addresses=()), self._wire, carried=carried)
        self._asked |= {one.text for one in new if carried(one.device)}
        told = [reachable.told_of(address, mac) for address, mac in found.items()]
        if not found:
            return []
        if not self._request.boot:
            raise reachable.ConflictError(
                "; ".join(told),
                hint="give this host another address, or free it there (arping -D shows who has it)",
                params=(self._pif.ref, "; ".join(told)),
            )
        self.less = True
        return told
