"""A dump or backup takes the place of the database: what is checked first, what is kept, what clients are told."""

from __future__ import annotations

import contextlib
import gzip
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.api.events import _check_reach
from hostagent.api.fault import CallError
from hostagent.db import restore as restoring
from hostagent.db import xmldump
from hostagent.db.connections import JUMP, look, open_newest
from hostagent.db.copies import write_copy
from hostagent.db.database import open_database
from hostagent.db.dbconf import Connection
from hostagent.db.errors import DatabaseError, NewerSchemaError
from hostagent.db.restore import NotRestorableError, highest
from hostagent.db.xmldump import DumpError
from hostagent.errors import BusyError, HostagentError
from hostagent.files import sync_directory


def restore(*given: Any, **more: Any) -> dict[str, Any]:
    """What was found and done."""
    return restoring.restore(*given, **more)


def make_pool(db, name):
    with db.write() as w:
        host = w.create("host", {"metrics": w.create("host_metrics", {}), "uuid": f"{name}-host"})
        w.create("pool", {"master": host, "name_label": name})


def rename_pool(db, name):
    with db.write() as w:
        w.set("pool", w.the_only("pool"), "name_label", name)


def pool_of(db):
    with db.read() as view:
        return view.get("pool", view.the_only("pool"), "name_label")


def open_at(path):
    return open_database(path, path.with_name("volatile.db"))


@pytest.fixture
def files(tmp_path):
    """A database whose pool is called `now`; `saved.xml` and `saved.db` are of the time when it was called `then`."""
    db = open_at(tmp_path / "state.db")
    make_pool(db, "then")
    with db.read() as view:
        (tmp_path / "saved.xml").write_bytes(b"".join(xmldump.pieces(view, db.model)))
    write_copy(db, tmp_path / "saved.db")
    write_copy(db, tmp_path / "saved.gz", compress=True)
    rename_pool(db, "now")
    db.close()
    return tmp_path


def connections(files):
    return [Connection(files / "state.db")]


def left(files):
    """What lies about beside the database and what the test made."""
    ours = {"state.db", ".state.db.lock", "volatile.db", "saved.xml", "saved.db", "saved.gz"}
    return sorted(
        path.name
        for path in files.iterdir()
        if path.name.removesuffix("-wal").removesuffix("-shm") not in ours
    )


@pytest.mark.parametrize("source", ["saved.xml", "saved.db", "saved.gz"])
def test_a_copy_takes_the_place_and_the_former_one_is_kept_under_the_name_that_is_told(files, source):
    done = restore(files / source, connections(files))

    db, former = open_at(files / "state.db"), open_at(Path(done["former"]))
    assert (pool_of(db), pool_of(former)) == ("then", "now")
    db.close()
    former.close()
    assert done["kind"] == ("dump" if source == "saved.xml" else "backup")
    assert (done["hosts"], done["counts"]["pool"]) == (["then-host"], 1)
    assert (files / "state.db").stat().st_mode & 0o777 == 0o600


def test_going_back_is_restoring_the_former_one(files):
    first = restore(files / "saved.xml", connections(files))
    restore(Path(first["former"]), connections(files))

    db = open_at(files / "state.db")
    assert pool_of(db) == "now"
    db.close()


@pytest.mark.parametrize("source", ["saved.xml", "saved.db"])
def test_every_token_of_before_is_told_that_events_are_lost(files, source):
    db = open_at(files / "state.db")
    for number in range(5):
        rename_pool(db, f"change {number}")
    tokens = range(db.generation + 1)
    db.close()
    restore(files / source, connections(files))

    db = open_at(files / "state.db")
    with db.read() as view:
        for token in tokens:
            with pytest.raises(CallError) as caught:
                _check_reach(view, token)
            assert caught.value.code == "EVENTS_LOST"
        _check_reach(view, db.generation)
    db.close()


def test_the_restored_database_is_the_newest_of_all_that_db_conf_names(files):
    both = [Connection(files / "copy.db"), Connection(files / "state.db")]
    db = open_at(files / "state.db")
    for number in range(50):
        rename_pool(db, f"change {number}")
    write_copy(db, files / "copy.db")
    db.close()
    restore(files / "saved.xml", both)

    opened = open_newest(both, files / "volatile.db")
    assert (opened.taken, pool_of(opened.database)) == (files / "state.db", "then")
    opened.database.close()


