"""A card, and a fabricated root with the files of the daemons that may have it, for tests."""

from __future__ import annotations

from hostagent.net import foreign
from hostagent.net.foreign import Nic

CARD = Nic("eth0", 2, "02:00:00:00:00:01", "virtio_net", "pci-0000:00:03.0", ("enp0s3",))


class Root:
    """A fabricated root directory."""

    def __init__(self, path):
        self.path = path

    def put(self, name, text):
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def enable(self, unit):
        link = self.path / "etc/systemd/system/multi-user.target.wants" / unit
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"/usr/lib/systemd/system/{unit}")

    def owners(self, card=CARD):
        return foreign.owners(card, self.path)

    def owner(self, card=CARD):
        (found,) = self.owners(card)
        return found
