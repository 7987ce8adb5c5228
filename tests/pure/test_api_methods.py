"""Calls by their wire names, as a client makes them."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.api.calls import METHODS
from hostagent.api.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND, Fault
from hostagent.api.methods import Dispatcher, Json, Param, method, text
from hostagent.api.roles import Role
from hostagent.api.service import Service, rss_bytes, xen_version
from hostagent.config import Paths
from hostagent.errors import OperatorError
from hostagent.lifecycle import Lifecycle
from hostagent.startup.report import Ending, Kind, Report, Status, StepRecord


@method("test.echo", Param("text", text), role=Role.READ_ONLY)
def echo(_service: Service, said: str) -> Json:
    return said


@method("test.bug", role=Role.READ_ONLY)
def bug(_service: Service) -> Json:
    raise KeyError("secret detail")


@method("test.disk", role=Role.POOL_ADMIN)
def disk(_service: Service) -> Json:
    raise OperatorError("the disk is full", hint="df")


@method("test.told", role=Role.POOL_ADMIN)
def told(_service: Service) -> Json:
    return {"error": {"code": "DISK_FULL"}}


class Client:
    """Speaks to a dispatcher in the words of the wire."""

    def __init__(self, root: Path) -> None:
        self.lifecycle = Lifecycle()
        self.levels: list[str] = []
        self.restarts: list[str] = []
        service = Service(
            Paths(run=root, root=root), self.lifecycle, 0.0, self.levels.append, self.restarts.append
        )
        self.dispatcher = Dispatcher((*METHODS, echo, bug, disk, told), service)

    def call(self, name: str, *params: object, role: Role = Role.POOL_ADMIN) -> Json:
        return self.dispatcher.call(name, list(params), role=role)

    def expect_error(self, name: str, *params: object, role: Role = Role.POOL_ADMIN) -> Fault:
        with pytest.raises(Fault) as caught:
            self.call(name, *params, role=role)
        return caught.value


@pytest.fixture
def booting(tmp_path):
    return Client(tmp_path)


@pytest.fixture
def ready(booting):
    booting.lifecycle.became_ready()
    return booting


def report(*steps: StepRecord, ending: Ending | None = None) -> Report:
    return Report(Kind.BOOT, "0", "boot", 1, 1, started_at=100.0, ending=ending, seconds=2.0, steps=steps)


def step(name: str, status: Status, **values: object) -> StepRecord:
    fixed = {"ref": "S1", "role": "any", "policy": "halt", "timeout_s": 1.0, "background": False}
    return StepRecord(name=name, status=status, offset_s=0.5, **fixed, **values)  # type: ignore[arg-type]


def test_every_call_is_our_own_and_has_a_description():
    assert all(item.name.startswith("hostagent.") and item.run.__doc__ for item in METHODS)


def test_an_unknown_call_is_method_not_found_with_its_name(ready):
    fault = ready.expect_error("VM.start")

    assert (fault.number, fault.code, fault.params) == (
        METHOD_NOT_FOUND,
        "MESSAGE_METHOD_UNKNOWN",
        ["VM.start"],
    )


@pytest.mark.parametrize(("given_params", "received"), [([], "0"), (["a", "b"], "2")])
def test_a_wrong_number_of_parameters_is_refused_with_both_numbers(ready, given_params, received):
    fault = ready.expect_error("test.echo", *given_params)

    assert fault.number == INVALID_PARAMS
    assert fault.code == "MESSAGE_PARAMETER_COUNT_MISMATCH"
    assert fault.params == ["test.echo", "1", received]


@pytest.mark.parametrize("wrong", [None, 1, True, ["a"], {"a": 1}])
def test_a_parameter_of_the_wrong_type_is_refused_by_name(ready, wrong):
    fault = ready.expect_error("test.echo", wrong)

    assert (fault.number, fault.code) == (INVALID_PARAMS, "FIELD_TYPE_ERROR")
    assert fault.params == ["text: wants a string"]


def test_while_booting_an_ordinary_call_gets_host_still_booting(booting):
    fault = booting.expect_error("test.echo", "x")

    assert (fault.number, fault.code, fault.params) == (1, "HOST_STILL_BOOTING", [])


def test_once_ready_an_ordinary_call_is_answered(ready):
    assert ready.call("test.echo", "x") == "x"


def test_in_emergency_mode_an_ordinary_call_gets_the_stored_error(ready):
    stored = OperatorError("no way", hint="none").record() | {"code": "HOST_BROKEN", "params": ["why"]}
    ready.lifecycle.entered_emergency(stored, 0.0)

    fault = ready.expect_error("test.echo", "x")

    assert (fault.code, fault.params) == ("HOST_BROKEN", ["why"])


def test_every_call_of_the_local_socket_works_while_booting(booting):
    assert booting.call("hostagent.status")
    assert booting.call("hostagent.startup_report") is None


def test_a_role_below_the_calls_is_refused(ready):
    fault = ready.expect_error("test.disk", role=Role.READ_ONLY)

    assert fault.code == "RBAC_PERMISSION_DENIED"


def test_an_error_of_ours_keeps_its_code_and_parameters(ready):
    fault = ready.expect_error("test.disk")

    assert (fault.number, fault.code, fault.params) == (1, "INTERNAL_ERROR", ["the disk is full"])


def test_what_root_changed_is_in_the_audit_log(ready, caplog):
    caplog.set_level("INFO", "hostagent.audit")
    ready.call("hostagent.set_log_level", "debug")
    ready.expect_error("test.disk")
    ready.call("test.told")
    ready.call("hostagent.status")

    assert [record.getMessage() for record in caplog.records if record.name == "hostagent.audit"] == [
        "root from local: hostagent.set_log_level: success",
        "root from local: test.disk: INTERNAL_ERROR",
        "root from local: test.told: DISK_FULL",
    ]


def test_a_bug_becomes_internal_error_with_a_reference_into_the_log(ready, caplog):
    with caplog.at_level(logging.ERROR):
        fault = ready.expect_error("test.bug")

    reference = fault.params[0].split()[2]
    assert fault.code == "INTERNAL_ERROR"
    assert "secret detail" not in fault.params[0]
    assert reference in caplog.text
    assert "secret detail" in caplog.text


def test_the_log_level_is_set_to_one_of_the_known_words(ready):
    assert ready.call("hostagent.set_log_level", "debug") == ""
    assert ready.levels == ["debug"]
    assert ready.expect_error("hostagent.set_log_level", "loud").code == "FIELD_TYPE_ERROR"


@given(st.text(), st.lists(st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())))
def test_any_name_and_parameters_raise_nothing_but_a_fault(name, params):
    client = Client(Path("/tmp/nonexistent-root"))

    for called in (name, *(item.name for item in METHODS)):
        with contextlib.suppress(Fault):
            client.call(called, *params)


def test_status_shows_the_running_step_and_what_it_is_doing(booting):
    booting.lifecycle.reported(report(step("wait", Status.RUNNING, progress="for xenstored")))

    status = booting.call("hostagent.status")

    assert isinstance(status, dict)
    assert status["state"] == "starting"
    assert status["error"]["code"] == "HOST_STILL_BOOTING"
    (running,) = status["running_steps"]
    assert (running["name"], running["doing"], running["since"]) == ("wait", "for xenstored", 100.5)


def test_status_shows_the_boot_result_and_the_steps_in_trouble(ready):
    error = OperatorError("no", hint="try").record()
    ready.lifecycle.reported(report(step("bad", Status.FAILED, error=error), ending=Ending.COMPLETE))

    status = ready.call("hostagent.status")

    assert isinstance(status, dict)
    assert (status["state"], status["boot_result"], status["startup_s"]) == ("ready", "degraded", 2.0)
    assert [(item["name"], item["error"]) for item in status["troubled_steps"]] == [("bad", error)]


def test_the_report_is_the_one_of_this_start(booting):
    booting.lifecycle.reported(report(step("one", Status.CHANGED)))

    answered = booting.call("hostagent.startup_report")

    assert isinstance(answered, dict)
    assert [item["name"] for item in answered["steps"]] == ["one"]


def test_memory_and_xen_version_come_from_the_given_root(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/statm").write_text("9000 1000 300 1 0 800 0\n")
    version = tmp_path / "sys/hypervisor/version"
    version.mkdir(parents=True)
    for name, value in (("major", "4\n"), ("minor", "20\n"), ("extra", ".4-pre\n")):
        (version / name).write_text(value)

    assert rss_bytes(tmp_path) in (1000 * 4096, 1000 * 16384, 1000 * 65536)
    assert xen_version(tmp_path) == "4.20.4-pre"


def test_without_proc_and_xen_both_are_unknown(tmp_path):
    assert (rss_bytes(tmp_path), xen_version(tmp_path)) == (None, None)


@pytest.mark.parametrize("name", [item.name for item in METHODS])
def test_every_call_is_in_the_docs(name, project):
    assert f"| `{name}` |" in (project / "docs" / "local-api.md").read_text()
