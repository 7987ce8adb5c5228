"""What of a card is taken over, what is refused, and what keeps its former daemon from it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import adopt, adopt_files, client_ids
from hostagent.net.adopt_files import CannotAdoptError, Change, comment_out, disabling, restoring
from hostagent.net.devices import GROUP, SCOPE_LINK, Address, Kernel, Link, Route
from hostagent.net.dhcp import Client
from hostagent.net.foreign_files import Nic, Owner, sections
from hostagent.net.foreign_ifupdown import stanzas
from hostagent.net.foreign_networkd import matches
from hostagent.net.plan import plan
from hostagent.net.restore import address_add
from tests.pure.net_kernel import FakeKernel

NIC = Link(2, "eth0", "", "02:00:00:00:00:00", 1500, 0, 0, 1, 0, carrier=True, operstate=6)
BRIDGE = NIC._replace(ifindex=9, name="xenbr0", kind="bridge", group=GROUP)
V4, V6 = Address(2, "192.0.2.10", 24), Address(2, "2001:db8::10", 64)
DEFAULT4, DEFAULT6 = Route(2, "default4", "192.0.2.1", 4), Route(2, "default6", "fe80::1", 4, 1024)
KERNEL = Kernel({2: NIC}, (V4, V6), (DEFAULT4, DEFAULT6))
STATIC = Owner(
    "systemd-networkd",
    "eth0",
    "Static",
    ("192.0.2.10/24",),
    "192.0.2.1",
    ("192.0.2.53",),
    search=("example.org",),
)
LEASED = Owner("systemd-networkd", "eth0", "DHCP", ("192.0.2.10/24",), client_id="ff:01")


def test_static_settings_are_those_of_the_kernel():
    found = adopt.settings(STATIC, NIC, KERNEL)
    assert found[:4] == ("Static", "192.0.2.10", "255.255.255.0", "192.0.2.1")
    assert (found.dns, found.search, found.told) == (("192.0.2.53",), ("example.org",), ())


def test_dhcp_asks_for_the_same_address_by_the_same_name():
    kernel = KERNEL._replace(addresses=(V4._replace(valid_s=100),))
    found = adopt.settings(LEASED, NIC, kernel)
    assert (found.mode, found.address, found.request, found.client_id) == ("DHCP", "", "192.0.2.10", "ff:01")


def test_static_ipv6_is_carried_over():
    owner = STATIC._replace(addresses=("192.0.2.10/24", "2001:db8::10/64"), mode6="Static")
    found = adopt.settings(owner, NIC, KERNEL)
    assert (found.mode6, found.address6, found.gateway6) == ("Static", "2001:db8::10/64", "fe80::1")


def test_what_a_pif_cannot_have_is_told():
    more = KERNEL._replace(
        addresses=(V4, Address(2, "192.0.2.11", 24)),
        routes=(DEFAULT4, Route(2, "198.51.100.0/24", "192.0.2.9", 4)),
    )
    told = " ".join(adopt.settings(STATIC, NIC, more).told)
    assert "192.0.2.11/24" in told
    assert "198.51.100.0/24" in told


def test_address_that_files_and_kernel_do_not_agree_on_stops():
    with pytest.raises(CannotAdoptError, match=r"192\.0\.2\.10"):
        adopt.settings(STATIC, NIC, KERNEL._replace(addresses=(Address(2, "192.0.2.99", 24),)))
    with pytest.raises(CannotAdoptError):
        adopt.settings(Owner("ifupdown", "eth0"), NIC, KERNEL)


@pytest.mark.parametrize(
    ("owners", "said"),
    [
        ((), "no other"),
        ((STATIC, Owner("NetworkManager", "eth0")), "both"),
        ((STATIC._replace(through="br0"),), "br0"),
        ((Owner("connman", "eth0", disable="systemctl disable connman.service"),), "connman"),
        ((Owner("cloud-init", "eth0"),), "no other"),
    ],
)
def test_owners_that_cannot_be_taken_from(owners, said):
    with pytest.raises(CannotAdoptError, match=said):
        adopt.main_owner(NIC, owners, KERNEL)


def test_owner_beside_cloud_init_and_card_of_ours():
    assert adopt.main_owner(NIC, (STATIC, Owner("cloud-init", "eth0")), KERNEL) == STATIC
    kernel = Kernel({2: NIC, 9: BRIDGE})
    with pytest.raises(adopt.AlreadyAdoptedError):
        adopt.main_owner(NIC._replace(master=9), (STATIC,), kernel)
    other = BRIDGE._replace(name="br5", group=0)
    with pytest.raises(CannotAdoptError, match="br5"):
        adopt.main_owner(NIC._replace(master=9), (STATIC,), Kernel({9: other}))


def test_card_that_is_meant():
    assert adopt.choose("", KERNEL) == adopt.choose("eth0", KERNEL) == "eth0"
    for name, kernel in (("", Kernel({2: NIC})), ("eth7", KERNEL), ("xenbr0", Kernel({9: BRIDGE}))):
        with pytest.raises(CannotAdoptError):
            adopt.choose(name, kernel)
    with pytest.raises(CannotAdoptError, match="vlan"):
        adopt.choose("eth0.5", Kernel({3: NIC._replace(ifindex=3, name="eth0.5", kind="vlan")}))


def test_without_a_default_route_it_is_the_only_card_with_an_address():
    other = NIC._replace(ifindex=3, name="eth1")
    loopback = NIC._replace(ifindex=1, name="lo", flags=adopt.LOOPBACK)
    links = {1: loopback, 2: NIC, 3: other, 9: BRIDGE}
    beside = (
        Address(1, "203.0.113.1", 32),
        Address(3, "fe80::1", 64, scope=SCOPE_LINK),
        Address(9, "10.0.0.1", 24),
    )
    assert adopt.choose("", Kernel(links, (V4, *beside))) == "eth0"
    with pytest.raises(CannotAdoptError, match="no default route, and no card has an address: which card"):
        adopt.choose("", Kernel(links, beside))
    with pytest.raises(CannotAdoptError, match="no default route, and eth0, eth1 have addresses: which card"):
        adopt.choose("", Kernel(links, (V4, Address(3, "10.0.0.2", 24))))
    routes = (DEFAULT4, DEFAULT4._replace(device=3, metric=5))
    with pytest.raises(CannotAdoptError, match="the default routes are on eth0, eth1: which card"):
        adopt.choose("", Kernel(links, (V4,), routes))


def test_dynamic_ipv6_addresses_move_too_and_no_route_of_ipv4_with_them():
    kernel = Kernel({2: NIC, 9: BRIDGE}, (V4, V6._replace(flags=0x300, valid_s=600)), (DEFAULT4,))
    taken = adopt.Settings("Static", "192.0.2.10", mode6="Autoconf")
    steps = adopt._carried(kernel, NIC, BRIDGE, taken)
    assert [(step.do.verb, step.do.args["text"], step.do.args["valid_s"]) for step in steps] == [
        ("address-add", "2001:db8::10", 600)
    ]
    assert steps[0].do.args["flags"] == 2


def test_plan_of_giving_back_leaves_no_bridge():
    kernel = FakeKernel(
        Kernel(
            {2: NIC._replace(master=9), 9: BRIDGE},
            (V4._replace(device=9),),
            (DEFAULT4._replace(device=9, protocol=171),),
        )
    )
    look = kernel.look()
    nic, bridge = look.links[2], look.links[9]
    planned = plan(adopt.released(look, nic, bridge), look)
    whole = adopt.releasing(planned, look, nic, bridge, "systemd-networkd", (), ())
    kernel.execute([step.do for step in whole.steps if step.do.verb not in ("sysctl", "foreign", "file")])
    after = kernel.look()
    assert set(after.links) == {2}
    assert [(one.device, one.text) for one in after.addresses] == [(2, "192.0.2.10")]
    assert [(one.device, one.gateway) for one in after.routes] == [(2, "192.0.2.1")]


# --- files ---


def nothing(_path):
    return None


def test_networkd_leaves_the_card_its_vlans_and_our_bridges_alone():
    found = disabling((STATIC,), nothing, alone=True)
    (bridges,) = found.early
    switch = next(change for change in found.late if change.path.endswith("00-hostagent-eth0.network"))
    for name in ("eth0", "eth0.5"):
        assert matches(Nic(name), sections(switch.after or ""))
    assert not matches(Nic("eth1"), sections(switch.after or ""))
    for name in ("xenbr0", "vif1.0", "xapi3"):
        assert matches(Nic(name), sections(bridges.after or ""))
    assert not matches(Nic("bond0"), sections(bridges.after or ""))
    assert any("wait-online" in change.path for change in found.late)
    assert not any("wait-online" in change.path for change in disabling((STATIC,), nothing, alone=False).late)


def test_a_card_that_networkd_knows_by_its_address_is_kept_from_it_under_any_name():
    owner = STATIC._replace(mac="02:00:00:00:00:07")
    late = {
        change.path: sections(change.after or "") for change in disabling((owner,), nothing, alone=False).late
    }
    vlans, switch = late.values()
    assert [path.rpartition("/")[2] for path in late] == [
        "00-hostagent-eth0-vlans.network",
        "00-hostagent-eth0.network",
    ]
    assert matches(Nic("eth3", mac="02:00:00:00:00:07"), switch)
    assert not matches(Nic("eth0", mac="02:00:00:00:00:08"), switch)
    assert dict(vlans[0][1]) == {"Type": "vlan", "MACAddress": "02:00:00:00:00:07"}


def test_cloud_init_is_kept_from_the_network_first():
    owners = (Owner("NetworkManager", "eth0"), Owner("cloud-init", "eth0"))
    found = disabling(owners, nothing, alone=False)
    assert [change.path.split("/")[2] for change in found.late] == ["cloud", "NetworkManager"]
    assert "interface-name:eth0;" in (found.late[1].after or "")


def test_networkmanager_lets_go_first_and_until_the_next_boot_only():
    found = disabling((Owner("NetworkManager", "eth0"),), nothing, alone=False)
    early, late = found.early[0], found.late[0]
    assert early.path == "/run/NetworkManager/conf.d/00-hostagent-eth0.conf"
    assert (late.path, late.after) == ("/etc/NetworkManager/conf.d/00-hostagent-eth0.conf", early.after)


def test_stanzas_of_two_files_have_no_single_step():
    texts = {"/a": "iface eth0 inet dhcp\n", "/b": "iface eth0 inet6 auto\n"}
    owner = Owner("ifupdown", "eth0", files=tuple(texts))
    with pytest.raises(CannotAdoptError, match="one file"):
        disabling((owner,), texts.get, alone=False)


def test_file_with_the_stanza_is_written_before_the_one_that_starts_it():
    texts = {"/auto": "auto eth0\n", "/iface": "iface eth0 inet dhcp\n  hostname x\n"}
    owner = Owner("ifupdown", "eth0", files=tuple(texts))
    late = disabling((owner,), texts.get, alone=False).late
    assert [change.path for change in late] == ["/iface", "/auto"]
    assert late[0].after == "#hostagent# iface eth0 inet dhcp\n#hostagent#   hostname x\n"


LINES = st.sampled_from(
    [
        "auto eth0 eth1", "auto lo", "allow-hotplug eth0", "iface eth0 inet dhcp", "iface eth1 inet static",
        "  address 192.0.2.1/24", "", "# a comment", "iface eth0 inet6 auto", "source /etc/x/*", "mapping eth0",
        "  up echo \\", "    more", "no-auto-down eth0",
    ]
)  # fmt: skip


@given(st.lists(LINES))
def test_any_interfaces_file_without_one_card(lines):
    content = "".join(f"{line}\n" for line in lines)
    after, count = comment_out(content, "eth0")

    def left(text):
        joined = text.replace("\\\n", " ").splitlines()
        plain = [line.strip() for line in joined if line.strip() and not line.lstrip().startswith("#")]
        return stanzas([(line, "") for line in plain])

    def of(device, text):
        return [one for one in left(text) if one.device == device]

    assert of("eth0", after) == []
    assert of("eth1", after) == of("eth1", content)
    assert count == len(of("eth0", content))
    assert comment_out(after, "eth0") == (after, 0)


@given(st.text(alphabet="abiface eth0\n\\#\t", max_size=80))
def test_any_text_at_all_loses_no_line(text):
    after, _ = comment_out(text, "eth0")
    assert len(after.splitlines()) >= len(text.splitlines())


def test_files_come_back_the_switch_after_what_came_after_it():
    changes = (Change("/a", None, "1"), Change("/b", "old", "new"), Change("/c", "same", "x"))
    now = {"/a": "1", "/b": "new", "/c": "same"}
    assert restoring(changes, now.get) == (Change("/b", "new", "old"), Change("/a", "1", None))
    with pytest.raises(CannotAdoptError, match="edited"):
        restoring(changes, {**now, "/b": "by hand"}.get)
    assert restoring(changes[:1], {"/a": "by hand"}.get) == (Change("/a", "by hand", None),)


def test_other_devices_of_networkd(tmp_path):
    folder = tmp_path / "run/systemd/netif/links"
    folder.mkdir(parents=True)
    nic = tmp_path / "sys/class/net/eth0"
    nic.mkdir(parents=True)
    (nic / "ifindex").write_text("2\n")
    (folder / "1").write_text("ADMIN_STATE=unmanaged\n")
    (folder / "2").write_text("ADMIN_STATE=configured\n")
    assert adopt_files.networkd_others("eth0", tmp_path) == ()
    (folder / "3").write_text("ADMIN_STATE=configuring\n")
    assert adopt_files.networkd_others("eth0", tmp_path) == ("3",)


@pytest.mark.parametrize(
    ("text", "flags", "after"),
    [("192.0.2.10", 0x280, None), ("192.0.2.10", 0x200, 0), ("2001:db8::1", 0x200, 0x200)],
)
def test_an_ipv4_address_comes_back_with_its_prefix_route(text, flags, after):
    """NetworkManager and dhcpcd make that route by themselves; it goes with the address."""
    args = address_add(NIC, Address(2, text, 24, flags=flags)).args
    assert args.get("flags") == after


@pytest.mark.parametrize("text", ["", "[]", '{"client_id": 1, "request": ""}', "\0"])
def test_client_without_a_name_that_can_be_read_is_as_it_was(tmp_path, text):
    client = Client("xenbr0", ipv4=True, ipv6=False)
    file = client_ids.file_of("xenbr0", tmp_path)
    file.parent.mkdir(parents=True)
    assert client_ids.named(client, tmp_path) == client
    file.write_text(text)
    assert client_ids.named(client, tmp_path) == client
    file.write_text(client_ids.content("ff:01", "192.0.2.10"))
    assert client_ids.named(client, tmp_path) == client._replace(client_id="ff:01", request="192.0.2.10")
    assert json.loads(file.read_text())["client_id"] == "ff:01"
