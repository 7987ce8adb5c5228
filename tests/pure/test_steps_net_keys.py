# mypy: disable-error-code="union-attr"
# each test knows which outcome it has
"""Keys of other_config do what they say: `persist` beyond a boot, `mtu` of a network, flags with blanks around."""

from __future__ import annotations

import pytest

from hostagent.net import foreign, keys
from hostagent.net.model import want, want_network
from hostagent.net.owners import dns_owner, gateway_owner
from hostagent.netctl import objects_sync
from hostagent.startup import steps_networks
from tests.pure.net_records import DHCP, STATIC, Host


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def booted(monkeypatch, network_host, synced):
    """A host without NICs, with two networks that no PIF is on; one persists."""
    monkeypatch.setattr(foreign, "owners", lambda *_: ())
    with synced.host.database.write() as w:
        w.create(
            "network",
            {"name_label": "stays", "bridge": "xapi7", "managed": True, "other_config": {"persist": "true "}},
        )
        w.create("network", {"name_label": "goes", "bridge": "xapi8", "managed": True})
        w.create(
            "network",
            {
                "name_label": "others'",
                "bridge": "xapi9",
                "managed": False,
                "other_config": {"persist": "true"},
            },
        )
    return synced


def bridges(host):
    return {name for name, link in host.look().by_name().items() if link.kind == "bridge"}


def test_the_bridge_of_a_network_that_persists_is_there_after_a_boot(booted, network_host):
    planned = steps_networks.plan_networks(booted)
    outcome = steps_networks.raise_networks(booted)

    assert bridges(network_host) == {"xapi7"}
    assert outcome.changes == planned != ()
    assert outcome.note == "1 networks"
    assert steps_networks.plan_networks(booted) == ()
    with booted.host.database.read() as view:
        assert objects_sync.idle_bridges(view, "", ["xapi7", "xapi8"]) == ["xapi8"]


def test_a_bridge_that_cannot_be_made_is_a_warning(booted, network_host):
    network_host.fails.add("xapi7")

    outcome = steps_networks.raise_networks(booted)

    assert bridges(network_host) == set()
    assert [
        warning.startswith("network ") and "has no bridge" in warning for warning in outcome.warnings
    ] == [True]


@pytest.mark.parametrize(
    ("pif", "network", "mtu"), [({}, "1400", 1400), ({"mtu": "1300"}, "1400", 1300), ({}, "9k", 9000)]
)
def test_the_mtu_of_a_network_is_its_key_where_the_pif_has_none(pif, network, mtu):
    made = Host()
    made.nic("eth0", network={"mtu": 9000, "other_config": {"mtu": network}}, other_config=pif)
    inner = made.network("xapi7", mtu=9000, other_config={"mtu": network})

    assert {device.mtu for device in want(made.records(), ["eth0"]).devices} == {mtu}
    assert want_network(made.records(), inner).devices[0].mtu == (9000 if network == "9k" else 1400)


@pytest.mark.parametrize("text", ["true ", " TRUE", "on", "\ttrue"])
def test_what_may_be_set_makes_the_owner(text):
    keys.check_pif({"defaultroute": text, "peerdns": text})
    made = Host()
    made.nic("eth0", **STATIC, management=True)
    made.nic("eth1", **DHCP, other_config={"defaultroute": text, "peerdns": text})

    up = ("eth0", "eth1")
    assert gateway_owner(made.records("xenbr0"), up, 4).ref == "eth1"
    assert dns_owner(made.records("xenbr0"), up).ref == "eth1"
