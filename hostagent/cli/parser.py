"""The argument parser every sub-command is built with: examples in its help, suggestions in its errors.

A sub-command module has `add_parser(subparsers)`, which calls `command()`; what it needs to do its work it
imports inside its handler, so that `hostagent --help` stays quick. The handler takes the parsed arguments and
returns the exit code.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Subparsers = argparse._SubParsersAction["Parser"]

Handler = Callable[[argparse.Namespace], int]

USAGE_EXIT = 2


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose help keeps its lines, and whose errors say what was probably meant."""

    def __init__(self, **settings: object) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        settings["allow_abbrev"] = False
        super().__init__(**settings)  # type: ignore[arg-type]
        self.more_help: Callable[[], str] | None = None

    def format_help(self) -> str:
        more = f"\n{self.more_help()}\n" if self.more_help else ""
        return super().format_help() + more

    def _check_value(self, action: argparse.Action, value: object) -> None:
        choices = [str(choice) for choice in action.choices or ()]
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"unknown {value!r}{_meant(str(value), choices)}")

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_EXIT, f"error: {message}\nhint: {self.prog} --help\n")

    def refuse_unknown(self, unknown: Sequence[str]) -> NoReturn:
        """End with the usage exit code, naming the first unknown argument and the option it resembles."""
        self.error(f"unknown argument {unknown[0]!r}{_meant(unknown[0], self._option_string_actions)}")


def command(
    subparsers: Subparsers,
    name: str,
    handler: Handler,
    *,
    summary: str,
    description: str = "",
    examples: str,
) -> Parser:
    """Add one sub-command and return its parser for further arguments.

    `summary` is its line in the parent's list, `description` what an operator should know (the summary if
    empty), `examples` lines of `hostagent …` as one would type them.
    """
    parser = subparsers.add_parser(
        name, help=summary, description=description or summary, epilog=example_block(examples)
    )
    parser.set_defaults(handler=handler)
    return parser


def group(
    subparsers: Subparsers, name: str, *, summary: str, description: str = "", examples: str
) -> Subparsers:
    """Add a sub-command that only holds others, and return where these are added with `command()`."""
    parser = subparsers.add_parser(
        name, help=summary, description=description or summary, epilog=example_block(examples)
    )
    return parser.add_subparsers(title="commands", dest=f"{name}_command", metavar="COMMAND", required=True)


def seconds(text: str) -> float:
    """The type of a `--timeout`: above 0, and what the daemon takes at most. Raises ArgumentTypeError."""
    from hostagent.net.options import LONGEST_S

    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= LONGEST_S:  # so is nan refused, too
        raise argparse.ArgumentTypeError(f"seconds above 0, at most {LONGEST_S:g}, not {text!r}")
    return value


def count(text: str) -> int:
    """The type of how many are shown: 1 or more. Raises ArgumentTypeError."""
    value = int(text) if text.isascii() and text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"a number, 1 or more, not {text!r}")
    return value


def example_block(examples: str) -> str:
    lines = (line.strip() for line in examples.strip().splitlines())
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def leaves(parser: Parser) -> list[Parser]:
    """Every parser below `parser` that has no sub-commands of its own, in the order of the help."""
    below = [child for action in _subparser_actions(parser) for child in action.choices.values()]
    return [leaf for child in below for leaf in leaves(child)] if below else [parser]


def _subparser_actions(parser: Parser) -> list[Subparsers]:
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]


def _meant(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return ""
