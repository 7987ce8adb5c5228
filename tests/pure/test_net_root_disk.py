"""A root file system on the network: which NICs it is reached over, from /proc, sysfs and the kernel's routes."""

from __future__ import annotations

import pytest

from hostagent.net import root_disk
from hostagent.net.devices import Kernel, Link, Route
from tests.pure.startup_tree import put

LOCAL = "24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
NFS = "25 1 0:20 / / rw shared:1 - nfs4 192.0.2.9:/root rw,vers=4.2,clientaddr=192.0.2.7,addr=192.0.2.9\n"
OTHER = "30 24 0:31 / /mnt rw - nfs4 198.51.100.1:/x rw,addr=198.51.100.1\n"


def link(index, name, kind="", master=0, lower=0):
    return Link(index, name, kind, "", 1500, master, lower, 1, 0, carrier=True, operstate=6)


KERNEL = Kernel(
    {
        one.ifindex: one
        for one in (
            link(2, "eth0", master=10),
            link(3, "eth1", master=11),
            link(4, "eth2", master=11),
            link(5, "eth3"),
            link(10, "xenbr0", "bridge"),
            link(11, "bond0", "bond", master=12),
            link(12, "xapi0", "bridge"),
            link(13, "bond0.5", "vlan", master=14, lower=11),
            link(14, "xapi1", "bridge"),
        )
    },
    routes=(
        Route(10, "default4", "203.0.113.1"),
        Route(10, "203.0.113.0/24", ""),
        Route(12, "192.0.2.0/24", "", metric=100),
        Route(5, "192.0.2.0/24", "", metric=200),
        Route(14, "192.0.2.128/25", ""),
        Route(5, "2001:db8::/64", ""),
    ),
)


@pytest.mark.parametrize(
    ("server", "names"),
    [
        ("192.0.2.9", {"eth1", "eth2"}),  # the lower metric
        ("192.0.2.200", {"eth1", "eth2"}),  # the longer prefix, through a VLAN
        ("8.8.8.8", {"eth0"}),
        ("2001:db8::9", {"eth3"}),
        ("2001:db8:1::9", set()),  # no route
    ],
)
def test_the_nics_that_the_route_goes_over(server, names):
    assert root_disk.carriers(KERNEL, server) == names


def test_a_way_over_two_hops_has_the_nics_of_both():
    ways = (Route(10, "default4", "203.0.113.1"), Route(5, "default4", "203.0.113.2"))
    assert root_disk.carriers(KERNEL._replace(routes=ways), "192.0.2.9") == {"eth0", "eth3"}


@pytest.mark.parametrize(
    ("mounts", "servers"),
    [
        (NFS + OTHER, {"192.0.2.9"}),
        (LOCAL + NFS, {"192.0.2.9"}),
        (NFS + LOCAL, set()),
        (LOCAL + OTHER, set()),
        (NFS.replace("addr=192.0.2.9", "addr=2001:db8::9"), {"2001:db8::9"}),
        ("", set()),
        ("half a line\n25 1 0:20 / / rw\n25 1 0:20 / / rw - nfs4\n", set()),
    ],
)
def test_the_server_of_a_root_on_nfs(tmp_path, mounts, servers):
    put(tmp_path / "proc/self/mountinfo", mounts)
    assert root_disk.servers(tmp_path) == servers


def disk(root, number, device):
    """A block device, by its path below sys/devices, under its number."""
    path = root / "sys/devices" / device
    path.mkdir(parents=True, exist_ok=True)
    (root / "sys/dev/block").mkdir(parents=True, exist_ok=True)
    (root / "sys/dev/block" / number).symlink_to(path)
    return path


def connection(root, name, **values):
    for key, value in values.items():
        put(root / "sys/class/iscsi_connection" / name / key, f"{value}\n")


@pytest.fixture
def iscsi(tmp_path):
    """A host with two disks of iSCSI, one of a session with 1 in its number too."""
    put(tmp_path / "proc/self/mountinfo", LOCAL)
    connection(tmp_path, "connection1:0", address="192.0.2.9", persistent_address="192.0.2.10")
    connection(tmp_path, "connection2:0", address="", persistent_address="8.8.8.8")
    connection(tmp_path, "connection11:0", address="198.51.100.1")
    return tmp_path


def test_a_root_on_a_partition_of_a_disk_of_iscsi(iscsi):
    found = disk(iscsi, "8:1", "platform/host2/session1/target2:0:0/2:0:0:1/block/sda/sda1")
    put(found / "partition", "1\n")
    assert root_disk.servers(iscsi) == {"192.0.2.9"}
    assert root_disk.nics(iscsi, lambda: KERNEL) == {"eth1", "eth2"}


def test_a_root_on_what_is_made_of_disks_of_iscsi(iscsi):
    volume = disk(iscsi, "8:1", "virtual/block/dm-1")
    paths = disk(iscsi, "253:0", "virtual/block/dm-0")
    one = disk(iscsi, "8:16", "platform/host2/session1/block/sdb")
    two = disk(iscsi, "8:32", "platform/host3/session2/block/sdc")
    for upper, lower in ((volume, paths), (paths, one), (paths, two)):
        (upper / "slaves").mkdir(exist_ok=True)
        (upper / "slaves" / lower.name).symlink_to(lower)
    assert root_disk.servers(iscsi) == {"192.0.2.9", "8.8.8.8"}
    assert root_disk.nics(iscsi, lambda: KERNEL) == {"eth0", "eth1", "eth2"}


def test_a_local_root_asks_nothing_of_the_kernel(iscsi):
    disk(iscsi, "8:1", "pci0000:00/ata1/host0/block/sda/sda1")

    def never():
        raise AssertionError("the kernel was looked at")

    assert root_disk.nics(iscsi, never) == frozenset()
