"""The hosts of a test run, and the evidence that is kept of those that failed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from nested_xen import evidence, fixtures, lab, machine, network, registry
from nested_xen.host import Host, State
from nested_xen.image import Release

from tests.pure.lab_hosts import h1

if TYPE_CHECKING:
    from pathlib import Path

# the hosts of a test run


@pytest.fixture
def hosts(made: lab.Lab, monkeypatch: pytest.MonkeyPatch) -> fixtures.Hosts:
    monkeypatch.setattr(Host, "power_off", lambda self: setattr(self, "state", State.OFF))
    return fixtures.Hosts(Release.TRIXIE, "tcg", made)


def test_after_an_odd_machine_the_slot_gets_the_standard_one_with_its_own_taps(
    hosts: fixtures.Hosts, made: lab.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    taps: list[tuple[str, int]] = []
    monkeypatch.setattr(network, "connect", lambda _, given: taps.append(("made", len(given.nics))))
    monkeypatch.setattr(network, "disconnect", lambda _, given: taps.append(("gone", len(given.nics))))
    hosts.odd(machine.custom(1, nics=1))
    standard = hosts.standard(1)
    assert taps == [("made", 1), ("gone", 1), ("made", 4)]
    assert not standard.machine.odd
    assert hosts.standard(1) is standard


def test_a_failed_host_is_replaced_and_its_disks_are_kept_for_the_last_three(
    hosts: fixtures.Hosts, made: lab.Lab
) -> None:
    for number in range(5):
        failed = hosts.standard(1)
        (failed.folder / "root.qcow2").write_text(f"disk {number}")
        failed.state = State.BROKEN
        assert hosts.standard(1) is not failed
    kept = sorted(registry.store("pure").glob("h1.failed-*"))
    assert [(path / "root.qcow2").read_text() for path in kept] == ["disk 2", "disk 3", "disk 4"]
    assert not (hosts.standard(1).folder / "root.qcow2").exists()


def test_a_kept_lab_is_nobodys_so_that_the_next_one_does_not_remove_it(
    hosts: fixtures.Hosts, made: lab.Lab
) -> None:
    made.owner = 12345
    made.record()
    assert json.loads((registry.folder("pure") / "lab.json").read_text())["owner"] == 12345
    hosts.keep()
    assert json.loads((registry.folder("pure") / "lab.json").read_text())["owner"] is None


def test_hosts_of_a_failed_test_are_broken_before_their_evidence_is_sought(
    made: lab.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, kept = h1(made), []
    monkeypatch.setattr(evidence, "keep", lambda given, folder, why: kept.append((given.state, why)))
    item: Any = SimpleNamespace(stash=pytest.Stash(), nodeid="tests/xen/test_x.py::test_y")
    item.stash[fixtures.TAKEN] = [found, found]
    fixtures._set_aside(item)
    assert (kept, found.state) == ([], State.OFF)
    item.stash[fixtures.FAILED] = "setup: it did not come up"
    fixtures._set_aside(item)
    fixtures._set_aside(item)  # as after a failed teardown
    assert kept == [(State.BROKEN, "setup: it did not come up")]


# evidence


def test_evidence_never_raises_and_takes_the_live_report_first(
    made: lab.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = h1(made)
    monkeypatch.setattr(Host, "pid", property(lambda _: 7))

    def fail(_: Host) -> str:
        raise TimeoutError("not even a LabError")

    monkeypatch.setattr(evidence, "_by_ssh", fail)
    monkeypatch.setattr(evidence, "_by_agent", fail)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "of-an-earlier-run").touch()
    evidence.keep(found, tmp_path / "kept", "it failed")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["missing.txt", "why.txt"]
    assert "not even a LabError" in (tmp_path / "kept" / "missing.txt").read_text()
    (tmp_path / "file").touch()
    evidence.keep(found, tmp_path / "file" / "kept", "no room for it")
    reports = [line for line in evidence.FROM_DOM0.values() if "startup-report.json" in line]
    assert ["/run/" in line for line in reports] == [True, False]
