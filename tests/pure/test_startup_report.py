# mypy: disable-error-code="union-attr,attr-defined,arg-type,index"
"""The report: what the file holds at every moment, its round trip, rotation, results, blame."""

from __future__ import annotations

import errno
import json
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import InvalidValueError, OperatorError
from hostagent.startup import report as reports
from hostagent.startup.report import (
    KEEP,
    BootResult,
    Ending,
    Kind,
    Recorder,
    Report,
    ReportError,
    Status,
    StepRecord,
    as_json,
    blame,
    from_json,
    load,
    load_manual,
)
from hostagent.startup.runner import run_sequence
from hostagent.startup.state import HostState
from hostagent.startup.step import Change, Policy, Unchanged
from tests.pure.startup_tree import BOOT_ID, a_step, context_of, fails, make_paths, put, value_or_error


def on_disk(paths):
    return json.loads(paths.report.read_text())


def run(paths, *steps, kind=Kind.BOOT):
    return run_sequence(
        steps, context_of(paths).config, HostState(), observers=(Recorder(paths, kind),), kind=kind
    )


def a_process(paths, *, start_ticks=4711, pid=1234):
    put(paths.root / f"proc/{pid}/stat", f"{pid} (a (b) c) S " + "0 " * 18 + f"{start_ticks} 0 0\n")


def an_open_report(*steps, ticks=4711):
    return Report(Kind.BOOT, "0.1", BOOT_ID, 1234, ticks, 1e9, steps=steps)


def a_record(name="a", status=Status.UNCHANGED, **changes):
    plain = StepRecord(name, "S1", "any", "halt", 5.0, background=False, status=status, offset_s=0.0)
    return replace(plain, **changes)


def test_the_file_shows_the_running_step_at_every_moment(paths):
    seen = []

    def look(_):
        present = json.loads((paths.run / "startup-report.json").read_text())
        seen.append([(step["name"], step["status"]) for step in present["steps"]])
        return Unchanged()

    run(paths, a_step("a", look), a_step("b", look))

    assert seen == [[("a", "running")], [("a", "unchanged"), ("b", "running")]]
    assert on_disk(paths)["ending"] == "complete"
    assert on_disk(paths)["result"] == "clean"


@pytest.mark.parametrize("crash_at", range(1, 6))
def test_after_a_crash_at_any_write_the_last_state_can_be_read(paths, crash_at, monkeypatch):
    writes = []
    real = reports.write_atomic

    def write(path, *args, **options):
        if path.parent == paths.run:
            writes.append(1)
        if len(writes) <= crash_at:
            real(path, *args, **options)

    monkeypatch.setattr(reports, "write_atomic", write)
    run(paths, a_step("a"), a_step("b", fails(OperatorError("x", hint="y"))))

    found = load(paths)

    reached = [
        {"a": Status.INTERRUPTED},
        {"a": Status.UNCHANGED},
        {"a": Status.UNCHANGED, "b": Status.INTERRUPTED},
        {"a": Status.UNCHANGED, "b": Status.FAILED},
        {"a": Status.UNCHANGED, "b": Status.FAILED},
    ]
    assert {step.name: step.status for step in found.steps} == reached[crash_at - 1]
    assert found.result is (BootResult.DEGRADED if crash_at == 5 else BootResult.STOPPED)
    assert found.ending is (Ending.COMPLETE if crash_at == 5 else Ending.INTERRUPTED)


def test_after_a_power_cut_the_disk_has_a_whole_report_of_some_moment(paths, monkeypatch):
    written = []
    real = reports.write_atomic

    def write(path, data, **options):
        if path == paths.report:
            written.append(json.loads(data))
        real(path, data, **options)

    monkeypatch.setattr(reports, "write_atomic", write)
    run(paths, a_step("a"), a_step("b"))
    (paths.run / "startup-report.json").unlink()

    assert load(paths).result is BootResult.CLEAN
    assert [len(report["steps"]) for report in written] == sorted(len(report["steps"]) for report in written)
    assert written[-1]["ending"] == "complete"


def test_the_report_of_another_boot_in_run_does_not_count(paths):
    run(paths, a_step("new"))
    old = replace(an_open_report(a_record("old")), boot_id="another", ending=Ending.COMPLETE)
    (paths.run / "startup-report.json").write_text(json.dumps(as_json(old)))

    assert load(paths).steps[0].name == "new"


