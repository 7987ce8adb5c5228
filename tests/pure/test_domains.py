"""Domains: power states, names and managers joined, and what remains when a source is gone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hostagent.xen import domains, hypercall
from hostagent.xen.domains import Manager, PowerState
from hostagent.xen.hypercall import BindingError, DomainInfo, RefusedError
from hostagent.xen.libvirt_link import LibvirtError, ManagedDomain
from hostagent.xen.xenstore_errors import XenstoreDeadline, XenstoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

XL_UUID = "dd95bc88-890a-43ce-a0f4-9f0ed6585572"
VIRT_UUID = "b25d0da4-c383-4f70-9f31-c08b082a0d42"
ZERO_UUID = "00000000-0000-0000-0000-000000000000"

RUNNING = DomainInfo(
    domid=1,
    handle=XL_UUID,
    online_vcpus=1,
    mem_kib=262144,
    maxmem_kib=263168,
    cpu_time_ns=8_800_000_000,
    running=False,
    paused=False,
    blocked=True,
    shutdown=False,
    crashed=False,
    dying=False,
    shutdown_reason=None,
    hvm=False,
)
DOM0 = replace(RUNNING, domid=0, handle=ZERO_UUID)


class FakeNames:
    """xenstore with these values, or one that fails."""

    def __init__(self, values: dict[str, bytes], failure: Exception | None = None) -> None:
        self.values = values
        self.failure = failure

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        if self.failure is not None:
            raise self.failure
        return {path: self.values.get(path) for path in paths}


class FakeLink:
    """libvirt with a dom0 and two guests, one of them not running."""

    def __enter__(self) -> FakeLink:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def domains(self) -> tuple[ManagedDomain, ...]:
        common = ("running", True, 262144, 262144, 1, 5, False)
        return (
            ManagedDomain("Domain-0", ZERO_UUID, 0, *common),
            ManagedDomain("gvirt", VIRT_UUID, 2, "paused", *common[1:]),
            ManagedDomain("defined", XL_UUID, None, "shutoff", *common[1:]),
        )


class NoLink(FakeLink):
    """libvirt that is not there."""

    def domains(self) -> tuple[ManagedDomain, ...]:
        raise LibvirtError("libvirtd is not running", hint="start it")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """libxl's files as xl (domain 1) and libvirt 9.0 (domain 2) leave them on Debian 12."""
    directory = tmp_path / "var/lib/xen"
    directory.mkdir(parents=True)
    for name in (
        f"userdata-d.0.{ZERO_UUID}.libxl-json",
        f"userdata-d.1.{XL_UUID}.libxl-json",
        f"userdata-d.2.{VIRT_UUID}.libvirt-xml",
        f"userdata-d.2.{VIRT_UUID}.libxl-json",
        "userdata-d.x.y.z",
        "userdata-r.1",
    ):
        (directory / name).touch()
    return tmp_path


@pytest.fixture
def hypervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """dom0, a guest of xl, one of libvirt, and one nobody knows."""
    records = [
        DOM0,
        RUNNING,
        replace(RUNNING, domid=2, handle=VIRT_UUID),
        replace(RUNNING, domid=3, handle=XL_UUID),
    ]
    monkeypatch.setattr(hypercall, "domains", lambda: records)


def no_binding() -> list[DomainInfo]:
    raise BindingError("no xc binding", hint="apt-get install xen-utils-4.17")


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, PowerState.RUNNING),
        ({"blocked": False, "running": True}, PowerState.RUNNING),
        ({"blocked": False}, PowerState.RUNNING),
        ({"paused": True}, PowerState.PAUSED),
        ({"shutdown": True, "shutdown_reason": 0}, PowerState.HALTED),
        ({"shutdown": True, "shutdown_reason": 1}, PowerState.RUNNING),
        ({"shutdown": True, "shutdown_reason": 2}, PowerState.SUSPENDED),
        ({"shutdown": True, "shutdown_reason": 3, "crashed": True}, PowerState.HALTED),
        ({"shutdown": True, "shutdown_reason": 4}, PowerState.HALTED),
        ({"shutdown": True, "shutdown_reason": 5}, PowerState.RUNNING),
        ({"shutdown": True, "shutdown_reason": 77}, PowerState.HALTED),
        ({"dying": True, "paused": True}, PowerState.HALTED),
        ({"dying": True, "shutdown": True, "shutdown_reason": 1}, PowerState.HALTED),
    ],
)
def test_each_hypervisor_state_has_its_power_state(changes: dict[str, object], state: PowerState) -> None:
    found, note = domains.power_state(replace(RUNNING, **changes))  # type: ignore[arg-type]

    assert found is state
    assert bool(note) == ("shutdown" in changes or "dying" in changes)