def test_a_dry_run_tells_the_same_and_changes_nothing(files):
    before = (files / "state.db").read_bytes()
    planned = restore(files / "saved.xml", connections(files), dry_run=True)

    assert (files / "state.db").read_bytes() == before
    assert left(files) == []
    assert planned == {**restore(files / "saved.xml", connections(files)), "former": None}


def test_a_damaged_database_is_replaced_too_and_the_jump_is_wide(files):
    (files / "state.db").write_bytes(b"x" * 8192)
    done = restore(files / "saved.xml", connections(files))

    assert done["generation"] > JUMP
    assert (Path(done["former"])).read_bytes() == b"x" * 8192
    db = open_at(files / "state.db")
    assert pool_of(db) == "then"
    db.close()


def test_a_database_of_a_newer_hostagent_makes_room_for_a_backup_of_this_one(files):
    with sqlite3.connect(files / "state.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(NewerSchemaError):
        open_at(files / "state.db")
    restore(files / "saved.db", connections(files))

    opened = open_at(files / "state.db")
    assert pool_of(opened) == "then"
    opened.close()


def test_where_there_was_none_nothing_is_kept(files):
    (files / "state.db").unlink()
    assert restore(files / "saved.xml", connections(files))["former"] is None


def test_what_sqlite_had_beside_the_former_file_does_not_meet_the_new_one(files):
    crashed = sqlite3.connect(files / "state.db", isolation_level=None)  # holds on to its write-ahead log
    crashed.execute("PRAGMA journal_mode=WAL")
    crashed.execute("UPDATE objects SET name='in the log'")
    reader = sqlite3.connect(files / "state.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM meta").fetchall()
    done = restore(files / "saved.xml", connections(files))
    assert not (files / "state.db-wal").exists()
    reader.close()
    crashed.close()

    with sqlite3.connect(done["former"]) as former:
        assert former.execute("SELECT DISTINCT name FROM objects").fetchall() == [("in the log",)]
    former.close()
    db = open_at(files / "state.db")
    assert (pool_of(db), db.check()) == ("then", [])
    db.close()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", DumpError),
        (b"no XML", DumpError),
        (b"<database/>", DumpError),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><database/>', DumpError),
        (
            b'<database><manifest><pair key="schema_major_vsn" value="5"/></manifest></database>',
            NotRestorableError,
        ),
        (b"SQLite format 3\0" + b"x" * 5000, NotRestorableError),
        (gzip.compress(b"x", mtime=0), NotRestorableError),
        (b"\x1f\x8b\x08", NotRestorableError),
    ],
)
def test_what_is_no_database_of_a_pool_is_refused_and_nothing_is_changed(files, content, error):
    (files / "other").write_bytes(content)
    before = (files / "state.db").read_bytes()
    with pytest.raises(error):
        restore(files / "other", connections(files))

    assert (files / "state.db").read_bytes() == before
    assert left(files) == ["other"]


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_source_that_is_no_file_is_named(files, name):
    with pytest.raises(NotRestorableError, match="there is no file"):
        restore(files / name, connections(files))


def test_a_dump_cut_short_anywhere_is_refused(files):
    content = (files / "saved.xml").read_bytes()

    @given(st.integers(0, len(content) - 2))
    def cut(at):
        (files / "other").write_bytes(content[:at].rstrip())
        with pytest.raises(HostagentError):
            restore(files / "other", connections(files), dry_run=True)

    cut()
    assert left(files) == ["other"]


def test_what_is_unknown_or_leads_nowhere_is_told(files):
    text = (files / "saved.xml").read_text()
    text = text.replace(
        '<table name="pool"><row ', "<table name=\"pool\"><row wings='2' default_SR='OpaqueRef:gone' "
    )
    text = text.replace(' default_SR="OpaqueRef:NULL"', "")
    (files / "other").write_text(text)

    told = restore(files / "other", connections(files), dry_run=True)
    assert told["unknown"] == ["pool.wings"]
    assert [line for line in told["dangling"] if "default_SR" in line]


def test_a_dump_is_all_that_is_taken_where_only_a_dump_may_be(files):
    with pytest.raises(DumpError):
        restore(files / "saved.db", connections(files), dump_only=True)


def test_it_is_refused_while_another_process_has_the_database(files):
    db = open_at(files / "state.db")
    with pytest.raises(DatabaseError, match="another process has"):
        restore(files / "saved.xml", connections(files))
    db.close()


# through the process that has it open


