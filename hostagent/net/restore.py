"""Operations that make again what a look at the kernel showed: an address, a route, the settings of a bond."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostagent.net.operation import Operation
from hostagent.net.verify import FOREVER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.net.devices import Address, Link, Route

PERMANENT = 0x80  # IFA_F_PERMANENT
LACP = 4
WITH_PRIMARY = (1, 5, 6)  # active-backup, balance-tlb, balance-alb


def address_add(link: Link, address: Address) -> Operation:
    args: dict[str, Any] = {"text": address.text, "prefix": address.prefix}
    if address.flags != PERMANENT:
        args["flags"] = address.flags
    if address.valid_s != FOREVER:
        args["valid_s"] = address.valid_s
    return Operation("address-add", link.name, link.ifindex, args)


def route_add(link: Link, route: Route) -> Operation:
    return Operation("route-add", link.name, link.ifindex, {
        "destination": route.destination,
        "gateway": route.gateway,
        "protocol": route.protocol,
        "metric": route.metric,
    })  # fmt: skip


def creatable(settings: Mapping[str, int]) -> dict[str, int]:
    """The settings of a bond as the kernel shows them, without those that it refuses in that mode."""
    mode = settings.get("mode", 0)
    timed = settings.get("miimon", 0)
    return {
        name: value
        for name, value in settings.items()
        if (mode == LACP or not name.startswith("ad_"))
        and (mode in WITH_PRIMARY or not name.startswith("primary"))
        and (timed or name not in ("updelay", "downdelay", "peer_notif_delay"))
        and not (name == "primary" and not value)
    }
