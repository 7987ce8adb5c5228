"""Calls that say which PIF is the management interface: of the classes host and pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.api.dispatch import Implementation
from hostagent.netctl import drafts, objects_pif, refusals, refusals_network, refusals_pif
from hostagent.netctl.effect import Draft
from hostagent.netctl.errors import RefusedError

if TYPE_CHECKING:
    from hostagent.api.core import Call
    from hostagent.db.transaction import Transaction
    from hostagent.netctl.control import References


def reconfigure(call: Call, pif: str) -> str:
    """The former management interface keeps its address."""
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        refusals.ours(transaction, pif, control.host(transaction), "host.management_reconfigure")
        return drafts.move_management(control, transaction, pif)[0]

    return control.change(work)


def reconfigure_pool(call: Call, network: str) -> str:
    """Move it on every host, which so far is this one only."""
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        refusals.high_availability(transaction)
        host = control.host(transaction)
        transaction.get("network", network, "uuid")
        for other in transaction.refs("host"):
            refusals.this_host(other, host, "pool.management_reconfigure")
        pif = refusals_network.pif_of(transaction, network, host)
        if not pif:
            raise RefusedError(
                "PIF_NOT_PRESENT",
                host,
                network,
                found=f"this host has no PIF on network '{refusals.label_of(transaction, network)}'",
                hint="make one first: VLAN.create, Bond.create, or PIF.scan",
            )
        return drafts.move_management(control, transaction, pif)[0]

    return control.change(work)


def disable(call: Call) -> str:
    """Only programs on this host reach us then; PIFs and their addresses stay."""
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        host = control.host(transaction)
        refusals_pif.management_disable(transaction, host)
        objects_pif.flag_management(transaction, host, "")
        return Draft(listen=("", control.effect.management_address_type()))

    return control.change(work)


def reconfigure_local(call: Call, bridge: str) -> str:
    """Listen on a bridge that has its address already: for a host that has lost its coordinator."""
    if not call.core.emergency():
        raise RefusedError(
            "NOT_IN_EMERGENCY_MODE",
            found="this host is not in emergency mode",
            hint="host.management_reconfigure moves the management interface, and keeps the way back open",
        )
    control = call.core.net
    family = control.effect.management_address_type()
    there = control.effect.has_bridge(bridge)
    if not there or not control.effect.has_address(bridge, family):
        raise RefusedError(
            "INTERFACE_HAS_NO_IP",
            bridge,
            found=f"bridge '{bridge}' has no {family} address"
            if there
            else f"this host has no bridge '{bridge}'",
            hint="`ip -br address show type bridge` lists bridges with their addresses",
        )

    def work(transaction: Transaction, _references: References) -> Draft:
        objects_pif.flag_management(transaction, control.host(transaction), bridge)
        return Draft(listen=(bridge, family))

    return control.change(work)


def get_interface(call: Call, host: str) -> str:
    with call.core.db.read() as view:
        view.get("host", host, "uuid")
        for ref, record in view.records("PIF"):
            if record["host"] == host and record["management"] is True:
                return ref
    raise RefusedError(
        "HOST_HAS_NO_MANAGEMENT_IP",
        found="that host has no management interface",
        hint="choose one: host.management_reconfigure",
    )


CALLS = (
    Implementation("host.management_reconfigure", reconfigure),
    Implementation("host.management_disable", disable, emergency=True),
    Implementation("host.local_management_reconfigure", reconfigure_local, emergency=True),
    Implementation("host.get_management_interface", get_interface),
    Implementation("pool.management_reconfigure", reconfigure_pool),
)
