"""The database: values, relations, generations, changes, and what its files outlive."""

from __future__ import annotations

import json
import sqlite3
import threading

import pytest

from hostagent.db import database
from hostagent.db.database import open_database
from hostagent.db.datatype import NULL_REF
from hostagent.db.errors import (
    DamagedError,
    DatabaseError,
    FieldTypeError,
    HandleInvalidError,
    MapDuplicateKeyError,
    NewerSchemaError,
    NoSuchFieldError,
    NotUniqueError,
    UuidInvalidError,
)
from tests.pure.db_records import make_host, make_pif


def test_a_record_has_every_public_field_and_the_other_side_of_relations(db):
    host = make_host(db)
    with db.write() as w:
        network = w.create("network", {"name_label": "lan"})
        pif = make_pif(w, host, network, device="eth0")
    with db.read() as view:
        record = view.record("network", network)
        assert set(record) == {field.name for field in db.model.cls("network").public}
        assert record["PIFs"] == [pif] == view.get("host", host, "PIFs")
        assert json.loads(view.record_text("host", host)) == view.record("host", host)
        assert {ref: json.loads(text) for ref, text in view.records_text("PIF")} == dict(view.records("PIF"))
        assert view.by_name("network", "lan") == [network]
        assert view.by_uuid("network", record["uuid"]) == network
        assert view.where("PIF", device="eth0", VLAN=-1) == [pif]
        assert view.class_of(pif) == "PIF"


def test_a_new_object_has_the_defaults_of_the_model(db):
    with db.write() as w:
        record = w.record("pool", w.create("pool", {}))
    assert (record["default_SR"], record["coordinator_bias"], record["ha_configuration"]) == (
        NULL_REF,
        True,
        {},
    )
    assert len(record["uuid"]) == 36


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("VLAN", "1x"),
        ("VLAN", True),
        ("VLAN", 1 << 63),
        ("VLAN", 1.0),
        ("physical", "true"),
        ("IPv6", "fe80::1"),
        ("other_config", {"": "x"}),
        ("other_config", {"a": 1}),
        ("other_config", []),
        ("ip_configuration_mode", "dhcp"),
        ("device", "a\x00b"),
        ("device", "\ud800"),
        ("device", 7),
    ],
)
def test_a_value_of_another_type_is_refused_and_nothing_changes(db, field, value):
    host = make_host(db)
    with db.write() as w:
        pif = make_pif(w, host, w.create("network", {}))
    before = db.generation
    with pytest.raises(FieldTypeError) as caught, db.write() as w:
        w.set("PIF", pif, field, value)
    assert caught.value.params == (field,)
    assert db.generation == before


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("VLAN", "100", 100),
        ("VLAN", " -1 ", -1),
        ("bond_slave_of", "", NULL_REF),
        ("IPv6", ["a", "b", "a"], ["a", "b"]),
    ],
)
def test_what_clients_send_is_kept_in_one_form(db, field, value, kept):
    host = make_host(db)
    with db.write() as w:
        pif = make_pif(w, host, w.create("network", {}))
        w.set("PIF", pif, field, value)
        assert w.get("PIF", pif, field) == kept


def test_references_must_lead_somewhere(db):
    host = make_host(db)
    for cls, values in (
        ("PBD", {"host": host, "SR": "OpaqueRef:none"}),
        ("network", {"blobs": {"b": "OpaqueRef:none"}}),
        ("PBD", {"host": db.path.name, "SR": NULL_REF}),
        ("PBD", {"SR": host}),
    ):
        with pytest.raises(HandleInvalidError), db.write() as w:
            w.create(cls, values)
    with db.read() as view:
        assert view.refs("PBD") == []


def test_errors_have_their_codes_and_parameters(db):
    with db.write() as w:
        network = w.create("network", {"other_config": {"a": "1"}})
    with db.read() as view:
        with pytest.raises(UuidInvalidError) as missing:
            view.by_uuid("network", "no")
        with pytest.raises(HandleInvalidError) as handle:
            view.get("PIF", network, "device")
        identity = view.get("network", network, "uuid")
    with pytest.raises(MapDuplicateKeyError) as duplicate, db.write() as w:
        w.add_to_map("network", network, "other_config", "a", "2")
    with pytest.raises(NotUniqueError) as twice, db.write() as w:
        w.create("host_metrics", {"uuid": identity})
    assert missing.value.params == ("network", "no")
    assert handle.value.params == ("PIF", network)
    assert duplicate.value.params == ("network", "other_config", network, "a")
    assert twice.value.params == ("host_metrics", "uuid", identity)


def test_computed_and_unknown_fields_are_never_written(db):
    host = make_host(db)
    for field in ("PIFs", "resident_VMs", "nonsense", "updates"):
        with pytest.raises(NoSuchFieldError), db.write() as w:
            w.set("host", host, field, [])


