"""`hostagent net adopt` and `hostagent net release`: a card taken over from another network daemon, and given back.

The daemon does it where one runs: it outlives the session that this is typed in. Otherwise it is done here.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from hostagent.cli.parser import command, seconds
from hostagent.errors import CallerError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from hostagent.cli.parser import Parser, Subparsers
    from hostagent.config import Paths
    from hostagent.netctl.adopt_place import Place

TIMEOUT_S = 60.0
SPARE_S = 120.0
"""What the daemon has beyond its deadlines, to undo."""


def add_parser(commands: Subparsers) -> None:
    adopt = command(
        commands,
        "adopt",
        adopt_nic,
        summary="take a card over from systemd-networkd, ifupdown or NetworkManager, with its address",
        description="""\
The card becomes a PIF on a bridge (xenbr0), which is the management interface, with the same address, gateway and name
servers. Sessions over that address go on. What answered before must answer afterwards, else all of it is undone; so it
is, by a timer, when this is killed. Files of the other daemon that are changed are kept for `hostagent net release`.

exit codes:
  0  taken over, or planned
  1  not done; the network and its files are as before, unless undoing it failed in part
  2  wrong command line""",
        examples="""
            hostagent net adopt --dry-run           what would be done, to which files
            hostagent net adopt                     the card with the default route
            hostagent net adopt eth1 --yes
        """,
    )
    _add_arguments(
        adopt, "the card (default: that with the default route, else the only one with an address)"
    )
    release = command(
        commands,
        "release",
        release_nic,
        summary="give a card back to the daemon it was taken from, with its address",
        description="""\
The bridge goes, the card has the addresses again, and the files hold what they held before.

exit codes:
  0  given back, or planned
  1  not done; the network and its files are as before, unless undoing it failed in part
  2  wrong command line""",
        examples="""
            hostagent net release --dry-run
            hostagent net release --yes
        """,
    )
    _add_arguments(release, "the card (default: the only one that was taken over)")


def _add_arguments(parser: Parser, help_: str) -> None:
    parser.add_argument("nic", nargs="?", default="", metavar="NIC", help=help_)
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--timeout", type=seconds, default=TIMEOUT_S, metavar="SECONDS",
        help="for a DHCP server's offer and its lease, and for what answered before to answer again (default 60)",
    )  # fmt: skip


def adopt_nic(args: argparse.Namespace) -> int:
    return _both(args, "adopt")


def release_nic(args: argparse.Namespace) -> int:
    return _both(args, "release")


def _both(args: argparse.Namespace, action: str) -> int:
    if not args.dry_run and not args.yes:
        if args.json or not sys.stdin.isatty():
            raise CallerError(
                "this changes the network of this host, and nobody can be asked",
                hint=f"hostagent net {action} --dry-run shows what would be done; --yes does it",
            )
        _show(args, _work(args, action, dry_run=True))
        if input("do this? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was done")
            return 1
    _show(args, _work(args, action, dry_run=args.dry_run))
    return 0


def _show(args: argparse.Namespace, result: Any) -> None:
    from hostagent.cli import output
    from hostagent.net.reconfigure import text_of

    if args.json:
        output.emit(args, result)
        return
    print(text_of(result))
    planned, adopting = result["outcome"] == "planned", result["what"].startswith("adopt")
    if adopting:
        verb = "would write" if planned else "wrote"
    else:  # a file that was not there before is removed
        verb = "would put back" if planned else "put back"
    for path in result["files"]:
        print(f"  {verb} {path}")
    if planned:
        print("hint: nothing was done")
    elif adopting:
        print("hint: hostagent net status; hostagent net release gives it back")


def _work(args: argparse.Namespace, action: str, *, dry_run: bool) -> Any:
    """Done by the daemon, or here where none runs."""
    from hostagent.cli.netrecords import socket_of
    from hostagent.config import Paths
    from hostagent.net import ask
    from hostagent.netctl.adopt import take
    from hostagent.netctl.adopt_back import release
    from hostagent.netctl.adopt_place import Request

    paths = Paths.from_arguments(args)
    how = "plan" if dry_run else "do"
    with contextlib.suppress(ask.NotThereError):
        return ask.ask(
            socket_of(paths), f"hostagent.net_{action}", args.nic, how, args.timeout,
            timeout_s=6 * args.timeout + SPARE_S,
        )  # fmt: skip
    request = Request(args.nic, dry_run, args.timeout)
    with place_of(paths) as place:
        return (take if action == "adopt" else release)(place, request)


@contextlib.contextmanager
def place_of(paths: Paths) -> Iterator[Place]:
    """This host without a daemon: the database is this command's alone. Raises what opening it raises."""
    from hostagent.cli.db import own
    from hostagent.config import load
    from hostagent.netctl.adopt_place import place_of as place
    from hostagent.startup import network
    from hostagent.startup.state import HostState
    from hostagent.xen import inventory

    config, _ = load(paths)
    found = inventory.read(paths.inventory)
    with own(paths) as database:
        state = HostState(inventory=found, database=database)
        yield place(paths, found.installation_uuid, database, network.site(config, state))
