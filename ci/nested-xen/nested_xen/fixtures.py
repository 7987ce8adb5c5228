"""pytest fixtures over the lab: `xen_host`, `xen_hosts(n)`, both also without hostagent (`…_bare`), `odd_host`.

A test file gets fresh hosts; files marked `shares_host` share one. A host whose test failed is set aside: its
evidence goes to `kept/`, and the next test gets a fresh one. `--xen-host ssh://root@HOST` runs the same tests
on real hardware.
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

    def get(self, index: int, kind: str, owner: str) -> Host:
        """A ready host of a kind (`bare`, `installed`) for a test file, fresh unless this file has it
        already.
        """
        home = self.lab()
        name = f"h{index}"
        host = home.hosts.get(name)
        if host is not None and host.state is State.READY and self.kinds.get(index) == (kind, owner):
            return host
        if host is not None:
            host.power_off()
        if host is None or host.machine.odd:
            host = home.add(machine.standard(index))
        host = home.hosts[name] = Host(home.name, host.machine, home.image, home.accel, host.folder)
        if kind == "installed":
            host.restore(install.installed_state(host))
            host.exec("systemctl start hostagent")
        else:
            host.restore(slot.booted(host.machine, home.image, home.accel))
        self.kinds[index] = (kind, owner)
        home.record()
        return host

    def odd(self, odd_machine: machine.Machine) -> Host:
        """A cold-booted host with unusual hardware; it takes its slot's place in the lab."""
        home = self.lab()
        if odd_machine.name in home.hosts:
            home.hosts[odd_machine.name].power_off()
            home.forget(odd_machine.name)
        self.kinds.pop(odd_machine.index, None)
        return home.start(odd_machine)

    def lab(self) -> lab.Lab:
        if self.made is None:
            name = re.sub(r"[^a-z0-9-]", "", f"t{os.getpid()}-{self.release[:2]}")
            self.made = lab.create(name, self.release, accel=self.accel, owner=os.getpid())
        return self.made

    def down(self) -> None:
        if self.made is not None:
            lab.down(self.made.name)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xen", "nested Xen lab")
    group.addoption(
        "--xen-release", choices=[*Release], default=Release.TRIXIE, help="Debian release of lab hosts"
    )
    group.addoption("--xen-accel", choices=["auto", "kvm", "tcg"], default="auto")
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
    part = "everything" if config.getoption("--full") else "the rotating part"
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
        item.stash[FAILED] = f"{report.when}: {report.longreprtext[:4000]}"
    return report


FAILED = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def lab_hosts(request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """The lab of this pytest process; taken down at the end, and by the next `lab up` if the process is
    killed.
    """
    hosts = Hosts(Release(request.config.getoption("--xen-release")), request.config.getoption("--xen-accel"))
    yield hosts
    if not (request.config.getoption("--keep-lab") and request.session.testsfailed):
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
    taken: list[Host] = []

    def take(count: int, kind: str) -> list[Host]:
        taken[:] = [lab_hosts.get(index, kind, owner) for index in range(1, count + 1)]
        return list(taken)

    yield take
    _set_aside(request, taken)


def _set_aside(request: pytest.FixtureRequest, taken: list[Host]) -> None:
    why = request.node.stash.get(FAILED, None)
    if why is None:
        return
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", request.node.nodeid)[-100:]
    for host in taken:
        evidence.keep(host, KEPT / f"{name}-{host.name}", why)
        host.state, host.first_error = State.BROKEN, why


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
    taken: list[Host] = []

    def take(**hardware: Any) -> Host:  # passed through to machine.custom
        taken.append(lab_hosts.odd(machine.custom(1, **hardware)))
        return taken[-1]

    yield take
    _set_aside(request, taken)


__all__ = [
    "lab_hosts",
    "odd_host",
    "take_hosts",
    "xen_host",
    "xen_host_bare",
    "xen_hosts",
    "xen_hosts_bare",
]
