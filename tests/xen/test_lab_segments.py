"""Segments join hosts with one another and with the test process, and offer servers to a real dom0."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from nested_xen import faults, services, wire
from nested_xen.errors import LabError
from nested_xen.frames import EtherType, Lacpdu, LacpEnd, LacpState

from tests.xen.nics import nic_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nested_xen.frames import Ethernet
    from nested_xen.host import Host

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

SOON_S = 60
NEGOTIATION_S = 120
STORAGE, BOND_A, BOND_B = 1, 2, 3
ADDRESS = "198.51.100.{}/24"
PARTNER = "02:00:00:00:00:aa"
IN_USE = (
    LacpState.ACTIVITY
    | LacpState.SHORT_TIMEOUT
    | LacpState.AGGREGATION
    | LacpState.SYNCHRONIZATION
    | LacpState.COLLECTING
    | LacpState.DISTRIBUTING
)


@pytest.fixture
def host(xen_host_bare: Host) -> Iterator[Host]:
    """A host with an address on the storage segment, which goes after the test."""
    device = nic_name(xen_host_bare, STORAGE)
    address = ADDRESS.format(11)
    xen_host_bare.exec(f"ip link set {device} up && ip address add {address} dev {device}")
    yield xen_host_bare
    xen_host_bare.exec(f"ip address flush dev {device}; ip link set {device} down")


def is_echo_request(frame: Ethernet) -> bool:
    return frame.type == EtherType.IPV4 and frame.payload[9] == 1 and frame.payload[20] == 8


def test_hosts_ping_over_a_segment_the_test_hears_it_and_a_cut_ends_it(
    xen_hosts_bare: Callable[[int], list[Host]],
) -> None:
    hosts = xen_hosts_bare(2)
    for number, host in enumerate(hosts, 11):
        device = nic_name(host, STORAGE)
        host.exec(f"ip link set {device} up && ip address replace {ADDRESS.format(number)} dev {device}")
    one, two = hosts
    ping = "ping -c 1 -W 20 198.51.100.12"
    with wire.join(one.lab, "storage") as port:
        # a broadcast ping reaches every port; a unicast one only the port where the bridge has learned its target
        one.exec("ping -b -c 1 -W 1 198.51.100.255", check=False)
        [request] = port.capture(is_echo_request, deadline_s=SOON_S)
        assert request.source == one.machine.nics[STORAGE].mac
        one.exec(ping)
        with faults.cut(one, "storage"):
            assert one.exec("ping -c 1 -W 3 198.51.100.12", check=False).code == 1
        one.exec(ping)
        port.drain()
    for host in (one, two):
        host.exec(f"ip address flush dev {nic_name(host, STORAGE)}")


def test_a_bond_of_dom0_negotiates_lacp_with_the_test_process(xen_host_bare: Host) -> None:
    host = xen_host_bare
    slaves = [nic_name(host, number) for number in (BOND_A, BOND_B)]
    members = "; ".join(f"ip link set {name} down; ip link set {name} master bond0" for name in slaves)
    ports = [wire.join(host.lab, segment, segment) for segment in ("bond-a", "bond-b")]
    sniffed = "/run/lacp.txt"
    partner_only = f"ether proto 0x8809 and ether src {ports[0].mac}"
    try:
        host.exec(
            "modprobe bonding; ip link add bond0 type bond mode 802.3ad miimon 100 lacp_rate fast;"
            f" {members}; ip link set bond0 up;"
            f" systemd-run -q --collect sh -c 'tcpdump -i {slaves[0]} -nn -c 1 -v {partner_only} >{sniffed}'"
        )
        states = _negotiate(ports)
        assert [state & IN_USE for state in states] == [IN_USE, IN_USE]
        bond = host.exec("cat /proc/net/bonding/bond0").stdout
        assert f"Partner Mac Address: {PARTNER}" in bond
        assert "Number of ports: 2" in bond
        heard, end = "", time.monotonic() + NEGOTIATION_S
        while not heard and time.monotonic() < end:  # tcpdump may have come too late for the first ones
            _negotiate(ports)
            heard = host.exec(f"cat {sniffed}", check=False).stdout
        assert f"System {PARTNER}" in heard
    finally:
        for port in ports:
            port.close()
        host.exec("ip link delete bond0")


def _negotiate(ports: list[wire.Port]) -> list[LacpState]:
    """Be the partner of a bond on these ports until it uses them all; its last states."""
    states = [LacpState(0)] * len(ports)
    end = time.monotonic() + NEGOTIATION_S
    while any(state & IN_USE != IN_USE for state in states):
        if time.monotonic() > end:
            break
        for number, port in enumerate(ports):
            [frame] = port.capture(lambda frame: frame.type == EtherType.SLOW, deadline_s=SOON_S)
            theirs = Lacpdu.parse(frame).actor
            states[number] = theirs.state
            port.send(Lacpdu(LacpEnd(PARTNER, 7, number + 1, IN_USE), theirs).frame(port.mac))
    return states


def test_a_pulled_cable_is_seen_as_lost_carrier_also_on_the_management_nic(host: Host) -> None:
    device = nic_name(host, STORAGE)
    with faults.no_carrier(host, STORAGE):
        assert "NO-CARRIER" in host.exec(f"ip link show {device}").stdout
    assert "NO-CARRIER" not in host.exec(f"ip link show {device}").stdout
    with faults.no_carrier(host, 0), pytest.raises(LabError):
        host.exec("true", timeout_s=5)
    assert host.exec("echo back").stdout == "back\n"


def test_dom0_gets_a_lease_from_the_segments_dhcp_server(host: Host) -> None:
    device = nic_name(host, STORAGE)
    host.exec(f"ip address flush dev {device}")
    with services.dhcp(host.lab, "storage", lease_s=600, options=["option:mtu,8000"]) as server:
        try:
            host.exec(f"dhcpcd -4 --oneshot --nohook resolv.conf --noipv4ll --timeout 90 {device}")
            [lease] = server.leases()
            assert lease.mac == host.machine.nics[STORAGE].mac
            assert f"inet {lease.address}/24" in host.exec(f"ip address show {device}").stdout
            assert host.exec(f"ip -4 route get {server.address}").stdout.split()[2] == device
        finally:
            host.exec(f"ip address flush dev {device}; ip route flush dev {device}")


def test_dom0_mounts_and_writes_over_every_nfs_version(host: Host) -> None:
    with services.nfs(host.lab, "storage") as server:
        for version in ("4.2", "4.1", "3"):
            options = f"vers={version}" + (",nolock" if version == "3" else "")
            host.exec(
                f"mkdir -p /mnt/nfs && mount -t nfs -o {options} {server.source(version)} /mnt/nfs"
                f" && findmnt -n -o OPTIONS /mnt/nfs | grep -q vers={version}"
                f" && echo from dom0 >/mnt/nfs/{version} && umount /mnt/nfs"
            )
            assert (server.export / version).read_text() == "from dom0\n"


def test_dom0_logs_in_with_chap_and_writes_to_the_iscsi_disk(host: Host) -> None:
    user, password = "lab", "twelve-letters"
    with services.iscsi(host.lab, "storage", chap=(user, password)) as server:
        node = f"iscsiadm -m node -T {server.target}"
        host.exec(
            "systemctl start iscsid && iscsiadm -m discovery -t sendtargets -p"
            f" {server.address} | grep -q {server.target}"
        )
        refused = host.exec(f"{node} --login", check=False)
        assert "authorization failure" in refused.stderr
        settings = {"authmethod": "CHAP", "username": user, "password": password}
        sets = "; ".join(f"{node} -o update -n node.session.auth.{k} -v {v}" for k, v in settings.items())
        host.exec(f"{sets}; {node} --login")
        try:
            find = 'lsblk -dnpo TRAN,NAME | sed -n "s/^iscsi *//p"'
            disk = host.exec(f"timeout 60 sh -c 'until {find} | grep .; do sleep 0.2; done'").stdout.strip()
            assert host.exec(f"blockdev --getsize64 {disk}").stdout == f"{256 << 20}\n"
            host.exec(f"printf 'from dom0' | dd of={disk} bs=4096 conv=sync,fsync oflag=direct status=none")
            with server.disk.open("rb") as file:
                assert file.read(9) == b"from dom0"
        finally:
            host.exec(f"{node} --logout; {node} -o delete", check=False)


def test_a_server_is_not_reached_over_another_segment(host: Host) -> None:
    device = nic_name(host, STORAGE)
    host.exec(f"ip address flush dev {device}")
    with services.dhcp(host.lab, "storage") as server:
        assert host.exec(f"ping -c 1 -W 2 {server.address}", check=False).code != 0
