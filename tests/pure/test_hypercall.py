"""The hypervisor binding: the right file for the running Xen, and its records as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hostagent.errors import KernelError
from hostagent.xen import hypercall
from hostagent.xen.hypercall import BindingError, NoSuchDomainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SUFFIXES = (".cpython-311-x86_64-linux-gnu.so", ".abi3.so", ".so")

# as xen-utils-4.17 answered on a Debian 12 dom0
DOM0: dict[str, object] = {
    "domid": 0,
    "online_vcpus": 2,
    "max_vcpu_id": 1,
    "hvm": 0,
    "dying": 0,
    "crashed": 0,
    "shutdown": 0,
    "paused": 0,
    "blocked": 0,
    "running": 1,
    "mem_kb": 1572864,
    "cpu_time": 344986265633,
    "maxmem_kb": 1572864,
    "ssidref": 0,
    "shutdown_reason": 255,
    "cpupool": 0,
    "handle": [0] * 16,
}
PHYSINFO: dict[str, object] = {
    "nr_nodes": 1,
    "threads_per_core": 1,
    "cores_per_socket": 2,
    "nr_cpus": 2,
    "total_memory": 3145200,
    "free_memory": 1538248,
    "scrub_memory": 0,
    "cpu_khz": 2596138,
    "hw_caps": "178bfbfd:80982201",
    "virt_caps": "pv hvm",
}
XENINFO: dict[str, object] = {
    "xen_major": 4,
    "xen_minor": 17,
    "xen_extra": ".5",
    "xen_caps": "xen-3.0-x86_64 hvm-3.0-x86_32 ",
    "xen_changeset": "",
    "xen_commandline": "console=com1 dom0_mem=1536M,max:1536M",
    "cc_compiler": "gcc 12.2.0",
    "cc_compile_date": "Sat Nov 29 13:52:25 UTC 2025",
}


class FakeXen:
    """A hypervisor with these domains; `end` is what it does past the last one."""

    def __init__(self, domids: Sequence[int], end: Exception | None = None) -> None:
        self.domids = domids
        self.end = end
        self.ceilings: dict[int, int] = {}

    def domain_getinfo(self, first_dom: int, max_doms: int) -> Sequence[Mapping[str, object]]:
        page = [{**DOM0, "domid": domid} for domid in self.domids if domid >= first_dom][:max_doms]
        if not page and self.end is not None:
            raise self.end
        return page

    def domain_setmaxmem(self, dom: int, maxmem_kb: int) -> int:
        if dom not in self.domids:
            raise RuntimeError(3, "No such process")
        self.ceilings[dom] = maxmem_kb
        return 0

    def physinfo(self) -> Mapping[str, object]:
        raise RuntimeError(13, "Permission denied")

    def xeninfo(self) -> Mapping[str, object]:
        return XENINFO


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a dom0 on Xen 4.17, without xen-utils."""
    version = tmp_path / "sys/hypervisor/version"
    version.mkdir(parents=True)
    (version / "major").write_text("4\n")
    (version / "minor").write_text("17\n")
    (version.parent / "type").write_text("xen\n")
    (tmp_path / "proc/xen").mkdir(parents=True)
    (tmp_path / "proc/xen/capabilities").write_text("control_d\n")
    return tmp_path


def install(root: Path, xen: str, suffix: str = SUFFIXES[0]) -> Path:
    directory = root / f"usr/lib/xen-{xen}/lib/python/xen/lowlevel"
    directory.mkdir(parents=True)
    path = directory / f"xc{suffix}"
    path.touch()
    return path


def use(monkeypatch: pytest.MonkeyPatch, xen: FakeXen) -> FakeXen:
    monkeypatch.setattr(hypercall, "_binding", lambda: xen)
    return xen


def test_dom0_is_known_by_control_d(root: Path) -> None:
    assert hypercall.is_dom0(root)


@pytest.mark.parametrize("capabilities", ["", "\n", "not_control_d\n"])
def test_a_guest_is_not_dom0(root: Path, capabilities: str) -> None:
    (root / "proc/xen/capabilities").write_text(capabilities)

    assert not hypercall.is_dom0(root)


