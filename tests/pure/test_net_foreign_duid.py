"""The name by which a server knows a card with a DHCP client of the host's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import foreign_duid
from hostagent.net.foreign_files import Nic

NIC = Nic("eth0", 2, "52:54:00:77:01:00")
DUID = "00:01:00:01:32:96:e7:bb:52:54:00:77:01:00"
NAMED = f"ff:00:77:01:00:{DUID}"


@pytest.fixture
def root(tmp_path):
    for name, text in (("run/dhcpcd/eth0.pid", "946\n"), ("var/lib/dhcpcd/duid", f"{DUID}\n")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "etc").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ("hostname\nduid\npersistent\n", NAMED),
        ("duid ll\n", NAMED),
        ("", ""),
        ("#duid\nclientid\n", ""),
        ("duid\nclientid\n", ""),
        ("clientid\nduid\n", NAMED),
        ("duid\ninterface eth1\nclientid\n", NAMED),
        ("duid\ninterface eth1\nclientid\ninterface eth0\nclientid\n", ""),
    ],
)
def test_the_last_word_that_holds_for_the_card_counts(root, configuration, named):
    (root / "etc/dhcpcd.conf").write_text(configuration)
    assert foreign_duid.client_id(NIC, root) == named


def test_a_card_without_a_dhcpcd_goes_by_its_mac_address(root):
    (root / "etc/dhcpcd.conf").write_text("duid\n")
    (root / "run/dhcpcd/eth0.pid").unlink()
    assert foreign_duid.client_id(NIC, root) == ""
    (root / "run/dhcpcd/eth0-4.pid").write_text("946\n")
    assert foreign_duid.client_id(NIC, root) == NAMED


@given(st.text(), st.text())
def test_no_file_breaks_it(tmp_path_factory, configuration, duid):
    root = tmp_path_factory.mktemp("root")
    for name, text in (
        ("run/dhcpcd/eth0.pid", ""),
        ("var/lib/dhcpcd/duid", duid),
        ("etc/dhcpcd.conf", configuration),
    ):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text, errors="replace")
    assert foreign_duid.client_id(NIC, root)[:2] in ("", "ff")


LEASES = """\
default-duid "\\000\\001\\000\\0012\\227\\005\\370RT\\000w\\001\\000";
lease {
  interface "eth0";
  fixed-address 192.0.2.11;
}
"""
"""As dhclient 4.4.3 writes it."""
NAMED_SO = "ff:00:77:01:00:00:01:00:01:32:97:05:f8:52:54:00:77:01:00"
"""As its server had it."""
COMMAND = "dhclient -4 -v -i -pf /run/dhclient.eth0.pid eth0"


def with_dhclient(root, command, leases):
    for name, content in (
        ("run/dhclient.eth0.pid", "657\n"),
        ("proc/657/cmdline", command.replace(" ", "\0") + "\0"),
        ("var/lib/dhcp/dhclient.eth0.leases", leases),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, errors="replace")


@pytest.mark.parametrize(
    ("command", "leases", "named"),
    [
        (COMMAND, LEASES, NAMED_SO),
        (COMMAND.replace("-i ", ""), LEASES, ""),
        (COMMAND, LEASES.replace("default-duid", "server-duid"), ""),
        (COMMAND, 'default-duid "\\000\\003\\000\\001\\"\\\\";\n', "ff:00:77:01:00:00:03:00:01:22:5c"),
        (COMMAND, f'default-duid "\\000\\001";\n{LEASES}', NAMED_SO),
    ],
)
def test_dhclient_of_ifupdown_goes_by_the_duid_of_its_leases(tmp_path, command, leases, named):
    with_dhclient(tmp_path, command, leases)
    assert foreign_duid.client_id(NIC, tmp_path) == named


def test_a_dhclient_that_has_ended_says_nothing(tmp_path):
    with_dhclient(tmp_path, COMMAND, LEASES)
    (tmp_path / "proc/657/cmdline").unlink()
    assert foreign_duid.client_id(NIC, tmp_path) == ""


@given(st.text(), st.text())
def test_no_leases_break_it(tmp_path_factory, command, leases):
    root = tmp_path_factory.mktemp("root")
    with_dhclient(root, f"dhclient -i {command}", f'default-duid "{leases}";')
    assert foreign_duid.client_id(NIC, root)[:2] in ("", "ff")
