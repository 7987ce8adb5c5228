"""What changes of the database ask of the host: one protocol, so that the calls know nothing of the kernel.

Each change is a context manager. Entered, it has been done and verified; what fails raises a HostagentError and leaves
the host as it was. The block then makes the database durable: left whole, the change stays (the journal's mark
"committed"); when the block raises, the change is undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from hostagent.net.nics_types import Nic
    from hostagent.net.records import Records

Done = AbstractContextManager[Mapping[str, int]]
"""What entering yields: the MTU that each PIF has got, by reference; empty where there is nothing to tell."""


class Effect(Protocol):
    """The host's network. Called by one thread at a time for changes, by any for looks."""

    def bring_up(
        self,
        records: Records,
        refs: Sequence[str],
        *,
        was: Records,
        down: Sequence[str] = (),
        becoming_management: str = "",
        moved: Mapping[str, str] | None = None,
        asked: bool = True,
    ) -> Done:
        """Bring up the PIFs `refs` of `records` (what the database will say) in this order, changing in place those
        that are up; take down the PIFs `down`, which only `was` (what it says now) may know. All of it is one plan.

        `becoming_management`: that PIF becomes the management interface, which decides who owns gateway and DNS.
        `moved`: network → network. Guests' interfaces on the bridge of the first go to that of the second.
        `asked` is false of a repair: what an undo took back is then refused.
        """

    def take_down(self, records: Records, refs: Sequence[str], *, after: Records | None = None) -> Done:
        """Take down PIFs that `records` (what the database says now) still has; `after`: what it will say."""

    def attach(self, records: Records, network: str, *, was: Records | None = None) -> Done:
        """Make the bridge of an internal network of `records` (what the database will say); `was`: what it says now."""

    def detach(self, records: Records, network: str, *, after: Records | None = None) -> Done:
        """Remove the bridge of an internal network; none is right too. `records` and `after` as in `take_down`."""

    def listen(self, bridge: str, address_type: str) -> Done:
        """Make this bridge, with its address of that family (IPv4 or IPv6), the management interface: inventory, then
        listeners. An empty bridge: no management interface, listeners for programs on this host only.
        """

    def management_bridge(self) -> str:
        """That of the inventory, empty for none."""

    def management_address_type(self) -> str:
        """IPv4 or IPv6, as the inventory has it."""

    def has_bridge(self, name: str) -> bool:
        """Whether the kernel has a bridge of that name."""

    def has_address(self, device: str, family: str) -> bool:
        """Whether the device has an address of that family (IPv4 or IPv6) that others can reach, or will in a moment:
        the kernel may be checking it. Raises NetlinkError, FileError.
        """

    def foreign_vlans(self) -> Mapping[tuple[str, int], str]:
        """VLAN devices that somebody else has made, by the device below them and their tag. A look at all devices:
        not for within a transaction.
        """

    def mode_refused(self, mode: str) -> str:
        """Why a bond of this mode (Bond.mode) cannot be made here, in words; empty when it can."""

    def nics(self) -> Sequence[Nic]:
        """All NICs that have a position, absent ones too, with fresh facts."""


class Draft(NamedTuple):
    """What a change of objects asks of the host, as the arguments of `Effect.bring_up` have it.

    `blame` is the PIF that a failure is reported for; by default the first of `up` or `down`.
    """

    result: str = ""
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    becoming_management: str = ""
    moved: Mapping[str, str] = {}
    blame: str = ""
    attach: str = ""
    detach: str = ""
    """A network whose bridge is made or removed."""
    listen: tuple[str, str] | None = None
    """Bridge and family of address that the management interface is to have from now on."""
