"""The classes as xe shows them: columns with their labels, and what a record has in each column.

Everything follows from the data model; typed by hand are only the default columns and the few names that differ
(xenapi.md 6.3, 6.4).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast

from hostagent.db.datatype import NULL_REF, Kind
from hostagent.db.model import load
from hostagent.xe.values import DANGLING, NOWHERE, to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hostagent.db.model import ClassModel, Field, Message
    from hostagent.xe.session import Api

Record = dict[str, object]

CLASS_NAMES = {"VM_appliance": "appliance", "pool_patch": "patch", "pool_update": "update"}
"""Classes that xe names otherwise than in lower case with dashes."""
FIELD_NAMES = {
    ("PIF", "ip_configuration_mode"): "IP-configuration-mode",
    ("PIF", "ipv6_configuration_mode"): "IPv6-configuration-mode",
    ("PIF", "ipv6_gateway"): "IPv6-gateway",
    ("VM", "domid"): "dom-id",
    ("message", "cls"): "class",
}
"""Fields that xe names otherwise than the API with dashes."""
DEFAULTS = {
    "host": "uuid name-label name-description",
    "pif": "uuid device MAC currently-attached VLAN network-uuid host-uuid",
    "network": "uuid name-label name-description bridge",
    "sr": "uuid name-label name-description host type content-type",
    "pbd": "uuid host-uuid sr-uuid device-config currently-attached",
    "bond": "uuid master slaves",
    "vlan": "uuid tagged-PIF untagged-PIF tag",
    "tunnel": "uuid access-PIF transport-PIF status",
    "pool": "uuid name-label name-description master default-SR",
    "vm": "uuid name-label power-state",
    "vdi": "uuid name-label name-description sr-uuid virtual-size sharable read-only",
    "task": "uuid name-label name-description status progress",
    "secret": "uuid",  # what it keeps is shown to who asks for it
}
"""What a list shows unless told otherwise."""
DEFAULT_COLUMNS = 6
"""How many a class shows that has neither a row above nor a name."""
PADDING = 4
NAMES = ("uuid", "name-label", "name-description")


class Show(Enum):
    """What of a field a column shows."""

    VALUE = "the value, references as uuids"
    NAME = "the name of the object it leads to"
    HOSTS = "the hosts of a storage repository"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `setter`, `adder` and `remover` are the calls that change its field, where there are any."""

    name: str
    field: Field
    show: Show = Show.VALUE
    setter: Message | None = None
    adder: Message | None = None
    remover: Message | None = None

    @property
    def writable(self) -> bool:
        return self.setter is not None or self.adder is not None

    @property
    def label(self) -> str:
        shape = {Kind.SET: "S", Kind.MAP: "M"}.get(self.field.type.kind, " ")
        if self.show is not Show.VALUE:
            shape = " "
        old = " [DEPRECATED]" if self.field.state == "deprecated" else ""
        return f"{self.name} ({shape}{'RW' if self.writable else 'RO'}){old}"


@dataclass(frozen=True, slots=True)
class ClassView:
    """One class under its name in xe; `keep` picks the objects that belong to this view of it."""

    name: str
    cls: ClassModel
    columns: tuple[Column, ...]
    default: tuple[str, ...]
    keep: Callable[[Record], bool] = lambda _record: True

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)


