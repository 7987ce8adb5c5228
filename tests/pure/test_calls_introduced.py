"""Records taken over from another database are checked as those that are set here."""

from __future__ import annotations

import pytest

from hostagent.db.datatype import NULL_REF
from tests.pure.netctl_host import opened


@pytest.fixture
def site(tmp_path):
    with opened(tmp_path) as made:
        yield made


ROUTES = ["INVALID_VALUE", "other_config:static-routes"]


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"mtu": -5}, ["INVALID_VALUE", "MTU", "-5"]),
        ({"bridge": "../../etc/x"}, ["INVALID_VALUE", "bridge", "../../etc/x"]),
        ({"keys": {"static-routes": "rubbish"}}, [*ROUTES, "element 1, column 1: rubbish"]),
    ],
)
def test_a_network_that_cannot_be_is_refused(site, changed, refused):
    given = {
        "label": "l",
        "text": "d",
        "mtu": 1500,
        "keys": {},
        "bridge": "xenbr0",
        "managed": True,
    } | changed
    before = site.refs("network")

    assert site.fails("network.pool_introduce", *given.values(), []) == refused
    assert site.refs("network") == before


def test_a_network_without_a_bridge_is_one(site):
    assert site.call("network.pool_introduce", "l", "d", 1500, {}, "", True, [])  # noqa: FBT003


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"device": "../eth7"}, ["INVALID_VALUE", "device", "../eth7"]),
        ({"MTU": -5}, ["INVALID_VALUE", "MTU", "-5"]),
        ({"VLAN": 4095}, ["VLAN_TAG_INVALID", "4095"]),
        ({"VLAN": -2}, ["VLAN_TAG_INVALID", "-2"]),
        ({"keys": {"mtu": "rubbish"}}, ["INVALID_VALUE", "other_config:mtu", "rubbish"]),
    ],
)
@pytest.mark.parametrize("call", ["PIF.db_introduce", "PIF.pool_introduce"])
def test_a_pif_that_cannot_be_is_refused(site, call, changed, refused):
    one = {"device": "eth7", "MTU": 1500, "VLAN": -1, "keys": {}} | changed
    given = (one["device"], site.free, site.host, "02:00:00:00:00:07", one["MTU"], one["VLAN"], True)
    rest = ("None", "", "", "", "", NULL_REF, NULL_REF, False, one["keys"])
    before = site.everything()

    assert site.fails(call, *given, *rest) == refused
    assert site.everything() == before


def test_a_vlan_that_cannot_be_is_refused(site):
    upper = site.make("PIF", device="eth1", host=site.host, network=site.free, VLAN=5)

    assert site.fails("VLAN.pool_introduce", site.pifs[1], upper, 4095, {}) == ["VLAN_TAG_INVALID", "4095"]
    assert site.refs("VLAN") == []
