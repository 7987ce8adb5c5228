"""The NICs of this host for the emergency ladder, and the VLAN tags that are heard on those that it may use.

Listening takes seconds, and the ladder looks again before each rung: a NIC is listened on once, when it has carrier.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError
from hostagent.net.ladder import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from hostagent.net.sniff import Sniffed

LISTEN_S = 4.0
"""A busy trunk shows its tags at once; a quiet one by broadcasts, some in a second."""


def cards_of(
    root: Path,
    listed: Sequence[str],
    sniff: Callable[[Sequence[str], float], Mapping[str, Sniffed]] | None = None,
) -> Callable[[], list[Seen]]:
    """What tells the NICs below `root` as they are now; of those `listed` with their tags, the most frequent first.

    `sniff` is for tests.
    """
    tags: dict[str, tuple[int, ...]] = {}

    def cards() -> list[Seen]:
        from hostagent.net import nics_look

        seen = nics_look.look(root, names_of=False)
        lit = [
            each.nic.name
            for each in seen
            if each.nic.name in listed and each.nic.carrier and each.nic.name not in tags
        ]
        tags.update(_heard(lit, sniff or _sniff))
        return [
            Seen(each.nic.name, each.nic.mac, each.nic.carrier, tags.get(each.nic.name, ())) for each in seen
        ]

    return cards


def _heard(
    names: Sequence[str], sniff: Callable[[Sequence[str], float], Mapping[str, Sniffed]]
) -> dict[str, tuple[int, ...]]:
    """The tags by NIC; empty where nothing can be listened on."""
    found: dict[str, tuple[int, ...]] = dict.fromkeys(names, ())
    with contextlib.suppress(HostagentError):
        heard = sniff(names, LISTEN_S) if names else {}
        found |= {
            name: tuple(sorted(filter(None, each.vlans), key=lambda tag: -each.vlans[tag]))
            for name, each in heard.items()
        }
    return found


def _sniff(names: Sequence[str], seconds: float) -> Mapping[str, Sniffed]:
    from hostagent.net import sniff

    return sniff.sniff(names, seconds)
