"""NICs keep their meaning: by MAC address and place, whatever the kernel calls them (networking.md 1.8, 1.9)."""

from __future__ import annotations

import pytest
from nested_xen import install, machine, network, wire

from tests.xen.agent import power_on, start
from tests.xen.net_look import assert_bridge, assert_vlan, await_that, bonding, look
from tests.xen.net_moves import adopt, assert_reachable, management_of
from tests.xen.net_operator import DONE, FAILED, PREFIX, STATIC, opened, reconfigure, refusal, run
from tests.xen.net_segment import ping

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(3600)]

MANAGEMENT, STORAGE, BOND_A, BOND_B = range(4)
TESTER = STATIC.format(200)
MOST = machine.MAX_NICS
NEW_CARD = "02:00:00:00:00:c0"
LONG = "enp129s0f1np1x"  # 14 bytes: no tag fits behind it
BOOT_CARDS = "/opt/xensource/libexec/bfs-interfaces"


def address(number):
    return f"10.77.{number}.11"


def installed(host):
    """hostagent on a host that was booted cold, with its management interface taken over."""
    install.install(host)
    began = start(host)
    assert began.report["ending"] == "complete", began.troubles
    adopt(host)
    return host


def told_of_nics(began):
    """What a start tells of the list of NICs: position and what became of it, with what was before and is after."""
    changes = [change for change in began.changes if "nics.json#" in change["what"]]
    return {change["what"].partition("nics.json#")[2]: (change["old"], change["new"]) for change in changes}


def rebuilt(host, **hardware):
    """The same host with the same disks after somebody had it open: other cards, or other slots; cold-booted."""
    host.power_off()
    network.disconnect(host.lab, host.machine)
    host.machine = machine.custom(host.machine.index, **hardware)
    network.connect(host.lab, host.machine)
    host.boot()
    return power_on(host)


def configured(net, numbers):
    """Each of these NICs gets an address of its own, and comes up."""
    nics = {number: net.nic(number) for number in numbers}
    for number, nic in nics.items():
        net.static(nic.pif, address(number))
        net.api.PIF.plug(nic.pif)
    return nics


def answers_on(host, segment, number):
    """The address of a NIC answers on its segment, from its own MAC address."""
    with wire.join(host.lab, segment) as port:
        frame = ping(port, address(number), sender=f"10.77.{number}.200")
    return frame.source


def segment_of(host, mac):
    return next(nic.segment for nic in host.machine.nics if nic.mac == mac)


@pytest.mark.full
def test_row_32_every_real_nic_has_a_pif_at_its_position_and_nothing_else_has(net):
    ghosts = f"""
ip link add ghost0 type dummy; ip link add ghost1 type veth peer name ghost2
ip link add ghost3 link {net.nic(STORAGE).name} type vlan id 77
ip tuntap add dev ghost4 mode tap; ip link add ghost5 type bridge
"""
    net.host.exec(ghosts)
    try:
        net.api.PIF.scan(net.me)
        assert {f"ghost{number}" for number in range(6)} <= look(net.host).links.keys()
    finally:
        net.host.exec("for n in 0 1 3 4 5; do ip link delete ghost$n; done")
    macs = [nic.mac for nic in net.host.machine.nics]
    physical = [record for record in net.api.PIF.get_all_records().values() if record["physical"]]
    assert sorted(record["MAC"] for record in physical) == sorted(macs)
    for number, mac in enumerate(macs):
        nic = net.nic(number)
        assert nic.bridge == f"xenbr{number}"
        metrics = net.api.PIF_metrics.get_record(net.record(nic.pif)["metrics"])
        path = net.host.exec(f"basename $(readlink -f /sys/class/net/{nic.name}/device/..)").stdout.strip()
        assert (metrics["pci_bus_path"], mac) == (path, nic.mac)


@pytest.mark.full
def test_sixteen_nics_come_up_each_on_its_own_wire_and_again_after_a_cold_boot(odd_host):
    host = installed(odd_host(nics=MOST))
    with opened(host) as net:
        nics = configured(net, range(1, MOST))
    each_on_its_wire(host, nics)
    host.power_off()
    host.boot()
    assert power_on(host).report["ending"] == "complete"
    each_on_its_wire(host, nics)


def each_on_its_wire(host, nics):
    seen = look(host)
    for number, nic in nics.items():
        assert nic.bridge == f"xenbr{number}"
        assert_bridge(seen, nic.bridge, {nic.name}, mac=nic.mac)
        assert seen.addresses(nic.bridge) == {f"{address(number)}/{PREFIX}"}
        assert answers_on(host, segment_of(host, nic.mac), number) == nic.mac


