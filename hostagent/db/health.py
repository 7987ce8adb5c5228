"""Is the database sound? What SQLite finds wrong with the file, and references that lead nowhere."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hostagent.db import collect

if TYPE_CHECKING:
    from hostagent.db.collect import Finding
    from hostagent.db.database import Database


class _UndoneError(Exception):
    """Ends a transaction that was only a trial."""


def examine(database: Database, *, repair: bool = False, dry_run: bool = False) -> dict[str, object]:
    """`path`, `generation`, `damage` (lines of SQLite), `findings` (class, ref, field, target, remedy, text) and
    `repaired`. With `repair` the findings are all that was mended, those included that mending brought up; with
    `dry_run` too they are what would be, and nothing is changed.

    Raises DatabaseError.
    """
    damage = database.check()
    findings: list[Finding] = []
    if damage:
        pass  # what a damaged file seems to hold is nothing to act upon
    elif repair:
        with contextlib.suppress(_UndoneError), database.write() as transaction:
            findings = collect.collect(transaction, database.model)
            if dry_run:
                raise _UndoneError
    else:
        with database.read() as view:
            findings = collect.check(view, database.model)
    return {
        "path": str(database.path),
        "generation": database.generation,
        "damage": damage,
        "findings": [_record(finding) for finding in findings],
        "repaired": repair and not dry_run and not damage,
    }


def _record(finding: Finding) -> dict[str, str]:
    return {
        "class": finding.cls,
        "ref": finding.ref,
        "field": finding.field,
        "target": finding.target,
        "remedy": finding.remedy,
        "text": str(finding),
    }
