"""From the kernel as it is to the network as it is wanted: ordered steps, nothing that is right is touched.

The order (networking.md 7.2), first for what carries no address, then for what does ("late": a device with an address,
the ports, members and lower devices that it needs, and the bonds and bridges that these are to go to):

  new bridges and bonds, up and without ports: they disturb nobody, and take the addresses before others lose them
  MTUs lowered, from the top
  wanted addresses and routes on what exists; then stale routes, addresses and DHCP clients off
  ports that leave; deletions, from the top; members and ports that join; VLANs; settings
  MTUs raised, from the bottom; addresses, routes, DHCP clients and DNS on what came into being

So two devices hold a moved address for the time of a few messages, and none is without it. An uplink leaves a bridge
before another joins: never two ways out of one bridge, which would be a loop through the switch. A bond with a member
that carries an address gets all its members late: its MAC address would appear at two ports of the switch.

Foreign devices (not of our group, not named in what is wanted) are not touched, except: a NIC, bond or VLAN that is a
port of our bridge or bond leaves it (3.3 step 6). Guests' ports (vif*, tap*, and other kinds) stay where they are; when
their bridge goes, they follow its uplink to the bridge where that, or the bond or VLAN that takes its place, is wanted.
Their port settings are for whoever made them to set again. Where there is no such bridge they are let go.

In place: everything of a bridge; all of a bond, taking it down and up for what the kernel refuses otherwise; for
mode and fail_over_mac its members leave for that moment, and the VLANs on it stay. A VLAN with another tag
or lower device is
made anew. What cannot be (a NIC that is not there, and what lies on it) is left out; `verify` tells.
"""

from __future__ import annotations

from typing import Any

from hostagent.net.affected import Work, carrying, to_delete, where_guests_go
from hostagent.net.devices import GROUP, UP, Device, Kernel, Link, Wanted
from hostagent.net.draft import Draft
from hostagent.net.layers import addresses_off, addresses_on, around_off, around_on, dns, dns_left
from hostagent.net.operation import Operation, Plan
from hostagent.net.verify import Around, is_member, is_uplink, settings_of

NO_MEMBERS = {"mode", "fail_over_mac"}
NEEDS_DOWN = {"mode", "fail_over_mac", "lacp_active", "tlb_dynamic_lb"}  # and ad_*
MIIMON, DELAYS = "miimon", ("updelay", "downdelay")
MANY = 8
"""VLANs that go together, rather than one by one."""
BRIDGE_MTU = 1500  # of a bridge without ports


def plan(wanted: Wanted, kernel: Kernel, around: Around | None = None) -> Plan:
    """The steps that make `differences(wanted, kernel, around)` empty; none when it is.

    Without `around`, only new devices get IPv6 modes, and there are no steps for link settings, DHCP clients and DNS.
    Raises OccupiedError, VlanInUseError.
    """
    draft = Draft(kernel, around)
    work = Work(wanted, draft)
    doomed = to_delete(work)
    targets = {index: where_guests_go(work, draft.links[index]) for index in doomed if draft.ports.get(index)}
    late = carrying(work)
    dns_left(draft)
    for device in wanted.devices:
        if device.kind in ("bridge", "bond") and device.name not in draft.index:
            _create(work, [device])
    _finish_new(work)
    for part in (False, True):
        names = [d for d in work.ordered if part or d.name not in late]
        _lower_mtus(work, names)
        if part:
            around_off(draft, wanted)
            addresses_on(draft, work.layer3, wanted)
            addresses_off(draft, work.layer3, wanted)
        _leave(work, [i for i in doomed if part or draft.links[i].name not in late], targets, names)
        doomed = [index for index in doomed if index in draft.links]
        _join(work, names)
        _raise_mtus(work, names)
    addresses_on(draft, work.layer3, wanted)
    if around is not None:
        around_on(draft, wanted)
        dns(draft, wanted)
    return Plan(tuple(draft.steps))


# --- what comes into being ---


def _create(work: Work, devices: list[Device]) -> None:
    """Make devices, not yet up: their IPv6 mode must be set before."""
    draft = work.draft
    for device in devices:
        draft.serves = device.serves
        args: dict[str, Any] = {}
        if device.mac:
            args["mac"] = device.mac
        if device.settings:
            args["settings"] = dict(settings_of(device, draft.index))
        if device.mtu:
            # a bridge follows its smallest port until its MTU is *changed*: that is done with bringing it up
            args["mtu"] = device.mtu - 1 if device.kind == "bridge" else device.mtu
        if device.kind == "vlan":
            lower = draft.links[draft.index[device.lower]]
            args |= {"lower": lower.ifindex, "vlan_id": device.vlan_id}
            if device.mtu and lower.mtu:
                args["mtu"] = min(device.mtu, lower.mtu)  # raised when the lower one is
            else:
                args.pop("mtu", None)
        master = draft.link(device.master)
        if device.kind == "vlan" and master is not None:
            args["master"] = master.ifindex
        draft.add(device, args)
        work.unfinished.append(device)


