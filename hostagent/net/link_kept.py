"""Whether a link comes back after its settings were changed; they alone are as before where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.net.apply import Tools
    from hostagent.net.operation import Operation, Step

LINK_POLL_S = 0.25
LINK_GOES, LINK_AWAY = 4, 12
"""Looks for a link to go after its settings changed, and to come back (networking.md 5, row 58: 3 s)."""


def has_link(step: Step, tools: Tools) -> bool:
    """Whether this step changes how a link is made that is there now."""
    if step.do.verb != "ethtool" or not step.do.args.get("link"):
        return False
    link = tools.netlink.look().links.get(step.do.ifindex)
    return link is not None and link.carrier


def link_kept(step: Step, tools: Tools) -> list[tuple[Operation, str]]:
    """See whether the link comes back with its new settings; they are undone where it does not."""
    do = step.do
    back = next((as_map(one.args["link"]) for one in step.undo if one.args.get("link")), None)
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
        if away == LINK_AWAY and back is not None:
            tools.ethtool(do.device, {"link": back})
            keys = ", ".join(f"ethtool-{name}={value}" for name, value in as_map(do.args["link"]).items())
            return [(do, f"{do.device} lost its link for 3 s with {keys}: its link settings are as before")]
    return []


def as_map(value: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = value
    return found
