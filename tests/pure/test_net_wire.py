"""Messages to rtnetlink: pyroute2 reads what we write."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import BugError
from hostagent.net.devices import GROUP, LEAVING
from hostagent.net.netlink_names import BOND_SETTINGS, BRIDGE_SETTINGS
from hostagent.net.operation import Operation
from hostagent.net.wire import ACK, encode
from tests.pure.net_wire import (
    DEL_ADDRESS,
    INDEX,
    NEW_ADDRESS,
    NEW_LINK,
    UNKNOWN_TO_PYROUTE2,
    addresses4,
    addresses6,
    indexes,
    macs,
    names,
    op,
    read_by_pyroute2,
    settings_of,
    words,
)


def test_many_devices_go_in_one_message_by_the_group_of_what_leaves_and_by_no_other():
    [made] = read_by_pyroute2(encode(Operation("group-del", "", 0, {"group": LEAVING}), 9))

    assert (made["header"]["type"], made["index"]) == (17, 0)
    assert [tuple(one) for one in made["attrs"]] == [("IFLA_GROUP", LEAVING)]
    for operation in (
        Operation("group-del", "", 0, {"group": GROUP}),
        Operation("group-del", "", 0, {"group": 0}),
        Operation("group-del", "eth0", INDEX, {"group": LEAVING}),
        Operation("group-del", "", 0, {}),
    ):
        with pytest.raises(BugError, match="group-del"):
            encode(operation, 9)


def test_a_name_is_of_a_bridge_or_of_a_bond_and_each_has_a_number_of_its_own():
    assert BRIDGE_SETTINGS.keys().isdisjoint(BOND_SETTINGS)
    for known in (BRIDGE_SETTINGS, BOND_SETTINGS):
        assert len({number for number, _ in known.values()}) == len(known)


@given(settings_of(BRIDGE_SETTINGS), macs, words.filter(bool), names)
def test_a_bridge_is_made_in_one_message_with_all_its_settings(settings, mac, mtu, name):
    operation = op(
        "link-add",
        {"kind": "bridge", "mac": mac, "mtu": mtu, "group": 171, "up": True, "settings": settings},
        name,
    )
    [made] = read_by_pyroute2(encode(operation, 9, ack=True))

    assert (made["header"]["type"], made["header"]["sequence_number"]) == (NEW_LINK, 9)
    assert made["header"]["flags"] == 0x605  # request, ack, create, exclusive
    assert (made["index"], made["flags"], made["change"]) == (INDEX, 1, 1)
    assert made.get_attr("IFLA_IFNAME") == name
    assert made.get_attr("IFLA_ADDRESS") == mac
    assert made.get_attr("IFLA_MTU") == mtu
    assert made.get_attr("IFLA_GROUP") == 171
    assert made.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"
    data = made.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    assert dict(data["attrs"] if data else []) == {f"IFLA_BR_{key.upper()}": v for key, v in settings.items()}


@given(settings_of(BOND_SETTINGS))
def test_a_bond_is_made_with_all_its_settings_in_the_same_message(settings):
    [made] = read_by_pyroute2(encode(op("link-add", {"kind": "bond", "settings": settings}), 1))

    data = made.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    seen = {name: value for name, value in data["attrs"] if name != "UNKNOWN"} if data else {}
    assert made.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bond"
    assert seen == {f"IFLA_BOND_{k.upper()}": v for k, v in settings.items() if k not in UNKNOWN_TO_PYROUTE2}


@given(st.integers(0, 4094), indexes, indexes)
def test_a_vlan_is_made_on_a_device_and_as_a_port(tag, lower, master):
    args = {"kind": "vlan", "vlan_id": tag, "lower": lower, "master": master}
    [made] = read_by_pyroute2(encode(op("link-add", args), 1))

    assert (made.get_attr("IFLA_LINK"), made.get_attr("IFLA_MASTER")) == (lower, master)
    data = made.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    assert (data.get_attr("IFLA_VLAN_ID"), data.get_attr("IFLA_VLAN_PROTOCOL")) == (tag, 0x8100)
    assert (made["flags"], made["change"]) == (0, 0)


@pytest.mark.parametrize(
    ("args", "flags", "change"), [({"up": True}, 1, 1), ({"up": False}, 0, 1), ({"mtu": 1400}, 0, 0)]
)
def test_what_is_not_named_stays_as_it_is(args, flags, change):
    [made] = read_by_pyroute2(encode(op("link-set", args), 1))

    assert (made["flags"], made["change"], made["header"]["flags"]) == (flags, change, 1)
    assert [name for name, _ in made["attrs"]] == (["IFLA_MTU"] if "mtu" in args else [])


def test_a_port_leaves_with_master_zero():
    [made] = read_by_pyroute2(encode(op("link-set", {"master": 0}), 1))

    assert [tuple(attribute) for attribute in made["attrs"]] == [("IFLA_MASTER", 0)]


@pytest.mark.parametrize(("name", "kind"), [("forward_delay", "bridge"), ("miimon", "bond")])
def test_settings_of_a_device_that_is_there_name_its_kind(name, kind):
    [made] = read_by_pyroute2(encode(op("link-set", {"settings": {name: 5}}), 1))

    assert made.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == kind


def test_the_address_generation_mode_goes_before_up_and_names_go_last_and_only_the_last_is_answered():
    args = {"up": True, "addrgen": 1, "altname": "new", "altname_gone": "old"}
    made = read_by_pyroute2(encode(op("link-set", args), 4, ack=True))

    first, main, gone, added = made
    af_spec = first.get_attr("IFLA_AF_SPEC").get_attr("AF_INET6")
    assert af_spec.get_attr("IFLA_INET6_ADDR_GEN_MODE") == 1
    assert first["change"] == 0
    assert main["flags"] == 1
    assert (gone["event"], added["event"]) == ("RTM_DELLINKPROP", "RTM_NEWLINKPROP")
    assert gone.get_attr("IFLA_PROP_LIST").get_attr("IFLA_ALT_IFNAME") == "old"
    assert added.get_attr("IFLA_PROP_LIST").get_attr("IFLA_ALT_IFNAME") == "new"
    assert [bool(one["header"]["flags"] & ACK) for one in made] == [False, False, False, True]
    assert {one["header"]["sequence_number"] for one in made} == {4}
    assert {one["index"] for one in made} == {INDEX}


def test_an_operation_that_asks_for_nothing_is_still_answered():
    [made] = read_by_pyroute2(encode(op("link-set"), 1, ack=True))

    assert made["header"]["flags"] & ACK
    assert (made["attrs"], made["change"]) == ([], 0)


@given(st.one_of(addresses4, addresses6), st.integers(0, 32))
def test_addresses(text, prefix):
    [added] = read_by_pyroute2(encode(op("address-add", {"text": text, "prefix": prefix}), 1))
    [gone] = read_by_pyroute2(encode(op("address-del", {"text": text, "prefix": prefix}), 1))

    for made in (added, gone):
        assert made["family"] == (socket.AF_INET6 if ":" in text else socket.AF_INET)
        assert (made["index"], made["prefixlen"]) == (INDEX, prefix)
        assert made.get_attr("IFA_LOCAL") == made.get_attr("IFA_ADDRESS") == text
    assert (added["header"]["type"], added["header"]["flags"]) == (NEW_ADDRESS, 0x501)
    assert (gone["header"]["type"], gone["header"]["flags"]) == (DEL_ADDRESS, 1)


def test_an_address_of_a_lease_has_its_lifetime():
    args = {"text": "192.0.2.1", "prefix": 24, "flags": 0, "valid_s": 600}
    [made] = read_by_pyroute2(encode(op("address-add", args), 1))

    assert made.get_attr("IFA_FLAGS") == 0
    assert made.get_attr("IFA_CACHEINFO")["ifa_valid"] == 600


@given(
    st.one_of(
        st.tuples(st.just("default4"), addresses4),
        st.tuples(st.just("default6"), addresses6),
        st.tuples(st.tuples(addresses4, st.integers(1, 32)), st.one_of(addresses4, st.just(""))),
        st.tuples(st.tuples(addresses6, st.integers(1, 128)), st.one_of(addresses6, st.just(""))),
    ),
    st.integers(0, 255),
    words,
)
def test_routes(way, protocol, metric):
    where, gateway = way
    destination = where if isinstance(where, str) else f"{where[0]}/{where[1]}"
    six = where == "default6" or ":" in where[0]
    args = {"destination": destination, "gateway": gateway, "protocol": protocol, "metric": metric}
    [added] = read_by_pyroute2(encode(op("route-add", args), 1))
    [gone] = read_by_pyroute2(encode(op("route-del", args), 1))

    for made in (added, gone):
        assert made["family"] == (socket.AF_INET6 if six else socket.AF_INET)
        assert (made["table"], made["proto"], made["type"]) == (254, protocol, 1)
        assert made.get_attr("RTA_OIF") == INDEX
        assert (made.get_attr("RTA_GATEWAY") or "") == gateway
        assert (made.get_attr("RTA_DST"), made["dst_len"]) == ((None, 0) if isinstance(where, str) else where)
        assert (made.get_attr("RTA_PRIORITY") or 0) == (metric or (1024 if six else 0))
    assert (added["header"]["flags"], added["scope"]) == (0x501, 0 if gateway else 253)
    assert (gone["header"]["flags"], gone["scope"]) == (1, 255)


def test_routes_are_ours_unless_said_otherwise():
    [made] = read_by_pyroute2(encode(op("route-add", {"destination": "default4", "gateway": "192.0.2.1"}), 1))

    assert made["proto"] == 171


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(op("sysctl", {"path": "x", "value": "0"}), id="another-verb"),
        pytest.param(Operation("link-set", "xapi1", 0, {"up": False}), id="no-index-means-the-whole-group"),
        pytest.param(op("link-add", {"mtu": 1500}), id="no-kind"),
        pytest.param(op("link-add", {"kind": "bridge", "colour": 1}), id="unknown-arg"),
        pytest.param(op("link-add", {"kind": "bridge", "settings": {"miimon": 1}}), id="setting-of-a-bond"),
        pytest.param(op("link-set", {"settings": {"miimon": 1, "forward_delay": 1}}), id="settings-of-both"),
        pytest.param(op("link-set", {"settings": {"mode": 256}}), id="value-too-large"),
        pytest.param(op("link-set", {"settings": {"mode": "802.3ad"}}), id="value-no-number"),
        pytest.param(op("link-set", {"settings": 5}), id="settings-no-map"),
        pytest.param(op("link-add", {"kind": "vlan", "vlan_id": 70000, "lower": 1}), id="tag-too-large"),
        pytest.param(op("link-set", {"mac": "02:00:zz"}), id="mac"),
        pytest.param(op("address-add", {"text": "192.0.2.300", "prefix": 24}), id="address"),
        pytest.param(op("address-add", {"text": "192.0.2.3"}), id="no-prefix"),
        pytest.param(op("route-add", {"destination": "192.0.2.0/x"}), id="prefix-no-number"),
        pytest.param(op("route-add", {"destination": "default"}), id="default-of-no-family"),
    ],
)
def test_what_cannot_be_a_message_is_a_bug_that_names_it(operation):
    with pytest.raises(BugError, match=operation.verb):
        encode(operation, 1)
