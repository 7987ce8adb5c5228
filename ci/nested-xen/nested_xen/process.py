"""The only module of the lab that starts processes."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from nested_xen.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

PROC = Path("/proc")
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""The kernel kills the program when the thread that started it ends, also by SIGKILL; not what it forks."""
CONTAINED = ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child")
"""A pid namespace: when its first process is killed, the kernel kills every other one in it."""


@dataclass(frozen=True, slots=True)
class Result:
    """A finished process: exit code and output as text."""

    code: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float = 60,
    stdin: str | bytes | BinaryIO = "",
    check: bool = True,
    log: Path | None = None,
    output: BinaryIO | None = None,
    contained: bool = False,
) -> Result:
    """Run a program; raise LabError when it is missing, fails (if `check`) or runs past its deadline.

    It ends with us, however we end: interrupted, or by SIGKILL. With `contained` (needs root) that holds for
    everything it starts too; a program that leaves a process behind on purpose (ssh's master) cannot be.

    `stdin` and `output` (standard output alone) may be open files. With `log`, all its output goes there and
    the last lines are shown on failure.
    """
    words = _words(argv)
    shown = shlex.join(words)
    data = stdin.encode() if isinstance(stdin, str) else stdin
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("wb")) if log else output or subprocess.PIPE
        process = subprocess.Popen(
            [*DIES_WITH_US, *(CONTAINED if contained else ()), *words],
            stdin=subprocess.PIPE if isinstance(data, bytes) else data,
            stdout=out,
            stderr=subprocess.STDOUT if log else subprocess.PIPE,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(data if isinstance(data, bytes) else None, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _end_group(process)
            raise LabError(f"`{shown}` did not end within {timeout_s:g} s", hint=_tail(log)) from error
        except BaseException:
            _end_group(process)
            raise
    result = Result(
        process.returncode, (stdout or b"").decode(errors="replace"), (stderr or b"").decode(errors="replace")
    )
    if check and result.code != 0:
        raise LabError(
            f"`{shown}` failed with {result.code}: {result.stderr.strip()[-2000:]}", hint=_tail(log)
        )
    return result


def stream(argv: Sequence[str | Path], *, timeout_s: float) -> int:
    """Run a program on our own standard streams; its exit code. LabError as `run`; it ends with us too."""
    words = _words(argv)
    process = subprocess.Popen([*DIES_WITH_US, *words])
    try:
        return process.wait(timeout_s)
    except BaseException as error:
        process.kill()
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise LabError(f"`{shlex.join(words)}` did not end within {timeout_s:g} s") from error
        raise


def spawn(argv: Sequence[str | Path], *, log: Path, outlives_us: bool = True) -> int:
    """Start a program in a session of its own and go on; its output goes to `log`. Returns the pid."""
    words = _words(argv)
    with log.open("ab") as out:
        process = subprocess.Popen(
            words if outlives_us else [*DIES_WITH_US, *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    _spawned.append(process)
    return process.pid


_spawned: list[subprocess.Popen[bytes]] = []


def reap() -> None:
    """Collect children that ended, so that they do not stay as zombies of a long test run."""
    _spawned[:] = [process for process in _spawned if process.poll() is None]


def alive(pid: int) -> bool:
    """Is there a process with this pid that has not ended (a zombie has)?"""
    return started_at(pid) is not None


def started_at(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (proc(5), field 22): tells a reused pid from the old
    one. None when there is none or it has ended (a zombie).
    """
    reap()
    try:
        state, *fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        # the first thread can be a zombie while others still hold files and locks (QEMU after SIGKILL)
        if state == "Z" and len(list((PROC / str(pid) / "task").iterdir())) == 1:
            return None
        return int(fields[18])
    except (OSError, ValueError, IndexError):
        return None


def kill(pid: int, *, timeout_s: float = 60) -> None:
    """SIGKILL a process and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + timeout_s
    while alive(pid):
        if time.monotonic() > deadline:
            raise LabError(f"process {pid} does not end after SIGKILL")
        time.sleep(0.02)


def end(pid: int, *, timeout_s: float = 5) -> None:
    """End what `spawn` started, children too: SIGTERM, SIGKILL when that does not do; wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    kill(pid)


def require(program: str, package: str) -> str:
    """The path of a program, or a LabError that names the Debian package."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise LabError(f"{program} is not installed", hint=f"apt-get install {package}")
    return found


def require_root() -> None:
    """Raises LabError when we are not root."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: taps and network namespaces", hint="run it with sudo")


def exec_replace(argv: Sequence[str]) -> None:
    """Become another program (interactive ssh)."""
    os.execvp(argv[0], list(argv))  # noqa: S606 - an argument list, no shell


def _words(argv: Sequence[str | Path]) -> list[str]:
    words = [str(word) for word in argv]
    if shutil.which(words[0]) is None:
        raise LabError(f"{words[0]} is not installed", hint="scripts/bootstrap lab installs it")
    return words


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL what `run` started and what that started in its process group; wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # ssh's kept master still holds our pipes
        process.communicate(timeout=1)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    process.wait()


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    return f"see {log}; its end:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
