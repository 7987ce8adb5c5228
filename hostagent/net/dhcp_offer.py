"""What a DHCP server would give, asked without taking it: who has the device keeps its address and its lease."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from hostagent.files import write_atomic
from hostagent.net.dhcp import COMMAND_TIMEOUT_S, PACKAGE, configuration
from hostagent.run import run

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.net.dhcp import Client

FOLDER = "dhcp-offer"


def offered(client: Client, run_dir: Path, timeout_s: float) -> str:
    """The IPv4 address that the first server offers this client, over the device it names as its bridge; "" for none.

    Raises CommandError (no dhcpcd), FileError, InvalidValueError.
    """
    file = run_dir / FOLDER / f"{client.bridge}.conf"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(file, configuration(client), mode=0o600)
    # --test takes no offer; without --oneshot it would go on beyond its time
    argv = ["dhcpcd", "--test", "--oneshot", "--timeout", f"{max(1.0, timeout_s):.0f}"]
    argv += ["--config", str(file), client.bridge]
    try:
        finished = run(argv, timeout_s=timeout_s + COMMAND_TIMEOUT_S, package=PACKAGE, check=False)
    finally:
        with suppress(OSError):
            file.unlink()
    return address_in(finished.stderr)


def address_in(log: str) -> str:
    """The first address given by this log of dhcpcd; "" for none. One that it has a lease of, having been the client of
    this device, it asks for anew instead of waiting for offers.
    """
    found = re.search(r"\b(?:offered|acknowledged) ([0-9]{1,3}(?:\.[0-9]{1,3}){3})\b", log)
    return found[1] if found else ""
