"""The texts of xe that are no records: API errors, help, usage (xenapi.md 6.2)."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING, cast

from hostagent.db.model import load
from hostagent.errors import HostagentError
from hostagent.xe.sentences import SENTENCES
from hostagent.xe.session import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hostagent.xe.command import Command
    from hostagent.xe.session import Api
    from hostagent.xe.terminal import Terminal

REF_PREFIX = "OpaqueRef:"
SPARE = "<extra>"
WIDTH = 100

USAGE = """\
usage: xe COMMAND [NAME=VALUE …] [MAP:KEY=VALUE …] [--FLAG] [options]

  xe host-list params=all                   show every field of every host
  xe vm-list power-state=running --minimal  the uuids of the VMs that run, with commas between
  xe pif-reconfigure-ip uuid=… mode=dhcp    change something
  xe -s localhost -p 80 --nossl -u USER …   on this host as another user than root
  xe help --all                             every command
  xe help COMMAND                           what a command takes

options:
  -s HOST          another host (default: this one, over its local socket; a path names another socket)
  -p PORT          its port (443, or 80 with --nossl)
  -u USER -pw PASSWORD, or -pwf FILE (user on the first line, password on the second)
  --ca FILE        the CA, or the host's own certificate, that must vouch for it (or XE_CA=FILE); default: the
                   system's CAs. A certificate that cannot be verified is refused
  --no-verify      trust whoever answers; only where nobody else can listen
  --nossl          plain HTTP: the password can be read on the wire
  --minimal        values only, with commas between
  --debug          tell each call of the API
  --traceparent T  pass this trace on

Options may also stand in ~/.xe (lines NAME=VALUE: server, port, username, password, passwordfile, nossl, ca) and
in XE_EXTRA_ARGS (with commas between). Sizes may end in KiB, MiB, GiB or TiB."""


def report(error: ApiError, api: Api | None, terminal: Terminal) -> None:
    """Print an API error: our sentence and its parameters by name, or the bare code where we have no words.

    `api` looks up what a reference is called; None when there is no session.
    """
    known = load().errors
    if error.code == "SESSION_AUTHENTICATION_FAILED":
        terminal.print_error(f"{SENTENCES[error.code]}\n{advice()}")
        return
    if error.code not in SENTENCES and error.code not in known:
        terminal.error(error.code, error.params)
        return
    lines = [SENTENCES.get(error.code, f"The server refused this: {error.code}")]
    names = known.get(error.code, ())
    for name, value in itertools.zip_longest(names, error.params, fillvalue=None):
        if value is not None:
            lines.append(f"{name or SPARE}: {_named(error, name or '', value, api)}")
    terminal.print_error("\n".join(lines))


def advice(command: str = "") -> str:
    """The last line of errors about what was typed."""
    return f"For usage run: '{' '.join(('xe help', command)).rstrip()}'"


def help_of(command: Command) -> str:
    """What a command takes, in the form that completion scripts read."""
    takes = [command.takes.value] if command.takes.value else []
    rows = (
        ("command name", command.name),
        ("reqd params", ", ".join(command.required)),
        ("optional params", ", ".join([*command.optional, *takes])),
        ("description", command.help),
    )
    lines = []
    for place, (title, text) in enumerate(rows):
        label = title.ljust(24) if place == 0 else f"        {title}".ljust(24)
        lines.append(f"{label}: {text}".rstrip())
    return "\n".join(lines)


def help_list(commands: Iterable[str]) -> str:
    """Names of commands, wrapped."""
    return textwrap.fill(", ".join(sorted(commands)), WIDTH, break_on_hyphens=False, break_long_words=False)


def nearest(name: str, commands: Sequence[str]) -> str:
    """A hint to what was probably meant, empty if nothing is near."""
    import difflib

    near = difflib.get_close_matches(name, commands, n=1)
    return f"Did you mean {near[0]}?\n" if near else ""


def _named(error: ApiError, name: str, value: str, api: Api | None) -> str:
    """A reference as `uuid (name)`, where it is one and can be looked up; else the value itself."""
    if api is None or not value.startswith(REF_PREFIX):
        return value
    cls = _class_of(error, name)
    if cls is None:
        return value
    try:
        record = cast("dict[str, object]", api.call(f"{cls}.get_record", value))
    except (ApiError, HostagentError):
        return value
    label = record.get("name_label") or record.get("name")
    return f"{record.get('uuid', value)} ({label})" if label else str(record.get("uuid", value))


def _class_of(error: ApiError, name: str) -> str | None:
    """The class of the object that a parameter names: by its own name, or by the parameter that names a class."""
    by_name = load().by_event_name
    if found := by_name.get(name.lower()):
        return found
    names = load().errors.get(error.code, ())
    for other, value in zip(names, error.params, strict=False):
        if other in ("class", "type") and name in ("object", "handle", "uuid", "ref"):
            return by_name.get(value.lower())
    return None
