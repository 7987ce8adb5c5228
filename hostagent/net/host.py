"""This host as `bring` needs it: the kernel over netlink, and the tools for what netlink does not do.

Each tool is imported when the first plan needs it. What must not cost the host its network (an offload that a driver
does not know, a resolv.conf that belongs to another program) does not fail a change: it is told, and counts as done.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostagent.errors import HostagentError
from hostagent.files import read_bounded
from hostagent.hold import hold
from hostagent.net import apply, bring, cache, inet, journal
from hostagent.net.management import Wire
from hostagent.net.netlink import Netlink
from hostagent.net.operation import Operation
from hostagent.net.resolv_conf import render
from hostagent.net.verify import FOREVER, Around

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hostagent.net import dhcp
    from hostagent.net.devices import Kernel, Lease, Link, Wanted
    from hostagent.net.probe import Answer, Probe
    from hostagent.net.records import Network

HOLD = "net"  # before the points of `apply.Tools.hold`, in the file of the fault tests
CLIENT_LIMIT_BYTES = 64 << 10
TREE = Path(__file__).resolve().parents[2]
POOL = "etc/hostagent/pool.conf"
FILTERED = "net/bridge"
FILTERS = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")
ANNOUNCE_S = 0.4
"""Between two announcements of an address; whoever waits for the command waits for all three."""
LEASED6_PREFIX = 128  # of an address from a DHCPv6 server; those that advertisements bring have 64
UNLIKE = "?"
"""In the place of a host name, which it cannot be: makes a lease differ from every wanted one."""
UNDO = (
    "import sys; sys.path.insert(0, {tree!r}); from hostagent.__main__ import main;"
    " sys.exit(main(['net', 'undo', '--state', {state!r}, '--run', {run!r}]))"
)
"""What the timer runs: it depends on nothing but this tree."""


def open_host(root: Path, *, state: Path, run: Path, management: str = "") -> bring.Host:
    """The host below `root`; `management`: whose DHCP client keeps its last lease. Raises NetlinkError, FileError."""
    tools = _Tools(root, run, management, state)
    boot = read_bounded(root / journal.BOOT_ID, limit_bytes=128).decode("ascii", "replace").strip()
    return bring.Host(
        folder=state / cache.FOLDER,
        tools=apply.Tools(
            netlink=Netlink(),
            sysctl=tools.sysctl,
            ethtool=tools.ethtool,
            lease_start=tools.lease_start,
            lease_stop=tools.lease_stop,
            lease_leave=tools.lease_leave,
            resolver=tools.resolver,
            file=tools.file,
            foreign=tools.foreign,
            hold=lambda point: hold(run, f"{HOLD}:{point}"),
        ),
        boot=boot,
        around=tools.around,
        arm=lambda seconds: _arm(seconds, state, run),
        disarm=_disarm,
        waiting=_waiting,
        stand_down=_stand_down,
        soft=tools.soft,
        wire=_wire(root),
        remarks=lambda: filtered(root),
        run=run,
        hand_out=lambda bridge, network: _hand_out(bridge, network, run, state / cache.FOLDER),
    )


def _hand_out(bridge: str, network: Network | None, run: Path, folder: Path) -> None:
    from hostagent.net import leases_server

    leases_server.put(bridge, network, run, folder)


def _wire(root: Path) -> Wire:
    def ask(question: Probe, seconds: float) -> Answer:
        from hostagent.net import probe

        return probe.ask(question, timeout_s=seconds)

    def holder(device: str, address: str, seconds: float) -> str:
        from hostagent.net import probe

        return probe.holder(device, address, timeout_s=seconds)

    def announce(device: str, addresses: Sequence[str]) -> int:
        from hostagent.net import probe

        return probe.announce(device, addresses, spacing_s=ANNOUNCE_S)

    def talking() -> tuple[tuple[str, str], ...]:
        from hostagent.net import connections

        return connections.talking(root)

    def path(target: str, most: int, source: str) -> int:
        from hostagent.net import path_mtu

        return path_mtu.carries(target, most, source)

    return Wire(ask, holder, announce, talking, lambda: coordinator(root), path)


def coordinator(root: Path) -> str:
    """The address in `pool.conf` where this host is a member of another's pool, else nothing."""
    try:
        role, _, address = (root / POOL).read_text(errors="replace").strip().partition(":")
    except OSError:
        return ""
    return address if role == "slave" and inet.address(address) else ""


