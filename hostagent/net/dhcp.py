"""Addresses from DHCP servers: one dhcpcd per bridge, each a transient systemd unit of its own.

The client is not our child: it and its addresses outlive the daemon (decisions 2). What it is to do stands in
RUN/dhcp/BRIDGE.conf; a client that already does that is left alone. It sets addresses and, for the owner of the
gateway, the IPv4 default route; IPv6 routes come from router advertisements, which the kernel handles (accept_ra,
accept_ra_defrtr: `sysctl.py`). It runs no hooks: name servers are read from its lease (`lease`) and written by
`resolver.py`. Seen with dhcpcd 9.4.1 (Debian 12): SIGHUP with a changed file drops the address for the seconds of a new
probe, while ending it with `persistent` and starting it anew keeps it. So a change is a restart. And it goes on with
its last lease only where the bridge has that address (`last_lease.py`).
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from hostagent.errors import InvalidValueError, OperatorError
from hostagent.files import write_atomic
from hostagent.named import NamedTuple
from hostagent.net.dhcp_lease import Leased, content, parse_lease
from hostagent.run import CommandError, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from hostagent.net.devices import Lease

PACKAGE = "dhcpcd-base"
COMMAND_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 30.0  # systemd gives the client 10 s to end (TimeoutStopSec below) before it kills it
POLL_S = 0.5  # each question makes three lines in the client's log
METRIC = 1024
KEEPS_WITHOUT = 10
"""The first major version of dhcpcd that takes its last lease also where the bridge has not its address."""
LOG_LINES = 1000


class DhcpError(OperatorError):
    """The DHCP client could not be started, or got no address in time."""

    code = "PIF_CONFIGURATION_ERROR"


class Client(NamedTuple):
    """What the client of one bridge is to do.

    `client_id`: how the server is to know this host, as hex bytes `ff:…`; empty: by its MAC address, which is what
    reservations are usually made for. `request`: the IPv4 address to ask for first. `keep_last`: go on with the last
    lease while no server answers, also past its end (the management interface; it is given up when another host
    claims the address). `hostname`: sent to servers (option 12, of DHCPv6 39).
    """

    bridge: str
    ipv4: bool
    ipv6: bool
    gateway: bool = False
    dns4: bool = False
    dns6: bool = False
    hostname: str = ""
    client_id: str = ""
    request: str = ""
    keep_last: bool = False


class Tries(NamedTuple):
    """What the client has sent and heard, counted in its log."""

    discovers: int
    offers: int
    requests: int
    refusals: int
    """NAKs of a server, and addresses that another host turned out to have."""
    last: str
    """Its last line."""


def unit(bridge: str) -> str:
    return f"hostagent-dhcp-{bridge}.service"


def of_leases(leases: Iterable[Lease], *, management: str = "", client_id: str = "") -> dict[str, Client]:
    """One client per bridge, for both families. `management`: the bridge that keeps its last lease."""
    clients: dict[str, Client] = {}
    for wanted in leases:
        found = clients.get(wanted.device) or Client(
            wanted.device, ipv4=False, ipv6=False, client_id=client_id
        )
        found = found._replace(
            hostname=found.hostname or wanted.hostname, keep_last=wanted.device == management
        )
        clients[wanted.device] = (
            found._replace(ipv4=True, gateway=wanted.gateway, dns4=wanted.dns)
            if wanted.family == 4
            else found._replace(ipv6=True, dns6=wanted.dns)
        )
    return clients


def configuration(client: Client) -> str:
    """The content of its file (dhcpcd.conf(5), the options that 9.4.1 and 10.1 share).

    Raises InvalidValueError for a value that would be read as another line.
    """
    for field, value in zip(Client._fields, client, strict=True):
        if isinstance(value, str) and not all(
            "!" <= letter <= "~" and letter not in '"#\\' for letter in value
        ):
            raise InvalidValueError(
                field,
                value,
                f"{field} {value!r} has a blank, a quote or a letter that is not ASCII",
                hint="set it anew",
            )
    lines = [
        f"# for {client.bridge}; written by hostagent, which replaces it",
        "debug",  # its tries go to the journal, where `tries` counts them
        "script /bin/true",  # no hooks: the host's resolver, name and clock are not the client's
        "noipv4ll",
        "nodelay",  # by default it waits up to two seconds before its first word
        "persistent",  # ending it must not take the address away; release does
        "timeout 0",  # it tries for ever, the deadline is ours (`wait`)
        f"metric {METRIC}",
        f"clientid {client.client_id}".rstrip(),
        *([f"hostname {client.hostname}"] if client.hostname else []),
        *(["lastleaseextend"] if client.keep_last else []),
        "noipv6rs",  # router advertisements are the kernel's
        *_ipv4(client),
        *_ipv6(client),
    ]
    return "\n".join(lines) + "\n"


def does(client: Client, text: str) -> bool:
    """Whether a client with this configuration does what is wanted. The host's name does not count: a running client
    goes on with the one it was started with."""
    nameless = [line for line in text.splitlines(keepends=True) if not line.startswith("hostname ")]
    return "".join(nameless) == configuration(client._replace(hostname=""))


def _ipv4(client: Client) -> list[str]:
    if not client.ipv4:
        return ["noipv4"]
    routes = "routers static_routes classless_static_routes"
    return [
        "option subnet_mask broadcast_address",
        *([f"request {client.request}"] if client.request else []),
        *(
            ["option routers classless_static_routes"]
            if client.gateway
            else ["nogateway", f"nooption {routes}"]
        ),
        *(["option domain_name_servers domain_name domain_search"] if client.dns4 else []),
    ]


def _ipv6(client: Client) -> list[str]:
    """Of an `interface` block, which must be the last: `ia_na` is read nowhere else, and starts DHCPv6 at once."""
    if not client.ipv6:
        return ["noipv6"]
    asked = ["option dhcp6_name_servers dhcp6_domain_search"] if client.dns6 else []
    return [*asked, f"interface {client.bridge}", "ia_na"]


def start_argv(client: Client, file: Path) -> list[str]:
    """The command that starts the client in a unit of its own.

    It is stopped after everything that needs the network (Before=network.target), and without giving up the address:
    file systems on the network are unmounted over it.
    """
    properties = [
        "Restart=always",
        "RestartSec=2",
        "StartLimitIntervalSec=0",
        "KillMode=mixed",
        "TimeoutStopSec=10",
        "DefaultDependencies=no",
        "Conflicts=shutdown.target",
        "Before=network.target shutdown.target",
        "StandardOutput=null",  # it also writes to syslog: every line once
        "StandardError=null",
    ]
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={unit(client.bridge)}",
        f"--description=DHCP client of {client.bridge} (hostagent)",
        "--service-type=exec",
        *(f"--property={text}" for text in properties),
        "--",
        "dhcpcd",
        "--nobackground",
        "--config",
        str(file),
        client.bridge,
    ]


def file_of(bridge: str, run_dir: Path) -> Path:
    return run_dir / "dhcp" / f"{bridge}.conf"


def ensure(client: Client, run_dir: Path, *, put_last: Callable[[], None] = lambda: None) -> str:
    """Have a client that does this: "unchanged", "started" or "restarted". Returns before there is an address.
    `put_last` gives the bridge the IPv4 address of its last lease, where a client that keeps that needs it.

    Raises DhcpError (no client installed, systemd refuses), FileError, InvalidValueError, and what `put_last` does.
    """
    text = configuration(client)
    file = file_of(client.bridge, run_dir)
    running = active(client.bridge)
    if running and content(file) == text:
        return "unchanged"
    if running:
        run(["systemctl", "stop", unit(client.bridge)], timeout_s=STOP_TIMEOUT_S)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(file, text, mode=0o600)
    try:
        told = run(["dhcpcd", "--version"], timeout_s=COMMAND_TIMEOUT_S, package=PACKAGE).stdout
        if client.ipv4 and client.keep_last and major(told) < KEEPS_WITHOUT:
            put_last()
        run(start_argv(client, file), timeout_s=COMMAND_TIMEOUT_S, package="systemd")
    except CommandError as error:
        found = f"the DHCP client of {client.bridge} could not be started: {error.found}"
        raise DhcpError(found, hint=error.hint) from error
    return "restarted" if running else "started"


def major(told: str) -> int:
    """Of what `dhcpcd --version` prints (`dhcpcd 9.4.1` and more lines); of what is unlike, one that needs nothing."""
    found = re.match(r"dhcpcd (\d{1,4})\.", told)
    return int(found[1]) if found else KEEPS_WITHOUT


def stop(bridge: str, run_dir: Path, *, release: bool = True) -> bool:
    """Give the lease back to the server, take its addresses away and end the client; False when there was none.

    Without `release` server and bridge keep the address: for who asks for it elsewhere.
    """
    was = active(bridge)
    file = file_of(bridge, run_dir)
    if was:
        # exits non-zero when the client has just ended by itself: then there is nothing to release
        if release:
            argv = ["dhcpcd", "--config", str(file), "--release", bridge]
            run(argv, timeout_s=COMMAND_TIMEOUT_S, package=PACKAGE, check=False)
        run(["systemctl", "stop", unit(bridge)], timeout_s=STOP_TIMEOUT_S)
    file.unlink(missing_ok=True)
    return was


def active(bridge: str) -> bool:
    """Whether systemd keeps a client of ours for this bridge (also while it waits to start it again)."""
    return runs(unit(bridge))


def runs(name: str) -> bool:
    """Whether a unit runs, or is about to. Raises CommandError."""
    argv = ["systemctl", "show", "--property=ActiveState", "--value", name]
    found = run(argv, timeout_s=COMMAND_TIMEOUT_S, package="systemd").stdout.strip()
    return found in ("active", "activating", "reloading")


def lease(bridge: str, family: int) -> Leased | None:
    """The lease in use, asked of the running client; None while it has none, or does not run."""
    argv = ["dhcpcd", f"-{family}", "--dumplease", bridge]
    finished = run(argv, timeout_s=COMMAND_TIMEOUT_S, package=PACKAGE, check=False)
    return parse_lease(finished.stdout, family)


def wait(
    bridge: str, family: int, *, timeout_s: float, sleep: Callable[[float], None] = time.sleep
) -> Leased:
    """The lease, once there is one. The client goes on trying after the deadline.

    Raises DhcpError at the deadline, with what the client has sent and heard until then (networking.md 5, row 36).
    """
    expires = time.monotonic() + timeout_s
    while (found := lease(bridge, family)) is None:
        if time.monotonic() >= expires:
            raise no_answer(bridge, timeout_s, tries(log_of(bridge)))
        sleep(POLL_S)
    return found


def no_answer(bridge: str, timeout_s: float, tried: Tries) -> DhcpError:
    """Why there is no address, from what the client has tried."""
    if tried.refusals:
        why = f"refused or in use by another host ({tried.refusals} times): {tried.last}"
        hint = "look for two DHCP servers, or a host with a fixed address from the server's range"
    elif tried.offers:
        why = f"{tried.offers} offers, none confirmed: {tried.last}"
        hint = "see the server's log for this host"
    else:
        why = f"no DHCP answer ({tried.discovers} discovers)"
        hint = "check the cable, the VLAN of the switch port, and that a DHCP server is on that network"
    return DhcpError(
        f"no address on {bridge} after {timeout_s:g} s: {why}", hint=f"{hint}; journalctl -u {unit(bridge)}"
    )


def log_of(bridge: str) -> str:
    argv = [
        "journalctl",
        "--no-pager",
        "--boot",
        "--output=cat",
        f"--lines={LOG_LINES}",
        f"--unit={unit(bridge)}",
    ]
    return run(argv, timeout_s=COMMAND_TIMEOUT_S, package="systemd", check=False).stdout


def tries(log: str) -> Tries:
    """Count in the client's log (with `debug`) since it last started."""
    since = [
        line for line in log.splitlines() if not line.startswith("control")
    ]  # answers to our own questions
    starts = [index for index, line in enumerate(since) if line.endswith(" starting")]
    since = since[starts[-1] :] if starts else since

    def count(*words: str) -> int:
        return sum(any(word in line for word in words) for line in since)

    return Tries(
        discovers=count("sending DISCOVER", "sending SOLICIT", "broadcasting SOLICIT"),
        offers=count("offered ", ": ADV "),
        requests=count("sending REQUEST"),
        refusals=count("NAK", " claims ", "DAD detected"),
        last=since[-1].strip() if since else "",
    )
