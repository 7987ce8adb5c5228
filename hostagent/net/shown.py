"""Operations as people and callers are shown them: devices by name, where a message to the kernel has their indexes.

Indexes of devices that are yet to be made are the plan's own, and say nothing to anybody (`devices.INDEX_FIRST`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hostagent.net.devices import Kernel
    from hostagent.net.operation import Operation, Plan

DEVICES = ("master", "lower")
SETTINGS = ("primary", "active_slave")
"""Of a bond's settings: those that are indexes."""
NO_DEVICE = "none"


def names_of(operations: Iterable[Operation], kernel: Kernel | None = None) -> dict[int, str]:
    """Names by index: of the devices these operations are done to, and of those that are there."""
    names = {index: link.name for index, link in kernel.links.items()} if kernel is not None else {}
    for operation in operations:
        names[operation.ifindex] = operation.device
    names[0] = NO_DEVICE
    return names


def names_in(plan: Plan, kernel: Kernel | None = None) -> dict[int, str]:
    """The same of a plan. Empty where it has no steps."""
    return names_of([step.do for step in plan.steps], kernel) if plan.steps else {}


def args_of(operation: Operation, names: Mapping[int, str]) -> dict[str, Any]:
    """Its arguments with names; an index that nobody knows stays a number."""
    args: dict[str, Any] = dict(operation.args)
    for key in DEVICES:
        if key in args:
            args[key] = names.get(args[key], args[key])
    settings = args.get("settings")
    if settings and not settings.keys().isdisjoint(SETTINGS):
        args["settings"] = {
            key: names.get(value, value) if key in SETTINGS else value for key, value in settings.items()
        }
    return args


def words(verb: str, args: Mapping[str, Any]) -> str:
    """Arguments in one line. Of a file's content the size in bytes: it is not for a terminal, and may be secret."""
    if verb == "file":
        content = args["content"]
        size = "removed" if content is None else f"size={len(content.encode(errors='surrogateescape'))}"
        return f"path={args['path']} {size}"
    return " ".join(f"{name}={_value(value)}" for name, value in args.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{inner}" for name, inner in value.items())
    text = str(value)
    return f"({len(text.splitlines())} lines)" if "\n" in text else text


def removed(operations: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was there and is not to be any more, of operations as results have them (networking.md 5, rows 34 and 45):
    how many routes and addresses went for good, and clients of DHCP on bridges that stay."""

    def gone(what: str, name: str) -> int:
        kept = {one["args"][name] for one in operations if one["verb"] == f"{what}-add"}
        return sum(one["verb"] == f"{what}-del" and one["args"][name] not in kept for one in operations)

    deleted = {one["device"] for one in operations if one["verb"] == "link-del"}
    numbers = {"route": gone("route", "destination"), "address": gone("address", "text")}
    plurals = {"route": "routes", "address": "addresses"}
    counted = [f"{n} {what if n == 1 else plurals[what]}" for what, n in numbers.items() if n]
    clients = dict.fromkeys(one["device"] for one in operations if one["verb"] == "lease-stop")
    return [
        *([f"removed: {', '.join(counted)}"] if counted else []),
        *(f"stale client removed: DHCP on {device}" for device in clients if device not in deleted),
    ]
