"""The parts of an explanation: what it is drawn from beside records and kernel, its reasons, and it on one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

STOPS, WARNS, TELLS = "stops", "warns", "tells"


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
    """What to type next; empty for none."""


class Answer(NamedTuple):
    subject: str
    verdict: str
    facts: tuple[tuple[str, str], ...]
    reasons: tuple[Reason, ...]


def text(answer: Answer) -> str:
    """An answer on one screen."""
    lines = [f"{answer.subject}: {answer.verdict}"]
    lines += [f"  {name:<10} {value}" for name, value in answer.facts]
    marks = {STOPS: "✗", WARNS: "!", TELLS: "·"}
    for reason in answer.reasons:
        lines += ["", f"{marks[reason.weight]} {reason.found}"]
        lines += [f"    {line}" for line in reason.evidence]
        if reason.command:
            lines.append(f"    → {reason.command}")
    return "\n".join(lines)


def numbers(tags: tuple[int, ...]) -> str:
    """VLAN tags in words."""
    return ", ".join(map(str, tags))
