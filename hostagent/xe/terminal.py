"""Where a command prints, asks and reads files: this process's own terminal, or the client at the end of `/cli`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

FILE_LIMIT_BYTES = 1 << 20
"""Of a file that is an argument: certificates and keys are some KiB."""


class TerminalError(Exception):
    """The person at the terminal, or a file of theirs, cannot be reached; the text says why."""


class Terminal(Protocol):
    """What a command may do to the person who typed it."""

    def print(self, text: str) -> None:
        """A line (or several) of output."""

    def print_error(self, text: str) -> None:
        """A line (or several) of error output."""

    def error(self, code: str, params: Sequence[str]) -> None:
        """An API error for which we have no words."""

    def read_file(self, name: str) -> bytes:
        """A file that was named as an argument. Raises TerminalError."""

    def prompt(self, text: str) -> str:
        """One line of answer to a question. Raises TerminalError."""

    def check(self) -> None:
        """Raises TerminalError when nobody is there any more; called by what waits for long."""


class LocalTerminal:
    """The terminal of this process."""

    def print(self, text: str) -> None:
        _write(text, sys.stdout)

    def print_error(self, text: str) -> None:
        _write(text, sys.stderr)

    def error(self, code: str, params: Sequence[str]) -> None:
        self.print_error(f"Error code: {code}\nError parameters: {', '.join(params)}")

    def read_file(self, name: str) -> bytes:
        try:
            with Path(name).open("rb") as file:
                content = file.read(FILE_LIMIT_BYTES + 1)
        except OSError as error:
            raise TerminalError(f"{name}: {error.strerror}") from error
        if len(content) > FILE_LIMIT_BYTES:
            raise TerminalError(f"{name} is larger than {FILE_LIMIT_BYTES >> 20} MiB")
        return content

    def prompt(self, text: str) -> str:
        try:
            return input(f"{text} ")
        except EOFError as error:
            raise TerminalError("there is nobody to ask: standard input has ended") from error

    def check(self) -> None:
        """A local user who leaves ends this process."""


def _write(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:  # a terminal of another encoding, or half a character
        print(text.encode("ascii", "backslashreplace").decode(), file=stream, flush=True)
