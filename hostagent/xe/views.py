"""The classes as xe shows them: columns with their labels, and what a record has in each column.

Everything follows from the data model; what differs is in `words.py` (xenapi.md 6.3, 6.4).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, cast

from hostagent.db.datatype import NULL_REF, DataType, Kind
from hostagent.db.model import load
from hostagent.xe.values import DANGLING, NOWHERE, to_text
from hostagent.xe.words import (
    CLASS_NAMES,
    COMMA_FIELDS,
    DEFAULTS,
    FIELD_NAMES,
    LINKED,
    LINKED_NAMES,
    SHOWN_WHOLE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hostagent.db.model import ClassModel, Field, Message
    from hostagent.xe.session import Api

Record = dict[str, object]

DEFAULT_COLUMNS = 6
"""How many a class shows that has neither a row above nor a name."""
PADDING = 4
NAMES = ("uuid", "name-label", "name-description")


class Show(Enum):
    """What of a field a column shows."""

    VALUE = "the value, references as uuids"
    NAME = "the name of the object it leads to"
    HOSTS = "the hosts of a storage repository"
    OPERATIONS = "the values of a map from tasks to operations, as a set"
    SPEED = "a speed in Mbit/s"
    DUPLEX = "full, half, or unknown without a carrier"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `setter`, `adder` and `remover` are the calls that change its field, where there are any. `link` is
    the field of the class that leads to the object that has the field, None for the class's own.
    """

    name: str
    field: Field
    show: Show = Show.VALUE
    setter: Message | None = None
    adder: Message | None = None
    remover: Message | None = None
    link: Field | None = None
    separator: str = "; "

    @property
    def own(self) -> bool:
        """Is it the value of a field of the class itself?"""
        return self.link is None and self.show in (Show.VALUE, Show.OPERATIONS)

    @property
    def writable(self) -> bool:
        return self.setter is not None or self.adder is not None

    @property
    def kind(self) -> DataType:
        """The type of what the column shows."""
        field = self.field.type
        return DataType(Kind.SET, item=field.of()) if self.show is Show.OPERATIONS else field

    @property
    def label(self) -> str:
        shape = {Kind.SET: "S", Kind.MAP: "M"}.get(self.kind.kind, " ")
        if self.show in (Show.NAME, Show.HOSTS):
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
        """The column of that name, or else of the field that the API calls so (with dashes or underscores)."""
        found = next((column for column in self.columns if column.name == name), None)
        plain = name.replace("-", "_")
        return found or next((c for c in self.columns if c.own and c.field.name == plain), None)


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

    def value(self, column: Column, record: Record) -> object:
        """What a record has in a column; None where the object that has it is not there."""
        if column.link is not None:
            ref = str(record.get(column.link.name))
            linked = self.records(column.link.type.name).get(ref)
            return None if linked is None else linked.get(column.field.name, column.field.fill)
        value = record.get(column.field.name, column.field.fill)
        return list(cast("dict[str, object]", value).values()) if column.show is Show.OPERATIONS else value

    def show(self, column: Column, record: Record) -> str:
        """The text of what a record has in a column."""
        value = self.value(column, record)
        if value is None:
            return NOWHERE
        if column.show is Show.HOSTS:
            return self._hosts(cast("list[str]", value), shared=bool(record["shared"]))
        if column.show is Show.DUPLEX and not value:
            carrier = replace(column, field=load().cls("PIF_metrics").fields["carrier"])
            return "half" if self.value(carrier, record) else "unknown"
        return self.text(column, value)

    def text(self, column: Column, value: object) -> str:
        """The text of a value that a column might have."""
        if column.show is Show.SPEED:
            return f"{value} Mbit/s"
        if column.show is Show.DUPLEX:
            return "full"
        named = self.name if column.show is Show.NAME else self.uuid
        return to_text(column.kind, value, named, column.separator)

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
        for other, keep in (("template", is_template), ("snapshot", is_snapshot)):
            made[other] = ClassView(other, cls, columns, _defaults(other, columns), keep)
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
        elif field.name == "current_operations":
            made.append(Column(name, field, Show.OPERATIONS))
        else:
            separator = ", " if (cls.name, field.name) in COMMA_FIELDS else "; "
            made.append(Column(name, field, Show.VALUE, *change, separator=separator))
        if (cls.name, field.name) == ("SR", "PBDs"):
            made.append(Column("host", field, Show.HOSTS))
    return made + _linked(cls)


def _linked(cls: ClassModel) -> list[Column]:
    """The columns of a class that are fields of the metrics it leads to."""
    made: list[Column] = []
    for name, fields in LINKED.get(cls.name, {}).items():
        link = cls.fields[name]
        for field_name in fields.split():
            field = load().cls(link.type.name).fields[field_name]
            column = LINKED_NAMES.get((link.type.name, field_name), field_name.replace("_", "-"))
            show = {"speed": Show.SPEED, "duplex": Show.DUPLEX}.get(field_name, Show.VALUE)
            made.append(Column(column, field, show, link=link))
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
    if name in SHOWN_WHOLE:
        return tuple(column.name for column in columns)
    named = [column.name for column in columns if column.name in NAMES]
    if len(named) > 1:
        return tuple(named)
    plain = [column for column in columns if column.field.type.kind not in (Kind.SET, Kind.MAP)]
    return tuple(column.name for column in plain if column.field.state != "deprecated")[:DEFAULT_COLUMNS]
