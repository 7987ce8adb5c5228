"""The commands that every class has: `-list`, and `-param-list|get|set|add|remove|clear` (xenapi.md 6.3)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, cast

from hostagent.db.datatype import NULL_REF, Kind
from hostagent.xe.arguments import UsageError, escape, split_list
from hostagent.xe.command import COMMON, Call, Command, CommandError, Takes
from hostagent.xe.session import ApiError
from hostagent.xe.values import from_text, map_from
from hostagent.xe.views import ClassView, table, views
from hostagent.xe.words import means

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostagent.xe.views import Column, Objects, Record

NOT_EQUAL = "/="
"""Before the value of a filter: anything but it (`power-state=/=running`)."""


@functools.cache
def commands() -> dict[str, Command]:
    """All generated commands, by name."""
    made: list[Command] = []
    for view in views().values():
        made += _of(view)
    return {command.name: command for command in made}


def _of(view: ClassView) -> list[Command]:
    name, label = view.name, view.name.replace("-", " ")
    writable = [column for column in view.columns if column.writable]
    sets = [column for column in writable if column.field.type.kind in (Kind.SET, Kind.MAP)]
    bind = functools.partial
    made = [
        Command(
            f"{name}-list",
            (),
            ("params", "database:"),
            f"List every {label} whose fields have the given values: all columns with params=all, or those named.",
            bind(run_list, view),
            Takes.FIELDS,
        ),
        Command(
            f"{name}-param-list", ("uuid",), (), f"Show all fields of a {label}.", bind(run_param_list, view)
        ),
        Command(
            f"{name}-param-get",
            ("uuid", "param-name"),
            ("param-key",),
            f"Show one field of a {label}, or one key of it when it is a map.",
            bind(run_param_get, view),
        ),
    ]
    if writable:
        made.append(
            Command(
                f"{name}-param-set",
                ("uuid",),
                tuple(f"{c.name}{':' * (c.field.type.kind is Kind.MAP)}" for c in writable),
                f"Change fields of a {label}: FIELD=VALUE, or MAP:KEY=VALUE.",
                bind(run_param_set, view),
                Takes.FIELDS,
            )
        )
    if sets:
        one = ("uuid", "param-name")
        made += [
            Command(
                f"{name}-param-add",
                one,
                ("param-key",),
                f"Add to a set (param-key=VALUE) or a map (KEY=VALUE) of a {label}.",
                bind(run_param_add, view),
                Takes.FIELDS,
            ),
            Command(
                f"{name}-param-remove",
                (*one, "param-key"),
                (),
                f"Remove a member of a set, or a key of a map, of a {label}.",
                bind(run_param_remove, view),
            ),
            Command(
                f"{name}-param-clear",
                one,
                (),
                f"Empty a set, map, link or text of a {label}.",
                bind(run_param_clear, view),
            ),
        ]
    return made


def run_list(view: ClassView, call: Call) -> None:
    if call.arguments.map("database"):
        raise CommandError("database: another database cannot be read here; `hostagent db dump` shows one")
    columns = _selected(view, call.arguments.get("params"))
    rows = matching(view, call, call.arguments.others((*COMMON, "params")))
    if call.arguments.minimal:
        values = (escape(call.objects.show(columns[0], record)) for _, record in rows)
        call.terminal.print(",".join(values))
        return
    for _, record in rows:
        call.terminal.print(table(call.objects, columns, record) + "\n\n")


def matching(view: ClassView, call: Call, filters: Iterable[tuple[str, str]]) -> list[tuple[str, Record]]:
    """Reference and record of the view's objects that pass all filters. Raises CommandError, ApiError."""
    tests = [(*_filtered(view, name), value) for name, value in filters]
    found = []
    for ref, record in call.objects.records(view.cls.name).items():
        if view.keep(record) and all(passes(call.objects, record, *test) for test in tests):
            found.append((ref, record))
    return found


