"""The name by which a server knows a card with a dhcpcd of the host's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import foreign_dhcpcd
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
    assert foreign_dhcpcd.client_id(NIC, root) == named


def test_a_card_without_a_dhcpcd_goes_by_its_mac_address(root):
    (root / "etc/dhcpcd.conf").write_text("duid\n")
    (root / "run/dhcpcd/eth0.pid").unlink()
    assert foreign_dhcpcd.client_id(NIC, root) == ""
    (root / "run/dhcpcd/eth0-4.pid").write_text("946\n")
    assert foreign_dhcpcd.client_id(NIC, root) == NAMED


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
    assert foreign_dhcpcd.client_id(NIC, root)[:2] in ("", "ff")
