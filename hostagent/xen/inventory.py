"""The host inventory: who this host is, in lines of `KEY='value'`.

Split at the first `=`, one pair of surrounding single quotes removed, value trimmed, lines without `=` and
comments ignored, a later duplicate wins (startup-and-pool-join 2.1). A change rewrites only the lines of the
keys it changes: unknown keys, comments, order and everything else stay byte for byte.
"""

from __future__ import annotations

import enum
import errno
import re
import uuid
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from hostagent.errors import InvalidValueError, OperatorError
from hostagent.files import FileError, read_bounded, write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LIMIT_BYTES = 65536  # a real one has about 1 KiB
MODE = 0o644

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
LINK_NAME = re.compile(r"[^\s/:'\x00-\x1f\x7f]{0,15}")  # IFNAMSIZ less the final zero; may be empty
KEY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f']")


class AddressType(enum.Enum):
    """The address family of the management interface (XenAPI primary_address_type)."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"


REQUIRED = (
    "INSTALLATION_UUID",
    "CONTROL_DOMAIN_UUID",
    "MANAGEMENT_INTERFACE",
    "MANAGEMENT_ADDRESS_TYPE",
    "BUILD_NUMBER",
)
FORMS = {
    "INSTALLATION_UUID": (UUID, "a uuid"),
    "CONTROL_DOMAIN_UUID": (UUID, "a uuid"),
    "MANAGEMENT_INTERFACE": (LINK_NAME, "a bridge name of at most 15 characters, or empty"),
    "MANAGEMENT_ADDRESS_TYPE": (re.compile("IPv4|IPv6"), "IPv4 or IPv6"),
}


class InventoryError(OperatorError):
    """The inventory file lacks a key, or holds something that is not an inventory."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the inventory says; `values` holds every key of the file, the known ones included."""

    installation_uuid: str
    control_domain_uuid: str
    management_interface: str
    management_address_type: AddressType
    build_number: str
    current_interfaces: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)


def new(*, installation_uuid: str = "", control_domain_uuid: str = "") -> str:
    """The text of a first inventory: random uuids unless given, no management interface, IPv4, build 0."""
    return render(
        {
            "INSTALLATION_UUID": installation_uuid or str(uuid.uuid4()),
            "CONTROL_DOMAIN_UUID": control_domain_uuid or str(uuid.uuid4()),
            "MANAGEMENT_INTERFACE": "",
            "MANAGEMENT_ADDRESS_TYPE": AddressType.IPV4.value,
            "BUILD_NUMBER": "0",
        }
    )


def read(path: Path) -> Inventory:
    """The inventory in this file.

    Raises FileError (missing, unreadable, too large) and InventoryError (garbage, missing key, bad value).
    """
    return parse(_text(path), path)


def update(path: Path, changes: Mapping[str, str]) -> Inventory:
    """Change these keys in the file and return what it says then; not written if nothing changes.

    Raises InvalidValueError for a value no inventory can hold; FileError and InventoryError as `read`, and a
    file that does not parse is never rewritten.
    """
    text = _text(path)
    parse(text, path)
    changed = replace(text, changes)
    inventory = parse(changed, path)
    if changed != text:
        write_atomic(path, changed, mode=MODE)
    return inventory


def parse(text: str, path: Path) -> Inventory:
    """The inventory in `text`; `path` is named in errors. Raises InventoryError."""
    values = {key: value for key, value in map(_pair, text.split("\n")) if key}
    for key in REQUIRED:
        if key not in values:
            raise InventoryError(
                f"{path} has no {key}", hint=f"add a line {key}='…' to it, or restore it from a backup"
            )
    for key, (form, meaning) in FORMS.items():
        if not form.fullmatch(values[key]):
            raise InventoryError(
                f"{path}: {key} is {values[key]!r}, which is not {meaning}",
                hint="correct that line, or restore the file from a backup",
            )
    return Inventory(
        installation_uuid=values["INSTALLATION_UUID"].lower(),
        control_domain_uuid=values["CONTROL_DOMAIN_UUID"].lower(),
        management_interface=values["MANAGEMENT_INTERFACE"],
        management_address_type=AddressType(values["MANAGEMENT_ADDRESS_TYPE"]),
        build_number=values["BUILD_NUMBER"],
        current_interfaces=tuple(values.get("CURRENT_INTERFACES", "").split()),
        values=MappingProxyType(values),
    )


def replace(text: str, changes: Mapping[str, str]) -> str:
    """`text` with these keys set: the line that counts is replaced, a new key is appended, the rest stays.

    Raises InvalidValueError for a key or value that a line cannot hold or the key does not allow.
    """
    lines = text.split("\n")
    for key, value in changes.items():
        _check(key, value)
        line = f"{key}='{value}'"
        places = [number for number, old in enumerate(lines) if _pair(old)[0] == key]
        if not places:
            lines[len(lines) - 1 :] = [line, ""] if lines[-1] == "" else [lines[-1], line, ""]
        elif _pair(lines[places[-1]])[1] != value:
            lines[places[-1]] = line
    return "\n".join(lines)


def render(values: Mapping[str, str]) -> str:
    """A whole inventory file with these keys, in this order. Raises InvalidValueError as `replace`."""
    return replace("", values)


def _text(path: Path) -> str:
    try:
        data = read_bounded(path, limit_bytes=LIMIT_BYTES)
    except FileError as error:
        if error.errno != errno.ENOENT:
            raise
        hint = "the agent makes it when it first starts (systemctl start hostagent); else restore it from a backup"
        raise FileError(error.found, hint=hint, number=error.errno) from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InventoryError(
            f"{path} is not text: byte {error.start} is {data[error.start]:#04x}",
            hint="restore it from a backup; it was left as it is",
        ) from error
    if "\0" in text:
        raise InventoryError(
            f"{path} is not text: it holds zero bytes", hint="restore it from a backup; it was left as it is"
        )
    return text


def _pair(line: str) -> tuple[str, str]:
    """Key and value of one line; ("", "") for a comment or a line without `=`."""
    key, equals, value = line.strip().partition("=")
    key = key.strip()
    if not equals or key.startswith("#"):
        return "", ""
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] == "'":
        value = value[1:-1].strip()
    return key, value


def _check(key: str, value: str) -> None:
    form, meaning = FORMS.get(key, (None, ""))
    if not KEY_NAME.fullmatch(key):
        raise InvalidValueError(
            "inventory key", key, f"{key!r} is not an inventory key", hint="letters and _ only"
        )
    if UNPRINTABLE.search(value) or value != value.strip():
        raise InvalidValueError(
            key, value, f"{key} cannot be {value!r}", hint="one line without single quotes or outer spaces"
        )
    if form and not form.fullmatch(value):
        raise InvalidValueError(key, value, f"{key} cannot be {value!r}", hint=f"it must be {meaning}")
