"""pytest fixtures over the lab: `xen_host`, `xen_hosts(n)`, both also without hostagent (`…_bare`), `odd_host`.

A test file gets fresh hosts; files marked `shares_host` share one. A host whose test failed, or that did not
come up for it, is set aside: its evidence goes to `kept/`, and the next test gets a fresh one.
`--xen-host ssh://root@HOST` runs the same tests on real hardware.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from nested_xen import evidence, install, lab, machine, rotation, slot
from nested_xen.host import Host, State
from nested_xen.image import Release
from nested_xen.paths import PROJECT
from nested_xen.remote import RemoteHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEPT = PROJECT / "kept"


@dataclass
class Hosts:
    """The hosts of one pytest process, by slot; `kinds` says what each was made as, so that it is only made
    once.
    """

    release: Release
    accel: str
    made: lab.Lab | None = None
    kinds: dict[int, tuple[str, str]] = field(default_factory=dict)
    beside: int = 0

    def standard(self, index: int) -> Host:
        """The standard host of a slot: the one that is there, or a new one, off, after an odd or a failed one."""
        there = self.lab().hosts.get(f"h{index}")
        if there is not None and not there.machine.odd and there.state is not State.BROKEN:
            return there
        return self._replace(machine.standard(index))

    def odd(self, odd_machine: machine.Machine) -> Host:
        """A host with unusual hardware, off; it takes its slot's place in the lab."""
        return self._replace(odd_machine)

    def make_ready(self, host: Host, kind: str, owner: str) -> None:
        """Make a host one of a kind (`bare`, `installed`) for a test file, fresh unless this file has it."""
        home, index = self.lab(), host.machine.index
        if host.state is State.READY and self.kinds.get(index) == (kind, owner):
            return
        self.kinds.pop(index, None)
        if kind == "installed":
            host.restore(install.started_state(host))
        else:
            host.restore(slot.booted(host.machine, home.image, home.accel))
        self.kinds[index] = (kind, owner)
        home.record()

    def _replace(self, wanted: machine.Machine) -> Host:
        home = self.lab()
        old = home.hosts.get(wanted.name)
        if old is not None:
            failed = old.state is State.BROKEN
            old.power_off()
            if failed:
                home.set_aside(old.name)
            else:
                home.forget(old.name)
        self.kinds.pop(wanted.index, None)
        return home.add(wanted)

    def lab(self) -> lab.Lab:
        if self.made is None:
            name = re.sub(r"[^a-z0-9-]", "", f"t{os.getpid()}-{self.release[:2]}")
            workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
            self.made = lab.create(
                name,
                self.release,
                accel=self.accel,
                hosts=workers,
                beside=self.beside,
                owner=os.getpid(),
            )
        return self.made

    def down(self) -> None:
        if self.made is not None:
            lab.down(self.made.name)

    def keep(self) -> None:
        """Leave the lab up after this process, until `lab down`."""
        if self.made is not None:
            self.made.owner = None
            self.made.record()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xen", "nested Xen lab")
    group.addoption(
        "--xen-release", choices=[*Release], default=Release.TRIXIE, help="Debian release of lab hosts"
    )
    group.addoption("--xen-accel", choices=["auto", "kvm", "tcg"], default="auto")
    group.addoption(
        "--xen-beside",
        type=int,
        default=0,
        metavar="N",
        help="other runs have N lab hosts at the same time (decides how CPUs are emulated)",
    )
    group.addoption("--xen-host", metavar="ssh://root@HOST", help="use this host instead of the lab's")
    group.addoption(
        "--xen-host-destructive", action="store_true", help="run destructive tests on --xen-host too"
    )
    group.addoption("--full", action="store_true", help="the long matrices too (tests marked `full`)")
    group.addoption(
        "--shard",
        default="1/1",
        type=rotation.shard,
        metavar="I/N",
        help="only the I-th of N parts of the tests",
    )
    group.addoption("--keep-lab", action="store_true", help="leave the lab up when a test failed")


def pytest_report_header(config: pytest.Config) -> str:
    part = "everything" if config.getoption("--full") else "the short form"
    release, shard = config.getoption("--xen-release"), config.getoption("--shard")
    return f"xen: {release}, tree {rotation.tree_hash()} ({part}), shard {shard}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = [
        item
        for item in items
        if (config.getoption("--full") or not item.get_closest_marker("full"))
        and rotation.in_shard(item.nodeid, config.getoption("--shard"))
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted
    if config.getoption("--xen-host") and not config.getoption("--xen-host-destructive"):
        refuse = pytest.mark.skip(reason="destructive; give --xen-host-destructive to run it on this host")
        for item in items:
            if item.get_closest_marker("destructive"):
                item.add_marker(refuse)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:  # pluggy's own type
    report = yield
    if report.failed:
        item.stash.setdefault(FAILED, f"{report.when}: {report.longreprtext[:4000]}")
        if report.when == "teardown":  # of a fixture that ended before ours did
            _set_aside(item)
    return report


