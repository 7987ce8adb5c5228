"""From facts to fields: what clients rely on is there, of the model's types, and the same for the same facts."""

from __future__ import annotations

import dataclasses
import re
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.db import model
from hostagent.db.datatype import fit
from hostagent.errors import KernelError
from hostagent.hostinfo import address, licence, records
from hostagent.hostinfo import facts as gathering
from hostagent.hostinfo.facts import Facts, Memory
from hostagent.xen import balloon, facts, featureset, hypercall, inventory, memory
from hostagent.xen.featureset import Featuresets
from tests.pure.host_samples import CPUINFO, HOST_UUID, MIB, XEN
from tests.pure.host_samples import facts as sample
from tests.pure.startup_tree import put

UNKNOWN = Facts(host_uuid=HOST_UUID, dom0_uuid="", build_number="0", agent_start=0)
words = st.from_regex(r"[0-9a-f]{8}(-[0-9a-f]{8}){0,20}", fullmatch=True)


@pytest.mark.parametrize("found", [sample(), UNKNOWN], ids=["all known", "nothing known"])
@pytest.mark.parametrize(
    ("cls", "make"),
    [
        ("host", records.first_host),
        ("host", lambda _: licence.of_host()),
        ("host_metrics", records.host_metrics),
        ("VM", records.first_dom0),
        ("VM_metrics", lambda found: records.dom0_metrics(found, "20261121T17:00:00Z")),
        ("pool", lambda _: records.first_pool(licence.features())),
        ("user", lambda _: records.ROOT_USER),
    ],
)
def test_every_field_is_of_the_models_type(cls, make, found):
    known = model.load()

    for name, value in make(found).items():
        fit(known.cls(cls).fields[name].type, value, known.enums)


def test_every_processor_row_is_of_the_models_type():
    known = model.load()
    rows = records.host_cpus(sample())

    assert [row["number"] for row in rows] == [0, 1]
    for name, value in rows[0].items():
        fit(known.cls("host_cpu").fields[name].type, value, known.enums)


@pytest.mark.parametrize("found", [sample(), UNKNOWN], ids=["all known", "nothing known"])
def test_clients_find_the_versions_they_look_for(found):
    versions = records.software_version(found)

    wanted = {"xapi", "product_version", "platform_version", "product_brand", "build_number", "db_schema"}
    assert wanted <= {key for key, value in versions.items() if value}
    assert re.fullmatch(r"\d+(\.\d+)+", versions["product_version"])
    assert re.fullmatch(r"\d+(\.\d+)+", versions["platform_version"])
    assert versions["xapi"] == "2.23"
    assert versions["db_schema"] == "5.909"
    assert versions["network_backend"] == "bridge"


def test_the_versions_are_those_of_this_host():
    versions = records.software_version(sample(extra_versions={"oem_model": "X1"}))

    assert versions["xen"] == "4.20.1"
    assert versions["linux"] == "6.12.41+deb13-amd64"
    assert versions["oem_model"] == "X1"


def test_processors_are_counted_by_xen_and_described_by_dom0():
    many = dataclasses.replace(XEN, cpus=16, sockets=2, threads_per_core=2, numa_nodes=2)

    info = records.cpu_info(sample(xen=many))

    assert info["cpu_count"] == "16"
    assert (info["socket_count"], info["threads_per_core"], info["nr_nodes"]) == ("2", "2", "2")
    assert info["speed"] == "2394.454"
    assert info["modelname"] == "QEMU Virtual CPU version 2.5+"
    assert info["features_hvm"] == "178bfbff-80802021"
    assert info["features_hvm_host"] == "178bfbff-80802001"
    assert len(records.host_cpus(sample(xen=many))) == 16


def test_without_xen_the_processors_are_those_of_the_kernel():
    info = records.cpu_info(sample(xen=None, features=Featuresets()))

    assert info["cpu_count"] == "2"
    assert info["speed"] == "2394.454"
    assert info["features_hvm"] == ""


