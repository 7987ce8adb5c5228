# mypy: disable-error-code="union-attr,attr-defined,arg-type,index"
# each test knows which outcome it has
"""The host of the steps about the network, in tests: its management interface, and what is asked of it."""

from __future__ import annotations

from hostagent.net import early, journal
from hostagent.net.operation import Operation, Plan, Step
from hostagent.startup.step import Unchanged
from tests.pure.startup_database import rows
from tests.pure.startup_network import BOOT

STATIC = {
    "ip_configuration_mode": "Static",
    "IP": "192.0.2.10",
    "netmask": "255.255.255.0",
    "gateway": "192.0.2.1",
}


def pif(context, device):
    return next(record for record in rows(context)["PIF"].values() if record["device"] == device)


def links(host):
    return host.look().by_name()


def on(host, name):
    """Addresses of a device."""
    index = links(host)[name].ifindex
    return {f"{one.text}/{one.prefix}" for one in host.look().addresses if one.device == index}


def compared(context, plan, run):
    """Plan, run, run again: the run does what the plan said, the second run nothing."""
    planned = plan(context)
    outcome = run(context)
    assert getattr(outcome, "changes", ()) == planned
    assert plan(context) == ()
    assert isinstance(run(context), Unchanged)
    return outcome


def left_over(folder, *, state, boot=BOOT, digest="other"):
    """A change that added an address to eth1, and was left in the middle."""
    do = Operation("address-add", "eth1", 3, {"text": "198.51.100.9", "prefix": 24})
    undo = Operation("address-del", "eth1", 3, {"text": "198.51.100.9", "prefix": 24})
    folder.mkdir(parents=True, exist_ok=True)
    made = journal.begin(folder, Plan((Step(do, (undo,)),)), boot=boot, digest=digest, what="a test")
    journal.progress(folder, 1)
    if state != journal.BEGUN:
        journal.mark(folder, made, state)
    return do


def boot(nics, paths):
    """As the unit runs it, below a root of its own."""
    return early.main(paths.root, open_host=lambda root, _bridge: nics.open(root / early.STATE))
