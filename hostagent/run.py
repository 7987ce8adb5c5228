"""The only module that starts a process.

No shell, a fixed environment, always a deadline; the error holds what is needed to repeat the command by
hand. The child gets its own process group, so that a deadline ends its children too.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"}
STDERR_TAIL = 2000  # characters of stderr an error shows: the end holds the reason


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that ended: exit code (negative: the signal that ended it), output as text, seconds it took."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float


class CommandError(OperatorError):
    """A program could not be started, failed or ran past its deadline."""

    def __init__(self, argv: Sequence[str], why: str, *, hint: str, finished: Finished | None = None) -> None:
        super().__init__(f"`{shlex.join(argv)}` {why}", hint=hint)
        self.argv = tuple(argv)
        self.finished = finished


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    package: str | None = None,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
) -> Finished:
    """Run a program to its end and return what it printed.

    Arguments: `package`, the Debian package that holds the program, named when it is missing; `environment`,
    added to the fixed one; `check=False` hands back a non-zero exit instead of raising.

    Raises CommandError: not found, non-zero exit or signal, or past `timeout_s` (its whole process group is
    killed then).
    """
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            env={**ENVIRONMENT, **(environment or {})},
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        hint = f"apt-get install {package}" if package else "is it installed, and on the PATH of a service?"
        raise CommandError(argv, "was not found", hint=hint) from error
    except OSError as error:
        raise CommandError(argv, f"could not be started: {error.strerror}", hint="try it by hand") from error
    try:
        stdout, stderr = process.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise CommandError(
            argv,
            f"did not end within {timeout_s:g} s and was killed",
            hint="try it by hand to see where it stops",
        ) from error
    finished = Finished(tuple(argv), process.returncode, stdout, stderr, time.monotonic() - started)
    log.debug("ran %s: exit %d in %.3f s", shlex.join(argv), finished.code, finished.seconds)
    if check and finished.code != 0:
        raise CommandError(
            argv,
            f"{_ending(finished.code)}: {stderr.strip()[-STDERR_TAIL:] or 'no message'}",
            hint="try it by hand to see it fail",
            finished=finished,
        )
    return finished


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
