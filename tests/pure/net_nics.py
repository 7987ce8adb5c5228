"""NICs as they are seen and as they are known, in a few words, for tests."""

from __future__ import annotations

from hostagent.net.nics import Seen
from hostagent.net.nics_types import Nic

A, B, C, D = (f"00:16:3e:00:00:{n:02x}" for n in range(1, 5))
SLOT, OTHER_SLOT = "0000:00:03.0", "0000:00:04.0"


def seen(name, mac, pci="", *, onboard=0, port=0, label=""):
    return Seen(Nic(-1, name, mac, pci_path=pci, carrier=True, speed=1000), onboard, label, port)


def known(position, name, mac, pci="", *, present=True):
    return Nic(position, name, mac, pci_path=pci, present=present)
