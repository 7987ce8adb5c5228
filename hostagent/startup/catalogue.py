"""Every step of the reference: the built ones from the table, the others from the data file of all numbers.

`seed_steps.json` lists S1 to S56, the parts s1 to s14 and m1 to m10 of S28, and 5.5, with exactly one owner each; what
has no row in the table, and is not done by that of another number, is listed as not built.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from hostagent.startup.table import STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.startup.step import Step

NOT_BUILT = "not built"
IN_PARTS = "in parts"
"""Some of its parts are built; each part tells for itself."""


@dataclass(frozen=True, slots=True)
class SeedStep:
    """One number of the reference: `owner` builds it; `shared` tells who builds which piece of it; the row of `within`
    does it too; `missing` says what it waits for, where its owner has built the rest.
    """

    ref: str
    title: str
    role: str
    owner: str
    shared: dict[str, str]
    within: str = ""
    missing: str = ""


def seed_steps() -> tuple[SeedStep, ...]:
    text = (resources.files("hostagent.startup") / "seed_steps.json").read_text()
    return tuple(SeedStep(**{"shared": {}, **row}) for row in json.loads(text)["steps"])


def list_rows(*, with_unbuilt: bool) -> list[dict[str, object]]:
    """The table as rows; with the numbers that have no row yet if asked for, in the reference's order."""
    seeds = {seed.ref: seed for seed in seed_steps()}
    if not with_unbuilt:
        return [_built(step, seeds[step.ref]) for step in STEPS]
    built = {step.ref: step for step in STEPS}
    return [
        _built(built[ref], seed) if ref in built else _rowless(seed, built) for ref, seed in seeds.items()
    ]


def _built(step: Step, seed: SeedStep) -> dict[str, object]:
    return {
        "ref": step.ref,
        "name": step.name,
        "state": "built",
        "role": step.role.value,
        "needs": list(step.needs),
        "policy": step.policy.value,
        "timeout_s": step.timeout_s,
        "background": step.background,
        "changes": step.plan is not None,
        "hold_points": list(step.hold_points),
        "owner": seed.owner,
        "title": seed.title,
        "why": step.why,
    }


def _rowless(seed: SeedStep, built: Mapping[str, Step]) -> dict[str, object]:
    state = f"in {seed.within}" if seed.within in built else NOT_BUILT
    if any(ref.startswith(f"{seed.ref}.") for ref in built):
        state = IN_PARTS
    return {
        "ref": seed.ref,
        "name": built[seed.within].name if seed.within in built else "",
        "state": state,
        "role": seed.role,
        "owner": seed.owner,
        "shared": seed.shared,
        "title": seed.title,
        "why": seed.missing,
    }
