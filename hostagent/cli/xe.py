"""`hostagent xe …`, also installed as `hostagent-xe`: what follows `xe` is its own language, not argparse's."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hostagent.cli.parser import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from hostagent.cli.parser import Subparsers
    from hostagent.xe.arguments import Options
    from hostagent.xe.session import Api
    from hostagent.xe.terminal import Terminal

NAME = "xe"
RC_LIMIT_BYTES = 1 << 20


def add_parser(subparsers: Subparsers) -> None:
    """For the list of commands and their help only: `unparsed` takes the words before argparse sees them."""
    parser = command(
        subparsers,
        NAME,
        run,
        summary="list and change objects of the API, as XenServer's xe does",
        description="""\
Lists and changes hosts, networks, storage, VMs and everything else in the database, with the commands, options and
output of XenServer's xe. It talks to the daemon over its local socket, or to another host with -s HOST.""",
        examples="""
            hostagent xe help --all                             every command
            hostagent xe host-list params=all
            hostagent xe pif-list management=true --minimal
            hostagent xe -s 192.0.2.1 -u root -pwf FILE --ca pool.pem vm-list
        """,
    )
    parser.add_argument("words", nargs="*", metavar="ARGUMENT", help="as `hostagent xe help` tells")


def unparsed(words: Sequence[str]) -> argparse.Namespace:
    """The parsed command line of `hostagent xe WORDS…`."""
    return argparse.Namespace(handler=run, command=NAME, json=False, words=list(words))


def program() -> int:
    """`hostagent-xe`."""
    from hostagent.__main__ import main

    return main([NAME, *sys.argv[1:]])


def run(args: argparse.Namespace) -> int:
    from hostagent.xe import output, shell
    from hostagent.xe.arguments import UsageError, parse
    from hostagent.xe.terminal import LocalTerminal, TerminalError

    terminal = LocalTerminal()
    try:
        options, arguments = parse(args.words, os.environ, rc_text(Path.home() / ".xe"))
        options = _with_password(options, terminal)
    except (UsageError, TerminalError) as error:
        terminal.print_error(f"{error}\n{output.advice()}")
        return shell.FAILED
    return shell.run(arguments, lambda local: _connect(options, terminal, local=local), terminal)


def rc_text(path: Path) -> str:
    """The text of `~/.xe`, empty if there is none that can be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(RC_LIMIT_BYTES)
    except OSError:
        return ""


def _with_password(options: Options, terminal: Terminal) -> Options:
    from hostagent.xe.arguments import with_password_file

    if not options.password_file:
        return options
    return with_password_file(options, terminal.read_file(options.password_file).decode(errors="replace"))


def _connect(options: Options, terminal: Terminal, *, local: bool) -> AbstractContextManager[Api]:
    import contextlib
    from dataclasses import replace

    from hostagent.api.local_socket import socket_path
    from hostagent.config import Paths
    from hostagent.xe.session import TracedApi, connect, server_socket

    socket = socket_path(Paths())

    @contextlib.contextmanager
    def traced() -> Iterator[Api]:
        asked = options
        if options.password is None and server_socket(options, socket) is None and sys.stdin.isatty():
            import getpass

            asked = replace(options, password=getpass.getpass(f"{options.username}@{options.server}: "))
        with connect(asked, socket, local=local) as api:
            yield TracedApi(api, terminal) if options.debug else api

    return traced()
