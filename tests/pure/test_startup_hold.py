# mypy: disable-error-code="union-attr,attr-defined,arg-type,index"
"""Hold points: only the right file holds, only at its place, and the deadline stands still meanwhile."""

from __future__ import annotations

import os

import pytest

from hostagent.startup import hold
from hostagent.startup.hold import Holder

OWNER = os.getuid()


@pytest.fixture
def released(tmp_path, monkeypatch):
    """Pauses that the holder made; after the third one the test takes the order away."""
    pauses = []

    def pause(seconds):
        pauses.append((tmp_path / "held").read_text())
        if len(pauses) == 3:
            (tmp_path / "hold").unlink()

    monkeypatch.setattr(hold.time, "sleep", pause)
    return pauses


def order(tmp_path, text, mode=0o600):
    path = tmp_path / "hold"
    path.write_text(text)
    path.chmod(mode)


def test_without_an_order_nothing_is_held(tmp_path, released):
    Holder(tmp_path, "a", owner=OWNER).hold("before")

    assert released == []


def test_an_order_holds_until_it_is_taken_away_and_is_announced(tmp_path, released):
    order(tmp_path, "a:before\n")

    Holder(tmp_path, "a", owner=OWNER).hold("before")

    assert released == [f"a:before {os.getpid()}\n"] * 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["a:after", "b:before", "before", "", "a:before b:before"])
def test_an_order_for_another_place_does_not_hold(tmp_path, released, text):
    order(tmp_path, text)

    Holder(tmp_path, "a", owner=OWNER).hold("before")

    assert released == []


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_an_order_that_others_could_have_written_does_not_hold(tmp_path, released, mode):
    order(tmp_path, "a:before", mode)

    Holder(tmp_path, "a", owner=OWNER).hold("before")

    assert released == []


def test_an_order_of_another_owner_does_not_hold(tmp_path, released):
    order(tmp_path, "a:before")

    Holder(tmp_path, "a", owner=OWNER + 1).hold("before")

    assert released == []


def test_an_order_through_a_link_does_not_hold(tmp_path, released):
    (tmp_path / "elsewhere").write_text("a:before")
    (tmp_path / "hold").symlink_to("elsewhere")

    Holder(tmp_path, "a", owner=OWNER).hold("before")

    assert released == []


def test_the_time_held_is_counted(tmp_path, released, monkeypatch):
    moments = iter((10.0, 14.5))
    monkeypatch.setattr(hold.time, "monotonic", lambda: next(moments))
    order(tmp_path, "a:before")
    holder = Holder(tmp_path, "a", owner=OWNER)

    holder.hold("before")

    assert holder.seconds == 4.5
