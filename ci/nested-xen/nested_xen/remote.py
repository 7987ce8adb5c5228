"""A Xen host that is not the lab's: real hardware (`--xen-host ssh://root@HOST`), reached with the user's ssh.

It offers what tests need of a host (`exec`, `name`); what only a lab host can do (power, disks,
segments) it does not have, and tests that ask for it are skipped by name.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nested_xen import process
from nested_xen.errors import LabError
from nested_xen.host import EXEC_S

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class RemoteHost:
    """A host reached by ssh alone."""

    user: str
    name: str
    port: int

    @classmethod
    def parse(cls, url: str) -> RemoteHost:
        """From ssh://[USER@]HOST[:PORT]; raises LabError on anything else."""
        parts = urlsplit(url)
        if parts.scheme != "ssh" or not parts.hostname or parts.path not in {"", "/"}:
            raise LabError(f"{url!r} is not a host", hint="ssh://root@HOST[:PORT]")
        return cls(parts.username or "root", parts.hostname, parts.port or 22)

    def ssh_arguments(self) -> list[str]:
        return ["ssh", "-o", "BatchMode=yes", "-p", str(self.port), f"{self.user}@{self.name}"]

    def exec(
        self, command: str | Sequence[str], *, check: bool = True, timeout_s: float = EXEC_S, stdin: str = ""
    ) -> process.Result:
        """Run a shell line or argument list; raises LabError on failure if `check`."""
        line = command if isinstance(command, str) else shlex.join(command)
        result = process.run([*self.ssh_arguments(), line], timeout_s=timeout_s, stdin=stdin, check=False)
        if check and result.code != 0:
            raise LabError(
                f"on {self.name}: `{line[:500]}` failed with {result.code}: {result.stderr[-3000:]}"
            )
        return result
