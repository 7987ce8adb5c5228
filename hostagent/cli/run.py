"""`hostagent run`: the daemon itself, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.cli.parser import command

if TYPE_CHECKING:
    import argparse

    from hostagent.cli.parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "run",
        run,
        summary="be the daemon: run the start-up sequence, then serve the local API",
        description="""\
The daemon in the foreground, as hostagent.service runs it: the start-up sequence, then the local API until
SIGTERM. SIGHUP reads the log levels anew.

exit codes:
  0    asked to stop
  1    settings, inventory or role cannot be used, or another hostagent runs: not started again
  2    start-up halted at another step or for a cause that may pass, or wrong command line
  123  start me again (systemd does): the role changed, or emergency mode tries once more""",
        examples="""
            systemctl start hostagent                   the usual way
            hostagent run                               in this terminal, to see what it does
            hostagent run --set log.level=debug         with one setting changed
        """,
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="a setting, instead of what the settings files say (repeatable)",
    )
    parser.more_help = _settings_help


def run(args: argparse.Namespace) -> int:
    from hostagent.config import Paths
    from hostagent.daemon import run

    return run(Paths.from_arguments(args), args.overrides)


def _settings_help() -> str:
    from hostagent.config import help_text

    return f"settings (ETC/hostagent.toml, conf.d/*.toml, --set):\n{help_text()}"
