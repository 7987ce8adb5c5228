"""The unchanged stock xe program against the daemon on a real dom0: what it prints is what our own prints.

The program is not ours to ship: `XE=/path/to/xe` names one, built from its source or taken out of a package. Without it
only the byte-level tests of `/cli` run (tests/pure/test_xe_thincli.py, test_cli_endpoint.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.xen.agent import start

if TYPE_CHECKING:
    from nested_xen.host import Host

STOCK = "/root/stock-xe"
XE = os.environ.get("XE", "")

pytestmark = [pytest.mark.destructive, pytest.mark.skipif(not XE, reason="XE=/path/to/stock/xe is not given")]

COMMANDS = (
    "host-list",
    "host-list params=all",
    "host-list --minimal",
    "vm-list is-control-domain=true power-state=running params=uuid,power-state",
    "pool-list params=master --minimal",
    "task-list",
    "sr-list",
    "help pif-plug",
    "host-is-in-emergency-mode",
    "host-lisp",
    "host-param-list",
    "host-param-list uuid=nope",
    "host-param-get uuid=$(hostagent-xe host-list --minimal) param-name=name-label",
    "pool-param-set uuid=$(hostagent-xe pool-list --minimal) name-label=stock",
    "pool-param-get uuid=$(hostagent-xe pool-list --minimal) param-name=name-label",
    "vm-shutdown web",
)


@pytest.fixture
def with_stock(xen_host: Host) -> Host:
    """A host whose agent runs and that has the stock program; all tests of this file share it."""
    if xen_host.exec(f"test -x {STOCK}", check=False).code != 0:
        assert start(xen_host).report["result"] == "clean"
        xen_host.put(Path(XE), STOCK)
        xen_host.exec(f"chmod 755 {STOCK}")
    return xen_host


@pytest.mark.parametrize("command", COMMANDS)
def test_the_stock_program_prints_what_ours_prints(with_stock, command):
    ours = with_stock.exec(f"hostagent-xe {command}", check=False)
    stock = with_stock.exec(f"{STOCK} {command}", check=False)

    assert (stock.code, stock.stdout, stock.stderr) == (ours.code, ours.stdout, ours.stderr)
    assert ours.stdout or ours.stderr or command.startswith(("pool-param-set", "task-list", "sr-list"))


def test_the_stock_program_asks_and_loads_files(with_stock):
    host = with_stock.exec("hostagent-xe host-list --minimal").stdout.strip()
    refused = with_stock.exec(f"{STOCK} pool-eject host-uuid={host}", stdin="no\n", check=False)
    absent = with_stock.exec(
        f"{STOCK} host-server-certificate-install host-uuid={host} certificate=/absent private-key=/absent",
        check=False,
    )

    assert (refused.code, refused.stderr) == (1, "Error: Aborted\n")
    assert refused.stdout.endswith("Type 'yes' to continue\n")
    assert (absent.code, absent.stderr) == (1, "Error: /absent cannot be read\n")
