"""`db.conf`, which of several files is opened, what becomes of a damaged one, and the copies."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.db.connections import (
    Connection,
    Copies,
    DbConfError,
    look,
    open_newest,
    parse,
    read_conf,
    write_copy,
)
from hostagent.db.errors import DatabaseError, InUseError, NewerSchemaError

CONF = """# text outside blocks is skipped
[/var/lib/one.db]
mode:write_limit
write_limit_period:60
write_limit_write_cycles:2
compress:TRUE
format:xml
url:http://host:80/

[/var/lib/two.db]
is_on_remote_storage:false
"""


def network(database, name):
    with database.write() as w:
        return w.create("network", {"name_label": name})


def names(database):
    with database.read() as view:
        return sorted(str(record["name_label"]) for _, record in view.records("network"))


@pytest.fixture
def two(tmp_path):
    return Connection(tmp_path / "backup.db"), Connection(tmp_path / "state.db")


@pytest.fixture
def opened(tmp_path):
    databases = []

    def make(*connections):
        found = open_newest(connections, tmp_path / "volatile.db")
        databases.append(found.database)
        return found

    yield make
    for database in databases:
        database.close()


def test_the_format_is_read():
    one, two = parse(CONF)
    assert (one.limited, one.period_s, one.cycles, one.compress) == (True, 60, 2, True)
    assert one.others == {"format": "xml", "url": "http://host:80/"}
    assert (str(two.path), two.limited, two.remote) == ("/var/lib/two.db", False, False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no database"),
        ("[relative]\n", "no database"),
        ("[/a]\n\n[/a]\n", "twice"),
        ("[/a]\nmode:sometimes\n", "mode"),
        ("[/a]\ncompress:perhaps\n", "compress"),
        ("[/a]\nwrite_limit_period:-1\n", "write_limit_period"),
        ("[/a]\nno colon\n", "line 2"),
        ("[/a]\nis_on_remote_storage:true\n[/b]\nis_on_remote_storage:true\n", "more than one"),
    ],
)
def test_what_cannot_be_understood_is_named(text, found):
    with pytest.raises(DbConfError, match=found):
        parse(text)


@given(st.text("[]/ab:\n #", max_size=80))
def test_any_text_is_a_configuration_or_refused(text):
    try:
        assert parse(text)
    except DbConfError:
        pass


def test_without_the_file_there_is_one_database(tmp_path):
    assert read_conf(tmp_path / "db.conf", tmp_path / "state.db") == [Connection(tmp_path / "state.db")]


def test_the_first_start_makes_the_preferred_database(two, opened):
    found = opened(*two)
    assert (found.taken, found.set_aside) == (None, ())
    assert two[1].path.exists()
    assert not two[0].path.exists()


def test_a_copy_follows_and_is_taken_when_the_preferred_file_is_gone(two, opened):
    found = opened(*two)
    network(found.database, "kept")
    Copies(found.database, [two[0]]).write(two[0])
    found.database.close()
    for file in two[1].path.parent.glob("state.db*"):
        file.unlink()
    again = opened(*two)
    assert again.taken == two[0].path
    assert names(again.database) == ["kept"]


def test_the_newest_generation_wins_and_the_older_file_is_kept_beside(two, opened):
    found = opened(*two)
    network(found.database, "old")
    write_copy(found.database, two[0].path.with_name("early.db"))
    network(found.database, "new")
    write_copy(found.database, two[0].path)
    found.database.close()
    for file in two[1].path.parent.glob("state.db*"):
        file.unlink()
    two[0].path.with_name("early.db").rename(two[1].path)
    again = opened(*two)
    assert names(again.database) == ["new", "old"]
    assert again.taken == two[0].path
    assert len(again.set_aside) == 1


def test_of_two_equal_files_the_preferred_one_is_used_as_it_is(two, opened):
    found = opened(*two)
    network(found.database, "n")
    write_copy(found.database, two[0].path)
    found.database.close()
    again = opened(*two)
    assert (again.taken, again.set_aside) == (two[1].path, ())


@pytest.mark.parametrize("damage", [b"garbage" * 1000, b"SQLite format 3\x00" + b"\xff" * 8192])
def test_a_damaged_file_is_set_aside_and_the_good_copy_used(two, opened, damage):
    found = opened(*two)
    network(found.database, "kept")
    write_copy(found.database, two[0].path)
    found.database.close()
    two[1].path.write_bytes(damage)
    again = opened(*two)
    assert names(again.database) == ["kept"]
    (aside,) = again.set_aside
    assert aside.read_bytes() == damage
    assert ".corrupt-" in aside.name


def test_a_truncated_file_is_damaged(two, opened):
    found = opened(two[1])
    for number in range(200):
        network(found.database, f"n{number}")
    found.database.close()
    whole = two[1].path.read_bytes()
    two[1].path.write_bytes(whole[: len(whole) // 2])
    assert look(two[1]).generation is None
    assert look(two[1]).trouble


def test_a_database_of_something_else_is_not_ours(two):
    other = sqlite3.connect(two[1].path)
    other.execute("CREATE TABLE t(x)")
    other.commit()
    other.close()
    assert look(two[1]).trouble


def test_a_newer_file_is_refused_before_anything_is_touched(two, opened):
    found = opened(*two)
    write_copy(found.database, two[0].path)
    found.database.close()
    raw = sqlite3.connect(two[0].path)
    raw.execute("PRAGMA user_version=999")
    raw.close()
    before = {file: file.read_bytes() for file in two[0].path.parent.iterdir() if file.suffix == ".db"}
    with pytest.raises(NewerSchemaError):
        opened(*two)
    assert {file: file.read_bytes() for file in before} == before


def test_a_compressed_copy_is_read_back(tmp_path, opened):
    packed, plain = Connection(tmp_path / "b.gz", compress=True), Connection(tmp_path / "state.db")
    found = opened(packed, plain)
    network(found.database, "kept")
    Copies(found.database, [packed]).write(packed)
    found.database.close()
    for file in tmp_path.glob("state.db*"):
        file.unlink()
    assert packed.path.read_bytes()[:2] == b"\x1f\x8b"
    assert names(opened(packed, plain).database) == ["kept"]


def test_copies_are_due_after_a_change_and_within_their_limit(tmp_path, opened):
    limited = Connection(tmp_path / "slow.db", limited=True, period_s=60, cycles=2)
    found = opened(Connection(tmp_path / "state.db"))
    copies = Copies(found.database, [limited])
    for moment in (0.0, 1.0):
        network(found.database, f"n{moment}")
        assert copies.due(moment) == [limited]
        copies.write(limited, moment)
        assert copies.due(moment) == []
    network(found.database, "third")
    assert copies.due(2.0) == []
    assert copies.due(61.0) == [limited]


def test_a_copy_that_cannot_be_written_is_told_and_leaves_the_former_one(tmp_path, opened):
    found = opened(Connection(tmp_path / "state.db"))
    with pytest.raises(DatabaseError, match="could not be written"):
        write_copy(found.database, tmp_path / "missing" / "copy.db")


def test_while_another_process_has_the_database_nothing_is_set_aside(two, opened):
    opened(*two)
    backup, own = two
    backup.path.write_bytes(b"no database at all" * 100)
    before = sorted(own.path.parent.iterdir())

    with pytest.raises(InUseError, match="another process has"):
        open_newest(two, own.path.parent / "other.db")

    assert sorted(own.path.parent.iterdir()) == before
