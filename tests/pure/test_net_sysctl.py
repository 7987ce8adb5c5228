"""IPv6 modes as files of /proc/sys, over a small tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import BugError
from hostagent.net import sysctl
from hostagent.net.sysctl import Ipv6, SysctlError, ipv6_files, ipv6_of_host, read, read_ipv6, write

MODES = ("off", "link-local", "static", "dhcp", "autoconf")


@pytest.fixture
def host(tmp_path):
    """A root with devices `default`, `all` and one whose name has a dot, as new ones have their settings."""
    for device in ("all", "default", "eth0.5"):
        folder = tmp_path / "proc/sys/net/ipv6/conf" / device
        folder.mkdir(parents=True)
        for name, value in (
            ("accept_ra", 1),
            ("accept_ra_defrtr", 1),
            ("autoconf", 1),
            ("disable_ipv6", 0),
            ("forwarding", 0),
        ):
            (folder / name).write_text(f"{value}\n")
    return tmp_path


def conf(host, device, name):
    return host / "proc/sys/net/ipv6/conf" / device / name


def test_off_is_the_whole_switch():
    assert ipv6_files("eth0", "off") == (("net/ipv6/conf/eth0/disable_ipv6", "1"),)


@pytest.mark.parametrize(
    ("mode", "advertisements", "addresses"),
    [("link-local", "0", "0"), ("static", "0", "0"), ("dhcp", "1", "0"), ("autoconf", "1", "1")],
)
def test_ipv6_is_switched_on_after_it_is_known_what_to_make_of_advertisements(
    mode, advertisements, addresses
):
    routers = (("net/ipv6/conf/xenbr0/accept_ra_defrtr", "0"),) if advertisements == "1" else ()
    assert ipv6_files("xenbr0", mode) == (
        *routers,
        ("net/ipv6/conf/xenbr0/accept_ra", advertisements),
        ("net/ipv6/conf/xenbr0/autoconf", addresses),
        ("net/ipv6/conf/xenbr0/disable_ipv6", "0"),
    )


@pytest.mark.parametrize("mode", ["dhcp", "autoconf"])
def test_a_router_heeds_advertisements_only_when_told_so_with_2(mode):
    assert ("net/ipv6/conf/xenbr0/accept_ra", "2") in ipv6_files("xenbr0", mode, Ipv6(forwarding=True))
    assert ipv6_files("xenbr0", "static", Ipv6(forwarding=True))[0][1] == "0"


@pytest.mark.parametrize("mode", ["dhcp", "autoconf"])
def test_the_default_route_of_routers_is_for_the_owner_of_the_gateway(mode):
    routers = "net/ipv6/conf/xenbr0/accept_ra_defrtr"

    assert dict(ipv6_files("xenbr0", mode))[routers] == "0"
    assert dict(ipv6_files("xenbr0", mode, gateway=True))[routers] == "1"
    assert routers not in dict(ipv6_files("xenbr0", "static", gateway=True))


@pytest.mark.parametrize("mode", MODES)
def test_a_kernel_without_ipv6_has_nothing_to_set(mode):
    assert ipv6_files("xenbr0", mode, Ipv6(present=False)) == ()


def test_where_the_operator_switched_ipv6_off_a_network_without_it_does_not_get_it_back():
    off = Ipv6(enabled=False)

    assert ipv6_files("xenbr0", "link-local", off) == ipv6_files("xenbr0", "off")
    assert ipv6_files("xenbr0", "static", off) == ipv6_files("xenbr0", "static")


def test_why_no_device_is_to_have_ipv6_is_told():
    assert Ipv6().why_not == ""
    assert "disable_ipv6" in Ipv6(enabled=False).why_not
    assert "ipv6.disable=1" in Ipv6(present=False, enabled=False).why_not


def test_the_host_is_read_from_what_holds_for_all_devices(host):
    assert ipv6_of_host(host) == Ipv6()
    conf(host, "all", "disable_ipv6").write_text("1\n")
    conf(host, "all", "forwarding").write_text("1\n")
    assert ipv6_of_host(host) == Ipv6(enabled=False, forwarding=True)


def test_a_kernel_without_ipv6_is_known_by_its_missing_files(tmp_path):
    assert ipv6_of_host(tmp_path) == Ipv6(present=False, enabled=False)
    assert read_ipv6(tmp_path, ["eth0"]) == {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("forwarding", [False, True])
def test_a_mode_that_was_written_is_read_back(host, mode, forwarding):
    known = Ipv6(forwarding=forwarding)
    for path, value in ipv6_files("eth0.5", mode, known):
        write(host, path, value)

    found = read_ipv6(host, ["eth0.5"])
    assert dict(ipv6_files("eth0.5", mode, known)).items() <= found.items()
    assert found["net/ipv6/conf/default/autoconf"] == "1"


def test_a_device_with_a_dot_in_its_name_is_one_folder(host):
    write(host, "net/ipv6/conf/eth0.5/disable_ipv6", "1")

    assert conf(host, "eth0.5", "disable_ipv6").read_text() == "1\n"


def test_a_device_that_is_gone_is_left_out_of_a_look(host):
    assert not [path for path in read_ipv6(host, ["gone", "eth0.5"]) if "/gone/" in path]
    assert read(host, "net/ipv6/conf/gone/accept_ra") is None


def test_writing_for_a_device_that_is_gone_is_an_error_that_says_so(host):
    with pytest.raises(SysctlError) as caught:
        write(host, "net/ipv6/conf/gone/accept_ra", "1")

    assert "net/ipv6/conf/gone/accept_ra" in caught.value.found
    assert "ip link" in caught.value.hint
    assert not conf(host, "gone", "accept_ra").exists()


def test_a_setting_that_stays_as_it_was_is_an_error(host):
    path = conf(host, "eth0.5", "accept_ra")
    path.unlink()
    path.symlink_to("/dev/null")  # takes what is written, and holds nothing

    with pytest.raises(SysctlError, match="was set to 1 and is"):
        write(host, "net/ipv6/conf/eth0.5/accept_ra", "1")


def test_what_cannot_be_read_is_an_error(host):
    path = conf(host, "eth0.5", "accept_ra")
    path.unlink()
    path.mkdir()

    with pytest.raises(SysctlError, match="cannot be read"):
        read(host, "net/ipv6/conf/eth0.5/accept_ra")


@pytest.mark.parametrize("path", ["/etc/passwd", "net/../../../etc/passwd", "", "net//ipv4", "./net"])
def test_a_path_that_leads_out_of_proc_sys_is_a_bug(host, path):
    with pytest.raises(BugError):
        write(host, path, "1")


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=15))
def test_any_name_of_a_device_stays_in_its_folder(device):
    for mode in MODES:
        for path, value in ipv6_files(device, mode):
            assert path.startswith("net/ipv6/conf/")
            assert path.split("/")[3] == device
            assert value in ("0", "1")


def test_every_mode_of_a_device_is_known():
    assert set(sysctl.MODES) == set(MODES)