def test_an_open_database_is_given_up_for_the_new_one(files):
    db = open_at(files / "state.db")
    generation = db.generation
    done = restore(files / "saved.xml", connections(files), database=db)

    assert done["generation"] > generation
    for use in (db.read, db.write):
        with pytest.raises(DatabaseError, match="has been replaced"), use():
            pass
    with pytest.raises(DatabaseError, match="another process has"):
        open_at(files / "state.db")
    db.close()
    opened = open_at(files / "state.db")
    assert (pool_of(opened), opened.check()) == ("then", [])
    opened.close()


def test_somebody_who_still_reads_keeps_the_database_as_it_is(files, monkeypatch):
    monkeypatch.setattr(restoring, "READERS_WAIT_S", 0.01)
    db = open_at(files / "state.db")
    with db.read() as view:
        with pytest.raises(BusyError):
            restore(files / "saved.xml", connections(files), database=db)
        assert view.counts()["pool"] == 1
    rename_pool(db, "afterwards")
    assert pool_of(db) == "afterwards"
    db.close()
    assert left(files) == []


def test_a_swap_that_fails_leaves_the_database_in_use(files, monkeypatch):
    db = open_at(files / "state.db")

    def fails(_source, _target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", fails)
    with pytest.raises(DatabaseError, match="No space left"):
        restore(files / "saved.xml", connections(files), database=db)
    rename_pool(db, "afterwards")
    assert pool_of(db) == "afterwards"
    db.close()
    assert left(files) == []


class PowerCutError(BaseException):
    """The machine is off: nothing that follows happens."""


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("damaged", [False, True])
def test_a_power_cut_at_any_change_of_a_name_leaves_one_of_both_whole(files, monkeypatch, at, damaged):
    """What is renamed or linked is cut before the change with that number; the rest is done by the next start."""
    if damaged:
        (files / "state.db").write_bytes(b"x" * 8192)
    before = (files / "state.db").read_bytes()
    prepared = restoring.prepare(files / "saved.xml", connections(files))
    steps = []

    def cut_before(change):
        def either(*given, **more):
            steps.append(change)
            if len(steps) > at:
                raise PowerCutError
            return change(*given, **more)

        return either

    with monkeypatch.context() as patched, contextlib.suppress(PowerCutError):
        patched.setattr(os, "link", cut_before(os.link))
        patched.setattr(Path, "rename", cut_before(Path.rename))
        patched.setattr(restoring, "sync_directory", cut_before(sync_directory))
        restoring.swap(prepared)

    if (files / "state.db").read_bytes() == before:
        assert at < 6
    else:
        db = open_at(files / "state.db")
        assert (pool_of(db), db.check()) == ("then", [])
        db.close()
        (former,) = files.glob("state.db.former-*")
        assert former.read_bytes() == before
    restore(files / "saved.xml", connections(files))
    db = open_at(files / "state.db")
    assert pool_of(db) == "then"
    db.close()


def test_what_lies_beside_a_database_that_is_gone_does_not_meet_the_restored_one(files):
    db = open_at(files / "state.db")
    with db.write() as w:
        for number in range(50):
            w.create("network", {"name_label": f"lost{number}"})
    wal = (files / "state.db-wal").read_bytes()
    db.close()
    for file in [*files.glob("state.db*")]:
        file.unlink()
    (files / "state.db-wal").write_bytes(wal)

    restore(files / "saved.xml", connections(files))

    db = open_at(files / "state.db")
    assert (pool_of(db), db.check()) == ("then", [])
    db.close()


def test_the_highest_generation_is_also_that_of_changes_not_yet_made(files):
    assert highest(Connection(files / "state.db")) > (look(Connection(files / "state.db")).generation or 0)
    assert highest(Connection(files / "missing.db")) == 0
    assert highest(Connection(files / "saved.gz", compress=True)) > 0


def test_a_copy_onto_the_database_itself_is_refused(files):
    db = open_at(files / "state.db")
    (files / "alias").symlink_to(files / "state.db")
    with pytest.raises(DatabaseError, match="is the database itself"):
        write_copy(db, files / "alias")
    db.close()


def test_a_copy_is_private_from_its_first_moment(files, monkeypatch):
    db = open_at(files / "state.db")
    modes = []
    make = db.backup

    def noting(path):
        modes.append(path.stat().st_mode & 0o777)
        make(path)

    monkeypatch.setattr(db, "backup", noting)
    write_copy(db, files / "copy.db", compress=True)
    db.close()
    assert modes == [0o600]
    assert (files / "copy.db").stat().st_mode & 0o777 == 0o600
