"""A kernel for tests of network plans: links, addresses and routes with the rules that a plan must respect.

The rules are those of networking.md 4.2 and of the kernel's own documents: what is refused (and with which errno), and
what the kernel does by itself. Unlike the kernel, it is exact about nothing else.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hostagent.errors import KernelError
from hostagent.net.devices import Address, Kernel, Lease, Link, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hostagent.net.operation import Operation

CHUNK = 200
BOND_MODE, LACP = "mode", 4
DOWN_ONLY = {"mode", "ad_lacp_rate", "ad_user_port_key"}
ZERO_MAC = "00:00:00:00:00:00"


class RefusedError(KernelError):
    """As the real one: the first operation that failed, and all of the chunk that happened."""

    def __init__(self, position: int, number: int, executed: tuple[int, ...], text: str) -> None:
        super().__init__(f"operation {position}: {os.strerror(number)}: {text}", hint="")
        self.position = position
        self.errno = number
        self.executed = executed


class _No(Exception):
    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(text)
        self.number = number


def refuse(condition: object, number: int, text: str = "") -> None:
    if condition:
        raise _No(number, text)


class FakeKernel:
    """`look()`, `execute()` and the switch `promote` (net.ipv4.conf.all.promote_secondaries)."""

    def __init__(self, kernel: Kernel | None = None, *, promote: bool = False) -> None:
        self.links: dict[int, SimpleNamespace] = {}
        self.addresses: list[Address] = []
        self.routes: list[Route] = []
        self.promote = promote
        self.done = 0
        self.log: list[Operation] = []
        if kernel is not None:
            for link in kernel.links.values():
                up = bool(link.flags & 1)
                self.links[link.ifindex] = SimpleNamespace(
                    **{**link._asdict(), "settings": dict(link.settings), "altnames": list(link.altnames)},
                    up=up,
                    mac_set=True,
                    mtu_set=False,
                    original=(link.permanent_mac or link.mac, link.mtu),
                )
            self.addresses = list(kernel.addresses)
            self.routes = list(kernel.routes)

    def look(self) -> Kernel:
        links = {}
        for index, it in sorted(self.links.items()):
            values: dict[str, Any] = {
                name: getattr(it, name, Link._field_defaults.get(name)) for name in Link._fields
            }
            settings = dict(it.settings)
            if "primary" in settings and self.links[settings["primary"]].master != index:
                del settings["primary"]  # it is told of when it is a member
            values.update(flags=int(it.up), settings=settings, altnames=tuple(sorted(it.altnames)))
            links[index] = Link(**values)
        return Kernel(
            links, tuple(sorted(self.addresses)), tuple(sorted(r for r in self.routes if r.protocol != 2))
        )

    def nic(self, name: str, index: int, *, up: bool = False, mtu: int = 1500, max_mtu: int = 9216) -> None:
        mac = f"52:54:00:00:00:{index:02x}"
        self.links[index] = SimpleNamespace(
            ifindex=index, name=name, kind="", mac=mac, mtu=mtu, master=0, lower=0, up=up, group=0, carrier=True,
            operstate=6, permanent_mac=mac, parent=f"0000:00:{index:02x}.0", altnames=[], min_mtu=68,
            max_mtu=max_mtu, vlan_id=-1, vlan_protocol=0, settings={}, port={}, partner="", flags=0,
            mac_set=True, mtu_set=False, original=(mac, mtu),
        )  # fmt: skip

    # --- what is executed ---

    def execute(self, operations: Iterable[Operation]) -> None:
        operations = list(operations)
        executed: list[int] = []
        for start in range(0, len(operations), CHUNK):
            failed = None
            for position, operation in enumerate(operations[start : start + CHUNK], start):
                try:
                    self.one(operation)
                except _No as no:
                    failed = failed or (position, no.number, f"{operation} {no}")
                else:
                    executed.append(position)
            if failed is not None:
                raise RefusedError(failed[0], failed[1], tuple(executed), failed[2])

    def one(self, operation: Operation) -> None:
        verb = operation.verb
        args: Any = operation.args
        self.log.append(operation)
        if verb == "link-add":
            self._link_add(operation.device, operation.ifindex, args)
            return
        if verb == "group-del":
            going = [each for each in self.links.values() if each.group == args["group"]]
            refuse(not going or not args["group"], errno.ENODEV)
            for each in going:
                self._link_del(each)
            return
        it = self.links.get(operation.ifindex)
        if it is None:
            raise _No(errno.ENODEV)
        if verb == "link-set":
            self._link_set(it, args)
        elif verb == "link-del":
            refuse(it.kind not in ("bridge", "bond", "vlan", "veth", "tun"), errno.EOPNOTSUPP)
            self._link_del(it)
        elif verb == "address-add":
            self._address_add(it, args)
        elif verb == "address-del":
            self._address_del(it.ifindex, args["text"], args["prefix"])
        elif verb == "route-add":
            self._route_add(it, args)
        elif verb == "route-del":
            key = (it.ifindex, args["destination"], args["gateway"], args["metric"], args["protocol"])
            have = [
                r for r in self.routes if (r.device, r.destination, r.gateway, r.metric, r.protocol) == key
            ]
            refuse(not have, errno.ESRCH)
            self.routes.remove(have[0])
        else:
            raise AssertionError(f"not for the kernel: {operation}")

    # --- links ---

    def _by_name(self, name: str) -> SimpleNamespace | None:
        return next((it for it in self.links.values() if it.name == name or name in it.altnames), None)

    def _ports(self, index: int) -> list[SimpleNamespace]:
        return [it for it in self.links.values() if it.master == index]

    def _vlans(self, index: int) -> list[SimpleNamespace]:
        return [it for it in self.links.values() if it.kind == "vlan" and it.lower == index]

    def _link_add(self, name: str, index: int, args: Mapping[str, Any]) -> None:
        refuse(len(name) > 15, errno.ERANGE)
        refuse(index in self.links or self._by_name(name), errno.EEXIST)
        kind, lower = args["kind"], args.get("lower", 0)
        settings = dict(args.get("settings") or {})
        mac, mtu = args.get("mac"), args.get("mtu", 1500)
        if kind == "vlan":
            refuse(lower not in self.links, errno.ENODEV)
            refuse(any(v.vlan_id == args["vlan_id"] for v in self._vlans(lower)), errno.EEXIST)
            mtu = args.get("mtu", self.links[lower].mtu)
            refuse(mtu > self.links[lower].mtu, errno.ERANGE, "mtu above lower")
        if kind == "bond":
            self._bond_settings_fit(settings.get("mode", 0), settings)
            settings = {"mode": 0, "miimon": 0, "updelay": 0, "downdelay": 0, **settings}
        auto = self.links[lower].mac if kind == "vlan" else f"02:00:00:00:00:{index % 256:02x}"
        it = SimpleNamespace(
            ifindex=index, name=name, kind=kind, mac=mac or auto, mtu=mtu, master=0, lower=lower, up=False,
            group=args.get("group", 0), carrier=True, operstate=6, permanent_mac="", parent="", altnames=[],
            min_mtu=68, max_mtu=65535, vlan_id=args.get("vlan_id", -1), vlan_protocol=0, settings=settings,
            port={}, partner="", flags=0, mac_set=mac is not None, mtu_set=False, original=(mac, mtu),
        )  # fmt: skip
        self.links[index] = it
        try:
            if args.get("master"):
                self._enslave(it, args["master"])
            if args.get("up"):
                self._up(it)
        except _No:
            self.links.pop(index)
            raise

    def _bond_settings_fit(self, mode: int, settings: Mapping[str, Any]) -> None:
        lacp = any(name.startswith("ad_") for name in settings)
        refuse(lacp and mode != LACP, errno.EACCES, "option of 802.3ad only")
        refuse(settings.get("primary") and mode not in (1, 5, 6), errno.EACCES, "no primary in this mode")

    def _link_set(self, it: SimpleNamespace, args: Mapping[str, Any]) -> None:
        known = {"up", "mac", "mtu", "master", "group", "settings", "altname", "altname_gone"}
        assert set(args) <= known, args
        if "settings" in args:
            self._settings(it, args["settings"])
        if "mac" in args:
            self._set_mac(it, args["mac"])
        if "mtu" in args:
            self._set_mtu(it, args["mtu"])
        if "group" in args:
            it.group = args["group"]
        if "master" in args and args["master"] != it.master:
            if it.master:
                self._release(it)
            if args["master"]:
                self._enslave(it, args["master"])
        if "up" in args:
            (self._up if args["up"] else self._down)(it)
        if "altname" in args:
            refuse(self._by_name(args["altname"]), errno.EEXIST)
            it.altnames.append(args["altname"])
        if "altname_gone" in args:
            refuse(args["altname_gone"] not in it.altnames, errno.ENOENT)
            it.altnames.remove(args["altname_gone"])

    def _settings(self, it: SimpleNamespace, settings: Mapping[str, Any]) -> None:
        if it.kind == "bond":
            mode = settings.get("mode", it.settings["mode"])
            changed = {name for name, value in settings.items() if it.settings.get(name) != value}
            refuse(changed & DOWN_ONLY and it.up, errno.EBUSY, "bond is up")
            refuse("mode" in changed and self._ports(it.ifindex), errno.ENOTEMPTY, "bond has members")
            self._bond_settings_fit(mode, settings)
            miimon = settings.get("miimon", it.settings["miimon"])
            refuse(not miimon and (settings.get("updelay") or settings.get("downdelay")), errno.EPERM)
            counted = it.settings["miimon"]
            for delay in ("updelay", "downdelay"):
                it.settings[delay] = it.settings.get(delay, 0) // counted * miimon if counted else 0
            if "mode" in changed:
                for name in [name for name in it.settings if name.startswith("ad_") and mode != LACP]:
                    del it.settings[name]
                if mode == LACP:
                    it.settings.update({"ad_lacp_rate": 0, "ad_user_port_key": 0})
        it.settings.update(settings)
        if not it.settings.get("primary", 1):
            del it.settings["primary"]

    def _set_mac(self, it: SimpleNamespace, mac: str) -> None:
        if it.kind == "" and it.up and mac != it.mac:
            refuse(not it.master, errno.EBUSY, "NIC is up")
        it.mac_set = True
        if mac == it.mac:
            return
        it.mac = mac
        for vlan in self._vlans(it.ifindex):
            if not vlan.mac_set:
                vlan.mac = mac
        if it.kind == "bond":
            for port in self._ports(it.ifindex):
                port.mac = mac
        self._adjust(it.master)

    def _set_mtu(self, it: SimpleNamespace, mtu: int) -> None:
        if mtu == it.mtu:
            return
        refuse(it.kind == "vlan" and mtu > self.links[it.lower].mtu, errno.ERANGE, "mtu above lower")
        refuse(mtu > it.max_mtu or mtu < it.min_mtu, errno.EINVAL, "mtu out of range")
        if it.kind == "bond":
            for port in self._ports(it.ifindex):
                self._set_mtu(port, mtu)
        it.mtu = mtu
        it.mtu_set = True
        for vlan in self._vlans(it.ifindex):
            if vlan.mtu > mtu:
                self._set_mtu(vlan, mtu)
        self._adjust(it.master)

    def _adjust(self, index: int) -> None:
        """A bridge follows its ports in what was not set by hand."""
        it = self.links.get(index)
        if it is None or it.kind != "bridge":
            return
        ports = self._ports(index)
        if not it.mtu_set:
            mtu = min((port.mtu for port in ports), default=1500)
            if mtu != it.mtu:
                it.mtu = mtu
        if not it.mac_set:
            it.mac = min((port.mac for port in ports), default=ZERO_MAC)

    def _enslave(self, it: SimpleNamespace, index: int) -> None:
        master = self.links.get(index)
        if master is None:
            raise _No(errno.EINVAL)
        if master.kind == "bridge":
            refuse(it.kind == "bridge", errno.ELOOP)
            it.master = index
            self._adjust(index)
            return
        refuse(master.kind != "bond", errno.EOPNOTSUPP)
        refuse(it.up, errno.EPERM, "up while enslaved")
        refuse(it.kind == "bond", errno.EINVAL)
        it.original = (it.mac, it.mtu)
        if not self._ports(index) and not master.mac_set:
            master.mac = it.mac
        self._set_mtu(it, master.mtu)
        it.mac = master.mac
        it.master = index
        self._up(it)

    def _release(self, it: SimpleNamespace) -> None:
        master = self.links[it.master]
        it.master = 0
        if master.kind == "bridge":
            self._adjust(master.ifindex)
            return
        self._down(it)
        it.mac = it.original[0]
        self._set_mtu(it, it.original[1])
        if not self._ports(master.ifindex):
            self._set_mac(master, f"02:ff:00:00:00:{master.ifindex % 256:02x}")
            master.mac_set = False

    def _up(self, it: SimpleNamespace) -> None:
        if it.up:
            return
        refuse(it.kind == "vlan" and not self.links[it.lower].up, errno.ENETDOWN)
        it.up = True
        for vlan in self._vlans(it.ifindex):
            self._up(vlan)

    def _down(self, it: SimpleNamespace) -> None:
        if not it.up:
            return
        it.up = False
        self.routes = [route for route in self.routes if route.device != it.ifindex]
        self.addresses = [a for a in self.addresses if a.device != it.ifindex or ":" not in a.text]
        for vlan in self._vlans(it.ifindex):
            self._down(vlan)

    def _link_del(self, it: SimpleNamespace) -> None:
        for vlan in self._vlans(it.ifindex):
            self._link_del(vlan)
        for port in self._ports(it.ifindex):
            self._release(port)
        self._down(it)
        if it.master:
            self._release(it)
        del self.links[it.ifindex]
        self.addresses = [address for address in self.addresses if address.device != it.ifindex]

    # --- addresses and routes ---

    def _address_add(self, it: SimpleNamespace, args: Mapping[str, Any]) -> None:
        same = [
            a
            for a in self.addresses
            if (a.device, a.text, a.prefix) == (it.ifindex, args["text"], args["prefix"])
        ]
        flags = args.get("flags", 0x80)
        if ":" in args["text"]:
            same = [a for a in self.addresses if (a.device, a.text) == (it.ifindex, args["text"])]
            args = {**args, "prefix": same[0].prefix} if same else args
        elif same:
            flags |= same[0].flags & 0x200
        valid = args.get("valid_s", 0xFFFFFFFF)
        new = Address(it.ifindex, args["text"], args["prefix"], flags & ~2, 0, valid)
        if same:
            self.addresses[self.addresses.index(same[0])] = new
        else:
            self.addresses.append(new)

    def _subnet(self, address: Address) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        return ipaddress.ip_network(f"{address.text}/{address.prefix}", strict=False)

    def _address_del(self, index: int, text: str, prefix: int) -> None:
        have = [a for a in self.addresses if (a.device, a.text, a.prefix) == (index, text, prefix)]
        refuse(not have, errno.EADDRNOTAVAIL)
        address = have[0]
        on = [a for a in self.addresses if a.device == index and ":" not in a.text]
        siblings = [a for a in on if self._subnet(a) == self._subnet(address)]
        self.addresses.remove(address)
        if ":" in text:
            return
        if not self.promote and siblings[0] == address:
            for sibling in siblings[1:]:
                self.addresses.remove(sibling)
        if not [a for a in self.addresses if a.device == index and ":" not in a.text]:
            self.routes = [r for r in self.routes if r.device != index or is6(r.destination)]

    def _route_add(self, it: SimpleNamespace, args: Mapping[str, Any]) -> None:
        destination, gateway = args["destination"], args["gateway"]
        refuse(not it.up, errno.ENETDOWN)
        if gateway:
            near = [
                a for a in self.addresses if a.device == it.ifindex and (":" in a.text) == (":" in gateway)
            ]
            reachable = any(ipaddress.ip_address(gateway) in self._subnet(a) for a in near)
            refuse(not reachable and not gateway.startswith("fe80"), errno.ENETUNREACH)
        elif not is6(destination):
            on = [a for a in self.addresses if a.device == it.ifindex and ":" not in a.text]
            refuse(not on, errno.EINVAL)
        metric = args.get("metric", 0) or (1024 if is6(destination) else 0)
        for route in self.routes:
            if (route.destination, route.metric) == (destination, metric):
                self.routes.remove(route)
                break
        self.routes.append(Route(it.ifindex, destination, gateway, args["protocol"], metric))


def is6(destination: str) -> bool:
    return ":" in destination or destination == "default6"


def a_lease(device: str, family: int = 4) -> Lease:
    return Lease(device, family, gateway=True, dns=True)
