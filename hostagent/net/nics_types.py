"""A NIC as it is found on the host, for those who make objects of it and those who look for it."""

from __future__ import annotations

from hostagent.named import NamedTuple


class Nic(NamedTuple):
    """A physical NIC that belongs to a PIF. `position` is its number for good (networking.md 1.8): who has it is the
    same NIC, or what took its place. One that is not `present` keeps its position.
    """

    position: int
    name: str
    """The kernel's name of it now."""
    mac: str
    """The permanent one, lower case."""
    mtu: int = 1500
    present: bool = True
    capabilities: tuple[str, ...] = ()
    vendor_id: str = ""
    """Four hexadecimal digits, as the next three have where they are known."""
    vendor_name: str = ""
    device_id: str = ""
    device_name: str = ""
    pci_path: str = ""
    """`0000:00:03.0`; empty for what is not on PCI."""
    carrier: bool = False
    speed: int = 0
    """Mb/s, 0 when not known."""
    duplex: bool = False
    """Full duplex."""
    driver: str = ""
    """Of the kernel."""
    unmanaged: bool = False
    """The host's policy leaves it to others (`nic_policy.py`); as the next, it counts when its PIF is made."""
    pinned: bool = False
    """The host's policy: it must stay plugged, for its disk is behind it."""
    missing_since_s: int = 0
    """Unix time at which it was first not found; 0 while it is present, or where that is not known."""