def test_a_report_of_a_living_process_is_running(paths):
    a_process(paths)
    paths.report.write_text(json.dumps(as_json(an_open_report(a_record(status=Status.RUNNING)))))

    found = load(paths)

    assert found.result is None
    assert [step.name for step in found.running] == ["a"]


@pytest.mark.parametrize("other", [{"pid": 99}, {"pid_start_ticks": 4712}, {"boot_id": "another"}])
def test_a_report_of_a_process_that_is_gone_is_interrupted(paths, other):
    a_process(paths)
    broken_off = replace(an_open_report(a_record(status=Status.RUNNING)), **other)
    paths.report.write_text(json.dumps(as_json(broken_off)))

    found = load(paths)

    assert (found.result, found.steps[0].status) == (BootResult.STOPPED, Status.INTERRUPTED)
    assert found.stopped_by.name == "a"


def test_earlier_boots_are_kept_and_the_oldest_goes(paths):
    for number in range(KEEP + 3):
        run(paths, a_step(f"boot-{number}"))

    names = [load(paths, boot=boot).steps[0].name for boot in range(KEEP + 1)]

    assert names == [f"boot-{number}" for number in range(KEEP + 2, 1, -1)]
    assert len(list(paths.state.glob("startup-report*"))) == KEEP + 1


def test_a_loop_of_failures_leaves_the_reports_of_the_boots_before_it(paths):
    broken = a_step("broken", fails(OperatorError("no", hint="")), policy=Policy.HALT)
    run(paths, a_step("good"))
    for _ in range(KEEP + 3):
        run(paths, broken)
    run(paths, a_step("mended"))

    names = [load(paths, boot=boot).steps[0].name for boot in range(3)]

    assert names == ["mended", "broken", "good"]


def test_what_a_step_is_doing_is_in_run_at_once(paths):
    seen = []

    def work(context):
        context.progress("waiting for xenstored")
        seen.append(json.loads((paths.run / "startup-report.json").read_text())["steps"][0]["progress"])
        return Unchanged()

    run(paths, a_step("a", work))

    assert seen == ["waiting for xenstored"]


def test_a_report_of_an_earlier_version_has_no_blockers(paths):
    document = as_json(run(paths, a_step("a")))
    del document["blockers"]

    assert reports.from_json(document).blockers == ()


def test_a_number_beyond_all_bounds_is_no_report(paths):
    run(paths, a_step("a"))
    document = as_json(load(paths))
    for path in (paths.report, paths.run / "startup-report.json"):
        path.write_text(json.dumps({**document, "pid": float("inf")}))

    with pytest.raises(ReportError, match="not a start-up report"):
        load(paths)


def test_a_gap_that_a_killed_rotation_left_is_passed_over(paths):
    for number in range(3):
        run(paths, a_step(f"boot-{number}"))
    reports.numbered(paths.report, 1).unlink()

    assert load(paths, boot=1).steps[0].name == "boot-0"


@pytest.mark.parametrize(("boot", "error"), [(1, ReportError), (-1, InvalidValueError)])
def test_a_boot_that_is_not_there_is_refused(paths, boot, error):
    run(paths, a_step("a"))

    with pytest.raises(error):
        load(paths, boot=boot)


def test_without_any_report_the_hint_names_the_daemon(paths):
    with pytest.raises(ReportError, match="no start-up report") as caught:
        load(paths)

    assert "systemctl" in caught.value.hint


def test_a_step_run_by_hand_leaves_the_boots_report_alone(paths):
    run(paths, a_step("boot"))
    run(paths, a_step("by-hand"), kind=Kind.MANUAL)

    assert load(paths).steps[0].name == "boot"
    assert load_manual(paths).steps[0].name == "by-hand"


def test_a_disk_that_refuses_is_told_once_and_start_up_goes_on(paths, caplog):
    paths.state.rmdir()
    paths.state.write_text("not a directory")

    report = run(paths, a_step("a"), a_step("b"))

    assert report.result is BootResult.CLEAN
    assert caplog.text.count("the start-up report cannot be kept") == 1
    assert load(paths).result is BootResult.CLEAN


