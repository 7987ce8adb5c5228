"""A stock dom0, whose only configured card is another daemon's, is taken over and given back over an open ssh session.

The session counts: each line has the time of the host, so that a gap in it is one that somebody at a terminal sees.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from nested_xen import machine, process, services

from tests.xen.agent import power_on, start
from tests.xen.net_look import await_that, console
from tests.xen.net_moves import (
    BACK_S,
    assert_reachable,
    await_journal,
    begin_and_hold,
    hold_at,
    kill,
    places_in,
)
from tests.xen.net_operator import run
from tests.xen.nics import nic_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nested_xen.host import Host

pytestmark = [pytest.mark.destructive]

MANAGEMENT = 0
"""The place of the card that ssh comes in by."""
COUNT = "exec 9<> <(:); i=0; while :; do echo $((++i)) $EPOCHREALTIME; read -rt 0.5 -u 9; done"
"""Naps without starting a program: that alone would keep an emulated host busy."""
LONGEST_GAP_S = 30.0
"""What ssh itself survives is more; a session that is not lost goes on within this on an emulated host."""
ADOPT_S = 400.0
PACKAGES_S = 1200.0
"""NetworkManager and what it needs, installed on a slow machine."""
LEASE_S, SHORT_LEASE_S = 3600, 480
"""The short one is renewed within the patience of a test, and is longer than the slowest undo."""
LONGER_THAN_ITS_DHCP_TIMEOUT_S = 60.0
"""NetworkManager's is 45 s."""
CUTS = 5
"""The places at which a takeover can be held are spread over so many cases."""


class Session:
    """A shell over a connection of its own, whose output goes to a file here."""

    def __init__(self, host: Host, log: Path) -> None:
        *words, target = host.ssh_arguments()
        self._log = log
        log.write_text("")
        self.pid = process.spawn([*words, "-S", "none", target, COUNT], log=log, outlives_us=False)

    def numbers(self) -> list[int]:
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [int(line[0]) for line in lines if len(line) == 2 and line[0].isdecimal()]

    def goes_on(self) -> bool:
        """Whether more comes, in order and with nothing left out."""
        before = len(self.numbers())
        ends = time.monotonic() + LONGEST_GAP_S
        while len(self.numbers()) <= before + 5 and time.monotonic() < ends:
            time.sleep(0.2)
        after = self.numbers()
        return len(after) > before + 5 and after == list(range(1, len(after) + 1)) and process.alive(self.pid)


@pytest.fixture(scope="module")
def used() -> list[Host]:
    """Hosts that a test of this file has had."""
    return []


@pytest.fixture
def host(take_hosts: Any, used: list[Host]) -> Host:
    """As it was installed: whose the card is, and what a daemon was set up with, is not left from the test before."""
    (found,) = take_hosts(1, "installed")
    if any(one is found for one in used):
        found.reset()
    used.append(found)
    assert isinstance(found.machine.address, str)
    start(found)
    return found  # type: ignore[no-any-return]


@pytest.fixture
def session(host: Host, tmp_path: Path) -> Iterator[Session]:
    found = Session(host, tmp_path / "session")
    assert found.goes_on()
    yield found
    process.end(found.pid)


def addresses(host: Host) -> dict[str, list[str]]:
    """IPv4 addresses by device, as `ip` has them."""
    found = json.loads(host.exec("ip -j -4 addr show").stdout)
    return {one["ifname"]: [a["local"] for a in one["addr_info"]] for one in found if one.get("addr_info")}


def done(host: Host, command: str) -> Any:
    return json.loads(host.exec(f"hostagent net {command} --yes --json", timeout_s=ADOPT_S).stdout)


def is_ours(host: Host) -> None:
    nic = nic_name(host, MANAGEMENT)
    assert host.machine.address in addresses(host)["xenbr0"]
    assert nic not in addresses(host)
    master = json.loads(host.exec(f"ip -j link show {nic}").stdout)[0]["master"]
    assert master == "xenbr0"
    routes = json.loads(host.exec("ip -j route show default").stdout)
    assert [route["dev"] for route in routes] in ([], ["xenbr0"])
    assert "MANAGEMENT_INTERFACE='xenbr0'" in host.exec("cat /etc/hostagent/inventory").stdout


def is_theirs(host: Host) -> None:
    assert host.machine.address in addresses(host)[nic_name(host, MANAGEMENT)]
    assert host.exec("ip link show xenbr0", check=False).code != 0


