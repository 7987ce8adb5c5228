"""DHCP leases: who waits for one holds nobody up, management outlives its server, and a takeover keeps the lease.

The server of the management segment has one address to give: the one that the host is reached by all the time.
"""

from __future__ import annotations

import pytest
from nested_xen import machine, services, wire
from nested_xen.machine import GATEWAY

from tests.xen.agent import power_on, start
from tests.xen.net_look import await_that, look
from tests.xen.net_moves import MANAGEMENT, adopt, assert_reachable, assert_whole, management_of
from tests.xen.net_operator import DONE, PREFIX, STATIC, await_start, clean, opened, reconfigure, run
from tests.xen.net_segment import is_dhcp_request
from tests.xen.nics import nic_name

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(2400)]

STORAGE, BOND_A = 1, 2
ADDRESS = STATIC.format(11)
SERVER = str(machine.SUBNET[2])
WAIT_S = 900
"""Longer than all that is done while the first one waits."""
CLIENT = "hostagent-dhcp-xenbr0.service"
KEPT = "/var/lib/hostagent/net/leases/xenbr0.4.json"
UNIT = "waiting"


def lease_server(host):
    """It knows this host's address alone, and no host keeps a lease of it for long."""
    own = host.machine.address
    return services.dhcp(
        host.lab,
        "management",
        address=f"{SERVER}/{machine.SUBNET.prefixlen}",
        pool=(own, own),
        lease_s=services.SHORTEST_LEASE_S,
        options=[f"option:router,{GATEWAY}"],
    )


def unit_says(host, what):
    return host.exec(f"systemctl show {UNIT} -p {what} --value").stdout.strip()


def is_there(host, file, text):
    return host.exec(f"grep -qsF {text} {file}", check=False).code == 0


@pytest.mark.full
def test_one_that_waits_for_a_silent_dhcp_server_keeps_nobody_from_changing_the_network(xen_host):
    host = xen_host
    clean(host)
    with opened(host) as net:
        nic, other = net.nic(STORAGE), net.nic(BOND_A)
        net.static(other.pif, ADDRESS)
        net.api.PIF.reconfigure_ip(nic.pif, "DHCP", "", "", "", "")
        with wire.join(host.lab, "storage") as port:
            host.exec(
                f"systemd-run --quiet --unit {UNIT} --property=RemainAfterExit=yes"
                f" interface-reconfigure --no-syslog --pif-uuid {nic.uuid} --timeout={WAIT_S} up"
            )
            # it has made what it needs, and asks in vain
            port.capture(lambda frame: is_dhcp_request(frame, nic.mac), deadline_s=120)

        done = reconfigure(host, "--pif-uuid", other.uuid, "up")
        assert done.code == DONE, done.said
        assert look(host).addresses(other.bridge) == {f"{ADDRESS}/{PREFIX}"}
        net.static(other.pif, STATIC.format(12))
        net.api.PIF.unplug(other.pif)
        assert other.bridge not in look(host).links
        assert unit_says(host, "SubState") == "running"  # all the while

        with services.dhcp(host.lab, "storage") as server:
            await_that(
                lambda: unit_says(host, "SubState") != "running", "the first has ended", deadline_s=300
            )
            [lease] = server.leases()
        assert (unit_says(host, "SubState"), unit_says(host, "ExecMainStatus")) == ("exited", str(DONE))
        assert look(host).addresses(nic.bridge) == {f"{lease.address}/{PREFIX}"}
    host.exec(f"systemctl stop {UNIT}")
    clean(host)


