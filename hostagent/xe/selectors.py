"""Which hosts or VMs a command means: `host=` or `vm=`, or any filter by fields as lists have it (xenapi.md 6.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.xe.command import COMMON, Call, Command, CommandError, Takes, command
from hostagent.xe.generated import matching
from hostagent.xe.output import report
from hostagent.xe.session import ApiError
from hostagent.xe.views import views

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.xe.views import Record

    Act = Callable[[Call, str], None]


def on_hosts(name: str, optional: str, help_: str, act: Act) -> Command:
    """A row whose function is called for each host that is meant."""

    def run(call: Call) -> None:
        _on_each(call, selected_hosts(call, optional.split()), act)

    return command(name, "", optional, help_, run, Takes.HOSTS)


def on_vms(name: str, optional: str, help_: str, act: Act) -> Command:
    """A row whose function is called for each VM that is meant."""

    def run(call: Call) -> None:
        _on_each(call, selected_vms(call, optional.split()), act)

    return command(name, "", optional, help_, run, Takes.VMS)


def selected_hosts(call: Call, own: list[str]) -> list[tuple[str, Record]]:
    """Reference and record of the hosts meant; `own` are the command's parameters that select nothing.

    Raises CommandError when there is none, or more than one without `--multiple`.
    """
    wanted = call.arguments.get("host")
    rows = matching(views()["host"], call, call.arguments.others((*COMMON, *own, "host")))
    if wanted is not None:
        rows = [row for row in rows if wanted in (row[1]["uuid"], row[1]["hostname"], row[1]["name_label"])]
    return _some(call, rows, "host")


def selected_vms(call: Call, own: list[str]) -> list[tuple[str, Record]]:
    """Reference and record of the VMs meant, never a control domain, as `selected_hosts`."""
    wanted = call.arguments.get("vm")
    rows = matching(views()["vm"], call, call.arguments.others((*COMMON, *own, "vm")))
    rows = [row for row in rows if not row[1]["is_control_domain"]]
    if wanted is not None:
        rows = [row for row in rows if wanted in (row[1]["uuid"], row[1]["name_label"])]
    return _some(call, rows, "VM")


def host_named(call: Call, wanted: str) -> str:
    """The reference of the one host with that uuid, hostname or name. Raises CommandError."""
    found = [
        ref
        for ref, record in call.objects.records("host").items()
        if wanted in (record["uuid"], record["hostname"], record["name_label"])
    ]
    if len(found) != 1:
        raise CommandError(f"{len(found)} hosts are called {wanted}; name one by its uuid")
    return found[0]


def _on_each(call: Call, rows: list[tuple[str, Record]], act: Act) -> None:
    """What fails on one of several is told with its uuid, and does not keep the others from it.

    Raises CommandError when it failed on some of several, ApiError when it failed on the only one.
    """
    if len(rows) == 1:
        act(call, rows[0][0])
        return
    failed = 0
    for ref, record in rows:
        try:
            act(call, ref)
        except ApiError as error:
            failed += 1
            call.terminal.print_error(f"operation failed on {record['uuid']} ({record['name_label']}):")
            report(error, call.api, call.terminal)
    if failed:
        raise CommandError(f"failed on {failed} of {len(rows)}")


def _some(call: Call, rows: list[tuple[str, Record]], what: str) -> list[tuple[str, Record]]:
    if not rows:
        raise CommandError(f"No matching {what}s found")
    if len(rows) > 1 and not call.arguments.flag("multiple"):
        names = ", ".join(f"{record['uuid']} ({record['name_label']})" for _, record in rows[:5])
        more = ", …" if len(rows) > 5 else ""
        raise CommandError(f"{len(rows)} {what}s match: {names}{more}\nSelect one, or add --multiple")
    return rows
