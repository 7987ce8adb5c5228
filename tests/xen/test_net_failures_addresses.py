"""The failure catalogue of networking.md 5: addresses, DHCP, resolver, and others who configure a NIC.

A test's name begins with its row, as in test_net_failures.py.
"""

from __future__ import annotations

import json
import re

import pytest
from nested_xen import network, process, services, wire

from tests.xen.net_look import await_that, look
from tests.xen.net_moves import adopt
from tests.xen.net_operator import (
    DEGRADED,
    DONE,
    FAILED,
    PREFIX,
    STATIC,
    USAGE,
    opened,
    reconfigure,
    refusal,
    run,
)
from tests.xen.net_segment import PREFIX6, SERVER6, holder, is_dhcp_request, router6
from tests.xen.net_shapes import (
    ADDRESS,
    BOND_A,
    DEAD_ADDRESS,
    STORAGE,
    addressed,
    pair,
    reason_in,
    says,
    up,
    up_in_words,
)

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(1800)]

DHCP_S = 25


@pytest.mark.full
def test_row_34_a_dhcp_client_that_was_killed_comes_back(net):
    nic = net.nic(STORAGE)
    with services.dhcp(net.host.lab, "storage"):
        net.api.PIF.reconfigure_ip(nic.pif, "DHCP", "", "", "", "")
        net.api.PIF.plug(nic.pif)
        await_that(lambda: look(net.host).addresses(nic.bridge), "an address by DHCP")
        held = look(net.host).addresses(nic.bridge)
        unit = f"hostagent-dhcp-{nic.bridge}.service"
        # killed for good: systemd does not start it again, its pid file stays, its address goes
        gone = f"systemctl kill --signal=KILL {unit}; systemctl stop {unit}"
        net.host.exec(f"{gone}; ip address flush dev {nic.bridge} scope global")
        assert net.host.exec(f"systemctl is-active {unit}", check=False).stdout != "active\n"
        assert look(net.host).addresses(nic.bridge) == set()
        done = up(net, nic.pif)
        assert done.code == DONE, done.said
        assert "lease-start" in [one["verb"] for one in done.value["operations"]]
        await_that(
            lambda: net.host.exec(f"systemctl is-active {unit}", check=False).stdout == "active\n", "a client"
        )
        await_that(lambda: look(net.host).addresses(nic.bridge) == held, "the same address")
        net.host.exec(f"{gone}; ip address flush dev {nic.bridge} scope global")
        assert re.search(rf"\blease-start +{nic.bridge}\b", up_in_words(net, nic.pif))
        await_that(lambda: look(net.host).addresses(nic.bridge) == held, "the same address once more")


@pytest.mark.full
def test_row_35_a_dhcp_client_of_somebody_else_is_named_and_lives(net):
    nic = net.nic(STORAGE)
    with services.dhcp(net.host.lab, "storage"):
        net.host.exec(
            f"systemd-run --quiet --unit others dhcpcd -4 -B --nohook resolv.conf --noipv4ll {nic.name}"
        )
        pid = net.host.exec("systemctl show others -p MainPID --value").stdout.strip()
        group = "/sys/fs/cgroup/system.slice/others.service/cgroup.procs"
        try:
            await_that(lambda: look(net.host).addresses(nic.name), "the other client has its address")
            net.api.PIF.reconfigure_ip(nic.pif, "DHCP", "", "", "", "")
            done = up(net, nic.pif)
            assert done.code == FAILED, done.said
            # it has helpers, each a process of the same name
            theirs = net.host.exec(f"cat {group}").stdout.split()
            assert pid in theirs
            named = re.search(rf"{nic.name} is configured by dhcpcd \(pid (\d+)\)", done.said)
            assert named, done.said
            assert named[1] in theirs
            assert net.host.exec(f"kill -0 {pid}", check=False).code == 0
        finally:
            net.host.exec(f"systemctl stop others; ip address flush dev {nic.name}")