def passes(objects: Objects, record: Record, column: Column, key: str, wanted: str) -> bool:
    """Does a record have that value in a column; or, with a key, under it in its map, or as member of its set?"""
    negated = wanted.startswith(NOT_EQUAL)
    wanted = wanted.removeprefix(NOT_EQUAL)
    value = objects.value(column, record)
    if key and isinstance(value, dict):
        same = key in value and str(value[key]) == wanted
    elif key and isinstance(value, list):
        same = any(_is(objects.text(column, [member]), column, member, wanted) for member in value)
    else:
        same = not key and _is(objects.show(column, record), column, value, wanted)
    return same is not negated


def _is(text: str, column: Column, value: object, wanted: str) -> bool:
    """Case does not matter in enums, nor in MAC addresses."""
    kind = column.kind.of() if column.kind.kind is Kind.SET else column.kind
    if kind.kind is Kind.ENUM and isinstance(value, str):
        return means(kind.name, value, wanted)
    return text.lower() == wanted.lower() if column.field.name == "MAC" else text == wanted


def _filtered(view: ClassView, name: str) -> tuple[Column, str]:
    field, colon, key = name.partition(":")
    column = need_column(view, field)
    kind = column.kind.kind
    if colon and not (kind is Kind.MAP or (kind is Kind.SET and key == "contains")):
        raise CommandError(f"{name}: {field} is no map (MAP:KEY=VALUE) or set (SET:contains=VALUE)")
    return column, key


def run_param_list(view: ClassView, call: Call) -> None:
    _, record = _object(view, call)
    call.terminal.print(table(call.objects, view.columns, record) + "\n\n")


def run_param_get(view: ClassView, call: Call) -> None:
    column = need_column(view, call.need("param-name"))
    _, record = _object(view, call)
    key = call.arguments.get("param-key")
    if key is None:
        shown = call.objects.show(column, record)
    else:
        value = call.objects.value(column, record)
        if not isinstance(value, dict):
            raise CommandError(f"{column.name} is no map, it has no keys")
        if key not in value:
            raise CommandError(f"{column.name} has no key {key}")
        shown = call.objects.text(column, {key: value[key]}).removeprefix(f"{key}: ")
    call.terminal.print(escape(shown) if call.arguments.minimal else shown)


def run_param_set(view: ClassView, call: Call) -> None:
    """Every value is understood before the first is set; maps last."""
    given = call.arguments.others((*COMMON, "uuid"))
    if not given:
        raise CommandError("nothing to set: write FIELD=VALUE or MAP:KEY=VALUE")
    ref = call.find(view.cls.name, call.need("uuid"))
    scalars: list[tuple[str, object]] = []
    maps: list[tuple[Column, str, object]] = []
    for name, text in given:
        field, colon, key = name.partition(":")
        column = _writable(view, field)
        kind = column.field.type
        if colon:
            _need_kind(column, Kind.MAP)
            maps.append((column, key, from_text(kind.of(), text, name, call.find)))
        elif column.setter is None:
            raise CommandError(f"{field} cannot be set whole: use {view.name}-param-add and -param-remove")
        else:
            scalars.append((column.setter.wire_name, from_text(kind, text, name, call.find)))
    for method, value in scalars:
        call.api.call(method, ref, value)
    for column, key, value in maps:
        _put(view, call, ref, column, key, value)


def run_param_add(view: ClassView, call: Call) -> None:
    column = _writable(view, call.need("param-name"))
    rest = call.arguments.others((*COMMON, "uuid", "param-name", "param-key"))
    ref = call.find(view.cls.name, call.need("uuid"))
    kind = column.field.type
    if kind.kind is Kind.SET:
        if rest:
            raise UsageError(f"Unknown parameter: {rest[0][0]} (of a set, write param-key=VALUE)")
        value = from_text(kind.of(), call.need("param-key"), column.name, call.find)
        if column.adder:
            call.api.call(column.adder.wire_name, ref, value)
        else:
            _replace(call, column, ref, [*cast("list[object]", _now(view, call, column, ref)), value])
        return
    _need_kind(column, Kind.MAP)
    if call.arguments.get("param-key") is not None:
        raise UsageError("Unknown parameter: param-key (of a map, write KEY=VALUE)")
    if not rest:
        raise CommandError(f"nothing to add to {column.name}: write KEY=VALUE")
    given = dict(reversed(rest))  # the first of two equal names counts
    values = map_from(kind, {key: given[key] for key, _ in rest}, column.name, call.find)
    if column.adder:
        for key, item in values.items():
            call.api.call(column.adder.wire_name, ref, key, item)
    else:
        _replace(call, column, ref, {**cast("dict[str, object]", _now(view, call, column, ref)), **values})


