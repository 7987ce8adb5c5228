"""`hostagent startup`: what a run by hand shows while it works, and where what it did can be read."""

from __future__ import annotations

import json
from argparse import Namespace

from hostagent.cli.startup import _Progress, show_report
from hostagent.errors import OperatorError
from hostagent.startup.report import Kind, Recorder
from hostagent.startup.runner import run_sequence
from hostagent.startup.state import HostState
from hostagent.startup.step import Context, Outcome, Policy, Unchanged
from tests.pure.startup_tree import a_step, context_of, fails, make_paths


def waits(context: Context) -> Outcome:
    context.progress("waiting for xenstored")
    return Unchanged()


def test_what_a_step_is_doing_is_shown_on_a_terminal_only(tmp_path, capsys):
    config = context_of(make_paths(tmp_path)).config

    for shown in (True, False):
        run_sequence((a_step("slow", waits),), config, HostState(), observers=(_Progress(shown=shown),))

    assert capsys.readouterr().err == "slow: waiting for xenstored\n"


def test_the_last_run_by_hand_can_be_read_and_tells_why_the_host_must_stay_disabled(tmp_path, capsys):
    paths = make_paths(tmp_path)
    config = context_of(paths).config
    places = {name: str(getattr(paths, name)) for name in ("etc", "state", "run", "root")}
    step = a_step("by-hand", fails(OperatorError("no toolstack", hint="")), policy=Policy.DEGRADE)
    observers = (Recorder(paths, Kind.MANUAL),)
    run_sequence((step,), config, HostState(), observers=observers, kind=Kind.MANUAL)

    code = show_report(Namespace(**places, manual=True, boot=0, json=False))

    text = capsys.readouterr().out
    assert code == 2
    assert "the host must stay disabled: by-hand: no toolstack" in text
    show_report(Namespace(**places, manual=True, boot=0, json=True))
    assert json.loads(capsys.readouterr().out)["blockers"] == ["by-hand: no toolstack"]