def test_maps_and_sets_change_by_one_key(db):
    with db.write() as w:
        network = w.create("network", {})
        assert w.add_to_map("network", network, "other_config", "k", "v")
        assert not w.add_to_map("network", network, "other_config", "k", "v")
        assert not w.remove_from_map("network", network, "other_config", "missing")
        assert w.add_to_set("network", network, "tags", "t")
        assert not w.add_to_set("network", network, "tags", "t")
        assert w.get("network", network, "tags") == ["t"]
        assert w.remove_from_set("network", network, "tags", "t")
        assert w.remove_from_map("network", network, "other_config", "k")
        assert w.get("network", network, "other_config") == {}


def test_many_to_many_is_seen_from_both_sides_and_goes_with_either_end(db):
    host = make_host(db)
    with db.write() as w:
        one, two = (w.create("pool_update", {"name_label": name}) for name in "ab")
        assert w.add_to_set("host", host, "updates", one)
        assert w.add_to_set("host", host, "updates", two)
    since = db.generation
    with db.write() as w:
        w.destroy("pool_update", one)
    with db.read() as view:
        assert view.get("host", host, "updates") == [two]
        assert view.get("pool_update", two, "hosts") == [host]
        assert {change.ref for change in view.changes(since, ["host", "pool_update"])} == {host, one}


def test_an_unchanged_value_makes_no_generation(db):
    with db.write() as w:
        network = w.create("network", {"name_label": "n"})
    before = db.generation
    with db.write() as w:
        assert not w.set("network", network, "name_label", "n")
    assert db.generation == before


def test_changes_tell_each_object_once_and_forget_what_came_and_went(db):
    since = db.generation
    with db.write() as w:
        kept = w.create("network", {"name_label": "kept"})
    with db.write() as w:
        passing = w.create("network", {"name_label": "passing"})
    with db.write() as w:
        w.destroy("network", passing)
    with db.write() as w:
        w.set("network", kept, "name_label", "renamed")
    with db.read() as view:
        (change,) = view.changes(since, ["network"])
        assert (change.ref, change.ctime > since) == (kept, True)
        assert json.loads(change.record)["name_label"] == "renamed"
        assert view.changes(view.generation, ["network"]) == []
    middle = db.generation
    with db.write() as w:
        w.destroy("network", kept)
    with db.read() as view:
        assert [(change.ref, change.record) for change in view.changes(middle, ["network"])] == [(kept, None)]
        assert view.changed(middle, "network", kept)
        assert not view.changed(middle, "PIF")


def test_a_transaction_that_raises_leaves_nothing(db):
    with pytest.raises(KeyError), db.write() as w:  # noqa: PT012 - all of it is undone
        w.create("network", {"name_label": "n"})
        raise KeyError("something else")
    with db.read() as view:
        assert view.refs("network") == []
        assert view.counts()["network"] == 0


def test_a_reader_keeps_its_snapshot_and_waits_for_no_writer(db):
    with db.write() as w:
        network = w.create("network", {"name_label": "old"})
    with db.read() as before:
        assert before.get("network", network, "name_label") == "old"
        with db.write() as w:
            w.set("network", network, "name_label", "new")
            assert before.get("network", network, "name_label") == "old"
        assert before.get("network", network, "name_label") == "old"
    with db.read() as after:
        assert after.get("network", network, "name_label") == "new"


def test_a_check_and_a_copy_wait_for_no_writer(db, tmp_path):
    with db.write() as w:
        w.create("network", {})
        assert db.check() == []
        db.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_size


