"""What the host can do: from the hypervisor, or second hand where it cannot be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hostagent.run import CommandError
from hostagent.xen import facts, hypercall
from hostagent.xen.hypercall import BindingError, RefusedError
from hostagent.xen.libvirt_link import Link
from tests.pure.test_hypercall import PHYSINFO, XENINFO

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1024


class FakeLibvirt:
    """libvirt-python over the node of a Debian 12 dom0 with two NUMA nodes."""

    class libvirtError(Exception):
        pass

    def open(self, _uri: str) -> FakeLibvirt:
        return self

    def getInfo(self) -> list[Any]:
        return ["x86_64", 3071, 8, 2596, 2, 1, 2, 2]

    def getFreeMemory(self) -> int:
        return 1538248 * 1024

    def close(self) -> int:
        return 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The kernel of a dom0 under Xen 4.17.5."""
    files = {
        "type": "xen",
        "version/major": "4",
        "version/minor": "17",
        "version/extra": ".5",
        "properties/capabilities": "xen-3.0-x86_64 hvm-3.0-x86_32 ",
        "properties/changeset": "<denied>",
        "compilation/compiler": "gcc 12.2.0",
    }
    for name, text in files.items():
        path = tmp_path / "sys/hypervisor" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return tmp_path


@pytest.fixture
def link(tmp_path: Path) -> Callable[[], Link]:
    (tmp_path / "sock").touch()
    return lambda: Link(sockets=(tmp_path / "sock",), library=FakeLibvirt())


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def host() -> None:
        raise error

    monkeypatch.setattr(hypercall, "host", host)


def test_the_hypervisor_is_believed_without_asking_anybody_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_xl(argv: tuple[str, ...], **_options: object) -> None:
        raise CommandError(argv, "was not found", hint="")

    monkeypatch.setattr(facts, "run", no_xl)
    monkeypatch.setattr(hypercall, "host", lambda: hypercall.host_info(PHYSINFO, XENINFO))
    monkeypatch.setattr(hypercall, "binding_path", lambda _root: "/xc.so")

    found = facts.gather(root)

    assert (found.version, found.binding, found.warnings) == ("4.17.5", "/xc.so", ())
    assert found.capabilities == facts.Capabilities(pv=True, hvm=True, hap=None, iommu=False)
    assert (found.free_kib, found.usable_free_kib) == (1538248, 1538248 - 72 * MIB)


@pytest.mark.parametrize("kind", [BindingError, RefusedError])
def test_without_the_tools_libvirt_and_the_kernel_tell_what_they_know_and_the_package_is_named(
    root: Path, link: Callable[[], Link], monkeypatch: pytest.MonkeyPatch, kind: type[BindingError]
) -> None:
    refuse(monkeypatch, kind("no binding", hint="apt-get install xen-utils-4.17"))

    found = facts.gather(root, link=link)

    assert (found.version, found.changeset, found.compiler) == ("4.17.5", None, "gcc 12.2.0")
    assert found.capabilities == facts.Capabilities(pv=True, hvm=True, hap=None, iommu=None)
    assert (found.cpus, found.sockets, found.numa_nodes, found.cpu_khz) == (8, 2, 2, 2596000)
    assert (found.total_kib, found.usable_free_kib) == (3071 * MIB, 1538248 - 72 * MIB)
    assert (found.commandline, found.dom0_mem_fixed, found.binding) == (None, None, None)
    assert "apt-get install xen-utils-4.17" in found.warnings[0]


def test_without_libvirt_too_the_kernel_still_tells_versions(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, BindingError("no binding", hint="apt-get install xen-utils-4.17"))
    absent = Link(sockets=(tmp_path / "none",), library=FakeLibvirt())

    found = facts.gather(root, link=lambda: absent)

    assert (found.version, found.cpus, found.free_kib) == ("4.17.5", None, None)
    assert len(found.warnings) == 2
    assert "libvirtd is not running" in found.warnings[1]


def test_without_xen_there_are_no_facts(
    tmp_path: Path, link: Callable[[], Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, BindingError("this system does not run on Xen", hint="boot it"))

    with pytest.raises(BindingError, match="does not run on Xen"):
        facts.gather(tmp_path, link=link)