@pytest.mark.full
def test_row_26_in_another_order_every_nic_keeps_its_network_its_address_and_its_wire(odd_host):
    host = installed(odd_host(nics=6))
    with opened(host) as net:
        nics = configured(net, range(1, 6))
    began = rebuilt(host, nics=6, pci_order=[3, 5, 4, 0, 2, 1])
    assert began.report["ending"] == "complete", began.troubles
    assert management_of(look(host), host) == "xenbr0"
    with opened(host) as net:
        for number, before in nics.items():
            now = net.nic(number)
            assert (now.pif, now.bridge, now.mac) == (before.pif, before.bridge, before.mac)
            assert_bridge(look(host), now.bridge, {now.name}, mac=now.mac)
            assert answers_on(host, segment_of(host, now.mac), number) == now.mac
        names = {number: (nics[number].name, net.nic(number).name) for number in nics}
    renamed = {f"{number} renamed": pair for number, pair in names.items() if pair[0] != pair[1]}
    assert renamed
    assert renamed.items() <= told_of_nics(began).items()


@pytest.mark.full
def test_row_30_a_nic_that_is_missing_at_boot_is_told_and_holds_nothing_up(odd_host):
    host = installed(odd_host())
    with opened(host) as net:
        nics = configured(net, (STORAGE, BOND_A, BOND_B))
        gone = nics[BOND_A]
    began = rebuilt(host, missing={BOND_A})
    assert began.report["ending"] == "complete", began.troubles
    seen = look(host)
    for number in (STORAGE, BOND_B):
        assert seen.addresses(nics[number].bridge) == {f"{address(number)}/{PREFIX}"}
        assert answers_on(host, segment_of(host, nics[number].mac), number) == nics[number].mac
    with opened(host) as net:
        assert net.attached(gone.pif) is False
        assert net.record(gone.pif)["MAC"] == gone.mac
        told = run(host, "hostagent", "pif", "explain", gone.uuid)
        assert f"{gone.name} ({gone.mac}) is missing since 20" in told.out
    assert gone.name in str(began.troubles) or gone.uuid in str(began.troubles)

    began = rebuilt(host)
    assert began.report["ending"] == "complete", began.troubles
    with opened(host) as net:
        assert net.attached(gone.pif)
        assert net.nic(BOND_A).bridge == gone.bridge
    assert answers_on(host, segment_of(host, gone.mac), BOND_A) == gone.mac


@pytest.mark.full
def test_row_30_a_bond_comes_up_with_the_member_that_is_there(odd_host):
    host = installed(odd_host())
    with opened(host) as net:
        one, two = net.nic(BOND_A), net.nic(BOND_B)
        _, master = net.bond([one.pif, two.pif], "active-backup")
        net.static(master, address(BOND_A))
        device, bridge = net.record(master)["device"], net.bridge(master)
    began = rebuilt(host, missing={BOND_B})
    assert began.report["ending"] == "complete", began.troubles
    assert bonding(host, device)[1].keys() == {one.name}
    assert look(host).addresses(bridge) == {f"{address(BOND_A)}/{PREFIX}"}
    assert answers_on(host, "bond-a", BOND_A) == one.mac
    rebuilt(host)
    assert bonding(host, device)[1].keys() == {one.name, two.name}


@pytest.mark.full
def test_row_27_a_card_in_the_slot_of_one_that_vanished_takes_its_place(odd_host):
    host = installed(odd_host())
    with opened(host) as net:
        former = configured(net, (STORAGE, BOND_A))[BOND_A]
    macs = [machine.mac(1, MANAGEMENT), machine.mac(1, STORAGE), NEW_CARD]
    began = rebuilt(host, macs=macs)
    assert began.report["ending"] == "complete", began.troubles
    assert told_of_nics(began)[f"{BOND_A} replaced"] == (former.mac, NEW_CARD)
    with opened(host) as net:
        now = net.nic(BOND_A)
        assert (now.pif, now.bridge, now.mac) == (former.pif, former.bridge, NEW_CARD)
        net.api.PIF.plug(now.pif)
    assert answers_on(host, "bond-a", BOND_A) == NEW_CARD


@pytest.mark.full
def test_row_27_with_every_nic_exchanged_the_host_is_reachable_by_the_places_of_its_cards(odd_host):
    host = installed(odd_host())
    former = [nic.mac for nic in host.machine.nics]
    macs = [f"02:00:00:00:01:{number:02x}" for number in range(4)]
    began = rebuilt(host, macs=macs)
    assert_reachable(host)
    told = told_of_nics(began)
    for number, both in enumerate(zip(former, macs, strict=True)):
        assert told[f"{number} replaced"] == both
    assert management_of(look(host), host) == "xenbr0"


def rename(host, old, new):
    """As a driver's or udev's new mind does it: the kernel's name changes, the NIC stays."""
    host.exec(f"ip link set {old} down; ip link set {old} name {new}; ip link set {new} up")


@pytest.mark.full
def test_rows_24_and_25_a_vlan_on_a_nic_with_a_long_name_has_a_short_one_and_an_alias(net):
    nic = net.nic(STORAGE)
    rename(net.host, nic.name, LONG)
    try:
        net.api.PIF.scan(net.me)
        assert net.nic(STORAGE).name == LONG
        vlan = net.vlan(nic.pif, 4094)
        net.static(vlan, address(STORAGE))
        net.api.PIF.plug(vlan)
        seen = look(net.host)
        device = assert_vlan(seen, LONG, 4094, net.bridge(vlan))
        assert len(device) <= 15
        assert f"{LONG}.4094" in seen.links[device]["altnames"]
        with wire.join(net.host.lab, "storage") as port:
            ping(port, address(STORAGE), sender=f"10.77.{STORAGE}.200", tag=4094)
        net.api.VLAN.destroy(net.record(vlan)["VLAN_master_of"])
    finally:
        rename(net.host, LONG, nic.name)
        net.api.PIF.scan(net.me)
    assert net.nic(STORAGE).name == nic.name


