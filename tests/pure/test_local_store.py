# mypy: disable-error-code="union-attr,attr-defined,arg-type,index,misc,func-returns-value"
"""The local database: defaults, durability, damaged files, and reads that never raise."""

from __future__ import annotations

import json
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.db import local
from hostagent.db.local import Key, LocalStore, look, open_store
from hostagent.files import FileError

REFERENCE = (
    "ha.armed ha.disable_failover_decisions ha_cluster_stack ha_base_t ha_peers master_scripts "
    "this_node_just_became_master host_disabled_until_reboot host_auto_enable host_restarted_cleanly "
    "redo_log.enabled last_update_hash"
)


KEYS = [key for key in vars(local).values() if isinstance(key, Key)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "local.json"


def test_the_keys_are_those_of_the_reference():
    assert [key.name for key in KEYS] == [*REFERENCE.split(), "identity_made"]


def test_an_absent_file_is_an_empty_store_with_defaults(path):
    store = open_store(path)

    assert store.get(local.HOST_AUTO_ENABLE) is True
    assert store.get(local.HA_ARMED) is False
    assert store.get(local.LAST_UPDATE_HASH) == ""
    assert not store.has(local.HA_ARMED)
    assert not path.exists()


def test_a_value_survives_reopening_and_its_file_is_private(path):
    open_store(path).put(local.MASTER_SCRIPTS, value=True)

    assert open_store(path).get(local.MASTER_SCRIPTS) is True
    assert path.stat().st_mode & 0o777 == 0o600


def test_several_values_are_written_in_one_step(path):
    open_store(path).put_all({"ha.armed": False, "ha_peers": "x"})

    assert json.loads(path.read_text()) == {"ha.armed": False, "ha_peers": "x"}


def test_a_write_keeps_what_another_process_wrote_meanwhile(path):
    ours, theirs = open_store(path), open_store(path)

    theirs.put(local.HA_PEERS, "x")
    ours.put(local.MASTER_SCRIPTS, value=True)

    assert json.loads(path.read_text()) == {"ha_peers": "x", "master_scripts": True}
    assert ours.get(local.HA_PEERS) == "x"


def test_writers_take_turns(path, monkeypatch):
    """While one is between reading and writing, another waits, and then starts from what the first wrote."""
    begun, others = threading.Event(), []
    write = local.write_atomic

    def write_slowly(*args, **options):
        if not begun.is_set():
            begun.set()
            others.append(threading.Thread(target=open_store(path).put, args=(local.HA_PEERS, "x")))
            others[0].start()
            others[0].join(0.1)
        write(*args, **options)

    monkeypatch.setattr(local, "write_atomic", write_slowly)
    open_store(path).put(local.MASTER_SCRIPTS, value=True)
    others[0].join(5)

    assert json.loads(path.read_text()) == {"ha_peers": "x", "master_scripts": True}


def test_writing_what_is_there_leaves_the_file_alone(path):
    store = open_store(path)
    store.put(local.HA_PEERS, "x")
    before = path.stat().st_ino

    store.put(local.HA_PEERS, "x")

    assert path.stat().st_ino == before


def test_unknown_keys_of_a_later_version_are_kept(path):
    path.write_text('{"from.the.future": [1], "ha.armed": true}')

    open_store(path).put(local.HA_PEERS, "x")

    assert json.loads(path.read_text()) == {"from.the.future": [1], "ha.armed": True, "ha_peers": "x"}


def test_a_value_of_another_type_reads_as_the_default(path):
    path.write_text('{"ha.armed": "yes", "ha_peers": 5}')
    store = open_store(path)

    assert (store.get(local.HA_ARMED), store.get(local.HA_PEERS)) == (False, "")
    assert not store.has(local.HA_ARMED)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'"text"', b"[" * 100000, b"x" * (2 << 20)])
def test_a_damaged_file_is_set_aside_and_told(path, content):
    path.write_bytes(content)

    store = open_store(path)

    assert store.set_aside is not None
    assert store.set_aside.name.startswith("local.json.corrupt-")
    assert store.set_aside.read_bytes() == content
    assert not path.exists()


def test_two_damaged_files_of_one_second_get_two_names(path, monkeypatch):
    monkeypatch.setattr(local.time, "strftime", lambda *_: "now")
    path.write_text("{")
    first = open_store(path).set_aside
    path.write_text("{")

    assert open_store(path).set_aside != first


def test_looking_changes_nothing(path):
    path.write_text("{")

    assert look(path) is None
    assert path.read_text() == "{"


def test_a_failed_write_changes_nothing_in_memory_either(path, monkeypatch):
    store = open_store(path)

    def refuse(*_, **__):
        raise FileError("the disk is full", hint="free some", number=28)

    monkeypatch.setattr(local, "write_atomic", refuse)
    with pytest.raises(FileError):
        store.put(local.HA_ARMED, value=True)

    assert store.get(local.HA_ARMED) is False


@given(st.binary(max_size=200))
def test_any_file_can_be_opened_and_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("local") / "local.json"
    path.write_bytes(data)

    store = open_store(path)

    for key in KEYS:
        assert isinstance(store.get(key), type(key.default))


json_values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers(), max_size=2)


@given(st.dictionaries(st.sampled_from(REFERENCE.split()) | st.text(max_size=5), json_values, max_size=6))
def test_any_object_can_be_opened_read_and_written(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("local") / "local.json"
    path.write_text(json.dumps(values))

    store = open_store(path)
    store.put(local.LAST_UPDATE_HASH, "x")

    assert store.set_aside is None
    assert {**values, "last_update_hash": "x"} == json.loads(path.read_text())


def test_the_shown_value_of_an_absent_key_is_none():
    store = LocalStore(os.devnull, {"ha.armed": False})

    assert (store.shown("ha.armed"), store.shown("ha_peers")) == ("false", None)
