"""Which NICs the host boots from: a program of the platform's says which are left alone, and which must stay plugged.

networking.md 1.9. Debian has no such program: then none are. Its first line of output names the NICs to leave
unmanaged, its second those that must not be unplugged.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hostagent.net.nics_types import Nic

PROGRAM = "opt/xensource/libexec/bfs-interfaces"
DEADLINE_S = 30.0


class Policy(NamedTuple):
    """Names of NICs, as the kernel has them now."""

    unmanaged: frozenset[str] = frozenset()
    pinned: frozenset[str] = frozenset()


def parse(output: str) -> Policy:
    """Lines beyond the second are not for us."""
    lines = [*output.split("\n"), "", ""]
    return Policy(frozenset(lines[0].split()), frozenset(lines[1].split()))


def read(root: Path) -> Policy:
    """What the program says. Raises CommandError: with its word not known, a NIC of the boot disk could be taken."""
    program = root / PROGRAM
    if not (program.is_file() and os.access(program, os.X_OK)):
        return Policy()
    from hostagent.run import run

    return parse(run([str(program)], timeout_s=DEADLINE_S).stdout)


def marked(nics: Iterable[Nic], policy: Policy) -> tuple[Nic, ...]:
    """The NICs with what the policy says of those that are there."""
    return tuple(
        nic._replace(
            unmanaged=nic.present and nic.name in policy.unmanaged,
            pinned=nic.present and nic.name in policy.pinned,
        )
        for nic in nics
    )
