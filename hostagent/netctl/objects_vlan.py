"""Making and unmaking the objects of a VLAN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.netctl.fields import text

if TYPE_CHECKING:
    from hostagent.db.transaction import Transaction
    from hostagent.netctl.control import References

DUMMY_MAC = "fe:ff:ff:ff:ff:ff"
"""Of every VLAN's PIF; the device has the MAC of what it lies on (networking.md 1.1)."""


def create(
    transaction: Transaction, references: References, tagged: str, tag: int, network: str
) -> tuple[str, str]:
    """The VLAN and its upper PIF."""
    lower = transaction.record("PIF", tagged)
    untagged = references.create(
        transaction,
        "PIF",
        {
            "device": lower["device"],
            "network": network,
            "host": lower["host"],
            "MAC": DUMMY_MAC,
            "MTU": lower["MTU"],
            "VLAN": tag,
            "metrics": lower["metrics"],
            "currently_attached": False,
            "properties": lower["properties"],
        },
    )
    values = {"tagged_PIF": tagged, "untagged_PIF": untagged, "tag": tag}
    vlan = references.create(transaction, "VLAN", values)
    transaction.set("PIF", untagged, "VLAN_master_of", vlan)
    return vlan, untagged


def destroy(transaction: Transaction, vlan: str) -> None:
    """The VLAN and its PIF; the measurements are those of the lower one."""
    untagged = text(transaction, "VLAN", vlan, "untagged_PIF")
    transaction.destroy("VLAN", vlan)
    if untagged and transaction.exists("PIF", untagged):
        transaction.destroy("PIF", untagged)


def move(transaction: Transaction, vlan: str, lower: str) -> None:
    """Put a VLAN on another PIF of the same host; its network stays, and so does its bridge."""
    below = transaction.record("PIF", lower)
    untagged = text(transaction, "VLAN", vlan, "untagged_PIF")
    transaction.set("VLAN", vlan, "tagged_PIF", lower)
    values = {"device": below["device"], "metrics": below["metrics"]}
    transaction.update("PIF", untagged, {**values, "properties": below["properties"]})
