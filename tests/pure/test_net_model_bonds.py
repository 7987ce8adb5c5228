"""What is wanted of bonds: their settings, and members that are not there."""

from __future__ import annotations

import pytest

from hostagent.net.finding import FindingError
from hostagent.net.model import survey, want
from tests.pure.net_records import Host, kernel_of, link
from tests.pure.net_wanted import BOND, by_name, refusal, two_nics


def bond_settings(
    mode: str, properties: dict[str, str] | None = None, keys: dict[str, str] | None = None, nics: int = 2
):
    host = Host()
    refs = tuple(host.nic(f"eth{count}") for count in range(nics))
    host.bond("bond0", refs, mode=mode, bond_properties=properties, other_config=keys or {})
    found = survey(host.records(), ["bond0"])
    return by_name(found.wanted)["bond0"].settings, [finding.found for finding in found.findings]


LACP = {"mode": 4, "xmit_hash_policy": 1, "ad_lacp_rate": 0, "ad_user_port_key": 0}


@pytest.mark.parametrize(
    ("mode", "properties", "keys", "differs"),
    [
        ("active-backup", {}, {}, BOND),
        ("lacp", {}, {}, LACP),
        ("lacp", {"hashing_algorithm": "tcpudp_ports"}, {}, LACP),
        ("lacp", {}, {"bond-hashing-algorithm": "src_mac"}, {"xmit_hash_policy": 5}),
        (
            "lacp",
            {"lacp-time": "fast", "lacp-aggregation-key": "17"},
            {},
            {"ad_lacp_rate": 1, "ad_user_port_key": 17},
        ),
        ("lacp", {"lacp-time": "fast"}, {"bond-lacp-time": "slow"}, LACP),
        ("balance-slb", {}, {"bond-mode": "active-backup"}, BOND),
        ("active-backup", {}, {"bond-miimon": "70"}, {"miimon": 70, "updelay": 30940, "downdelay": 140}),
        (
            "active-backup",
            {},
            {"bond-updelay": "0", "bond-downdelay": "250"},
            {"updelay": 0, "downdelay": 200},
        ),
        (
            "lacp",
            {"lacp-fallback-ab": "true"},
            {"bond-use_carrier": "1", "bond-rebalance-interval": "9"},
            LACP,
        ),
    ],
)
def test_settings_of_a_bond(mode, properties, keys, differs):
    settings, told = bond_settings(mode, properties, keys)

    assert settings == {**BOND, **(LACP if settings["mode"] == 4 else {}), **differs}
    assert told == []


def test_properties_of_the_bond_record_are_read_by_their_own_name():
    assert bond_settings("lacp", {"hashing_algorithm": "src_mac"})[0]["xmit_hash_policy"] == 5


@pytest.mark.parametrize(
    ("properties", "keys"),
    [
        ({"lacp-fallback-ab": "false"}, {}),
        ({}, {"bond-use_carrier": "0"}),
        ({}, {"bond-miimon": "0"}),
        ({}, {"bond-updelay": "soon"}),
        ({"lacp-time": "medium"}, {}),
        ({"hashing_algorithm": "all"}, {}),
        ({"lacp-aggregation-key": "1024"}, {}),
        ({}, {"bond-colour": "red"}),
    ],
)
def test_a_property_that_has_no_effect_is_told(properties, keys):
    settings, told = bond_settings("lacp", properties, keys)

    assert settings == {**BOND, **LACP}
    assert len(told) == 1


def test_a_primary_member_is_a_key_of_active_backup_and_names_a_member():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"), other_config={"bond-primary": "eth1"})
    assert by_name(want(host.records(), ["bond0"]))["bond0"].primary == "eth1"

    host.change("bond0", other_config={"bond-primary": "eth7"})
    found = survey(host.records(), ["bond0"])
    assert by_name(found.wanted)["bond0"].primary == ""
    assert ["eth7" in finding.found for finding in found.findings] == [True]

    host.change("bond0", other_config={"bond-primary": "eth1", "bond-mode": "lacp"})
    found = survey(host.records(), ["bond0"])
    assert by_name(found.wanted)["bond0"].primary == ""
    assert ["only active-backup" in finding.found for finding in found.findings] == [True]


def test_balance_slb_is_refused_with_the_reason():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"), mode="balance-slb")
    host.vlan("bond0", 5)

    for ref in ("bond0", "bond0.5"):
        error = refusal(host, ref)
        assert (error.code, error.params[:2]) == ("VALUE_NOT_SUPPORTED", ("mode", "balance-slb"))
        assert "balance-slb" in error.params[2]


def test_one_member_has_nothing_to_balance():
    assert bond_settings("balance-slb", nics=1) == (BOND, [])
    assert bond_settings("lacp", nics=1)[0]["mode"] == 4


def test_a_bond_does_without_the_member_that_is_not_there():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"))

    found = survey(host.records(), ["bond0"], links={"eth1": link(3, "eth1")})

    assert [device.name for device in found.wanted.devices] == ["xapi0", "bond0", "eth1"]
    assert [(finding.row, finding.refs) for finding in found.findings] == [(30, ("bond0", "eth0"))]


def test_nothing_comes_up_on_nics_that_are_not_there():
    host = two_nics()
    host.bond("bond0", ("eth0", "eth1"))

    with pytest.raises(FindingError, match="not in this host"):
        want(host.records(), ["bond0"], links=kernel_of().by_name())