def filtered(root: Path) -> list[str]:
    """Row 49: frames between guests pass the packet filters of dom0; the settings that say so, in words."""
    from hostagent.net import sysctl

    found = []
    for name in FILTERS:
        with contextlib.suppress(sysctl.SysctlError):
            if sysctl.read(root, f"{FILTERED}/{name}") == "1":
                told = f"guests' frames pass dom0's packet filter: net.bridge.{name} is 1"
                found.append(f"{told} (hint: sysctl -w net.bridge.{name}=0)")
    return found


def _arm(seconds: float, state: Path, run: Path) -> None:
    from hostagent.net import guard

    code = UNDO.format(tree=str(TREE), state=str(state), run=str(run))
    guard.arm((sys.executable, "-c", code), max(1, round(seconds)))


def _disarm() -> None:
    from hostagent.net import guard

    guard.confirm()


def _waiting() -> bool:
    from hostagent.net import guard

    now = guard.state()
    return now.armed or now.undoing


def _stand_down() -> None:
    from hostagent.net import guard

    guard.stand_down()


class _Tools:
    """Everything but netlink. Knows of the leases that run what it was last asked to look at."""

    def __init__(self, root: Path, run: Path, management: str, state: Path) -> None:
        self._root = root
        self._state = state
        self._run = run
        self._management = management
        self._leases: dict[tuple[str, int], Lease] = {}
        self._forgiven: set[str] = set()
        self._heir = ""
        """The bridge that is to have the management interface's lease."""
        self._ethtool: Any = None
        self.soft: list[str] = []

    def sysctl(self, path: str, value: str) -> None:
        from hostagent.net import sysctl

        sysctl.write(self._root, path, value)

    def ethtool(self, device: str, args: Mapping[str, Any]) -> None:
        from hostagent.net.ethtool import EthtoolError

        try:
            if args.get("features"):
                self._open_ethtool().set_features(device, args["features"])
            if args.get("link"):
                self._open_ethtool().set_link(device, args["link"])
        except EthtoolError as error:
            self._forgive(f"ethtool {device}", f"{error.found} (hint: {error.hint})")

    def lease_start(self, lease: Lease) -> None:
        lease = lease._replace(hostname="" if lease.hostname == UNLIKE else lease.hostname)
        self._leases[lease.device, lease.family] = lease
        self._ensure(lease.device)

    def lease_stop(self, lease: Lease) -> None:
        self._leases.pop((lease.device, lease.family), None)
        if self._heir and lease.device in (self._management, self._heir) and lease.family == 4:
            if lease.device == self._management:
                self._bequeath(lease)
            self.lease_leave(lease)
            return
        self._ensure(lease.device)

    def lease_leave(self, lease: Lease) -> None:
        """The client ends, and its server is told nothing."""
        self._leases.pop((lease.device, lease.family), None)
        if any(device == lease.device for device, _ in self._leases):
            self._ensure(lease.device)
            return
        from hostagent.net import dhcp

        dhcp.stop(lease.device, self._run, release=False)
        self._without_leased(lease.device)

    def _bequeath(self, lease: Lease) -> None:
        """How the client of the management interface names itself, and its address, to the bridge that follows it."""
        from hostagent.net import client_ids, dhcp

        clients = self._named(dhcp.of_leases([lease]))
        found = dhcp.lease(lease.device, lease.family)
        address = found.addresses[0].partition("/")[0] if found is not None and found.addresses else ""
        client_ids.carry(clients[lease.device], self._heir, address, self._state)

    def _without_leased(self, device: str) -> None:
        """Addresses with an end, which a client has left, go; those of advertisements stay."""
        with Netlink() as netlink:
            kernel = netlink.look()
            link = kernel.by_name().get(device)
            netlink.execute(
                [
                    Operation("address-del", device, one.device, {"text": one.text, "prefix": one.prefix})
                    for one in kernel.addresses
                    if link is not None and one.device == link.ifindex
                    if (":" not in one.text or one.prefix == LEASED6_PREFIX) and one.valid_s != FOREVER
                ]
            )

    def resolver(self, text: str, bridge: str) -> None:
        from hostagent.net import resolver

        try:
            resolver.put(text, bridge or self._management, self._root)
        except resolver.ResolverError as error:
            self._forgive("resolver", f"{error.found} (hint: {error.hint})")

    def file(self, path: str, content: str | None) -> None:
        from hostagent.net import foreign_daemons

        foreign_daemons.put_file(Path(path), content)

    def foreign(self, daemon: str, what: str, device: str) -> None:
        from hostagent.net import foreign_daemons

        def addresses() -> Mapping[str, str]:
            with Netlink() as netlink:
                kernel = netlink.look()
            return {
                one.text: kernel.links[one.device].name
                for one in kernel.addresses
                if one.device in kernel.links
            }

        foreign_daemons.tell(daemon, what, device, self._root, addresses)

    def around(self, wanted: Wanted, kernel: Kernel) -> Around:
        """What a look at the kernel does not hold, of the devices that are wanted and there."""
        from hostagent.net import sysctl

        if wanted.leases:
            from hostagent.net import client_ids

            self._heir = client_ids.moved(wanted.leases, self._management)
        links = kernel.by_name()
        there = [device for device in wanted.devices if device.name in links]
        found = Around(
            sysctls=self._ipv6(links, [device.name for device in there]),
            leases=self._running(wanted),
            ipv6=sysctl.ipv6_of_host(self._root),
        )
        featured = [device for device in there if device.features]
        if featured:
            known = self._open_ethtool().features(featured[0].name if len(featured) == 1 else "")
            features = {device.name: known.get(device.name, {}) for device in featured}
            for device in featured:
                # what the driver does not know is told when it is set, and is not a difference then
                if f"ethtool {device.name}" in self._forgiven:
                    features[device.name] = dict(device.features)
            found = found._replace(features=features)
        linked = [device for device in there if device.link]
        if linked:
            from hostagent.net import ethtool

            for device in linked:
                modes = self._modes(device.name)
                if modes is None:  # cannot be told: counts as wanted
                    found = found._replace(link={**found.link, device.name: dict(device.link)})
                    continue
                of = self._open_ethtool().modes
                found = found._replace(
                    link={**found.link, device.name: ethtool.seen(modes, device.link, of)},
                    link_back={**found.link_back, device.name: ethtool.restoring(modes, of)},
                )
        if wanted.dns is not None:
            found = found._replace(resolver=self._resolver(wanted))
        if wanted.gone or wanted.dns_bridge or wanted.leases:
            from hostagent.net import resolver

            left = resolver.left(self._root, wanted, kernel, found.leases, self._management)
            found = found._replace(resolver_left=left)
        return found

    def _ipv6(self, links: Mapping[str, Link], names: list[str]) -> dict[str, str]:
        """The IPv6 settings of these devices: what a look does not tell, and `default`, is read from files."""
        from hostagent.net import sysctl

        wanted = {name for name, _ in sysctl.MODES["autoconf"]}
        told = {name: links[name].ipv6 for name in names if wanted <= links[name].ipv6.keys()}
        found = sysctl.read_ipv6(self._root, [name for name in names if name not in told])
        for device, settings in told.items():
            for name in wanted:
                found[f"{sysctl.CONF}/{device}/{name}"] = str(settings[name])
        return found

    def _modes(self, device: str) -> Any:
        """How a device's link is made; None where the driver does not say, or did not take what it was told."""
        return None if f"ethtool {device}" in self._forgiven else self._open_ethtool().link_modes(device)

    def _resolver(self, wanted: Wanted) -> str:
        from hostagent.net import resolver

        text = render(wanted.dns) if wanted.dns is not None else ""
        if "resolver" in self._forgiven or not (wanted.dns and wanted.dns.servers):
            return text  # a good file is never emptied
        return resolver.current(self._root, wanted.dns_bridge or self._management)

    def _running(self, wanted: Wanted) -> tuple[Lease, ...]:
        """The leases that clients of ours are after, of the devices concerned."""
        devices = {lease.device for lease in wanted.leases} | {device.name for device in wanted.devices}
        devices.update(wanted.gone)
        folder = self._run / "dhcp"
        files = {file.stem for file in folder.glob("*.conf")} if folder.is_dir() else set()
        if files & devices:
            self._note(files & devices, wanted)
        return tuple(lease for (device, _), lease in self._leases.items() if device in devices)

    def _note(self, devices: set[str], wanted: Wanted) -> None:
        from hostagent.net import dhcp

        clients = self._named(dhcp.of_leases(wanted.leases))
        for device in devices:
            if not dhcp.active(device):
                continue
            text = read_bounded(dhcp.file_of(device, self._run), limit_bytes=CLIENT_LIMIT_BYTES).decode()
            client = clients.get(device)
            if client is not None:
                client = client._replace(keep_last=bool(self._keeps(device)))
            same = client is not None and dhcp.does(client, text)
            for family in (4, 6):
                self._leases.pop((device, family), None)
            if same:
                self._leases |= {
                    (one.device, one.family): one for one in wanted.leases if one.device == device
                }
            else:  # it does something else: named by its families, and differing from every wanted one
                self._leases |= _other(device, text)

    def _ensure(self, device: str) -> None:
        from hostagent.net import client_ids, dhcp

        leases = [lease for (name, _), lease in self._leases.items() if name == device]
        if leases:
            clients = self._named(dhcp.of_leases(leases, management=self._keeps(device)))
            client = clients[device]
            client = client._replace(hostname=client.hostname or client_ids.host_name(self._root))
            dhcp.ensure(client, self._run, put_last=lambda: self._put_last(device))
        else:
            dhcp.stop(device, self._run)

    def _put_last(self, device: str) -> None:
        from hostagent.net import last_lease

        try:
            last_lease.put(device, self._state)
        except HostagentError as error:  # a server may answer all the same
            self._forgive("last lease", f"{error.found} (hint: {error.hint})")

    def _keeps(self, device: str) -> str:
        """The device where its client keeps the last lease while no server answers: of the management interface, and of
        the bridge that is becoming it."""
        return device if device in (self._management, self._heir) else ""

    def _named(self, clients: dict[str, dhcp.Client]) -> dict[str, dhcp.Client]:
        """With the names by which the DHCP server knows cards that were taken over."""
        from hostagent.net import client_ids

        return {bridge: client_ids.named(client, self._state) for bridge, client in clients.items()}

    def _open_ethtool(self) -> Any:
        if self._ethtool is None:
            from hostagent.net.ethtool import Ethtool

            self._ethtool = Ethtool()
        return self._ethtool

    def _forgive(self, what: str, told: str) -> None:
        self._forgiven.add(what)
        if told not in self.soft:
            self.soft.append(told)


def _other(device: str, text: str) -> dict[tuple[str, int], Lease]:
    """What a client is after by the look of its configuration, as leases that are no wanted ones."""
    from hostagent.net.devices import Lease

    lines = text.splitlines()
    families = [family for family, word in ((4, "noipv4"), (6, "noipv6")) if word not in lines]
    gateway, dns = "nogateway" not in lines, "domain_name_servers" in text or "dhcp6_name_servers" in text
    return {(device, family): Lease(device, family, gateway, dns, UNLIKE) for family in families}
