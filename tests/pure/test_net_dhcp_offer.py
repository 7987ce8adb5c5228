"""What a DHCP server offers, asked by a dhcpcd that takes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import dhcp_offer
from hostagent.net.dhcp import Client, DhcpError
from hostagent.run import CommandError, Finished

CLIENT = Client("eth0", ipv4=True, ipv6=False, client_id="ff:00:01", request="192.0.2.10")
SAID = """\
dhcpcd-10.1.0 starting
eth0: soliciting a DHCP lease (requesting 192.0.2.10)
eth0: sending DISCOVER (xid 0x40f5f156), next in 4.4 seconds
eth0: offered 192.0.2.10 from 192.0.2.254
eth0: executing: /bin/true TEST
"""


@pytest.fixture
def dhcpcd(monkeypatch):
    """A dhcpcd that says this, and what it was told."""

    class Dhcpcd:
        says = SAID
        argv: tuple[str, ...] = ()
        text = ""

        def run(self, argv, **_):
            self.argv = tuple(argv)
            self.text = Path(argv[argv.index("--config") + 1]).read_text()
            return Finished(self.argv, 0, "", self.says, 0.1)

    found = Dhcpcd()
    monkeypatch.setattr(dhcp_offer, "run", found.run)
    return found


def test_the_offer_is_asked_for_by_the_same_name_and_not_taken(dhcpcd, tmp_path):
    assert dhcp_offer.offered(CLIENT, tmp_path, 8.0) == "192.0.2.10"
    unit, client = dhcpcd.argv[: dhcpcd.argv.index("--")], dhcpcd.argv[dhcpcd.argv.index("--") :]
    assert {"--wait", "--pipe", "--property=TemporaryFileSystem=/var/lib/dhcpcd"} <= set(unit)
    assert {"--test", "--oneshot", "eth0"} <= set(client)
    assert dhcpcd.argv[dhcpcd.argv.index("--timeout") + 1] == "8"
    assert "clientid ff:00:01\n" in dhcpcd.text
    assert "request 192.0.2.10\n" in dhcpcd.text
    assert list((tmp_path / "dhcp-offer").iterdir()) == []


def test_no_offer_is_nothing(dhcpcd, tmp_path):
    dhcpcd.says = "eth0: sending DISCOVER (xid 0x1), next in 4.0 seconds\ntimed out\n"
    assert dhcp_offer.offered(CLIENT, tmp_path, 0.1) == ""
    assert dhcpcd.argv[dhcpcd.argv.index("--timeout") + 1] == "1"


@pytest.mark.parametrize(
    "says",
    [
        "",
        "Failed to find executable dhcpcd",
        "Failed to connect to bus: Connection timed out",
        "eth0: interface not found\ndhcpcd exited",
    ],
)
def test_what_could_not_ask_is_no_silence(dhcpcd, tmp_path, says):
    dhcpcd.says = says
    with pytest.raises(DhcpError, match="could be asked on eth0: ") as caught:
        dhcp_offer.offered(CLIENT, tmp_path, 1.0)
    assert "apt-get install dhcpcd-base" in caught.value.hint


def test_without_systemd_run_nothing_is_left(monkeypatch, tmp_path):
    def run(argv, **words):
        raise CommandError(argv, "was not found", hint=f"apt-get install {words['package']}")

    monkeypatch.setattr(dhcp_offer, "run", run)
    with pytest.raises(CommandError, match="was not found"):
        dhcp_offer.offered(CLIENT, tmp_path, 1.0)
    assert list((tmp_path / "dhcp-offer").iterdir()) == []


@given(st.text())
def test_no_log_breaks_it(text):
    found = dhcp_offer.address_in(text)
    assert found == "" or found in text
