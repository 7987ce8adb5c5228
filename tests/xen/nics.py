"""What dom0 calls the NICs of a lab machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nested_xen.host import Host


def nic_name(host: Host, number: int) -> str:
    """The device name of a NIC by its place in the machine."""
    mac = host.machine.nics[number].mac
    # a bridge has its NIC's address, and no device below it
    holders = f"grep -l {mac} /sys/class/net/*/address | cut -d/ -f5"
    found = host.exec(
        f"for n in $({holders}); do [ ! -e /sys/class/net/$n/device ] || echo $n; done"
    ).stdout.split()
    assert len(found) == 1, found
    return found[0]
