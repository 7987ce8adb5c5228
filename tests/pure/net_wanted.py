"""What is wanted of a kernel, for tests: the settings that every device has, and short ways to ask for them."""

from __future__ import annotations

from typing import Any

import pytest

from hostagent.net.devices import Device, Wanted
from hostagent.net.finding import FindingError
from hostagent.net.model import want
from tests.pure.net_records import Host

BRIDGE = {"forward_delay": 0, "stp_state": 0, "mcast_snooping": 0}
NIC = {"gro": True, "lro": False}
BOND = {"mode": 1, "miimon": 100, "updelay": 31000, "downdelay": 200}
MAC0, MAC1 = "02:00:00:00:00:00", "02:00:00:00:00:01"


def by_name(wanted: Wanted) -> dict[str, Device]:
    return {device.name: device for device in wanted.devices}


def bridge(name: str, serves: str, mac: str = MAC0, ipv6: str = "link-local", mtu: int = 1500) -> Device:
    return Device(name, "bridge", mac=mac, mtu=mtu, settings=BRIDGE, ipv6=ipv6, serves=(serves,))


def two_nics(**fields: Any) -> Host:
    host = Host()
    host.nic("eth0", **fields)
    host.nic("eth1")
    return host


def refusal(host: Host, *up: str) -> FindingError:
    with pytest.raises(FindingError) as caught:
        want(host.records(), up)
    return caught.value
