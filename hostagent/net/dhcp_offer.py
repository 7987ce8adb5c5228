"""What a DHCP server would give, asked without taking it: who has the device keeps its address and its lease."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from hostagent.files import write_atomic
from hostagent.net.dhcp import COMMAND_TIMEOUT_S, PACKAGE, DhcpError, configuration
from hostagent.run import run

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.net.dhcp import Client

FOLDER = "dhcp-offer"
LEASES = "/var/lib/dhcpcd"
SILENCE = re.compile(r"^timed out$", re.MULTILINE)


def offered(client: Client, run_dir: Path, timeout_s: float) -> str:
    """The IPv4 address that the first server offers this client, over the device it names as its bridge; "" where none
    answers in time. Raises DhcpError (it could not be asked), CommandError, FileError, InvalidValueError.
    """
    file = run_dir / FOLDER / f"{client.bridge}.conf"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(file, configuration(client), mode=0o600)
    try:
        argv = ask_argv(client.bridge, file, timeout_s)
        said = run(argv, timeout_s=timeout_s + COMMAND_TIMEOUT_S, package="systemd", check=False).stderr
    finally:
        with suppress(OSError):
            file.unlink()
    found = address_in(said)
    if not found and not SILENCE.search(said):
        last = (said.strip().splitlines() or ["nothing said"])[-1]
        raise DhcpError(
            f"no DHCP server could be asked on {client.bridge}: {last}",
            hint=f"is {PACKAGE} installed? apt-get install {PACKAGE}; ip link show {client.bridge}",
        )
    return found


def ask_argv(device: str, file: Path, timeout_s: float) -> list[str]:
    """The command: a dhcpcd in a unit of its own, without the leases that others had on this device, which it would
    ask for first, or delete. It takes no offer (--test), and ends after its time (--oneshot).

    The one of Debian 12 (9.4.1) crashes behind the offer and leaves its helpers, which heed no SIGTERM.
    """
    unit = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe"]
    properties = [f"TemporaryFileSystem={LEASES}", "KillSignal=SIGKILL", "LimitCORE=0"]
    client = ["dhcpcd", "--test", "--oneshot", "--timeout", f"{max(1.0, timeout_s):.0f}"]
    return [
        *unit, *(f"--property={text}" for text in properties), "--", *client, "--config", str(file), device
    ]  # fmt: skip


def address_in(log: str) -> str:
    """The first address offered by this log of dhcpcd; "" for none."""
    found = re.search(r"\boffered ([0-9]{1,3}(?:\.[0-9]{1,3}){3})\b", log)
    return found[1] if found else ""
