"""The records of the database as a generation of the network's cache, with the NICs' positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net import cache, nics

if TYPE_CHECKING:
    from pathlib import Path

    from hostagent.net.records import Records


def keep(folder: Path, records: Records, *, verified: bool = False) -> cache.Cached:
    """They become the cache's newest generation, unless they are already; a `verified` one is what to go back to.
    `folder`: the network's, below STATE.

    Raises FileError, BusyError, NicListError.
    """
    found = tuple(
        cache.Position(nic.position, nic.name, nic.mac, nic.pci_path, present=nic.present)
        for nic in nics.load(folder / nics.FILE)
    )
    return cache.write(folder, cache.still(records), positions=found, verified=verified)
