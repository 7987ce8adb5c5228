"""Rules of the table, of its page in the docs, and of the data file of all S-numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hostagent.startup.catalogue import list_rows, seed_steps
from hostagent.startup.step import Policy
from hostagent.startup.table import ALIASES, STEPS

NAMES = [step.name for step in STEPS]
PAGE = (Path(__file__).parents[2] / "docs/steps.md").read_text()
every_step = pytest.mark.parametrize("step", STEPS, ids=NAMES)

OWNERS = {
    "lab": "S1 S2 S4 S5 S6 S7 S8 S10 S11 S12 S13 S14 S15 S31 S40 S43 S44 S45 S52",
    "db/api": "S3 S9 S16 S17 S18 S19 S20 S21 S22 S25 S28 S29 S30 S34 S36 S38 "
    "S28.s1 S28.s2 S28.s4 S28.s5 S28.s6 S28.s7 S28.s8 "
    "S28.m1 S28.m2 S28.m3 S28.m5 S28.m6 S28.m7 S28.m9 5.5",
    "net": "S23 S46 S47 S28.s12 S28.s13 S28.m8",
    "storage": "S24 S32 S35 S37 S39 S41 S42 S48 S49 S50 S51 S53 S55 S56 "
    "S28.s3 S28.s9 S28.s10 S28.s11 S28.s14 S28.m4 S28.m10",
    "pool": "S26 S27 S33 S54",
}
"""Who builds which number; where a number is shared out, who builds the rest of it."""
WITHOUT_ROW = {
    "S28": "has a row for each of its parts",
    "S28.s6": "done by the row of S9",
    "S30": "done by the row of S9",
    "S28.m7": "there are no storage drivers yet",
}
"""What is ours and has no row of its own."""
BUILT = {"S42", *f"{OWNERS['lab']} {OWNERS['db/api']} {OWNERS['net']}".split()} - set(WITHOUT_ROW)
"""S42 is storage's, but for the clean-up of bridges."""
ITEMS = [f"S28.s{n}" for n in range(1, 15)] + [f"S28.m{n}" for n in range(1, 11)]


def test_names_are_unique_kebab_case_and_no_alias_hides_one():
    assert len(set(NAMES)) == len(NAMES)
    assert [name for name in NAMES if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)] == []
    assert set(ALIASES).isdisjoint(NAMES)
    assert set(ALIASES.values()) <= set(NAMES)


def order_of_execution() -> list[str]:
    """The reference's order, with the departures that have a reason."""
    refs = [seed.ref for seed in seed_steps()]
    for ref, behind in (
        ("S28.m9", "S28"),  # hosts have their metrics before what is per host writes into them
        ("S28.s8", "S31"),  # records the size that dom0 has got
        ("S9", "S28.m10"),  # writes into the records that S28 makes; xapi too has it behind them by now
    ):
        refs.remove(ref)
        refs.insert(refs.index(behind) + 1, ref)
    return refs


def numbers(first: int, last: int) -> list[str]:
    return [f"S{number}" for number in range(first, last + 1)]


def test_each_number_has_one_row_in_the_order_of_the_reference():
    refs = [step.ref for step in STEPS]

    assert refs == [ref for ref in order_of_execution() if ref in set(refs)]


def test_the_table_holds_exactly_the_steps_of_the_parts_that_are_built():
    assert {step.ref for step in STEPS} == BUILT


@every_step
def test_what_a_step_needs_stands_before_it(step):
    assert set(step.needs) <= set(NAMES[: NAMES.index(step.name)])


@every_step
def test_a_step_has_a_function_a_reason_and_a_deadline(step):
    assert callable(step.run)
    assert step.run.__doc__
    assert step.run.__doc__.startswith(f"{step.ref}. ")
    assert step.why
    assert step.timeout_s > 0
    assert step.hold_points[0] == "before"


@every_step
def test_a_step_in_the_background_cannot_stop_the_sequence(step):
    assert not step.background or step.policy in (Policy.DEGRADE, Policy.BEST_EFFORT)


@every_step
def test_a_step_has_a_section_in_the_docs_with_its_policy(step):
    section = re.search(
        rf"^## {re.escape(step.ref)} {step.name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )

    assert section is not None
    assert f"**On failure ({step.policy.value}" in section[1]
    assert "**By hand:**" in section[1]


def test_the_docs_have_no_section_of_a_step_that_is_gone():
    assert re.findall(r"^## \S+ (\S+)$", PAGE, re.MULTILINE) == NAMES


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("parse-command-line", 2),
        ("read-configuration", 1),
        ("announce-start", 1),
        ("read-inventory", 1),
        ("open-local-database", 2),
        ("run-startup-checks", 2),
        ("read-db-conf", 1),
        ("start-database", 2),
        ("make-localhost", 2),
        ("find-localhost", 2),
    ],
)
def test_unusable_settings_inventory_or_role_end_with_1_and_other_halts_with_2(name, code):
    step = STEPS[NAMES.index(name)]

    assert (step.policy, step.halt_exit) == (Policy.HALT, code)


def test_what_its_owner_has_left_out_says_what_it_waits_for():
    rows = {row["ref"]: row for row in list_rows(with_unbuilt=True)}

    assert rows["S28.m7"]["state"] == "not built"
    assert "storage drivers (S24)" in str(rows["S28.m7"]["why"])
    left_out = {seed.ref for seed in seed_steps() if seed.owner == "db/api"} - BUILT
    assert {ref for ref in left_out if rows[ref]["state"] == "not built"} == {"S28.m7"}


def test_every_number_has_exactly_one_owner_and_it_is_the_agreed_one():
    refs = [seed.ref for seed in seed_steps()]
    wanted = {ref: owner for owner, text in OWNERS.items() for ref in text.split()}

    assert len(refs) == len(set(refs))
    assert {seed.ref: seed.owner for seed in seed_steps()} == wanted


def test_every_number_of_the_reference_is_in_the_data_file():
    refs = [seed.ref for seed in seed_steps()]

    assert refs == [*numbers(1, 28), *ITEMS, *numbers(29, 51), "5.5", *numbers(52, 56)]


def test_titles_and_roles_are_filled_in():
    assert [seed.ref for seed in seed_steps() if not seed.title] == []
    assert {seed.role for seed in seed_steps()} == {"any", "coordinator", "supporter"}


def test_the_role_of_a_row_is_the_role_of_its_number():
    roles = {seed.ref: seed.role for seed in seed_steps()}

    assert {step.ref: step.role.value for step in STEPS} == {step.ref: roles[step.ref] for step in STEPS}


def test_what_has_no_row_is_listed_as_not_built_unless_another_row_does_it():
    rows = {row["ref"]: row for row in list_rows(with_unbuilt=True)}

    others = {"S28": "in parts", "S28.s6": "in S9", "S30": "in S9"}
    unbuilt = {ref for ref, row in rows.items() if row["state"] == "not built"}
    assert unbuilt == {seed.ref for seed in seed_steps()} - {step.ref for step in STEPS} - set(others)
    assert {ref: rows[ref]["state"] for ref in others} == others
    assert rows["S30"]["name"] == "write-licence"
    assert len(rows) == 56 + 24 + 1