@pytest.mark.full
def test_management_keeps_its_last_lease_without_a_server_over_a_restart_and_a_cold_boot(xen_host):
    host = xen_host
    adopt(host)
    own = f"{host.machine.address}/{machine.SUBNET.prefixlen}"
    with lease_server(host) as server:
        with opened(host) as net:
            pif = net.nic(MANAGEMENT).pif
            net.api.PIF.reconfigure_ip(pif, "DHCP", "", "", "", "")
            assert_reachable(host)
            await_that(lambda: net.record(pif)["IP"] == host.machine.address, "the record has the address")
            assert net.record(pif)["ip_configuration_mode"] == "DHCP"
        assert [lease.address for lease in server.leases()] == [host.machine.address]
        assert management_of(look(host), host) == "xenbr0"
        await_that(lambda: is_there(host, KEPT, host.machine.address), "the lease is kept")

    # nobody gives it an address from here on
    host.exec(f"systemctl stop hostagent {CLIENT}")
    assert start(host).report["ending"] == "complete"
    assert_reachable(host)
    assert host.exec(f"systemctl is-active {CLIENT}").stdout == "active\n"
    await_that(lambda: look(host).addresses("xenbr0") == {own}, "the address of the last lease")
    await_that(lambda: look(host).gateways() == [str(GATEWAY)], "its gateway")

    host.exec("sync")
    host.power_off()
    host.boot()  # over the network of a lease that nobody confirms
    assert power_on(host).report["ending"] == "complete"
    assert management_of(look(host), host) == "xenbr0"
    assert host.exec("systemctl show hostagent-network -p Result --value").stdout == "success\n"

    with opened(host) as net:
        pif = net.nic(MANAGEMENT).pif
        assert net.record(pif)["IP"] == host.machine.address
        netmask = str(machine.SUBNET.netmask)
        net.api.PIF.reconfigure_ip(pif, "Static", host.machine.address, netmask, str(GATEWAY), "")
    assert_whole(host)
    assert host.exec(f"systemctl is-active {CLIENT}", check=False).stdout != "active\n"


def by_dhcp(host, nic):
    """networkd asks for the address that the host has, as a stock dom0 does; the file is there at the next boot too."""
    mac = host.machine.nics[MANAGEMENT].mac
    text = (
        f"[Match]\\nPermanentMACAddress={mac}\\n"
        "[Network]\\nDHCP=ipv4\\nLinkLocalAddressing=ipv6\\nIPv6AcceptRA=no\\nLLDP=no\\n"
    )
    host.exec(
        f"printf '{text}' >/etc/systemd/network/10-management.network; networkctl reload; networkctl reconfigure {nic}"
    )

    def leased():
        rows = look(host).addressed[nic]["addr_info"]
        return [row for row in rows if row["local"] == host.machine.address and row.get("dynamic")]

    assert_reachable(host)
    await_that(leased, "networkd has its lease")


@pytest.mark.full
def test_a_card_with_dhcp_is_taken_over_with_its_lease_and_given_back(take_hosts):
    (host,) = take_hosts(1, "installed")
    await_start(host)
    if "xenbr0" in look(host).links:  # an earlier test of this file has taken it over
        assert run(host, "hostagent", "net", "release", "--yes").code == DONE
        assert_reachable(host)
    nic = nic_name(host, MANAGEMENT)
    own = f"{host.machine.address}/{machine.SUBNET.prefixlen}"
    with lease_server(host) as server:
        by_dhcp(host, nic)
        done = run(host, "hostagent", "net", "adopt", "--yes", "--json")
        assert done.code == DONE, done.said
        assert done.value["what"] == f"adopt {nic} from systemd-networkd"
        assert done.value["settings"]["mode"] == "DHCP"
        assert_reachable(host)

        seen = look(host)
        assert management_of(seen, host) == "xenbr0"
        assert seen.addresses(nic) == set()
        assert host.exec(f"systemctl is-active {CLIENT}").stdout == "active\n"
        assert [lease.address for lease in server.leases()] == [host.machine.address]
        with opened(host) as net:
            record = net.record(net.nic(MANAGEMENT).pif)
            assert (record["ip_configuration_mode"], record["management"]) == ("DHCP", True)
            await_that(
                lambda: net.record(net.nic(MANAGEMENT).pif)["IP"] == host.machine.address, "the record"
            )

        back = run(host, "hostagent", "net", "release", "--yes")
        assert back.code == DONE, back.said
        assert_reachable(host)
        await_that(lambda: look(host).addresses(nic) == {own}, "networkd has the address again")
        assert "xenbr0" not in look(host).links
        assert host.exec(f"systemctl is-active {CLIENT}", check=False).stdout != "active\n"
