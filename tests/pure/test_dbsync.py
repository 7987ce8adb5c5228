# mypy: disable-error-code="index,union-attr,operator,type-var"
# each test knows the types of the fields it looks at
"""Each item brings the database to what the facts say, tells every change, and changes nothing a second time."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostagent.api.certificate import Certificate
from hostagent.db import collect, model
from hostagent.db.database import open_database
from hostagent.db.datatype import NULL_REF
from hostagent.dbsync import dom0, host, pool
from hostagent.dbsync.change import GONE, MADE, Change
from hostagent.errors import BugError
from hostagent.hostinfo import licence
from hostagent.hostinfo.facts import Memory
from tests.pure.host_samples import DOM0_UUID, HOST_UUID, MIB, NOW, XEN
from tests.pure.host_samples import facts as sample

LATER = NOW + dt.timedelta(hours=1)
HOST = f"host {HOST_UUID}"
DOM0 = f"VM {DOM0_UUID}"
OWN = Certificate(NOW, LATER, "AA:BB", "CC:DD", ("h1",))


def everything(w, facts, now=NOW):
    """All items, in the order of start-up."""
    return [
        *host.metrics_exist(w, facts, now),
        *host.record_exists(w, facts, now),
        *host.info(w, facts),
        *host.memory(w, facts, now),
        *host.processors(w, facts),
        *dom0.record_exists(w, facts, now),
        *pool.root_user(w),
        *pool.record_exists(w, facts),
        *host.address(w, facts),
        *host.licensed(w, facts),
        *host.certificate(w, facts, OWN),
        *pool.halted_vms(w),
        *pool.old_tasks(w, now),
        *pool.licence_alert(w, facts, now),
        *pool.dom0_runs(w, facts),
        *pool.ha_off(w),
    ]


@pytest.fixture
def synced(db):
    with db.write() as w:
        everything(w, sample())
    return db


def changes_of(db, work):
    """What one item tells, in a transaction that is kept."""
    with db.write() as w:
        return work(w)


def the(db, cls):
    with db.read() as view:
        (found,) = view.records(cls, internal=True)
    return found[1]


def test_an_empty_database_gets_all_first_records(synced):
    with synced.read() as view:
        counts = view.counts()
        assert collect.check(view, model.load()) == []
        ref = view.by_uuid("host", HOST_UUID)
        vm = view.by_uuid("VM", DOM0_UUID)
        assert view.get("host", ref, "control_domain") == vm
        assert view.get("VM", vm, "resident_on") == ref
        assert view.get("host", ref, "resident_VMs") == [vm]
        assert view.get("pool", view.the_only("pool"), "master") == ref
    found = {cls: number for cls, number in counts.items() if number}
    assert found == {
        "host": 1, "host_metrics": 1, "host_cpu": 2, "VM": 1, "VM_metrics": 1, "pool": 1, "user": 1, "Certificate": 1,
    }  # fmt: skip


def test_the_first_host_is_disabled_and_named_after_its_hostname(synced):
    record = the(synced, "host")

    assert record["enabled"] is False
    assert record["name_label"] == record["hostname"] == "h1"
    assert record["address"] == "192.0.2.10"
    assert record["other_config"] == {"boot_time": "1795280400", "agent_start_time": "1795280460"}
    assert record["edition"] == "free/libre"
    assert the(synced, "pool")["restrictions"] == licence.features()
    assert the(synced, "host_metrics")["live"] is True


def test_a_second_time_nothing_changes(synced):
    before = synced.generation

    with synced.write() as w:
        again = everything(w, sample(), LATER)
        assert not w.dirty

    assert again == []
    assert synced.generation == before


def test_a_new_start_moves_its_time_alone(synced):
    facts = sample(agent_start=1795290000)

    found = changes_of(synced, lambda w: everything(w, facts, LATER))

    assert found == [Change(f"{HOST}.other_config:agent_start_time", "1795280460", "1795290000")]


NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)
some_facts = st.builds(
    lambda name, cpus, dom0_mib, address, iommu: sample(
        system=dataclasses.replace(sample().system, hostname=name),
        xen=dataclasses.replace(
            XEN, cpus=cpus, capabilities=dataclasses.replace(XEN.capabilities, iommu=iommu)
        ),
        memory=dataclasses.replace(sample().memory, dom0=dom0_mib * MIB),
        address=address,
    ),
    NAMES,
    st.integers(1, 6),
    st.integers(512, 4096),
    st.sampled_from(["", "192.0.2.1", "2001:db8::1"]),
    st.none() | st.booleans(),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(some_facts, min_size=1, max_size=4))
def test_whatever_the_host_becomes_the_records_follow_and_then_stand_still(tmp_path_factory, history):
    base = tmp_path_factory.mktemp("db")
    db = open_database(base / "state.db", base / "volatile.db")
    try:
        for facts in history:
            with db.write() as w:
                everything(w, facts)
            with db.write() as w:
                assert everything(w, facts, LATER) == []
                assert not w.dirty
        record = the(db, "host")
        assert record["hostname"] == history[-1].system.hostname
        assert record["address"] == history[-1].address
        with db.read() as view:
            assert sorted(row["number"] for _, row in view.records("host_cpu")) == list(
                range(history[-1].xen.cpus)
            )
            assert collect.check(view, model.load()) == []
    finally:
        db.close()


# --- host ---


def test_without_a_record_the_host_is_not_found(db):
    with db.read() as view, pytest.raises(BugError, match=HOST_UUID):
        host.localhost(view, sample())


def test_changed_facts_are_told_key_by_key_and_what_operators_set_stays(synced):
    with synced.write() as w:
        ref = host.localhost(w, sample())
        w.update("host", ref, {"name_label": "mine", "enabled": True})
        w.add_to_map("host", ref, "other_config", "k", "v")
    facts = sample(xen=dataclasses.replace(XEN, version="4.21.0"), scheduler="null")

    found = changes_of(synced, lambda w: host.info(w, facts))

    assert found == [
        Change(f"{HOST}.software_version:xen", "4.20.1", "4.21.0"),
        Change(f"{HOST}.sched_policy", "credit2", "null"),
    ]
    record = the(synced, "host")
    assert (record["name_label"], record["enabled"]) == ("mine", True)
    assert record["other_config"]["k"] == "v"


def test_lost_measurements_are_made_again(synced):
    with synced.write() as w:
        w.destroy("host_metrics", w.refs("host_metrics")[0])

    found = changes_of(synced, lambda w: host.metrics_exist(w, sample(), LATER))

    assert found[0] == Change("host_metrics", None, MADE)
    assert the(synced, "host")["metrics"] != NULL_REF
    assert the(synced, "host_metrics")["live"] is True


def test_a_host_that_was_taken_for_dead_is_alive(synced):
    with synced.write() as w:
        w.set("host_metrics", w.refs("host_metrics")[0], "live", value=False)

    assert changes_of(synced, lambda w: host.metrics_exist(w, sample(), LATER)) == [
        Change("host_metrics.live", "false", "true")
    ]
    assert the(synced, "host_metrics")["last_updated"] == "20261121T18:00:00Z"


@pytest.mark.parametrize("boot", [False, True])
def test_what_an_update_asked_for_and_this_start_has_done_is_asked_no_longer(synced, boot):
    """Else a host whose database says so, one that was imported too, would stay disabled for ever."""
    asked = ["reboot_host", "restart_toolstack", "restart_vm"]
    with synced.write() as w:
        for field in host.GUIDANCES:
            w.set("host", host.localhost(w, sample()), field, asked)

    changes_of(synced, lambda w: host.guidance_done(w, sample(), on_system_boot=boot))

    left = ["restart_vm"] if boot else ["reboot_host", "restart_vm"]
    assert [the(synced, "host")[field] for field in host.GUIDANCES] == [left] * 3
    assert changes_of(synced, lambda w: host.guidance_done(w, sample(), on_system_boot=boot)) == []


def test_unknown_memory_leaves_the_known(synced):
    nothing = sample(memory=Memory())

    assert changes_of(synced, lambda w: host.memory(w, nothing, LATER)) == []


@pytest.mark.parametrize(("moved", "written"), [(0, False), (MIB - 1, False), (-MIB, True), (MIB, True)])
def test_free_memory_is_written_when_it_moved_enough(synced, moved, written):
    free = 900 * MIB + moved
    with synced.read() as view:
        ref = host.localhost(view, sample())

    found = changes_of(synced, lambda w: host.free_memory(w, ref, free, LATER))

    assert found == ([Change("host_metrics.memory_free", str(900 * MIB), str(free))] if written else [])


def test_processors_keep_their_rows_and_surplus_ones_go(synced):
    with synced.read() as view:
        before = {row["number"]: ref for ref, row in view.records("host_cpu")}
    fewer = sample(xen=dataclasses.replace(XEN, cpus=1))

    found = changes_of(synced, lambda w: host.processors(w, fewer))

    assert Change("host_cpu 1", MADE, GONE) in found
    with synced.read() as view:
        assert view.refs("host_cpu") == [before[0]]
    found = changes_of(synced, lambda w: host.processors(w, sample()))
    assert Change("host_cpu 1", None, MADE) in found


def test_processors_of_another_host_are_left_alone(synced):
    with synced.write() as w:
        metrics = w.create("host_metrics", {})
        other = w.create("host", {"metrics": metrics})
        w.create("host_cpu", {"host": other, "number": 7})

    assert changes_of(synced, lambda w: host.processors(w, sample())) == []


def test_a_second_row_of_one_number_goes(synced):
    with synced.write() as w:
        w.create("host_cpu", {"host": host.localhost(w, sample()), "number": 0})

    changes_of(synced, lambda w: host.processors(w, sample()))

    with synced.read() as view:
        assert sorted(row["number"] for _, row in view.records("host_cpu")) == [0, 1]


def test_a_new_certificate_takes_the_place_of_the_old(synced):
    new = dataclasses.replace(OWN, sha256="EE:FF")
    with synced.write() as w:
        w.create("Certificate", {"host": host.localhost(w, sample()), "type": "host"})
        w.create("Certificate", {"host": host.localhost(w, sample()), "type": "ca", "name": "mine"})

    changes_of(synced, lambda w: host.certificate(w, sample(), new))

    with synced.read() as view:
        found = {row["type"]: row["fingerprint"] for _, row in view.records("Certificate")}
        assert len(view.refs("Certificate")) == 2
    assert found == {"host": "EE:FF", "ca": ""}


# --- dom0 ---


def test_dom0_follows_its_size_and_keeps_its_name(synced):
    with synced.write() as w:
        ref = w.by_uuid("VM", DOM0_UUID)
        w.update("VM", ref, {"name_label": "mine", "power_state": "Halted", "domid": -1})
    smaller = sample(memory=dataclasses.replace(sample().memory, dom0=1024 * MIB))

    found = changes_of(synced, lambda w: dom0.record_exists(w, smaller, LATER))

    record = the(synced, "VM")
    assert Change(f"{DOM0}.power_state", "Halted", "Running") in found
    assert record["name_label"] == "mine"
    assert {record[name] for name in dom0.SIZES} == {1024 * MIB}
    assert the(synced, "VM_metrics")["memory_actual"] == 1024 * MIB


def test_dom0_grown_keeps_its_least_size(synced):
    larger = sample(memory=dataclasses.replace(sample().memory, dom0=4096 * MIB))

    changes_of(synced, lambda w: dom0.record_exists(w, larger, LATER))

    record = the(synced, "VM")
    assert record["memory_static_min"] == 2048 * MIB
    assert record["memory_target"] == record["memory_static_max"] == 4096 * MIB


def test_an_unknown_size_leaves_the_known(synced):
    unknown = sample(memory=Memory())

    changes_of(synced, lambda w: dom0.record_exists(w, unknown, LATER))

    assert the(synced, "VM")["memory_static_max"] == 2048 * MIB


def test_lost_measurements_of_dom0_are_made_again(synced):
    with synced.write() as w:
        w.destroy("VM_metrics", w.refs("VM_metrics")[0])

    changes_of(synced, lambda w: dom0.record_exists(w, sample(), LATER))

    assert the(synced, "VM_metrics")["start_time"] == "20261121T17:00:00Z"
    assert the(synced, "VM_metrics")["install_time"] == "20261121T18:00:00Z"


@pytest.mark.parametrize(("moved", "written"), [(MIB - 1, False), (MIB, True)])
def test_dom0s_memory_is_written_when_it_moved_enough(synced, moved, written):
    with synced.read() as view:
        ref = view.by_uuid("VM", DOM0_UUID)

    assert (
        bool(changes_of(synced, lambda w: dom0.actual_memory(w, ref, 2048 * MIB + moved, LATER))) is written
    )


# --- pool ---


def test_the_coordinator_is_this_host_whatever_the_pool_said(synced):
    with synced.write() as w:
        other = w.create("host", {"metrics": w.create("host_metrics", {}), "cpu_info": {"cpu_count": "6"}})
        w.set("pool", w.the_only("pool"), "master", other)

    changes_of(synced, lambda w: pool.record_exists(w, sample()))

    record = the(synced, "pool")
    with synced.read() as view:
        assert record["master"] == view.by_uuid("host", HOST_UUID)
    assert record["cpu_info"]["cpu_count"] == "8"
    assert record["cpu_info"]["features_hvm"] == ""
    assert record["cpu_info"]["vendor"] == "AuthenticAMD"


def test_what_clients_wrote_to_the_pool_stays(synced):
    with synced.write() as w:
        w.add_to_map("pool", w.the_only("pool"), "other_config", "xo:1", "x")

    changes_of(synced, lambda w: everything(w, sample()))

    assert the(synced, "pool")["other_config"] == {
        "memory-ratio-hvm": "0.25",
        "memory-ratio-pv": "0.25",
        "xo:1": "x",
    }


def make_guest(w, power_state):
    """A guest with a disk and a NIC, all of it in use."""
    ref = host.localhost(w, sample())
    vm = w.create("VM", {"power_state": power_state, "resident_on": ref, "domid": 7, "requires_reboot": True})
    vbd = w.create(
        "VBD", {"VM": vm, "currently_attached": True, "reserved": True, "current_operations": {"t": "plug"}}
    )
    network = w.create("network", {})
    vif = w.create("VIF", {"VM": vm, "network": network, "currently_attached": True})
    return vm, vbd, vif


def test_a_halted_vm_holds_nothing(synced):
    with synced.write() as w:
        vm, vbd, vif = make_guest(w, "Halted")

    found = changes_of(synced, pool.halted_vms)

    with synced.read() as view:
        assert view.get("VM", vm, "resident_on") == NULL_REF
        assert view.get("VM", vm, "domid") == -1
        assert view.get("VM", vm, "requires_reboot") is False
        for name in ("currently_attached", "reserved"):
            assert view.get("VBD", vbd, name) is False
        assert view.get("VBD", vbd, "current_operations") == {}
        assert view.get("VIF", vif, "currently_attached") is False
    assert len(found) == 7
    assert changes_of(synced, pool.halted_vms) == []


def test_a_running_vm_keeps_everything(synced):
    with synced.write() as w:
        make_guest(w, "Running")

    assert changes_of(synced, pool.halted_vms) == []


def test_what_is_reserved_for_a_start_that_never_came_is_free(synced):
    with synced.write() as w:
        vm = w.create("VM", {"power_state": "Running"})
        device = w.create("PCI", {"host": host.localhost(w, sample()), "scheduled_to_be_attached_to": vm})

    changes_of(synced, pool.halted_vms)

    with synced.read() as view:
        assert view.get("PCI", device, "scheduled_to_be_attached_to") == NULL_REF


def test_tasks_of_an_earlier_run_are_cancelled_and_their_objects_free(synced):
    with synced.write() as w:
        tasks = {
            status: w.create("task", {"status": status}) for status in ("pending", "cancelling", "success")
        }
        vm = w.by_uuid("VM", DOM0_UUID)
        w.set("VM", vm, "current_operations", {tasks["pending"]: "start", tasks["success"]: "pause"})

    changes_of(synced, lambda w: pool.old_tasks(w, NOW))

    with synced.read() as view:
        states = {name: view.get("task", ref, "status") for name, ref in tasks.items()}
        assert states == {"pending": "cancelled", "cancelling": "cancelled", "success": "success"}
        assert view.get("task", tasks["pending"], "finished") == "20261121T17:00:00Z"
        assert view.get("VM", vm, "current_operations") == {tasks["success"]: "pause"}
    assert changes_of(synced, lambda w: pool.old_tasks(w, LATER)) == []


def test_every_host_is_disabled_until_its_start_is_over(synced):
    with synced.write() as w:
        w.set("host", host.localhost(w, sample()), "enabled", value=True)

    assert changes_of(synced, pool.hosts_disabled) == [Change(f"{HOST}.enabled", "true", "false")]
    assert changes_of(synced, pool.hosts_disabled) == []


@pytest.mark.parametrize(("hosts", "forbidden", "told"), [(2, "true", 1), (1, "true", 0), (2, "false", 0)])
def test_a_licence_that_forbids_the_pool_there_is_gives_one_message(synced, hosts, forbidden, told):
    with synced.write() as w:
        for _ in range(hosts - 1):
            w.create("host", {"metrics": w.create("host_metrics", {})})
        w.set("pool", w.the_only("pool"), "restrictions", {"restrict_pooling": forbidden})

    for _ in range(2):
        changes_of(synced, lambda w: pool.licence_alert(w, sample(), NOW))

    with synced.read() as view:
        found = [record["name"] for _, record in view.records("message")]
    assert found == ["LICENSE_DOES_NOT_SUPPORT_POOLING"] * told


def test_ha_that_is_on_is_seen_and_put_off(synced):
    with synced.write() as w:
        w.set("pool", w.the_only("pool"), "ha_enabled", value=True)
    with synced.read() as view:
        assert pool.ha_enabled(view)

    assert changes_of(synced, pool.ha_off) == [Change("pool.ha_enabled", "true", "false")]
    with synced.read() as view:
        assert not pool.ha_enabled(view)


def test_without_records_there_is_nothing_to_do(db):
    for work in (pool.ha_off, pool.hosts_disabled, pool.halted_vms):
        assert changes_of(db, work) == []
    assert changes_of(db, lambda w: pool.dom0_runs(w, sample())) == []
    assert changes_of(db, lambda w: pool.licence_alert(w, sample(), NOW)) == []
    assert changes_of(db, lambda w: host.metrics_exist(w, sample(), NOW)) == []
