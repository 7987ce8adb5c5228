"""This host's network as the daemon and the steps have it: kernel, files, inventory and listeners in one place.

`site` is made of a context of start-up; what it opens of the kernel (`open_host`, `open_follower`, `ask`) is named
here so that a test has one place to put another kernel.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from hostagent.api.xenapi import MANAGEMENT, address_text
from hostagent.net import cache, emergency, nics, taken_back
from hostagent.netctl import generation
from hostagent.netctl.control import Control
from hostagent.netctl.observed import Speed, awaits_address, management_address
from hostagent.netctl.plug import Network, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from hostagent.config import Config
    from hostagent.net.bring import Host
    from hostagent.net.devices import Dns, Kernel
    from hostagent.net.dhcp_lease import Leased
    from hostagent.net.early import Around
    from hostagent.net.nics_types import Nic
    from hostagent.net.operation import Operation
    from hostagent.net.probe import Answer, Probe
    from hostagent.netctl.status import Following, Keeper
    from hostagent.startup.state import HostState

DISABLED = "MANAGEMENT_DISABLED"
"""Of the inventory, ours: an operator wants no management interface; without it, none was chosen yet."""
FORMER = "MANAGEMENT_INTERFACE_FORMER"
"""Of the inventory, ours: the bridge that a move leaves, until the database has the move."""
PROBE_S = 1.5
CHECKED_S = 5.0
"""For the kernel to find that nobody else has an IPv6 address: it takes 1 to 2 s."""
HOLDS = {"begun": "plan-begun", "applied": "plan-applied"}
"""Points of a plan (`net.apply`) and what steps call them: its journal is written; it is done and not yet committed."""


def open_host(config: Config, bridge: str) -> Host:
    """This host for one change; `bridge` is the management interface. Raises NetlinkError, FileError."""
    from hostagent.net import host

    paths = config.paths
    opened = host.open_host(paths.root, state=paths.state, run=paths.run, management=bridge)
    return opened._replace(by="hostagent")


@contextlib.contextmanager
def opened(config: Config, bridge: str) -> Iterator[Host]:
    """As `open_host`; its socket is closed at the end."""
    host = open_host(config, bridge)
    try:
        yield host
    finally:
        close = getattr(host.tools.netlink, "close", None)
        if close is not None:
            close()


def open_follower() -> Following:
    """Raises NetlinkError."""
    from hostagent.net.follow import Follower

    return Follower()


def ask(probe: Probe) -> Answer:
    from hostagent.net import probe as probes

    return probes.ask(probe, timeout_s=PROBE_S)


def holding(opened: Host, hold: Callable[[str], None] | None) -> Host:
    """The host with the hold points of a step in its plans."""
    if hold is None:
        return opened

    def at(point: str) -> None:
        if point in HOLDS:
            hold(HOLDS[point])

    return opened._replace(tools=opened.tools._replace(hold=at))


def look(config: Config) -> Kernel:
    """One look at the kernel. Raises NetlinkError."""
    with opened(config, "") as host:
        return host.tools.netlink.look()


def folder(config: Config) -> Path:
    return config.paths.state / cache.FOLDER


def around(config: Config) -> Around:
    from hostagent.net import early

    return early.around_of(config.paths.root, config.emergency_nics)


# --- NICs ---


def assigned(config: Config, kernel: Kernel) -> nics.Assignment:
    """Which NIC has which position now; nothing is written. Raises FileError, NicListError."""
    from hostagent.net import nics_look

    root = config.paths.root
    rules = root / nics.RULES
    text = rules.read_text(errors="replace") if rules.is_file() else ""
    seen = nics_look.look(root, kernel.links.values())
    return nics.assign(nics.load(folder(config) / nics.FILE), seen, nics.parse_rules(text))


def positions(config: Config) -> Sequence[Nic]:
    """All NICs that have a position, with fresh facts; new ones get theirs, for good.

    Raises FileError, NicListError, NetlinkError, CommandError.
    """
    found = assigned(config, look(config))
    keep_positions(config, found)
    return with_policy(config, found.nics)


def keep_positions(config: Config, found: nics.Assignment) -> None:
    """Raises FileError."""
    if found.changes:
        folder(config).mkdir(mode=0o755, parents=True, exist_ok=True)
        nics.store(folder(config) / nics.FILE, nics.dated(found.nics, int(time.time())))


def with_policy(config: Config, found: Iterable[Nic]) -> Sequence[Nic]:
    """The NICs, and which of them the host boots from. Raises CommandError, NetlinkError."""
    from hostagent.net import nic_policy, root_disk

    root = config.paths.root
    policy = nic_policy.read(root)
    pinned = policy.pinned | root_disk.nics(root, lambda: look(config))
    return nic_policy.marked(found, policy._replace(pinned=pinned))


# --- the inventory and the listener ---


def management(config: Config) -> tuple[str, str]:
    """Bridge and family of the management interface. Raises FileError, InventoryError."""
    from hostagent.xen import inventory

    found = inventory.read(config.paths.inventory)
    return found.management_interface, found.management_address_type.value


def set_management(config: Config, host: HostState, bridge: str, family: str, former: str = "") -> None:
    """Write it; an empty bridge is an operator's wish. `former`: the bridge of before, while the move is not in the
    database. Raises FileError, InvalidValueError."""
    from hostagent.xen import inventory

    changes = {"MANAGEMENT_INTERFACE": bridge, "MANAGEMENT_ADDRESS_TYPE": family}
    there = inventory.read(config.paths.inventory).values
    if not bridge or DISABLED in there:
        changes[DISABLED] = "" if bridge else "true"
    if former or FORMER in there:
        changes[FORMER] = former
    host.inventory = inventory.update(config.paths.inventory, changes)


def serve(config: Config, host: HostState, bridge: str, family: str) -> str:
    """HTTPS on the address of the bridge, and nowhere else; where, in words, empty for nowhere.

    Where it is already, nothing happens. An IPv6 address that the kernel is yet checking is waited for; one that takes
    longer is listened on when its event comes. Raises PortTakenError, AddressError, CertificateError.
    """
    from hostagent.api import certificate, tcp

    if host.hooks is None or config.https_port == 0:
        return ""
    api = host.hooks.api
    address = _address(config, bridge, family) if bridge else ""
    if not address:
        api.leave_management()
        return ""
    where = address_text((address, config.https_port))
    if api.listeners.get(MANAGEMENT) == where:
        return where
    paths = config.paths
    context = certificate.server_context(paths.server_certificate, paths.server_key)
    api.listen_management([tcp.listening_tcp(address, config.https_port, paths.root)], context)
    return where


def _address(config: Config, bridge: str, family: str) -> str:
    until = time.monotonic() + CHECKED_S
    with contextlib.ExitStack() as stack:
        follower: Following | None = None
        if family == "IPv6":  # before the look: what changes behind it is told
            follower = stack.enter_context(contextlib.closing(open_follower()))
        while True:
            kernel = look(config)
            there = emergency.in_place_of(config.paths.run, bridge, kernel)
            address = management_address(kernel, there, family)
            left = until - time.monotonic()
            if address or follower is None or left <= 0 or not awaits_address(kernel, there):
                return address
            follower.wait(left)
            follower.read()


# --- what steps and the daemon share ---


def site(config: Config, host: HostState, hold: Callable[[str], None] | None = None) -> Site:
    """`hold` is called at the points of a plan that a step names (HOLDS)."""
    root = config.paths.root

    def has_bridge(name: str) -> bool:
        return bool(name) and "/" not in name and (root / "sys/class/net" / name / "bridge").is_dir()

    return Site(
        open=lambda bridge: holding(open_host(config, bridge), hold),
        owners=around(config).owners,
        management=lambda: management(config),
        set_management=lambda bridge, family, former: set_management(config, host, bridge, family, former),
        serve=lambda bridge, family: _serve(config, host, bridge, family),
        nics=lambda: positions(config),
        has_bridge=has_bridge,
        ask=lambda probe: ask(probe),
    )


def _serve(config: Config, host: HostState, bridge: str, family: str) -> None:
    serve(config, host, bridge, family)


def control_of(config: Config, host: HostState) -> Control | None:
    """The network with its records; None without a database. In the daemon calls have it from then on."""
    if host.database is None or host.inventory is None:
        return None
    if host.network is None:
        host.network = Control(host.database, host.inventory.installation_uuid, Network(site(config, host)))
    if host.hooks is not None:
        host.hooks.api.core.network = host.network
    return host.network


def speed_of(config: Config) -> Callable[[str], Speed]:
    """Speed and duplex of a NIC's link, from /sys."""
    from hostagent.net import nics_look

    def speed(name: str) -> Speed:
        found = nics_look.hardware(config.paths.root, name)
        return Speed(found.speed, found.duplex)

    return speed