def test_a_machine_without_xen_is_not_dom0_and_has_no_version(tmp_path: Path) -> None:
    assert not hypercall.is_dom0(tmp_path)
    assert hypercall.hypervisor_version(tmp_path) is None


@pytest.mark.parametrize(("name", "content"), [("type", "kvm\n"), ("version/minor", "garbage")])
def test_another_hypervisor_or_garbage_is_no_xen(root: Path, name: str, content: str) -> None:
    (root / "sys/hypervisor" / name).write_text(content)

    assert hypercall.hypervisor_version(root) is None


def test_the_binding_of_the_running_xen_is_taken_not_the_newest(root: Path) -> None:
    install(root, "4.20")
    wanted = install(root, "4.17")

    assert hypercall.binding_path(root, suffixes=SUFFIXES) == wanted


def test_a_missing_binding_names_the_package_of_the_running_xen(root: Path) -> None:
    install(root, "4.20")

    with pytest.raises(BindingError) as caught:
        hypercall.binding_path(root, suffixes=SUFFIXES)
    assert "apt-get install xen-utils-4.17" in caught.value.hint


def test_a_binding_of_another_python_is_named(root: Path) -> None:
    install(root, "4.17", ".cpython-313-x86_64-linux-gnu.so")

    with pytest.raises(BindingError, match=r"cpython-313.*another Python"):
        hypercall.binding_path(root, suffixes=SUFFIXES)


def test_no_xen_is_named(tmp_path: Path) -> None:
    with pytest.raises(BindingError, match="does not run on Xen"):
        hypercall.binding_path(tmp_path)


def test_a_record_becomes_a_value_with_units_and_a_uuid() -> None:
    info = hypercall.domain_info({**DOM0, "handle": list(range(16))})

    assert info.handle == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert (info.mem_kib, info.cpu_time_ns) == (1572864, 344986265633)
    assert (info.running, info.paused, info.hvm) == (True, False, False)
    assert info.shutdown_reason is None


def test_a_shutdown_reason_is_only_there_after_a_shutdown() -> None:
    assert hypercall.domain_info({**DOM0, "shutdown": 1, "shutdown_reason": 3}).shutdown_reason == 3
    assert hypercall.domain_info({**DOM0, "shutdown": 0, "shutdown_reason": 0}).shutdown_reason is None


def test_host_records_become_one_value() -> None:
    info = hypercall.host_info(PHYSINFO, XENINFO)

    assert info.version == "4.17.5"
    assert info.capabilities == ("pv", "hvm")
    assert info.xen_caps == ("xen-3.0-x86_64", "hvm-3.0-x86_32")
    assert (info.free_kib, info.sockets) == (1538248, 1)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 512, 700])
@pytest.mark.parametrize("end", [None, RuntimeError(3, "No such process")], ids=["4.20", "4.17"])
def test_all_domains_are_listed_page_by_page(
    monkeypatch: pytest.MonkeyPatch, count: int, end: Exception | None
) -> None:
    domids = [0, *range(5, 5 + 3 * count, 3)]
    use(monkeypatch, FakeXen(domids, end))

    assert [info.domid for info in hypercall.domains()] == domids


def test_a_domain_that_has_gone_is_not_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeXen([0, 7]))

    assert hypercall.domain(7).domid == 7
    with pytest.raises(NoSuchDomainError):
        hypercall.domain(5)


def test_a_ceiling_is_set_and_a_missing_domain_named(monkeypatch: pytest.MonkeyPatch) -> None:
    xen = use(monkeypatch, FakeXen([0]))

    hypercall.set_ceiling(0, 1573888)
    with pytest.raises(NoSuchDomainError):
        hypercall.set_ceiling(9, 1)
    assert xen.ceilings == {0: 1573888}


def test_eacces_is_explained_as_tools_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeXen([0]))

    with pytest.raises(KernelError, match="physinfo") as caught:
        hypercall.host()
    assert "another version" in caught.value.hint


def test_another_error_is_not_taken_for_the_end_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeXen([], RuntimeError(1, "Operation not permitted")))

    with pytest.raises(KernelError, match="not permitted"):
        hypercall.domains()
