"""Which other daemon has a card, from its files below a fabricated root, and what it gives to the card."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import foreign, foreign_files, foreign_ifupdown, foreign_networkd, foreign_nm
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


# --- systemd-networkd ---

STATIC = """[Match]
Name=en* eth0

[Network]
Address=10.0.0.7/24
Address=fd00::7/64
Gateway=10.0.0.1
DNS=10.0.0.53 [fd00::53]:5353#dns.example
Domains=a.example ~internal

[Route]
Gateway=fd00::1
[Route]
Destination=10.2.0.0/16
Gateway=10.0.0.9
"""


def test_a_fixed_address_of_networkd(root):
    root.enable("systemd-networkd.service")
    root.put("etc/systemd/network/20-lan.network", STATIC)

    found = root.owner()

    assert (found.daemon, found.mode, found.mode6) == ("systemd-networkd", "Static", "Static")
    assert found.addresses == ("10.0.0.7/24", "fd00::7/64")
    assert (found.gateway, found.gateway6) == ("10.0.0.1", "fd00::1")
    assert (found.dns, found.search) == (("10.0.0.53", "fd00::53"), ("a.example",))
    assert found.files == ("/etc/systemd/network/20-lan.network",)
    assert "00-hostagent-eth0.network" in found.disable
    assert "Unmanaged=yes" in found.disable


@pytest.mark.parametrize(
    ("match", "taken"),
    [
        ("Name=eth0", "Name=eth0"),
        ("Name=eth0 eth1\nDriver=e1000e", "Name=eth0"),
        ("Name=e*", "PermanentMACAddress=02:00:00:00:00:07"),
        ("Type=ether", "PermanentMACAddress=02:00:00:00:00:07"),
        ("MACAddress=02:00:00:00:00:07", "PermanentMACAddress=02:00:00:00:00:07"),
        ("Name=eth*\nMACAddress=02:00:00:00:00:07", "PermanentMACAddress=02:00:00:00:00:07"),
    ],
)
def test_networkd_is_kept_from_the_card_by_what_it_knows_it_by(tmp_path, match, taken):
    """With the order of the cards changed, one that it knows by its address has another name, and is still its."""
    unit = tmp_path / "etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
    file = tmp_path / "etc/systemd/network/20-lan.network"
    for path in (unit, file):
        path.parent.mkdir(parents=True)
    unit.write_text("")
    file.write_text(f"[Match]\n{match}\n[Network]\nDHCP=yes\n")
    card = foreign_files.Nic("eth0", 2, "02:00:00:00:00:07", driver="e1000e")

    found = foreign_networkd.owner(card, tmp_path)

    assert found is not None
    assert f"[Match]\\n{taken}\\n" in found.disable
    assert found.mac == ("" if taken.startswith("Name") else "02:00:00:00:00:07")


def test_networkd_that_never_starts_has_no_card(root):
    root.put("etc/systemd/network/20-lan.network", STATIC)

    assert root.owners() == ()


def test_the_state_of_a_running_networkd_counts_before_its_files(root):
    root.enable("systemd-networkd.service")
    root.put("etc/systemd/network/20-lan.network", STATIC)
    root.put("run/systemd/network/10-netplan.network", "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n")
    root.put(
        "run/systemd/netif/links/2",
        "# private\nADMIN_STATE=configured\nNETWORK_FILE=/run/systemd/network/10-netplan.network\n",
    )
    root.put(
        "run/systemd/netif/leases/2",
        "ADDRESS=10.0.0.88\nNETMASK=255.255.255.0\nROUTER=10.0.0.1\nDNS=10.0.0.53\n"
        "DOMAINNAME=a.example\nCLIENTID=ff0123456700020000ab11\n",
    )

    found = root.owner()

    assert (found.mode, found.addresses, found.gateway) == ("DHCP", ("10.0.0.88/24",), "10.0.0.1")
    assert (found.dns, found.search) == (("10.0.0.53",), ("a.example",))
    assert found.client_id == "ff:01:23:45:67:00:02:00:00:ab:11"
    assert found.mode6 == "Autoconf"
    assert found.files == ("/run/systemd/network/10-netplan.network",)


def test_a_card_that_networkd_leaves_alone(root):
    root.enable("systemd-networkd.service")
    root.put("etc/systemd/network/20-lan.network", STATIC)
    root.put("run/systemd/netif/links/2", "ADMIN_STATE=unmanaged\n")

    assert root.owners() == ()


def test_what_disable_writes_frees_the_card(root):
    root.enable("systemd-networkd.service")
    root.put("etc/systemd/network/20-lan.network", STATIC)
    command = root.owner().disable

    content, file = command.removeprefix("printf '").split("' > ")
    root.put(file.lstrip("/"), content.replace("\\n", "\n"))

    assert root.owners() == ()


def test_a_file_in_etc_masks_one_of_the_same_name(root):
    root.enable("systemd-networkd.service")
    root.put("usr/lib/systemd/network/20-lan.network", STATIC)
    root.put("etc/systemd/network/20-lan.network", "")

    assert root.owners() == ()


def test_drop_ins_count(root):
    root.enable("systemd-networkd.service")
    root.put("etc/systemd/network/20-lan.network", STATIC)
    root.put("run/systemd/network/20-lan.network.d/50-x.conf", "[Network]\nAddress=\nAddress=10.0.0.9/24\n")

    found = root.owner()

    assert found.addresses == ("10.0.0.9/24",)
    assert len(found.files) == 2


def test_a_port_of_networkds_bridge(root):
    root.enable("systemd-networkd.service")
    root.put("etc/systemd/network/a.network", "[Match]\nName=eth0\n[Network]\nBridge=br0\n")

    assert root.owner().through == "br0"


@pytest.mark.parametrize(
    ("match", "taken"),
    [
        ("Name=eth*", True),
        ("Name=!eth*", False),
        ("Name=!wl*", True),
        ("Name=enp0s3", True),
        ("MACAddress=02-00-00-00-00-01", True),
        ("PermanentMACAddress=02:00:00:00:00:02", False),
        ("Driver=virtio_net\nPath=pci-*", True),
        ("Driver=virtio_net\nPath=usb-*", False),
        ("Type=ether", True),
        ("Name=eth0\nVirtualization=container", False),
        ("", False),
    ],
)
def test_what_a_match_section_takes(match, taken):
    assert foreign_networkd.matches(CARD, foreign_files.sections(f"[Match]\n{match}\n")) is taken


@pytest.mark.parametrize(
    ("network", "mode6"),
    [
        ("DHCP=yes", "DHCP"),
        ("DHCP=ipv6", "DHCP"),
        ("DHCP=ipv4", "Autoconf"),
        ("IPv6AcceptRA=no", "None"),
        ("LinkLocalAddressing=no", "None"),
        ("Address=fd00::1/64\nIPv6AcceptRA=yes", "Static"),
    ],
)
def test_the_mode_of_ipv6(network, mode6):
    assert foreign_networkd.describe(CARD, foreign_files.sections(f"[Network]\n{network}"), {}).mode6 == mode6


# --- ifupdown ---

INTERFACES = """# by the installer
source /etc/network/interfaces.d/*

auto lo eth0
iface lo inet loopback

iface eth0 inet static
    address 10.0.0.7
    netmask 255.255.255.0
    gateway 10.0.0.1
    dns-nameservers 10.0.0.53 10.0.0.54
    dns-search a.example
# comment
iface eth0 inet6 static
    address fd00::7/64
    gateway fd00::1
"""


def test_a_fixed_address_of_ifupdown(root):
    root.put("etc/network/interfaces", INTERFACES)

    found = root.owner()

    assert (found.daemon, found.mode, found.mode6) == ("ifupdown", "Static", "Static")
    assert found.addresses == ("10.0.0.7/24", "fd00::7/64")
    assert (found.gateway, found.gateway6) == ("10.0.0.1", "fd00::1")
    assert (found.dns, found.search) == (("10.0.0.53", "10.0.0.54"), ("a.example",))
    assert found.files == ("/etc/network/interfaces",)
    assert root.owners(CARD._replace(name="eth1")) == ()


def test_an_included_file_and_dhclients_last_lease(root):
    root.put("etc/network/interfaces", "source /etc/network/interfaces.d/*\n")
    root.put("etc/network/interfaces.d/eth0", "allow-hotplug eth0\niface eth0 inet dhcp\n")
    root.put(
        "var/lib/dhcp/dhclient.eth0.leases",
        "lease {\n  fixed-address 10.0.0.5;\n}\n"
        'lease {\n  interface "eth0";\n  fixed-address 10.0.0.88;\n  option subnet-mask 255.255.254.0;\n'
        "  option routers 10.0.0.1;\n  option domain-name-servers 10.0.0.53,10.0.0.54;\n"
        '  option domain-name "a.example";\n  expire 1 2026/01/01 00:00:00;\n}\n',
    )

    found = root.owner()

    assert (found.mode, found.addresses, found.gateway) == ("DHCP", ("10.0.0.88/23",), "10.0.0.1")
    assert (found.dns, found.search) == (("10.0.0.53", "10.0.0.54"), ("a.example",))
    assert found.files == ("/etc/network/interfaces.d/eth0",)
    assert "/etc/network/interfaces.d/eth0" in found.disable


def test_a_port_of_ifupdowns_bridge_is_about_the_bridge(root):
    root.put(
        "etc/network/interfaces",
        "iface eth0 inet manual\nauto br0\n"
        "iface br0 inet static\n  bridge_ports eth0 \\\n   eth1\n  address 10.0.0.7/24\n",
    )

    found = root.owner()

    assert (found.through, found.mode, found.addresses) == ("br0", "Static", ("10.0.0.7/24",))
    assert "eth0|br0" in found.disable or "br0|eth0" in found.disable


def test_files_that_include_themselves_end(root):
    root.put("etc/network/interfaces", "source /etc/network/interfaces\niface eth0 inet dhcp\n")

    assert root.owner().mode == "DHCP"


@pytest.mark.parametrize(
    ("ports", "is_port"),
    [
        ("all", True),
        ("none", False),
        ("regex eth.* noregex eth1", True),
        ("regex en.*", False),
        ("regex (", False),
        ("noregex eth.*", False),
        ("eth1 regex (eth|en)[0-9]", True),
        ("glob eth*", True),
        ("glob eth[0-3]", True),
        ("glob eth0-3", True),
        ("glob eth1-3", False),
        ("glob eth[1-3]", False),
    ],
)
def test_ports_of_a_bridge_may_be_told_by_a_pattern(root, ports, is_port):
    root.put("etc/network/interfaces", f"iface xenbr0 inet dhcp\n  bridge_ports {ports}\n")

    assert [one.through for one in root.owners()] == ["xenbr0"] * is_port


@given(st.text(max_size=20), st.text(max_size=8))
def test_any_text_of_ports_is_read(ports, name):
    stanza = foreign_ifupdown.Stanza("br0", "inet", "dhcp", (("bridge_ports", ports),), "file")

    assert foreign_ifupdown._is_port(stanza, name) in (True, False)


def test_a_manual_card_is_still_ifupdowns(root):
    root.put("etc/network/interfaces", "auto eth0\niface eth0 inet manual\n")

    assert root.owner().mode == "None"


@pytest.mark.parametrize("pattern", ["/etc/x/**[", "", "../../../*", "/"])
def test_a_strange_pattern_is_passed_over(root, pattern):
    root.put("etc/network/interfaces", f"source {pattern}\niface eth0 inet dhcp\n")

    assert root.owner().daemon == "ifupdown"


# --- NetworkManager ---

KEYFILE = """[connection]
id=lan
uuid=9d3c1f
type=ethernet
interface-name=eth0

[ipv4]
method=manual
address1=10.0.0.7/24,10.0.0.1
dns=10.0.0.53;10.0.0.54;
dns-search=a.example;

[ipv6]
method=auto
"""


def test_a_fixed_address_of_networkmanager(root):
    root.enable("NetworkManager.service")
    root.put("etc/NetworkManager/system-connections/lan.nmconnection", KEYFILE)

    found = root.owner()

    assert (found.daemon, found.mode, found.mode6) == ("NetworkManager", "Static", "Autoconf")
    assert (found.addresses, found.gateway) == (("10.0.0.7/24",), "10.0.0.1")
    assert (found.dns, found.search) == (("10.0.0.53", "10.0.0.54"), ("a.example",))
    assert "unmanaged-devices+=interface-name:eth0" in found.disable


def test_the_connection_that_is_up_counts(root):
    root.put("run/NetworkManager/devices/2", "[device]\nmanaged=true\nconnection-uuid=77\n")
    root.put("etc/NetworkManager/system-connections/lan.nmconnection", KEYFILE)
    root.put(
        "run/NetworkManager/system-connections/Wired connection 1.nmconnection",
        "[connection]\nuuid=77\ntype=ethernet\n[ipv4]\nmethod=auto\n",
    )
    root.put("var/lib/NetworkManager/internal-77-eth0.lease", "ADDRESS=10.0.0.88\nNETMASK=255.255.255.0\n")

    found = root.owner()

    assert (found.mode, found.addresses) == ("DHCP", ("10.0.0.88/24",))
    assert found.files == ("/run/NetworkManager/system-connections/Wired connection 1.nmconnection",)


def test_a_connection_without_a_file_is_still_an_owner(root):
    root.put("run/NetworkManager/devices/2", "[device]\nmanaged=true\nconnection-uuid=77\n")

    assert root.owner().daemon == "NetworkManager"


def test_a_card_that_networkmanager_leaves_alone(root):
    root.enable("NetworkManager.service")
    root.put("etc/NetworkManager/system-connections/lan.nmconnection", KEYFILE)
    root.put("run/NetworkManager/devices/2", "[device]\nmanaged=false\n")

    assert root.owners() == ()


def test_a_connection_for_another_card_is_not_ours():
    other = foreign_files.sections(KEYFILE.replace("eth0", "eth1"))

    assert foreign_nm.matches(CARD, foreign_files.sections(KEYFILE))
    assert not foreign_nm.matches(CARD, other)
    assert not foreign_nm.matches(CARD, foreign_files.sections(KEYFILE.replace("=ethernet", "=bridge")))


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