def test_writers_take_turns_and_a_thread_has_one_transaction(db):
    with db.write() as w:
        network = w.create("network", {"MTU": 0})

    def add():
        for _ in range(20):
            with db.write() as w:
                w.set("network", network, "MTU", w.get("network", network, "MTU") + 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read() as view:
        assert view.get("network", network, "MTU") == 80
    with db.write(), pytest.raises(RuntimeError, match="in a transaction"), db.write():
        pass


def test_listeners_hear_of_each_change_after_it_is_seen(db):
    heard = []
    db.listen(lambda generation: heard.append((generation, db.generation)))
    with db.write() as w:
        w.create("network", {})
    with db.write():
        pass
    assert heard == [(db.generation, db.generation)]


def test_objects_survive_and_sessions_and_tasks_leave_tombstones(files):
    db = open_database(*files)
    with db.write() as w:
        network = w.create("network", {"name_label": "n"})
        task = w.create("task", {"name_label": "t"})
    seen = db.generation
    db.close()

    again = open_database(*files)
    with again.read() as view:
        assert view.get("network", network, "name_label") == "n"
        assert not view.exists("task", task)
        assert [(c.cls, c.record) for c in view.changes(seen, ["task", "network"])] == [("task", None)]
        assert view.floor() <= seen
    assert again.generation > seen
    again.close()


def test_after_a_reboot_older_clients_must_start_anew(files):
    db = open_database(*files)
    with db.write() as w:
        w.create("task", {})
    seen = db.generation
    db.close()
    for file in files[1].parent.glob("volatile.db*"):
        file.unlink()

    again = open_database(*files)
    with again.read() as view:
        assert view.floor() > seen
    again.close()


def test_fields_that_do_not_outlive_a_restart_start_from_their_defaults(files):
    db = open_database(*files)
    with db.write() as w:
        network = w.create("network", {"current_operations": {"OpaqueRef:t": "attaching"}})
    db.close()
    again = open_database(*files)
    with again.read() as view:
        assert view.get("network", network, "current_operations") == {}
    again.close()


def test_only_root_can_read_it_also_what_is_beside_it(files):
    db = open_database(*files)
    with db.write() as w:
        w.create("network", {})
    modes = {file.name: file.stat().st_mode & 0o777 for file in files[0].parent.iterdir()}
    db.close()
    assert {"state.db", "state.db-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_two_readers_do_not_take_the_same_last_connection(db):
    class Raced(list[sqlite3.Connection]):
        """Empty by the moment a reader takes from it, though it was not when the reader looked."""

        def __bool__(self):
            return True

    db._idle = Raced()
    with db.read() as view:
        assert view.counts()["VM"] == 0


def test_a_generation_is_never_used_twice_though_the_process_is_killed(files, monkeypatch):
    monkeypatch.setattr(database, "GENERATIONS_AHEAD", 3)
    used = []
    for _ in range(3):
        db = open_database(*files)
        for _ in range(5):
            with db.write() as w:
                w.create("task", {})
            used.append(db.generation)
        db.close()
    assert sorted(set(used)) == used


def test_deletions_are_forgotten_only_with_a_floor(files, monkeypatch):
    monkeypatch.setattr(database, "GENERATIONS_AHEAD", 1)
    monkeypatch.setattr(database, "TOMBSTONES", 3)
    db = open_database(*files)
    start = db.generation
    for _ in range(8):
        with db.write() as w:
            network = w.create("network", {})
        with db.write() as w:
            w.destroy("network", network)
    with db.read() as view:
        assert start < view.floor() < db.generation
    db.close()


def test_fields_that_are_new_in_the_model_get_their_defaults_and_unknown_ones_stay(files):
    db = open_database(*files)
    with db.write() as w:
        network = w.create("network", {})
    db.close()
    raw = sqlite3.connect(files[0], isolation_level=None)
    (text,) = raw.execute("SELECT record FROM objects WHERE ref=?", (network,)).fetchone()
    record = json.loads(text)
    del record["MTU"]
    raw.execute("UPDATE objects SET record=?", (json.dumps({**record, "of_tomorrow": 1}),))
    raw.execute("UPDATE meta SET value='other' WHERE key='model'")
    raw.close()

    again = open_database(*files)
    with again.read() as view:
        assert (view.get("network", network, "MTU"), view.record("network", network)["of_tomorrow"]) == (
            1500,
            1,
        )
    again.close()


def test_a_file_of_a_newer_version_is_refused_and_not_touched(files):
    open_database(*files).close()
    raw = sqlite3.connect(files[0])
    raw.execute("PRAGMA user_version=999")
    raw.close()
    before = files[0].read_bytes()
    with pytest.raises(NewerSchemaError, match="999"):
        open_database(*files)
    assert files[0].read_bytes() == before


def test_a_damaged_file_is_named(files):
    files[0].write_bytes(b"SQLite format 3\x00" + b"\xff" * 4096)
    with pytest.raises(DamagedError):
        open_database(*files)


def test_only_one_process_has_the_database(files, db):
    with pytest.raises(DatabaseError, match="another process"):
        open_database(*files)
    assert db.check() == []


def test_two_objects_of_any_class_are_there_after_a_restart(files, db):
    kept = [cls.name for cls in db.model.classes.values() if cls.in_database and cls.persistent]
    with db.write() as w:
        made = {cls: {w.create(cls, {}), w.create(cls, {})} for cls in kept}
        message = w.create("message", {"name": "N", "cls": "Host", "obj_uuid": "u", "body": "why"})
        before = w.record("message", message)
    db.close()
    again = open_database(*files)
    try:
        with again.read() as view:
            assert {cls for cls in kept if not made[cls] <= set(view.refs(cls))} == set()
            assert view.record("message", message) == before
    finally:
        again.close()
