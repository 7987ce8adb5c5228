"""The inventory: its syntax, its required keys, and a rewrite that keeps what it does not know."""

from __future__ import annotations

import string
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import InvalidValueError
from hostagent.files import FileError
from hostagent.xen import inventory
from hostagent.xen.inventory import AddressType, InventoryError

PATH = Path("/etc/hostagent/inventory")
HOST = "7b1c2d3e-0000-4000-8000-00000000000a"
DOM0 = "7b1c2d3e-0000-4000-8000-00000000000b"
TEXT = f"""\
# written by the installer
INSTALLATION_UUID='{HOST}'
CONTROL_DOMAIN_UUID='{DOM0}'
MANAGEMENT_INTERFACE='xenbr0'
MANAGEMENT_ADDRESS_TYPE='IPv4'

BUILD_NUMBER='42'
SITE='Room 3 = cellar'
not a pair
CURRENT_INTERFACES='xenbr0 xenbr1'
"""

KEYS = st.text(string.ascii_uppercase + "_", min_size=1, max_size=12)
VALUES = st.text(st.characters(exclude_characters="'", exclude_categories=("Cc", "Cs")), max_size=30).map(
    str.strip
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An inventory as an installer wrote it."""
    path = tmp_path / "inventory"
    path.write_text(TEXT)
    return path


def test_every_known_key_is_read_and_unknown_ones_are_kept() -> None:
    found = inventory.parse(TEXT, PATH)

    assert found.installation_uuid == HOST
    assert found.control_domain_uuid == DOM0
    assert found.management_interface == "xenbr0"
    assert found.management_address_type is AddressType.IPV4
    assert found.build_number == "42"
    assert found.current_interfaces == ("xenbr0", "xenbr1")
    assert found.values["SITE"] == "Room 3 = cellar"


def test_a_later_duplicate_wins() -> None:
    found = inventory.parse(TEXT + "BUILD_NUMBER='43'\n", PATH)

    assert found.build_number == "43"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("BUILD_NUMBER=43", "43"),
        ("BUILD_NUMBER='43' ", "43"),
        ("  BUILD_NUMBER = ' 43 '", "43"),
        ("BUILD_NUMBER='43'\r", "43"),
        ("BUILD_NUMBER=''", ""),
        ("BUILD_NUMBER='", "'"),
        ("BUILD_NUMBER='a='b'", "a='b"),
    ],
)
def test_quotes_and_spaces_around_a_value_go(line: str, value: str) -> None:
    assert inventory.parse(f"{TEXT}{line}\n", PATH).build_number == value


def test_a_commented_key_does_not_count() -> None:
    text = TEXT.replace("BUILD_NUMBER", "#BUILD_NUMBER")

    with pytest.raises(InventoryError, match="has no BUILD_NUMBER"):
        inventory.parse(text, PATH)


def test_a_missing_file_is_made_by_the_first_start(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file") as caught:
        inventory.read(tmp_path / "inventory")
    assert "systemctl start hostagent" in caught.value.hint


@pytest.mark.parametrize("key", inventory.REQUIRED)
def test_a_missing_required_key_is_named_with_the_file(key: str) -> None:
    text = "".join(line for line in TEXT.splitlines(keepends=True) if not line.startswith(key))

    with pytest.raises(InventoryError, match=f"{PATH} has no {key}") as caught:
        inventory.parse(text, PATH)
    assert key in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INSTALLATION_UUID", ""),
        ("INSTALLATION_UUID", "not-a-uuid"),
        ("CONTROL_DOMAIN_UUID", HOST + "0"),
        ("MANAGEMENT_INTERFACE", "a-name-of-16-chr"),
        ("MANAGEMENT_INTERFACE", "../xenbr0"),
        ("MANAGEMENT_ADDRESS_TYPE", "ipv4"),
        ("MANAGEMENT_ADDRESS_TYPE", ""),
    ],
)
def test_a_value_that_cannot_be_is_refused_on_reading_and_on_writing(
    key: str, value: str, path: Path
) -> None:
    with pytest.raises(InventoryError, match=key):
        inventory.parse(f"{TEXT}{key}='{value}'\n", PATH)
    with pytest.raises(InvalidValueError):
        inventory.update(path, {key: value})
    assert path.read_text() == TEXT


def test_an_empty_management_interface_means_disabled_and_is_allowed() -> None:
    assert inventory.parse(TEXT.replace("'xenbr0'", "''"), PATH).management_interface == ""


def test_a_changed_key_changes_its_line_and_nothing_else(path: Path) -> None:
    found = inventory.update(path, {"MANAGEMENT_INTERFACE": "xenbr7"})

    assert found.management_interface == "xenbr7"
    assert path.read_text() == TEXT.replace("INTERFACE='xenbr0'", "INTERFACE='xenbr7'")


def test_a_new_key_comes_last(path: Path) -> None:
    inventory.update(path, {"OEM_MODEL": "X 1"})

    assert path.read_text() == TEXT + "OEM_MODEL='X 1'\n"


def test_a_new_key_after_a_last_line_without_newline_gets_its_own_line() -> None:
    assert inventory.replace("A='1'", {"B": "2"}) == "A='1'\nB='2'\n"


def test_of_duplicates_the_line_that_counts_is_changed() -> None:
    assert inventory.replace("A='1'\nA='2'\n", {"A": "3"}) == "A='1'\nA='3'\n"


def test_a_value_that_is_already_so_does_not_touch_the_file(path: Path) -> None:
    before = path.stat()

    inventory.update(path, {"BUILD_NUMBER": "42"})

    assert path.stat() == before


@pytest.mark.parametrize("value", ["two\nlines", "it's", " outer", "tab\t", "zero\0"])
def test_a_value_no_line_can_hold_is_refused(value: str) -> None:
    with pytest.raises(InvalidValueError):
        inventory.replace(TEXT, {"SITE": value})


@pytest.mark.parametrize("key", ["", "A B", "A=B", "#A", "A'"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(InvalidValueError):
        inventory.replace(TEXT, {key: "x"})


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xfe\x00", b"\0" * 100, b"", b"PK\x03\x04 no inventory", b"x" * (inventory.LIMIT_BYTES + 1)],
)
def test_a_file_that_is_no_inventory_is_refused_and_never_rewritten(path: Path, garbage: bytes) -> None:
    path.write_bytes(garbage)

    with pytest.raises((InventoryError, FileError)) as caught:
        inventory.update(path, {"BUILD_NUMBER": "1"})

    assert str(path) in caught.value.found
    assert caught.value.hint
    assert path.read_bytes() == garbage


def test_a_new_inventory_can_be_read_and_has_random_uuids() -> None:
    first, second = (inventory.parse(inventory.new(), PATH) for _ in range(2))

    assert uuid.UUID(first.installation_uuid).version == 4
    assert len({first.installation_uuid, first.control_domain_uuid, second.installation_uuid}) == 3
    assert (first.management_interface, first.build_number) == ("", "0")


@given(st.binary(max_size=300))
def test_any_bytes_are_an_inventory_or_an_inventory_error(data: bytes) -> None:
    with suppress(InventoryError):
        inventory.parse(data.decode("utf-8", "replace"), PATH)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_what_is_written_is_read_back(values: dict[str, str]) -> None:
    unknown = {key: value for key, value in values.items() if key not in inventory.FORMS}

    found = inventory.parse(inventory.replace(TEXT, unknown), PATH)

    assert {key: found.values[key] for key in unknown} == unknown


@given(st.text(max_size=200), KEYS, VALUES)
def test_a_rewrite_keeps_every_other_line_of_any_text(text: str, key: str, value: str) -> None:
    if key in inventory.FORMS:
        return

    changed = inventory.replace(text, {key: value})

    others = [line for line in text.split("\n") if inventory._pair(line)[0] != key]
    kept = [line for line in changed.split("\n") if inventory._pair(line)[0] != key]
    assert [line for line in kept if line] == [line for line in others if line]
    assert inventory.replace(changed, {key: value}) == changed
