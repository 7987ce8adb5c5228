"""What a plan is about before its first step: what must be deleted, where guests go, what carries an address now.

The errors are those of devices that are in the way and not ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import OperatorError
from hostagent.net.devices import GROUP, Device, Link, Wanted
from hostagent.net.verify import OWN_KINDS, Layer3, is_left_over, is_member, is_stray_bond, is_uplink

if TYPE_CHECKING:
    from hostagent.net.draft import Draft

FIRST = {"physical": 0, "": 0, "bond": 1, "vlan": 2, "bridge": 3}
"""Kinds from the bottom up."""


class OccupiedError(OperatorError):
    """A device that is not ours has the place of a wanted one. XenAPI PIF_CONFIGURATION_ERROR [PIF; message]."""

    code = "PIF_CONFIGURATION_ERROR"


class VlanInUseError(OperatorError):
    """A VLAN device that is not ours has the tag. XenAPI VLAN_IN_USE [device; tag]."""

    code = "VLAN_IN_USE"


class Work:
    """What the phases share."""

    def __init__(self, wanted: Wanted, draft: Draft) -> None:
        self.wanted = wanted
        self.draft = draft
        self.layer3 = Layer3(wanted)
        self.devices = self.layer3.devices
        self.ordered = sorted(wanted.devices, key=lambda device: FIRST[device.kind])
        self.unfinished: list[Device] = []
        self.members: dict[str, list[str]] = {}
        for device in wanted.devices:
            if device.master:
                self.members.setdefault(device.master, []).append(device.name)


def to_delete(work: Work) -> list[int]:
    """Indexes of the devices to delete, from the top: `gone`, in the way of a wanted one, VLANs on either, and VLANs of
    ours left over by a move: in the bridge of another one, or on what becomes a member of a bond.
    """
    draft, doomed = work.draft, {}
    for name in work.wanted.gone:
        link = draft.link(name)
        if link is not None and link.kind in OWN_KINDS:
            _ours_to_remove(draft, link)
            doomed[link.ifindex] = link
    vlans: dict[tuple[str, int], Device] = {}
    for device in work.wanted.devices:
        link = draft.link(device.name)
        if device.kind == "vlan":
            vlans[device.lower, device.vlan_id] = device
        if link is None or device.kind == "physical":
            continue
        lower = draft.links.get(link.lower)
        other = device.kind == "vlan" and (
            lower is None or (lower.name, link.vlan_id) != (device.lower, device.vlan_id)
        )
        if link.kind != device.kind or other:
            _ours_to_replace(link, device)
            doomed[link.ifindex] = link
        elif _is_stray(draft, link):
            doomed[link.ifindex] = link
    for lower_index, uppers in draft.vlans.items():
        lower = draft.links.get(lower_index)
        for index in uppers:
            link = draft.links[index]
            in_way = vlans.get((lower.name, link.vlan_id)) if lower is not None else None
            if in_way is not None and in_way.name != link.name:
                if link.group != GROUP and index not in doomed:
                    raise VlanInUseError(
                        f"{link.name} has tag {link.vlan_id} on {in_way.lower}, and is not ours",
                        hint=f"find out who made {link.name} (FCoE?); `ip link del {link.name}` when nobody needs it",
                        params=(in_way.lower, str(link.vlan_id)),
                    )
                doomed[index] = link
            carrier = work.devices.get(lower.name) if lower is not None else None
            holder = draft.links.get(link.master)
            in_bridge = holder is not None and holder.name in work.devices
            if link.group == GROUP and link.name not in work.devices and in_bridge:
                doomed[index] = link
            elif carrier is not None and is_left_over(link, carrier, work.devices):
                doomed[index] = link
    queue = list(doomed)
    for index in queue:
        for upper in draft.vlans.get(index, ()):
            if upper not in doomed:
                link = draft.links[upper]
                if link.group != GROUP and link.name not in work.devices:
                    _foreign_on_top(link, draft.links[index])
                doomed[upper] = link
                queue.append(upper)
    return sorted(
        doomed, key=lambda index: -FIRST[doomed[index].kind] if doomed[index].kind != "bridge" else 0
    )


def _is_stray(draft: Draft, link: Link) -> bool:
    """Whether it is nobody's bond. Made anew, a bond is in its mode before it has a member."""
    on_it = (
        draft.ports.get(link.ifindex) or draft.vlans.get(link.ifindex) or draft.addresses.get(link.ifindex)
    )
    return is_stray_bond(link, used=bool(on_it))


def _ours_to_remove(draft: Draft, link: Link) -> None:
    if link.group != GROUP and not _is_stray(draft, link):
        what = f"{link.name} must go, and was made by another program"
        raise OccupiedError(what, hint=f"take {link.name} down where it is configured", params=("", what))


def _ours_to_replace(link: Link, device: Device) -> None:
    if link.group != GROUP:
        what = f"{link.name} is a {link.kind or 'NIC'} that is not ours where a {device.kind} is wanted"
        if link.kind == device.kind:
            what = f"{link.name} is not ours and has another tag or lower device than the wanted one"
        hint = f"find out who made it; `ip link del {link.name}` when nobody needs it"
        raise OccupiedError(what, hint=hint, params=((*device.serves, "")[0], what))


def _foreign_on_top(link: Link, lower: Link) -> None:
    what = f"{lower.name} must go, and {link.name} on it is not ours"
    raise OccupiedError(what, hint=f"`ip link del {link.name}` when nobody needs it", params=("", what))


def where_guests_go(work: Work, bridge: Link) -> str:
    """Name of the bridge where the uplink of a bridge that goes is wanted, or what takes its place; "" if nowhere."""
    draft, devices = work.draft, work.devices

    def place(name: str) -> str:
        device = devices.get(name)
        master = devices.get(device.master) if device is not None else None
        if master is None:
            return ""
        return master.name if master.kind == "bridge" else place(master.name)

    for index in draft.ports[bridge.ifindex]:
        port = draft.links[index]
        if not is_uplink(port):
            continue
        carriers = [port] if port.kind != "vlan" else [draft.links[port.lower]]
        carriers += [draft.links[i] for i in draft.ports.get(carriers[0].ifindex, ())]
        names = {link.name for link in carriers}
        names |= {
            devices[name].master for name in names if name in devices and is_member(devices[name], devices)
        }
        if port.kind != "vlan":
            found = [place(name) for name in sorted(names)]
        else:
            found = [
                place(d.name)
                for d in work.wanted.devices
                if d.kind == "vlan" and d.vlan_id == port.vlan_id and d.lower in names
            ]
        for name in found:
            if name and name != bridge.name:
                return name
    return ""


def carrying(work: Work) -> set[str]:
    """Names of the devices that what carries an address now needs, now or as wanted."""
    draft, devices = work.draft, work.devices
    late: set[str] = set()
    queue = [draft.links[index].name for index in draft.addresses if index in draft.links]
    while queue:
        name = queue.pop()
        if name in late or name == "lo":
            continue
        late.add(name)
        link, device = draft.link(name), devices.get(name)
        queue += work.members.get(name, ())
        if link is not None:
            queue += [draft.links[index].name for index in draft.ports.get(link.ifindex, ())]
            queue += [draft.links[i].name for i in (link.master, link.lower) if i in draft.links]
        if device is not None:
            queue += [other for other in (device.master, device.lower) if other]
    return late