@pytest.mark.full
def test_row_31_the_cards_of_the_root_disk_are_left_alone_or_stay_plugged(net):
    """A program of the platform names them: the first line those that are not ours, the second those that stay."""
    left, kept = net.nic(STORAGE), net.nic(BOND_A)
    theirs = f"{address(STORAGE)}/{PREFIX}"
    for nic in (left, kept):
        net.api.PIF.forget(nic.pif)
    net.host.exec(
        f"mkdir -p $(dirname {BOOT_CARDS})"
        f" && printf '#!/bin/sh\\necho {left.name}\\necho {kept.name}\\n' >{BOOT_CARDS} && chmod 755 {BOOT_CARDS}"
        f" && ip link set {left.name} up && ip address add {theirs} dev {left.name}"
    )
    try:
        net.api.PIF.scan(net.me)
        unmanaged, pinned = net.nic(STORAGE), net.nic(BOND_A)
        assert (net.record(unmanaged.pif)["managed"], unmanaged.bridge) == (False, "")
        assert (net.record(pinned.pif)["managed"], pinned.bridge) == (True, kept.bridge)
        assert net.record(pinned.pif)["disallow_unplug"] is True
        assert net.record(net.nic(BOND_B).pif)["disallow_unplug"] is False

        for call in (net.api.PIF.plug, net.api.PIF.unplug):
            assert refusal(call, unmanaged.pif) == ["PIF_UNMANAGED", unmanaged.pif]
        assert refusal(net.static, unmanaged.pif, address(BOND_B)) == ["PIF_UNMANAGED", unmanaged.pif]
        for action in ("up", "down"):
            assert reconfigure(net.host, "--pif-uuid", unmanaged.uuid, action).code == FAILED
        seen = look(net.host)
        assert (seen.master(left.name), seen.addresses(left.name)) == ("", {theirs})
        assert left.bridge not in seen.links

        net.api.PIF.plug(pinned.pif)
        assert refusal(net.api.PIF.unplug, pinned.pif) == ["PIF_DOES_NOT_ALLOW_UNPLUG", pinned.pif]
        assert refusal(net.api.PIF.forget, pinned.pif)[0] == "PIF_DOES_NOT_ALLOW_UNPLUG"
        down = reconfigure(net.host, "--pif-uuid", pinned.uuid, "down")
        assert down.code == FAILED, down.said
        assert "is marked as one that must stay plugged" in down.said
        assert_bridge(look(net.host), kept.bridge, {kept.name}, mac=kept.mac)
    finally:
        net.host.exec(f"rm -f {BOOT_CARDS}; ip address flush dev {left.name}")
        net.api.PIF.scan(net.me)
        for number in (STORAGE, BOND_A):
            again = net.nic(number)
            net.api.PIF.set_disallow_unplug(again.pif, False)  # noqa: FBT003 - as the call has it
            net.api.PIF.forget(again.pif)
            if not again.bridge:
                net.api.network.destroy(again.network)
        net.api.PIF.scan(net.me)
    assert (net.nic(STORAGE).bridge, net.nic(BOND_A).bridge) == (left.bridge, kept.bridge)
    assert net.record(net.nic(STORAGE).pif)["managed"] is True


@pytest.mark.full
def test_row_28_a_member_of_a_bond_that_is_renamed_stays_its_member(net):
    one, two = net.nic(BOND_A), net.nic(BOND_B)
    _, master = net.bond([one.pif, two.pif], "active-backup")
    device = net.record(master)["device"]
    rename(net.host, two.name, "other0")
    try:
        net.api.PIF.scan(net.me)
        assert net.record(two.pif)["device"] == "other0"
        await_that(lambda: bonding(net.host, device)[1].keys() == {one.name, "other0"}, "both are members")
        again = run(net.host, "interface-reconfigure", "--pif-uuid", net.api.PIF.get_uuid(master), "up")
        assert again.code == DONE, again.said
        assert bonding(net.host, device)[1].keys() == {one.name, "other0"}
    finally:
        rename(net.host, "other0", two.name)
        net.api.PIF.scan(net.me)


@pytest.mark.full
def test_row_29_a_member_that_leaves_a_bond_has_its_own_mac_address_again(net):
    one, two = net.nic(BOND_A), net.nic(BOND_B)
    bond, _ = net.bond([one.pif, two.pif], "active-backup")
    assert look(net.host).links[two.name]["address"] == one.mac
    net.api.Bond.destroy(bond)
    seen = look(net.host)
    own = {nic.name: seen.links[nic.name]["address"] for nic in (one, two)}
    assert own == {one.name: one.mac, two.name: two.mac}
