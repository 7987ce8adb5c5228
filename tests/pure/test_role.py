"""The role file: what is a role, and that nothing else ever becomes one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import InvalidValueError
from hostagent.files import FileError
from hostagent.startup.role import (
    ADDRESS,
    BROKEN,
    COORDINATOR,
    PoolRole,
    RoleError,
    RoleWord,
    format_role,
    parse_role,
    read_role,
    supporter_of,
    write_role,
)
from tests.pure.startup_tree import value_or_error

FILE = Path("/etc/hostagent/pool.conf")


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("master", COORDINATOR),
        (" master \n", COORDINATOR),
        ("broken\n", BROKEN),
        ("slave:192.0.2.1", PoolRole(RoleWord.SUPPORTER, "192.0.2.1")),
        ("slave:2001:db8::1\n", PoolRole(RoleWord.SUPPORTER, "2001:db8::1")),
        ("slave: host-1.example\n", PoolRole(RoleWord.SUPPORTER, "host-1.example")),
    ],
)
def test_roles_are_read_as_xapi_writes_them(text, role):
    assert parse_role(text, FILE) == role


@pytest.mark.parametrize(
    "text", ["", "Master", "slave", "slave:", "slave: ", "slave:a b", "master\nslave:x", "null"]
)
def test_anything_else_is_refused_and_shown(text):
    with pytest.raises(RoleError, match="not a role") as caught:
        parse_role(text, FILE)

    assert str(FILE) in caught.value.found
    assert "slave:ADDRESS" in caught.value.hint


@given(st.binary(max_size=100))
def test_any_file_is_a_role_or_a_clear_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("role") / "pool.conf"
    path.write_bytes(data)

    found = value_or_error(lambda: read_role(path), RoleError)

    assert isinstance(found, RoleError) or format_role(found).encode().split(b":")[0] in data


@given(st.from_regex(ADDRESS, fullmatch=True))
def test_a_role_survives_its_file(tmp_path_factory, address):
    path = tmp_path_factory.mktemp("role") / "pool.conf"

    write_role(path, supporter_of(address))

    assert read_role(path) == supporter_of(address)
    assert format_role(read_role(path)) == f"slave:{address}"


@pytest.mark.parametrize("role", [COORDINATOR, BROKEN])
def test_a_role_without_address_survives_its_file(tmp_path, role):
    write_role(tmp_path / "pool.conf", role)

    assert read_role(tmp_path / "pool.conf") == role


def test_a_supporter_of_no_address_is_refused():
    with pytest.raises(InvalidValueError):
        supporter_of("a b")


def test_a_missing_file_is_not_a_role(tmp_path):
    with pytest.raises(FileError):
        read_role(tmp_path / "pool.conf")