class Objects:
    """Objects by class, fetched when first asked for: all records of a class in one call."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[str, Mapping[str, Record]] = {}

    def records(self, cls: str) -> Mapping[str, Record]:
        """Reference → record. Raises ApiError."""
        if cls not in self._known:
            found = self._api.call(f"{cls}.get_all_records")
            self._known[cls] = cast("Mapping[str, Record]", found)
        return self._known[cls]

    def one(self, cls: str, uuid: str) -> tuple[str, Record]:
        """Reference and record of the object with that uuid. Raises ApiError."""
        ref = str(self._api.call(f"{cls}.get_by_uuid", uuid))
        return ref, cast("Record", self._api.call(f"{cls}.get_record", ref))

    def show(self, column: Column, record: Record) -> str:
        """What a record has in a column."""
        value = record.get(column.field.name, column.field.fill)
        if column.show is Show.HOSTS:
            return self._hosts(cast("list[str]", value), shared=bool(record["shared"]))
        named = self.name if column.show is Show.NAME else self.uuid
        return to_text(column.field.type, value, named)

    def uuid(self, cls: str, ref: str) -> str:
        return self._of(cls, ref, "uuid")

    def name(self, cls: str, ref: str) -> str:
        return self._of(cls, ref, "name_label")

    def _of(self, cls: str, ref: str, field: str) -> str:
        if ref in (NULL_REF, ""):
            return NOWHERE
        if not load().cls(cls).listed:
            return ref
        record = self.records(cls).get(ref)
        return DANGLING if record is None else str(record.get(field, ref))

    def _hosts(self, pbds: list[str], *, shared: bool) -> str:
        if shared and len(pbds) > 1:
            return "<shared>"
        known = self.records("PBD")
        hosts = {str(known[pbd]["host"]) for pbd in pbds if pbd in known}
        return "; ".join(sorted(self.name("host", host) for host in hosts)) or NOWHERE


@functools.cache
def views() -> dict[str, ClassView]:
    """Every class that can be listed, by its name in xe; the class VM three times."""
    made: dict[str, ClassView] = {}
    for cls in load().classes.values():
        if not cls.listed or cls.state == "removed":
            continue
        name = class_name(cls.name)
        columns = _ordered(_columns(cls), DEFAULTS.get(name, "").split())
        default = _defaults(name, columns)
        if cls.name != "VM":
            made[name] = ClassView(name, cls, columns, default)
            continue
        made["vm"] = ClassView("vm", cls, columns, default, is_vm)
        made["template"] = ClassView("template", cls, columns, NAMES, is_template)
        made["snapshot"] = ClassView("snapshot", cls, columns, NAMES, is_snapshot)
    return made


def class_name(cls: str) -> str:
    """The name of a class in xe."""
    return CLASS_NAMES.get(cls, cls.lower().replace("_", "-"))


def is_vm(record: Record) -> bool:
    return not record["is_a_template"] and not record["is_a_snapshot"]


def is_template(record: Record) -> bool:
    return bool(record["is_a_template"]) and not record["is_a_snapshot"]


def is_snapshot(record: Record) -> bool:
    return bool(record["is_a_snapshot"])


def table(objects: Objects, columns: tuple[Column, ...], record: Record) -> str:
    """A record as lines of `label: value`: the first label padded on the right, the others on the left."""
    width = max(len(column.label) for column in columns) + PADDING
    lines = []
    for place, column in enumerate(columns):
        label = column.label.rjust(width) if place else column.label.ljust(width)
        lines.append(f"{label}: {objects.show(column, record)}")
    return "\n".join(lines)


def _columns(cls: ClassModel) -> list[Column]:
    made: list[Column] = []
    for field in cls.public:
        if field.state == "removed":
            continue
        name = FIELD_NAMES.get((cls.name, field.name), field.name.replace("_", "-"))
        change = (_setter(cls, field), *_adders(cls, field))
        if field.type.kind is Kind.REF and field.name.lower() == field.type.name.lower():
            # a link that is named as the class it leads to has two columns, any other shows the uuid
            link = class_name(field.type.name)
            made.append(Column(f"{link}-uuid", field, Show.VALUE, *change))
            if "name_label" in load().cls(field.type.name).fields:
                made.append(Column(f"{link}-name-label", field, Show.NAME))
        else:
            made.append(Column(name, field, Show.VALUE, *change))
        if (cls.name, field.name) == ("SR", "PBDs"):
            made.append(Column("host", field, Show.HOSTS))
    return made


def _setter(cls: ClassModel, field: Field) -> Message | None:
    found = cls.messages.get(f"set_{field.name}")
    return found if _usable(found) and found is not None and len(found.params) == 2 else None


def _adders(cls: ClassModel, field: Field) -> tuple[Message | None, Message | None]:
    names = {
        Kind.MAP: (f"add_to_{field.name}", f"remove_from_{field.name}"),
        Kind.SET: (f"add_{field.name}", f"remove_{field.name}"),
    }.get(field.type.kind)
    if names is None:
        return None, None
    adder, remover = (cls.messages.get(name) for name in names)
    return (adder, remover) if _usable(adder) and _usable(remover) else (None, None)


def _usable(message: Message | None) -> bool:
    if message is None or message.hidden or message.pool_internal:
        return False
    return message.state != "removed"


def _ordered(columns: list[Column], default: list[str]) -> tuple[Column, ...]:
    """Definition order: the names, then as the data model has them; where the default columns show that xe has another
    order (PIF), these come first.
    """
    rank = {name: place for place, name in enumerate(NAMES)}
    made = sorted(columns, key=lambda column: rank.get(column.name, len(rank)))
    if [column.name for column in made if column.name in default] != default:
        rank = {name: place for place, name in enumerate(default)}
        made.sort(key=lambda column: rank.get(column.name, len(rank)))
    return tuple(made)


def _defaults(name: str, columns: tuple[Column, ...]) -> tuple[str, ...]:
    if name in DEFAULTS:
        return tuple(DEFAULTS[name].split())
    named = [column.name for column in columns if column.name in NAMES]
    if len(named) > 1:
        return tuple(named)
    plain = [column for column in columns if column.field.type.kind not in (Kind.SET, Kind.MAP)]
    return tuple(column.name for column in plain if column.field.state != "deprecated")[:DEFAULT_COLUMNS]
