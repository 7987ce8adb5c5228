"""The failure catalogue of networking.md 5: NICs and scans, the agent's own view, its files, the kernel.

A test's name begins with its row, as in test_net_failures.py.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from nested_xen import faults, wire
from nested_xen.host import SERIAL_LOG

from tests.xen.agent import power_on, start
from tests.xen.net_look import assert_bridge, assert_vlan, await_that, look
from tests.xen.net_moves import adopt, assert_reachable, assert_whole
from tests.xen.net_operator import (
    DEGRADED,
    DONE,
    FAILED,
    PREFIX,
    RECONFIGURE,
    STATIC,
    checked,
    clean,
    opened,
    reconfigure,
    refusal,
    run,
)
from tests.xen.net_segment import PREFIX6, ping
from tests.xen.net_shapes import ADDRESS, STORAGE, TESTER, addressed, pair, reason_in, says, up

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(1800)]

NEGOTIATED, FORCED = "1000", "100"
"""Mb/s of a NIC."""
UNTIL = """\
until [ "$(cat /sys/class/net/{nic}/speed)" = {speed} ]; do sleep 0.1; done"""


# NICs and scans


@pytest.mark.full
def test_row_33_scans_at_the_same_time_make_one_pif_of_a_nic(net):
    nic = net.nic(STORAGE)
    net.api.PIF.forget(nic.pif)

    uuid = net.api.host.get_uuid(net.me)
    with ThreadPoolExecutor(8) as scans:
        done = scans.map(lambda _: run(net.host, "hostagent-xe", "pif-scan", f"host-uuid={uuid}"), range(8))
        assert [one.code for one in done] == [DONE] * 8
    assert net.nic(STORAGE).bridge == nic.bridge  # `nic` finds exactly one


@pytest.mark.full
def test_row_63_a_nic_gets_one_pif_however_often_it_is_introduced(net):
    nic = net.nic(STORAGE)
    said = refusal(net.api.PIF.introduce, net.me, nic.mac, nic.name, True)  # noqa: FBT003 - as the call has it
    assert said[0] == "DUPLICATE_PIF_DEVICE_NAME"
    assert net.nic(STORAGE).pif == nic.pif


@pytest.mark.full
def test_row_56_plugs_at_the_same_time_all_succeed(net):
    nic = net.nic(STORAGE)
    vlans = [net.vlan(nic.pif, tag) for tag in range(10, 26)]
    for pif in vlans:
        net.api.PIF.unplug(pif)
    uuids = [net.api.PIF.get_uuid(pif) for pif in vlans]
    with ThreadPoolExecutor(8) as plugs:
        done = list(plugs.map(lambda uuid: reconfigure(net.host, "--pif-uuid", uuid, "up"), uuids))
    assert [one.code for one in done] == [DONE] * len(uuids), [one.said for one in done]
    seen = look(net.host)
    for tag, pif in enumerate(vlans, 10):
        assert_vlan(seen, nic.name, tag, net.bridge(pif))


@pytest.mark.full
def test_row_57_a_nic_without_a_cable_comes_up_with_less_and_the_nic_is_named(net):
    nic = addressed(net)
    net.host.exec(f"ip link set {nic.name} up")
    with faults.no_carrier(net.host, STORAGE):
        done = up(net, nic.pif)
        assert done.code == DEGRADED, done.said
        assert f"no carrier on {nic.name}" in done.said
        assert says(net, nic.pif, f"no carrier on {nic.name}", "ethtool")
        by_uuid = (RECONFIGURE, "--no-syslog", "--pif-uuid", nic.uuid, "--explain")
        for words in (("hostagent", "pif", "explain", nic.uuid), by_uuid):  # what people read
            shown = run(net.host, *words)
            assert shown.code == DONE, shown.said
            assert reason_in(shown.out, f"no carrier on {nic.name}") == [
                f"✗ no carrier on {nic.name}: cable, switch port or transceiver",
                "    ip link: NO-CARRIER",
                f"    → ethtool {nic.name}",
            ]
        metrics = net.record(nic.pif)["metrics"]
        await_that(lambda: not net.api.PIF_metrics.get_carrier(metrics), "the record says no carrier")
    await_that(lambda: net.api.PIF_metrics.get_carrier(metrics), "the record says carrier")
    with wire.join(net.host.lab, "storage") as port:
        ping(port, ADDRESS, sender=TESTER)


@pytest.mark.full
def test_row_58_a_speed_that_takes_the_link_down_is_as_before_at_once(net):
    nic = addressed(net)
    net.api.PIF.plug(nic.pif)
    forced = UNTIL.format(nic=nic.name, speed=FORCED)
    net.host.exec(f"systemd-run -q sh -c '{forced}; echo forced-now > /dev/hvc0'")
    serial = net.host.folder / SERIAL_LOG
    said = serial.stat().st_size
    net.api.PIF.add_to_other_config(nic.pif, "ethtool-speed", FORCED)
    with ThreadPoolExecutor(1) as beside:
        plug = beside.submit(up, net, nic.pif)
        await_that(lambda: b"forced-now" in serial.read_bytes()[said:], "the speed is set")
        with faults.no_carrier(net.host, STORAGE):  # as a partner of another speed does
            done = plug.result()
            assert done.code == DEGRADED, done.said
            assert f"{nic.name} lost its link for 3 s with ethtool-speed={FORCED}" in done.said
            assert f"Speed: {NEGOTIATED}Mb/s" in net.host.exec(f"ethtool {nic.name}").stdout
    assert_bridge(look(net.host), nic.bridge, {nic.name}, mac=nic.mac)
    with wire.join(net.host.lab, "storage") as port:
        ping(port, ADDRESS, sender=TESTER)


@pytest.mark.full
def test_row_58_a_speed_with_which_no_link_comes_up_is_as_before(net):
    """As at a cold boot: the NIC is down when its speed is set."""
    nic = addressed(net)
    forced, back = (UNTIL.format(nic=nic.name, speed=speed) for speed in (FORCED, NEGOTIATED))
    net.host.exec(f"ip link set {nic.name} up")
    serial = net.host.folder / SERIAL_LOG
    said = serial.stat().st_size
    net.api.PIF.add_to_other_config(nic.pif, "ethtool-speed", FORCED)
    with ThreadPoolExecutor(1) as beside:
        with faults.no_carrier(net.host, STORAGE):  # as long as the partner has another speed
            net.host.exec(f"ip link set {nic.name} down")
            net.host.exec(f"systemd-run -q sh -c '{forced}; {back}; echo back-now > /dev/hvc0'")
            plug = beside.submit(up, net, nic.pif)
            await_that(lambda: b"back-now" in serial.read_bytes()[said:], "the speed was set, and is back")
        done = plug.result()
    assert done.code == DEGRADED, done.said
    assert f"{nic.name} gets no link with ethtool-speed={FORCED}" in done.said
    assert f"Speed: {NEGOTIATED}Mb/s" in net.host.exec(f"ethtool {nic.name}").stdout
    assert_bridge(look(net.host), nic.bridge, {nic.name}, mac=nic.mac)
    with wire.join(net.host.lab, "storage") as port:
        ping(port, ADDRESS, sender=TESTER)


# the agent's own view, files, the kernel


@pytest.mark.full
def test_row_60_after_a_flood_of_events_nothing_has_vanished(net):
    nic = addressed(net)
    net.api.PIF.plug(nic.pif)
    # MTU changes: each is an event of a link, and no work for udev as devices that come and go would be
    churn = """
