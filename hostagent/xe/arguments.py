"""What is typed after `xe`: options of the connection, the command, and its `name=value` parameters.

Source: xenapi.md 6.2. Options come from the command line, `XE_EXTRA_ARGS` and `~/.xe`, in this order of precedence;
what these two hold besides options is added to the command's parameters. The first of two equal names counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TAKES_VALUE = {
    "-s": "server",
    "-h": "server",
    "-p": "port",
    "-u": "username",
    "-pw": "password",
    "-pwf": "passwordfile",
    "--traceparent": "traceparent",
    "--ca": "ca",
}
IS_FLAG = {"--nossl": "nossl", "--debug": "debug", "--no-verify": "no-verify"}
KEYWORDS = frozenset((*TAKES_VALUE.values(), *IS_FLAG.values()))
HELP_WORDS = ("-help", "--help")
TRUE, FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
SIZE = re.compile(r"([+-]?\d{1,19})(B|KiB|MiB|GiB|TiB|)", re.ASCII)
PORTS = range(1, 65536)


class UsageError(Exception):
    """The command line cannot be used; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the server is reached. An empty `server` is the local socket; `password` is None when none was given."""

    server: str = ""
    port: int | None = None
    username: str = "root"
    password: str | None = None
    nossl: bool = False
    debug: bool = False
    traceparent: str = ""
    ca: str = ""
    verify: bool = True
    password_file: str = ""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command, the bare words after it, and its parameters in the order in which they count."""

    command: str = ""
    words: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str | None:
        """The value of a parameter, None if it was not given."""
        return next((value for key, value in self.pairs if key == name), None)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A parameter that is true or false. Raises UsageError."""
        value = self.get(name)
        return default if value is None else boolean(value, name)

    def map(self, name: str) -> dict[str, str]:
        """The map parameter `name:key=value …`; empty if none was given."""
        found: dict[str, str] = {}
        for key, value in self.pairs:
            if key.startswith(f"{name}:"):
                found.setdefault(key[len(name) + 1 :], value)
        return found

    def others(self, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """The pairs whose name, or map name with its `:`, is not among `names`."""
        known = frozenset(names)
        return tuple(
            (key, value)
            for key, value in self.pairs
            if key not in known and f"{key.partition(':')[0]}:" not in known
        )

    @property
    def minimal(self) -> bool:
        return self.flag("minimal")


def parse(
    argv: Sequence[str], environment: Mapping[str, str] | None = None, rc_text: str = ""
) -> tuple[Options, Arguments]:
    """Options and arguments of a command line, of `XE_EXTRA_ARGS`, `XE_CA` and `TRACEPARENT` in `environment`, and of
    the text of `~/.xe`. Raises UsageError.
    """
    environment = environment or {}
    rc_options, rc_rest = split_options([line for line in _lines(rc_text) if "=" in line])
    env_options, env_rest = split_options(split_list(environment.get("XE_EXTRA_ARGS", "")))
    named = {"XE_CA": "ca", "TRACEPARENT": "traceparent"}
    env_options |= {option: environment[name] for name, option in named.items() if environment.get(name)}
    own_options, own_rest = split_options(argv)
    arguments = arguments_of([*own_rest, *env_rest, *rc_rest])
    return _options(rc_options | env_options | own_options), arguments


def split_options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options by their long name, and the words that are none. Raises UsageError."""
    found: dict[str, str] = {}
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        name, equals, value = word.partition("=")
        if word in TAKES_VALUE:
            try:
                found[TAKES_VALUE[word]] = next(waiting)
            except StopIteration:
                raise UsageError(f"{word} needs a value") from None
        elif word in IS_FLAG:
            found[IS_FLAG[word]] = "true"
        elif equals and name in KEYWORDS:
            found[name] = value
        else:
            rest.append(word)
    return found, rest


def arguments_of(words: Sequence[str]) -> Arguments:
    """The command, bare words and parameters among words that are no options."""
    bare: list[str] = []
    pairs: list[tuple[str, str]] = []
    for word in words:
        if word in HELP_WORDS:
            return Arguments("help", tuple(bare))
        name, equals, value = word.removeprefix("--").partition("=")
        if equals:
            pairs.append((name, value))
        elif word.startswith("--"):
            pairs.append((name, "true"))
        else:
            bare.append(word)
    return Arguments(bare[0] if bare else "", tuple(bare[1:]), tuple(pairs))


def with_password_file(options: Options, text: str) -> Options:
    """The options with user name and password from the two lines of a password file. Raises UsageError."""
    # not splitlines: a password may have characters that it takes for line ends
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if len(lines) < 2:
        raise UsageError(
            "the password file has the user name on its first line and the password on its second"
        )
    return replace(options, username=lines[0], password=lines[1])


def boolean(text: str, name: str) -> bool:
    """Raises UsageError naming the parameter."""
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise UsageError(f"{name} is true or false, not '{text}'")


def size(text: str, name: str) -> int:
    """A whole number, or a number of bytes with a binary unit (`8GiB`). Raises UsageError naming the parameter."""
    found = SIZE.fullmatch(text)
    if found is None:
        raise UsageError(f"{name} is a whole number, or a size such as 8GiB; not '{text}'")
    value = int(found[1]) * UNITS[found[2]]
    if not -(1 << 63) <= value < 1 << 63:
        raise UsageError(f"{name} is a number of at most 64 bits, not '{text}'")
    return value


def split_list(text: str) -> list[str]:
    """The members of a comma list; a backslash keeps the character after it as it is."""
    members, member, escaped = [], "", False
    for char in text:
        if escaped or char not in "\\,":
            member, escaped = member + char, False
        elif char == "\\":
            escaped = True
        else:
            members.append(member)
            member = ""
    return [item for item in [*members, member] if item]


def escape(text: str) -> str:
    """A member of a comma list as `split_list` reads it."""
    return text.replace("\\", "\\\\").replace(",", "\\,")


def _options(given: dict[str, str]) -> Options:
    port = given.get("port", "")
    if port and not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) in PORTS):
        raise UsageError(f"a port is a number from 1 to 65535, not '{port}'")
    return Options(
        server=given.get("server", ""),
        port=int(port) if port else None,
        username=given.get("username", "root"),
        password=given.get("password"),
        nossl=boolean(given.get("nossl", "false"), "nossl"),
        debug=boolean(given.get("debug", "false"), "debug"),
        traceparent=given.get("traceparent", ""),
        ca=given.get("ca", ""),
        verify=not boolean(given.get("no-verify", "false"), "no-verify"),
        password_file=given.get("passwordfile", ""),
    )


def _lines(text: str) -> list[str]:
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]
