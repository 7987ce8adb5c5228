"""Records for the drivers from the database, PIFs from NICs, and the arithmetic of addresses."""

from __future__ import annotations

import datetime as dt
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net.nics_types import Nic
from hostagent.net.records import Bond, Network, Pif, Vlan
from hostagent.netctl import objects_vlan, refusals
from hostagent.netctl.control import References
from hostagent.netctl.errors import RefusedError
from hostagent.netctl.from_database import device_order, records_after, records_of
from hostagent.netctl.objects_network import free_bridge
from hostagent.netctl.objects_nics import match, scan
from hostagent.netctl.objects_pif import flag_management
from tests.pure.netctl_host import NICS, opened

NOW = dt.datetime(2026, 8, 21, 2, 0, 23, tzinfo=dt.UTC)


@pytest.fixture
def site(tmp_path):
    with opened(tmp_path) as made:
        yield made


def records(site):
    with site.db.read() as view:
        return records_of(view, site.host, "xenbr0")


def scanned(site, nics):
    with site.db.write() as w:
        return scan(w, References(), site.host, nics, NOW)


def test_records_say_all_of_this_host_and_nothing_of_another(site):
    eth1, eth2, eth3 = site.pifs[1:4]
    bond, master = site.bond(eth2, eth1, mode="lacp", properties={"lacp-time": "fast"}, auto_update_mac=False)
    vlan, upper, network = site.vlan(master, 5, ip_configuration_mode="DHCP")
    site.set("network", network, MTU=1400, other_config={"static-routes": "x"})
    site.set("PIF", eth3, MAC="02:AA:00:00:00:03", IPv6=["2001:db8::7/64"], other_config={"mtu": "1300"})
    site.set("pool", site.pool, other_config={"k": "v"})
    host, far = site.other_host()
    found = records(site)
    assert (found.host_uuid, found.bridge, found.pool_other_config) == ("host-uuid", "xenbr0", {"k": "v"})
    assert set(found.pifs) == {*site.pifs, master, upper}
    assert found.bonds == {
        bond: Bond(
            ref=bond,
            uuid=site.record("Bond", bond)["uuid"],
            master=master,
            slaves=(eth2, eth1),
            primary_slave=eth2,
            mode="lacp",
            properties={"lacp-time": "fast"},
            auto_update_mac=False,
        )
    }
    assert found.vlans == {vlan: Vlan(vlan, site.record("VLAN", vlan)["uuid"], master, upper, 5)}
    assert found.networks[network] == Network(
        network,
        site.record("network", network)["uuid"],
        "v5",
        "xapi5",
        1400,
        other_config={"static-routes": "x"},
    )
    assert site.free in found.networks  # internal
    assert site.record("PIF", far)["network"] not in found.networks
    pif = found.pifs[upper]
    assert (pif.vlan, pif.device, pif.vlan_master_of, pif.bond_slave_of, pif.ip_mode) == (
        5,
        "bond0",
        vlan,
        "",
        "DHCP",
    )
    assert (found.pifs[eth1].bond_slave_of, found.pifs[master].bond_master_of) == (bond, (bond,))
    assert (found.pifs[eth3].mac, found.pifs[eth3].other_config) == ("02:aa:00:00:00:03", {"mtu": "1300"})
    assert found.pifs[master].vlan_slave_of == (vlan,)
    with site.db.read() as view:
        assert set(records_of(view, host, "").pifs) == {far}


def apart(w, was, host):
    """What is read of the changes alone, which is all of it, in the same order."""
    found, whole = records_after(w, was, w.generation - 1, host, "xenbr0"), records_of(w, host, "xenbr0")
    assert found == whole
    for name in ("pifs", "networks", "bonds", "vlans"):
        assert list(getattr(found, name)) == list(getattr(whole, name))
    return found


