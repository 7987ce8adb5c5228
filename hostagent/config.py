"""The settings table and the only reader of the settings files.

One row per setting: each field of `Config` is a `setting(...)` row that drives the file parser, `--set`, the
help and the docs. Precedence: defaults < ETC/hostagent.toml < ETC/conf.d/*.toml (sorted) < command line.
Everything else in the program is handed the frozen `Config`.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from hostagent.errors import OperatorError
from hostagent.files import FileError, read_bounded

if TYPE_CHECKING:
    import argparse

T = TypeVar("T")

FILE_LIMIT_BYTES = 1 << 20
"""A settings file larger than this is a mistake (a log, a core), not settings."""

SHOWN_CHARACTERS = 60  # of a key or value in an error

LOG_LEVELS = ("debug", "info", "warning", "error")


class ConfigError(OperatorError):
    """The settings cannot be used. Start-up ends with exit code 1 (reference 1.3)."""


class _UnfitError(Exception):
    """A value its setting does not take; the text says what it takes."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything is. `root` stands before /sys, /proc, /dev and xapi's paths, for the small trees of tests."""

    etc: Path = Path("/etc/hostagent")
    state: Path = Path("/var/lib/hostagent")
    run: Path = Path("/run/hostagent")
    root: Path = Path("/")

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> Paths:
        """The places a command line names (`--etc`, `--state`, `--run`), the standard ones for the rest."""
        given = {name: getattr(args, name, None) for name in ("etc", "state", "run", "root")}
        return cls(**{name: Path(value) for name, value in given.items() if value})

    @property
    def settings(self) -> Path:
        return self.etc / "hostagent.toml"

    @property
    def inventory(self) -> Path:
        return self.etc / "inventory"

    @property
    def role(self) -> Path:
        return self.etc / "pool.conf"

    @property
    def pool_secret(self) -> Path:
        return self.etc / "ptoken"

    @property
    def local_database(self) -> Path:
        return self.state / "local.json"

    @property
    def server_certificate(self) -> Path:
        return self.etc / "tls/server.pem"

    @property
    def server_key(self) -> Path:
        return self.etc / "tls/server.key"

    @property
    def db_conf(self) -> Path:
        return self.etc / "db.conf"

    @property
    def database(self) -> Path:
        return self.state / "state.db"

    @property
    def volatile_database(self) -> Path:
        return self.run / "volatile.db"

    @property
    def xapi_socket(self) -> Path:
        """Where clients that were written for xapi look for the local socket."""
        return self.root / "var/lib/xcp/xapi"

    @property
    def report(self) -> Path:
        return self.state / "startup-report.json"

    @property
    def boot_memory(self) -> Path:
        """What was free at boot, in bytes; it goes with the boot."""
        return self.run / "boot_time_memory"

    @property
    def init_complete(self) -> Path:
        return self.run / "init-complete"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: its key as operators write it, what it takes, and what it is for."""

    key: str
    takes: str
    parse: Callable[[object], object]
    default: object
    help: str

    @property
    def table(self) -> bool:
        """Whether the key names a table of free names (`timeouts.NAME`)."""
        return self.key.endswith(".NAME")


def setting(key: str, takes: str, parse: Callable[[object], object], help_: str, *, default: T) -> T:
    """A field of `Config` together with its row."""
    row = Setting(key, takes, parse, default, help_)
    made: T = field(default_factory=lambda: default, metadata={"setting": row})
    return made


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _UnfitError


def _choice(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise _UnfitError

    return parse


def _number(least: float, most: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
            return float(value)
        raise _UnfitError

    return parse


def _integer(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise _UnfitError

    return parse


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and all(
        isinstance(name, str) and 0 < len(name) < 16 for name in value
    ):
        return tuple(value)
    raise _UnfitError


DAY_S = 86400
_levels = _choice(*LOG_LEVELS)
_level_names = " | ".join(LOG_LEVELS)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, parsed once. Tables of free names are mappings from the name to its value."""

    paths: Paths = field(default_factory=Paths)

    log_level: str = setting(
        "log.level", _level_names, _levels, "least urgent messages that are logged", default="info"
    )
    log_modules: Mapping[str, str] = setting(
        "log.modules.NAME",
        _level_names,
        _levels,
        'level of one part of the program, e.g. "hostagent.xen" = "debug"',
        default={},
    )
    timeouts_s: Mapping[str, float] = setting(
        "timeouts.NAME",
        "seconds, 0.01 to 86400",
        _number(0.01, DAY_S),
        "deadline of the start-up step NAME, instead of the one in `hostagent startup list`",
        default={},
    )
    scripts_timeout_s: float = setting(
        "scripts.timeout",
        "seconds, 0.01 to 86400",
        _number(0.01, DAY_S),
        "deadline of each script in startup.d and master.d; past it the script is killed",
        default=60.0,
    )
    xenstore_wait_s: float = setting(
        "xenstore.wait",
        "seconds, 0 to 3600",
        _number(0, 3600),
        "how long start-up waits for xenstored to answer (Debian's init script waits as long)",
        default=30.0,
    )
    dom0_memory_mib: int | None = setting(
        "dom0.memory",
        "MiB, 128 to 1048576",
        _integer(128, 1 << 20),
        "memory target of dom0; without it dom0's target stays as it is",
        default=None,
    )
    localhost_port: int = setting(
        "api.localhost-port",
        "0 to 65535",
        _integer(0, 65535),
        "TCP port on 127.0.0.1 at which programs on this host find the API; 0: none",
        default=80,
    )
    https_port: int = setting(
        "api.https-port",
        "0 to 65535",
        _integer(0, 65535),
        "TCP port of HTTPS on the address of the management interface; 0: none",
        default=443,
    )
    session_idle_s: float = setting(
        "api.session-idle",
        "seconds, 1 to 31536000",
        _number(1, 365 * DAY_S),
        "a session that nobody used for so long has ended",
        default=float(DAY_S),
    )
    emergency_nics: tuple[str, ...] = setting(
        "net.emergency-nics",
        'names of NICs, e.g. ["eth0", "eth1"]',
        _names,
        "NICs on which an address may be looked for when the management interface does not come up at boot",
        default=(),
    )
    repair_drift: bool = setting(
        "net.repair-drift",
        "true | false",
        _flag,
        "bring a PIF up again that another program has taken down or changed; else it is only told",
        default=False,
    )
    watchdog: bool = setting(
        "service.watchdog",
        "true | false",
        _flag,
        "tell systemd's watchdog that the main loop is alive",
        default=True,
    )
    emergency_delay_s: float = setting(
        "restart.emergency-delay",
        "seconds, 0 to 86400",
        _number(0, DAY_S),
        "how long a host stays in emergency mode before it tries again",
        default=60.0,
    )
    emergency_spread_s: float = setting(
        "restart.emergency-spread",
        "seconds, 0 to 86400",
        _number(0, DAY_S),
        "random time added to that delay, so that a pool does not come back all at once",
        default=120.0,
    )


