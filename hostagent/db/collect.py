"""References that lead nowhere: found (`check`), and mended (`collect`).

A row whose owner is gone goes; a link that may be empty becomes the null reference; a record of measurements that
nobody names goes (startup-and-pool-join.md S29). Destroying an object leaves its dependents to this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.db.datatype import NULL_REF, Kind
from hostagent.db.transaction import refs_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.db.datatype import DataType, Value
    from hostagent.db.model import Model
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View

OWNERS: dict[str, tuple[str, ...]] = {
    "Bond": ("master",),
    "Cluster_host": ("cluster", "host"),
    "Driver_variant": ("driver",),
    "Feature": ("host",),
    "Host_driver": ("host",),
    "PBD": ("host", "SR"),
    "PCI": ("host",),
    "PGPU": ("host",),
    "PIF": ("host", "network"),
    "PUSB": ("host",),
    "PVS_cache_storage": ("host", "site"),
    "PVS_proxy": ("site", "VIF"),
    "PVS_server": ("site",),
    "VBD": ("VM",),
    "VDI": ("SR",),
    "VGPU": ("VM",),
    "VIF": ("VM", "network"),
    "VLAN": ("tagged_PIF", "untagged_PIF"),
    "VTPM": ("VM",),
    "VUSB": ("VM",),
    "console": ("VM",),
    "crashdump": ("VM", "VDI"),
    "host_cpu": ("host",),
    "host_crashdump": ("host",),
    "host_patch": ("host", "pool_patch"),
    "network_sriov": ("physical_PIF", "logical_PIF"),
    "tunnel": ("access_PIF", "transport_PIF"),
}
"""Without these an object is nothing: it goes when one of them is gone or null."""

CD = "CD"
PARTS: dict[str, tuple[str, ...]] = {
    "Certificate": ("host",),
    "VBD": ("VDI",),
}
"""When one of these is gone the object goes, but it may be without from the start: a certificate authority has no host,
an empty drive no disk. A CD drive whose disk goes is empty.
"""

NAMED_BY: dict[str, tuple[tuple[str, str], ...]] = {
    "PIF_metrics": (("PIF", "metrics"),),
    "VM_metrics": (("VM", "metrics"),),
    "VM_guest_metrics": (("VM", "guest_metrics"),),
    "VBD_metrics": (("VBD", "metrics"),),
    "VIF_metrics": (("VIF", "metrics"),),
    "host_metrics": (("host", "metrics"),),
}
"""Measurements are nothing without the object that names them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not fit. `target` is the reference that leads nowhere, empty for an object nobody names."""

    cls: str
    ref: str
    field: str
    target: str
    remedy: str

    def __str__(self) -> str:
        if not self.target:
            return f"{self.cls} {self.ref}: no object names it; {self.remedy}"
        return (
            f"{self.cls} {self.ref}: {self.field} leads to {self.target}, which is not there; {self.remedy}"
        )


def check(view: View, model: Model) -> list[Finding]:
    """Everything that does not fit, in the order in which `collect` would mend it."""
    live = {cls.name: set(view.refs(cls.name)) for cls in model.classes.values() if cls.in_database}
    named = {cls: _named(view, sources) for cls, sources in NAMED_BY.items()}
    found: list[Finding] = []
    for cls in model.classes.values():
        if not cls.in_database:
            continue
        for ref, record in view.records(cls.name, internal=True):
            if cls.name in named and ref not in named[cls.name]:
                found.append(Finding(cls.name, ref, "", "", "destroy it"))
            for name, facts in cls.fields.items():
                if cls.stored(name):
                    found += _dangling(cls.name, ref, name, facts.type, record, live)
    return found


def _named(view: View, sources: tuple[tuple[str, str], ...]) -> set[str]:
    return {str(record[field]) for cls, field in sources for _, record in view.records(cls)}


def _dangling(
    cls: str, ref: str, name: str, kind: DataType, record: Mapping[str, Value], live: dict[str, set[str]]
) -> list[Finding]:
    owner = name in OWNERS.get(cls, ())
    goes = owner or (name in PARTS.get(cls, ()) and record.get("type") != CD)
    found = [
        Finding(cls, ref, name, target, "destroy it" if goes else "forget it")
        for wanted, target in refs_in(kind, record[name])
        if target != NULL_REF and wanted in live and target not in live[wanted]
    ]
    if owner and record[name] == NULL_REF:
        found.append(Finding(cls, ref, name, NULL_REF, "destroy it"))
    return found


def collect(transaction: Transaction, model: Model) -> list[Finding]:
    """Mend everything that `check` finds, until nothing is left; what was mended.

    A CD drive stays when its disk goes: only the disk is forgotten. Destroying one object can leave others
    without an owner, so it goes round until a round finds nothing.
    """
    mended: list[Finding] = []
    while findings := check(transaction, model):
        for finding in findings:
            if not transaction.exists(finding.cls, finding.ref):
                continue
            if finding.remedy == "destroy it":
                transaction.destroy(finding.cls, finding.ref)
            else:
                _forget(transaction, model, finding)
        mended += findings
    return mended


def _forget(transaction: Transaction, model: Model, finding: Finding) -> None:
    kind = model.cls(finding.cls).fields[finding.field].type
    value = transaction.get(finding.cls, finding.ref, finding.field)
    kept = _without(kind, value, finding.target)
    transaction.set(finding.cls, finding.ref, finding.field, kept)
    if finding.cls == "VBD" and finding.field == "VDI":
        transaction.set("VBD", finding.ref, "empty", value=True)


def _without(kind: DataType, value: Value, target: str) -> Value:
    """A value with one reference taken out, wherever in it that is."""
    if kind.kind is Kind.SET and isinstance(value, list):
        return [_without(kind.of(), item, target) for item in value if item != target]
    if kind.kind is Kind.MAP and isinstance(value, dict):
        return {
            key: _without(kind.of(), item, target) for key, item in value.items() if target not in (key, item)
        }
    return NULL_REF if value == target else value