def test_what_a_transaction_changes_is_read_apart(site):
    eth1, eth2, eth3, eth4 = site.pifs[1:]
    bond, master = site.bond(eth2, eth1)
    old, _, network = site.vlan(eth3, 5)
    _, _, second = site.vlan(master, 6)
    here, (there, far) = site.host, site.other_host()
    with site.db.write() as w:
        was = records_of(w, here, "xenbr0")
        assert apart(w, was, here) == was
        new, upper = objects_vlan.create(w, References(), eth4, 7, site.free)
        assert apart(w, was, here).vlans[new].untagged == upper
        objects_vlan.destroy(w, old)
        assert network in apart(w, was, here).networks  # nobody is on it: internal now
        w.destroy("network", network)
        objects_vlan.move(w, new, master)
        w.set("PIF", far, "network", second)
        w.set("PIF", upper, "network", w.create("network", {"bridge": "xapi9"}))
        w.set("network", site.nets[0], "MTU", 9000)
        apart(w, was, here)
        w.set("PIF", eth1, "device", "eth10")
        w.set("PIF", eth2, "device", "eth9")
        w.set("Bond", bond, "primary_slave", eth1)
        w.set("pool", site.pool, "other_config", {"k": "v"})
        w.destroy("network", w.create("network", {"bridge": "xapi10"}))
        w.set("PIF", eth2, "bond_slave_of", "OpaqueRef:NULL")
        found = apart(w, was, here)
        assert (found.bonds[bond].slaves, found.pifs[eth2].device) == ((eth1,), "eth9")
        w.destroy("Bond", bond)
        w.destroy("PIF", master)  # its VLANs lie on nothing
        apart(w, was, here)
        far_was = records_of(w, there, "")
        assert records_after(w, far_was, w.generation - 1, there, "").pifs.keys() == {far}


def test_every_field_of_a_pif_that_the_drivers_know_comes_from_the_database(site):
    """One that is forgotten keeps its default, which none of these is."""
    eth1 = site.pifs[1]
    site.set(
        "PIF",
        eth1,
        managed=False,
        management=True,
        currently_attached=True,
        disallow_unplug=True,
        ip_configuration_mode="Static",
        IP="192.0.2.9",
        netmask="255.255.255.0",
        gateway="192.0.2.1",
        DNS="192.0.2.53",
        ipv6_configuration_mode="Static",
        IPv6=["2001:db8::7/64"],
        ipv6_gateway="2001:db8::1",
        primary_address_type="IPv6",
        other_config={"mtu": "1300"},
        VLAN=7,
    )
    vlan, upper, _ = site.vlan(eth1, 5)
    bond, _ = site.bond(eth1)
    made = records(site).pifs
    master = site.make("Bond", master=eth1)
    again = records(site).pifs[eth1]._replace(vlan_master_of=made[upper].vlan_master_of)
    defaults = Pif._field_defaults
    assert [name for name, value in defaults.items() if getattr(again, name) == value] == []
    assert (again.bond_slave_of, again.bond_master_of, again.vlan_slave_of) == (bond, (master,), (vlan,))


def test_devices_are_sorted_as_people_count(site):
    assert sorted(["eth10", "eth9", "bond0", "eth1"], key=device_order) == ["bond0", "eth1", "eth9", "eth10"]


# NICs


def test_new_nics_get_a_pif_and_the_network_of_their_position(site):
    nic = Nic(
        position=7,
        name="enp7s0",
        mac="02:00:00:00:00:77",
        mtu=9000,
        capabilities=("fcoe",),
        vendor_id="8086",
        vendor_name="Intel",
        device_id="10d3",
        device_name="82574L",
        pci_path="0000:07:00.0",
        carrier=True,
        speed=1000,
        duplex=True,
    )
    (pif,) = scanned(site, [NICS[0]._replace(unmanaged=True), *NICS[1:], nic._replace(pinned=True)])
    record = site.record("PIF", pif)
    values = {"device": "enp7s0", "MAC": nic.mac, "MTU": 9000, "VLAN": -1, "physical": True, "managed": True}
    values |= {"currently_attached": False, "ip_configuration_mode": "None", "properties": {"gro": "on"}}
    values |= {"capabilities": ["fcoe"], "disallow_unplug": True, "host": site.host}
    assert {key: record[key] for key in values} == values
    network = site.record("network", record["network"])
    assert (network["bridge"], network["name_label"], network["MTU"]) == (
        "xenbr7",
        "Pool-wide network 7",
        1500,
    )
    metrics = {"carrier": True, "vendor_id": "8086", "vendor_name": "Intel", "device_id": "10d3"}
    metrics |= {"device_name": "82574L", "speed": 1000, "duplex": True, "pci_bus_path": "0000:07:00.0"}
    metrics |= {"last_updated": "20260821T02:00:23Z"}
    assert {key: site.record("PIF_metrics", record["metrics"])[key] for key in metrics} == metrics
    assert scanned(site, [*NICS, nic]) == []


