"""The command line: one module per sub-command, listed here and nowhere else."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING

from hostagent import __version__
from hostagent.cli.parser import Parser, leaves

if TYPE_CHECKING:
    from collections.abc import Sequence

MODULES = ("status", "run", "startup", "pif", "net", "db", "api", "xen", "xe", "completion")
"""Sub-command modules of this package, in the order of `hostagent --help`."""

DESCRIPTION = """\
Host agent of a Xen host: brings dom0 up step by step after boot, answers the XenAPI, and tells you what
it did. The daemon is `hostagent.service`; everything below can be typed while it runs, and most of it while
it does not."""

EPILOG = """\
examples:
  hostagent status                    is the host up? if not: what failed, and what to type
  hostagent status --watch            follow a start-up as it happens
  hostagent COMMAND --help            what a command does, with examples
  journalctl -u hostagent             what the daemon logged

files:
  /etc/hostagent/                     settings, inventory, pool role and secret, certificate
  /var/lib/hostagent/                 what must survive a reboot: the databases, last start-up report
  /run/hostagent/                     the running daemon: api.sock (the API, root only), its lock

exit codes:
  0  done    1  failed: the error says what was found, the hint what to do    2  wrong command line
  some commands give 2 and 3 a meaning of their own, or have more (4, 75): see their --help"""


def build_parser() -> Parser:
    """The whole tree, with the options every sub-command has."""
    parser = Parser(prog="hostagent", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"hostagent {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name in MODULES:
        importlib.import_module(f"hostagent.cli.{name}").add_parser(subparsers)
    for leaf in leaves(parser):
        _add_common_options(leaf)
        leaf.set_defaults(parser=leaf)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The parsed command line: `handler`, `json`, the three directories, and the command's own arguments.

    Exits with 2 and a suggestion when it cannot be parsed.
    """
    from hostagent.cli import xe

    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [xe.NAME]:
        return xe.unparsed(words[1:])
    args, unknown = build_parser().parse_known_args(words)
    if unknown:
        args.parser.refuse_unknown(unknown)
    return args


def _add_common_options(parser: Parser) -> None:
    options = parser.add_argument_group("output")
    options.add_argument("--json", action="store_true", help="print JSON: raw numbers, stable names")
    for name in ("etc", "state", "run"):
        options.add_argument(f"--{name}", metavar="DIR", help=argparse.SUPPRESS)
