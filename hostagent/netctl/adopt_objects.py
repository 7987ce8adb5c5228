"""The records of a card that is taken over or given back: its PIF, network and bridge, and who is management."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net.adopt import with_settings
from hostagent.net.adopt_files import CannotAdoptError
from hostagent.net.names import bridge_of_nic
from hostagent.netctl import objects_nics, objects_pif
from hostagent.netctl.effect import Draft
from hostagent.netctl.fields import flag, pairs, text
from hostagent.netctl.from_database import records_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hostagent.db.datatype import Value
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.net.adopt import Settings
    from hostagent.net.nics_types import Nic
    from hostagent.net.records import Pif, Records
    from hostagent.netctl.adopt_place import Place
    from hostagent.netctl.control import Control, References

FIELDS = (
    *objects_pif.NO_IPV4, *objects_pif.NO_IPV6, "primary_address_type", "other_config", "managed", "management",
    "currently_attached",
)  # fmt: skip
"""Of a PIF, what taking over changes."""


class Snapshot(NamedTuple):
    """What is to be so again when a take-over fails after the database was written."""

    pifs: dict[str, dict[str, Value]]


def pif_of(view: View, host: str, nic: str) -> str:
    """The physical PIF of a card on this host, "" for none."""
    for ref, record in view.records("PIF"):
        if record["host"] == host and record["physical"] is True and record["device"] == nic:
            return ref
    return ""


def bridge_of(place: Place, nic: str) -> str:
    """The bridge that a card's network has, or will have."""
    with place.database.read() as view:
        ref = pif_of(view, view.by_uuid("host", place.host_uuid), nic)
        bridge = text(view, "network", text(view, "PIF", ref, "network"), "bridge") if ref else ""
    return bridge or _new_bridge(nic, place.site.nics())


def _new_bridge(nic: str, nics: Sequence[Nic]) -> str:
    position = next((one.position for one in nics if one.name == nic), None)
    return bridge_of_nic(nic, position)


def taking(
    control: Control, nic: str, bridge: str, taken: Settings, nics: Sequence[Nic]
) -> Callable[[Transaction, References], Draft]:
    """The change of objects for a take-over."""
    now = dt.datetime.now(dt.UTC)

    def work(transaction: Transaction, references: References) -> Draft:
        host = control.host(transaction)
        ref = pif_of(transaction, host, nic)
        if not ref:
            found = next((one for one in nics if one.name == nic), None)
            if found is None:
                raise CannotAdoptError(
                    f"{nic} is no card that a PIF is made for",
                    hint="hostagent net status; hostagent xe pif-scan host-uuid=…",
                )
            ref = objects_nics.introduce(transaction, references, host, found, now)
        if text(transaction, "PIF", ref, "bond_slave_of"):
            raise CannotAdoptError(
                f"the PIF of {nic} is a member of a bond", hint="hostagent xe bond-destroy uuid=…"
            )
        network = text(transaction, "PIF", ref, "network")
        transaction.update("network", network, {"bridge": bridge, "managed": True})
        after = with_settings(records_of(transaction, host, bridge), ref, taken, bridge).pifs[ref]
        transaction.update("PIF", ref, fields(after))
        objects_pif.flag_management(transaction, host, bridge)
        family = "IPv4" if taken.mode != "None" else "IPv6"
        return Draft(result=ref, up=(ref,), becoming_management=ref, listen=(bridge, family))

    return work


def fields(pif: Pif) -> dict[str, object]:
    """What the database has of the addresses of a PIF."""
    return {
        "managed": True,
        "ip_configuration_mode": pif.ip_mode,
        "IP": pif.ip,
        "netmask": pif.netmask,
        "gateway": pif.gateway,
        "DNS": pif.dns,
        "ipv6_configuration_mode": pif.ipv6_mode,
        "IPv6": list(pif.ipv6),
        "ipv6_gateway": pif.ipv6_gateway,
        "primary_address_type": pif.primary_address_type,
        "other_config": dict(pif.other_config),
    }


def giving(control: Control, nic: str) -> Callable[[Transaction, References], Draft]:
    """The change of objects for giving back: the PIF stays, unplugged and without addresses."""

    def work(transaction: Transaction, _references: References) -> Draft:
        host = control.host(transaction)
        ref = pif_of(transaction, host, nic)
        if not ref:
            raise CannotAdoptError(f"there is no PIF of {nic}", hint="hostagent pif list")
        transaction.update("PIF", ref, {**objects_pif.NO_IPV4, **objects_pif.NO_IPV6})
        was = flag(transaction, "PIF", ref, "management")
        config = pairs(transaction, "PIF", ref, "other_config")
        config.pop("domain", None)
        transaction.set("PIF", ref, "other_config", config)
        listen = None
        if was:
            objects_pif.flag_management(transaction, host, "")
            listen = ("", control.effect.management_address_type())
        return Draft(result=ref, down=(ref,), listen=listen)

    return work


def snapshot(place: Place, nic: str) -> Snapshot:
    """Of every PIF of this host, as only one can be management."""
    with place.database.read() as view:
        host = view.by_uuid("host", place.host_uuid)
        return Snapshot(
            {
                ref: {field: record[field] for field in FIELDS}
                for ref, record in view.records("PIF")
                if record["host"] == host
            }
        )


def restore(place: Place, before: Snapshot) -> None:
    """The PIFs as they were; one that was made meanwhile stays, without addresses."""
    with place.database.write() as transaction:
        host = transaction.by_uuid("host", place.host_uuid)
        for ref, record in list(transaction.records("PIF")):
            if record["host"] == host:
                none = {
                    **objects_pif.NO_IPV4,
                    **objects_pif.NO_IPV6,
                    "management": False,
                    "currently_attached": False,
                }
                transaction.update("PIF", ref, before.pifs.get(ref, none))


def records(place: Place, bridge: str) -> Records:
    with place.database.read() as view:
        return records_of(view, view.by_uuid("host", place.host_uuid), bridge)
