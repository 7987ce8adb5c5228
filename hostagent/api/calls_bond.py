"""Calls of the class Bond: what is refused, what the objects become, and what follows for the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.api.dispatch import Implementation
from hostagent.netctl import objects_bond, objects_pif, refusals, refusals_bond
from hostagent.netctl.effect import Draft
from hostagent.netctl.fields import pairs, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.api.core import Call
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.netctl.control import Control, References
    from hostagent.netctl.objects_bond import Moved


def create(
    call: Call, network: str, members: list[str], mac: str, mode: str, properties: dict[str, str]
) -> str:
    control = call.core.net
    nics = control.effect.nics()

    def work(transaction: Transaction, references: References) -> Draft:
        transaction.get("network", network, "uuid")
        refusals_bond.create(transaction, network, members, mac, control.host(transaction))
        refusals_bond.mode(mode, control.effect.mode_refused)
        refusals_bond.speeds(transaction, members, mode, nics)
        complete = refusals_bond.properties(mode, properties)
        moved = objects_bond.create(
            transaction, references, network, members, mac=mac, mode=mode, properties=complete
        )
        master = text(transaction, "Bond", moved.bond, "master")
        return _draft(control, transaction, moved, result=moved.bond, blame=master)

    return control.change(work)


def destroy(call: Call, bond: str) -> str:
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        master = _ours(control, transaction, bond, "Bond.destroy")
        refusals_bond.destroy(transaction, bond)
        return _draft(control, transaction, objects_bond.destroy(transaction, bond), blame=master)

    return control.change(work)


def set_mode(call: Call, bond: str, value: str) -> str:
    """Properties that the new mode does not have go; those that it needs get their defaults."""

    def values(view: View, control: Control) -> dict[str, object]:
        refusals_bond.mode(value, control.effect.mode_refused)
        kept = pairs(view, "Bond", bond, "properties") if value == refusals_bond.LACP else {}
        return {"mode": value, "properties": refusals_bond.properties(value, kept)}

    return _set(call, bond, "Bond.set_mode", values)


def set_property(call: Call, bond: str, name: str, value: str) -> str:
    def values(view: View, _control: Control) -> dict[str, object]:
        mode = text(view, "Bond", bond, "mode")
        wanted = {**pairs(view, "Bond", bond, "properties"), name: value}
        return {"properties": refusals_bond.properties(mode, wanted)}

    return _set(call, bond, "Bond.set_property", values)


def _set(call: Call, bond: str, name: str, values: Callable[[View, Control], dict[str, object]]) -> str:
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        master = _ours(control, transaction, bond, name)
        refusals.managed(transaction, master)
        transaction.update("Bond", bond, values(transaction, control))
        return Draft(up=objects_pif.attached(transaction, (master,)), blame=master)

    return control.change(work)


def _ours(control: Control, view: View, bond: str, name: str) -> str:
    """The bond's own PIF."""
    master = text(view, "Bond", bond, "master")
    refusals.ours(view, master, control.host(view), name)
    return master


def _draft(control: Control, view: View, moved: Moved, *, blame: str, result: str = "") -> Draft:
    """A management interface that moved takes its listeners to the bridge of where it is now."""
    listen = None
    if moved.management:
        bridge = text(view, "network", text(view, "PIF", moved.management, "network"), "bridge")
        listen = (bridge, control.effect.management_address_type())
    return Draft(
        result=result,
        up=moved.up,
        down=moved.down,
        becoming_management=moved.management,
        moved=moved.vifs,
        blame=blame,
        listen=listen,
    )


CALLS = (
    Implementation("Bond.create", create),
    Implementation("Bond.destroy", destroy),
    Implementation("Bond.set_mode", set_mode),
    Implementation("Bond.set_property", set_property),
)
