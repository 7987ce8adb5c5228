"""Records of before and after a change in one, and where guests' ports are to be when it is over. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net.attached import attached
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.verify import is_uplink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hostagent.net.devices import Kernel
    from hostagent.net.records import Records


def together(records: Records, was: Records, kernel: Kernel) -> Records:
    """What the records will say, with objects that only `was` has, and `currently_attached` as it is now."""
    now = attached(was, kernel)
    pifs = {
        ref: pif if pif.currently_attached == (ref in now) else pif._replace(currently_attached=ref in now)
        for ref, pif in {**was.pifs, **records.pifs}.items()
    }
    return records._replace(
        pifs=pifs,
        networks={**was.networks, **records.networks},
        bonds={**was.bonds, **records.bonds},
        vlans={**was.vlans, **records.vlans},
    )


def bridges_of(records: Records, moved: Mapping[str, str]) -> dict[str, str]:
    """Bridge → bridge, of network → network; those without a bridge are left out."""
    found = {}
    for old, new in moved.items():
        one, other = records.networks.get(old), records.networks.get(new)
        if one and other and one.bridge and other.bridge:
            found[one.bridge] = other.bridge
    return found


def guests_moved(planned: Plan, kernel: Kernel, bridges: Mapping[str, str]) -> Plan:
    """The plan, at whose end guests' ports of the bridges are on those that take their place."""
    if not bridges:
        return planned
    links = kernel.by_name()
    indexes = {name: link.ifindex for name, link in links.items()}
    indexes |= {step.do.device: step.do.ifindex for step in planned.steps if step.do.verb == "link-add"}
    masters = {
        step.do.ifindex: step.do.args["master"]
        for step in planned.steps
        if step.do.verb == "link-set" and "master" in step.do.args
    }
    more = []
    for old, new in bridges.items():
        target = indexes.get(new)
        for link in kernel.links.values():
            if old not in links or link.master != links[old].ifindex or is_uplink(link) or target is None:
                continue
            present = masters.get(link.ifindex, link.master)
            if present != target:
                do = Operation("link-set", link.name, link.ifindex, {"master": target})
                undo = Operation("link-set", link.name, link.ifindex, {"master": present})
                more.append(Step(do, (undo,)))
    return Plan((*planned.steps, *more))


def mtus(records: Records, refs: Sequence[str], kernel: Kernel) -> dict[str, int]:
    """The MTU of the bridge of each PIF."""
    links = kernel.by_name()
    found = {}
    for ref in refs:
        network = records.networks.get(records.pifs[ref].network)
        link = links.get(network.bridge) if network else None
        if link is not None:
            found[ref] = link.mtu
    return found
