"""DHCP: which other clients there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import dhcp_clients

PACKET = (
    "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"
    "ffff888100000000 3      3    0003   2     1 0      0      4711\n"
    "ffff888100000001 3      3    0800   0     1 0      0      4712\n"
)
UDP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   1: 0700000A:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 5150 2\n"
    "   2: 0700000A:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 5151 2\n"
)


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def process(root, pid, comm, *words, sockets=(), unit=""):
    put(root, f"proc/{pid}/comm", f"{comm}\n")
    put(root, f"proc/{pid}/cmdline", "\0".join(words) + "\0")
    put(root, f"proc/{pid}/cgroup", f"0::/system.slice/{unit}\n" if unit else "0::/user.slice\n")
    for number, inode in enumerate(sockets):
        link = root / f"proc/{pid}/fd/{number}"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(f"socket:[{inode}]")


@pytest.fixture
def machine(tmp_path):
    put(tmp_path, "sys/class/net/eth0/ifindex", "2\n")
    put(tmp_path, "proc/net/packet", PACKET)
    put(tmp_path, "proc/net/udp", UDP)
    put(tmp_path, "proc/self-made", "")
    return tmp_path


@pytest.mark.parametrize(
    ("program", "words", "devices"),
    [
        ("dhclient", ["dhclient", "-4", "-v", "-pf", "/run/dhclient.eth0.pid", "eth0"], ["eth0"]),
        ("dhclient", ["dhclient"], [""]),
        ("dhcpcd", ["dhcpcd: eth1 [ip4] [ip6]              "], ["eth1"]),
        ("dhcpcd", ["dhcpcd: [manager] [ip4] [ip6]"], [""]),
        ("dhcpcd", ["dhcpcd: [privileged proxy] eth1 [ip4]"], []),
        ("dhcpcd", ["dhcpcd", "-f", "/run/x.conf", "-B", "eth1"], ["eth1"]),
        ("udhcpc", ["udhcpc", "-i", "eth2", "-s", "/script"], ["eth2"]),
        ("udhcpc", ["udhcpc", "--interface=eth2"], ["eth2"]),
        ("udhcpc", ["udhcpc", "-ieth3"], ["eth3"]),
        ("systemd-networkd", ["/usr/lib/systemd/systemd-networkd"], []),
    ],
)
def test_a_command_line_names_its_devices(program, words, devices):
    assert dhcp_clients.devices_of(program, words) == devices


def test_a_client_by_hand_is_named_with_what_ends_it(machine):
    process(machine, 40, "dhclient", "dhclient", "eth0", sockets=[4711])

    (client,) = dhcp_clients.foreign("eth0", machine, {})

    assert (client.program, client.pid, client.unit, client.ending) == ("dhclient", 40, "", "kill 40")
    assert dhcp_clients.foreign("eth1", machine, {}) == []


def test_a_daemon_is_found_by_its_sockets(machine):
    process(
        machine, 50, "systemd-network", "/x/systemd-networkd", sockets=[5150], unit="systemd-networkd.service"
    )
    process(
        machine, 51, "NetworkManager", "NetworkManager", sockets=[4711, 4712], unit="NetworkManager.service"
    )

    found = dhcp_clients.foreign("eth0", machine, {"10.0.0.7": "eth0"})

    assert [(client.program, client.evidence, client.ending) for client in found] == [
        ("systemd-networkd", "UDP port of DHCP clients", "systemctl stop systemd-networkd.service"),
        ("NetworkManager", "packet socket", "systemctl stop NetworkManager.service"),
    ]
    assert dhcp_clients.foreign("eth1", machine, {"10.0.0.7": "eth0"}) == []


def test_ours_is_not_foreign(machine):
    process(machine, 60, "dhcpcd", "dhcpcd: xenbr0 [ip4]", unit="hostagent-dhcp-xenbr0.service")

    assert [client.ours for client in dhcp_clients.running(machine, {})] == [True]
    assert dhcp_clients.foreign("xenbr0", machine, {}) == []


def test_one_that_takes_every_device_is_on_each(machine):
    process(machine, 70, "dhcpcd", "dhcpcd: [manager] [ip4]", unit="dhcpcd.service")

    assert [client.program for client in dhcp_clients.foreign("xenbr7", machine, {})] == ["dhcpcd"]


@given(st.text())
def test_no_table_of_the_kernel_breaks_the_readers(text):
    sockets = dhcp_clients.packet_sockets(f"head\n{text}")
    ports = dhcp_clients.udp_sockets(f"head\n{text}")

    assert all(index > 0 for index, _ in sockets)
    assert all(address for address, _ in ports)


@given(st.sampled_from(dhcp_clients.PROGRAMS), st.lists(st.text()))
def test_no_command_line_breaks_the_reader(program, words):
    assert all(isinstance(device, str) for device in dhcp_clients.devices_of(program, words))


def test_the_port_of_dhcpv6_counts_and_the_address_is_in_the_kernels_form():
    line = f"  1: {'000080FE00000000FF01020304050607'}:0222 {'0' * 32}:0000 07 0:0 0:0 0 0 0 99 2"

    assert dhcp_clients.udp_sockets(f"head\n{line}") == [("fe80::302:1ff:706:504", 99)]