def test_blame_is_slowest_first_without_what_did_not_run():
    report = an_open_report(
        a_record("quick", seconds=0.1),
        a_record("slow", Status.FAILED, seconds=9.0),
        a_record("no", Status.SKIPPED, seconds=99.0),
        a_record("never", Status.BLOCKED),
        a_record("middle", seconds=1.0),
    )

    assert [step.name for step in blame(report)] == ["slow", "middle", "quick"]


@pytest.mark.parametrize(
    ("ending", "status", "result"),
    [
        (None, Status.RUNNING, None),
        (Ending.COMPLETE, Status.CHANGED, BootResult.CLEAN),
        (Ending.COMPLETE, Status.SKIPPED, BootResult.CLEAN),
        (Ending.COMPLETE, Status.FAILED, BootResult.DEGRADED),
        (Ending.COMPLETE, Status.BLOCKED, BootResult.DEGRADED),
        (Ending.HALTED, Status.FAILED, BootResult.STOPPED),
        (Ending.EMERGENCY, Status.FAILED, BootResult.STOPPED),
        (Ending.RESTART, Status.RESTART, BootResult.STOPPED),
        (Ending.STOPPED, Status.INTERRUPTED, BootResult.STOPPED),
        (Ending.INTERRUPTED, Status.INTERRUPTED, BootResult.STOPPED),
    ],
)
def test_the_result_of_a_boot_has_three_values(ending, status, result):
    assert replace(an_open_report(a_record(status=status)), ending=ending).result is result


texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
seconds = st.floats(min_value=0, max_value=1e6)
records = st.builds(
    StepRecord,
    name=st.text(string.ascii_lowercase, min_size=1, max_size=8),
    ref=texts,
    role=texts,
    policy=texts,
    timeout_s=seconds,
    background=st.booleans(),
    status=st.sampled_from(Status),
    offset_s=seconds,
    seconds=seconds,
    note=texts,
    progress=texts,
    warnings=st.lists(texts, max_size=2).map(tuple),
    changes=st.lists(st.builds(Change, texts, st.none() | texts, st.none() | texts), max_size=2).map(tuple),
    error=st.none()
    | st.fixed_dictionaries(
        {"code": texts, "params": st.lists(texts, max_size=2), "found": texts, "hint": texts}
    ),
    blocked_by=st.lists(texts, max_size=2).map(tuple),
)
any_report = st.builds(
    Report,
    kind=st.sampled_from(Kind),
    agent=texts,
    boot_id=texts,
    pid=st.integers(0, 2**22),
    pid_start_ticks=st.integers(0, 2**60),
    started_at=seconds,
    ending=st.none() | st.sampled_from(Ending),
    exit_code=st.none() | st.integers(0, 255),
    seconds=seconds,
    steps=st.lists(records, max_size=4).map(tuple),
)


@given(any_report)
def test_a_report_survives_its_file(report):
    assert from_json(json.loads(json.dumps(as_json(report)))) == report


def test_a_report_that_only_root_may_see_says_so(paths, monkeypatch):
    paths.report.write_text("{}")

    def refused(_path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(type(paths.report), "lstat", refused)
    monkeypatch.setattr(type(paths.report), "stat", refused)

    with pytest.raises(ReportError, match="Permission denied") as caught:
        load(paths)
    assert "as root" in caught.value.hint


def test_a_number_without_end_in_the_file_is_a_clear_error(paths):
    run(paths, a_step("a"))
    (paths.run / "startup-report.json").unlink()
    paths.report.write_text(paths.report.read_text().replace('"pid": ', '"pid": 1e999, "was": '))

    with pytest.raises(ReportError, match="not a start-up report"):
        load(paths)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_garbage_in_the_file_is_a_clear_error(tmp_path_factory, data):
    base = tmp_path_factory.mktemp("garbage")
    paths = make_paths(base)
    paths.report.write_bytes(data)

    with pytest.raises(ReportError, match="not a start-up report"):
        load(paths)


@given(any_report, st.sampled_from(["kind", "steps", "pid", "ending", "format", "seconds"]), json_values)
def test_a_report_with_one_field_replaced_is_read_or_refused(tmp_path_factory, report, field, value):
    paths = make_paths(tmp_path_factory.mktemp("field"))
    paths.report.write_text(json.dumps({**as_json(report), field: value}))

    found = value_or_error(lambda: load(paths), ReportError)

    assert isinstance(found, Report) or found.hint