def _finish_new(work: Work) -> None:
    """IPv6 modes of the devices just made, then all of them up: few changes between netlink and files."""
    draft = work.draft
    for device in work.unfinished:
        draft.serves = device.serves
        draft.sysctl(device, draft.index[device.name])
    for device in work.unfinished:
        draft.serves = device.serves
        link = draft.links[draft.index[device.name]]
        if device.kind == "bridge" and device.mtu:
            draft.up(link, mtu=device.mtu)
        else:
            draft.up(link)
        if device.altname:
            draft.add_altname(draft.links[link.ifindex], device.altname)
    work.unfinished = []


def _leave(work: Work, doomed: list[int], targets: dict[int, str], devices: list[Device]) -> None:
    """Ports that are not wanted where they are, and the devices that must go."""
    draft = work.draft
    going = set(doomed)
    for index in doomed:
        for port in [draft.links[i] for i in draft.ports.get(index, ())]:
            target = draft.link(targets[index])
            if port.ifindex in going and port.kind != "bond":
                continue  # it goes first
            if target is not None and target.kind == "bridge" and not is_uplink(port):
                draft.enslave(port, target)
            else:
                draft.release(port)
    for device in devices:
        link = draft.link(device.name)
        if link is None or device.kind not in ("bond", "bridge") or link.ifindex in going:
            continue
        draft.serves = device.serves
        for port in [draft.links[index] for index in draft.ports.get(link.ifindex, ())]:
            wanted = work.devices.get(port.name)
            stays = wanted is not None and wanted.master == device.name
            if not stays and port.ifindex not in going and (device.kind == "bond" or is_uplink(port)):
                if wanted is not None and wanted.master and device.kind == "bond":
                    continue  # to another master: `_join` lets it go when that is there, so that this has one till then
                draft.release(port)
    draft.serves = ()
    vlans = [index for index in doomed if draft.links[index].kind == "vlan"]
    if len(vlans) >= MANY:
        draft.delete_vlans([draft.links[index] for index in vlans])
    for index in doomed:
        if index in draft.links:
            draft.delete(draft.links[index])


def _join(work: Work, devices: list[Device]) -> None:
    """What each wanted device still needs, from the bottom."""
    draft = work.draft
    for kind in ("physical", "bond", "vlan", "bridge"):
        todo = [device for device in devices if device.kind == kind]
        missing = [device for device in todo if device.name not in draft.index]
        if kind == "vlan":
            missing = [device for device in missing if _is_up(draft.link(device.lower))]
        if missing and kind != "physical":
            _create(work, missing)
            _finish_new(work)
        for device in todo:
            link = draft.link(device.name)
            if link is not None:
                draft.serves = device.serves
                _mend(work, device, link)
    draft.serves = ()


def _mend(work: Work, device: Device, link: Link) -> None:
    draft = work.draft
    member = is_member(device, work.devices)
    draft.sysctl(device, link.ifindex)
    _ethtool(draft, device, link)
    if device.kind != "physical" and link.group != GROUP:
        link = draft.set(link, group=GROUP)
    if device.kind == "bond":
        link = _bond(work, device, link)
    else:
        changed = {n: v for n, v in device.settings.items() if link.settings.get(n) != v}
        if changed:
            link = draft.set(link, settings=changed)
    if device.altname and device.altname not in link.altnames:
        draft.add_altname(link, device.altname)
        link = draft.links[link.ifindex]
    if device.mac and link.mac != device.mac and not member:
        if device.kind == "physical" and link.flags & UP:
            lost = draft.down(link)
            link = draft.set(draft.links[link.ifindex], mac=device.mac)
            draft.up(link)
            draft.regain(lost)
            link = draft.links[link.ifindex]
        else:
            link = draft.set(link, mac=device.mac)
    master = draft.link(device.master)
    if master is not None and link.master != master.ifindex:
        _give(work, link, master)
        link = draft.links[link.ifindex]
    if not link.flags & UP and (link.kind != "vlan" or _is_up(draft.links.get(link.lower))):
        draft.up(link)


def _is_up(link: Link | None) -> bool:
    return link is not None and bool(link.flags & UP)