def keeper(config: Config, host: HostState, control: Control) -> Keeper:
    """The thread that keeps the records as the kernel has it, not yet started."""
    from hostagent.net import dhcp, dhcp_lease, resolv_conf, resolver
    from hostagent.netctl.status import Eyes, Keeper

    root, state = config.paths.root, config.paths.state

    def keep_lease(bridge: str, lease: Leased) -> None:
        dhcp_lease.keep_last(bridge, lease, state)

    def resolve(dns: Dns, bridge: str) -> None:
        resolver.put(resolv_conf.render(dns, resolver.current(root, bridge)), bridge, root)
        if dns.servers and resolver.look(root).owner == resolver.RESOLVED:
            resolver.take_off(root, bridge, look(config), management(config)[0])

    def carry_out(operations: Sequence[Operation]) -> None:
        with Network(site(config, host)).opened() as opened:
            opened.tools.netlink.execute(operations)

    return Keeper(
        control,
        Eyes(
            follow=open_follower,
            look=lambda: look(config),
            speed=speed_of(config),
            leased=dhcp.lease,
            keep_lease=keep_lease,
            resolve=resolve,
            serve=lambda bridge, family: _serve(config, host, bridge, family),
            carry_out=carry_out,
            keep=lambda records: generation.keep(folder(config), records),
            repair=config.repair_drift,
            left=lambda records, kernel: emergency.left(config.paths.run, records, kernel),
            taken_back=lambda: taken_back.noted(config.paths.run),
        ),
    )
