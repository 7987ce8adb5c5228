"""The journal says after any crash what is to be undone; one process at a time changes the network."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import BusyError
from hostagent.files import FileError
from hostagent.net import journal
from hostagent.net.operation import Operation, Plan, Step

PLAN = Plan((
    Step(
        Operation("link-add", "xapi1", 7, {"kind": "bridge", "settings": {"stp_state": 0}}),
        (Operation("link-del", "xapi1", 7),),
        ("OpaqueRef:1",),
    ),
))  # fmt: skip


LINK = Operation("link-set", "eth0", 1, {"master": 7})
BACK = Operation("link-set", "eth0", 1, {"master": 0})


def begin(folder):
    return journal.begin(folder, PLAN, boot="b1", digest="d", what="plug")


def test_a_begun_journal_is_read_back_whole(tmp_path):
    begun = begin(tmp_path / "net")

    assert journal.pending(tmp_path / "net") == begun
    assert begun.steps == PLAN.steps
    assert (tmp_path / "net" / "journal").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("state", [journal.COMMITTED, journal.UNDONE])
def test_what_is_over_is_no_longer_pending(tmp_path, state):
    applied = journal.mark(tmp_path, begin(tmp_path), journal.APPLIED)
    assert journal.pending(tmp_path) == applied

    journal.mark(tmp_path, applied, state)

    assert journal.pending(tmp_path) is None
    begin(tmp_path)


@pytest.mark.parametrize("state", [journal.WAITING, journal.UNDO_FAILED])
def test_what_waits_or_could_not_be_undone_is_pending(tmp_path, state):
    left = journal.mark(tmp_path, begin(tmp_path), state)

    assert journal.pending(tmp_path) == left
    assert journal.usable(tmp_path) == (left, "")


def test_a_change_replaces_one_whose_undo_failed(tmp_path):
    journal.mark(tmp_path, begin(tmp_path), journal.UNDO_FAILED)

    assert begin(tmp_path) == journal.pending(tmp_path)


def test_what_is_over_needs_no_version(tmp_path):
    (tmp_path / "journal").write_text('{"version":99,"state":"committed","steps":"other"}\n')

    assert journal.pending(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "aside"),
    [
        (b"", "journal.damaged"),
        (b"\0" * 100, "journal.damaged"),
        (b'{"version":2,"state":"begun"}\n', "journal.version-2"),
        (b'{"version":"../x","state":"begun"}\n', "journal.damaged"),
        (b'{"version":true,"state":"begun"}\n', "journal.damaged"),
        (b'{"state":"begun"}\n', "journal.damaged"),
    ],
)
def test_one_that_cannot_be_understood_is_set_aside_under_a_name_that_tells(tmp_path, content, aside):
    (tmp_path / "journal").write_bytes(content)

    left, told = journal.usable(tmp_path)

    assert left is None
    assert str(tmp_path / aside) in told
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {aside: content}
    begin(tmp_path)


def test_one_that_is_no_file_is_set_aside_too(tmp_path):
    (tmp_path / "journal").mkdir()

    left, told = journal.usable(tmp_path)

    assert (left, (tmp_path / "journal.damaged").is_dir()) == (None, True)
    assert told


def test_nothing_is_pending_where_there_never_was_a_journal(tmp_path):
    assert journal.pending(tmp_path) is None


def test_a_second_change_waits_for_the_end_of_the_first(tmp_path):
    begin(tmp_path)

    with pytest.raises(BusyError, match=r"plug\) is begun"):
        begin(tmp_path)


VALUES = st.recursive(
    st.none() | st.text() | st.integers(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["version", "state", "steps", "boot_id"]), inner)
    ),
).map(lambda value: json.dumps(value).encode())


@given(st.binary() | VALUES)
def test_any_other_content_is_an_error_that_names_the_file(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("net")
    (folder / "journal").write_bytes(content)

    with pytest.raises(journal.JournalError, match="journal is not a journal of ours"):
        journal.pending(folder)


def test_the_lock_names_its_holder_to_who_waits_in_vain(tmp_path):
    slept = []

    def sleep(seconds):
        slept.append(seconds)

    with journal.Lock(tmp_path, "the undo timer", wait_s=0):
        with pytest.raises(BusyError, match=r"changed by the undo timer \(pid \d+\)"):
            journal.Lock(tmp_path, "second", wait_s=0.002, sleep=sleep).__enter__()
    assert slept
    with journal.Lock(tmp_path, "third", wait_s=0):
        assert (tmp_path / "lock").read_text().startswith("third (pid ")


MIXED = Plan((*PLAN.steps, Step(LINK, (BACK,)), Step(LINK, (BACK,)), *PLAN.steps, Step(LINK, (BACK,))))


@pytest.mark.parametrize(
    ("lines", "steps"),
    [("", 1), ("2\n", 2), ("2\n3\n", 4), ("2\n3", 2), ("3", 1), ("1\n2\n5\n", 5), ("5\n", 5)],
)
def test_only_steps_that_may_have_begun_are_there_to_be_undone(tmp_path, lines, steps):
    journal.begin(tmp_path, MIXED, boot="b1", digest="d", what="plug")
    with (tmp_path / "journal").open("a") as file:
        file.write(lines)

    found = journal.pending(tmp_path)

    assert found is not None
    assert found.steps == MIXED.steps[:steps]


def test_progress_goes_behind_the_journal_and_an_applied_one_is_whole(tmp_path):
    begun = journal.begin(tmp_path, MIXED, boot="b1", digest="d", what="plug")
    journal.progress(tmp_path, 2)
    journal.progress(tmp_path, 3)
    found = journal.pending(tmp_path)
    assert found is not None
    assert found.steps == MIXED.steps[:4]

    journal.mark(tmp_path, begun, journal.APPLIED)

    found = journal.pending(tmp_path)
    assert found is not None
    assert found.steps == MIXED.steps


def test_progress_of_what_is_not_there_is_told(tmp_path):
    with pytest.raises(FileError, match="could not be continued"):
        journal.progress(tmp_path, 1)
