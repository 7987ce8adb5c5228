"""The parts of an explanation: what it is drawn from beside records and kernel, its reasons, and it on one screen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

STOPS, WARNS, TELLS = "stops", "warns", "tells"
MARKS = {STOPS: "✗", WARNS: "!", TELLS: "·"}
SCREEN_LINES = 40
EVIDENCE_LINES = 8
"""Of one reason, in the text."""
COMMAND = re.compile(
    r"(?:(?P<before>[^:]*): )?(?P<command>(?:hostagent|ethtool|sysctl) .*?)(?P<after>[,;] .*| \(.*)?"
)
"""A hint with something to type in it, alone or among words."""


class Evidence(NamedTuple):
    """What is known beyond records and kernel; what was not looked at is empty."""

    lacpdus: Mapping[str, str] = {}
    """NIC → MAC of the system whose LACPDUs were seen on it."""
    tags: Mapping[str, tuple[int, ...]] = {}
    """NIC → VLAN tags seen on it."""
    lldp: Mapping[str, str] = {}
    """NIC → switch and port, as LLDP tells them."""
    dhcp: Mapping[str, str] = {}
    """Bridge → what its DHCP client has sent and heard, in words."""
    conflicts: Mapping[str, str] = {}
    """Address → MAC of another host that has it."""
    gateways: Mapping[str, bool] = {}
    """Gateway → whether it answers."""
    foreign: Mapping[str, str] = {}
    """Device → program of another's that configures it."""
    keep_off: Mapping[str, str] = {}
    """Device → the command that keeps that program from it."""
    speeds: Mapping[str, int] = {}
    """Member of a bond → speed of its link in Mb/s."""
    paths: Mapping[str, int] = {}
    """Gateway → the largest packet that gets there whole, where that is less than the MTU."""
    settings: Mapping[str, str] = {}
    """Path below /proc/sys → value."""
    missing: Mapping[str, str] = {}
    """MAC of a NIC that is not in this host → since when, in words."""
    pending: str = ""
    """A change that is not committed."""
    last: str = ""
    """The last change of the network, and what became of it."""


class Reason(NamedTuple):
    weight: str
    """stops: it cannot work; warns: it works with less; tells: a fact that was asked for."""
    found: str
    evidence: tuple[str, ...]
    command: str
    """What to type next, as it stands; empty for none."""
    hint: str = ""
    """What to do next, in words; empty for none."""


class Answer(NamedTuple):
    uuid: str
    """Of the PIF."""
    subject: str
    verdict: str
    facts: tuple[tuple[str, str], ...]
    reasons: tuple[Reason, ...]


def record(reason: Reason) -> dict[str, Any]:
    """As `--json` has it: `hint` only where there is one."""
    return {name: value for name, value in reason._asdict().items() if value or name != "hint"}


def parted(hint: str) -> tuple[str, str]:
    """What of a hint can be typed, and the words beside it."""
    found = COMMAND.fullmatch(hint)
    if found is None or "…" in found["command"]:
        return "", hint
    return found["command"], found["before"] or (found["after"] or "").strip(" ,;")


def text(answer: Answer) -> str:
    """An answer on one screen: the gravest reasons whole, as many as fit, of the others what was found."""
    head = [f"{answer.subject}: {answer.verdict}"]
    head += [f"  {name:<10} {value}" for name, value in answer.facts]
    whole = [_lines(reason) for reason in answer.reasons]
    if len(head) + sum(map(len, whole)) <= SCREEN_LINES and not any(map(_is_long, answer.reasons)):
        return "\n".join([*head, *(line for lines in whole for line in lines)])
    more = ["", f"all of it: hostagent pif explain {answer.uuid} --json"]
    left = SCREEN_LINES - len(head) - len(more)
    for count in range(len(whole), -1, -1):
        short = [lines[1] for lines in whole[count:]]
        lines = [line for lines in whole[:count] for line in lines] + ["" for _ in short[:1]] + short
        if len(lines) <= left:
            break
    return "\n".join([*head, *lines[:left], *more])


def _is_long(reason: Reason) -> bool:
    return len(reason.evidence) > EVIDENCE_LINES


def _lines(reason: Reason) -> list[str]:
    """Of a reason, the second one says what was found."""
    lines = ["", f"{MARKS[reason.weight]} {reason.found}"]
    lines += [f"    {line}" for line in reason.evidence[:EVIDENCE_LINES]]
    if _is_long(reason):
        lines.append(f"    and {len(reason.evidence) - EVIDENCE_LINES} more")
    if reason.hint:
        lines.append(f"    {reason.hint}")
    if reason.command:
        lines.append(f"    → {reason.command}")
    return lines


def numbers(tags: tuple[int, ...]) -> str:
    """VLAN tags in words."""
    return ", ".join(map(str, tags))
