"""One change of the host's network at a time: refusal and change of objects, its effect, and then the database.

The objects are changed twice by the same function. First in a transaction that is thrown away: it tells what the host
is to become, and holds nobody up while the host is changed. Then, that being verified, in one that is made durable.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from typing import TYPE_CHECKING

from hostagent.db.transaction import REF_PREFIX
from hostagent.errors import BusyError, HostagentError
from hostagent.netctl.errors import PifConfigurationError
from hostagent.netctl.fields import flag, number, text, texts
from hostagent.netctl.from_database import records_after, records_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hostagent.db.database import Database
    from hostagent.db.transaction import Transaction
    from hostagent.db.view import View
    from hostagent.net.records import Records
    from hostagent.netctl.effect import Done, Draft, Effect


DETACHED = {"currently_attached": False}


class References:
    """References and uuids of what a change makes: the second time the same as the first."""

    def __init__(self) -> None:
        self._made: list[tuple[str, str]] = []
        self._next = 0

    def rewind(self) -> None:
        self._next = 0

    def create(self, transaction: Transaction, cls: str, values: Mapping[str, object]) -> str:
        """As `Transaction.create`."""
        if self._next == len(self._made):
            self._made.append((REF_PREFIX + str(uuid.uuid4()), str(uuid.uuid4())))
        ref, identity = self._made[self._next]
        self._next += 1
        return transaction.create(cls, {"uuid": identity, **values}, ref=ref)


class _RehearsedError(Exception):
    """Ends the transaction that is thrown away."""


class Control:
    """The network of this host. One for each daemon."""

    def __init__(self, database: Database, host_uuid: str, effect: Effect) -> None:
        self.database = database
        self.effect = effect
        self._host_uuid = host_uuid
        self._turn = threading.Lock()

    def host(self, view: View) -> str:
        """The reference of this host. Raises UuidInvalidError."""
        return view.by_uuid("host", self._host_uuid)

    def records(self, view: View) -> Records:
        """What a view of the database says of this host's network."""
        return records_of(view, self.host(view), self.effect.management_bridge())

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody changes the network meanwhile: what is seen of it is no state in between."""
        with self._turn:
            yield

    def change(self, work: Callable[[Transaction, References], Draft], effect: Effect | None = None) -> str:
        """Do what `work` drafts: refuse, change objects, and say what of the host is to follow. Returns its result.
        `effect` takes the place of the usual one, for who wants to hear more of it.

        Raises what `work` raises, PifConfigurationError or an error of the effect that has a XenAPI code of its own,
        BusyError when objects that matter were changed meanwhile; the host and the database are then as they were.
        """
        with self._turn:
            references = References()
            draft, records, was = self._rehearse(work, references)
            references.rewind()
            with contextlib.ExitStack() as stack:
                mtus: dict[str, int] = {}
                for done in self._effects(effect or self.effect, draft, records, was):
                    mtus.update(self._enter(stack, done, draft))
                with self.database.write() as transaction:
                    if work(transaction, references) != draft:
                        raise BusyError(
                            "objects of the network were changed meanwhile",
                            hint="the host is as it was: try again",
                            params=("network", draft.blame or draft.result),
                        )
                    _mark(transaction, draft, mtus)
            return draft.result

    def _rehearse(
        self, work: Callable[[Transaction, References], Draft], references: References
    ) -> tuple[Draft, Records, Records]:
        """The draft, and the records after and before it."""
        found: list[tuple[Draft, Records, Records]] = []
        with contextlib.suppress(_RehearsedError), self.database.write() as transaction:
            was = self.records(transaction)
            draft = work(transaction, references)
            _mark(transaction, draft, {})
            records = records_after(
                transaction, was, transaction.generation - 1, self.host(transaction), was.bridge
            )
            found.append((draft, records, was))
            raise _RehearsedError
        ((draft, records, was),) = found
        if draft.listen is not None:
            records = records._replace(bridge=draft.listen[0])
        return draft, records, was

    def _effects(
        self, effect: Effect, draft: Draft, records: Records, was: Records
    ) -> list[Callable[[], Done]]:
        """What is to be done on the host, in order; the later is undone first."""
        found: list[Callable[[], Done]] = []
        if draft.up or draft.moved:
            found.append(
                lambda: effect.bring_up(
                    records,
                    draft.up,
                    was=was,
                    down=draft.down,
                    becoming_management=draft.becoming_management,
                    moved=draft.moved,
                )
            )
        elif draft.down:
            found.append(lambda: effect.take_down(was, draft.down, after=records))
        if draft.attach:
            found.append(lambda: effect.attach(records, draft.attach, was=was))
        if draft.detach:
            found.append(lambda: effect.detach(was, draft.detach, after=records))
        if draft.listen is not None:
            bridge, address_type = draft.listen
            found.append(lambda: effect.listen(bridge, address_type))
        return found

    def _enter(
        self, stack: contextlib.ExitStack, begin: Callable[[], Done], draft: Draft
    ) -> Mapping[str, int]:
        try:
            return stack.enter_context(begin())
        except HostagentError as error:
            if error.code != HostagentError.code:
                raise
            blame = draft.blame or next(iter((*draft.up, *draft.down)), "") or draft.attach or draft.detach
            raise PifConfigurationError(blame, error) from error


def _mark(transaction: Transaction, draft: Draft, mtus: Mapping[str, int]) -> None:
    """What follows for objects from being up or down (networking.md 3.1: a bond comes with its members)."""
    for ref in draft.down:
        if transaction.exists("PIF", ref):
            transaction.update("PIF", ref, DETACHED)
    for ref in draft.up:
        for bond in texts(transaction, "PIF", ref, "bond_master_of"):
            _mark_bond(transaction, ref, bond)
        mtu = mtus.get(ref, number(transaction, "PIF", ref, "MTU"))
        transaction.update("PIF", ref, {"currently_attached": True, "MTU": mtu})


def _mark_bond(transaction: Transaction, master: str, bond: str) -> None:
    """Members are not attached themselves, their networks get the bond's MTU (CA-429051), and the bond follows the MAC
    of its primary member.
    """
    mtu = number(transaction, "network", text(transaction, "PIF", master, "network"), "MTU")
    for member in texts(transaction, "Bond", bond, "slaves"):
        transaction.update("PIF", member, DETACHED)
        transaction.set("network", text(transaction, "PIF", member, "network"), "MTU", mtu)
    primary = text(transaction, "Bond", bond, "primary_slave")
    if primary and flag(transaction, "Bond", bond, "auto_update_mac"):
        transaction.set("PIF", master, "MAC", text(transaction, "PIF", primary, "MAC"))
