"""Tasks: the records of calls that work, by which clients wait for them, watch them and cancel them.

A task belongs to the session that made it. Work asks `TaskHandle.check` between its pieces whether it should stop.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from hostagent.api.fault import CallError
from hostagent.api.sessions import stamp_now
from hostagent.db.datatype import NULL_REF

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostagent.db.database import Database

log = logging.getLogger(__name__)

FINISHED = frozenset(("success", "failure", "cancelled"))
KEPT_FINISHED_S = 65 * 60.0
KEPT_PENDING_S = 24 * 3600.0
KEPT_AT_MOST = 200


class TaskHandle:
    """One task while its work goes on."""

    def __init__(self, database: Database, ref: str) -> None:
        self.ref = ref
        self._database = database
        self._cancelled = threading.Event()

    def progress(self, share: float) -> None:
        """How much is done, 0 to 1."""
        with self._database.write() as transaction:
            if transaction.exists("task", self.ref):
                transaction.set("task", self.ref, "progress", min(1.0, max(0.0, share)))

    def check(self) -> None:
        """Raises CallError TASK_CANCELLED once somebody cancelled it."""
        if self._cancelled.is_set():
            raise CallError("TASK_CANCELLED", self.ref)

    def cancel(self) -> None:
        self._cancelled.set()


class Tasks:
    """The tasks whose work is going on here. Its methods may be called from any thread, and wait for the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._working: dict[str, TaskHandle] = {}

    def begin(
        self,
        label: str,
        *,
        session: str = NULL_REF,
        host: str = NULL_REF,
        description: str = "",
        other_config: dict[str, str] | None = None,
        cancellable: bool = False,
    ) -> TaskHandle:
        """A pending task."""
        operations = ["cancel", "destroy"] if cancellable else ["destroy"]
        with self._database.write() as transaction:
            known = session if session != NULL_REF and transaction.exists("session", session) else NULL_REF
            owner = host if host != NULL_REF and transaction.exists("host", host) else NULL_REF
            ref = transaction.create(
                "task",
                {
                    "name_label": label,
                    "name_description": description,
                    "created": stamp_now(),
                    "status": "pending",
                    "type": "<none/>",
                    "session": known,
                    "resident_on": owner,
                    "allowed_operations": operations,
                    "other_config": other_config or {},
                },
            )
        handle = self._working[ref] = TaskHandle(self._database, ref)
        return handle

    def succeed(self, handle: TaskHandle, result: str) -> None:
        """`result` is the XML-RPC text of the value, empty for none."""
        self._finish(handle, {"status": "success", "result": result, "progress": 1.0})

    def fail(self, handle: TaskHandle, code: str, params: Sequence[str]) -> None:
        status = "cancelled" if code == "TASK_CANCELLED" else "failure"
        self._finish(handle, {"status": status, "error_info": [code, *params], "progress": 1.0})

    def drop(self, handle: TaskHandle) -> None:
        """The task of a call that was answered: it goes, as nobody has its reference."""
        self._working.pop(handle.ref, None)
        with self._database.write() as transaction:
            if transaction.exists("task", handle.ref):
                transaction.destroy("task", handle.ref)

    def cancel(self, ref: str) -> None:
        """Ask the work to stop; a finished task stays as it is.

        Raises CallError OPERATION_NOT_ALLOWED for work that cannot stop, HandleInvalidError.
        """
        with self._database.write() as transaction:
            record = transaction.record("task", ref)
            if record["status"] in FINISHED:
                return
            operations = record["allowed_operations"]
            if ref in self._working and isinstance(operations, list) and "cancel" not in operations:
                raise CallError("OPERATION_NOT_ALLOWED", "this task cannot be cancelled")
            if ref not in self._working:  # a client's own: nobody works on it here
                transaction.update("task", ref, {"status": "cancelled", "finished": stamp_now()})
                return
            transaction.update("task", ref, {"status": "cancelling", "current_operations": {ref: "cancel"}})
        if handle := self._working.get(ref):
            handle.cancel()

    def destroy(self, ref: str) -> None:
        """A finished task goes at once, one that works when its work is over. Raises HandleInvalidError."""
        with self._database.write() as transaction:
            if transaction.get("task", ref, "status") in FINISHED or ref not in self._working:
                transaction.destroy("task", ref)
            else:
                transaction.set("task", ref, "current_operations", {ref: "destroy"})

    def clean(self, ages: Sequence[tuple[str, float, bool]]) -> list[str]:
        """Destroy tasks that nobody will ask for any more: of `ages` (reference, age in seconds, finished) the finished
        ones after 65 min, pending ones that nobody works on after a day, and the oldest finished beyond 200.
        """
        old = [
            ref
            for ref, age_s, finished in ages
            if age_s > (KEPT_FINISHED_S if finished else KEPT_PENDING_S) and ref not in self._working
        ]
        rest = [item for item in ages if item[0] not in old]
        over = len(rest) - KEPT_AT_MOST
        if over > 0:
            finished_first = sorted((item for item in rest if item[2]), key=lambda item: -item[1])
            old += [ref for ref, _, _ in finished_first[:over]]
        with self._database.write() as transaction:
            for ref in old:
                if transaction.exists("task", ref):
                    transaction.destroy("task", ref)
        if old:
            log.info("%d tasks that nobody asked for went", len(old))
        return old

    def _finish(self, handle: TaskHandle, values: dict[str, object]) -> None:
        if handle.ref not in self._working:
            return
        with self._database.write() as transaction:
            if self._working.pop(handle.ref, None) is None or not transaction.exists("task", handle.ref):
                return
            if transaction.get("task", handle.ref, "current_operations") == {handle.ref: "destroy"}:
                transaction.destroy("task", handle.ref)
                return
            transaction.update(
                "task",
                handle.ref,
                {
                    **values,
                    "finished": stamp_now(),
                    "current_operations": {},
                    "allowed_operations": ["destroy"],
                },
            )
