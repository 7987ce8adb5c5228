"""The only module that starts a process.

No shell, a fixed environment, always a deadline; the error holds what is needed to repeat the command by
hand. The child gets its own process group, so that a deadline ends its children too. A command is over when
its process ends, whoever still holds its output: what it left in the background goes on, and must send its
output elsewhere (writing to ours ends it with SIGPIPE).
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
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
OUTPUT_LIMIT_BYTES = 16 << 20  # kept of each stream; the rest is read and dropped
PIPE_BYTES = 64 * 1024  # what a pipe holds, pipe(7)
KILLED_WAIT_S = 1.0  # for a killed process to be gone; one that waits for a dead disk is not


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
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
) -> Finished:
    """Run a program to its end and return what it printed; it gets no input.

    Arguments: `package`, the Debian package that holds the program, named when it is missing; `environment`,
    added to the fixed one; `check=False` hands back a non-zero exit instead of raising.

    Raises CommandError: not found, non-zero exit or signal, or past `timeout_s` (its whole process group is
    killed then).
    """
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**ENVIRONMENT, **(environment or {})},
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        hint = f"apt-get install {package}" if package else "is it installed, and on the PATH of a service?"
        raise CommandError(argv, "was not found", hint=hint) from error
    except OSError as error:
        raise CommandError(argv, f"could not be started: {error.strerror}", hint="try it by hand") from error
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(stream) for stream in (process.stdout, process.stderr) if stream]
        ended = os.pidfd_open(process.pid)
        stack.callback(os.close, ended)
        output = collect(ended, [stream.fileno() for stream in streams], started + timeout_s)
        if output is None:
            raise CommandError(
                argv,
                f"did not end within {timeout_s:g} s and was killed{_kill(process)}",
                hint="try it by hand to see where it stops",
            )
    stdout, stderr = (data.decode(errors="backslashreplace") for data in output)
    process.wait()
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


def collect(ended: int, streams: Sequence[int], expires: float) -> list[bytes] | None:
    """Read pipes until `ended` (a pidfd) becomes readable; None when it has not by `expires` (monotonic).

    Whether the pipes end does not matter: others may hold them. What is in them at the end is read too.
    """
    output = {stream: bytearray() for stream in streams}
    with selectors.DefaultSelector() as selector:
        for descriptor in (ended, *streams):
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select(max(0.0, expires - time.monotonic()))}
            for stream in ready - {ended}:
                if not _read(stream, output[stream]):
                    selector.unregister(stream)
            if ended in ready:
                break
            if time.monotonic() >= expires:
                return None
    for stream in streams:
        _read(stream, output[stream])  # a process that has ended leaves no more than a pipe holds
    return [bytes(data) for data in output.values()]


def _read(stream: int, into: bytearray) -> bool:
    """Take what is in a pipe now, at most what one holds; False when nobody can write to it any more."""
    try:
        data = os.read(stream, PIPE_BYTES)
    except BlockingIOError:
        return True
    into += data[: OUTPUT_LIMIT_BYTES - len(into)]
    return bool(data)


def _kill(process: subprocess.Popen[bytes]) -> str:
    """Kill the process and its group; what is to be said about one that does not go."""
    os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(KILLED_WAIT_S)
    except subprocess.TimeoutExpired:
        return ", but it is still there: it waits for a device that does not answer"
    return ""


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
