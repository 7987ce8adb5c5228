"""Running a program: when it counts as over, and what happens at its deadline; the process is an imitation."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import BinaryIO

import pytest

from hostagent import run as module
from hostagent.run import CommandError, collect, run


class Pipe:
    """A pipe; `leave` closes the end of the one who writes."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.pipe()

    def leave(self) -> None:
        os.close(self.theirs)
        self.theirs = -1

    def close(self) -> None:
        for descriptor in (self.ours, self.theirs):
            with contextlib.suppress(OSError):
                os.close(descriptor)


class Imitation:
    """A process of pid 77 and its pipes; it has ended when `ended` is readable, which a closed pipe is."""

    def __init__(self) -> None:
        self.out, self.err, self.ended = Pipe(), Pipe(), Pipe()
        self.stdout: BinaryIO | None = None
        self.stderr: BinaryIO | None = None
        self.pid = 77
        self.returncode = 0
        self.killed: list[tuple[int, int]] = []
        self.goes = True

    def start(self, _argv, *, stdout, stderr, **_options):
        assert stdout == stderr == subprocess.PIPE
        self.stdout, self.stderr = (os.fdopen(os.dup(pipe.ours), "rb") for pipe in (self.out, self.err))
        return self

    def wait(self, timeout=None):
        if not self.goes:
            raise subprocess.TimeoutExpired("it", timeout)
        return self.returncode

    def close(self) -> None:
        for pipe in (self.out, self.err, self.ended):
            pipe.close()


@pytest.fixture
def process(monkeypatch):
    made = Imitation()
    monkeypatch.setattr(subprocess, "Popen", made.start)
    monkeypatch.setattr(os, "pidfd_open", lambda pid: os.dup(made.ended.ours))
    monkeypatch.setattr(os, "killpg", lambda pid, number: made.killed.append((pid, number)))
    yield made
    made.close()


def test_a_program_is_over_when_its_process_ends_whoever_still_holds_its_output(process):
    os.write(process.out.theirs, b"said \xff")
    os.write(process.err.theirs, b"warned")
    process.ended.leave()

    finished = run(["it"], timeout_s=60)

    assert (finished.code, finished.stdout, finished.stderr) == (0, "said \\xff", "warned")
    assert process.killed == []


def test_past_its_deadline_the_whole_group_is_killed(process):
    with pytest.raises(CommandError, match=r"did not end within 0.01 s and was killed$"):
        run(["it"], timeout_s=0.01)

    assert process.killed == [(77, signal.SIGKILL)]


def test_one_that_cannot_be_killed_is_told_and_not_waited_for(process):
    process.goes = False

    with pytest.raises(CommandError, match="still there"):
        run(["it"], timeout_s=0.01)


def test_a_failure_tells_the_end_of_what_it_printed(process):
    process.returncode = 3
    os.write(process.err.theirs, b"it broke\n")
    process.ended.leave()

    with pytest.raises(CommandError, match="failed with exit code 3: it broke"):
        run(["it"], timeout_s=60)


def test_closed_outputs_do_not_end_the_wait_for_the_process(process):
    process.out.leave()
    process.err.leave()

    assert collect(process.ended.ours, [process.out.ours], time.monotonic() + 0.01) is None


def test_of_an_endless_output_only_a_part_is_kept(process, monkeypatch):
    monkeypatch.setattr(module, "OUTPUT_LIMIT_BYTES", 3)
    os.write(process.out.theirs, b"12345")
    process.ended.leave()

    assert collect(process.ended.ours, [process.out.ours], time.monotonic() + 60) == [b"123"]