def cold_boot(host: Host) -> None:
    host.power_off()
    host.boot()
    power_on(host)


@pytest.mark.full
def test_networkd_gives_its_card_and_gets_it_back_and_each_lasts_over_a_cold_boot(
    host: Host, session: Session, tmp_path: Path
) -> None:
    before = host.exec(
        "ip -j addr show; find /etc/systemd/network /etc/network -type f 2>/dev/null | sort"
    ).stdout
    planned = json.loads(host.exec("hostagent net adopt --dry-run --json").stdout)
    assert planned["outcome"] == "planned"
    assert planned["operations"]
    shown = host.exec(
        "ip -j addr show; find /etc/systemd/network /etc/network -type f 2>/dev/null | sort"
    ).stdout
    assert shown == before

    result = done(host, "adopt")

    assert result["outcome"] == "changed"
    assert session.goes_on()
    is_ours(host)
    nic = nic_name(host, MANAGEMENT)
    assert "unmanaged" in host.exec(f"networkctl --no-pager --no-legend list {nic}").stdout
    cold_boot(host)
    is_ours(host)
    assert "systemd-networkd-wait-online" not in host.exec("systemctl --failed --no-legend").stdout
    again = Session(host, tmp_path / "again")
    assert again.goes_on()

    assert done(host, "release")["outcome"] == "changed"

    assert again.goes_on()
    is_theirs(host)
    assert "00-hostagent" not in host.exec("ls /etc/systemd/network").stdout
    cold_boot(host)
    is_theirs(host)
    process.end(again.pid)


@pytest.mark.full
def test_killed_after_the_address_has_moved_the_timer_brings_it_back(host: Host, session: Session) -> None:
    """Without a daemon, the command itself does it; it is killed when all of it is done and nothing is kept yet."""
    host.exec("systemctl stop hostagent")
    assert hold_at(host, "hostagent net adopt --yes --timeout 5", "applied")
    assert host.machine.address in addresses(host)["xenbr0"]
    assert nic_name(host, MANAGEMENT) not in addresses(host)
    kill(host)
    gone = "for i in $(seq 300); do [ -e /sys/class/net/xenbr0 ] || break; sleep 1; done"
    host.exec(gone, timeout_s=ADOPT_S)
    await_journal(host)
    is_theirs(host)
    assert session.goes_on()