@pytest.mark.parametrize(
    ("iommu", "told"), [(True, {"iommu": "true"}), (False, {"iommu": "false"}), (None, {})]
)
def test_the_iommu_is_told_only_when_it_is_known(iommu, told):
    xen = dataclasses.replace(XEN, capabilities=dataclasses.replace(XEN.capabilities, iommu=iommu))

    assert records.host(sample(xen=xen))["chipset_info"] == told


def test_dom0_has_one_size_and_the_platform_key_that_clients_would_write():
    made = records.first_dom0(sample())

    assert {made[name] for name in made if name.startswith("memory_")} == {2048 * MIB}
    assert made["platform"] == {"cores-per-socket": "1"}
    assert (made["domid"], made["is_control_domain"]) == (0, True)


# --- pool ---


def test_a_pool_has_the_sum_of_its_processors_and_what_all_of_them_can():
    first = records.cpu_info(sample())
    second = {**first, "cpu_count": "8", "socket_count": "2", "features_hvm": "078bfbff-80802021-00000001"}

    found = records.pool_cpu_info([first, second])

    assert (found["cpu_count"], found["socket_count"]) == ("10", "3")
    assert found["features_hvm"] == "078bfbff-80802021"
    assert found["vendor"] == "AuthenticAMD"


def test_a_pool_without_facts_has_none():
    assert records.pool_cpu_info([]) == {}
    assert records.pool_cpu_info([{"cpu_count": "x"}])["cpu_count"] == "0"


@given(st.lists(words, min_size=1, max_size=4))
def test_what_all_have_each_of_them_has(sets):
    shared = featureset.common(sets)

    assert featureset.common([*sets, shared]) == shared
    for one in sets:
        for mine, ours in zip(one.split("-"), shared.split("-"), strict=False):
            assert int(ours, 16) & ~int(mine, 16) == 0


def test_a_host_whose_features_are_not_known_leaves_the_pool_without():
    assert featureset.common(["178bfbff", ""]) == ""
    assert featureset.common([]) == ""


# --- licence ---


def test_nothing_is_restricted():
    switches: Any = licence.of_host()["license_params"]

    assert {value for key, value in switches.items() if key.startswith("restrict_")} == {"false"}
    assert {"restrict_zstd_export", "restrict_vtpm", "restrict_pooling"} <= switches.keys()
    assert not licence.forbids_pooling(switches)


def test_a_pool_is_restricted_where_one_host_is():
    free = licence.features()

    found = licence.of_pool([free, {**free, "restrict_pooling": "true", "sku_type": "x"}])

    assert licence.forbids_pooling(found)
    assert found["restrict_vlan"] == "false"
    assert "sku_type" not in found


def test_what_a_switch_allows_must_be_allowed_everywhere():
    on = {"enable_xha": "true"}

    assert licence.of_pool([on, on]) == {"enable_xha": "true"}
    assert licence.of_pool([on, {}]) == {"enable_xha": "false"}


# --- addresses ---

