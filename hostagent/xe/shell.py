"""One xe command from its arguments to its exit status, wherever it was typed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.xe import commands_network, commands_pool, commands_storage, commands_vm, generated, output
from hostagent.xe.arguments import UsageError
from hostagent.xe.command import Call, Command, CommandError
from hostagent.xe.session import ApiError
from hostagent.xe.terminal import TerminalError
from hostagent.xe.views import Objects

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from hostagent.xe.arguments import Arguments
    from hostagent.xe.session import Api
    from hostagent.xe.terminal import Terminal

    Connect = Callable[[bool], AbstractContextManager[Api]]

HAND_MADE = (commands_pool, commands_network, commands_storage, commands_vm)
DONE, FAILED = 0, 1


@functools.cache
def everyday() -> dict[str, Command]:
    """The commands that are rows, by name."""
    return {command.name: command for module in HAND_MADE for command in module.COMMANDS}


@functools.cache
def commands() -> dict[str, Command]:
    """All commands, by name."""
    return {**generated.commands(), **everyday()}


def run(arguments: Arguments, connect: Connect, terminal: Terminal) -> int:
    """Run one command and return its exit status; everything it has to say goes to the terminal.

    `connect(local)` makes the session, `local` where the command needs no coordinator.
    """
    try:
        if arguments.pairs and not arguments.command:  # a script whose variable was empty
            raise UsageError("Syntax error: the command is missing")
        if arguments.command in ("", "help"):
            return _help(arguments, terminal)
        command = commands().get(arguments.command)
        if command is None:
            meant = output.nearest(arguments.command, list(commands()))
            terminal.print_error(f"Unknown command: {arguments.command}\n{meant}{output.advice()}")
            return FAILED
        command.check(arguments)
        with connect(command.local) as api:
            return _run(command, Call(arguments, api, terminal, Objects(api)))
    except UsageError as error:
        terminal.print_error(f"{error}\n{output.advice(arguments.command)}")
    except ApiError as error:  # the log-in
        output.report(error, None, terminal)
    except HostagentError as error:
        terminal.print_error(f"Error: {error.found}\nhint: {error.hint}")
    return FAILED


def _run(command: Command, call: Call) -> int:
    try:
        command.run(call)
    except ApiError as error:
        output.report(error, call.api, call.terminal)
        return FAILED
    except (CommandError, TerminalError) as error:
        call.terminal.print_error(f"Error: {error}")
        return FAILED
    return DONE


def _help(arguments: Arguments, terminal: Terminal) -> int:
    if arguments.minimal and not arguments.words:  # for completion scripts
        terminal.print(",".join(sorted(commands() if arguments.flag("all") else everyday())))
    elif arguments.flag("all"):
        terminal.print(output.help_list(commands()))
    elif not arguments.words:
        terminal.print(f"{output.USAGE}\n\neveryday commands:\n{output.help_list(everyday())}")
    for name in arguments.words:
        command = commands().get(name)
        if command is None:
            meant = output.nearest(name, list(commands()))
            terminal.print_error(f"Unknown command: {name}\n{meant}{output.advice()}")
            return FAILED
        terminal.print(output.help_of(command))
    return DONE
