"""`hostagent net`: the network as a whole: how it is, what would be changed, what was changed, and the way back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from hostagent.cli import netadopt, netlook
from hostagent.cli.parser import command, count, group, seconds

if TYPE_CHECKING:
    import argparse

    from hostagent.cli.parser import Subparsers

NOTE_MOST = 60
"""Characters of a note in a table."""


def add_parser(subparsers: Subparsers) -> None:
    commands = group(
        subparsers,
        "net",
        summary="the network as a whole: status, plan, check, graph, history, the way back",
        description="""\
The network of this host as the database wants it and as the kernel has it. All of it works with the daemon, and
without it from the cached copy in /var/lib/hostagent/net.""",
        examples="""
            hostagent net status
            hostagent net check                 does the kernel have what is wanted?
            hostagent net graph -o net.svg
            hostagent net confirm               keep the change that waits
        """,
    )
    netlook.add_parser(commands)
    _add_records(commands)
    _add_ways_back(commands)
    netadopt.add_parser(commands)


def _add_records(commands: Subparsers) -> None:
    history = command(
        commands,
        "history",
        show_history,
        summary="what was done to the network, newest first, with the time of each operation",
        examples="""
            hostagent net history
            hostagent net history 1             the last change with all its notes and operations
        """,
    )
    history.add_argument("number", nargs="?", type=int, metavar="N", help="the Nth newest in full")
    history.add_argument("--last", type=count, default=20, metavar="N", help="how many to list (default 20)")


def _add_ways_back(commands: Subparsers) -> None:
    command(
        commands,
        "confirm",
        confirm,
        summary="keep the change that waits for its confirmation",
        description="""\
Keep the change that waits for its confirmation.

exit codes:
  0  the change stays
  1  failed, or no change waits: it was undone already, or there was none""",
        examples="""
            hostagent net confirm
        """,
    )
    command(
        commands,
        "undo",
        undo,
        summary="undo the change that is not confirmed, now",
        description="""\
Undo the change that is not confirmed. The timer of an unconfirmed change runs this.

exit codes:
  0   undone, or there is nothing to undo
  1   failed, or undone in part only
  75  the network is being changed by somebody else; nothing was done""",
        examples="""
            hostagent net undo
        """,
    )
    reset = command(
        commands,
        "emergency-reset",
        emergency_reset,
        summary="bring the management interface back, without a reboot",
        description="""\
Takes the last generation of the cached copy with which the management interface worked, and makes the kernel so:
devices of ours are changed in place, guests' networks stay. Type it at the console of a host that cannot be reached.
If that does not work, each NIC given with --nic is tried alone: with the same fixed address, then with DHCP, untagged
and with the VLAN tags heard on it.