FOUND = {
    "lo": [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")],
    "xenbr0": [
        (socket.AF_INET6, "fe80::5054:ff:fe12:3456%xenbr0"),
        (socket.AF_INET, "192.0.2.10"),
        (socket.AF_INET6, "2001:DB8::10"),
    ],
    "xenbr1": [(socket.AF_INET, "169.254.0.1"), (socket.AF_INET, "10.0.0.1"), (socket.AF_INET, "192.0.2.10")],
}


@pytest.mark.parametrize(
    ("interface", "family", "chosen"),
    [
        ("xenbr0", "IPv4", "192.0.2.10"),
        ("xenbr0", "IPv6", "2001:db8::10"),
        ("xenbr1", "IPv4", "10.0.0.1"),
        ("xenbr1", "IPv6", ""),
        ("lo", "IPv4", ""),
        ("absent", "IPv4", ""),
    ],
)
def test_the_management_address_is_one_that_others_can_reach(interface, family, chosen):
    assert address.choose(FOUND, interface, family) == chosen


def test_a_certificate_gets_every_address_once():
    assert address.of_all(FOUND) == ("10.0.0.1", "192.0.2.10", "2001:db8::10")


def test_no_interface_has_no_address(monkeypatch):
    monkeypatch.setattr(address, "look", lambda: FOUND)

    assert address.of_interface("", "IPv4") == ""
    assert address.of_interface("xenbr0", "IPv4") == "192.0.2.10"


@given(st.dictionaries(st.text(), st.lists(st.tuples(st.sampled_from([2, 10]), st.text()))), st.text())
def test_no_address_text_makes_the_choice_fail(found, interface):
    assert isinstance(address.choose(found, interface, "IPv6"), str)
    assert isinstance(address.of_all(found), tuple)


# --- features ---

XEN_CPUID = """\
nr_features: 18
                   KEY 1d       1c       e1d

Static sets:
Known                           bfebfbff:fffef3ff
Special                         00000200:88200000

Dynamic sets:
Raw                             178bfbff:f7d83203
Host                            178bfbff:b7d83203
PV Max                          178bfbf5:b7d83203
HVM Max                         178bfbff:f7fa3223
PV Default                      178bfbf5:f6d83203
HVM Default                     178bfbff:f7f83203
"""


def test_the_features_of_a_current_xen():
    assert featureset.parse(XEN_CPUID) == Featuresets(
        pv="178bfbf5-f6d83203",
        hvm="178bfbff-f7f83203",
        pv_max="178bfbf5-b7d83203",
        hvm_max="178bfbff-f7fa3223",
    )


def test_the_features_of_an_older_xen_are_the_most_as_well():
    found = featureset.parse("PV      00000001\nHVM     00000003:00000001\n")

    assert found == Featuresets("00000001", "00000003-00000001", "00000001", "00000003-00000001")


@given(st.text())
def test_no_output_makes_the_reader_of_features_fail(text):
    found = featureset.parse(text)

    assert all(re.fullmatch(r"([0-9a-f]{8}(-[0-9a-f]{8})*)?", one) for one in dataclasses.astuple(found))


def test_without_the_tool_features_are_unknown(tmp_path):
    assert featureset.read(tmp_path) == Featuresets()

    put(tmp_path / "sys/hypervisor/type", "xen\n")
    put(tmp_path / "sys/hypervisor/version/major", "4\n")
    put(tmp_path / "sys/hypervisor/version/minor", "20\n")
    assert featureset.read(tmp_path) == Featuresets()


def test_the_tool_of_the_running_xen_is_asked(tmp_path, monkeypatch):
    put(tmp_path / "sys/hypervisor/type", "xen\n")
    put(tmp_path / "sys/hypervisor/version/major", "4\n")
    put(tmp_path / "sys/hypervisor/version/minor", "20\n")
    put(tmp_path / "usr/lib/xen-4.20/bin/xen-cpuid", "")
    asked = []

    def run(argv, **_):
        asked.append(argv)
        return SimpleNamespace(stdout=XEN_CPUID)

    monkeypatch.setattr(featureset, "run", run)

    assert featureset.read(tmp_path).hvm == "178bfbff-f7f83203"
    assert asked == [(str(tmp_path / "usr/lib/xen-4.20/bin/xen-cpuid"),)]


# --- gathering ---


@pytest.fixture
def inventory_here(tmp_path):
    text = inventory.new(installation_uuid=HOST_UUID) + "OEM_MODEL='X1'\n"
    put(tmp_path / "proc/cpuinfo", CPUINFO)
    put(tmp_path / "proc/meminfo", "MemTotal:  2048 kB\n")
    return inventory.parse(text, tmp_path / "inventory")


def test_a_kernel_without_xen_has_facts_and_a_warning(tmp_path, inventory_here, monkeypatch):
    def refuse():
        raise hypercall.BindingError("this system does not run on Xen", hint="boot Xen")

    monkeypatch.setattr(hypercall, "host", refuse)

    found = gathering.gather(tmp_path, inventory_here, agent_start=5)

    assert found.host_uuid == HOST_UUID
    assert found.xen is None
    assert found.memory == Memory(dom0=2048 * 1024)
    assert found.dom0.vcpus == 2
    assert found.extra_versions == {"oem_model": "X1"}
    assert "Xen" in found.warnings[0]


def domain(domid, mem_kib, *, hvm=False):
    return SimpleNamespace(domid=domid, mem_kib=mem_kib, online_vcpus=3, hvm=hvm)


def test_the_hypervisor_tells_memory_and_dom0(tmp_path, inventory_here, monkeypatch):
    now = memory.Dom0Memory(
        total_kib=4096, free_kib=1000, scrub_kib=24, dom0_kib=2000, maxmem_kib=2000, driver_target_kib=2000,
        driver_current_kib=2000, ballooned_kib=0, mem_total_kib=1900, mem_available_kib=1000,
    )  # fmt: skip
    monkeypatch.setattr(facts, "gather", lambda _root: XEN)
    monkeypatch.setattr(hypercall, "domains", lambda: [domain(0, 2000, hvm=True), domain(4, 500)])
    monkeypatch.setattr(hypercall, "scheduler", lambda: "credit2")
    monkeypatch.setattr(balloon, "snapshot", lambda _store, **_: now)

    found = gathering.gather(tmp_path, inventory_here, agent_start=5)

    kib = 1024
    assert found.memory == Memory(
        total=4096 * kib,
        free=1024 * kib,
        boot_free=3524 * kib,
        overhead=(4096 - 3524 + memory.RESERVE_KIB) * kib,
        dom0=2000 * kib,
        estimate=True,
    )
    assert (found.dom0.vcpus, found.dom0.domain_type) == (3, "pvh")
    assert found.scheduler == "credit2"
    assert found.warnings == ()


def test_what_the_hypervisor_refuses_is_told_and_the_rest_is_kept(tmp_path, inventory_here, monkeypatch):
    def refuse():
        raise KernelError("EACCES", hint="other tools")

    monkeypatch.setattr(facts, "gather", lambda _root: XEN)
    monkeypatch.setattr(hypercall, "domains", refuse)

    found = gathering.gather(tmp_path, inventory_here, agent_start=5)

    assert found.xen == XEN
    assert found.memory.total == 3072 * MIB
    assert found.memory.boot_free == 0
    assert found.warnings == ("EACCES (other tools)",)


def test_a_boot_loader_counts_when_it_is_there(tmp_path):
    assert gathering.loaders(tmp_path) == ()

    put(tmp_path / "sys/hypervisor/type", "xen\n")
    put(tmp_path / "sys/hypervisor/version/major", "4\n")
    put(tmp_path / "sys/hypervisor/version/minor", "17\n")
    assert gathering.loaders(tmp_path) == ()
    put(tmp_path / "usr/lib/xen-4.17/bin/pygrub", "")
    assert gathering.loaders(tmp_path) == ("pygrub",)


@pytest.mark.parametrize(("number", "name"), [(5, "credit"), (6, "credit2"), (42, "42")])
def test_the_scheduler_has_its_name(monkeypatch, number, name):
    monkeypatch.setattr(hypercall, "_binding", lambda: SimpleNamespace(sched_id_get=lambda: number))

    assert hypercall.scheduler() == name


def test_a_refused_question_for_the_scheduler_is_an_error(monkeypatch):
    def refuse():
        raise RuntimeError(13, "Permission denied")

    monkeypatch.setattr(hypercall, "_binding", lambda: SimpleNamespace(sched_id_get=refuse))

    with pytest.raises(hypercall.RefusedError, match="sched_id_get"):
        hypercall.scheduler()
