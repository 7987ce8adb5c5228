"""The XML format of a pool's database, `/pool/xmldbdump`: written from our database, and read into it.

One table a class, one row an object, one attribute a field; names of grouped fields have two underscores
(`name__label`). Spaces and control characters of a value are escaped (`ESCAPES`), sets and maps are s-expressions.
Source: startup-and-pool-join.md 2.5, decisions.md 5.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from hostagent.db import model as datamodel
from hostagent.db import sexpr
from hostagent.db.datatype import NULL_REF, Kind, UnfitError, fit
from hostagent.errors import CallerError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import BinaryIO

    from hostagent.db.datatype import DataType, Value
    from hostagent.db.model import ClassModel, Model
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View

ESCAPES = {" ": "%.", "\t": "%t", "\n": "%n", "\r": "%r", "%": "%%"}
UNESCAPES = {".": " ", "t": "\t", "n": "\n", "r": "\r", "%": "%", "_": "  "}
GROUPS: dict[str, tuple[str, ...]] = {
    "VM": ("memory", "VCPUs", "PV", "HVM", "actions"),
    "VBD": ("qos",),
    "VIF": ("qos",),
    "host": ("API_version", "memory"),
    "VM_metrics": ("memory", "VCPUs"),
    "host_metrics": ("memory",),
    "PIF_metrics": ("io",),
    "VBD_metrics": ("io",),
    "VIF_metrics": ("io",),
}
"""Which first words of field names are groups, besides `name`, which is one everywhere but in a pool."""
UNGROUPED_NAME = "pool"
NAMES = ("name_label", "name_description")
ROW_LIMIT = 1_000_000
PIECE = 1 << 16
"""Characters that `pieces` gathers."""


class DumpError(CallerError):
    """A file that is no dump of a pool's database, or one that we cannot take. RESTORE_INCOMPATIBLE_VERSION []."""

    code = "RESTORE_INCOMPATIBLE_VERSION"

    def __init__(self, found: str, *, hint: str = "take a dump of XenServer, XCP-ng or hostagent") -> None:
        super().__init__(found, hint=hint, params=())


@dataclass(slots=True)
class Manifest:
    """What a dump says of itself."""

    major: int = 0
    minor: int = 0
    generation: int = 0


@dataclass(slots=True)
class Row:
    """One object as a dump has it; `values` are texts by our field names."""

    cls: str
    ref: str
    ctime: int
    mtime: int
    values: dict[str, str]


@dataclass(slots=True)
class Dump:
    """A dump that was read. `unknown` names what our data model does not have: left out, and worth telling."""

    manifest: Manifest = field(default_factory=Manifest)
    rows: list[Row] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)


# writing


def write(view: View, model: Model) -> Iterator[str]:
    """The dump of a snapshot, piece by piece; objects that do not outlive a restart are left out."""
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<database><manifest>'
    for key, value in (
        ("schema_major_vsn", datamodel.SCHEMA[0]),
        ("schema_minor_vsn", datamodel.SCHEMA[1]),
        ("generation_count", view.generation),
    ):
        yield f'<pair key="{key}" value="{value}"/>'
    yield "</manifest>"
    for cls in sorted((cls for cls in model.classes.values() if cls.counted), key=lambda cls: cls.name):
        yield f"<table name={quoteattr(cls.name)}>"
        if cls.persistent:
            for ref, record, ctime, mtime in view.dated_records(cls.name):
                yield _row(cls, Row(cls.name, ref, ctime, mtime, _texts(cls, record)))
        yield "</table>"
    yield "</database>\n"


def pieces(view: View, model: Model) -> Generator[bytes, None, None]:
    """The same in pieces of a size to send or write."""
    gathered: list[str] = []
    size = 0
    for text in write(view, model):
        gathered.append(text)
        size += len(text)
        if size >= PIECE:
            yield "".join(gathered).encode()
            gathered.clear()
            size = 0
    yield "".join(gathered).encode()


def _texts(cls: ClassModel, record: dict[str, Value]) -> dict[str, str]:
    return {
        name: text_of(facts.type, record[name] if facts.persist else facts.fill)
        for name, facts in cls.fields.items()
    }


def _row(cls: ClassModel, row: Row) -> str:
    values = {column(cls.name, name): value for name, value in sorted(row.values.items())}
    attributes = {
        "ref": row.ref,
        "__ctime": str(row.ctime),
        "__mtime": str(row.mtime),
        "_ref": row.ref,
        **values,
    }
    return f"<row {' '.join(f'{name}={quoteattr(escape(text))}' for name, text in attributes.items())}/>"


@functools.cache  # asked for every value of every row, of the model's names alone
def column(cls: str, name: str) -> str:
    """The name of a field in a dump."""
    groups = GROUPS.get(cls, ())
    if name in NAMES and cls != UNGROUPED_NAME:
        groups = ("name",)
    for group in groups:
        if name.startswith(f"{group}_"):
            return f"{group}__{name[len(group) + 1 :]}"
    return name


def text_of(kind: DataType, value: Value) -> str:
    """A value as the format writes it, before escaping."""
    expression = _expression(kind, value)
    return expression if isinstance(expression, str) else sexpr.write(expression)


def _expression(kind: DataType, value: Value) -> sexpr.Expression:
    if kind.kind is Kind.SET and isinstance(value, list):
        return [_expression(kind.of(), item) for item in value]
    if kind.kind is Kind.MAP and isinstance(value, dict):
        return [[key, _expression(kind.of(), item)] for key, item in value.items()]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def escape(text: str) -> str:
    """`text` with what an attribute would not keep written in escapes."""
    return "".join(ESCAPES.get(char, char) for char in text)


