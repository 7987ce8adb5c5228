"""Which other daemon has a card, by its files below a root: those with few rules, and the small readers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import foreign, foreign_files, foreign_ifupdown, foreign_networkd, foreign_nm
from hostagent.net.foreign import Nic
from tests.pure.net_foreign import CARD, Root


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def test_a_card_that_nobody_has(root):
    assert root.owners() == ()


def test_a_card_is_read_from_sys(root):
    root.put("sys/class/net/eth0/ifindex", "2\n")
    root.put("sys/class/net/eth0/address", "02:00:00:00:00:01\n")
    root.put("run/udev/data/n2", "I:123\nE:ID_PATH=pci-0000:00:03.0\n")
    (root.path / "sys/class/net/eth0/device").mkdir()
    (root.path / "sys/class/net/eth0/device/driver").symlink_to("../../../bus/pci/drivers/virtio_net")

    assert foreign.nic("eth0", root.path) == CARD._replace(altnames=())
    assert foreign.nic("eth9", root.path) == Nic("eth9")


# --- the rest ---


def test_cloud_init_is_named_behind_the_one_that_it_writes_for(root):
    root.put("etc/cloud/cloud.cfg", "users: []\n")
    root.put("etc/network/interfaces", "source-directory interfaces.d\n")
    root.put("etc/network/interfaces.d/50-cloud-init", "auto eth0\niface eth0 inet dhcp\n")

    first, second = root.owners()

    assert (first.daemon, second.daemon) == ("ifupdown", "cloud-init")
    assert second.files == ("/etc/network/interfaces.d/50-cloud-init",)
    assert [owner.daemon for owner in root.owners(CARD._replace(name="eth1", mac=""))] == []


@pytest.mark.parametrize("off", ["network: {config: disabled}\n", "network:\n  config: disabled\n"])
def test_cloud_init_that_is_told_to_leave_networks_alone(root, off):
    root.put("etc/cloud/cloud.cfg", "users: []\n")
    root.put("etc/netplan/50-cloud-init.yaml", "ethernets: {eth0: {dhcp4: true}}\n")
    assert root.owner().daemon == "cloud-init"

    root.put("etc/cloud/cloud.cfg.d/99-x.cfg", off)

    assert root.owners() == ()


def test_connman_takes_what_its_blacklist_does_not_name(root):
    root.enable("connman.service")
    service = "ethernet_020000000001_cable"
    root.put(
        f"var/lib/connman/{service}/settings",
        f"[{service}]\nIPv4.method=manual\nIPv4.local_address=10.0.0.7\nIPv4.netmask_prefixlen=24\n"
        "IPv4.gateway=10.0.0.1\nNameservers=10.0.0.53;\n",
    )

    found = root.owner()

    assert (found.daemon, found.mode, found.addresses) == ("connman", "Static", ("10.0.0.7/24",))
    assert (found.gateway, found.dns) == ("10.0.0.1", ("10.0.0.53",))
    root.put("etc/connman/main.conf", "[General]\nNetworkInterfaceBlacklist=vmnet,eth\n")
    assert root.owners() == ()


def test_a_clients_own_unit(root):
    root.enable("dhclient@eth0.service")
    root.enable("dhcpcd.service")

    assert [(owner.daemon, owner.mode) for owner in root.owners()] == [
        ("dhclient", "DHCP"),
        ("dhcpcd", "DHCP"),
    ]
    root.put("etc/dhcpcd.conf", "denyinterfaces eth1, eth0\n")
    assert [owner.disable for owner in root.owners()] == ["systemctl disable dhclient@eth0.service"]


# --- the small readers ---


@pytest.mark.parametrize(
    ("given_", "netmask", "found"),
    [
        ("10.0.0.7", "255.255.255.0", "10.0.0.7/24"),
        ("10.0.0.7/16", "255.255.255.0", "10.0.0.7/16"),
        ("10.0.0.7", "", "10.0.0.7/32"),
        ("FD00:0::7/64", "", "fd00::7/64"),
        ("10.0.0.7", "255.0.255.0", ""),
        ("10.0.0.7/33", "", ""),
        ("10.0.0.7/", "24", "10.0.0.7/24"),
        ("eth0", "", ""),
        ("10.0.0\0", "", ""),
    ],
)
def test_an_address_with_its_netmask(given_, netmask, found):
    assert foreign_files.address(given_, netmask) == found


def test_repeated_sections_and_continued_lines():
    found = foreign_files.sections("x=0\n[A]\nk=1 \\\n# c\n 2\n[A]\nk=3\nnothing\n[B]\nk=\n")

    assert found == [("A", [("k", "1 2")]), ("A", [("k", "3")]), ("B", [("k", "")])]
    assert list(foreign_files.values(found, "A", "k")) == ["1 2", "3"]


@given(st.text())
def test_no_text_breaks_a_reader(text):
    parsed = foreign_files.sections(f"[Network]\n{text}\n[ipv4]\n{text}\n[Match]\n{text}")
    foreign_networkd.matches(CARD, parsed)
    pairs = foreign_files.assignments(text)
    for found in (foreign_networkd.describe(CARD, parsed, pairs), foreign_nm.describe(CARD, parsed, pairs)):
        assert all(foreign_files.address(address) == address for address in found.addresses)
    assert foreign_ifupdown.parse_lease(f"lease {{\n{text}\n}}\n").keys() == {
        "address",
        "routers",
        "dns",
        "search",
    }


WORDS = st.sampled_from(
    "iface eth0 inet inet6 static dhcp auto address 10.0.0.7/24 netmask source \\ # gateway bridge_ports allow-hotplug "
    "mapping Address= [Match] Name=! Gateway=::1 DNS=[ =".split()
)


@given(st.lists(st.lists(WORDS, max_size=6).map(" ".join), max_size=12).map("\n".join))
def test_no_interfaces_file_breaks_ifupdowns_reader(tmp_path_factory, text):
    root = Root(tmp_path_factory.mktemp("root"))
    root.put("etc/network/interfaces", text)

    for owner in root.owners():
        assert owner.files == ("/etc/network/interfaces",)


@given(
    st.sampled_from(["DHCP", "Address", "Gateway", "DNS", "Domains", "Bridge"]),
    st.lists(WORDS, max_size=4).map(" ".join),
)
def test_no_value_breaks_networkds_reader(key, value):
    found = foreign_networkd.describe(CARD, foreign_files.sections(f"[Network]\n{key}={value}"), {})

    assert found.device == "eth0"


@pytest.mark.parametrize(("words", "held"), [("dhcpcd: eth0 [ip4]", True), ("dhcpcd: xenbr0 [ip4]", False)])
def test_a_dhcp_client_that_somebody_started_on_the_card_has_it_and_is_named(root, words, held):
    root.put("proc/2548/comm", "dhcpcd\n")
    root.put("proc/2548/cmdline", f"{words}\0")
    root.put("proc/2548/cgroup", "0::/system.slice/others.service\n")

    found = [(owner.daemon, owner.mode, owner.disable) for owner in root.owners()]

    assert found == ([("dhcpcd (pid 2548)", "DHCP", "systemctl stop others.service")] if held else [])


def test_a_client_of_a_daemon_whose_files_name_the_card_is_that_daemons(root):
    root.put("proc/2548/comm", "dhclient\n")
    root.put("proc/2548/cmdline", "dhclient\0eth0\0")
    root.put("etc/network/interfaces", "auto eth0\niface eth0 inet dhcp\n")
    root.enable("networking.service")

    assert [owner.daemon for owner in root.owners()] == ["ifupdown"]
