"""Which NICs a host has, over small trees of sysfs; what is no NIC of the host's is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import nics, nics_look
from hostagent.net.devices import Link
from hostagent.net.nics import Seen
from hostagent.net.nics_look import Hardware, booted_from, left_out, look, pci_names
from hostagent.net.nics_types import Nic
from tests.pure.net_nics import A, B, C, D

# what is no NIC of the host's

REAL = Hardware("eth0", type=1, device="/sys/devices/pci0000:00/0000:00:03.0", bus="pci", driver="igb")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"bus": "virtio", "driver": "virtio_net"}, ""),
        ({"bus": "usb", "driver": "r8152"}, ""),
        ({"type": 32}, "not Ethernet"),
        ({"type": -1}, "not Ethernet"),
        ({"device": "", "bus": "", "driver": ""}, "no hardware"),
        ({"bus": "xen", "driver": "vif"}, "Xen"),
        ({"bus": "xen-backend", "driver": "vif"}, "Xen"),
        ({"bus": "", "driver": "xen-netfront"}, "Xen"),
        ({"virtual_function": True}, "virtual function"),
        ({"port_name": "pf0vf3"}, "pf0vf3"),
        ({"port_name": "c1pf0sf88"}, "c1pf0sf88"),
        ({"port_name": "p0"}, ""),
        ({"port_name": "pf1"}, ""),
        ({"radio": True}, "radio"),
    ],
)
def test_what_is_left_out_and_why(change, why):
    told = left_out(REAL._replace(**change))

    assert why in told
    assert bool(told) == bool(why)


# sysfs

IDS = b"""# a remark
0001  SafeNet (wrong ID)
1af4  Red Hat, Inc.
\t1000  Virtio network device
\t\t01de fb01  Something below
# in between
\t1041  Virtio 1.0 network device
8086  Intel Corporation
\t1533  I210 Gigabit Network Connection
"""


@pytest.fixture
def host(tmp_path):
    return Sysfs(tmp_path)


class Sysfs:
    """The part of /sys that is read, below a root."""

    def __init__(self, root):
        self.root = root

    def write(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def link(self, path, target):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(self.root / target)

    def device(self, name, mac, hardware="", bus="pci", driver="igb", **files):
        folder = f"sys/devices/{hardware or 'virtual'}/net/{name}"
        files = {"type": 1, "address": mac, "addr_assign_type": 0, "mtu": 1500, "carrier": 1, **files}
        for file, value in files.items():
            self.write(f"{folder}/{file}", value)
        self.link(f"sys/class/net/{name}", folder)
        if hardware:
            self.link(f"{folder}/device", f"sys/devices/{hardware}")
            self.link(f"sys/devices/{hardware}/subsystem", f"sys/bus/{bus}")
            self.link(f"sys/devices/{hardware}/driver", f"sys/bus/{bus}/drivers/{driver}")
        return folder

    def pci(self, address, vendor="0x8086", device="0x1533", **files):
        for file, value in {"vendor": vendor, "device": device, **files}.items():
            self.write(f"sys/devices/pci0000:00/{address}/{file}", value)
        return f"pci0000:00/{address}"


def test_a_nic_is_read_with_its_place_and_its_maker(host):
    card = host.pci("0000:00:03.0", sriov_totalvfs=7, index=2, label="NIC 2")
    host.device("eno2", A.upper(), card, speed=10000, duplex="full", dev_port=1, mtu=9000)
    host.write("usr/share/misc/pci.ids", IDS.decode())

    assert look(host.root) == (
        Seen(
            Nic(
                -1,
                "eno2",
                A,
                9000,
                capabilities=("sriov",),
                vendor_id="8086",
                vendor_name="Intel Corporation",
                device_id="1533",
                device_name="I210 Gigabit Network Connection",
                pci_path="0000:00:03.0",
                carrier=True,
                speed=10000,
                duplex=True,
                driver="igb",
            ),
            onboard=2,
            label="NIC 2",
            port=1,
        ),
    )


def test_a_virtio_nic_has_the_pci_address_of_what_it_hangs_from(host):
    card = host.pci("0000:00:04.0", "0x1af4", "0x1041")
    host.device("enp0s4", A, f"{card}/virtio2", "virtio", "virtio_net", speed=-1, duplex="unknown")

    (found,) = look(host.root)

    assert (found.nic.pci_path, found.nic.speed, found.nic.duplex) == ("0000:00:04.0", 0, False)
    assert (found.nic.vendor_name, found.nic.device_name) == ("1af4", "1041")


def test_a_usb_nic_has_the_address_of_its_controller_and_not_its_maker(host):
    controller = host.pci("0000:00:14.0", "0x8086", "0xa12f", index=1)
    host.device("enx0", A, f"{controller}/usb1/1-1/1-1:1.0", "usb", "r8152")

    (found,) = look(host.root)

    assert found.nic.pci_path == "0000:00:14.0"
    assert (found.nic.vendor_id, found.nic.device_id, found.onboard) == ("", "", 0)


def test_of_a_host_only_its_nics_are_seen(host):
    host.device("eth0", A, host.pci("0000:00:03.0"))
    host.device("lo", "00:00:00:00:00:00", type=772)
    host.device("xenbr0", A)
    host.device("bond0", A)
    host.device("tap1.0", "fe:ff:ff:ff:ff:ff")
    host.device("enX1", B, "vif-1", "xen", "vif")
    host.device("vif1.0", "fe:ff:ff:ff:ff:ff", "vif-1-0", "xen-backend", "vif")
    host.device("eth0v0", C, host.pci("0000:00:10.0"))
    host.link("sys/devices/pci0000:00/0000:00:10.0/physfn", "sys/devices/pci0000:00/0000:00:03.0")
    host.device("ib0", D, host.pci("0000:00:06.0"), type=32)
    host.device("wlp7s0", D, host.pci("0000:00:07.0"), uevent="DEVTYPE=wlan\nINTERFACE=wlp7s0")
    radio = host.device("wlp8s0", D, host.pci("0000:00:08.0"))
    host.link(f"{radio}/phy80211", "sys/class/ieee80211/phy0")

    assert [each.nic.name for each in look(host.root)] == ["eth0"]
    assert left_out(nics_look.hardware(host.root, "xenbr0")) == "it has no hardware"
    assert nics_look.hardware(host.root, "gone").type == -1


def test_a_nic_that_the_firmware_booted_from_is_left_out(host):
    for name, mac, address in (("eth0", A, "03"), ("eth1", B, "04"), ("eth2", C, "05")):
        host.device(name, mac, host.pci(f"0000:00:{address}.0"))
    host.write("sys/firmware/ibft/ethernet0/mac", A.upper())
    host.write("sys/firmware/ibft/ethernet0/flags", 3)
    host.write("sys/firmware/ibft/ethernet1/mac", B)
    host.write("sys/firmware/ibft/ethernet1/flags", 0)
    host.write("sys/firmware/ibft/initiator/mac", C)

    assert booted_from(host.root) == {A}
    assert [each.nic.name for each in look(host.root)] == ["eth1", "eth2"]


def link(name, mac, permanent):
    return Link(1, name, "", mac, 1500, 0, 0, 0, 0, carrier=True, operstate=6, permanent_mac=permanent)


@pytest.mark.parametrize(
    ("files", "links", "mac"),
    [
        pytest.param({}, [], A, id="its-address"),
        pytest.param({"addr_assign_type": 3}, [link("eth0", A, C)], C, id="by-the-kernel"),
        pytest.param({"addr_assign_type": 3, "bonding_slave/perm_hwaddr": B}, [], B, id="member-of-a-bond"),
        pytest.param({"addr_assign_type": 3}, [link("eth0", A, "")], A, id="no-better-known"),
    ],
)
def test_the_address_of_a_nic_is_the_permanent_one(host, files, links, mac):
    host.device("eth0", A, host.pci("0000:00:03.0"), **files)

    assert [each.nic.mac for each in look(host.root, links)] == [mac]


def test_a_host_without_sysfs_has_no_nics(tmp_path):
    assert look(tmp_path) == ()


def test_names_of_makers_and_models_are_found():
    wanted = [("1af4", "1041"), ("8086", "1533"), ("8086", "ffff"), ("ffff", "1041"), ("1af4", "1533")]

    assert pci_names(IDS, wanted) == {
        ("1af4", "1041"): ("Red Hat, Inc.", "Virtio 1.0 network device"),
        ("8086", "1533"): ("Intel Corporation", "I210 Gigabit Network Connection"),
        ("8086", "ffff"): ("Intel Corporation", ""),
        ("1af4", "1533"): ("Red Hat, Inc.", ""),
    }


@given(st.binary(max_size=80), st.sampled_from([("8086", "1533"), ("8086", "")]))
def test_any_bytes_are_a_file_of_pci_numbers(data, wanted):
    assert pci_names(b"8086  Maker\n" + data, [wanted])[wanted][0] == "Maker"


@given(st.text(max_size=20))
def test_any_text_is_a_pci_address_to_sort_by_or_none(text):
    assert nics.pci_order(text) <= (1 << 40,) or ":" in text
    assert nics_look._stands_for_function(text) in (True, False)
