"""What `interface-reconfigure` and `hostagent pif` ask of a daemon that runs: the same refusals as PIF.plug and
PIF.unplug, then the change, with the account of it that they give when they do it themselves (`bring.Result`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import HostagentError, OperatorError
from hostagent.net import cache
from hostagent.net.bring import (
    DO,
    DOWN,
    NO_CARRIER_ROW,
    NO_SERVERS_ROW,
    UP,
    Request,
    Result,
    bring,
    empty_result,
    find,
    put_plan,
)
from hostagent.net.settle import settle
from hostagent.netctl import drafts, refusals
from hostagent.netctl.account import Account

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.db.transaction import Transaction
    from hostagent.net.records import Pif, Records
    from hostagent.netctl.control import Control, References
    from hostagent.netctl.effect import Draft
    from hostagent.netctl.plug import Network

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


def keep(folder: Path, records: Records) -> cache.Cached:
    """They become the cache's newest generation, unless they are already. Raises FileError, BusyError."""
    still = {ref: pif._replace(currently_attached=False) for ref, pif in records.pifs.items()}
    try:
        positions = cache.read(folder).cached.positions
    except cache.CacheError:
        positions = ()
    return cache.write(folder, records._replace(pifs=still), positions=positions)


def rewrite(control: Control, folder: Path) -> Result:
    """The cache as the database has the network. Raises FileError, BusyError."""
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
    result = empty_result(f"{request.action} {_name(pif)}", SOURCE)

    def work(transaction: Transaction, _references: References) -> Draft:
        refusals.ours(transaction, pif.ref, control.host(transaction), CALLS[request.action])
        if moving:
            return drafts.move_management(control, transaction, pif.ref)
        if request.action == UP:
            return drafts.plug(control, transaction, pif.ref)
        return drafts.unplug(transaction, pif.ref)

    try:
        control.change(work, network.telling(account))
    except HostagentError as error:
        if account.outcome != "rolled-back":
            raise
        result["error"] = error.record()
    _put(result, account, pif)
    with network.opened() as host:
        if request.action == UP and account.outcome in ("changed", "waiting"):
            _less(result, settle(account.wanted, pif.ref, host, began + request.timeout_s))
        result["seconds"] = round(host.clock() - began, 4)
    return result


def _put(result: Result, account: Account, pif: Pif) -> None:
    put_plan(result, account.planned)
    for operation, took in zip(result["operations"], account.milliseconds, strict=False):
        operation["milliseconds"] = round(took, 4)
    result["outcome"] = account.outcome or "unchanged"
    for finding in account.findings:
        if finding.row != NO_CARRIER_ROW:  # it is looked at anew, after the change
            told = f"{finding.found} (hint: {finding.hint})"
            concerned = finding.row != NO_SERVERS_ROW and pif.ref in finding.refs
            if concerned:
                _less(result, [told])
            else:
                result["told"].append(told)
    _less(result, list(account.soft))
    if account.confirm_s and account.outcome == "waiting":
        result["told"].append(
            f"undone in {account.confirm_s:g} s unless confirmed (hint: hostagent net confirm)"
        )


def _less(result: Result, told: list[str]) -> None:
    """What is less than was asked for."""
    result["told"] += told
    if told and result["outcome"] in ("unchanged", "changed"):
        result["outcome"] = "degraded"


def _name(pif: Pif) -> str:
    return f"PIF {pif.uuid} ({pif.device}{f' tag {pif.vlan}' if pif.vlan >= 0 else ''})"