def _rows() -> tuple[tuple[str, Setting], ...]:
    """Field name and row of every setting, in order."""
    rows = ((item.name, item.metadata.get("setting")) for item in dataclasses.fields(Config))
    return tuple((name, row) for name, row in rows if isinstance(row, Setting))


SETTINGS = _rows()
_FIELDS = {row.key: (name, row) for name, row in SETTINGS}
_TABLES = {row.key.removesuffix(".NAME"): (name, row) for name, row in SETTINGS if row.table}


def load(paths: Paths, overrides: Sequence[str] = ()) -> tuple[Config, tuple[Path, ...]]:
    """Read every settings file there is, then `KEY=VALUE` overrides (`--set`).

    Returns the settings and the files they came from, in the order they were read. No file at all is fine:
    every setting has a default.

    Raises ConfigError: a file cannot be read, is no plain file, is not UTF-8 or TOML, is over 1 MiB, or
    holds an unknown key or a value its setting does not take; the error names file, line and key.
    """
    values: dict[str, object] = {}
    files = settings_files(paths)
    for path in files:
        text = _read(path)
        for key, value in _parse(path, text):
            _take(values, key, value, _Place(str(path), text))
    for override in overrides:
        key, sign, untyped = override.partition("=")
        if not sign:
            raise ConfigError(
                f"--set {override}: no '='", hint="write --set KEY=VALUE, e.g. --set log.level=debug"
            )
        _take(values, key.strip(), _typed(untyped.strip()), _Place(f"--set {override}", ""))
    return Config(paths=paths, **values), files  # type: ignore[arg-type]


