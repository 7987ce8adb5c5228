"""Calls of the class PIF: what is refused, what the objects become, and what follows for the host."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from hostagent.api.calls_vlan import is_live, making
from hostagent.api.dispatch import Implementation
from hostagent.netctl import (
    drafts,
    objects_nics,
    objects_pif,
    objects_vlan,
    refusals,
    refusals_network,
    refusals_pif,
    refusals_vlan,
)
from hostagent.netctl.effect import Draft
from hostagent.netctl.errors import RefusedError
from hostagent.netctl.fields import flag
from hostagent.netctl.refusals_pif import Ipv4, Ipv6

if TYPE_CHECKING:
    from hostagent.api.core import Call
    from hostagent.db.datatype import Value
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.netctl.control import Control, References


def plug(call: Call, pif: str) -> str:
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        _ours(control, transaction, pif, "PIF.plug")
        return drafts.plug(control, transaction, pif)

    return control.change(work)


def unplug(call: Call, pif: str) -> str:
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        _ours(control, transaction, pif, "PIF.unplug")
        return drafts.unplug(transaction, pif)

    return control.change(work)


def reconfigure_ip(
    call: Call, pif: str, mode: str, address: str, netmask: str, gateway: str, dns: str
) -> str:
    control, wanted = call.core.net, Ipv4(mode, address, netmask, gateway, dns)

    def work(transaction: Transaction, _references: References) -> Draft:
        _ours(control, transaction, pif, "PIF.reconfigure_ip")
        refusals_pif.reconfigure_ip(transaction, pif, wanted)
        objects_pif.reconfigure_ip(transaction, pif, wanted)
        return _again(transaction, pif)

    return control.change(work)


def reconfigure_ipv6(call: Call, pif: str, mode: str, address: str, gateway: str, dns: str) -> str:
    control, wanted = call.core.net, Ipv6(mode, address, gateway, dns)

    def work(transaction: Transaction, _references: References) -> Draft:
        _ours(control, transaction, pif, "PIF.reconfigure_ipv6")
        refusals_pif.reconfigure_ipv6(transaction, pif, wanted)
        objects_pif.reconfigure_ipv6(transaction, pif, wanted)
        return _again(transaction, pif)

    return control.change(work)


def set_primary_address_type(call: Call, pif: str, value: str) -> str:
    """It decides who owns the gateway and DNS, so that an attached PIF is looked at again."""
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        _ours(control, transaction, pif, "PIF.set_primary_address_type")
        refusals_pif.set_primary_address_type(transaction, pif)
        transaction.set("PIF", pif, "primary_address_type", value)
        return _again(transaction, pif)

    return control.change(work)


def set_disallow_unplug(call: Call, pif: str, value: bool) -> str:  # noqa: FBT001 - a parameter of the call
    with call.core.db.write() as transaction:
        refusals_pif.set_disallow_unplug(transaction, pif, value=value)
        transaction.set("PIF", pif, "disallow_unplug", value)
    return ""


def set_property(call: Call, pif: str, name: str, value: str) -> str:
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        _ours(control, transaction, pif, "PIF.set_property")
        refusals_pif.set_property(transaction, pif, name, value)
        return Draft(up=objects_pif.set_property(transaction, pif, name, value))

    return control.change(work)


def scan(call: Call, host: str) -> str:
    control = call.core.net
    nics, now = control.effect.nics(), dt.datetime.now(dt.UTC)

    def work(transaction: Transaction, references: References) -> Draft:
        _this_host(control, transaction, host, "PIF.scan")
        objects_nics.scan(transaction, references, host, nics, now)
        objects_pif.flag_management(transaction, host, control.effect.management_bridge())
        return Draft()

    return control.change(work)


def introduce(call: Call, host: str, mac: str, device: str, managed: bool) -> str:  # noqa: FBT001 - as above
    control = call.core.net
    nics, now = control.effect.nics(), dt.datetime.now(dt.UTC)

    def work(transaction: Transaction, references: References) -> Draft:
        _this_host(control, transaction, host, "PIF.introduce")
        known = objects_nics.match(transaction, host, nics)
        nic = refusals_pif.introduce(transaction, host, mac, device, nics, known)
        pif = objects_nics.introduce(
            transaction, references, host, nic, now, managed=managed, disallow_unplug=nic.pinned
        )
        objects_pif.flag_management(transaction, host, control.effect.management_bridge())
        return Draft(result=pif)

    return control.change(work)


def forget(call: Call, pif: str) -> str:
    """The NIC itself stays; its bridge goes with the record."""
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        _ours(control, transaction, pif, "PIF.forget")
        refusals_pif.forget(transaction, pif)
        attached = objects_pif.attached(transaction, (pif,))
        objects_pif.forget(transaction, pif)
        return Draft(down=attached)

    return control.change(work)


def create_vlan(call: Call, device: str, network: str, host: str, tag: int) -> str:
    control = call.core.net
    foreign = control.effect.foreign_vlans()

    def work(transaction: Transaction, references: References) -> Draft:
        _this_host(control, transaction, host, "PIF.create_VLAN")
        tagged = refusals_pif.device_named(transaction, host, device)
        _, untagged = making(control, transaction, references, tagged, tag, network, foreign)
        return Draft(result=untagged, up=(untagged,))

    return control.change(work)


def destroy(call: Call, pif: str) -> str:
    control = call.core.net

    def work(transaction: Transaction, _references: References) -> Draft:
        _ours(control, transaction, pif, "PIF.destroy")
        vlan = refusals_pif.destroy(transaction, pif)
        refusals_vlan.destroy(transaction, vlan)
        attached = objects_pif.attached(transaction, (pif,))
        objects_vlan.destroy(transaction, vlan)
        return Draft(down=attached)

    return control.change(work)


def db_introduce(call: Call, *given: Value) -> str:
    """The record alone, for repairs and joins: no device is touched."""
    names = (
        "device network host MAC MTU VLAN physical ip_configuration_mode IP netmask gateway DNS bond_slave_of"
        " VLAN_master_of management other_config disallow_unplug ipv6_configuration_mode IPv6 ipv6_gateway"
        " primary_address_type managed properties"
    ).split()
    values: dict[str, object] = dict(zip(names, given, strict=True))
    refusals_network.introduced_pif(values)
    with call.core.db.write() as transaction:
        metrics = transaction.create("PIF_metrics", {})
        return transaction.create("PIF", {**values, "metrics": metrics, "currently_attached": False})


def db_forget(call: Call, pif: str) -> str:
    """As `db_introduce`."""
    with call.core.db.write() as transaction:
        objects_pif.forget(transaction, pif)
    return ""


def _ours(control: Control, view: View, pif: str, name: str) -> None:
    refusals.ours(view, pif, control.host(view), name)


def _this_host(control: Control, view: View, host: str, name: str) -> None:
    view.get("host", host, "uuid")
    if host != control.host(view) and not is_live(view, host):
        raise RefusedError(
            "HOST_OFFLINE", host, found=f"{name} was asked for a host that does not answer", hint="start it"
        )
    refusals.this_host(host, control.host(view), name)


def _again(view: View, pif: str) -> Draft:
    """An attached PIF is changed in place, another one when it is plugged."""
    return Draft(up=(pif,), blame=pif) if flag(view, "PIF", pif, "currently_attached") else Draft()


CALLS = (
    Implementation("PIF.plug", plug),
    Implementation("PIF.unplug", unplug),
    Implementation("PIF.reconfigure_ip", reconfigure_ip),
    Implementation("PIF.reconfigure_ipv6", reconfigure_ipv6),
    Implementation("PIF.set_primary_address_type", set_primary_address_type),
    Implementation("PIF.set_disallow_unplug", set_disallow_unplug),
    Implementation("PIF.set_property", set_property),
    Implementation("PIF.scan", scan),
    Implementation("PIF.introduce", introduce),
    Implementation("PIF.forget", forget),
    Implementation("PIF.create_VLAN", create_vlan),
    Implementation("PIF.destroy", destroy),
    Implementation("PIF.db_introduce", db_introduce),
    Implementation("PIF.pool_introduce", db_introduce),
    Implementation("PIF.db_forget", db_forget),
)
