"""DHCP: what the client is told, how it is started and stopped, its lease, and which other clients there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import InvalidValueError
from hostagent.net import client_ids, dhcp, dhcp_clients, dhcp_lease
from hostagent.net import host as net_host
from hostagent.net.devices import Address, Lease, Wanted
from hostagent.net.dhcp import Client, DhcpError
from hostagent.net.dhcp_lease import Leased
from hostagent.net.operation import Operation
from hostagent.run import CommandError, Finished
from tests.pure.net_kernel import FakeKernel

# as dhcpcd 9.4.1 prints it
LEASE4 = """reason=BOUND
interface=xenbr0
protocol=dhcp
ip_address=10.9.0.56
subnet_cidr=24
network_number=10.9.0.0
subnet_mask=255.255.255.0
routers=10.9.0.1
domain_name_servers=10.9.0.53 10.9.0.54
domain_name=a.example
dhcp_lease_time=3600
dhcp_server_identifier=10.9.0.1
domain_search=a.example b.example
"""
LEASE6 = """reason=ROUTERADVERT
interface=xenbr0
protocol=ra
nd1_rdnss1_servers=fd09::53

reason=BOUND6
interface=xenbr0
protocol=dhcp6
dhcp6_server_id=000100013294f0029ede1f21e2fb
dhcp6_ia_na1_iaid=5001f059
dhcp6_ia_na1_ia_addr1=fd09::1cc
dhcp6_ia_na1_ia_addr1_pltime=3600
dhcp6_ia_na1_ia_addr1_vltime=7200
dhcp6_name_servers=fd09::53
dhcp6_domain_search=six.example
"""
CARRIER = "reason=CARRIER\ninterface=xenbr0\nifcarrier=up\n"
FOUND4 = Leased(
    4,
    "BOUND",
    ("10.9.0.56/24",),
    ("10.9.0.1",),
    ("10.9.0.53", "10.9.0.54"),
    ("a.example", "b.example"),
    "10.9.0.1",
    3600,
)


class Host:
    """systemd and dhcpcd, by what they are asked."""

    def __init__(self):
        self.ran = []
        self.active = False
        self.dumps = []
        self.journal = ""
        self.fails = ""

    def run(self, argv, *, timeout_s, package=None, check=True):
        del timeout_s, package, check
        self.ran.append(" ".join(argv))
        if self.fails and argv[0] == self.fails:
            raise CommandError(argv, "was not found", hint="apt-get install it")
        out = ""
        match argv[:2]:
            case ["systemctl", "show"]:
                out = "active\n" if self.active else "inactive\n"
            case ["systemctl", "stop"]:
                self.active = False
            case ["systemd-run", _]:
                self.active = True
            case ["dhcpcd", "-4" | "-6"]:
                out = self.dumps.pop(0) if self.dumps else ""
            case ["journalctl", _]:
                out = self.journal
        return Finished(tuple(argv), 0, out, "", 0.0)

    def did(self, program):
        return [line for line in self.ran if line.startswith(program) and "show" not in line]


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


# --- leases ---


def test_a_lease_is_read():
    assert dhcp_lease.parse_lease(LEASE4, 4) == FOUND4
    assert dhcp_lease.parse_lease(LEASE6, 6) == Leased(
        6,
        "BOUND6",
        ("fd09::1cc/128",),
        dns=("fd09::53",),
        search=("six.example",),
        server="000100013294f0029ede1f21e2fb",
        lease_s=7200,
    )


def test_all_families_at_once_are_kept_apart():
    both = CARRIER + LEASE4 + "\n" + LEASE6

    assert dhcp_lease.parse_lease(both, 4) == FOUND4
    found = dhcp_lease.parse_lease(both, 6)
    assert found is not None
    assert found.addresses == ("fd09::1cc/128",)


@pytest.mark.parametrize(
    "text", ["", CARRIER, LEASE4.replace("BOUND", "EXPIRE"), LEASE4.replace("ip_address", "x")]
)
def test_what_is_no_lease_in_use_is_none(text):
    assert dhcp_lease.parse_lease(text, 4) is None


def test_the_last_lease_in_use_for_want_of_a_server_is_stale():
    found = dhcp_lease.parse_lease(LEASE4.replace("BOUND", "TIMEOUT"), 4)

    assert found is not None
    assert found.stale
    assert not FOUND4.stale


@given(st.text(), st.sampled_from([4, 6]))
def test_no_text_breaks_the_reader(text, family):
    found = dhcp_lease.parse_lease(f"reason=BOUND\nreason=BOUND6\n{text}", family)

    assert found is None or found.addresses


def test_the_last_lease_is_kept_and_stale_ones_do_not_replace_it(tmp_path):
    dhcp_lease.keep_last("xenbr0", FOUND4, tmp_path)
    dhcp_lease.keep_last("xenbr0", FOUND4._replace(reason="TIMEOUT", addresses=("10.9.0.1/24",)), tmp_path)

    assert dhcp_lease.last("xenbr0", 4, tmp_path) == FOUND4
    assert dhcp_lease.last("xenbr0", 6, tmp_path) is None
    assert dhcp_lease.last("xenbr1", 4, tmp_path) is None


@given(
    st.one_of(
        st.text(),
        st.sampled_from(
            ["{}", "null", "[4]", '{"family": 4}', '{"family": 4, "addresses": [], "reason": 1}']
        ),
    )
)
def test_a_damaged_file_is_as_none(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("state")
    file = dhcp_lease.last_file("xenbr0", 4, folder)
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8", errors="surrogatepass")

    assert dhcp_lease.last("xenbr0", 4, folder) is None


# --- other clients ---

PACKET = (
    "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"
    "ffff888100000000 3      3    0003   2     1 0      0      4711\n"
    "ffff888100000001 3      3    0800   0     1 0      0      4712\n"
)
UDP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   1: 0700000A:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 5150 2\n"
    "   2: 0700000A:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 5151 2\n"
)


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def process(root, pid, comm, *words, sockets=(), unit=""):
    put(root, f"proc/{pid}/comm", f"{comm}\n")
    put(root, f"proc/{pid}/cmdline", "\0".join(words) + "\0")
    put(root, f"proc/{pid}/cgroup", f"0::/system.slice/{unit}\n" if unit else "0::/user.slice\n")
    for number, inode in enumerate(sockets):
        link = root / f"proc/{pid}/fd/{number}"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(f"socket:[{inode}]")


@pytest.fixture
def machine(tmp_path):
    put(tmp_path, "sys/class/net/eth0/ifindex", "2\n")
    put(tmp_path, "proc/net/packet", PACKET)
    put(tmp_path, "proc/net/udp", UDP)
    put(tmp_path, "proc/self-made", "")
    return tmp_path


@pytest.mark.parametrize(
    ("program", "words", "devices"),
    [
        ("dhclient", ["dhclient", "-4", "-v", "-pf", "/run/dhclient.eth0.pid", "eth0"], ["eth0"]),
        ("dhclient", ["dhclient"], [""]),
        ("dhcpcd", ["dhcpcd: eth1 [ip4] [ip6]              "], ["eth1"]),
        ("dhcpcd", ["dhcpcd: [manager] [ip4] [ip6]"], [""]),
        ("dhcpcd", ["dhcpcd: [privileged proxy] eth1 [ip4]"], []),
        ("dhcpcd", ["dhcpcd", "-f", "/run/x.conf", "-B", "eth1"], ["eth1"]),
        ("udhcpc", ["udhcpc", "-i", "eth2", "-s", "/script"], ["eth2"]),
        ("udhcpc", ["udhcpc", "--interface=eth2"], ["eth2"]),
        ("udhcpc", ["udhcpc", "-ieth3"], ["eth3"]),
        ("systemd-networkd", ["/usr/lib/systemd/systemd-networkd"], []),
    ],
)
def test_a_command_line_names_its_devices(program, words, devices):
    assert dhcp_clients.devices_of(program, words) == devices


def test_a_client_by_hand_is_named_with_what_ends_it(machine):
    process(machine, 40, "dhclient", "dhclient", "eth0", sockets=[4711])

    (client,) = dhcp_clients.foreign("eth0", machine, {})

    assert (client.program, client.pid, client.unit, client.ending) == ("dhclient", 40, "", "kill 40")
    assert dhcp_clients.foreign("eth1", machine, {}) == []


def test_a_daemon_is_found_by_its_sockets(machine):
    process(
        machine, 50, "systemd-network", "/x/systemd-networkd", sockets=[5150], unit="systemd-networkd.service"
    )
    process(
        machine, 51, "NetworkManager", "NetworkManager", sockets=[4711, 4712], unit="NetworkManager.service"
    )

    found = dhcp_clients.foreign("eth0", machine, {"10.0.0.7": "eth0"})

    assert [(client.program, client.evidence, client.ending) for client in found] == [
        ("systemd-networkd", "UDP port of DHCP clients", "systemctl stop systemd-networkd.service"),
        ("NetworkManager", "packet socket", "systemctl stop NetworkManager.service"),
    ]
    assert dhcp_clients.foreign("eth1", machine, {"10.0.0.7": "eth0"}) == []


def test_ours_is_not_foreign(machine):
    process(machine, 60, "dhcpcd", "dhcpcd: xenbr0 [ip4]", unit="hostagent-dhcp-xenbr0.service")

    assert [client.ours for client in dhcp_clients.running(machine, {})] == [True]
    assert dhcp_clients.foreign("xenbr0", machine, {}) == []


def test_one_that_takes_every_device_is_on_each(machine):
    process(machine, 70, "dhcpcd", "dhcpcd: [manager] [ip4]", unit="dhcpcd.service")

    assert [client.program for client in dhcp_clients.foreign("xenbr7", machine, {})] == ["dhcpcd"]


@given(st.text())
def test_no_table_of_the_kernel_breaks_the_readers(text):
    sockets = dhcp_clients.packet_sockets(f"head\n{text}")
    ports = dhcp_clients.udp_sockets(f"head\n{text}")

    assert all(index > 0 for index, _ in sockets)
    assert all(address for address, _ in ports)


@given(st.sampled_from(dhcp_clients.PROGRAMS), st.lists(st.text()))
def test_no_command_line_breaks_the_reader(program, words):
    assert all(isinstance(device, str) for device in dhcp_clients.devices_of(program, words))


def test_the_port_of_dhcpv6_counts_and_the_address_is_in_the_kernels_form():
    line = f"  1: {'000080FE00000000FF01020304050607'}:0222 {'0' * 32}:0000 07 0:0 0:0 0 0 0 99 2"

    assert dhcp_clients.udp_sockets(f"head\n{line}") == [("fe80::302:1ff:706:504", 99)]


# --- the management interface moves to another bridge ---


class Kernel(FakeKernel):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


BEFORE, AFTER = (Lease(bridge, 4, gateway=True, dns=True) for bridge in ("xenbr0", "xapi0"))


@pytest.fixture
def tools(tmp_path, host, monkeypatch):
    kernel = Kernel()
    for index, bridge in ((40, "xenbr0"), (41, "xapi0")):
        kernel.one(Operation("link-add", bridge, index, {"kind": "bridge", "up": True}))
    kernel.addresses.append(Address(40, "10.9.0.4", 24, flags=0, valid_s=3600))
    kernel.addresses.append(Address(40, "192.0.2.4", 24))
    monkeypatch.setattr(net_host, "Netlink", lambda: kernel)
    made = net_host._Tools(tmp_path, tmp_path / "run", "xenbr0", tmp_path / "state")
    made.lease_start(BEFORE)
    host.ran.clear()
    host.dumps = [LEASE4]
    return made, kernel


def test_a_lease_that_moves_with_management_is_asked_for_there_and_not_given_back(tools, host, tmp_path):
    made, kernel = tools
    file = client_ids.file_of("xenbr0", tmp_path / "state")
    file.parent.mkdir(parents=True)
    file.write_text(client_ids.content("ff:00:01", ""))
    made.around(Wanted(leases=(AFTER,)), kernel.look())

    made.lease_stop(BEFORE)
    made.lease_start(AFTER)

    assert not any("--release" in line for line in host.ran)
    assert [one.text for one in kernel.addresses] == ["192.0.2.4"]
    text = dhcp.file_of("xapi0", tmp_path / "run").read_text()
    assert "clientid ff:00:01\n" in text
    assert f"request {FOUND4.addresses[0].partition('/')[0]}\n" in text

    made.lease_stop(AFTER)  # undone
    made.lease_start(BEFORE)

    assert not any("--release" in line for line in host.ran)


def test_the_bridge_that_takes_management_over_keeps_its_last_lease_as_the_former_did(tools, tmp_path):
    made, kernel = tools
    former = dhcp.file_of("xenbr0", tmp_path / "run").read_text()
    made.around(Wanted(leases=(AFTER,)), kernel.look())
    made.lease_stop(BEFORE)
    made.lease_start(AFTER)

    assert "lastleaseextend" in former
    assert "lastleaseextend" in dhcp.file_of("xapi0", tmp_path / "run").read_text()


def test_a_client_that_does_something_else_equals_no_wanted_lease_and_is_started_again_as_it_was():
    (other,) = net_host._other("xapi0", "noipv6\noption domain_name_servers\n").values()

    assert other._replace(hostname="") == AFTER
    assert other != AFTER


@pytest.mark.parametrize("leases", [(), (AFTER._replace(gateway=False),), (BEFORE, AFTER)])
def test_a_lease_that_nobody_takes_over_is_given_back(tools, host, leases):
    made, kernel = tools
    made.around(Wanted(leases=leases), kernel.look())

    made.lease_stop(BEFORE)

    assert any("--release" in line for line in host.ran)
