"""What surrounds the execution of a plan: nobody has the new addresses, and the host stays reachable (`reachable.py`).

An address that another host has ends a change that is asked for now, before anything is touched where it can be asked
for by then. At boot it is taken all the same, and told: a host that cannot be reached helps nobody.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.net import lacp, reachable
from hostagent.net.devices import SCOPE_LINK, UP
from hostagent.net.management import concerns
from hostagent.net.settle import CARRIER_S, POLL_S

if TYPE_CHECKING:
    from hostagent.net.bring import Host
    from hostagent.net.change import Change
    from hostagent.net.devices import Kernel, WantedAddress
    from hostagent.net.management import Wire


class Care:
    """Of one change. `baseline` is what must answer afterwards."""

    def __init__(self, change: Change, host: Host, wire: Wire) -> None:
        self.baseline = reachable.Baseline()
        self.settle_s = reachable.settle_s(change.wanted, change.planned, change.kernel)
        self._change = change
        self._host = host
        self._wire = wire
        self._asked: set[str] = set()
        self._had = {address.text for address in change.kernel.addresses}

    def before(self) -> list[str]:
        """What is found and accepted. Raises ConflictError; nothing is touched then."""
        change = self._change
        told = self._conflicts(change.kernel)
        if concerns(change.records, change.planned, change.becoming):
            self.baseline = reachable.before(change.kernel, change.former, self._wire)
        return told

    def after(self) -> list[str]:
        """What is found and accepted, all steps being done. Raises ConflictError, LostError: it is to be undone."""
        told = self._conflicts(self._lit())
        self._aggregate()
        if self.baseline:
            reachable.await_again(
                self.baseline,
                self._change.wanted,
                self._bridge(),
                self._wire,
                look=self._host.tools.netlink.look,
                wait=self._host.wait,
                clock=self._host.clock,
                ref=self._change.blame,
                confirmed=bool(self._change.confirm_s),
                settle_s=self.settle_s,
            )
        return told

    def _aggregate(self) -> None:
        """The bond below management has a partner, where it had one or is new. At boot what there is is taken."""
        change = self._change
        name = lacp.management_bond(change.records, change.becoming)
        if change.boot or not name or not concerns(change.records, change.planned, change.becoming):
            return
        if lacp.trouble(change.kernel, name):  # it was so before
            return
        until = self._host.clock() + self.settle_s
        while told := lacp.trouble(self._host.tools.netlink.look(), name):
            if self._host.clock() >= until:
                raise reachable.LostError(
                    f"{told} (within {self.settle_s:g} s of the change)",
                    hint="make the switch's ports one LACP group, or use mode active-backup",
                    params=(change.blame, told),
                )
            self._host.wait(reachable.POLL_S)

    def _lit(self) -> Kernel:
        """The kernel when new addresses can be asked for on all their bridges, or cannot for long enough: a port that
        was just set up has no carrier yet. At boot nobody waits: the address is taken in any case."""
        until = self._host.clock() + CARRIER_S
        while True:
            kernel = self._host.tools.netlink.look()
            there = _carried(kernel)
            dark = any(one.device not in there for one in self._new())
            if not dark or self._change.boot or self._host.clock() >= until:
                return kernel
            self._host.wait(POLL_S)

    def undone(self) -> None:
        """All is as before: the neighbours are to know where the addresses of the management interface are."""
        with contextlib.suppress(HostagentError):
            kernel = self._host.tools.netlink.look()
            index = next((i for i, one in kernel.links.items() if one.name == self._change.former), -1)
            addresses = [
                one.text for one in kernel.addresses if one.device == index and one.scope < SCOPE_LINK
            ]
            if addresses:
                self._wire.announce(self._change.former, addresses)

    def _bridge(self) -> str:
        """Of the management interface after the change."""
        records = self._change.records
        pif = records.pifs.get(self._change.becoming)
        if pif is None:
            return records.bridge
        network = records.networks.get(pif.network)
        return network.bridge if network and network.bridge else pif.device

    def _new(self) -> list[WantedAddress]:
        """Addresses that the host did not have, and that nobody was asked for yet."""
        return [one for one in self._change.wanted.addresses if one.text not in self._had | self._asked]

    def _conflicts(self, kernel: Kernel) -> list[str]:
        """Asked for where the bridge has carrier now: each address once, before the change or else after it."""
        there, new = _carried(kernel), self._new()
        asked = self._change.wanted._replace(addresses=tuple(new))
        found = reachable.conflicts(
            asked,
            kernel._replace(addresses=()),
            self._wire,
            carried=lambda device: device if device in there else "",
        )
        self._asked |= {one.text for one in new if one.device in there}
        told = [reachable.told_of(address, mac) for address, mac in found.items()]
        if told and not self._change.boot:
            raise reachable.ConflictError(
                "; ".join(told),
                hint="give this host another address, or free it there (arping -D shows who has it)",
                params=(self._change.blame, "; ".join(told)),
            )
        return told


def _carried(kernel: Kernel) -> set[str]:
    """Devices whose frames can be seen by others now."""
    return {link.name for link in kernel.links.values() if link.flags & UP and link.carrier}