@pytest.mark.usefixtures("hypervisor")
def test_names_and_managers_are_joined_to_the_hypervisors_records(root: Path) -> None:
    names = FakeNames({"/local/domain/0/name": b"Domain-0", "/local/domain/1/name": b"gxl"})

    listing = domains.list_domains(names, root=root)

    assert [(domain.domid, domain.name, domain.manager) for domain in listing.domains] == [
        (0, "Domain-0", Manager.XEN),
        (1, "gxl", Manager.XL),
        (2, None, Manager.LIBVIRT),
        (3, None, Manager.UNKNOWN),
    ]
    assert listing.warnings == ()


@pytest.mark.usefixtures("hypervisor")
def test_a_name_that_is_no_text_does_not_hide_the_domain(root: Path) -> None:
    listing = domains.list_domains(FakeNames({"/local/domain/1/name": b"\xff\x00x"}), root=root)

    assert listing.domains[1].name == "\\xff\x00x"


@pytest.mark.usefixtures("hypervisor")
@pytest.mark.parametrize("failure", [XenstoreUnavailable("nobody listens"), XenstoreDeadline("read", 5.0)])
def test_without_xenstored_all_but_the_names_is_there(root: Path, failure: Exception) -> None:
    listing = domains.list_domains(FakeNames({}, failure), root=root)

    assert [domain.name for domain in listing.domains] == [None] * 4
    assert listing.domains[1].manager is Manager.XL
    assert "names are not known" in listing.warnings[0]


@pytest.mark.usefixtures("hypervisor")
def test_no_connection_at_all_is_named_too(root: Path) -> None:
    assert "xenstored" in domains.list_domains(None, root=root).warnings[0]


def test_a_domid_used_again_does_not_inherit_its_predecessors_manager(root: Path) -> None:
    (joined,) = domains.join([replace(RUNNING, handle=VIRT_UUID)], {}, domains.managers(root))

    assert joined.manager is Manager.UNKNOWN


def test_without_the_binding_libvirts_running_domains_are_shown_and_the_gap_is_named(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setattr(hypercall, "domains", no_binding)
    monkeypatch.setattr(domains, "Link", FakeLink)

    listing = domains.list_domains(None, root=root)

    assert [(domain.domid, domain.power_state, domain.manager) for domain in listing.domains] == [
        (0, PowerState.RUNNING, Manager.XEN),
        (2, PowerState.PAUSED, Manager.LIBVIRT),
    ]
    assert "xen-utils-4.17" in listing.warnings[0]
    assert "does not see what xl does" in listing.warnings[0]


def test_without_the_binding_and_libvirt_the_error_names_the_package(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setattr(hypercall, "domains", no_binding)
    monkeypatch.setattr(domains, "Link", NoLink)

    with pytest.raises(BindingError) as caught:
        domains.list_domains(None, root=root)
    assert "xen-utils-4.17" in caught.value.hint


def test_tools_of_another_xen_are_no_reason_to_tell_nothing(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    def refused() -> list[DomainInfo]:
        raise RefusedError("hypercall domain_getinfo failed", hint="are xen-utils and Xen the same?")

    monkeypatch.setattr(hypercall, "domains", refused)
    monkeypatch.setattr(domains, "Link", FakeLink)

    listing = domains.list_domains(None, root=root)

    assert [domain.name for domain in listing.domains] == ["Domain-0", "gvirt"]
    assert "xen-utils" in listing.warnings[0]
