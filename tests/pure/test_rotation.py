"""Which part of the long tests runs: shards, the hash of the tree, the part drawn from a matrix."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nested_xen import rotation

if TYPE_CHECKING:
    from pathlib import Path


@given(st.integers(1, 20), st.data())
def test_every_test_is_in_exactly_one_part(count, data):
    nodeid = data.draw(st.text())
    parts = [rotation.shard(f"{index}/{count}") for index in range(1, count + 1)]

    assert sum(rotation.in_shard(nodeid, part) for part in parts) == 1


@pytest.mark.parametrize(
    "text", ["9/8", "0/8", "1/0", "-1/8", "1/8/2", "1", "", "/", "a/b", " 1/8", "1/8\n", "\u0661/8"]
)
def test_a_part_that_cannot_be_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="I from 1 to N"):
        rotation.shard(text)


@given(st.text())
def test_what_is_taken_for_a_part_is_one(text):
    try:
        index, count = map(int, rotation.shard(text).split("/"))
    except argparse.ArgumentTypeError:
        return

    assert 1 <= index <= count


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in rotation.HASHED:
        if "." in name:
            (tmp_path / name).write_text("")
        else:
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text("")
    monkeypatch.setattr(rotation, "PROJECT", tmp_path)
    return tmp_path


def fresh_hash() -> str:
    rotation.tree_hash.cache_clear()
    try:
        return rotation.tree_hash()
    finally:
        rotation.tree_hash.cache_clear()


@pytest.mark.parametrize("name", ["pyproject.toml", "hostagent/file", "scripts/file", "packaging/file"])
def test_the_hash_of_the_tree_follows_its_files(tree, name):
    before = fresh_hash()

    (tree / name).write_text("changed")

    assert fresh_hash() != before


def test_caches_are_no_part_of_the_tree(tree):
    before = fresh_hash()

    (tree / "hostagent" / "__pycache__").mkdir()
    (tree / "hostagent" / "__pycache__" / "x.pyc").write_text("x")

    assert fresh_hash() == before
