"""`db.conf`, which of several files is opened, what becomes of a damaged one, and the copies."""

from __future__ import annotations

import errno
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.db.connections import look, open_newest
from hostagent.db.copies import Copies, write_copy
from hostagent.db.dbconf import Connection, DbConfError, parse, read_conf
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


def test_a_copy_that_cannot_be_written_is_told(tmp_path, opened):
    found = opened(Connection(tmp_path / "state.db"))
    with pytest.raises(DatabaseError, match="could not be written"):
        write_copy(found.database, tmp_path / "missing" / "copy.db")


@pytest.mark.parametrize(
    ("at", "compress"),
    [("integrity", False), ("shutil.copyfileobj", True), ("_sync", False), ("_sync", True)],
)
def test_a_copy_that_was_cut_off_leaves_the_former_one_and_nothing_else(
    tmp_path, opened, monkeypatch, at, compress
):
    found = opened(Connection(tmp_path / "state.db"))
    target = tmp_path / "copies" / "copy.db"
    target.parent.mkdir()
    write_copy(found.database, target, compress=compress)
    former = target.read_bytes()
    network(found.database, "more")
    written: list[str] = []

    def full(*_):
        written.extend(file.name for file in target.parent.iterdir() if file.stat().st_size)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"hostagent.db.copies.{at}", full)
    with pytest.raises(DatabaseError, match="No space left"):
        write_copy(found.database, target, compress=compress)

    assert ".copy.db.new" in written
    assert [file.name for file in target.parent.iterdir()] == ["copy.db"]
    assert target.read_bytes() == former


def test_while_another_process_has_the_database_nothing_is_set_aside(two, opened):
    opened(*two)
    backup, own = two
    backup.path.write_bytes(b"no database at all" * 100)
    before = sorted(own.path.parent.iterdir())

    with pytest.raises(InUseError, match="another process has"):
        open_newest(two, own.path.parent / "other.db")

    assert sorted(own.path.parent.iterdir()) == before


# what must never look like an empty or older database


def files(path):
    return path.parent.glob(f"{path.name}*")


def cut_off(database, aside):
    """The files of a database whose process ends now: what it has committed is in the -wal. They go into `aside`."""
    aside.mkdir()
    for file in files(database.path):
        aside.joinpath(file.name).write_bytes(file.read_bytes())
    return aside


def put_back(aside, path):
    for file in [*files(path)]:
        file.unlink()
    for file in aside.iterdir():
        path.with_name(file.name).write_bytes(file.read_bytes())


def test_a_file_that_cannot_be_read_now_is_not_taken_for_a_damaged_one(tmp_path, opened):
    own = Connection(tmp_path / "state.db")
    found = opened(own)
    network(found.database, "kept")
    found.database.close()
    side = tmp_path / "state.db-wal"
    side.unlink(missing_ok=True)
    side.mkdir()  # SQLite cannot make its file there: as on a disk that is full or ill

    with pytest.raises(DatabaseError, match="cannot be read now"):
        opened(own)

    side.rmdir()
    again = opened(own)
    assert (names(again.database), again.set_aside) == (["kept"], ())


def test_a_copy_that_cannot_be_read_now_is_left_alone(two, opened):
    found = opened(*two)
    network(found.database, "kept")
    found.database.close()
    two[0].path.mkdir()
    again = opened(*two)
    assert (names(again.database), again.set_aside) == (["kept"], ())
    again.database.close()
    for file in [*files(two[1].path)]:
        file.unlink()
    with pytest.raises(DatabaseError, match="cannot be read now"):
        opened(*two)
    assert not two[1].path.exists()


def test_a_preferred_database_that_is_said_to_be_compressed_is_kept(tmp_path, opened):
    own = Connection(tmp_path / "state.db", compress=True)
    found = opened(own)
    network(found.database, "kept")
    found.database.close()
    again = opened(own)
    assert (names(again.database), again.set_aside) == (["kept"], ())


def test_a_compressed_copy_in_the_place_of_the_preferred_file_is_unpacked(tmp_path, opened):
    own = Connection(tmp_path / "state.db")
    found = opened(own)
    network(found.database, "kept")
    write_copy(found.database, tmp_path / "packed", compress=True)
    found.database.close()
    for file in [*files(own.path)]:
        file.unlink()
    tmp_path.joinpath("packed").rename(own.path)
    assert names(opened(own).database) == ["kept"]


