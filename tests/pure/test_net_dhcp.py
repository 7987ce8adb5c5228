"""DHCP: what the client is told, and how it is started, awaited and stopped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import InvalidValueError
from hostagent.net import dhcp
from hostagent.net.devices import Lease
from hostagent.net.dhcp import Client, DhcpError
from tests.pure.net_dhcp import CARRIER, FOUND4, LEASE4, Host


@pytest.fixture
def host(monkeypatch):
    made = Host()
    monkeypatch.setattr(dhcp, "run", made.run)
    return made


def lines(**wishes):
    return dhcp.configuration(Client("xenbr0", **{"ipv4": True, "ipv6": False, **wishes})).splitlines()


def test_the_client_runs_no_hooks_tries_for_ever_and_keeps_its_address_when_it_ends():
    assert {"script /bin/true", "timeout 0", "persistent", "noipv4ll", "noipv6rs", "clientid"} <= set(lines())


def test_only_the_owner_of_the_gateway_asks_for_routers():
    other, owner = lines(), lines(gateway=True)

    assert "nogateway" in other
    assert "nooption routers static_routes classless_static_routes" in other
    assert "option routers classless_static_routes" in owner
    assert not [line for line in owner if line.startswith(("nogateway", "nooption"))]


def test_only_the_owner_of_dns_asks_for_name_servers():
    assert not [line for line in lines(ipv6=True) if "name" in line]
    assert "option domain_name_servers domain_name domain_search" in lines(dns4=True)
    assert "option dhcp6_name_servers dhcp6_domain_search" in lines(ipv6=True, dns6=True)


def test_each_family_alone_leaves_the_other_to_others():
    assert "noipv6" in lines()
    only6 = lines(ipv4=False, ipv6=True)
    assert "noipv4" in only6
    assert only6[-2:] == ["interface xenbr0", "ia_na"]


def test_what_else_a_client_may_be_told():
    told = lines(hostname="h1.example", client_id="ff:01:02", request="10.0.0.7", keep_last=True)

    assert {"hostname h1.example", "clientid ff:01:02", "request 10.0.0.7", "lastleaseextend"} <= set(told)


@pytest.mark.parametrize("bad", ["a\nscript /tmp/x", "a b", 'a"', "a#b", "a\\"])
def test_a_value_cannot_become_another_line(bad):
    with pytest.raises(InvalidValueError, match="hostname") as caught:
        lines(hostname=bad)

    assert caught.value.params == ("hostname", bad)


@given(st.text())
def test_a_configuration_has_no_line_that_a_value_made(text):
    try:
        made = lines(hostname=text)
    except InvalidValueError:
        return
    assert [line.split()[0] for line in made] == [
        line.split()[0] for line in lines(hostname="h" if text else "")
    ]


def test_leases_of_both_families_make_one_client():
    wanted = [
        Lease("xenbr0", 4, gateway=True, dns=True, hostname="h1"),
        Lease("xenbr0", 6, gateway=False, dns=False, hostname="h1"),
        Lease("xapi1", 6, gateway=True, dns=True),
    ]

    assert dhcp.of_leases(wanted, management="xenbr0") == {
        "xenbr0": Client(
            "xenbr0", ipv4=True, ipv6=True, gateway=True, dns4=True, hostname="h1", keep_last=True
        ),
        "xapi1": Client("xapi1", ipv4=False, ipv6=True, dns6=True),
    }


def test_a_client_is_a_unit_of_its_own_that_always_comes_back(tmp_path, host):
    client = Client("xenbr0", ipv4=True, ipv6=False)

    assert dhcp.ensure(client, tmp_path) == "started"

    (started,) = host.did("systemd-run")
    assert "--unit=hostagent-dhcp-xenbr0.service" in started
    assert "--property=Restart=always" in started
    assert started.endswith(f"-- dhcpcd --nobackground --config {tmp_path}/dhcp/xenbr0.conf xenbr0")
    assert (tmp_path / "dhcp/xenbr0.conf").read_text() == dhcp.configuration(client)


@pytest.mark.parametrize(
    ("told", "wishes", "puts"),
    [
        ("dhcpcd 9.4.1\nCopyright", {"keep_last": True}, True),
        ("dhcpcd 9.4.1\n", {"keep_last": False}, False),
        ("dhcpcd 9.4.1\n", {"keep_last": True, "ipv4": False, "ipv6": True}, False),
        ("dhcpcd 10.1.0\n", {"keep_last": True}, False),
        ("something else", {"keep_last": True}, False),
    ],
)
def test_the_address_of_the_last_lease_is_there_before_a_client_that_needs_it(
    tmp_path, host, told, wishes, puts
):
    host.version = told
    client = Client("xenbr0", **{"ipv4": True, "ipv6": False, **wishes})
    dhcp.ensure(client, tmp_path, put_last=lambda: host.ran.append("put"))
    assert host.ran.count("put") == puts
    if puts:
        assert host.ran.index("put") < host.ran.index(host.did("systemd-run")[0])


def test_a_client_that_does_what_is_wanted_is_left_alone(tmp_path, host):
    client = Client("xenbr0", ipv4=True, ipv6=False)
    dhcp.ensure(client, tmp_path)
    host.ran.clear()

    assert dhcp.ensure(client, tmp_path) == "unchanged"
    assert [line for line in host.ran if "show" not in line] == []


def test_another_wish_restarts_it_without_giving_the_lease_back(tmp_path, host):
    client = Client("xenbr0", ipv4=True, ipv6=False)
    dhcp.ensure(client, tmp_path)
    host.ran.clear()

    assert dhcp.ensure(client._replace(gateway=True), tmp_path) == "restarted"
    assert host.did("systemctl stop")
    assert not [line for line in host.ran if "--release" in line]
    assert "nogateway" not in (tmp_path / "dhcp/xenbr0.conf").read_text()


def test_a_client_that_died_with_the_host_is_started_with_the_same_file(tmp_path, host):
    client = Client("xenbr0", ipv4=True, ipv6=False)
    dhcp.ensure(client, tmp_path)
    host.active = False

    assert dhcp.ensure(client, tmp_path) == "started"


def test_without_the_program_the_package_is_named(tmp_path, host):
    host.fails = "dhcpcd"

    with pytest.raises(DhcpError, match="DHCP client of xenbr0 could not be started") as caught:
        dhcp.ensure(Client("xenbr0", ipv4=True, ipv6=False), tmp_path)

    assert "apt-get install" in caught.value.hint
    assert caught.value.code == "PIF_CONFIGURATION_ERROR"


def test_stopping_gives_the_lease_back_first(tmp_path, host):
    dhcp.ensure(Client("xenbr0", ipv4=True, ipv6=False), tmp_path)
    host.ran.clear()

    assert dhcp.stop("xenbr0", tmp_path) is True
    assert [line.split()[-1] for line in host.ran if "show" not in line] == [
        "xenbr0",
        "hostagent-dhcp-xenbr0.service",
    ]
    assert "--release" in host.did("dhcpcd")[0]
    assert dhcp.stop("xenbr0", tmp_path) is False


def test_waiting_ends_with_the_lease(host):
    host.dumps = ["", CARRIER, LEASE4]
    slept: list[float] = []

    assert dhcp.wait("xenbr0", 4, timeout_s=60, sleep=slept.append) == FOUND4
    assert len(slept) == 2


def test_at_the_deadline_it_is_told_what_was_tried(host):
    host.journal = (
        "xenbr0: sending DISCOVER (xid 0x1)\ndhcpcd-9.4.1 starting\n"
        + 3 * "xenbr0: sending DISCOVER (xid 0x2), next in 3.5 seconds\n"
        + "control command: dhcpcd -4 -U xenbr0\ncontrol_free: No such file or directory\n"
    )

    with pytest.raises(
        DhcpError, match=r"no address on xenbr0 after 0 s: no DHCP answer \(3 discovers\)"
    ) as caught:
        dhcp.wait("xenbr0", 4, timeout_s=0)

    assert "journalctl -u hostagent-dhcp-xenbr0.service" in caught.value.hint


def test_both_families_tries_are_counted_and_not_our_own_questions():
    log = (
        "dhcpcd-9.4.1 starting\nxenbr0: delaying SOLICIT6 (xid 0x1)\nxenbr0: broadcasting SOLICIT6 (xid 0x1)\n"
        "xenbr0: ADV fd09::1/128 from fe80::1\nxenbr0: sending REQUEST (xid 0x2), next in 4.1 seconds\n"
        "control command: dhcpcd -6 -U xenbr0\ncontrol_free: No such file or directory\n"
    )

    found = dhcp.tries(log)

    assert found[:4] == (1, 1, 1, 0)
    assert found.last == "xenbr0: sending REQUEST (xid 0x2), next in 4.1 seconds"


@given(st.text())
def test_no_log_breaks_the_count(text):
    assert min(dhcp.tries(text)[:4]) >= 0


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("xenbr0: offered 10.0.0.9 from 10.0.0.1\n", "1 offers, none confirmed"),
        ("xenbr0: offered 10.0.0.9 from 10.0.0.1\nxenbr0: NAK: from 10.0.0.1\n", r"refused .*\(1 times\)"),
        ("xenbr0: hardware address 00:11:22:33:44:55 claims 10.0.0.9\n", "00:11:22:33:44:55 claims"),
    ],
)
def test_an_offer_that_came_to_nothing_is_another_case(log, said):
    with pytest.raises(DhcpError, match=said):
        raise dhcp.no_answer("xenbr0", 20, dhcp.tries(log))
