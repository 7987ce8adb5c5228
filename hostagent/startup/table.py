"""The start-up table: which steps there are, in which order, and why there. Nothing else.

Order and numbers are those of the reference (startup-and-pool-join, section 3); S28 is a row for each of its items. S9
stands behind them, whose records it needs; S28.s8 stands behind S31, whose outcome it records. The rows are in
`table_….py`, by field. A step that is renamed leaves its old name in ALIASES.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.startup import table_db, table_end, table_host, table_net

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.startup.step import Step

STEPS: tuple[Step, ...] = (
    *table_host.IDENTITY,
    *table_host.XEN,
    *table_db.API,
    *table_db.DATABASE,
    *table_net.MANAGEMENT,
    *table_db.SCHEDULER,
    *table_db.RECORDS,
    *table_net.RECORDS,
    *table_db.POOL_RECORDS,
    *table_net.POOL_RECORDS,
    *table_db.LICENCE,
    *table_db.COLLECTION,
    *table_host.DOM0_MEMORY,
    *table_db.DOM0,
    *table_db.NEWS,
    *table_end.READY,
    *table_net.JOBS,
    *table_end.SCRIPTS,
    *table_net.NETWORKS,
    *table_end.END,
)

ALIASES: Mapping[str, str] = {}
"""Former name of a step → its name now."""