exit codes: as `hostagent pif plug`""",
        examples="""
            hostagent net emergency-reset --plan
            hostagent net emergency-reset
            hostagent net emergency-reset --nic eth0 --nic eth1
        """,
    )
    reset.add_argument(
        "--nic",
        action="append",
        default=[],
        metavar="NIC",
        help="may be used alone, with its address or DHCP (repeatable; default: the setting net.emergency-nics)",
    )
    reset.add_argument("--plan", action="store_true", help="print the operations, and do nothing")
    reset.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="SECONDS", help="for the first try (default 60)"
    )


def show_history(args: argparse.Namespace) -> int:
    from hostagent.cli import netrecords, output
    from hostagent.config import Paths
    from hostagent.errors import CallerError
    from hostagent.net import history

    folder = netrecords.folder_of(Paths.from_arguments(args))
    if args.number is not None:
        entries = history.read(folder, most=max(args.number, 1))
        if not 1 <= args.number <= len(entries):
            raise CallerError(
                f"there is no change number {args.number}; {len(entries)} are kept",
                hint="hostagent net history lists them; 1 is the newest",
            )
        _show_entry(args, entries[args.number - 1])
        return 0
    rows = [
        {"number": number, **_plain(entry)}
        for number, entry in enumerate(history.read(folder, most=args.last), start=1)
    ]
    columns = (
        "number", output.Column("at_s", "when", output.when), "what", "outcome",
        output.Column("seconds", "time", output.duration), output.Column("total", "operations"), "by",
        output.Column("told", "note", _cut),
    )  # fmt: skip
    output.emit(args, rows, columns=columns, empty="nothing was changed yet")
    return 0


def _cut(told: object) -> str:
    """The notes of a change as far as a table can have them: `hostagent net history N` has them whole."""
    from hostagent.cli import output

    words = output.text(told)
    return f"{words[: NOTE_MOST - 1]}…" if len(words) > NOTE_MOST else words


def _plain(entry: Any) -> dict[str, Any]:
    return {**entry._asdict(), "steps": [step._asdict() for step in entry.steps]}


def _show_entry(args: argparse.Namespace, entry: Any) -> None:
    from hostagent.cli import output

    if args.json:
        output.emit(args, _plain(entry))
        return
    print(
        f"{output.when(entry.at_s)}  {entry.what}: {entry.outcome} ({output.duration(entry.seconds)}, {entry.by})"
    )
    for told in entry.told:
        print(f"  {told}")
    if len(entry.steps) < entry.total:
        print(f"the {len(entry.steps)} slowest of {entry.total} operations:")
    for step in entry.steps:
        print(f"  {step.milliseconds:9.2f} ms  {step.verb:<12} {step.device:<15} {step.args}".rstrip())


def confirm(args: argparse.Namespace) -> int:
    from hostagent.net import bring

    return _way_back(args, bring.confirm)


def undo(args: argparse.Namespace) -> int:
    from hostagent.cli import output
    from hostagent.errors import BusyError
    from hostagent.net import bring, guard

    try:
        return _way_back(args, bring.undo)
    except BusyError as error:
        output.error(args, error)
        return guard.BUSY_EXIT


def _way_back(args: argparse.Namespace, work: Any) -> int:
    from hostagent.cli import netrecords
    from hostagent.config import Paths
    from hostagent.errors import HostagentError
    from hostagent.xen import inventory

    paths = Paths.from_arguments(args)
    bridge = ""
    with contextlib.suppress(HostagentError):  # without it there is a way back all the same
        bridge = inventory.read(paths.inventory).management_interface
    return netrecords.show(args, work(netrecords.host_of(paths, bridge)))


def emergency_reset(args: argparse.Namespace) -> int:
    from hostagent.cli import netrecords
    from hostagent.config import ConfigError, Paths, load
    from hostagent.net import bring, cache, reset
    from hostagent.net.cards import cards_of
    from hostagent.net.records import Records
    from hostagent.net.remap import fitted_here

    paths = Paths.from_arguments(args)
    listed = tuple(args.nic)
    if not listed:
        with contextlib.suppress(ConfigError):  # settings that cannot be read must not keep the host down
            listed = load(paths)[0].emergency_nics
    verified = cache.read_verified(netrecords.folder_of(paths))
    try:
        found = cache.read(netrecords.folder_of(paths)) if verified is None else cache.Found(verified)
    except cache.CacheError as error:
        if args.plan or not listed:
            raise
        found = cache.Found(cache.Cached(Records("", {}, {}, {}, {}), 0), (error.found,))
    else:
        if verified is None:
            found = found._replace(told=("no generation was verified yet: taking the newest", *found.told))
    bridge = found.cached.records.bridge
    host = netrecords.host_of(paths, bridge)
    found = fitted_here(found, paths.root, host.tools.netlink)
    if args.plan:
        request = bring.Request(bring.UP, bridge=bridge, management=True, mode=bring.PLAN)
        return netrecords.show(args, bring.bring(request, found, host))
    result = reset.reset(
        found,
        host,
        cards_of(paths.root, listed),
        listed=listed,
        timeout_s=args.timeout,
    )
    return netrecords.show(args, result)
