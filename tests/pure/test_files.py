"""Files are replaced whole or not at all, and no writer's remains pile up."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from typing import TYPE_CHECKING

import pytest

from hostagent import files
from hostagent.errors import BusyError
from hostagent.files import FileError, read_bounded, temporary_name, write_atomic

if TYPE_CHECKING:
    from pathlib import Path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def failing_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is found full when the data is to reach it."""

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


def test_a_new_file_has_its_content_and_mode_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_atomic(tmp_path / "secret", "text\n", mode=0o600)

    assert (tmp_path / "secret").read_bytes() == b"text\n"
    assert mode_of(tmp_path / "secret") == 0o600
    assert names(tmp_path) == ["secret"]


def test_an_old_file_is_replaced_with_shorter_content_and_the_new_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a longer text than the new one")
    path.chmod(0o600)

    write_atomic(path, b"\xff\x00", mode=0o644)

    assert path.read_bytes() == b"\xff\x00"
    assert mode_of(path) == 0o644


def test_one_who_reads_while_it_is_replaced_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    with path.open() as reader:
        write_atomic(path, "new")

        assert reader.read() == "old"


@pytest.mark.usefixtures("failing_fsync")
def test_a_full_disk_leaves_the_old_file_untouched_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    with pytest.raises(FileError) as caught:
        write_atomic(path, "new")

    assert caught.value.errno == errno.ENOSPC
    assert "df" in caught.value.hint
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nowhere/file could not be written: No such file"):
        write_atomic(tmp_path / "nowhere" / "file", "new")


def test_what_a_killed_writer_left_is_taken_over_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    temporary_name(path).write_text("half of something long that was never finis")

    write_atomic(path, "new")

    assert path.read_text() == "new"
    assert names(tmp_path) == ["file"]


def test_a_secret_is_never_readable_by_others_even_over_a_leftover_that_was(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    leftover = temporary_name(path)
    leftover.write_text("")
    leftover.chmod(0o666)

    descriptor = files._lock_temporary(leftover)

    assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
    os.close(descriptor)


def test_two_writers_take_turns_and_the_second_gives_up_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    moments = iter(range(0, 1000, 2))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(moments)))
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with temporary_name(path).open("w") as working:
        fcntl.flock(working, fcntl.LOCK_EX)

        with pytest.raises(BusyError):
            write_atomic(path, "new")

    assert path.read_text() == "old"


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")

    write_atomic(tmp_path / "link", "new")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_link_planted_as_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    temporary_name(tmp_path / "file").symlink_to(victim)

    with pytest.raises(FileError):
        write_atomic(tmp_path / "file", "new")

    assert victim.read_text() == "precious"


def test_reading_gives_all_of_a_file_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")

    assert read_bounded(tmp_path / "file", limit_bytes=5) == b"12345"


def test_a_larger_file_than_allowed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"123456")

    with pytest.raises(FileError, match="larger than 5 bytes"):
        read_bounded(tmp_path / "file", limit_bytes=5)


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(FileError, match="not a plain file"):
        read_bounded(tmp_path / "pipe", limit_bytes=5)


def test_a_directory_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"not a plain file|Is a directory"):
        read_bounded(tmp_path, limit_bytes=5)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        read_bounded(tmp_path / "none", limit_bytes=5)

    assert caught.value.errno == errno.ENOENT
