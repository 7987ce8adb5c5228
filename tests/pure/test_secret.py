"""The pool secret: its form, its hiding, and the two files of a rotation."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.config import Paths
from hostagent.log import Secret
from hostagent.startup.secret import (
    PoolSecrets,
    SecretError,
    new_secret,
    parse_secret,
    read_rotation,
    read_secret,
)
from tests.pure.startup_tree import value_or_error

FILE = Path("/etc/hostagent/ptoken")
OLD, NEW = "a" * 40, "b" * 40


def test_a_new_secret_is_three_uuids_and_never_the_same():
    first, second = new_secret(), new_secret()

    uuid = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(f"{uuid}/{uuid}/{uuid}", first.reveal())
    assert first != second


@pytest.mark.parametrize("text", ["a" * 36, "g" * 40, "A" * 40, f"{OLD} ", f"{OLD}\n\n", "", "é" * 40])
def test_what_is_too_short_or_of_other_characters_is_not_a_secret(text):
    with pytest.raises(SecretError) as caught:
        parse_secret(text.encode(), FILE)

    assert str(FILE) in caught.value.found
    assert text.strip() == "" or text.strip() not in caught.value.found


@pytest.mark.parametrize("text", ["a" * 37, f"{OLD}\n", "0/-" * 20])
def test_37_characters_of_the_alphabet_are_a_secret(text):
    assert parse_secret(text.encode(), FILE).reveal() == text.removesuffix("\n")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_secret_or_a_clear_error(data):
    found = value_or_error(lambda: parse_secret(data, FILE), SecretError)

    assert found.hint if isinstance(found, SecretError) else len(found.reveal()) >= 37


def test_a_secret_hides_from_text_and_pickle():
    secret = Secret("hunter2")

    assert "hunter2" not in f"{secret} {secret!r} {[secret]} {PoolSecrets(secret)}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


@pytest.fixture
def paths(tmp_path):
    return Paths(etc=tmp_path, state=tmp_path)


def test_no_rotation_files_mean_no_rotation(paths):
    assert read_rotation(paths) is None


def test_both_rotation_files_make_both_secrets_count(paths):
    (paths.state / "ptoken.old").write_text(OLD)
    (paths.state / "ptoken.new").write_text(NEW)

    rotation = read_rotation(paths)

    assert rotation == (Secret(OLD), Secret(NEW))
    assert PoolSecrets(Secret("c" * 40), rotation).accepted == (Secret("c" * 40), Secret(OLD), Secret(NEW))


@pytest.mark.parametrize(("present", "missing"), [("ptoken.old", "ptoken.new"), ("ptoken.new", "ptoken.old")])
def test_one_rotation_file_alone_is_a_rotation_that_stopped_half_way(paths, present, missing):
    (paths.state / present).write_text(OLD)

    with pytest.raises(SecretError, match="half-way") as caught:
        read_rotation(paths)

    assert missing in caught.value.found
    assert present in caught.value.hint


def test_a_missing_file_is_no_secret(tmp_path):
    assert read_secret(tmp_path / "ptoken") is None
