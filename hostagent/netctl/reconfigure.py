"""What `interface-reconfigure` and `hostagent pif` ask of a daemon that runs: the same refusals as PIF.plug and
PIF.unplug, then the change, with the account of it that they give when they do it themselves (`result.Result`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError, OperatorError
from hostagent.net import cache
from hostagent.net.bring import (
    DO,
    DOWN,
    UP,
    Request,
    bring,
    empty_result,
    find,
    finish,
    name_of,
    put_course,
    put_findings,
)
from hostagent.net.change import ROLLED_BACK
from hostagent.netctl import drafts, refusals
from hostagent.netctl.account import Account
from hostagent.netctl.generation import keep

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.db.transaction import Transaction
    from hostagent.net.records import Records
    from hostagent.net.result import Result
    from hostagent.netctl.control import Control, References
    from hostagent.netctl.effect import Draft
    from hostagent.netctl.plug import Network

log = logging.getLogger(__name__)

CALLS = {UP: "PIF.plug", DOWN: "PIF.unplug"}
SOURCE = "database"


def records_now(control: Control) -> Records:
    """What the database says of this host's network. Raises UuidInvalidError."""
    with control.database.read() as view:
        return control.records(view)


def cached(control: Control, folder: Path) -> cache.Cached:
    """The records, with number, mark and positions of the cached generation that says the same; 0 where none does."""
    records = records_now(control)
    try:
        found = cache.read(folder).cached
    except HostagentError:
        return cache.Cached(records, 0)
    if cache.digest(found.records) != cache.digest(records):
        return cache.Cached(records, 0, positions=found.positions)
    return found._replace(records=records)


def rewrite(control: Control, folder: Path) -> Result:
    """The cache as the database has the network. Raises FileError, BusyError, NicListError."""
    before = cached(control, folder).generation
    written = keep(folder, records_now(control))
    result = empty_result("rewrite", SOURCE, "unchanged" if before == written.generation else "changed")
    result["told"] = [f"generation {written.generation}"]
    return result


def reconfigure(control: Control, network: Network, request: Request) -> Result:
    """Do, plan or check what is asked for. Raises RefusedError and what else stops it before anything is touched:
    NoSuchPifError, FindingError, PifConfigurationError, BusyError, OperatorError.

    A change that failed and was undone comes back as `rolled-back`, with its error.
    """
    records = records_now(control)
    pif = find(records, request)
    if request.mode != DO:
        with network.opened() as host:
            looked = bring(request, cache.Found(cache.Cached(records, 0)), host)
        looked["source"] = SOURCE
        return looked
    moving = request.action == UP and request.management and not pif.management
    if moving and request.confirm:
        raise OperatorError(
            "a move of the management interface cannot wait for a confirmation: inventory and listeners go along",
            hint="leave out --confirm: it is undone by itself when the gateway that answered does not any more",
        )
    account = Account(request.timeout_s, request.timeout_s if request.confirm else 0.0)
    with network.opened() as host:
        began = host.clock()
    result = empty_result(f"{request.action} {name_of(pif)}", SOURCE)
    told: list[str] = []

    def work(transaction: Transaction, _references: References) -> Draft:
        refusals.ours(transaction, pif.ref, control.host(transaction), CALLS[request.action])
        if moving:
            draft, told[:] = drafts.move_management(control, transaction, pif.ref, keep_old=request.keep_old)
            return draft
        if request.action == UP:
            return drafts.plug(control, transaction, pif.ref)
        return drafts.unplug(transaction, pif.ref)

    try:
        control.change(work, network.telling(account))
    except HostagentError as error:
        if account.course.outcome != ROLLED_BACK:
            raise
        result["error"] = error.record()
    result["told"] += told
    put_findings(result, account.findings, pif.ref)
    put_course(result, account.course)
    with network.opened() as host:
        if request.action == UP:

            def generation() -> cache.Cached:
                return keep(host.folder, records_now(control))

            before = len(result["told"])
            finish(result, request, pif, account.course, host, began + request.timeout_s, generation)
            for less in result["told"][before:]:
                log.warning("%s: %s", result["what"], less)
        result["seconds"] = round(host.clock() - began, 4)
    return result
