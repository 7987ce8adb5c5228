"""NICs keep their positions; what is no NIC of the host's is left out; over small trees of sysfs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.files import FileError
from hostagent.net import nics, nics_look
from hostagent.net.devices import Link
from hostagent.net.nics import (
    Change,
    NicListError,
    Rule,
    Seen,
    assign,
    decode,
    encode,
    in_firmware_order,
    load,
    parse_rules,
    store,
)
from hostagent.net.nics_look import Hardware, booted_from, left_out, look, pci_names
from hostagent.net.nics_types import Nic

A, B, C, D = (f"00:16:3e:00:00:{n:02x}" for n in range(1, 5))
SLOT, OTHER_SLOT = "0000:00:03.0", "0000:00:04.0"


def seen(name, mac, pci="", *, onboard=0, port=0, label=""):
    return Seen(Nic(-1, name, mac, pci_path=pci, carrier=True, speed=1000), onboard, label, port)


def known(position, name, mac, pci="", *, present=True):
    return Nic(position, name, mac, pci_path=pci, present=present)


def places(assignment):
    return {nic.position: (nic.name, nic.mac, nic.present) for nic in assignment.nics}


# positions


def test_the_first_list_is_in_the_firmwares_order():
    found = [
        seen("usb0", D),
        seen("eth10", C, "0000:05:00.1"),
        seen("eth9", B, "0000:05:00.0"),
        seen("eno1", A, "0000:81:00.0", onboard=1),
    ]

    assert [nic.name for nic in assign((), found).nics] == ["eno1", "eth9", "eth10", "usb0"]
    assert [nic.position for nic in assign((), found).nics] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(seen("b", B, SLOT, onboard=1), seen("a", A, SLOT, onboard=2), id="onboard"),
        pytest.param(seen("b", B, "0000:9f:00.0"), seen("a", A, "0001:00:00.0"), id="domain"),
        pytest.param(seen("b", B, "0000:09:00.0"), seen("a", A, "0000:10:00.0"), id="bus"),
        pytest.param(seen("b", B, "0000:0a:00.0"), seen("a", A, "0000:10:00.0"), id="bus-is-hexadecimal"),
        pytest.param(seen("b", B, SLOT, port=0), seen("a", A, SLOT, port=1), id="port"),
        pytest.param(seen("eth2", B), seen("eth10", A), id="name-by-number"),
        pytest.param(seen("z", B, SLOT), seen("a", A), id="pci-before-others"),
    ],
)
def test_what_comes_first_in_the_firmwares_order(first, second):
    assert in_firmware_order([second, first]) == [first, second]


def test_a_known_mac_keeps_its_position_whatever_it_is_called_and_wherever_it_is():
    earlier = (known(0, "eth0", A, SLOT), known(1, "eth1", B, OTHER_SLOT))

    now = assign(earlier, [seen("eth0", B, SLOT), seen("enp4s0", A, OTHER_SLOT)])

    assert places(now) == {0: ("enp4s0", A, True), 1: ("eth0", B, True)}
    assert Change(0, "renamed", "eth0", "enp4s0") in now.changes
    assert Change(0, "moved", SLOT, OTHER_SLOT) in now.changes
    assert now.problems == ()


def test_what_is_in_the_slot_of_a_vanished_nic_takes_its_place():
    earlier = (known(0, "eth0", A, SLOT), known(1, "eth1", B, OTHER_SLOT))

    now = assign(earlier, [seen("eth1", B, OTHER_SLOT), seen("eth2", C, SLOT)])

    assert places(now) == {0: ("eth2", C, True), 1: ("eth1", B, True)}
    assert now.changes == (Change(0, "replaced", A, C), Change(0, "renamed", "eth0", "eth2"))


def test_a_long_vanished_nic_is_replaced_too():
    now = assign((known(3, "eth0", A, SLOT, present=False),), [seen("eth0", B, SLOT)])

    assert places(now) == {3: ("eth0", B, True)}


def test_a_new_nic_comes_after_the_highest_position_though_one_is_free():
    earlier = (known(0, "eth0", A, SLOT, present=False), known(5, "eth1", B, OTHER_SLOT))

    now = assign(earlier, [seen("eth1", B, OTHER_SLOT), seen("eth2", C, "0000:00:07.0")])

    assert places(now) == {0: ("eth0", A, False), 5: ("eth1", B, True), 6: ("eth2", C, True)}


def test_a_vanished_nic_keeps_its_position_and_has_no_link():
    earlier = (known(0, "eth0", A, SLOT)._replace(carrier=True, speed=1000, duplex=True),)

    now = assign(earlier, [])

    assert now.nics == (known(0, "eth0", A, SLOT, present=False),)
    assert now.changes == (Change(0, "missing", "eth0", ""),)
    assert assign(now.nics, []).changes == ()
    assert assign(now.nics, [seen("eth0", A, SLOT)]).changes == (Change(0, "back", "", "eth0"),)


def test_ports_of_one_function_are_replaced_together_in_the_order_of_their_macs():
    earlier = (known(0, "p1", B, SLOT), known(1, "p0", A, SLOT))

    now = assign(earlier, [seen("q0", D, SLOT, port=0), seen("q1", C, SLOT, port=1)])

    assert places(now) == {0: ("q0", D, True), 1: ("q1", C, True)}


def test_ports_are_not_replaced_when_there_are_more_or_fewer_of_them():
    earlier = (known(0, "p0", A, SLOT),)

    now = assign(earlier, [seen("q0", C, SLOT, port=0), seen("q1", D, SLOT, port=1)])

    assert places(now) == {0: ("p0", A, False), 1: ("q0", C, True), 2: ("q1", D, True)}


def test_nics_without_a_slot_do_not_replace_each_other():
    now = assign((known(0, "eth0", A),), [seen("eth0", B)])

    assert places(now) == {0: ("eth0", A, False), 1: ("eth0", B, True)}


def test_with_a_mac_twice_the_list_stays_and_the_devices_are_named():
    earlier = (known(0, "eth0", A, SLOT), known(1, "eth1", B, OTHER_SLOT))
    found = [seen("eth5", A, SLOT), seen("eth6", A, OTHER_SLOT), seen("lan", B, OTHER_SLOT), seen("x", C, "")]

    now = assign(earlier, found)

    assert places(now) == {0: ("eth0", A, True), 1: ("lan", B, True)}
    assert now.problems == (f"the MAC address {A} is on this host more than once: eth5, eth6",)


def test_with_a_mac_twice_and_no_list_only_those_nics_get_no_position():
    now = assign((), [seen("eth0", A), seen("eth1", A), seen("eth2", B)])

    assert places(now) == {0: ("eth2", B, True)}
    assert len(now.problems) == 1


def test_with_a_position_twice_the_list_stays():
    earlier = (known(0, "eth0", A, SLOT), known(0, "eth1", B, OTHER_SLOT))

    now = assign(earlier, [seen("lan", A, SLOT), seen("new", C)])

    assert [(nic.position, nic.name) for nic in now.nics] == [(0, "lan"), (0, "eth1")]
    assert now.problems == ("position 0 is in the list of NICs more than once",)


def test_a_nic_without_an_address_of_its_own_is_told_and_the_others_go_on():
    now = assign((known(0, "eth0", A),), [seen("eth0", A), seen("odd", ""), seen("eth1", B)])

    assert places(now) == {0: ("eth0", A, True), 1: ("eth1", B, True)}
    assert now.problems == ("odd has no MAC address of its own",)


def test_rules_place_nics_while_there_is_no_list():
    rules = parse_rules(f'3:mac="{A.upper()}"\n1:pci="{SLOT}"\n0:label="NIC 2"\nnonsense\n7:mac=""\n')
    found = [seen("a", A), seen("b", B, SLOT), seen("c", C, OTHER_SLOT, label="NIC 2"), seen("d", D)]

    assert rules == (Rule(3, "mac", A), Rule(1, "pci", SLOT), Rule(0, "label", "NIC 2"))
    assert {p: n for p, (n, _, _) in places(assign((), found, rules)).items()} == {
        0: "c",
        1: "b",
        3: "a",
        4: "d",
    }
    assert [nic.position for nic in assign((known(0, "d", D),), found, rules).nics] == [0, 1, 2, 3]


def test_a_nic_that_two_rules_are_for_has_one_position():
    rules = (Rule(4, "mac", A), Rule(2, "pci", SLOT))

    assert places(assign((), [seen("a", A, SLOT)], rules)) == {4: ("a", A, True)}


MACS = st.sampled_from([A, B, C, D, ""])
SLOTS = st.sampled_from(["", SLOT, OTHER_SLOT])
FOUND = st.lists(st.builds(seen, st.sampled_from(["x", "y", "eth1", "eth2"]), MACS, SLOTS), max_size=6)


@given(st.lists(FOUND, max_size=4))
def test_over_any_history_positions_are_unique_and_a_nic_that_is_there_has_but_one(history):
    nics_now: tuple[Nic, ...] = ()
    for found in history:
        before = nics_now
        now = assign(before, found)
        nics_now = now.nics
        positions = [nic.position for nic in nics_now]
        assert positions == sorted(set(positions))
        assert set(positions) >= {nic.position for nic in before}
        macs = [nic.mac for nic in nics_now]
        assert len(macs) == len(set(macs))
        assert "" not in macs
        assert assign(nics_now, found).nics == nics_now  # looking again changes nothing
        if not now.problems:
            assert {each.nic.mac for each in found} == {nic.mac for nic in nics_now if nic.present}


@given(st.text(max_size=200))
def test_any_text_is_rules_or_nothing(text):
    rules = parse_rules(text)

    assert len({rule.position for rule in rules}) == len(rules)


# the stored list

STORED = (
    Nic(0, "eno1", A, 9000, True, (), "8086", "Intel Corporation", "1533", "I210", SLOT, driver="igb"),  # noqa: FBT003
    known(2, "eth1", B, present=False),
)


def test_the_list_comes_back_as_it_was_stored(tmp_path):
    path = tmp_path / "nics.json"
    assert load(path) == ()

    store(path, [nic._replace(carrier=True, speed=1000, duplex=True) for nic in STORED])

    assert load(path) == STORED


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"version": 2, "nics": []}',
        b'{"version": 1, "nics": {}}',
        b'{"version": 1, "nics": [3]}',
        b'{"version": 1, "nics": [{"position": 0, "name": "eth0"}]}',
        b'{"version": 1, "nics": [{"position": "0", "name": "eth0", "mac": ""}]}',
        b'{"version": 1, "nics": [{"position": true, "name": "eth0", "mac": ""}]}',
        b'{"version": 1, "nics": [{"position": -1, "name": "eth0", "mac": ""}]}',
        b"\xff",
        b"[" * 100000,
    ],
)
def test_a_list_that_is_none_is_refused_with_its_path(tmp_path, content):
    path = tmp_path / "nics.json"
    path.write_bytes(content)

    with pytest.raises(NicListError) as caught:
        load(path)

    assert str(path) in caught.value.found
    assert "remove it" in caught.value.hint


def test_a_list_that_cannot_be_read_is_not_taken_for_none(tmp_path):
    path = tmp_path / "nics.json"
    path.mkdir()

    with pytest.raises(FileError):
        load(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["position", "name", "mac", "mtu", "present"]), inner, max_size=5)
    ),
)


@given(
    st.one_of(st.binary(max_size=60), JSON.map(lambda n: json.dumps({"version": 1, "nics": [n]}).encode()))
)
def test_any_bytes_are_a_list_or_a_value_error(data):
    try:
        found = decode(data)
    except ValueError:
        return
    assert decode(encode(found)) == found


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