def test_nics_that_are_to_be_left_alone_have_a_network_without_a_bridge(site):
    (pif,) = scanned(site, [*NICS, Nic(7, "eth7", "02:00:00:00:00:77", unmanaged=True)])
    network = site.record("network", site.record("PIF", pif)["network"])
    assert (site.record("PIF", pif)["managed"], network["managed"], network["bridge"]) == (False, False, "")
    assert scanned(site, [*NICS, Nic(7, "eth8", "02:00:00:00:00:77")]) == []
    assert site.record("PIF", pif)["device"] == "eth8"
    assert scanned(site, [*NICS, Nic(7, "eth8", "02:00:00:00:00:99")]) == []
    assert site.record("PIF", pif)["MAC"] == "02:00:00:00:00:99"


def test_a_network_of_another_hosts_nic_is_shared_and_a_taken_one_is_not(site):
    _, far = site.other_host()
    (pif,) = scanned(site, [*NICS, Nic(9, "eth9", "02:00:00:00:00:99")])
    assert site.record("PIF", pif)["network"] == site.record("PIF", far)["network"]
    taken = site.make("network", bridge="xenbr8")
    site.make("PIF", device="bond9", host=site.host, network=taken, VLAN=-1)
    (other,) = scanned(
        site, [*NICS, Nic(9, "eth9", "02:00:00:00:00:99"), Nic(8, "eth8", "02:00:00:00:00:88")]
    )
    assert site.record("PIF", other)["network"] != taken


def test_a_renamed_and_replaced_nic_keeps_its_pif(site):
    eth1, eth2 = site.pifs[1:3]
    _, upper, _ = site.vlan(eth1, 5)
    nics = list(NICS)
    nics[1], nics[2] = nics[1]._replace(name="eth2"), nics[2]._replace(name="eth1", mac="02:00:00:00:00:EE")
    assert scanned(site, nics) == []
    assert [site.record("PIF", pif)["device"] for pif in (eth1, eth2, upper)] == ["eth2", "eth1", "eth2"]
    assert site.record("PIF", eth2)["MAC"] == "02:00:00:00:00:ee"


def test_a_nic_that_is_gone_has_no_link_and_keeps_its_pif(site):
    eth1 = site.pifs[1]
    scanned(site, [nic._replace(carrier=True) for nic in NICS])
    metrics = site.record("PIF", eth1)["metrics"]
    assert site.record("PIF_metrics", metrics)["carrier"] is True
    absent = NICS[1]._replace(present=False, carrier=True, name="", mac="")
    assert scanned(site, [NICS[0], absent, *NICS[2:]]) == []
    assert site.record("PIF_metrics", metrics)["carrier"] is False
    assert site.record("PIF", eth1)["device"] == "eth1"
    assert scanned(site, [*NICS, Nic(9, "eth9", "02:00:00:00:00:99", present=False)]) == []


def test_a_scan_that_finds_nothing_new_writes_nothing(site):
    scanned(site, NICS)
    before = site.db.generation
    scanned(site, NICS)
    assert site.db.generation == before


