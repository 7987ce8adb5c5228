"""A plan while it is made: the kernel as it will be after the steps so far, and the primitive steps with their undo.

An undo gives back what the step changes *and* what the kernel changes along with it (networking.md 4.2): a bridge
without a set MTU follows its ports, a bond gives members its MAC and MTU, a device that goes down loses its IPv4 routes
and IPv6 addresses and takes its VLANs down, one that is deleted loses everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostagent.errors import BugError
from hostagent.net.devices import (
    GROUP,
    INDEX_FIRST,
    INDEX_LAST,
    LEAVING,
    PROTOCOL,
    SCOPE_LINK,
    UP,
    Address,
    Device,
    Kernel,
    Link,
    Route,
)
from hostagent.net.operation import Operation, Step
from hostagent.net.restore import PERMANENT, address_add, creatable, made_again, route_add
from hostagent.net.sysctl import ipv6_files
from hostagent.net.verify import (
    BY_KERNEL,
    Around,
    family_of,
    metric_of,
    subnets,
)

if TYPE_CHECKING:
    from collections.abc import Collection

SLICE = 200
NO_PROBE = 0x02  # IFA_F_NODAD


class Draft:
    def __init__(self, kernel: Kernel, around: Around | None) -> None:
        self.around = around
        self.steps: list[Step] = []
        self.serves: tuple[str, ...] = ()
        self.links = dict(kernel.links)
        self.index = {link.name: index for index, link in self.links.items()}
        self.new: set[int] = set()
        self.stirred: set[int] = set()
        """Masters whose ports, or their MTUs, changed."""
        self.settled: set[tuple[str, int]] = set()
        """Verb and device of what is set once in a plan: IPv6 modes, ethtool's settings."""
        self.doubtful: set[tuple[int, int]] = set()
        """Device and IP family whose addresses and routes may go with a step that does not say so."""
        self.ports: dict[int, list[int]] = {}
        self.vlans: dict[int, list[int]] = {}
        self.addresses: dict[int, list[Address]] = {}
        self.routes: dict[int, list[Route]] = {}
        next_index = INDEX_FIRST
        for index, link in self.links.items():
            if link.master:
                self.ports.setdefault(link.master, []).append(index)
            if link.kind == "vlan":
                self.vlans.setdefault(link.lower, []).append(index)
            if next_index <= index <= INDEX_LAST:
                next_index = index + 1
        self._next_index = next_index
        for address in kernel.addresses:
            if address.scope < SCOPE_LINK:
                self.addresses.setdefault(address.device, []).append(address)
        self._held = {address.text for address in kernel.addresses}
        for route in kernel.routes:
            if route.protocol != BY_KERNEL:
                self.routes.setdefault(route.device, []).append(route)
        self._all_routes = kernel.routes
        self._routed = {(r.destination, metric_of(r.destination, r.metric)) for r in kernel.routes}

    def link(self, name: str) -> Link | None:
        index = self.index.get(name)
        return None if index is None else self.links[index]

    def step(self, do: Operation, *undo: Operation) -> None:
        self.steps.append(Step(do, undo, self.serves))

    # --- links ---

    def add(self, device: Device, args: dict[str, Any]) -> int:
        """Make a device; `args` as link-add has them. Returns its index."""
        taken = self.links
        while self._next_index in taken or self._next_index > INDEX_LAST:
            self._next_index = INDEX_FIRST if self._next_index >= INDEX_LAST else self._next_index + 1
        index = self._next_index
        self._next_index += 1
        args = {"kind": device.kind, "group": GROUP, **args}
        delete = Operation("link-del", device.name, index)
        master = args.get("master", 0)
        self.step(Operation("link-add", device.name, index, args), delete, *self._reassert(master))
        self.links[index] = Link(
            ifindex=index,
            name=device.name,
            kind=device.kind,
            mac=args.get("mac", ""),
            mtu=args.get("mtu", 0 if device.kind == "vlan" else 1500),
            master=master,
            lower=args.get("lower", 0),
            flags=UP if args.get("up") else 0,
            group=GROUP,
            carrier=False,
            operstate=0,
            vlan_id=args.get("vlan_id", -1),
            settings=args.get("settings") or {},
        )
        self.index[device.name] = index
        self.new.add(index)
        if master:
            self.ports.setdefault(master, []).append(index)
            self.stirred.add(master)
        if "lower" in args:
            self.vlans.setdefault(args["lower"], []).append(index)
        return index

    def set(self, link: Link, **args: Any) -> Link:
        """Change what goes without side effects: mac, group, settings, mtu of what has nothing on it; not `up`."""
        before: dict[str, Any] = {}
        if link.ifindex not in self.new:
            before = {name: getattr(link, name) for name in args if name != "settings"}
            if "settings" in args:
                names = link.settings if "mode" in args["settings"] else args["settings"]
                all_ = {name: link.settings[name] for name in names if name in link.settings}
                if "primary" in names:
                    all_.setdefault("primary", 0)  # none
                before["settings"] = creatable(all_) if "mode" in args["settings"] else all_
            before = {name: value for name, value in before.items() if value not in (None, "", {})}
        undo = (Operation("link-set", link.name, link.ifindex, before),) if before else ()
        self.step(Operation("link-set", link.name, link.ifindex, args), *undo)
        if "settings" in args:
            args = {**args, "settings": {**link.settings, **args["settings"]}}
        return self._now(link._replace(**args))

    def set_mtu(self, link: Link, mtu: int) -> None:
        """Also lowers the VLANs that lie on it first; a bond gives it to its members."""
        for index in self.vlans.get(link.ifindex, ()):
            if self.links[index].mtu > mtu:
                self.set_mtu(self.links[index], mtu)
        undo = []
        if link.ifindex not in self.new and link.mtu:
            undo.append(Operation("link-set", link.name, link.ifindex, {"mtu": link.mtu}))
        if link.kind == "bond":
            for index in self.ports.get(link.ifindex, ()):
                port = self.links[index]
                if port.mtu != link.mtu and port.mtu:
                    undo.append(Operation("link-set", port.name, index, {"mtu": port.mtu}))
                self._now(port._replace(mtu=mtu))
        undo += self._reassert(link.master)
        self.stirred.add(link.master)
        self.step(Operation("link-set", link.name, link.ifindex, {"mtu": mtu}), *undo)
        self._now(link._replace(mtu=mtu))

    def add_altname(self, link: Link, altname: str) -> None:
        gone = Operation("link-set", link.name, link.ifindex, {"altname_gone": altname})
        undo = () if link.ifindex in self.new else (gone,)
        self.step(Operation("link-set", link.name, link.ifindex, {"altname": altname}), *undo)
        self._now(link._replace(altnames=(*link.altnames, altname)))

    def up(self, link: Link, **also: Any) -> None:
        """Bring up; `also` is for a device that is new or down (its mac or mtu)."""
        before = {name: getattr(link, name) for name in also if getattr(link, name)}
        undo = Operation("link-set", link.name, link.ifindex, {"up": False})
        restore = (Operation("link-set", link.name, link.ifindex, before),) if before else ()
        self.step(
            Operation("link-set", link.name, link.ifindex, {**also, "up": True}),
            *(() if link.ifindex in self.new else (undo, *restore)),
        )
        self._now(link._replace(flags=link.flags | UP, **also))
        for index in self.vlans.get(link.ifindex, ()):
            self._now(self.links[index]._replace(flags=self.links[index].flags | UP))

    def down(self, link: Link) -> list[Operation]:
        """Take down. Returns what gives back what the kernel drops along with it, for when it is up again."""
        self.step(Operation("link-set", link.name, link.ifindex, {"up": False}))
        lost = self._lose(link)
        was_up = Operation("link-set", link.name, link.ifindex, {"up": True})
        self.steps[-1] = self.steps[-1]._replace(undo=(was_up, *lost))
        return lost

    def _lose(self, link: Link) -> list[Operation]:
        self._now(link._replace(flags=link.flags & ~UP))
        lost = []
        for index in self.vlans.get(link.ifindex, ()):
            vlan = self.links[index]
            if vlan.flags & UP:
                lost += self._lose(vlan)
            else:
                lost.append(Operation("link-set", vlan.name, index, {"up": False}))
        addresses = self.addresses.get(link.ifindex, ())
        lost += [address_add(link, a) for a in addresses if family_of(a.text) == 6]
        lost += [route_add(link, route) for route in self.routes.get(link.ifindex, ())]
        return lost

    def regain(self, lost: list[Operation]) -> None:
        """Steps that give back what `down` told, to those that still are."""
        for operation in lost:
            if operation.ifindex in self.links:
                self.step(operation)

    def release(self, link: Link) -> Link:
        """Take a port from its master. A bond's member is down afterwards, with its own MAC and MTU again."""
        master = self.links.get(link.master)
        back = Operation("link-set", link.name, link.ifindex, {"master": link.master})
        leave = Operation("link-set", link.name, link.ifindex, {"master": 0})
        if master is None or master.kind != "bond":
            self.step(leave, back, *self._reassert(link.master))
            return self._moved(link, 0)
        self.step(leave)
        lost = self._lose(link)
        mtu = (Operation("link-set", link.name, link.ifindex, {"mtu": link.mtu}),) if link.mtu else ()
        for index in self.vlans.get(link.ifindex, ()):  # the member's own MTU may be less than theirs
            vlan = self.links[index]
            if vlan.mtu and index not in self.new:
                lost.append(Operation("link-set", vlan.name, index, {"mtu": vlan.mtu}))
            self._now(vlan._replace(mtu=0))
        # down and up around it: undone from a journal, it may be up by now, or a member still
        down = Operation("link-set", link.name, link.ifindex, {"up": False})
        up = (down._replace(args={"up": True}),) if link.flags & UP else ()
        undo = (down, back, *mtu, *self._reassert(link.master), *up, *lost)
        self.steps[-1] = self.steps[-1]._replace(undo=undo)
        own = link.permanent_mac if link.ifindex not in self.new else link.mac
        return self._moved(self.links[link.ifindex]._replace(mac=own, mtu=0), 0)

    def enslave(self, link: Link, master: Link) -> None:
        """Give a port to a bond (it must be down and free) or to a bridge (from another one: in one message)."""
        undo = [Operation("link-set", link.name, link.ifindex, {"master": link.master})]
        if master.kind == "bond":
            undo.append(Operation("link-set", link.name, link.ifindex, {"up": False}))
            before: dict[str, Any] = {"mac": link.mac} if link.mac else {}
            if link.mtu:
                before["mtu"] = link.mtu
            if before:
                undo.append(Operation("link-set", link.name, link.ifindex, before))
            undo += self._reassert(master.ifindex)
            self.step(Operation("link-set", link.name, link.ifindex, {"master": master.ifindex}), *undo)
            link = link._replace(mac=master.mac, mtu=master.mtu, flags=link.flags | UP)
        else:
            undo += [*self._reassert(master.ifindex), *self._reassert(link.master)]
            back = () if link.ifindex in self.new else undo
            self.step(Operation("link-set", link.name, link.ifindex, {"master": master.ifindex}), *back)
        self._moved(link, master.ifindex)

    def _moved(self, link: Link, master: int) -> Link:
        self.stirred |= {link.master, master}
        if link.master:
            self.ports[link.master].remove(link.ifindex)
        if master:
            self.ports.setdefault(master, []).append(link.ifindex)
        return self._now(link._replace(master=master))

    def delete(self, link: Link) -> None:
        """Delete a bridge, bond or VLAN that has neither ports nor VLANs any more; addresses and routes go with it."""
        self.step(Operation("link-del", link.name, link.ifindex), *self._forget(link))

    def delete_vlans(self, links: list[Link]) -> None:
        """Delete many VLANs that nothing lies on: by a group, so that the kernel waits for its readers once and not for
        each (networking.md 4.2), in slices, because others wait for it meanwhile.
        """
        for start in range(0, len(links), SLICE):
            for link in links[start : start + SLICE]:
                do = Operation("link-set", link.name, link.ifindex, {"group": LEAVING})
                self.step(do, *self._forget(link))
            self.step(Operation("group-del", "", 0, {"group": LEAVING}))

    def _forget(self, link: Link) -> list[Operation]:
        """It is gone; the operations that make it again, also where it is there still."""
        if self.ports.get(link.ifindex) or self.vlans.get(link.ifindex):
            raise BugError(
                f"the plan would delete {link.name} under what lies on it", hint="report this with the plan"
            )
        undo = made_again(
            link,
            self.around.sysctls if self.around is not None else {},
            self._reassert(link.master),
            [address_add(link, address) for address in self.addresses.pop(link.ifindex, ())],
            [route_add(link, route) for route in self.routes.pop(link.ifindex, ())],
        )
        if link.master:
            self.ports[link.master].remove(link.ifindex)
            self.stirred.add(link.master)
        if link.kind == "vlan" and link.lower in self.vlans:
            self.vlans[link.lower].remove(link.ifindex)
        del self.links[link.ifindex]
        del self.index[link.name]
        return undo

    def _reassert(self, index: int) -> list[Operation]:
        """What a master that was there before gets back when its ports change back: it may have followed them."""
        link = self.links.get(index)
        if link is None or index in self.new:
            return []
        values = {name: value for name, value in (("mac", link.mac), ("mtu", link.mtu)) if value}
        return [Operation("link-set", link.name, index, values)] if values else []

    def _now(self, link: Link) -> Link:
        self.links[link.ifindex] = link
        return link

    # --- addresses, routes, and what is not netlink ---

    def subnets(self, of: Collection[int]) -> dict[int, list[tuple[str, int]]]:
        """The subnets that lie at these devices by now."""
        return subnets([each for index in of for each in self.addresses.get(index, ())], self._all_routes, of)

    def address_add(self, link: Link, text: str, prefix: int) -> None:
        """Add, or make permanent. No duplicate-address probe for one that this host holds already elsewhere."""
        mine = self.addresses.setdefault(link.ifindex, [])
        had = next((a for a in mine if (a.text, a.prefix) == (text, prefix)), None)
        args: dict[str, Any] = {"text": text, "prefix": prefix}
        if ":" in text and text in self._held:
            args["flags"] = PERMANENT | NO_PROBE
        do = Operation("address-add", link.name, link.ifindex, args)
        new = Address(link.ifindex, text, prefix)
        if had is None:
            delete: dict[str, Any] = {"text": text, "prefix": prefix}
            self.step(do, Operation("address-del", link.name, link.ifindex, delete))
            mine.append(new)
        else:
            self.step(do, address_add(link, had))
            mine[mine.index(had)] = new

    def address_del(self, link: Link, address: Address) -> None:
        """The kernel may drop the other IPv4 addresses of its subnet too, and the routes with the last: the undo brings
        what is left then.
        """
        family = family_of(address.text)
        self.addresses[link.ifindex].remove(address)
        routes = [r for r in self.routes.get(link.ifindex, ()) if family_of(r.destination) == family]
        args: dict[str, Any] = {"text": address.text, "prefix": address.prefix}
        others = [a for a in self.addresses[link.ifindex] if family_of(a.text) == family == 4]
        undo = [address_add(link, each) for each in (address, *others)]
        undo += [route_add(link, route) for route in routes]
        self.step(Operation("address-del", link.name, link.ifindex, args), *undo)

    def route_add(self, link: Link, destination: str, gateway: str, metric: int) -> None:
        """The kernel replaces a route to the same destination with the same metric, on whichever device."""
        new = Route(link.ifindex, destination, gateway, PROTOCOL, metric_of(destination, metric))
        do = route_add(link, new)
        if (destination, new.metric) in self._routed:
            for index, routes in self.routes.items():
                for old in routes:
                    if (old.destination, metric_of(destination, old.metric)) == (destination, new.metric):
                        self.step(do, route_add(self.links[index], old))
                        routes.remove(old)
                        self.routes.setdefault(link.ifindex, []).append(new)
                        return
        self._routed.add((destination, new.metric))
        self.step(do, do._replace(verb="route-del"))
        self.routes.setdefault(link.ifindex, []).append(new)

    def route_del(self, link: Link, route: Route) -> None:
        add = route_add(link, route)
        self.step(add._replace(verb="route-del"), add)
        self.routes[link.ifindex].remove(route)

    def again_address(self, link: Link, address: Address) -> None:
        """Once more, after an address of its subnet went. The undo makes way for that one, which is primary again."""
        args: dict[str, Any] = {"text": address.text, "prefix": address.prefix}
        undo = Operation("address-del", link.name, link.ifindex, args)
        self.step(address_add(link, address), undo)

    def again_route(self, link: Link, route: Route) -> None:
        self.step(route_add(link, route))

    def sysctl(self, device: Device, index: int) -> None:
        """The IPv6 mode, as far as `around` does not show it to be right (for a new device: its default)."""
        new = index in self.new
        if (self.around is None and not new) or ("sysctl", index) in self.settled:
            return
        self.settled.add(("sysctl", index))
        known = self.around.sysctls if self.around is not None else {}
        host = self.around.ipv6 if self.around is not None else None
        for path, value in ipv6_files(device.name, device.ipv6, host, gateway=device.ipv6_gateway):
            inherited = path.replace(f"/{device.name}/", "/default/")
            before = known.get(inherited if new else path)
            if before != value:
                do = Operation("sysctl", device.name, index, {"path": path, "value": value})
                undo = do._replace(args={"path": path, "value": before})
                self.step(do, *(() if new or before is None else (undo,)))
