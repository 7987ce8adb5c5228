"""What a command is, what it is given when it runs, and the plain ones that are one call of the API.

The commands themselves are rows in `commands_*.py`; those of every class are made in `generated.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast

from hostagent.db.datatype import NULL_REF, Kind
from hostagent.db.model import load
from hostagent.xe.arguments import UsageError
from hostagent.xe.values import from_text, map_from

if TYPE_CHECKING:
    from hostagent.db.datatype import DataType
    from hostagent.xe.arguments import Arguments
    from hostagent.xe.session import Api
    from hostagent.xe.terminal import Terminal
    from hostagent.xe.views import Objects

COMMON = ("minimal", "multiple")
"""Parameters that every command takes."""


class CommandError(Exception):
    """A command cannot do what was asked; the text says why."""


class Takes(Enum):
    """Which further parameters a command takes besides its own."""

    NOTHING = ""
    FIELDS = "<fields>"
    HOSTS = "<host-selectors>"
    VMS = "<vm-selectors>"


@dataclass(frozen=True, slots=True)
class Call:
    """A command that runs: what was typed, the API, and where to print."""

    arguments: Arguments
    api: Api
    terminal: Terminal
    objects: Objects

    def need(self, name: str) -> str:
        """The value of a required parameter."""
        value = self.arguments.get(name)
        if value is None:
            raise UsageError(f"Required parameter not found: {name}")
        return value

    def find(self, cls: str, uuid: str) -> str:
        """The reference of the object with that uuid. Raises ApiError."""
        return str(self.api.call(f"{cls}.get_by_uuid", uuid))

    def ref(self, cls: str, name: str) -> str:
        """The object whose uuid is the value of a parameter; the null reference if it was not given."""
        value = self.arguments.get(name)
        return NULL_REF if value is None else self.find(cls, value)

    def value(self, kind: DataType, name: str) -> object | None:
        """A parameter as a value of its type, None if it was not given. Raises UsageError, ApiError."""
        if kind.kind is Kind.MAP and (given := self.arguments.map(name)):
            return map_from(kind, given, name, self.find)
        if kind.kind is Kind.SET and (given := self.arguments.map(name)):  # NAME:MEMBER= for each
            return [from_text(kind.of(), member, name, self.find) for member in given]
        text = self.arguments.get(name)
        return None if text is None else from_text(kind, text, name, self.find)

    def print_ref(self, cls: str, ref: object) -> None:
        """Print the uuid of an object that was made."""
        self.terminal.print(self.uuid(cls, ref))

    def uuid(self, cls: str, ref: object) -> str:
        """The uuid of an object. Messages have no getters of single fields, so it comes from the record."""
        return str(cast("dict[str, object]", self.api.call(f"{cls}.get_record", ref))["uuid"])

    def confirm(self, warning: str) -> None:
        """Ask to type `yes`, unless `--force` was. Raises CommandError when it was not."""
        if self.arguments.flag("force"):
            return
        self.terminal.print(warning)
        if self.terminal.prompt("Type 'yes' to continue").strip().lower() != "yes":
            raise CommandError("Aborted")


Run = Callable[[Call], None]


@dataclass(frozen=True, slots=True)
class Command:
    """One command. A parameter that ends in `:` is a map. `local`: it needs a session without a coordinator."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    help: str
    run: Run
    takes: Takes = Takes.NOTHING
    local: bool = False

    @property
    def known(self) -> tuple[str, ...]:
        return (*self.required, *self.optional, *COMMON)

    def check(self, arguments: Arguments) -> None:
        """Raises UsageError when a required parameter is missing, or one is given that the command does not take."""
        for name in self.required:
            if arguments.get(name) is None and not arguments.map(name.removesuffix(":")):
                raise UsageError(f"Required parameter not found: {name}")
        for word in arguments.words:  # a selector without its name must not mean all
            raise UsageError(f"Unknown argument: {word} (parameters are written name=value)")
        if self.takes is not Takes.NOTHING:
            return
        for name, _ in arguments.others(self.known):
            raise UsageError(f"Unknown parameter: {name}")


def command(
    name: str,
    required: str,
    optional: str,
    help_: str,
    run: Run,
    takes: Takes = Takes.NOTHING,
    *,
    local: bool = False,
) -> Command:
    """A row: `required` and `optional` are names with spaces between."""
    return Command(name, tuple(required.split()), tuple(optional.split()), help_, run, takes, local)


def plain(
    name: str, method: str, required: str, optional: str, help_: str, *, local: bool = False, **given_as: str
) -> Command:
    """A row that is one call of `method`. `given_as` tells under which name xe takes a parameter of the API, where it
    is not the same with dashes. What is not given gets the API's default.
    """

    def run(call: Call) -> None:
        show(call, method, call.api.call(method, *parameters(call, method, **given_as)))

    return command(name, required, optional, help_, run, local=local)


def parameters(call: Call, method: str, **given_as: str) -> list[object]:
    """The parameters of a method of the API, from those that were typed. Raises UsageError, ApiError."""
    message = load().message(method)
    if message is None:
        raise KeyError(method)
    found: list[object] = []
    for param in message.params:
        value = call.value(param.type, given_as.get(param.name, param.name.replace("_", "-")))
        found.append(param.default if value is None else value)
    return found


def record(call: Call, cls: str, **given_as: str) -> dict[str, object]:
    """A record for the constructor of a class: what was typed, defaults for the rest. Raises UsageError, ApiError."""
    made: dict[str, object] = {}
    for field in load().cls(cls).public:
        if field.qualifier == "DynamicRO":
            continue
        value = call.value(field.type, given_as.get(field.name, field.name.replace("_", "-")))
        made[field.name] = field.fill if value is None else value
    return made


def create(name: str, cls: str, required: str, optional: str, help_: str, **given_as: str) -> Command:
    """A row that calls the constructor of a class with a record, and prints the uuid of what was made."""

    def run(call: Call) -> None:
        call.print_ref(cls, call.api.call(f"{cls}.create", record(call, cls, **given_as)))

    return command(name, required, optional, help_, run)


def show(call: Call, method: str, result: object) -> None:
    """Print what a call gave: uuids for references, a line each (with commas between for `--minimal`); nothing for
    void.
    """
    message = load().message(method)
    kind = message.result if message else None
    if kind is None or kind.kind is Kind.VOID:
        return
    if kind.kind is Kind.REF:
        call.print_ref(kind.name, result)
    elif kind.kind is Kind.SET and kind.of().kind is Kind.REF and isinstance(result, list):
        uuids = [call.uuid(kind.of().name, ref) for ref in result]
        lines = [",".join(uuids)] if call.arguments.minimal else uuids
        for line in lines:
            call.terminal.print(line)
    elif isinstance(result, bool):
        call.terminal.print(str(result).lower())
    else:
        call.terminal.print(str(result))
