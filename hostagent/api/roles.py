"""Who may call what: the ranks of XenAPI's roles, and the records clients see of them.

A role may do all that a lower one may. A message without a lowest role in the data model is for the host's own root.
"""

from __future__ import annotations

import enum
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hostagent.db.transaction import Transaction

NAMESPACE = uuid.UUID("5c1e1b5e-6a52-4b1c-9f7b-2f5f3a3f0b11")
POOL_ADMIN_REF = "OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba"
"""The data model's default of subject.roles."""


class Role(enum.IntEnum):
    """XenAPI's roles, the lowest first."""

    READ_ONLY = 1
    VM_OPERATOR = 2
    VM_ADMIN = 3
    VM_POWER_ADMIN = 4
    POOL_OPERATOR = 5
    POOL_ADMIN = 6
    ROOT = 7

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


DESCRIPTIONS = {
    Role.READ_ONLY: "sees everything, changes nothing",
    Role.VM_OPERATOR: "starts and stops VMs, uses their consoles",
    Role.VM_ADMIN: "makes and changes VMs",
    Role.VM_POWER_ADMIN: "does everything with VMs, migration included",
    Role.POOL_OPERATOR: "manages hosts, networks and storage",
    Role.POOL_ADMIN: "may do everything",
}

BY_LABEL = {role.label: role for role in DESCRIPTIONS}


def needed(min_role: str | None) -> Role:
    """The lowest role that may call a message, from its entry in the data model."""
    return BY_LABEL.get(min_role or "", Role.ROOT)


def ref_of(role: Role) -> str:
    """The same reference on every host and at every start."""
    if role is Role.POOL_ADMIN:
        return POOL_ADMIN_REF
    return f"OpaqueRef:{uuid.uuid5(NAMESPACE, role.label)}"


def write_records(transaction: Transaction) -> None:
    """Have a record of every role."""
    for role, description in DESCRIPTIONS.items():
        values = {"name_label": role.label, "name_description": description}
        if transaction.exists("role", ref_of(role)):
            transaction.update("role", ref_of(role), values)
        else:
            identity = str(uuid.uuid5(NAMESPACE, f"uuid of {role.label}"))
            transaction.create("role", {**values, "uuid": identity}, ref=ref_of(role))
