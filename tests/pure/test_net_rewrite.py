"""`interface-reconfigure --force BRIDGE rewrite`: what can never come up must not displace the good cached copy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import cache, inet, reconfigure
from tests.pure.net_machine import MAC, records

STATIC = ("--mode=static", "--ip=192.0.2.10", "--netmask=255.255.255.0")


@pytest.fixture
def rewrite(tmp_path, capsys):
    """The rewrite on a root of its own that has a good copy; exit code, and what it said."""
    folder = tmp_path / reconfigure.STATE / "net"
    cache.write(folder, records())

    def run(*words, mac=MAC, device="eth0"):
        fixed = ("--root-prefix", str(tmp_path), "--no-syslog", "--force", "xenbr0", "rewrite")
        code = reconfigure.main([*fixed, f"--device={device}", f"--mac={mac}", *words])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    run.kept = lambda: cache.read(folder).cached  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize(
    "mac",
    ["zz", "525400000001", "52:54:00:00:00", "52:54:00:00:00:01:02", "52:54:00:00:00:0g", "52:54:00:00:00:+1",
     "53:54:00:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "52-54-00-00-00-01", "5:254:00:00:00:01"],
)  # fmt: skip
@pytest.mark.parametrize("plan", [(), ("--plan",)])
def test_what_is_no_mac_address_of_a_device_is_refused(rewrite, mac, plan):
    code, said = rewrite("--mode=dhcp", *plan, mac=mac)

    assert code == 1
    assert f"--mac={mac} is no MAC address of a device\nhint: ip link show eth0" in said
    assert rewrite.kept().records == records()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*STATIC, "--gateway=198.51.100.1"), "the gateway 198.51.100.1 is in no subnet"),
        ((*STATIC, "--gateway=192.0.2.10"), "the gateway 192.0.2.10 is in no subnet"),
        ((*STATIC, "--gateway=2001:db8::1"), "is no IPv4 address"),
        (("--mode=static", "--ip=192.0.2.255", "--netmask=255.255.255.0"), "cannot be a host's"),
        (("--mode=static", "--ip=192.0.2.10", "--netmask=0.0.0.0"), "cannot be a host's|is none"),
    ],
)
def test_what_no_host_can_have_is_refused(rewrite, words, told):
    code, said = rewrite(*words)

    assert code == 1
    assert any(each in said for each in told.split("|"))
    assert rewrite.kept().records == records()


def test_a_bridge_cannot_have_the_name_of_its_nic(rewrite):
    assert rewrite("--mode=dhcp", device="xenbr0")[0] == 1
    assert rewrite.kept().records == records()


def test_what_is_right_is_written_with_the_mac_in_lower_case(rewrite):
    code, said = rewrite(*STATIC, "--gateway=192.0.2.1", mac="52:54:00:AB:CD:EF")

    assert code == 0, said
    (pif,) = rewrite.kept().records.pifs.values()
    assert (pif.mac, pif.ip, pif.gateway) == ("52:54:00:ab:cd:ef", "192.0.2.10", "192.0.2.1")


@given(st.text() | st.from_regex(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", fullmatch=True))
def test_a_mac_address_is_six_pairs_of_digits_of_one_device(text):
    try:
        packed = bytes(int(part, 16) for part in text.split(":"))
        right = packed.hex(":") == text and len(packed) == 6 and not packed[0] & 1 and any(packed)
    except ValueError:
        right = False
    assert inet.is_mac(text) is right
