"""Which plans concern the management interface, and what a change of it needs on the wire.

Small, because `interface-reconfigure` asks this of every plan; what is then done is in `care.py` and `reachable.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net.chains import lower_of, members
from hostagent.net.names import vlan_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hostagent.net.devices import Kernel, Wanted
    from hostagent.net.operation import Plan
    from hostagent.net.probe import Answer, Probe
    from hostagent.net.records import Pif, Records


class Wire(NamedTuple):
    """What is asked and said on the wire (`probe.py`). All raise ProbeError when it cannot be done there."""

    ask: Callable[[Probe, float], Answer]
    holder: Callable[[str, str, float], str]
    """Device, address, seconds: the MAC address of another host that has the address, or nothing."""
    announce: Callable[[str, Sequence[str]], object]
    """Device and addresses."""
    talking: Callable[[], Sequence[tuple[str, str]]] = tuple
    """Our own address and the other's, of each connection that is open."""
    coordinator: Callable[[], str] = str
    """Address of the pool's coordinator; empty where that is this host."""
    path: Callable[[str, int, str], int] = lambda *_: 0
    """Address, bytes, source: the largest packet up to that size that gets there without being cut up; 0 for unknown.
    Takes at most a second. Raises PathError."""


def needs_care(records: Records, wanted: Wanted, kernel: Kernel, plan: Plan, becoming: str = "") -> bool:
    """Whether something is to be asked on the wire: a new address, or a change of the management interface."""
    have = {address.text for address in kernel.addresses}
    return any(one.text not in have for one in wanted.addresses) or concerns(records, plan, becoming)


def concerns(records: Records, plan: Plan, becoming: str = "") -> bool:
    """Whether the plan touches what carries the management PIF, or the one that is becoming that (a reference): NICs,
    bond, VLAN device, bridge."""
    names: set[str] = set()
    for ref, pif in records.pifs.items():
        if pif.management or ref == becoming:
            names |= chain(records, pif)
    return any(step.do.device in names for step in plan.steps)


def chain(records: Records, pif: Pif) -> set[str]:
    """Names of the devices that carry a PIF, its bridge with them."""
    root = records.pifs[lower_of(records, pif) or pif.ref]
    names = {root.device, *(nic.device for nic in members(records, root))}
    vlan = records.vlans.get(pif.vlan_master_of)
    if vlan is not None:
        names.add(vlan_device(root.device, vlan.tag)[0])
    network = records.networks.get(pif.network)
    return names | ({network.bridge} if network and network.bridge else set())
