"""Addresses for guests on the host's internal network: one dnsmasq on its bridge, a transient systemd unit of its own.

As the DHCP client (`dhcp.py`) it is not our child and outlives the daemon. It answers on that bridge alone, gives
neither a router nor name servers, and ends with the bridge: its sockets are bound to the index that the bridge has now.
What it is to do stands in RUN/served/BRIDGE.conf; a server that already does that is left alone.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from hostagent.errors import OperatorError
from hostagent.files import write_atomic
from hostagent.named import NamedTuple
from hostagent.net import inet, keys
from hostagent.net.dhcp import COMMAND_TIMEOUT_S, STOP_TIMEOUT_S, runs
from hostagent.net.dhcp_lease import content
from hostagent.run import CommandError, run

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.net.records import Network

PACKAGE = "dnsmasq-base"
LEASE = "12h"
FOLDER = "served"
SETTLE = ("udevadm", "settle", "--timeout=5")
NAME = re.compile(r"[A-Za-z0-9_.]+", re.ASCII)
"""Bridges whose name means itself in dnsmasq's file, and in the name of a unit and of a device unit."""


class LeasesError(OperatorError):
    """The server could not be started: guests on that network get no addresses."""


class Served(NamedTuple):
    """What is handed out on one bridge: the IPv4 addresses from `first` to `last`."""

    bridge: str
    first: str
    last: str
    netmask: str


def served(network: Network) -> Served | None:
    """What a network's guests are to be given; None where it is not the host-internal one, or has no room for any."""
    read = keys.of_network(network.other_config)
    own = inet.number(read.first)
    if not (network.managed and read.host_internal) or own >= inet.number(read.last):
        return None
    return Served(network.bridge, inet.of_number(own + 1), read.last, read.netmask)


def unit(bridge: str) -> str:
    return f"hostagent-leases-{bridge}.service"


def configuration(wanted: Served, index: int, leases: Path) -> str:
    """The content of its file (dnsmasq(8)). `index`: of the bridge in the kernel."""
    lines = [
        f"# for {wanted.bridge}, device {index}; written by hostagent, which replaces it",
        "port=0",  # no DNS
        f"interface={wanted.bridge}",
        "except-interface=lo",
        "bind-dynamic",
        "user=dnsmasq",
        "pid-file=",
        "no-hosts",
        "no-resolv",
        "dhcp-authoritative",
        f"dhcp-range={wanted.first},{wanted.last},{wanted.netmask},{LEASE}",
        "dhcp-option=option:router",  # with nothing behind it: not sent
        "dhcp-option=option:dns-server",
        f"dhcp-leasefile={leases}",
    ]
    return "\n".join(lines) + "\n"


def program(file: Path) -> list[str]:
    """dnsmasq as it is run; its words go to the journal. It reads no other file."""
    return ["dnsmasq", "--keep-in-foreground", "--log-facility=-", f"--conf-file={file}"]


def start_argv(bridge: str, file: Path, leases: Path) -> list[str]:
    """The command that starts the server in a unit of its own, which may write nothing but its leases."""
    device = f"sys-subsystem-net-devices-{bridge}.device"
    properties = [
        f"BindsTo={device}",
        f"After={device}",
        "Restart=always",
        "RestartSec=2",
        "StartLimitIntervalSec=0",
        "TimeoutStopSec=10",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        f"ReadWritePaths={leases.parent}",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETGID CAP_SETUID",
    ]
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={unit(bridge)}",
        f"--description=DHCP server of {bridge} (hostagent)",
        "--service-type=exec",
        *(f"--property={text}" for text in properties),
        "--",
        *program(file),
    ]


def file_of(bridge: str, run_dir: Path) -> Path:
    return run_dir / FOLDER / f"{bridge}.conf"


def ensure(wanted: Served, index: int, run_dir: Path, folder: Path) -> str:
    """Have a server that does this: "unchanged", "started" or "restarted". `folder`: STATE/net; the leases lie below.

    Raises LeasesError (no program installed, systemd refuses), FileError.
    """
    bridge = wanted.bridge
    if not NAME.fullmatch(bridge):
        raise LeasesError(
            f"no addresses are handed out on {bridge!r}: its name has more than letters, digits, '_' and '.'",
            hint="make the network anew, with another bridge",
        )
    leases = folder / FOLDER / f"{bridge}.leases"
    text = configuration(wanted, index, leases)
    file = file_of(bridge, run_dir)
    try:
        running = runs(unit(bridge))
        if running and content(file) == text:
            return "unchanged"
        # also one that is just ending; no such unit is right too
        run(["systemctl", "stop", unit(bridge)], timeout_s=STOP_TIMEOUT_S, package="systemd", check=False)
        for parent in (leases.parent, file.parent):
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(file, text, mode=0o600)
        argv = ["dnsmasq", "--test", f"--conf-file={file}"]
        run(argv, timeout_s=COMMAND_TIMEOUT_S, package=PACKAGE)
        # systemd must have heard that a bridge of that name went before this one came: it ends what is bound to it
        run(SETTLE, timeout_s=COMMAND_TIMEOUT_S, package="udev", check=False)
        run(start_argv(bridge, file, leases), timeout_s=COMMAND_TIMEOUT_S, package="systemd")
    except CommandError as error:
        found = f"no addresses are handed out on {bridge}: {error.found}"
        raise LeasesError(found, hint=error.hint) from error
    return "restarted" if running else "started"


def stop(bridge: str, run_dir: Path) -> bool:
    """End the server; False when this boot has had none. What it has given is remembered. Raises CommandError."""
    file = file_of(bridge, run_dir)
    if not NAME.fullmatch(bridge) or not file.exists():
        return False
    if runs(unit(bridge)):
        run(["systemctl", "stop", unit(bridge)], timeout_s=STOP_TIMEOUT_S)
    file.unlink(missing_ok=True)
    return True


def put(bridge: str, network: Network | None, run_dir: Path, folder: Path) -> None:
    """Have the server that the network on this bridge wants, and none where it wants none, or there is no network.

    Raises LeasesError, FileError, CommandError.
    """
    wanted = None if network is None else served(network)
    if wanted is None:
        stop(bridge, run_dir)
        return
    try:
        index = socket.if_nametoindex(bridge)
    except OSError as error:
        found = f"no addresses are handed out on {bridge}: it has gone again"
        raise LeasesError(found, hint="attach its network anew") from error
    ensure(wanted, index, run_dir, folder)
