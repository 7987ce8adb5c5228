"""`hostagent startup`: the table of steps, one step by hand, and what the last start-up did."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from hostagent.cli.parser import command, group

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from hostagent.cli.parser import Parser, Subparsers
    from hostagent.startup.report import Report, StepRecord

EXIT_CODES = """\
exit codes:
  0  clean      every step did what it should (or the start-up is still running and nothing went wrong)
  2  degraded   through to the end, but a step failed, was blocked or warned
  1  stopped    not through to the end, or there is no report"""


def add_parser(subparsers: Subparsers) -> None:
    commands = group(
        subparsers,
        "startup",
        summary="the start-up sequence: its steps, one step by hand, what the last start did",
        description="""\
Start-up is a table of steps, run in order by the daemon. Each has one outcome:
  changed    the host was changed; the exact changes are in the report
  unchanged  the host was already as it should be
  skipped    the step does not apply here (the reason says why)
  failed     with what was found and what to do
  blocked    a step it needs failed
What a failure does is the step's policy: halt (the daemon ends), emergency (only a few local calls answer
and the daemon tries again later), degrade (the host stays disabled), best-effort (a warning).
Every step is safe to repeat on a running host.""",
        examples="""
            hostagent startup report                    what happened at the last start
            hostagent startup list                      the table
            hostagent startup run write-xenstore-keys   one step, exactly as at boot
            hostagent startup blame                     what took longest
        """,
    )
    _add_list(commands)
    _add_run(commands)
    _add_reports(commands)


def _add_list(commands: Subparsers) -> None:
    parser = command(
        commands,
        "list",
        list_steps,
        summary="the table of steps in the order they run",
        description="The table of steps in the order they run, and why each stands where it does.",
        examples="""
            hostagent startup list
            hostagent startup list --all        with the steps that are not built yet
            hostagent startup list --json
        """,
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="every step of the reference, built or not",
    )


def _add_run(commands: Subparsers) -> None:
    parser = command(
        commands,
        "run",
        run_step,
        summary="run one step now, exactly as at boot",
        description="""\
Run one step now: the same code, deadline and record as at boot. The report of the boot is left alone; what
this run did is kept beside it (`report --manual`). Not while the daemon's start-up, or another run, is at work.
Steps that only the daemon can do (signals, READY) are skipped.""",
        examples="""
            hostagent startup run run-startup-checks
            hostagent startup run write-xenstore-keys --dry-run   what it would change
            hostagent startup run set-dom0-memory --with-needs    first the steps it needs
            hostagent startup run S13                             the number works too
        """,
    )
    parser.add_argument("name", metavar="NAME", help="a step's name or S-number (`hostagent startup list`)")
    parser.add_argument("--with-needs", action="store_true", help="run the steps it needs first")
    parser.add_argument("--dry-run", action="store_true", help="show the exact changes and make none")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting for this run only"
    )


def _add_reports(commands: Subparsers) -> None:
    report = command(
        commands,
        "report",
        show_report,
        summary="what the last start-up did, step by step",
        description=f"What the last start-up did, step by step.\n\n{EXIT_CODES}",
        examples="""
            hostagent startup report
            hostagent startup report --boot 1     the start before the last
            hostagent startup report --manual     the last `hostagent startup run`
            hostagent startup report --json | jq '.steps[] | select(.status == "failed")'
        """,
    )
    _add_boot(report)
    report.add_argument("--manual", action="store_true", help="what the last `startup run` did instead")
    blame = command(
        commands,
        "blame",
        show_blame,
        summary="the steps of the last start-up, slowest first",
        examples="""
            hostagent startup blame
            hostagent startup blame --boot 1
        """,
    )
    _add_boot(blame)
    plot = command(
        commands,
        "plot",
        plot_report,
        summary="the last start-up as a picture (SVG)",
        examples="""
            hostagent startup plot -o startup.svg
            hostagent startup plot > startup.svg
        """,
    )
    _add_boot(plot)
    plot.add_argument("-o", "--output", metavar="FILE", help="write here instead of to standard output")


def _add_boot(parser: Parser) -> None:
    parser.add_argument("--boot", type=int, default=0, metavar="N", help="N starts before the last (0 to 10)")


def list_steps(args: argparse.Namespace) -> int:
    from hostagent.cli import output
    from hostagent.startup.catalogue import list_rows

    rows = list_rows(with_unbuilt=args.all)
    deadline = output.Column("timeout_s", "deadline", output.duration)
    known = ("ref", "name", "role", "policy", deadline, "why")
    everything = ("ref", "name", "state", "role", "policy", "owner", "title", "why")
    output.emit(args, rows, columns=everything if args.all else known)
    return 0


def run_step(args: argparse.Namespace) -> int:
    from hostagent import log
    from hostagent.config import Paths
    from hostagent.errors import OperatorError
    from hostagent.startup.report import Kind, Recorder, Status
    from hostagent.startup.runner import run_one
    from hostagent.startup.state import begin
    from hostagent.startup.table import ALIASES, STEPS

    if os.geteuid() != 0 and not args.dry_run:
        raise OperatorError(
            "only root can run a step", hint="sudo hostagent startup run … (--dry-run may do)"
        )
    config, host = begin(Paths.from_arguments(args), overrides=args.set)
    if host.config_error is not None:
        raise host.config_error
    log.set_up("warning")
    recorder = () if args.dry_run else (Recorder(config.paths, Kind.MANUAL),)
    observers = (*recorder, _Progress(shown=sys.stderr.isatty() and not args.json))
    try:
        report = run_one(
            args.name,
            STEPS,
            config,
            host,
            aliases=ALIASES,
            with_needs=args.with_needs,
            dry_run=args.dry_run,
            observers=observers,
        )
    finally:
        host.close()
    _print_run(args, report)
    return 1 if any(step.status in (Status.FAILED, Status.BLOCKED) for step in report.steps) else 0


class _Progress:
    """Observer that shows on the terminal what a step is doing, as some take minutes."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown

    def step_started(self, record: StepRecord, report: Report) -> None: ...

    def step_progressed(self, record: StepRecord, report: Report) -> None:
        if self._shown:
            print(f"{record.name}: {record.progress}", file=sys.stderr, flush=True)

    def step_finished(self, record: StepRecord, report: Report) -> None: ...

    def sequence_finished(self, report: Report) -> None: ...


