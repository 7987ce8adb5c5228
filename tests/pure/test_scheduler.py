"""The scheduler against a clock of the test's own; and once with its thread."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import KernelError
from hostagent.scheduler import IDLE_S, Scheduler


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def scheduler(clock):
    made = Scheduler(clock)
    yield made
    made.stop()


def test_a_job_runs_when_it_is_due_and_its_period_counts_from_its_end(scheduler, clock):
    done = []

    def work():
        done.append(clock.now)
        clock.now += 2

    scheduler.every("a", 5, work)

    assert scheduler.run_due() == 5
    assert done == []
    clock.now += 5
    assert scheduler.run_due() == 5
    assert done == [105.0]


def test_a_job_has_its_name_also_while_it_runs(scheduler):
    seen = []
    scheduler.every("later", 50, lambda: None)
    scheduler.every("now", 5, lambda: seen.append(scheduler.names), first_s=0)

    scheduler.run_due()

    assert seen == [("now", "later")]
    assert scheduler.names == ("now", "later")


def test_the_first_time_may_be_another(scheduler):
    done = []
    scheduler.every("a", 50, lambda: done.append(1), first_s=0)

    assert scheduler.run_due() == IDLE_S
    assert done == [1]


def test_what_a_job_raises_is_logged_and_it_runs_again(scheduler, clock, caplog):
    errors = iter([KernelError("no such device", hint="plug it in"), ValueError("oops")])

    def work():
        raise next(errors)

    scheduler.every("a", 5, work, first_s=0)
    scheduler.run_due()
    clock.now += 5
    scheduler.run_due()

    assert caplog.messages == ["a: no such device; plug it in", "a ended with a defect"]
    assert scheduler.names == ("a",)


def test_a_job_of_the_same_name_takes_the_place_of_the_first(scheduler, clock):
    done = []
    scheduler.every("a", 5, lambda: done.append("old"))
    scheduler.every("a", 5, lambda: done.append("new"))
    clock.now += 5
    scheduler.run_due()

    assert done == ["new"]


def test_a_job_may_replace_itself(scheduler, clock):
    done = []
    scheduler.every("a", 5, lambda: scheduler.every("a", 7, lambda: done.append("second")), first_s=0)
    assert scheduler.run_due() == 7
    clock.now += 7
    scheduler.run_due()

    assert done == ["second"]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.lists(st.integers(0, 12), max_size=12))
def test_no_job_runs_early_and_none_is_left_waiting(periods, steps):
    clock = Clock()
    scheduler = Scheduler(clock)
    ran = {name: [clock.now] for name in range(len(periods))}

    def note(name: int) -> None:
        ran[name].append(clock.now)

    for name, period in enumerate(periods):
        scheduler.every(str(name), period, partial(note, name))
    for step in steps:
        clock.now += step
        scheduler.run_due()
        for name, period in enumerate(periods):
            assert clock.now - ran[name][-1] < period
    for name, period in enumerate(periods):
        gaps = [after - before for before, after in zip(ran[name], ran[name][1:], strict=False)]
        assert all(gap >= period for gap in gaps)
    scheduler.stop()


def test_its_thread_runs_jobs_that_are_added_later_until_it_is_stopped():
    done = threading.Event()
    scheduler = Scheduler()
    scheduler.start()
    scheduler.start()
    scheduler.every("a", 3600, done.set, first_s=0)

    assert done.wait(30)
    scheduler.stop()
    assert scheduler.run_due() == IDLE_S