pid=$(systemctl show hostagent -p MainPID --value); systemctl service-watchdogs no; kill -STOP $pid
sockets=$(ls -l /proc/$pid/fd | sed -n 's/.*socket:.\\([0-9]*\\)./\\1/p')
lost() {
    awk -v its="$sockets" 'BEGIN { split(its, a); for (n in a) mine[a[n]] } $10 in mine { lost += $9 }
        END { print lost + 0 }' /proc/net/netlink
}
ip link add flood type dummy
for round in $(seq 40); do
    [ $(lost) -eq 0 ] || break
    for n in $(seq 500); do echo "link set flood mtu $((1000 + n))"; done | ip -batch -
done
lost
ip link delete flood
kill -CONT $pid; systemctl service-watchdogs yes
"""
    lost = int(net.host.exec(churn, timeout_s=900).stdout)
    assert lost > 0, "the flood was too small for the daemon to miss any of it"
    assert net.attached(nic.pif)
    await_that(
        lambda: (
            net.host.exec("journalctl -u hostagent -b -g 'resync [0-9]' --no-pager", check=False).code == 0
        ),
        "the loss is told",
    )
    # it still hears what comes after the flood
    net.host.exec(f"ip link set {nic.name} nomaster")
    await_that(lambda: not net.attached(nic.pif), "a later event is heard")
    assert checked(net.host).code == DEGRADED
    net.api.PIF.plug(nic.pif)
    assert checked(net.host).code == DONE


@pytest.mark.full
def test_row_61_a_change_is_there_after_a_power_cut_right_behind_it(take_hosts):
    (host,) = take_hosts(1, "installed")
    with opened(host) as net:
        nic = addressed(net)
        net.api.PIF.plug(nic.pif)
        net.static(nic.pif, STATIC.format(12))
    host.power_off()
    host.boot()
    power_on(host)
    assert look(host).addresses(nic.bridge) == {f"{STATIC.format(12)}/{PREFIX}"}
    clean(host)


@pytest.mark.full
def test_row_61_a_damaged_cache_is_set_aside_and_the_verified_one_used(xen_host):
    adopt(xen_host)
    xen_host.exec(
        "systemctl stop hostagent; cd /var/lib/hostagent/net;"
        " test -s cache-verified.json; head -c 300 /dev/urandom >cache.json"
    )
    done = reconfigure(xen_host, "--force", "xenbr0", "--management", "up")
    assert done.code == DONE, done.said
    assert "generation" in done.said
    told = "\n".join(done.value["told"])
    assert "cache.json is not whole, or not ours (set aside as cache.json.damaged)" in told
    assert re.search(r"using generation \d+, the last verified one", told), told
    assert xen_host.exec("ls /var/lib/hostagent/net").stdout.count(".damaged") == 1
    start(xen_host)
    assert_whole(xen_host)


@pytest.mark.full
def test_row_62_a_stale_management_entry_is_told_and_nothing_is_cut(xen_host):
    adopt(xen_host)
    began = start(
        xen_host,
        before="sed -i \"s/^MANAGEMENT_INTERFACE=.*/MANAGEMENT_INTERFACE='xenbr9'/\" /etc/hostagent/inventory",
    )
    assert_reachable(xen_host)
    assert "xenbr9" in str(began.report)
    assert "xenbr0" in str(began.troubles)
    with opened(xen_host) as net:
        net.api.host.management_reconfigure(net.nic(0).pif)
    assert_whole(xen_host)


@pytest.mark.full
def test_row_66_ipv6_that_is_switched_off_for_the_whole_host_is_told_with_the_way_back(net):
    nic = net.nic(STORAGE)
    net.api.PIF.reconfigure_ipv6(nic.pif, "Static", f"{PREFIX6}11/64", "", "")
    setting = "sysctl -w net.ipv6.conf.all.disable_ipv6="
    net.host.exec(f"{setting}1")
    try:
        done = up(net, nic.pif)
        assert done.code == FAILED, done.said
        assert "IPv6 is switched off for the whole host" in done.said
        assert f"{setting}0" in done.said
        assert nic.bridge not in look(net.host).links
    finally:
        net.host.exec(f"{setting}0")
    assert up(net, nic.pif).code == DONE
    assert look(net.host).addresses(nic.bridge, "inet6") == {f"{PREFIX6}11/64"}


@pytest.mark.full
def test_row_68_a_missing_kernel_module_is_named(net):
    one, two = pair(net)
    block = "/etc/modprobe.d/no-bonding.conf"
    net.host.exec(f"modprobe -r bonding; echo 'install bonding /bin/false' >{block}")
    try:
        said = " ".join(refusal(net.bond, [one.pif, two.pif], "active-backup"))
        assert "bonding" in said
        assert net.api.Bond.get_all() == []
    finally:
        net.host.exec(f"rm {block}; modprobe bonding; ip link delete bond0 2>/dev/null; :")


@pytest.mark.full
def test_drift_is_found_and_reported(net):
    nic = addressed(net)
    net.api.PIF.plug(nic.pif)
    assert checked(net.host).code == DONE
    since = net.host.exec("date +@%s").stdout.strip()
    net.host.exec(
        f"ip link set {nic.bridge} type bridge forward_delay 1500; ip address add 10.9.9.9/24 dev {nic.bridge}"
    )
    found = checked(net.host)
    assert found.code == DEGRADED
    assert {(one["device"], one["what"]) for one in found.value["differences"]} >= {
        (nic.bridge, "forward_delay"),
        (nic.bridge, "address"),
    }

    def told(what):  # by the agent itself
        drift = f"drift: {nic.bridge}: {what} is "
        return drift in net.host.exec(f"journalctl -u hostagent -o cat --since '{since}'").stdout

    await_that(lambda: told("forward_delay") and told("address"), "the agent tells of both")
    assert up(net, nic.pif).code == DONE
    assert checked(net.host).code == DONE
    assert look(net.host).addresses(nic.bridge) == {f"{ADDRESS}/{PREFIX}"}
