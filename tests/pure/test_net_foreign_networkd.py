"""What systemd-networkd has, from its files below a fabricated root."""

from __future__ import annotations

import pytest

from hostagent.net import foreign_files, foreign_networkd
from tests.pure.net_foreign import CARD, Root


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


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


@pytest.mark.parametrize("folder", ["etc/systemd/system", "run/systemd/system"])
@pytest.mark.parametrize("how", ["a link", "an empty file"])
def test_networkd_that_is_masked_has_no_card_though_its_links_are_still_there(root, tmp_path, folder, how):
    root.enable("systemd-networkd.service")
    root.put("etc/systemd/network/20-lan.network", STATIC)
    root.put(f"{folder}/systemd-networkd.service", "[Service]\n")
    assert [owner.daemon for owner in root.owners()] == ["systemd-networkd"]

    unit = tmp_path / folder / "systemd-networkd.service"
    unit.unlink()
    if how == "a link":
        unit.symlink_to("/dev/null")
    else:
        unit.write_text("")

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
