"""The phases of the daemon and the error that blocks calls."""

from __future__ import annotations

import pytest

from hostagent.errors import OperatorError
from hostagent.lifecycle import Lifecycle, Phase

ERROR = OperatorError("found", hint="do").record()


@pytest.fixture
def starting():
    return Lifecycle()


def test_a_new_daemon_is_starting_and_says_the_host_is_still_booting(starting):
    assert starting.state.phase is Phase.STARTING
    assert starting.state.blocking is not None
    assert starting.state.blocking["code"] == "HOST_STILL_BOOTING"


def test_ready_opens_the_api_once(starting):
    assert starting.became_ready()
    assert starting.state.blocking is None
    assert not starting.became_ready()


def test_emergency_mode_stores_the_error_and_the_time_of_the_restart(starting):
    starting.entered_emergency(ERROR, 12.5)

    assert starting.state.phase is Phase.EMERGENCY
    assert (starting.state.blocking, starting.state.restart_at) == (ERROR, 12.5)


def test_emergency_mode_is_not_left_by_becoming_ready(starting):
    starting.entered_emergency(ERROR, 0.0)

    assert not starting.became_ready()
    assert starting.state.phase is Phase.EMERGENCY


def test_a_stopping_daemon_neither_becomes_ready_nor_enters_emergency_mode(starting):
    starting.stopping()
    starting.entered_emergency(ERROR, 0.0)

    assert not starting.became_ready()
    assert starting.state.phase is Phase.STOPPING