@pytest.mark.full
def test_row_36_without_a_dhcp_server_the_plug_ends_and_the_client_goes_on_trying(net):
    nic = net.nic(STORAGE)
    net.api.PIF.reconfigure_ip(nic.pif, "DHCP", "", "", "", "")
    done = up(net, nic.pif, f"--timeout={DHCP_S}")
    assert done.code == DEGRADED, done.said
    assert re.search(rf"no DHCP answer on {nic.bridge} after \d+ s", done.said)
    assert net.attached(nic.pif)
    assert says(net, nic.pif, "no DHCP address", "discovers")
    shown = run(net.host, "hostagent", "pif", "explain", nic.uuid)
    assert shown.code == DONE, shown.said
    sentence, *evidence, command = reason_in(shown.out, "no DHCP address")
    assert sentence == f"✗ no DHCP address on {nic.bridge}"
    assert any("discovers" in line for line in evidence), shown.out
    assert command == f"    → journalctl -u hostagent-dhcp-{nic.bridge}"
    other = net.nic(BOND_A)
    assert up(net, other.pif).code == DONE  # nobody waits for it
    with services.dhcp(net.host.lab, "storage") as server:
        await_that(lambda: look(net.host).addresses(nic.bridge), "an address by DHCP", deadline_s=240)
        [lease] = server.leases()
        assert look(net.host).addresses(nic.bridge) == {f"{lease.address}/{PREFIX}"}


@pytest.mark.full
def test_row_37_two_pifs_in_one_subnet_are_both_named(net):
    one, two = pair(net)
    net.static(one.pif, ADDRESS)
    net.api.PIF.plug(one.pif)
    net.static(two.pif, STATIC.format(12))
    done = up(net, two.pif)
    assert done.code == DEGRADED, done.said
    assert ADDRESS in done.said
    assert STATIC.format(12) in done.said


@pytest.mark.full
def test_row_39_bringing_up_what_is_up_sends_no_event_and_breaks_no_mount(net):
    nic = addressed(net)
    net.api.PIF.plug(nic.pif)
    with services.nfs(net.host.lab, "storage") as server:
        net.host.exec(
            f"mkdir -p /mnt/nfs && mount -t nfs -o vers=4.2,hard,timeo=50 {server.source()} /mnt/nfs;"
            " systemd-run --quiet --unit monitor sh -c 'exec ip monitor link address route >>/run/monitor.txt'"
        )

        def monitored(before=":"):
            return net.host.exec(f"{before}; cat /run/monitor.txt").stdout

        try:
            net.host.exec("touch /run/monitor.txt")
            await_that(lambda: monitored("ip link set lo alias $RANDOM"), "an event is seen before")
            net.host.exec("sleep 1; : >/run/monitor.txt")
            for _ in range(5):
                assert up(net, nic.pif).code == DONE
                net.api.PIF.plug(nic.pif)
                net.host.exec("echo still here >/mnt/nfs/file && sync -f /mnt/nfs")
            assert monitored() == ""
            net.host.exec("ip link set lo alias after")
            await_that(monitored, "an event is seen afterwards")
            assert (server.export / "file").read_text() == "still here\n"
        finally:
            net.host.exec("systemctl stop monitor; ip link set lo alias ''; umount -l /mnt/nfs")


@pytest.mark.full
def test_row_40_an_address_that_another_host_has_is_refused_with_its_mac(net):
    nic = net.nic(STORAGE)
    net.api.PIF.plug(nic.pif)
    with wire.join(net.host.lab, "storage") as port, holder(port, ADDRESS):
        said = refusal(net.static, nic.pif, ADDRESS)
        assert said[0] == "PIF_CONFIGURATION_ERROR"
        assert port.mac in " ".join(said)
        assert look(net.host).addresses(nic.bridge) == set()
    net.static(nic.pif, ADDRESS)
    assert look(net.host).addresses(nic.bridge) == {f"{ADDRESS}/{PREFIX}"}


@pytest.mark.full
def test_row_40_an_ipv6_address_that_another_host_has_is_told(net):
    nic = net.nic(STORAGE)
    net.api.PIF.plug(nic.pif)
    with router6(net.host.lab, "storage", leases=False):
        said = refusal(net.api.PIF.reconfigure_ipv6, nic.pif, "Static", f"{SERVER6}/64", "", "")
        assert said[0] == "PIF_CONFIGURATION_ERROR"
        shown = ["ip", "-j", "link", "show", "dev", network.SERVER_DEVICE]
        [server] = json.loads(process.run(network.inside(net.host.lab, shown, segment="storage")).stdout)
        assert f"another host, {server['address']}, has {SERVER6}" in " ".join(said)
        assert look(net.host).addresses(nic.bridge, "inet6") == set()


