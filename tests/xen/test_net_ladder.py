"""The emergency ladder on hosts: which rung is climbed, what is told of it, and what it leaves alone (decisions 4).

The management cable is out, as when a switch port has died; the second NIC is cabled to the management segment. Only
where an operator has listed that NIC may it be used.
"""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from nested_xen import faults, machine, services
from nested_xen.host import SERIAL_LOG
from nested_xen.machine import GATEWAY

from tests.xen.agent import start
from tests.xen.net_look import assert_bridge, await_that, console, look, look_from_console
from tests.xen.net_moves import (
    MANAGEMENT,
    SECOND,
    adopt,
    assert_reachable,
    assert_whole,
    management_of,
    reachable,
    second_cable,
    unplugged_second_cable,
)
from tests.xen.net_operator import DEGRADED, STATIC, opened

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(2400)]

BOND_A, BOND_B = 2, 3
ADDRESS = STATIC.format(11)
SERVER = str(machine.SUBNET[2])
DOWN = "The management network of this host is down."
SETTINGS = "/etc/hostagent/conf.d/emergency.toml"
EARLY = "systemctl show hostagent-network -p Result --value"
LOG = "journalctl -b -u hostagent-network -o cat --no-pager"


@pytest.fixture
def host(xen_host):
    """Its management interface is hostagent's, its second NIC is cabled to the management segment, another network is
    up; the agent is up.
    """
    adopt(xen_host)
    with opened(xen_host) as net:
        other = net.nic(BOND_A)
        net.static(other.pif, ADDRESS)
        net.api.PIF.plug(other.pif)
    second_cable(xen_host)
    yield xen_host
    unplugged_second_cable(xen_host)


def names(host):
    """Of the NICs, by their place in the machine."""
    with opened(host) as net:
        return [net.nic(number).name for number in range(len(host.machine.nics))]


def own(host):
    return f"{host.machine.address}/{machine.SUBNET.prefixlen}"


def shown(host, since):
    """What came on the serial console."""
    return (host.folder / SERIAL_LOG).read_bytes()[since:].decode(errors="replace")


def untouched(seen, before, *devices):
    """These devices are what they were, by the kernel's own indexes, with the same ports and addresses."""
    for name in devices:
        assert seen.links[name]["ifindex"] == before.links[name]["ifindex"]
        assert seen.master(name) == before.master(name)
        assert seen.addresses(name) == before.addresses(name)
        assert seen.is_up(name) == before.is_up(name)


@pytest.mark.full
def test_where_no_nic_is_listed_the_same_is_tried_again_and_the_console_says_the_rest(host):
    """What hostagent-network.service does at boot, begun at the console once more."""
    first, second, third, fourth = names(host)
    before, since = look(host), (host.folder / SERIAL_LOG).stat().st_size
    with faults.no_carrier(host, MANAGEMENT):
        said = console(host, f"{{ systemctl restart hostagent-network; {EARLY}; {LOG}; }} 2>&1", check=False)
        await_that(lambda: DOWN in shown(host, since), "the message is on the console")
        seen = look_from_console(host)
        told = shown(host, since)
    assert "exit-code" in said
    assert "management interface: down" in said
    assert "rung 1 (" in said
    assert f"no carrier on {first}" in said
    assert not [number for number in (3, 4) if f"rung {number}" in said + told]
    assert "hostagent net emergency-reset" in told
    for name in (second, third, fourth):
        assert f"{name} " in told
    assert told.count("not listed for emergencies") == len(host.machine.nics)
    assert seen.links.keys() == before.links.keys()
    untouched(seen, before, "xenbr0", second, third, before.master(third), fourth)

    assert_reachable(host)
    console(host, "systemctl restart hostagent-network")
    assert host.exec(EARLY).stdout == "success\n"
    assert_whole(host)


@pytest.mark.full
def test_a_reset_at_the_console_puts_the_same_address_on_a_listed_nic_and_leaves_guests_networks(host):
    first, second, third, fourth = names(host)
    before = look(host)
    with faults.no_carrier(host, MANAGEMENT):
        assert not reachable(host, timeout_s=10)
        words = f"hostagent net emergency-reset --nic {second}; echo exit $?"
        said = console(host, words, check=False)
        assert f"exit {DEGRADED}" in said
        assert f"rung 3 of the ladder: {host.machine.address} on {second} alone" in said
        seen = look_from_console(host)
        bridge = seen.master(second)
        assert_bridge(seen, bridge, {second}, mac=host.machine.nics[SECOND].mac)
        untouched(seen, before, third, before.master(third), fourth)
        # no dead way stands beside the living one
        assert management_of(seen, host) == bridge
        assert_reachable(host)
    assert "exit 0" in console(host, "hostagent net emergency-reset; echo exit $?", check=False)
    console(host, f"ip link delete {bridge}")
    assert_whole(host)
    assert look(host).uplinks("xenbr0") == {first}


@contextlib.contextmanager
def cable_out_at_power_on(host):
    """Of the management NIC."""
    whole = host.machine
    loose = dataclasses.replace(whole.nics[MANAGEMENT], carrier=False)
    host.machine = dataclasses.replace(whole, nics=(loose, *whole.nics[1:]))
    try:
        yield
    finally:
        host.machine = whole


def only_address(host):
    """A DHCP server that gives this host's address to whoever asks first."""
    return services.dhcp(
        host.lab,
        "management",
        address=f"{SERVER}/{machine.SUBNET.prefixlen}",
        pool=(host.machine.address, host.machine.address),
        options=[f"option:router,{GATEWAY}"],
    )


@pytest.mark.full
def test_at_a_cold_boot_dhcp_on_a_listed_nic_brings_the_host_back_and_the_agent_leaves_it_so(host):
    """Last of this file: the host is left as it is."""
    _, second, third, fourth = names(host)
    with only_address(host), opened(host) as net:
        pif = net.nic(MANAGEMENT).pif
        net.api.PIF.reconfigure_ip(pif, "DHCP", "", "", "", "")
        assert_reachable(host)
        await_that(lambda: net.record(pif)["IP"] == host.machine.address, "the record has the address")
    host.exec(f"mkdir -p /etc/hostagent/conf.d; echo 'net.emergency-nics = [\"{second}\"]' >{SETTINGS}")
    # as on a host that was installed elsewhere: no lease is known
    host.exec(
        "systemctl disable hostagent; systemctl stop hostagent hostagent-dhcp-xenbr0;"
        " rm -rf /var/lib/hostagent/net/leases; rm -f /var/lib/dhcpcd/*.lease*; sync"
    )
    with only_address(host):
        host.power_off()
        with cable_out_at_power_on(host):
            host.boot()  # over a NIC that was never the management interface
        said = host.exec(LOG).stdout
        assert f"rung 4 of the ladder: DHCP on {second}, untagged" in said
        assert "management interface: up" in said
        seen = look(host)
        bridge = seen.master(second)
        assert management_of(seen, host) == bridge
        for name in (third, fourth):  # carrier, and not listed
            assert seen.master(name) == ""
            assert seen.addresses(name) == set()

        host.exec("systemctl enable hostagent")
        began = start(host)
        assert_reachable(host)
        assert began.report["ending"] == "complete", began.troubles
        assert f"rung 4 of the ladder: DHCP on {second}" in str(began.report)
        assert own(host) in look(host).addresses(bridge)
        faults.set_carrier(host, MANAGEMENT, up=True)
