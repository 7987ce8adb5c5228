"""What plugging, unplugging and moving the management interface refuse, change and ask of the host, for every way to
ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net.former import cleared
from hostagent.netctl import objects_pif, refusals_pif
from hostagent.netctl.effect import Draft
from hostagent.netctl.fields import text

if TYPE_CHECKING:
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.netctl.control import Control


def plug(control: Control, view: View, pif: str) -> Draft:
    refusals_pif.plug(view, pif, control.effect.has_bridge)
    return Draft(up=(pif,))


def unplug(view: View, pif: str) -> Draft:
    """Of a member of a bond it is nothing: that has no state of its own."""
    if text(view, "PIF", pif, "bond_slave_of"):
        return Draft()
    refusals_pif.unplug(view, pif)
    return Draft(down=(pif,))


def move_management(
    control: Control, transaction: Transaction, pif: str, *, keep_old: bool = True
) -> tuple[Draft, list[str]]:
    """The former management interface keeps its address, as with XenAPI's calls; unless `keep_old`, it loses what lies
    in a subnet of the new one (`net/former.py`). The second value says so in words."""
    refusals_pif.management(transaction, pif)
    refusals_pif.plug(transaction, pif, control.effect.has_bridge)
    changed: tuple[str, ...] = ()
    told: list[str] = []
    if not keep_old:
        records = control.records(transaction)
        bare, changed, told = cleared(records, records.pifs[pif])
        for ref in changed:
            if bare.pifs[ref].ip_mode == "None":
                transaction.update("PIF", ref, objects_pif.NO_IPV4)
            if bare.pifs[ref].ipv6_mode == "None":
                transaction.update("PIF", ref, objects_pif.NO_IPV6)
    bridge = text(transaction, "network", text(transaction, "PIF", pif, "network"), "bridge")
    objects_pif.flag_management(transaction, control.host(transaction), bridge)
    family = text(transaction, "PIF", pif, "primary_address_type")
    draft = Draft(up=(pif, *changed), becoming_management=pif, blame=pif, listen=(bridge, family))
    return draft, told
