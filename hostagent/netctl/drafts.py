"""What plugging, unplugging and moving the management interface refuse, change and ask of the host, for every way to
ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def move_management(control: Control, transaction: Transaction, pif: str) -> Draft:
    """The former management interface keeps its address."""
    refusals_pif.management(transaction, pif)
    refusals_pif.plug(transaction, pif, control.effect.has_bridge)
    bridge = text(transaction, "network", text(transaction, "PIF", pif, "network"), "bridge")
    objects_pif.flag_management(transaction, control.host(transaction), bridge)
    family = text(transaction, "PIF", pif, "primary_address_type")
    return Draft(up=(pif,), becoming_management=pif, listen=(bridge, family))