def settings_files(paths: Paths) -> tuple[Path, ...]:
    """The settings files that exist, in the order in which later ones win."""
    try:
        fragments = sorted((paths.etc / "conf.d").glob("*.toml"))
        first = [paths.settings] if paths.settings.is_symlink() or paths.settings.exists() else []
    except OSError as error:
        raise ConfigError(
            f"{paths.etc}: cannot be listed: {error.strerror}", hint="is it a readable directory?"
        ) from error
    return (*first, *fragments)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands, to name it in an error."""

    source: str
    text: str

    def of(self, key: str) -> str:
        line = line_of(self.text, key)
        name = _short(key)
        return f"{self.source}: line {line}: {name}" if line else f"{self.source}: {name}"


def _read(path: Path) -> str:
    try:
        content = read_bounded(path, limit_bytes=FILE_LIMIT_BYTES)
    except FileError as error:
        raise ConfigError(error.found, hint="mend it or move it away; every setting has a default") from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line}: not UTF-8", hint="save the file as UTF-8") from error


def _parse(path: Path, text: str) -> list[tuple[str, object]]:
    try:
        return _flatten(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        last = f"at line {len(text.splitlines())}, the last one"
        why = str(error).replace("at end of document", last)
        raise ConfigError(
            f"{path}: not TOML: {why}", hint="mend that line; the form is key = value"
        ) from error
    except (ValueError, RecursionError) as error:  # tomllib's own limits: digits of a number, nested arrays
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(
            f"{path}: not settings: {why}", hint="`hostagent run --help` lists all settings"
        ) from error


def _flatten(document: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """(dotted key, value) of every value; a table of free names keeps its names whole, dots included."""
    found: list[tuple[str, object]] = []
    for name, value in document.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and prefix.removesuffix(".") not in _TABLES:
            found += _flatten(value, f"{key}.") if value else []
        else:
            found.append((key, value))
    return found


def _take(values: dict[str, object], key: str, value: object, place: _Place) -> None:
    """Check one value and put it into the keyword arguments of Config."""
    table = next((name for name in _TABLES if key.startswith(f"{name}.") and key != f"{name}."), None)
    if table is not None:
        name, row = _TABLES[table]
        earlier = cast("dict[str, object]", values.get(name, {}))
        values[name] = {**earlier, key.removeprefix(f"{table}."): _check(row, key, value, place)}
        return
    if key not in _FIELDS or _FIELDS[key][1].table:
        raise ConfigError(f"{place.of(key)}: unknown setting", hint=_unknown_hint(key))
    name, row = _FIELDS[key]
    values[name] = _check(row, key, value, place)


def _check(row: Setting, key: str, value: object, place: _Place) -> object:
    try:
        return row.parse(value)
    except _UnfitError:
        raise ConfigError(
            f"{place.of(key)}: {_short(_spelled(value))} does not fit",
            hint=f"{_short(key)} takes: {row.takes}",
        ) from None


def _spelled(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a number of more than 4300 digits (written in hex), deep nesting
        return f"this {type(value).__name__}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _unknown_hint(key: str) -> str:
    import difflib

    near = difflib.get_close_matches(key, _FIELDS, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "`hostagent run --help` lists all settings"


def _typed(text: str) -> object:
    """A command-line value as TOML would read it; anything that is not a TOML value is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(#.*)?$")
_PAIR = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


def line_of(text: str, key: str) -> int | None:
    """The line (from 1) on which a dotted key gets its value, as far as plain tables and pairs show it."""
    prefix = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            prefix = f"{_bare(header[1])}."
        elif (pair := _PAIR.match(line)) and prefix + _bare(pair[1]) == key:
            return number
    return None


def _bare(key: str) -> str:
    return re.sub(r"""["']|\s""", "", key)


def help_text() -> str:
    """Every setting, for `--help`: key, what it takes, what it is for, its default."""
    lines = []
    for _, row in SETTINGS:
        told = "" if row.default is None or row.table else f" (default {_shown(row.default)})"
        lines.append(f"  {row.key} = {row.takes}\n      {row.help}{told}")
    return "\n".join(lines)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
