"""Sessions: who is logged in, since when, as whom; they end when they are idle, too many, or the daemon does.

A session's reference is its secret. Sessions live in memory and have a record in the database's volatile half, as
clients and tasks refer to them; local ones, which work without a database, have none (xenapi.md 1.6).
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hostagent.api.fault import CallError
from hostagent.api.roles import Role
from hostagent.db.datatype import NULL_REF

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.db.database import Database

IDLE_S = 24 * 3600.0
"""Unless `api.session-idle` says otherwise."""
BUMP_S = 600.0
"""`last_active` is written at most this often."""
POOL_LIMIT = 400
ANONYMOUS_LIMIT = 400
ORIGINATOR_LIMIT = 500
USER_LIMIT = 500
ROOT_NAME = "root"


@dataclass(slots=True)
class Session:
    """One log-in. `local`: known to this host alone, and good for its few local calls; `waiting` are called when it
    ends, so that nobody waits for events of a session that is gone.
    """

    ref: str
    user: str
    role: Role
    originator: str = ""
    pool: bool = False
    local: bool = False
    used: float = 0.0
    noted: float = 0.0
    ended: bool = False
    tasks: int = 0
    waiting: list[Callable[[], None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the log may show of it: never the reference itself."""
        return f"session {hashlib.sha256(self.ref.encode()).hexdigest()[:8]} of {self.user or 'nobody'}"


class Sessions:
    """All sessions of this host; one that nobody used for `idle_s` has ended. Its methods may be called from any
    thread.
    """

    idle_s = IDLE_S

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._all: dict[str, Session] = {}

    def log_in(
        self,
        user: str,
        role: Role,
        *,
        originator: str = "",
        pool: bool = False,
        database: Database | None = None,
        host: str = NULL_REF,
    ) -> Session:
        """A new session, with a record when there is a database. The longest idle ones of its kind make room."""
        now = self._clock()
        if database is None:
            ref = f"OpaqueRef:{secrets.token_urlsafe(32)}"
        else:
            with database.write() as transaction:
                ref = transaction.create(
                    "session",
                    {
                        "this_host": host,
                        "last_active": stamp_now(),
                        "pool": pool,
                        "is_local_superuser": role >= Role.POOL_ADMIN,
                        "auth_user_name": user,
                        "originator": originator,
                    },
                    secret=True,
                )
        session = Session(ref, user, role, originator, pool, database is None, used=now, noted=now)
        with self._lock:
            self._all[ref] = session
            surplus = self._surplus(session)
        for old in surplus:
            self.end(old, database)
        return session

    def find(self, ref: object) -> Session:
        """The session of that reference, which counts as used now. Raises CallError SESSION_INVALID."""
        session = self._all.get(ref) if isinstance(ref, str) else None
        if session is None or session.ended:
            raise CallError("SESSION_INVALID", ref if isinstance(ref, str) else "")
        now = self._clock()
        if self._is_idle(session, now):  # `end_idle`, which writes, comes for it
            raise CallError("SESSION_INVALID", session.ref)
        session.used = now
        return session

    def end(self, session: Session, database: Database | None = None) -> None:
        """Log out; who waits for its events is woken."""
        with self._lock:
            self._all.pop(session.ref, None)
            session.ended = True
            waiting, session.waiting = session.waiting, []
        for wake in waiting:
            wake()
        if database is not None and not session.local:
            with database.write() as transaction:
                if transaction.exists("session", session.ref):
                    transaction.destroy("session", session.ref)

    def end_idle(self, database: Database | None = None) -> int:
        """End those that nobody has used for `idle_s`; ones that wait for
        events or have unfinished tasks are spared. How many."""
        now = self._clock()
        with self._lock:
            idle = [found for found in self._all.values() if self._is_idle(found, now)]
        for session in idle:
            self.end(session, database)
        return len(idle)

    def note_use(self, database: Database) -> None:
        """Write when sessions were used last, for those where it is long since that was written."""
        now = self._clock()
        with self._lock:
            used = [
                found
                for found in self._all.values()
                if not found.local and now - found.noted > BUMP_S and found.used > found.noted
            ]
        if not used:
            return
        with database.write() as transaction:
            for session in used:
                session.noted = session.used
                if transaction.exists("session", session.ref):
                    when = stamp_now(now - session.used)
                    transaction.set("session", session.ref, "last_active", when)

    def _is_idle(self, session: Session, now: float) -> bool:
        return now - session.used > self.idle_s and not session.tasks and not session.waiting

    def __len__(self) -> int:
        return len(self._all)

    def _surplus(self, new: Session) -> list[Session]:
        """The longest idle ones beyond the limit of the kind of session that `new` is."""
        kind, limit = _kind(new)
        same = [found for found in self._all.values() if _kind(found)[0] == kind]
        idle_first = sorted((found for found in same if found is not new), key=lambda found: found.used)
        return idle_first[: max(0, len(same) - limit)]


def _kind(session: Session) -> tuple[tuple[object, ...], int]:
    """Which sessions make room for each other, and how many of them there may be (xenapi.md 1.6): scripts of root are
    told apart by their originator, other people are one each.
    """
    if session.pool:
        return (session.local, "pool"), POOL_LIMIT
    if session.user not in ("", ROOT_NAME):
        return (session.local, "user", session.user), USER_LIMIT
    if session.originator:
        return (session.local, "originator", session.originator), ORIGINATOR_LIMIT
    return (session.local, "nobody"), ANONYMOUS_LIMIT


def stamp_now(ago_s: float = 0.0) -> str:
    """This moment, or one that is past, as XenAPI writes it."""
    return time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime(time.time() - ago_s))
