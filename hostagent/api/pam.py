"""Who may log in with a password: PAM says whether it is right, the user's groups say as what (decisions 5).

root and the group hostagent-admin are pool-admin, the group hostagent-readonly is read-only, nobody else may log in.
"""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import pwd
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from hostagent.api.roles import Role

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

SERVICE = "hostagent"
THREADS = 8
"""Passwords checked at a time (pool.local_auth_max_threads)."""
GROUPS = {"hostagent-admin": Role.POOL_ADMIN, "hostagent-readonly": Role.READ_ONLY}
NAME_LIMIT = 256
PASSWORD_LIMIT = 1024


def role_of(user: str) -> Role | None:
    """What a user of this host may be, whatever the password; None for nobody known to us."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return None
    if entry.pw_uid == 0:
        return Role.POOL_ADMIN
    numbers = os.getgrouplist(user, entry.pw_gid)
    return max((role for name, role in GROUPS.items() if _number(name) in numbers), default=None)


def _number(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def right_password(user: str, password: str) -> bool:
    """Does PAM let this user in? Blocks as long as PAM's modules do."""
    import pamela

    try:
        pamela.authenticate(user, password, service=SERVICE)
    except pamela.PAMError as error:
        log.info("PAM refused %r: %s", user[:64], error)
        return False
    return True


class Authenticator:
    """Checks passwords in threads, a few at a time."""

    def __init__(
        self,
        right: Callable[[str, str], bool] = right_password,
        role: Callable[[str], Role | None] = role_of,
    ) -> None:
        self._right = right
        self._role = role
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="log-in")

    async def __call__(self, user: str, password: str) -> Role | None:
        """The role of a user with that password, None if either is not right."""
        if not user or len(user) > NAME_LIMIT or len(password) > PASSWORD_LIMIT or "\0" in user + password:
            return None

        def check() -> Role | None:
            # PAM is asked also for users without a role, so that the answer takes as long for them
            return self._role(user) if self._right(user, password) else None

        return await asyncio.get_running_loop().run_in_executor(self._threads, check)

    def close(self) -> None:
        """Let the threads end: at once, or with the password that they check."""
        self._threads.shutdown(wait=False, cancel_futures=True)