def test_no_nic_is_two_pifs(site):
    @given(positions=st.lists(st.integers(0, 6), unique=True, max_size=6))
    def whatever_nics_there_are(positions):
        nics = [Nic(number, f"eth{number}", f"02:00:00:00:00:0{number}") for number in positions]
        with site.db.read() as view:
            found = match(view, site.host, nics)
        known = sum(number < len(NICS) for number in positions)
        assert len({nic.position for nic in found.values()}) == len(found) == known

    whatever_nics_there_are()


def test_the_flag_of_the_management_interface_follows_the_inventory(site):
    with site.db.write() as w:
        flag_management(w, site.host, "xenbr2")
    assert [site.record("PIF", pif)["management"] for pif in site.pifs] == [False, False, True, False, False]


def test_bridges_are_numbered_above_those_in_use(site):
    site.make("network", bridge="xapi7")
    site.make("network", bridge="xapi7x")
    with site.db.read() as view:
        assert free_bridge(view) == "xapi8"


# what is an address


@given(st.ip_addresses(v=4))
def test_ipv4_addresses_that_a_host_can_have(address):
    wanted = not (
        address.is_multicast or address.is_loopback or address.packed[0] == 0 or address.packed[0] > 223
    )
    assert refusals.is_ipv4(str(address)) == wanted


@given(
    st.ip_addresses(v=4)
    | st.integers(0, 32).map(lambda bits: ipaddress.ip_network(f"0.0.0.0/{bits}").netmask)
)
def test_netmasks(mask):
    bits = f"{int(mask):032b}"
    assert refusals.is_netmask(str(mask)) == ("01" not in bits and bits[0] == "1")


@given(st.ip_addresses(v=6), st.integers(-1, 130))
def test_ipv6_addresses_with_their_prefix(address, prefix):
    usable = not (address.is_multicast or address.is_loopback or address.is_unspecified)
    assert refusals.is_ipv6_prefix(f"{address}/{prefix}") == (usable and 1 <= prefix <= 128)


@given(st.text(max_size=45))
def test_any_text_is_an_address_or_none(text):
    for is_one in (refusals.is_ipv4, refusals.is_netmask, refusals.is_ipv6, refusals.is_ipv6_prefix):
        assert is_one(text) in (True, False)


@given(
    st.text("0123456789abcdefABCDEF:", max_size=18)
    | st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
)
def test_any_text_is_a_mac_address_or_refused(text):
    pairs = text.lower().split(":")
    digits = set("0123456789abcdef")
    is_one = len(pairs) == 6 and all(len(pair) == 2 and set(pair) <= digits for pair in pairs)
    if is_one and int(pairs[0], 16) % 2 == 0 and set(text) != set("0:"):
        assert refusals.mac(text) == text.lower()
    else:
        with pytest.raises(RefusedError) as caught:
            refusals.mac(text)
        assert (caught.value.code, caught.value.params) == ("MAC_INVALID", (text,))


def test_references_are_the_same_the_second_time(site):
    references = References()
    with site.db.write() as w:
        first = references.create(w, "network", {})
        uuid = w.get("network", first, "uuid")
        w.destroy("network", first)
        references.rewind()
        assert references.create(w, "network", {}) == first
        assert w.get("network", first, "uuid") == uuid
        assert references.create(w, "network", {}) != first


@pytest.mark.parametrize("fails", [False, True])
def test_the_database_is_free_while_the_host_is_changed(site, fails):
    """Log-ins and events are written meanwhile."""
    seen = []

    def meanwhile():
        site.set("pool", site.pool, name_label="written")
        seen.append(site.record("PIF", site.pifs[1])["currently_attached"])
        if fails:
            raise RefusedError("VLAN_IN_USE", "eth1", "5", found="it is", hint="h")

    site.net.meanwhile = meanwhile
    if fails:
        with pytest.raises(Exception, match="VLAN_IN_USE"):
            site.call("PIF.plug", site.pifs[1])
    else:
        site.call("PIF.plug", site.pifs[1])
    assert seen == [False]
    assert site.record("pool", site.pool)["name_label"] == "written"
    assert site.record("PIF", site.pifs[1])["currently_attached"] is not fails
