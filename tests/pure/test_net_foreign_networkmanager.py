"""What NetworkManager has, from its files below a fabricated root."""

from __future__ import annotations

import pytest

from hostagent.net import foreign_files, foreign_nm
from tests.pure.net_foreign import CARD, Root


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


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