FAILED = pytest.StashKey[str]()
TAKEN = pytest.StashKey[list[Host]]()
"""The hosts of a test, also those that did not come up."""


@pytest.fixture(scope="session")
def lab_hosts(request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """The lab of this pytest process; taken down at the end, and by the next `lab up` if the process is
    killed.
    """
    option = request.config.getoption
    hosts = Hosts(Release(option("--xen-release")), option("--xen-accel"), beside=option("--xen-beside"))
    yield hosts
    if request.config.getoption("--keep-lab") and request.session.testsfailed:
        hosts.keep()
    else:
        hosts.down()


@pytest.fixture
def take_hosts(
    request: pytest.FixtureRequest, lab_hosts: Hosts
) -> Iterator[Callable[[int, str], list[Host]]]:
    """`take_hosts(n, kind)`; after a failed test the hosts it took are set aside with their evidence."""
    if request.config.getoption("--xen-host"):
        pytest.skip("needs a lab host (power, disks or segments), not --xen-host")
    shared = request.node.get_closest_marker("shares_host") is not None
    owner = "shared" if shared else request.node.path.name
    taken: list[Host] = request.node.stash.setdefault(TAKEN, [])

    def take(count: int, kind: str) -> list[Host]:
        hosts = []
        for index in range(1, count + 1):
            hosts.append(lab_hosts.standard(index))
            taken.append(hosts[-1])
            lab_hosts.make_ready(hosts[-1], kind, owner)
        return hosts

    yield take
    _set_aside(request.node)


def _set_aside(item: pytest.Item) -> None:
    """Mark the hosts of a failed test broken, then keep their evidence."""
    why = item.stash.get(FAILED, None)
    if why is None:
        return
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", item.nodeid)[-100:]
    taken = {host.name: host for host in item.stash.get(TAKEN, [])}
    item.stash[TAKEN] = []
    for host in taken.values():
        host.state, host.first_error = State.BROKEN, host.first_error or why
    for host in taken.values():
        evidence.keep(host, KEPT / f"{name}-{host.name}", why)


@pytest.fixture
def xen_host(request: pytest.FixtureRequest) -> Any:  # Host, or RemoteHost with --xen-host
    """A booted Xen host with hostagent installed and its service running."""
    given = request.config.getoption("--xen-host")
    if given:
        return RemoteHost.parse(given)
    return request.getfixturevalue("take_hosts")(1, "installed")[0]


@pytest.fixture
def xen_host_bare(take_hosts: Callable[[int, str], list[Host]]) -> Host:
    """A booted Debian Xen host; hostagent was never on it."""
    return take_hosts(1, "bare")[0]


@pytest.fixture
def xen_hosts(take_hosts: Callable[[int, str], list[Host]]) -> Callable[[int], list[Host]]:
    """`xen_hosts(n)`: n distinct hosts with hostagent, on common segments."""
    return lambda count: take_hosts(count, "installed")


@pytest.fixture
def xen_hosts_bare(take_hosts: Callable[[int, str], list[Host]]) -> Callable[[int], list[Host]]:
    """`xen_hosts_bare(n)`: n distinct hosts without hostagent, on common segments."""
    return lambda count: take_hosts(count, "bare")


@pytest.fixture
def odd_host(request: pytest.FixtureRequest, lab_hosts: Hosts) -> Iterator[Callable[..., Host]]:
    """`odd_host(nics=16, …)`: a cold-booted host h1 with unusual hardware (the arguments of machine.custom)."""
    taken: list[Host] = request.node.stash.setdefault(TAKEN, [])

    def take(**hardware: Any) -> Host:  # passed through to machine.custom
        taken.append(lab_hosts.odd(machine.custom(1, **hardware)))
        lab_hosts.lab().bring_up(taken[-1])
        return taken[-1]

    yield take
    _set_aside(request.node)


__all__ = [
    "lab_hosts",
    "odd_host",
    "take_hosts",
    "xen_host",
    "xen_host_bare",
    "xen_hosts",
    "xen_hosts_bare",
]
