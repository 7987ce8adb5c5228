"""What XenAPI calls work on, and what is known of one call while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hostagent.api.fault import CallError
from hostagent.api.sessions import Sessions
from hostagent.db.datatype import NULL_REF
from hostagent.db.errors import UuidInvalidError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from hostagent.api.events import Events
    from hostagent.api.roles import Role
    from hostagent.api.sessions import Session
    from hostagent.api.tasks import TaskHandle, Tasks
    from hostagent.db.database import Database
    from hostagent.netctl.control import Control


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. `trusted`: it came over the Unix socket, which only root can open. `internal`: our own
    code, which the host's state does not hold up.
    """

    address: str = ""
    trusted: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False


@dataclass(slots=True)
class Core:
    """The parts that calls need. `blocked` is the error that every call but a few gets (emergency mode, still
    booting), `emergency` whether it will stay so; `coordinator` the address of the coordinator when this host is not
    it; `pool_secrets` those that open sessions of the pool.
    """

    authenticate: Callable[[str, str], Awaitable[Role | None]]
    pool_secrets: Callable[[], Sequence[str]]
    sessions: Sessions = field(default_factory=Sessions)
    host_uuid: str = ""
    database: Database | None = None
    events: Events | None = None
    tasks: Tasks | None = None
    network: Control | None = None
    blocked: Callable[[], CallError | None] = lambda: None
    emergency: Callable[[], bool] = lambda: False
    coordinator: Callable[[], str | None] = lambda: None

    @property
    def db(self) -> Database:
        """The database. Raises CallError HOST_STILL_BOOTING while it is not open."""
        if self.database is None:
            raise CallError("HOST_STILL_BOOTING")
        return self.database

    @property
    def net(self) -> Control:
        """This host's network. Raises CallError HOST_STILL_BOOTING while nothing looks after it."""
        if self.network is None:
            raise CallError("HOST_STILL_BOOTING")
        return self.network

    def this_host(self) -> str:
        """Our host's reference, null before its record is made."""
        if self.database is None:
            return NULL_REF
        with self.database.read() as view:
            try:
                return view.by_uuid("host", self.host_uuid)
            except UuidInvalidError:
                return NULL_REF


@dataclass(frozen=True, slots=True)
class Call:
    """One call: by whom, over what, and its task if it has one."""

    core: Core
    session: Session | None
    peer: Peer
    task: TaskHandle | None = None

    @property
    def caller(self) -> Session:
        """The session of a call that has one."""
        if self.session is None:
            raise CallError("SESSION_INVALID", "")
        return self.session