def unescape(text: str) -> str:
    """The reverse; an escape that is not one stays as it is."""
    return re.sub("%(.)", lambda found: UNESCAPES.get(found[1], found[0]), text, flags=re.DOTALL)


# reading


def read(source: BinaryIO, model: Model) -> Dump:
    """A dump as rows. Raises DumpError: not XML, a document type, another shape, a newer schema."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, iterparse

    dump = Dump()
    table = ""
    root: set[str] = set()
    try:
        for event, element in iterparse(source, events=("start", "end"), forbid_dtd=True):
            if event == "start":
                root = root or {element.tag}
                table = element.get("name", "") if element.tag == "table" else table
            elif element.tag == "pair":
                _pair(dump.manifest, element.get("key", ""), element.get("value", ""))
            elif element.tag == "row":
                _take(dump, model, table, dict(element.attrib))
                if len(dump.rows) > ROW_LIMIT:
                    raise DumpError(f"it has more than {ROW_LIMIT} rows")
            if event == "end" and element.tag != "database":
                element.clear()
    except (ParseError, DefusedXmlException, UnicodeDecodeError, LookupError) as error:
        raise DumpError(f"it is not the XML of a dump: {error or type(error).__name__}") from error
    if root != {"database"} or not dump.manifest.major:
        raise DumpError("it is XML, but no dump of a database: it has no manifest")
    if dump.manifest.major > datamodel.SCHEMA[0]:
        raise DumpError(
            f"its schema is {dump.manifest.major}.{dump.manifest.minor}, and we know {datamodel.SCHEMA[0]}",
            hint="install a newer hostagent",
        )
    return dump


def _pair(manifest: Manifest, key: str, value: str) -> None:
    names = {"schema_major_vsn": "major", "schema_minor_vsn": "minor", "generation_count": "generation"}
    if key in names:
        setattr(manifest, names[key], _number(value, key))


def _number(text: str, name: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        raise DumpError(f"its {name} is '{text[:40]}', and should be a number")
    return int(text)


def _take(dump: Dump, model: Model, table: str, attributes: dict[str, str]) -> None:
    cls = model.classes.get(table)
    if cls is None or not cls.counted:
        dump.unknown.add(table)
        return
    ref = unescape(attributes.pop("ref", "") or attributes.get("_ref", ""))
    attributes.pop("_ref", None)
    if not ref:
        raise DumpError(f"a row of {table} has no reference")
    ctime, mtime = (_number(attributes.pop(name, "0") or "0", name) for name in ("__ctime", "__mtime"))
    if not cls.persistent:
        return
    names = {column(table, name): name for name in cls.fields} | {name: name for name in cls.fields}
    dump.unknown |= {f"{table}.{key}" for key in attributes if key not in names}
    values = {names[key]: unescape(text) for key, text in attributes.items() if key in names}
    dump.rows.append(Row(table, ref, ctime, mtime, values))


def load(dump: Dump, transaction: Transaction, model: Model) -> None:
    """Put all rows of a dump into an empty database. Raises DumpError when a value is not of its field's type."""
    for row in dump.rows:
        cls = model.cls(row.cls)
        public: dict[str, Value] = {}
        internal: dict[str, Value] = {}
        for name, facts in cls.fields.items():
            if cls.stored(name):
                value = (
                    value_of(row, name, facts.type, model)
                    if name in row.values and facts.persist
                    else facts.fill
                )
                (internal if facts.internal else public)[name] = value
        transaction.put_row(row.cls, row.ref, public, internal, ctime=row.ctime, mtime=row.mtime)
        for name, relation in cls.near.items():
            if relation.many and name in row.values:
                far = value_of(row, name, cls.fields[name].type, model)
                for item in far if isinstance(far, list) else []:
                    if item != NULL_REF:
                        transaction.link_many(relation, row.ref, str(item))


def value_of(row: Row, name: str, kind: DataType, model: Model) -> Value:
    """One value of a row. Raises DumpError when it is not of that type."""
    text = row.values[name]
    try:
        return fit(kind, _parsed(kind, text), model.enums)
    except (UnfitError, sexpr.MalformedError) as error:
        raise DumpError(
            f"{row.cls}.{name} of {row.ref} is '{text[:60]}', and should be {error}",
            hint="mend that value in the dump",
        ) from error


def _parsed(kind: DataType, text: str) -> object:
    if kind.kind in (Kind.SET, Kind.MAP):
        return _shaped(kind, sexpr.read(text or "()"))
    if kind.kind is Kind.BOOL:
        return {"true": True, "false": False}.get(text, text)
    return text


def _shaped(kind: DataType, expression: sexpr.Expression) -> object:
    """An s-expression as the value of a type: nested sets and maps stay nested, what is in them is text."""
    if kind.kind is Kind.SET:
        if isinstance(expression, str):
            raise UnfitError("a set")
        return [_shaped(kind.of(), item) for item in expression]
    if kind.kind is Kind.MAP:
        if isinstance(expression, str) or not all(
            isinstance(pair, list) and len(pair) == 2 for pair in expression
        ):
            raise UnfitError("a map")
        return {str(pair[0]): _shaped(kind.of(), pair[1]) for pair in expression}
    return expression
