"""Whether a link comes with settings that were changed; they alone are as before where it does not.

A link that was there is watched at once. One that was not, as at a cold boot, is watched when all steps are done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostagent.net.devices import UP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hostagent.net.apply import Tools
    from hostagent.net.operation import Operation, Step

LINK_POLL_S = 0.25
LINK_GOES, LINK_AWAY = 4, 12
"""Looks for a link to go after its settings changed, and to come back (networking.md 5, row 58: 3 s)."""
LINK_COMES = 40
"""Looks for a link to come on a NIC that was just switched on: copper takes some seconds to find its speed."""


def changes_link(step: Step) -> bool:
    """Whether this step changes how a link is made."""
    return step.do.verb == "ethtool" and bool(step.do.args.get("link"))


def has_link(step: Step, tools: Tools) -> bool:
    """Whether its link is there now. What a driver says of a NIC that is down says nothing."""
    link = tools.netlink.look().links.get(step.do.ifindex)
    return link is not None and bool(link.flags & UP) and link.carrier


def link_kept(step: Step, tools: Tools) -> list[tuple[Operation, str]]:
    """See whether the link comes back with its new settings; they are undone where it does not."""
    do, back = step.do, _back(step)
    away = 0
    for look in range(LINK_GOES + LINK_AWAY):
        tools.wait(LINK_POLL_S)
        link = tools.netlink.look().links.get(do.ifindex)
        if link is None:
            break
        if not link.carrier:
            away += 1
        elif away or look + 1 >= LINK_GOES:
            break
        if away == LINK_AWAY and back:
            tools.ethtool(do.device, {"link": back})
            told = f"{do.device} lost its link for 3 s with {_keys(do)}: its link settings are as before"
            return [(do, told)]
    return []


def links_come(steps: Sequence[Step], tools: Tools) -> list[tuple[Operation, str]]:
    """See whether links that were not there come with their new settings, all at the same time. One that comes with its
    former settings alone keeps those. One that comes with neither has no cable, most likely: it has the new ones."""
    dark = _dark([step for step in steps if _back(step)], tools)
    for step in dark:
        tools.ethtool(step.do.device, {"link": _back(step)})
    without = _dark(dark, tools)
    for step in without:
        tools.ethtool(step.do.device, {"link": as_map(step.do.args["link"])})
    return [
        (step.do, f"{step.do.device} gets no link with {_keys(step.do)}: its link settings are as before")
        for step in dark
        if step not in without
    ]


def _dark(steps: Sequence[Step], tools: Tools) -> list[Step]:
    """Those whose NIC is up and has had no link all the time."""
    left = list(steps)
    for look in range(LINK_COMES + 1):
        if not left:
            break
        if look:
            tools.wait(LINK_POLL_S)
        links = tools.netlink.look().links
        seen = [(step, links.get(step.do.ifindex)) for step in left]
        left = [step for step, link in seen if link is not None and link.flags & UP and not link.carrier]
    return left


def _back(step: Step) -> Mapping[str, Any]:
    """The link settings of before; none where they are not known."""
    return next((as_map(one.args["link"]) for one in step.undo if one.args.get("link")), {})


def _keys(do: Operation) -> str:
    return ", ".join(f"ethtool-{name}={value}" for name, value in as_map(do.args["link"]).items())


def as_map(value: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = value
    return found