@pytest.mark.full
@pytest.mark.parametrize("number", range(CUTS))
def test_power_cut_in_the_middle_leaves_a_host_that_can_be_reached(host: Host, number: int) -> None:
    """Held at places from its beginning to its end, and the power cut there."""
    planned = json.loads(host.exec("hostagent net adopt --dry-run --json").stdout)["operations"]
    places = [*places_in([one["verb"] for one in planned]), "applied"]
    place = places[number * (len(places) - 1) // (CUTS - 1)]
    assert begin_and_hold(host, "hostagent net adopt --yes", place), f"{place} of {places} was not reached"
    cold_boot(host)
    await_journal(host)
    is_theirs(host)


def release_and_kill(host: Host, place: str) -> None:
    """Without a daemon, the command itself does it; the timer takes it back."""
    host.exec("systemctl stop hostagent")
    assert hold_at(host, "hostagent net release --yes --timeout 5", place)
    assert host.machine.address in addresses(host)[nic_name(host, MANAGEMENT)]
    kill(host)
    back = "for i in $(seq 300); do [ -e /sys/class/net/xenbr0 ] && break; sleep 1; done"
    host.exec(back, timeout_s=ADOPT_S)
    await_journal(host)
    is_ours(host)


@pytest.mark.full
def test_giving_back_killed_after_the_address_has_moved_is_taken_back_by_the_timer(
    host: Host, session: Session
) -> None:
    done(host, "adopt")
    release_and_kill(host, "applied")
    assert session.goes_on()


@pytest.mark.full
@pytest.mark.parametrize("place", ["begun", "applied"])
def test_power_cut_while_giving_back_leaves_a_host_that_can_be_reached(host: Host, place: str) -> None:
    """Its files come back first: from the next boot on the card is theirs, whatever else was reached."""
    done(host, "adopt")
    assert begin_and_hold(host, "hostagent net release --yes", place)
    cold_boot(host)
    await_journal(host)
    holders = [name for name, texts in addresses(host).items() if host.machine.address in texts]
    assert len(holders) == 1, addresses(host)
    if holders == ["xenbr0"]:
        is_ours(host)
        done(host, "release")
    is_theirs(host)


IFUPDOWN = """set -e
printf 'auto lo {nic}\\niface lo inet loopback\\niface {nic} inet {how}\\n' >/etc/network/interfaces
systemctl mask --now systemd-networkd.service systemd-networkd.socket; systemctl unmask networking.service; systemctl enable networking.service
# it gives up after two minutes, in which a slow machine has not started udev
mkdir -p /etc/systemd/system/ifupdown-pre.service.d
printf '[Service]\\nExecStart=\\nExecStart=udevadm settle --timeout=600\\nTimeoutStartSec=700\\n' >/etc/systemd/system/ifupdown-pre.service.d/lab.conf
"""
# with and without a default route: without, the card is found by its address
OTHERS = {
    "ifupdown": IFUPDOWN.replace("{how}", "static\\n  address {address}"),
    "NetworkManager": """set -e
apt-get install -y /opt/spare/network-manager/*.deb >/dev/null
# else it asks for addresses on the other cards, where nobody answers, and the host boots degraded
printf '[main]\\nno-auto-default=*\\n' >/etc/NetworkManager/conf.d/lab.conf
# it waits a minute for udev to know each device, which a slow machine takes longer for
mkdir -p /etc/systemd/system/NetworkManager-wait-online.service.d
printf '[Service]\\nEnvironment=NM_ONLINE_TIMEOUT=600\\n' >/etc/systemd/system/NetworkManager-wait-online.service.d/lab.conf
f=/etc/NetworkManager/system-connections/lab.nmconnection
printf '[connection]\\nid=lab\\nuuid=%s\\ntype=ethernet\\ninterface-name={nic}\\n\\n[ipv4]\\nmethod=manual\\naddress1={address},{gateway}\\n' \\
  "$(cat /proc/sys/kernel/random/uuid)" >$f; chmod 600 $f
systemctl mask --now systemd-networkd.service systemd-networkd.socket; systemctl enable NetworkManager.service
""",
}


@pytest.mark.full
@pytest.mark.parametrize("daemon", sorted(OTHERS))
def test_other_daemons_give_their_card_and_get_it_back(host: Host, daemon: str, tmp_path: Path) -> None:
    nic = nic_name(host, MANAGEMENT)
    (entry,) = json.loads(host.exec(f"ip -j -4 addr show {nic}").stdout)[0]["addr_info"]
    address = f"{entry['local']}/{entry['prefixlen']}"
    host.exec(OTHERS[daemon].format(nic=nic, address=address, gateway=machine.GATEWAY), timeout_s=PACKAGES_S)
    host.exec("sync")
    cold_boot(host)
    is_theirs(host)
    session = Session(host, tmp_path / "other")
    assert session.goes_on()

    assert done(host, "adopt")["what"] == f"adopt {nic} from {daemon}"

    assert session.goes_on()
    is_ours(host)
    cold_boot(host)
    is_ours(host)
    release_and_kill(host, "told")
    start(host)
    assert done(host, "release")["outcome"] == "changed"
    is_theirs(host)
    cold_boot(host)
    is_theirs(host)
    process.end(session.pid)


def take_and_kill(host: Host, become: Callable[[], None]) -> None:
    """Without a daemon, the command itself does it; it is killed with all done and nothing kept, and the timer undoes
    that. `become`: what happens in between.
    """
    host.exec("systemctl stop hostagent")
    assert hold_at(host, "hostagent net adopt --yes --timeout 20", "applied")
    become()
    kill(host)
    nic = nic_name(host, MANAGEMENT)
    console(host, f"for i in $(seq 300); do ip -4 addr show {nic} | grep -q inet && break; sleep 1; done")
    assert_reachable(host)
    await_journal(host)
    is_theirs(host)
    both_routes(host, nic)


def both_routes(host: Host, nic: str) -> None:
    routes = json.loads(host.exec("ip -j route").stdout)
    assert {route["dst"] for route in routes if route["dev"] == nic} >= {"default", str(machine.SUBNET)}


def connection(host: Host, nic: str) -> str:
    """NetworkManager's of the card."""
    return host.exec(f"nmcli --get-values GENERAL.CONNECTION device show {nic}").stdout.strip()


def clients(host: Host, nic: str) -> str:
    """The DHCP clients of the card, whosever they are."""
    return host.exec(f"pgrep -af '[d]hc(pcd|lient).*{nic}'", check=False).stdout


def dhcp_server(host: Host, lease_s: int = LEASE_S) -> services.DhcpServer:
    """One that has just the address of the host, and its gateway."""
    address = str(host.machine.address)
    return services.dhcp(
        host.lab,
        "management",
        address=f"{machine.SUBNET[254]}/{machine.SUBNET.prefixlen}",
        pool=(address, address),
        lease_s=lease_s,
        options=[f"option:router,{machine.GATEWAY}"],
    )


def left_s(host: Host, nic: str) -> int:
    """For how long the management address is good."""
    (entry,) = json.loads(host.exec(f"ip -j -4 addr show {nic}").stdout)[0]["addr_info"]
    return int(entry["valid_life_time"])


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_networkmanager_goes_on_with_its_connection_after_a_takeover_that_was_undone(host: Host) -> None:
    """With a fixed address, then with one by DHCP, whose server falls silent in the middle and comes back."""
    nic = nic_name(host, MANAGEMENT)
    fixed = f"{host.machine.address}/{machine.SUBNET.prefixlen}"
    host.exec(
        OTHERS["NetworkManager"].format(nic=nic, address=fixed, gateway=machine.GATEWAY),
        timeout_s=PACKAGES_S,
    )
    console(host, f"systemctl restart NetworkManager; nmcli --wait 200 connection up lab ifname {nic}")
    take_and_kill(host, lambda: None)
    assert connection(host, nic) == "lab"
    with dhcp_server(host) as running:
        by_dhcp = "sed -i '/^method=manual/,$d' $f; echo method=auto >>$f; nmcli connection reload"
        up = f"nmcli --wait 200 connection up lab ifname {nic}"
        console(host, f"f=/etc/NetworkManager/system-connections/lab.nmconnection; {by_dhcp}; {up}")
        assert left_s(host, nic) <= LEASE_S
        take_and_kill(host, running.stop)
    assert connection(host, nic) == "lab"
    until = time.monotonic() + LONGER_THAN_ITS_DHCP_TIMEOUT_S
    while time.monotonic() < until:
        is_theirs(host)
    start(host)
    refused = run(host, "hostagent", "net", "adopt", "--yes", "--json", "--timeout", "15")
    assert refused.code != 0
    assert f"no DHCP server offers anything on {nic}" in json.loads(refused.error)["error"]["found"]
    assert not clients(host, nic)
    is_theirs(host)

    had = left_s(host, nic)
    with dhcp_server(host):
        await_that(lambda: left_s(host, nic) > had, "the lease is renewed", deadline_s=BACK_S)
        assert done(host, "adopt")["outcome"] == "changed"
        is_ours(host)
        assert not clients(host, nic)
        assert done(host, "release")["outcome"] == "changed"
        is_theirs(host)
        assert connection(host, nic) == "lab"


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_ifupdown_and_its_dhcp_client_give_the_card_and_get_it_back(host: Host, tmp_path: Path) -> None:
    """The client is dhclient on Debian 12 and dhcpcd on Debian 13."""
    nic = nic_name(host, MANAGEMENT)
    with dhcp_server(host, lease_s=SHORT_LEASE_S) as server:

        def ends() -> int:
            (lease,) = server.leases()
            return lease.expires

        console(host, IFUPDOWN.format(nic=nic, how="dhcp"))
        console(host, f"ip addr flush dev {nic}; ifup --force {nic}")
        is_theirs(host)
        assert left_s(host, nic) <= SHORT_LEASE_S
        session = Session(host, tmp_path / "by-dhcp")
        assert session.goes_on()
        take_and_kill(host, lambda: None)
        assert clients(host, nic)
        assert session.goes_on()
        start(host)

        assert done(host, "adopt")["what"] == f"adopt {nic} from ifupdown"

        assert session.goes_on()
        is_ours(host)
        assert not clients(host, nic)
        release_and_kill(host, "told")
        assert not clients(host, nic)
        start(host)
        assert done(host, "release")["outcome"] == "changed"
        assert session.goes_on()
        is_theirs(host)
        both_routes(host, nic)
        host.exec("systemctl stop hostagent")
        assert clients(host, nic)
        ended = ends()
        await_that(lambda: ends() > ended, "the lease is renewed", deadline_s=SHORT_LEASE_S)
        is_theirs(host)
    process.end(session.pid)
