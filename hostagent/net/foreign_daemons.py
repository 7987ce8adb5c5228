"""Other network daemons told about a card: to read their files anew, to let it go, to take it; and files written.

Letting go must not cost the address, which lies on our bridge by then, nor its lease. systemd-networkd that reloads
gives the lease back to the server (SendRelease=, by default); started anew it keeps all there is and then finds the
card unmanaged. So does NetworkManager, which leaves wired devices as they are when it ends; as it puts back what is
taken from a card that it has, it lets go before the address moves. What ifupdown has started for a card is a DHCP
client; it is killed before the address moves, which dhcpcd would put back: its own way to end gives the lease back or
takes the address away.

NetworkManager that starts and finds an address on a card that it has not had holds it for somebody else's, for good: a
lease would run out. Where its own note of the card names a connection it goes on with that instead, and keeps the
address while it asks the server; but only for as long as its DHCP timeout, after which the address goes.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from hostagent.errors import OperatorError
from hostagent.files import FileError, sync_directory, write_atomic
from hostagent.net.adopt_files import IFUPDOWN, NETWORK_MANAGER, NETWORKD
from hostagent.run import CommandError, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

COMMAND_TIMEOUT_S = 30.0
LONG_TIMEOUT_S = 90.0
"""For what starts a daemon or brings a card up."""
NOT_LOADED = 5
"""Exit code of `systemctl stop` for a unit that is gone: an undo may run twice."""
UNITS = {NETWORKD: "systemd-networkd.service", NETWORK_MANAGER: "NetworkManager.service"}
PATIENCE_FILE = "run/NetworkManager/conf.d/00-hostagent-{device}-dhcp.conf"
PATIENCE = """\
# Written by hostagent, until the next boot: no DHCP server that is silent for a while takes the address away.
[connection-hostagent-{device}]
match-device=interface-name:{device}
ipv4.dhcp-timeout=2147483647
"""
NM_STOPPED_FILE = "run/NetworkManager/hostagent-stopped"
"""There while NetworkManager, which ran, is stopped by us: whoever comes after a kill starts it."""
TAKEN_S, POLL_S = 90.0, 0.5
"""Within which NetworkManager that has started has to have the card."""
NOTE = "[device]\nmanaged=true\nconnection-uuid={uuid}\n"
RELOAD, LET_GO, TAKE, FORGET = "reload", "let-go", "take", "forget"
CLIENTS = ("dhclient", "dhcpcd", "udhcpc")
OUTLIVING = (
    *("systemd-run", "--scope", "--quiet", "--collect", "--property=DefaultDependencies=no"),
    *("--property=Conflicts=shutdown.target", "--property=Before=network.target shutdown.target", "--"),
)
"""Before a command whose children are to outlive us, who may be a unit of systemd: it kills what a unit leaves. They
end with the network."""


class ForeignError(OperatorError):
    """A network daemon could not be told."""

    code = "PIF_CONFIGURATION_ERROR"


def tell(
    daemon: str,
    what: str,
    device: str,
    root: Path,
    addresses: Callable[[], Mapping[str, str]],
    kill: Callable[[int, int], None] = os.kill,
) -> None:
    """Tell a daemon `what`: reload (the `early` files of `adopt_files.Disabling`), let-go, take; or forget, which ends
    our own DHCP client of a bridge and leaves address and lease.

    `addresses`: address → device, for finding DHCP clients. Raises ForeignError, CommandError, FileError, BusyError.
    """
    if what == FORGET:
        from hostagent.net import dhcp

        _run(["systemctl", "stop", dhcp.unit(device)], daemon, also=NOT_LOADED)
        return
    if daemon == IFUPDOWN:
        if what == LET_GO:
            end_clients(device, root, addresses(), kill)
        elif what == TAKE and _has_stanza(device, root):
            # a static address is there again by now
            _ifup(device, root, addresses)
        return
    if daemon == NETWORK_MANAGER:
        if what == TAKE:
            _go_on(device, root)
        else:
            _start_anew(root)
    elif what == RELOAD:
        _run(["networkctl", "reload"], daemon)
    else:
        # ignore-requirements: else systemd-networkd-wait-online would begin to wait anew
        argv = ["systemctl", "--job-mode=ignore-requirements", "try-restart", UNITS[daemon]]
        _run(argv, daemon, timeout_s=LONG_TIMEOUT_S)


def end_clients(
    device: str, root: Path, addresses: Mapping[str, str], kill: Callable[[int, int], None]
) -> tuple[int, ...]:
    """Kill the DHCP clients of this one device; their pids. One that serves all devices is left alone."""
    pids = _clients(device, root, addresses)
    for pid in pids:
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    return pids


def _clients(device: str, root: Path, addresses: Mapping[str, str]) -> tuple[int, ...]:
    from hostagent.net import dhcp_clients

    return tuple(
        client.pid
        for client in dhcp_clients.foreign(device, root, addresses)
        if client.program in CLIENTS and client.device == device
    )


def _ifup(device: str, root: Path, addresses: Callable[[], Mapping[str, str]]) -> None:
    """Have a DHCP client started. dhcpcd 10.1.0 crashes where it finds its address with a lifetime, having set it
    anew: the next one is content with that.
    """
    for _ in range(2):
        argv = [*OUTLIVING, "ifup", "--force", device]
        _run(argv, IFUPDOWN, timeout_s=LONG_TIMEOUT_S, package="ifupdown")
        if _clients(device, root, addresses()):
            return
    raise ForeignError(
        f"ifupdown has started no DHCP client for {device} that stays",
        hint=f"ifup --force {device}; journalctl -b",
    )


def _go_on(device: str, root: Path) -> None:
    """Have NetworkManager go on with the connection that the card had last; at once where it runs."""
    from hostagent.net import foreign, foreign_nm

    nic = foreign.nic(device, root)
    uuid = ""

    def note() -> None:
        nonlocal uuid
        put_file(root / PATIENCE_FILE.format(device=device), PATIENCE.format(device=device))
        uuid = foreign_nm.last(nic, root)
        if uuid and nic.ifindex:
            put_file(root / foreign_nm.DEVICES / str(nic.ifindex), NOTE.format(uuid=uuid))

    ran = _start_anew(root, note)
    if not uuid:
        raise ForeignError(
            f"NetworkManager has no connection for {device} in its files: nobody keeps its address",
            hint=f"nmcli connection add type ethernet ifname {device} ...; nmcli connection up",
        )
    if ran:
        _await_taken(device, uuid)


def _start_anew(root: Path, between: Callable[[], None] = lambda: None) -> bool:
    """Have NetworkManager end and start, where it runs, which is returned; it writes its notes when it ends."""
    from hostagent.net import dhcp

    unit, stopped = UNITS[NETWORK_MANAGER], root / NM_STOPPED_FILE
    if not stopped.exists() and not dhcp.runs(unit):
        between()
        return False
    # else what is ordered behind it would begin to wait anew
    systemctl = ["systemctl", "--job-mode=ignore-requirements"]
    put_file(stopped, "")
    try:
        _run([*systemctl, "stop", unit], NETWORK_MANAGER, timeout_s=LONG_TIMEOUT_S)
        between()
    finally:
        _run([*systemctl, "start", unit], NETWORK_MANAGER, timeout_s=LONG_TIMEOUT_S)
    put_file(stopped, None)
    return True


def _await_taken(device: str, uuid: str) -> None:
    """Return once NetworkManager says that the card has this connection; it starts before it knows its cards."""
    argv = ["nmcli", "--get-values", "GENERAL.CON-UUID", "device", "show", device]
    until = time.monotonic() + TAKEN_S
    while True:
        found = run(argv, timeout_s=COMMAND_TIMEOUT_S, package="network-manager", check=False)
        if found.stdout.strip() == uuid:
            return
        if time.monotonic() >= until:
            raise ForeignError(
                f"NetworkManager has not taken {device} with the connection {uuid} within {TAKEN_S:g} s",
                hint=f"nmcli device show {device}; journalctl -u NetworkManager",
            )
        time.sleep(POLL_S)


def _has_stanza(device: str, root: Path) -> bool:
    from hostagent.net import foreign_ifupdown
    from hostagent.net.foreign_files import Nic

    owner = foreign_ifupdown.owner(Nic(device), root)
    return owner is not None and "DHCP" in (owner.mode, owner.mode6)


def _run(
    argv: list[str],
    daemon: str,
    *,
    timeout_s: float = COMMAND_TIMEOUT_S,
    package: str = "systemd",
    also: int = 0,
) -> None:
    """`also`: an exit code that is as good as 0."""
    try:
        run(argv, timeout_s=timeout_s, package=package)
    except CommandError as error:
        if error.finished is not None and error.finished.code == also:
            return
        raise ForeignError(f"{daemon} could not be told: {error.found}", hint=error.hint) from error


def put_file(path: Path, text: str | None) -> None:
    """Make a file hold this, now and after a power loss; None: there is none. Its permissions stay.

    Raises FileError, BusyError.
    """
    try:
        if text is None:
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync_directory(path.parent)
            return
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o7777 if path.exists() else 0o644
    except OSError as error:
        raise FileError(
            f"{path} could not be written: {error.strerror}",
            hint="is the file system full or read-only? df; mount",
            number=error.errno or 0,
        ) from error
    write_atomic(path, text, mode=mode)
