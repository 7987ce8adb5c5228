"""What ifupdown has, from its files below a fabricated root."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import foreign_ifupdown
from tests.pure.net_foreign import CARD, Root


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


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