@pytest.mark.full
def test_row_42_a_resolver_that_works_is_not_emptied(net):
    nic = net.nic(STORAGE)
    net.api.PIF.add_to_other_config(nic.pif, "peerdns", "true")
    net.static(nic.pif, ADDRESS, dns=f"{DEAD_ADDRESS},{STATIC.format(2)}")
    net.api.PIF.plug(nic.pif)
    servers = f"nameserver {DEAD_ADDRESS}\nnameserver {STATIC.format(2)}\n"
    assert net.host.exec("grep ^nameserver /etc/resolv.conf").stdout == servers
    net.api.PIF.reconfigure_ipv6(nic.pif, "Static", f"{PREFIX6}11/64", "", "")
    net.static(nic.pif, ADDRESS, dns="")
    assert net.host.exec("grep ^nameserver /etc/resolv.conf").stdout == servers
    told = up_in_words(net, nic.pif)
    assert "owns the resolver and has no DNS server" in told
    assert "the servers there are now stay" in told
    assert net.host.exec("grep ^nameserver /etc/resolv.conf").stdout == servers


@pytest.mark.full
def test_row_43_mode_none_asks_no_server(net):
    nic = net.nic(STORAGE)
    with services.dhcp(net.host.lab, "storage") as server, wire.join(net.host.lab, "storage") as port:
        assert up(net, nic.pif).code == DONE
        port.expect_none(lambda frame: is_dhcp_request(frame, nic.mac), during_s=15)
        assert server.leases() == []
    assert look(net.host).addresses(nic.bridge) == set()
    words = ("--force", nic.bridge, "rewrite", f"--device={nic.name}", f"--mac={nic.mac}", "--mode=none")
    assert reconfigure(net.host, *words).code == USAGE


@pytest.mark.full
def test_row_44_a_typing_error_in_a_static_route_is_refused_with_its_place(net):
    ref = net.nic(STORAGE).network
    routes = f"10.20.0.0/16/{DEAD_ADDRESS},10.30.0.0/33/{DEAD_ADDRESS}"
    said = " ".join(refusal(net.api.network.add_to_other_config, ref, "static-routes", routes))
    assert "static-routes" in said
    assert "element 2" in said
    assert "static-routes" not in net.api.network.get_other_config(ref)


@pytest.mark.full
def test_row_46_a_nic_that_networkd_configures_is_refused_with_the_line_that_frees_it(net):
    nic = net.nic(STORAGE)
    file = "/etc/systemd/network/10-others.network"
    net.host.exec(
        f"printf '[Match]\\nName={nic.name}\\n[Network]\\nAddress={ADDRESS}/24\\n' >{file}; networkctl reload"
    )
    try:
        await_that(lambda: look(net.host).addresses(nic.name), "networkd has configured the NIC")
        done = up(net, nic.pif)
        assert done.code == FAILED, done.said
        assert f"{nic.name} is configured by systemd-networkd ({file})" in done.said
        assert "hostagent net adopt takes it over" in done.said
        seen = look(net.host)
        assert seen.addresses(nic.name) == {f"{ADDRESS}/24"}
        assert seen.master(nic.name) == ""
    finally:
        net.host.exec(f"rm {file}; networkctl reload; ip address flush dev {nic.name}")


@pytest.mark.full
def test_row_49_a_packet_filter_on_bridges_is_told(net):
    nic = net.nic(STORAGE)
    net.host.exec("modprobe br_netfilter; sysctl -qw net.bridge.bridge-nf-call-iptables=1")
    try:
        done = up(net, nic.pif)
        assert done.code == DEGRADED, done.said
        assert "bridge-nf-call-iptables" in done.said
    finally:
        net.host.exec("sysctl -qw net.bridge.bridge-nf-call-iptables=0; modprobe -r br_netfilter")


@pytest.mark.full
def test_row_37_an_address_of_a_dhcp_server_in_a_subnet_that_is_there_is_told_and_brings_no_gateway(
    clean_host,
):
    """Last of this file: the management interface is hostagent's from here on."""
    host = clean_host
    adopt(host)
    router = [f"option:router,{DEAD_ADDRESS}"]
    with opened(host) as net, services.dhcp(host.lab, "bond-b", options=router) as server:
        one, two = pair(net)
        net.static(one.pif, ADDRESS)
        net.api.PIF.plug(one.pif)
        before = look(host).gateways()
        net.api.PIF.reconfigure_ip(two.pif, "DHCP", "", "", "", "")
        net.api.PIF.plug(two.pif)
        await_that(lambda: look(host).addresses(two.bridge), "an address by DHCP")
        [lease] = server.leases()
        await_that(lambda: net.record(two.pif)["IP"] == lease.address, "the record has the address")
        done = up(net, two.pif)
        assert done.code == DEGRADED, done.said
        assert ADDRESS in done.said
        assert lease.address in done.said
        seen = look(host)
        assert seen.gateways(two.bridge) == []
        assert seen.gateways() == before != []
