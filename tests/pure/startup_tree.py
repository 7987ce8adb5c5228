"""A small host for start-up tests: directories, a /proc and /sys, a xenstore with state, daemon hooks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from hostagent.api.sessions import Sessions
from hostagent.config import Config, Paths
from hostagent.startup.state import HostState
from hostagent.startup.step import Context, Outcome, Policy, Role, Step, Unchanged

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.startup.report import Report

BOOT_ID = "11111111-2222-4333-8444-555555555555"


def make_paths(base: Path) -> Paths:
    paths = Paths(etc=base / "etc", state=base / "state", run=base / "run", root=base / "root")
    for directory in (paths.etc, paths.state, paths.run):
        directory.mkdir(parents=True)
    put(paths.root / "proc/sys/kernel/random/boot_id", f"{BOOT_ID}\n")
    put(paths.root / "proc/self/status", "Name:\tpython3\nSigCgt:\t0000000000004003\n")
    put(paths.root / "proc/xen/capabilities", "control_d\n")
    put(paths.root / "sys/hypervisor/type", "xen\n")
    put(paths.root / "sys/hypervisor/version/major", "4\n")
    put(paths.root / "sys/hypervisor/version/minor", "20\n")
    (paths.root / "sys/module").mkdir()
    return paths


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def context_of(
    paths: Paths,
    host: HostState | None = None,
    *,
    held: list[str] | None = None,
    timeout_s: float = 60.0,
    dry_run: bool = False,
    **settings,
) -> Context:
    reached = held if held is not None else []
    return Context(
        Config(paths=paths, **settings),
        host if host is not None else HostState(),
        reached.append,
        lambda _: None,
        timeout_s,
        dry_run=dry_run,
    )


def files_below(*tops: Path) -> dict[str, str]:
    """Path → content of every file, to see what a step really changed."""
    return {
        str(path): path.read_text(errors="replace")
        for top in tops
        for path in sorted(top.rglob("*"))
        if path.is_file()
    }


def a_step(name: str = "a", run=lambda _: Unchanged(), **changes) -> Step:
    row = {
        "ref": name.upper(),
        "role": Role.ANY,
        "needs": (),
        "policy": Policy.BEST_EFFORT,
        "timeout_s": 5.0,
        "why": "a test",
    }
    return Step(name=name, run=run, **{**row, **changes})


def returns(outcome: Outcome):
    return lambda _: outcome


def fails(error: BaseException):
    def run(_: Context) -> Outcome:
        raise error

    return run


class FakeXenstore:
    """Nodes in a dict; connection and transaction at once."""

    def __init__(self, nodes: dict[str, str] | None = None) -> None:
        self.nodes = {path: value.encode() for path, value in (nodes or {}).items()}

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        return None

    def read(self, path):
        return self.nodes.get(path)

    def read_many(self, paths):
        return {path: self.nodes.get(path) for path in paths}

    def write(self, path, value):
        self.nodes[path] = value

    def transact(self, body):
        body(self)


class FakeApi:
    """The daemon's API as steps use it: `told` is what they did with it. Its doors lead nowhere."""

    def __init__(self) -> None:
        from hostagent.api.routes import Routes, front_page, rpc_routes

        self.told: list[object] = []
        self.listeners: dict[str, str] = {}
        self.core = SimpleNamespace(sessions=Sessions())
        self.routes = Routes(rpc_routes(front_page, front_page))
        self.dispatcher = SimpleNamespace(working=lambda: ["a", "b"])
        self.answers: dict[str, object] = {"host.is_in_emergency_mode": False}

    def attach(self, database, host_uuid) -> None:
        self.told.append((database.generation, host_uuid))

    def start_events(self) -> None:
        self.told.append("events")

    def call_internal(self, name: str) -> object:
        return self.answers[name]

    def listen_localhost(self, sockets) -> None:
        self.listeners["localhost"] = str(sockets)

    def listen_management(self, sockets, _context) -> None:
        self.listeners["management"] = str(*sockets)

    def leave_management(self) -> None:
        self.listeners.pop("management", None)


class Hooks:
    """Daemon hooks that remember what they were asked for."""

    def __init__(self, *, listener: bool = True) -> None:
        self.told: list[str] = []
        self.api = FakeApi()
        self._listener = listener

    def notify_ready(self) -> bool:
        self.told.append("ready")
        return self._listener

    def notify_status(self, text: str) -> None:
        self.told.append(text)


class Watcher:
    """An observer that keeps what it was told, as words."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.reports: list[Report] = []

    def step_started(self, record, report) -> None:
        self.events.append(f"start {record.name}")
        self.reports.append(report)

    def step_finished(self, record, report) -> None:
        self.events.append(f"{record.status.value} {record.name}")
        self.reports.append(report)

    def step_progressed(self, record, report) -> None:
        self.events.append(f"{record.name}: {record.progress}")
        self.reports.append(report)

    def sequence_finished(self, report) -> None:
        self.events.append(f"end {report.ending.value}")
        self.reports.append(report)


def value_or_error(call, *errors):
    """What a call returns or which of these errors it raises: for properties of arbitrary input."""
    try:
        return call()
    except errors as error:
        return error
