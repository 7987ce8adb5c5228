"""What NetworkManager has, from its files below a fabricated root."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import foreign_files, foreign_nm, foreign_nm_conf
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


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        ({"etc/NetworkManager/conf.d/a.conf": "[keyfile]\nunmanaged-devices+=interface-name:eth0;\n"}, True),
        ({"etc/NetworkManager/conf.d/a.conf": "[device-x]\nmatch-device=driver:virtio*\nmanaged=0\n"}, True),
        ({"etc/NetworkManager/NetworkManager.conf": "[device]\nmanaged=false\n"}, True),
        (
            {"etc/NetworkManager/conf.d/a.conf": "[device-x]\nmatch-device=interface-name:eth1\nmanaged=0\n"},
            False,
        ),
        # the main file comes after the folders below /usr and /run, and before that below /etc
        (
            {
                "usr/lib/NetworkManager/conf.d/a.conf": "[keyfile]\nunmanaged-devices=*\n",
                "etc/NetworkManager/NetworkManager.conf": "[keyfile]\nunmanaged-devices=type:wifi\n",
            },
            False,
        ),
        (
            {
                "etc/NetworkManager/NetworkManager.conf": "[keyfile]\nunmanaged-devices=*\n",
                "etc/NetworkManager/conf.d/a.conf": "[keyfile]\nunmanaged-devices-=*\n",
            },
            False,
        ),
        # a file of the same name hides that of a folder before
        (
            {
                "usr/lib/NetworkManager/conf.d/a.conf": "[keyfile]\nunmanaged-devices=*\n",
                "run/NetworkManager/conf.d/a.conf": "",
            },
            False,
        ),
    ],
)
def test_before_it_has_started_its_configuration_counts(root, files, kept):
    root.enable("NetworkManager.service")
    root.put("etc/NetworkManager/system-connections/lan.nmconnection", KEYFILE)
    assert root.owners()
    for name, content in files.items():
        root.put(name, content)
    assert bool(root.owners()) is not kept


@pytest.mark.parametrize(
    ("specs", "hit"),
    [
        ("eth0", True),
        ("eth", False),
        ("02:00:00:00:00:01", True),
        ("mac:02:00:00:00:00:01", True),
        ("mac:02:00:00:00:00:02", False),
        ("interface-name:eth*", True),
        ("interface-name:~eth?", True),
        ("interface-name:=eth*", False),
        ("interface-name:=eth0", True),
        ("interface-name:eth[0]", False),
        ("type:ethernet", True),
        ("type:wifi", False),
        ("* except:interface-name:eth0", False),
        ("except:interface-name:eth0", False),
        ("except:interface-name:eth1", True),
        ("except:type:wifi eth1", False),
        ("", False),
    ],
)
def test_device_lists(specs, hit):
    assert foreign_nm_conf.listed(CARD, specs.split()) is hit


@given(text=st.text(max_size=200))
def test_no_text_breaks_its_reader(tmp_path_factory, text):
    root = Root(tmp_path_factory.mktemp("root"))
    root.put("etc/NetworkManager/NetworkManager.conf", f"[keyfile]\nunmanaged-devices={text}")
    assert foreign_nm_conf.unmanaged(CARD, root.path) in (True, False)


def test_a_connection_for_another_card_is_not_ours():
    other = foreign_files.sections(KEYFILE.replace("eth0", "eth1"))

    assert foreign_nm.matches(CARD, foreign_files.sections(KEYFILE))
    assert not foreign_nm.matches(CARD, other)
    assert not foreign_nm.matches(CARD, foreign_files.sections(KEYFILE.replace("=ethernet", "=bridge")))
