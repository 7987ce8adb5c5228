"""Calls of the class network: what is refused, what the objects become, and what follows for the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.api.dispatch import Implementation
from hostagent.api.generated import constructor_values
from hostagent.net.finding import FindingError
from hostagent.netctl import objects_network, objects_sync, refusals, refusals_network, refusals_pif
from hostagent.netctl.effect import Draft
from hostagent.netctl.fields import flag, text, texts

if TYPE_CHECKING:
    from hostagent.api.core import Call
    from hostagent.db.datatype import Value
    from hostagent.db.transaction import Transaction
    from hostagent.netctl.control import References


def create(call: Call, args: dict[str, Value]) -> str:
    """The record alone: its bridge is made when a PIF or a guest needs it."""
    from hostagent.netctl.control import References

    database = call.core.db
    values = constructor_values(database.model.cls("network"), args)
    refusals_network.other_config(values.get("other_config"))
    with database.write() as transaction:
        return objects_network.create(transaction, References(), values)


def pool_introduce(
    call: Call,
    name_label: str,
    name_description: str,
    mtu: int,
    other_config: dict[str, str],
    bridge: str,
    managed: bool,  # noqa: FBT001 - a parameter of the call
    purpose: list[str],
) -> str:
    """The record alone, for joins: as it was in the other database."""
    refusals_network.introduced(bridge, mtu, other_config)
    with call.core.db.write() as transaction:
        return transaction.create(
            "network",
            {
                "name_label": name_label,
                "name_description": name_description,
                "MTU": mtu,
                "other_config": other_config,
                "bridge": bridge,
                "managed": managed,
                "purpose": purpose,
            },
        )


def destroy(call: Call, network: str) -> str:
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        refusals_network.destroy(transaction, network)
        has_bridge = objects_network.destroy(transaction, network)
        return Draft(detach=network if has_bridge else "")

    return control.change(work)


def attach(call: Call, network: str, host: str) -> str:
    """Plug this host's PIF on the network, or make the bridge of one that has none."""
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        transaction.get("host", host, "uuid")
        refusals.this_host(host, control.host(transaction), "network.attach")
        refusals_network.attach(transaction, network, host, control.effect.has_bridge)
        if not flag(transaction, "network", network, "managed"):
            return Draft()
        pif = refusals_network.pif_of(transaction, network, host)
        if not pif:
            return Draft(attach=network)
        if flag(transaction, "PIF", pif, "currently_attached"):
            return Draft()
        refusals_pif.plug(transaction, pif, control.effect.has_bridge)
        return Draft(up=(pif,))

    return control.change(work)


def attach_for_vm(call: Call, host: str, vm: str) -> str:
    """Every network of the VM's interfaces, in their order; those before one that cannot be stay attached."""
    for network in _networks_of(call, host, vm, "network.attach_for_vm"):
        attach(call, network, host)
    return ""


def detach_for_vm(call: Call, host: str, vm: str) -> str:
    """Remove the bridges of the VM's networks that nobody needs any more: no PIF, no interface of another guest."""
    for network in _networks_of(call, host, vm, "network.detach_for_vm"):
        _detach_idle(call, network, host)
    return ""


def _detach_idle(call: Call, network: str, host: str) -> None:
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        bridge = text(transaction, "network", network, "bridge")
        managed = flag(transaction, "network", network, "managed")
        idle = managed and bridge and objects_sync.idle_bridges(transaction, host, [bridge])
        return Draft(detach=network if idle and control.effect.has_bridge(bridge) else "")

    try:
        control.change(work)
    except FindingError as error:
        if error.code != "VIF_IN_USE":  # by a guest that the database does not know: it needs the bridge
            raise


def _networks_of(call: Call, host: str, vm: str, what: str) -> list[str]:
    with call.core.db.read() as view:
        view.get("host", host, "uuid")
        refusals.this_host(host, call.core.net.host(view), what)
        view.get("VM", vm, "uuid")
        return list(dict.fromkeys(text(view, "VIF", vif, "network") for vif in texts(view, "VM", vm, "VIFs")))


def set_default_locking_mode(call: Call, network: str, value: str) -> str:
    with call.core.db.write() as transaction:
        refusals_network.set_default_locking_mode(transaction, network)
        transaction.set("network", network, "default_locking_mode", value)
    return ""


def add_purpose(call: Call, network: str, value: str) -> str:
    with call.core.db.write() as transaction:
        refusals_network.add_purpose(transaction, network, value)
        transaction.add_to_set("network", network, "purpose", value)
    return ""


def remove_purpose(call: Call, network: str, value: str) -> str:
    with call.core.db.write() as transaction:
        transaction.remove_from_set("network", network, "purpose", value)
    return ""


def set_mtu(call: Call, network: str, value: int) -> str:
    """It takes effect when a PIF on the network is plugged the next time (networking.md 1.2)."""
    with call.core.db.write() as transaction:
        refusals_network.mtu(value)
        transaction.set("network", network, "MTU", value)
    return ""


CALLS = (
    Implementation("network.create", create),
    Implementation("network.pool_introduce", pool_introduce),
    Implementation("network.destroy", destroy),
    Implementation("network.attach", attach),
    Implementation("network.attach_for_vm", attach_for_vm),
    Implementation("network.detach_for_vm", detach_for_vm),
    Implementation("network.set_default_locking_mode", set_default_locking_mode),
    Implementation("network.add_purpose", add_purpose),
    Implementation("network.remove_purpose", remove_purpose),
    Implementation("network.set_MTU", set_mtu),
)