def _give(work: Work, link: Link, master: Link) -> None:
    draft = work.draft
    holder = draft.links.get(link.master)
    if master.kind != "bond":
        if holder is not None and holder.kind == "bond":
            link = draft.release(link)
            draft.up(link)
            link = draft.links[link.ifindex]
        draft.enslave(link, master)
        return
    if holder is not None:
        link = draft.release(link)
    lost: list[Operation] = []
    if link.flags & UP:
        lost = draft.down(link)
    draft.enslave(draft.links[link.ifindex], draft.links[master.ifindex])
    draft.regain([operation for operation in lost if operation.ifindex != link.ifindex])


def _bond(work: Work, device: Device, link: Link) -> Link:
    """Settings of a bond that exists; members come and go for themselves (`_mend` of each)."""
    draft = work.draft
    settings = settings_of(device, draft.index)
    changed = {name: value for name, value in settings.items() if link.settings.get(name) != value}
    if not changed:
        return link
    members: list[Link] = []
    if changed.keys() & NO_MEMBERS:
        members = [draft.links[index] for index in draft.ports.get(link.ifindex, ())]
        for member in members:
            draft.release(member)
        changed = dict(settings)  # another mode begins with its own
    if MIIMON in changed:  # the kernel counts the delays in it: they would change with it
        changed |= {name: settings[name] for name in DELAYS if name in settings}
    lost: list[Operation] | None = None
    if link.flags & UP and any(name in NEEDS_DOWN or name.startswith("ad_") for name in changed):
        lost = draft.down(draft.links[link.ifindex])
    mac = {"mac": link.mac} if members and link.mac else {}
    draft.set(draft.links[link.ifindex], settings=changed, **mac)
    if lost is not None:
        draft.up(draft.links[link.ifindex])
        draft.regain(lost)
    for member in members:
        wanted = work.devices.get(member.name)
        if wanted is not None and wanted.master == device.name:
            draft.enslave(draft.links[member.ifindex], draft.links[link.ifindex])
    return draft.links[link.ifindex]


def _ethtool(draft: Draft, device: Device, link: Link) -> None:
    """What a link setting is now, as the speeds 10,100,1000, is nothing that can be set: its undo is of its own."""
    if draft.around is None or ("ethtool", link.ifindex) in draft.settled:
        return
    draft.settled.add(("ethtool", link.ifindex))
    around = draft.around
    do: dict[str, Any] = {}
    undo: dict[str, Any] = {}
    modes, features = around.link.get(device.name, {}), around.features.get(device.name, {})
    if changed := {key: value for key, value in device.link.items() if modes.get(key) != value}:
        do["link"] = changed
        if device.name in around.link_back:
            undo["link"] = dict(around.link_back[device.name])
    if switched := {key: value for key, value in device.features.items() if features.get(key) != value}:
        do["features"] = switched
        if before := {key: features[key] for key in switched if key in features}:
            undo["features"] = before
    if do:
        back = (Operation("ethtool", device.name, link.ifindex, undo),) if undo else ()
        draft.step(Operation("ethtool", device.name, link.ifindex, do), *back)


# --- MTUs ---


def _lower_mtus(work: Work, devices: list[Device]) -> None:
    draft = work.draft
    for device in reversed(devices):
        link = draft.link(device.name)
        if link is not None and device.mtu and link.mtu > device.mtu and link.ifindex not in draft.new:
            if device.kind != "bridge" and not _bound(work, device, link):
                draft.serves = device.serves
                draft.set_mtu(link, device.mtu)
    draft.serves = ()


def _bound(work: Work, device: Device, link: Link) -> bool:
    """Whether a bond gives it its MTU."""
    holder = work.draft.links.get(link.master)
    return is_member(device, work.devices) and holder is not None and holder.name == device.master


def _raise_mtus(work: Work, devices: list[Device]) -> None:
    draft = work.draft
    for device in devices:
        link = draft.link(device.name)
        if link is None or not device.mtu or (link.mtu == device.mtu and device.kind != "bridge"):
            continue
        draft.serves = device.serves
        if device.kind != "bridge":
            lower = draft.links.get(link.lower)
            if lower is None or link.kind != "vlan" or lower.mtu >= device.mtu:
                draft.set_mtu(link, device.mtu)
        elif link.ifindex not in draft.new and (link.mtu != device.mtu or _would_follow(draft, device, link)):
            # only a change makes it stay when ports come and go
            draft.set_mtu(link, device.mtu - 1)
            draft.set_mtu(draft.links[link.ifindex], device.mtu)
    draft.serves = ()


def _would_follow(draft: Draft, device: Device, link: Link) -> bool:
    """Whether this plan changes the ports so that a bridge without an MTU of its own is at another one now."""
    return (
        link.ifindex in draft.stirred
        and min((draft.links[i].mtu for i in draft.ports.get(link.ifindex, ())), default=BRIDGE_MTU)
        != device.mtu
    )