def _print_run(args: argparse.Namespace, report: Report) -> None:
    from hostagent.cli import output
    from hostagent.startup.report import as_json

    if args.json:
        output.emit(args, as_json(report))
        return
    changes = [
        {"step": step.name, "object": change.what, "old": change.old, "new": change.new}
        for step in report.steps
        for change in step.changes
    ]
    output.emit(args, [_row(step) for step in report.steps])
    if changes:
        print("\nwould change:" if args.dry_run else "\nchanged:")
        output.emit(args, changes)
    _print_trouble(report)


def show_report(args: argparse.Namespace) -> int:
    from hostagent.cli import output
    from hostagent.config import Paths
    from hostagent.startup.report import REPORT_EXIT, as_json, load, load_manual

    paths = Paths.from_arguments(args)
    report = load_manual(paths) if args.manual else load(paths, boot=args.boot)
    if args.json:
        output.emit(args, as_json(report))
    else:
        output.emit(args, [_row(step) for step in report.steps], empty="no step has started yet")
        print(f"\n{_summary(report)}")
        _print_trouble(report)
    if report.result is None:
        return 2 if any(step.troubled for step in report.steps) else 0
    return REPORT_EXIT[report.result]


def show_blame(args: argparse.Namespace) -> int:
    from hostagent.cli import output
    from hostagent.config import Paths
    from hostagent.startup.report import blame, load

    rows = [
        {"seconds": step.seconds, "step": step.name, "outcome": step.status.value, "note": step.note}
        for step in blame(load(Paths.from_arguments(args), boot=args.boot))
    ]
    output.emit(
        args, rows, columns=(output.Column("seconds", "time", output.duration), "step", "outcome", "note")
    )
    return 0


def plot_report(args: argparse.Namespace) -> int:
    from pathlib import Path

    from hostagent.cli import output
    from hostagent.config import Paths
    from hostagent.errors import OperatorError
    from hostagent.startup.plot import svg
    from hostagent.startup.report import load

    picture = svg(load(Paths.from_arguments(args), boot=args.boot))
    if args.output is None:
        output.emit(args, {"svg": picture}) if args.json else print(picture, end="")
        return 0
    try:
        Path(args.output).write_text(picture)
    except OSError as error:
        raise OperatorError(
            f"{args.output} could not be written: {error.strerror}", hint="choose another place with -o"
        ) from error
    output.emit(args, {"file": args.output})
    return 0


def _row(step: StepRecord) -> Mapping[str, object]:
    from hostagent.cli import output
    from hostagent.startup.report import Status

    blocked = f"by {', '.join(step.blocked_by)}" if step.blocked_by else ""
    return {
        "ref": step.ref,
        "step": step.name,
        "outcome": step.status.value,
        "time": "" if step.status in (Status.SKIPPED, Status.BLOCKED) else output.duration(step.seconds),
        "note": step.error["found"] if step.error else step.note or blocked or _doing(step),
    }


def _doing(step: StepRecord) -> str:
    from hostagent.startup.report import Status

    if step.status in (Status.RUNNING, Status.INTERRUPTED):
        return step.progress
    if len(step.changes) == 1:
        return step.changes[0].what
    return f"{len(step.changes)} changes" if step.changes else ""


def _summary(report: Report) -> str:
    from hostagent.cli import output

    started = f"started {output.when(report.started_at)}, {output.duration(report.seconds)}"
    if report.result is None:
        names = ", ".join(step.name for step in report.running) or "between two steps"
        return f"running now: {names} ({started})"
    culprit = report.stopped_by
    why = f", {report.ending.value}" if report.ending and culprit else ""
    at = f" at {culprit.name}" if culprit else ""
    return f"{report.result.value}{why}{at} ({started})"


def _print_trouble(report: Report) -> None:
    for blocker in report.blockers:
        print(f"\nthe host must stay disabled: {blocker}")
    for step in report.steps:
        for warning in step.warnings:
            print(f"\n{step.name}: warning: {warning}")
        if step.error:
            print(f"\n{step.name} ({step.policy}): {step.error['found']}\nhint: {step.error['hint']}")