def run_param_remove(view: ClassView, call: Call) -> None:
    column, key = _writable(view, call.need("param-name")), call.need("param-key")
    ref = call.find(view.cls.name, call.need("uuid"))
    now = _now(view, call, column, ref)
    kind = column.field.type
    if isinstance(now, dict):
        member: object = key
        rest: object = {name: value for name, value in now.items() if name != key}
    elif isinstance(now, list):
        member = from_text(kind.of(), key, column.name, call.find)
        rest = [item for item in now if item != member]
    else:
        raise CommandError(f"{column.name} is neither a set nor a map")
    if member not in now:
        raise CommandError(f"{column.name} has no {'key' if isinstance(now, dict) else 'member'} {key}")
    if column.remover:
        call.api.call(column.remover.wire_name, ref, member)
    else:
        _replace(call, column, ref, rest)


def run_param_clear(view: ClassView, call: Call) -> None:
    column = _writable(view, call.need("param-name"))
    ref = call.find(view.cls.name, call.need("uuid"))
    empty = {Kind.SET: [], Kind.MAP: {}, Kind.REF: NULL_REF, Kind.STRING: ""}
    kind = column.field.type.kind
    if kind not in empty:
        raise CommandError(f"{column.name} is no set, map, link or text")
    if column.setter:
        _replace(call, column, ref, empty[kind])
        return
    for member in cast("Iterable[object]", _now(view, call, column, ref)):
        if column.remover:
            call.api.call(column.remover.wire_name, ref, member)


def need_column(view: ClassView, name: str) -> Column:
    """Raises CommandError with the nearest name."""
    column = view.column(name)
    if column is None:
        import difflib

        near = difflib.get_close_matches(name, [column.name for column in view.columns], n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise CommandError(f"Unknown field: {name}{meant}")
    return column


def _selected(view: ClassView, params: str | None) -> tuple[Column, ...]:
    wanted = list(view.default) if params is None else split_list(params)
    if wanted == ["all"]:
        return view.columns
    if not wanted:
        raise CommandError("params= names no field")
    chosen = {need_column(view, name).name for name in wanted}
    return tuple(column for column in view.columns if column.name in chosen)


def _object(view: ClassView, call: Call) -> tuple[str, Record]:
    return call.objects.one(view.cls.name, call.need("uuid"))


def _writable(view: ClassView, name: str) -> Column:
    column = need_column(view, name)
    if not (column.writable and column.own):
        raise CommandError(f"{name} is read-only")
    return column


def _need_kind(column: Column, kind: Kind) -> None:
    if column.field.type.kind is not kind:
        raise CommandError(f"{column.name} is no {kind.value}")


def _put(view: ClassView, call: Call, ref: str, column: Column, key: str, value: object) -> None:
    """Give a key of a map its value, also when it has another."""
    if column.adder is None or column.remover is None:
        _replace(call, column, ref, {**cast("dict[str, object]", _now(view, call, column, ref)), key: value})
        return
    try:
        call.api.call(column.adder.wire_name, ref, key, value)
    except ApiError as error:
        if error.code != "MAP_DUPLICATE_KEY":
            raise
        call.api.call(column.remover.wire_name, ref, key)
        call.api.call(column.adder.wire_name, ref, key, value)


def _now(view: ClassView, call: Call, column: Column, ref: str) -> object:
    return call.api.call(f"{view.cls.name}.get_{column.field.name}", ref)


def _replace(call: Call, column: Column, ref: str, value: object) -> None:
    if column.setter is None:
        raise CommandError(f"{column.name} cannot be set whole")
    call.api.call(column.setter.wire_name, ref, value)