@pytest.mark.parametrize("cut", [20, 400])
def test_a_damaged_compressed_copy_is_set_aside(tmp_path, opened, cut):
    packed, own = Connection(tmp_path / "b.gz", compress=True), Connection(tmp_path / "state.db")
    found = opened(packed, own)
    network(found.database, "kept")
    write_copy(found.database, packed.path, compress=True)
    found.database.close()
    whole = packed.path.read_bytes()
    packed.path.write_bytes(whole[:cut] + b"\xff" * 60 + whole[cut + 60 :])
    again = opened(packed, own)
    assert names(again.database) == ["kept"]
    assert [path.name.partition(".corrupt")[0] for path in again.set_aside] == ["b.gz"]


def test_an_empty_file_was_cut_off_and_is_set_aside_with_what_is_beside_it(two, opened, tmp_path):
    found = opened(*two)
    network(found.database, "kept")
    aside = cut_off(found.database, tmp_path / "aside")
    found.database.close()
    put_back(aside, two[1].path)
    two[1].path.write_bytes(b"")
    again = opened(*two)
    (name,) = again.set_aside
    assert name.exists()
    assert name.with_name(f"{name.name}-wal").stat().st_size
    assert again.warnings == (
        f"{two[1].path} was damaged (it is empty: it was cut off); it is kept as {name}",
    )


def test_a_file_of_a_start_that_was_cut_off_is_no_damage(tmp_path, opened):
    own = Connection(tmp_path / "state.db")
    raw = sqlite3.connect(own.path)
    raw.execute("PRAGMA journal_mode=WAL")
    raw.close()
    assert opened(own).set_aside == ()


def test_a_copy_does_not_undo_that_something_was_destroyed_last(two, opened):
    found = opened(*two)
    ref = network(found.database, "destroyed")
    write_copy(found.database, two[0].path)
    with found.database.write() as w:
        w.destroy("network", ref)
    found.database.close()
    again = opened(*two)
    assert (names(again.database), again.taken) == ([], two[1].path)


def test_what_lies_beside_a_file_that_is_gone_does_not_meet_the_copy(two, opened, tmp_path):
    """As after a cut between setting aside the file and what SQLite keeps beside it."""
    found = opened(*two)
    network(found.database, "kept")
    write_copy(found.database, two[0].path)
    for number in range(50):
        network(found.database, f"lost{number}")
    aside = cut_off(found.database, tmp_path / "aside")
    found.database.close()
    put_back(aside, two[1].path)
    two[1].path.unlink()
    again = opened(*two)
    assert (names(again.database), again.database.check()) == (["kept"], [])


def test_what_lies_beside_the_only_file_that_is_gone_is_kept_and_told(tmp_path, opened):
    own = Connection(tmp_path / "state.db")
    found = opened(own)
    network(found.database, "lost")
    aside = cut_off(found.database, tmp_path / "aside")
    found.database.close()
    put_back(aside, own.path)
    own.path.unlink()
    again = opened(own)
    assert "was gone" in again.warnings[0]
    assert [*tmp_path.glob("state.db.corrupt-*-wal")]


def test_a_copy_over_a_file_that_was_cut_off_is_not_mixed_with_it(tmp_path, opened):
    """An operator made another file the preferred one: the former one, whose process was killed, becomes a copy."""
    former, own = Connection(tmp_path / "former.db"), Connection(tmp_path / "state.db")
    first = opened(former)
    for number in range(50):
        network(first.database, f"n{number}")
    aside = cut_off(first.database, tmp_path / "aside")
    first.database.close()
    put_back(aside, former.path)
    found = opened(former, own)
    with found.database.write() as w:
        for ref in w.refs("network"):
            w.destroy("network", ref)
    network(found.database, "new")
    look(former)
    write_copy(found.database, former.path)
    found.database.close()
    for file in [*files(own.path)]:
        file.unlink()
    assert look(former).trouble == ""
    assert names(opened(former, own).database) == ["new"]


def test_with_the_contents_of_a_copy_the_generation_jumps_and_clients_start_anew(two, opened):
    found = opened(*two)
    write_copy(found.database, two[0].path)
    for number in range(3000):  # beyond the ceiling that the copy knows
        with found.database.write() as w:
            w.dirty = number % 1500 == 0
        network(found.database, "n") if number % 100 == 0 else None
    seen = found.database.generation + 3000
    found.database.close()
    for file in [*files(two[1].path)]:
        file.unlink()
    again = opened(*two)
    assert again.database.generation > seen
    with again.database.read() as view:
        assert view.floor() > seen
