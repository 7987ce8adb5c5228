"""Bonds and VLANs that we make, where the kernel has them; iproute2 says what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.netns.netlink_links import BRIDGE, A, B, add, change, device, ip, link, needs

if TYPE_CHECKING:
    from hostagent.net.netlink import Netlink


def test_a_bond_is_made_with_all_its_settings_and_its_port_tells_its_state(netlink: Netlink) -> None:
    needs(netlink, "bond")
    settings = {
        "mode": 4,
        "miimon": 100,
        "updelay": 31000,
        "downdelay": 200,
        "xmit_hash_policy": 1,
        "ad_lacp_rate": 1,
        "ad_user_port_key": 7,
    }
    netlink.execute([add("bond0", A, "bond", mac="02:00:00:00:00:05", group=171, settings=settings)])
    ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    port = link(netlink, "veth0").ifindex
    netlink.execute(
        [
            change("link-set", "veth0", port, up=False),
            change("link-set", "veth0", port, master=A),
            change("link-set", "bond0", A, up=True),
        ]
    )

    data = device("bond0")["linkinfo"]["info_data"]
    assert (data["mode"], data["miimon"], data["updelay"], data["downdelay"]) == ("802.3ad", 100, 31000, 200)
    assert (data["xmit_hash_policy"], data["ad_lacp_rate"], data["ad_user_port_key"]) == (
        "layer3+4",
        "fast",
        7,
    )
    assert device("bond0")["address"] == "02:00:00:00:00:05"
    assert device("veth0")["master"] == "bond0"
    bond, member = link(netlink, "bond0"), link(netlink, "veth0")
    assert {name: bond.settings[name] for name in settings} == settings
    assert bond.partner == ""
    assert {
        "state",
        "mii_status",
        "ad_aggregator_id",
        "ad_actor_state",
        "ad_partner_state",
    } <= member.port.keys()


def test_a_setting_of_a_bond_is_changed_in_place(netlink: Netlink) -> None:
    needs(netlink, "bond")
    netlink.execute([add("bond0", A, "bond", settings={"mode": 1, "miimon": 100})])
    netlink.execute([change("link-set", "bond0", A, settings={"miimon": 50, "updelay": 100})])

    data = device("bond0")["linkinfo"]["info_data"]
    assert (data["mode"], data["miimon"], data["updelay"]) == ("active-backup", 50, 100)


def test_a_vlan_is_made_on_a_device_and_as_a_port_of_a_bridge(netlink: Netlink) -> None:
    ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    lower = link(netlink, "veth0").ifindex
    needs(netlink, "vlan", lower=lower, vlan_id=1)
    netlink.execute(
        [BRIDGE, add("veth0.5", B, "vlan", lower=lower, vlan_id=5, master=A, group=171, mtu=1400, up=True)]
    )

    seen = device("veth0.5")
    data = seen["linkinfo"]["info_data"]
    assert (seen["ifindex"], seen["link"], seen["master"], seen["mtu"]) == (B, "veth0", "xapi1", 1400)
    assert (data["id"], data["protocol"]) == (5, "802.1Q")
    ours = link(netlink, "veth0.5")
    assert (ours.kind, ours.lower, ours.master, ours.vlan_id, ours.vlan_protocol) == (
        "vlan",
        lower,
        A,
        5,
        0x8100,
    )
