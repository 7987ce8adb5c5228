"""`bond-*` keys of a PIF: what cannot be had is refused when it is set, and stops as little as can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import InvalidValueError
from hostagent.net import bonds, keys
from hostagent.net.checks import check
from hostagent.net.devices import Address
from hostagent.net.finding import DEGRADE, STOP
from hostagent.net.model import survey
from hostagent.netctl.leases import late_routes
from hostagent.netctl.status import drifted
from tests.pure.net_records import STATIC, Host, kernel_of, link
from tests.pure.netctl_host import opened


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bond-mode", "nonsense"),
        ("bond-mode", "balance-slb"),
        ("bond-miimon", "abc"),
        ("bond-miimon", "0"),
        ("bond-updelay", "-1"),
        ("bond-downdelay", ""),
        ("bond-lacp-aggregation-key", "1024"),
        ("bond-hashing-algorithm", "layer2"),
        ("bond-lacp-time", "often"),
    ],
)
def test_what_cannot_be_had_is_refused_when_it_is_set(tmp_path, key, value):
    with opened(tmp_path) as site:
        assert site.fails("PIF.add_to_other_config", site.pifs[1], key, value) == [
            "INVALID_VALUE", f"other_config:{key}", value]  # fmt: skip


def test_what_can_be_had_and_what_nobody_knows_may_be_set():
    keys.check_pif(
        {"bond-mode": "lacp", "bond-miimon": "50", "bond-hashing-algorithm": "src_mac", "bond-lacp-time": "fast",
         "bond-primary": "eth1", "bond-colour": "red", "bond-use_carrier": "0", "bond-rebalance-interval": "1"}
    )  # fmt: skip


@given(
    st.sampled_from(("mode", *bonds.NUMBERS, *bonds.CHOICES)), st.text(max_size=6) | st.integers().map(str)
)
def test_what_may_be_set_brings_a_bond_up_as_it_says(key, value):
    try:
        keys.check_pif({f"bond-{key}": value})
    except InvalidValueError:
        return
    for mode in ("active-backup", "lacp"):
        assert survey(bonded({f"bond-{key}": value}, mode), ["bond0"]).findings == ()


def bonded(other_config, mode="lacp"):
    """bond0 of eth0 and eth1 is the management interface, as xapi0; eth2 has an address."""
    made = Host()
    made.nic("eth0")
    made.nic("eth1")
    made.nic("eth2", **{**STATIC, "ip": "10.2.0.2", "gateway": ""}, currently_attached=True)
    made.bond("bond0", ("eth0", "eth1"), mode=mode, **STATIC, other_config=other_config)
    made.change("bond0", management=True, currently_attached=True)
    return made.records("xapi0")


@pytest.mark.parametrize("mode", ["nonsense", "balance-slb"])
def test_a_mode_in_the_key_that_cannot_be_had_is_the_bonds_own_at_boot(mode):
    records = bonded({"bond-mode": mode})

    assert [(one.row, one.severity) for one in check(records, ("bond0",), boot=True)] == [(8, DEGRADE)]
    assert [(one.row, one.severity, one.code) for one in check(records, ("bond0",))] == [
        (8, STOP, "VALUE_NOT_SUPPORTED")
    ]
    wanted = survey(records, ("bond0",)).wanted
    (bond,) = [device for device in wanted.devices if device.kind == "bond"]
    assert bond.settings == survey(bonded({}), ("bond0",)).wanted.devices[1].settings


def test_a_mode_that_cannot_be_had_anywhere_stops_at_boot_too():
    records = bonded({"bond-mode": "nonsense"}, "balance-slb")

    assert [(one.row, one.severity) for one in check(records, ("bond0",), boot=True)] == [(8, STOP)]


def kernel(**fields):
    """As `bonded` has it; the bridge of eth2 has another MTU than its network."""
    return kernel_of(
        link(2, "eth0", master=10),
        link(3, "eth1", master=10),
        link(4, "eth2", mac="02:00:00:00:00:02", master=12),
        link(10, "bond0", "bond", master=11),
        link(11, "xapi0", "bridge"),
        link(12, "xenbr2", "bridge", mtu=900),
        **fields,
    )


IMPOSSIBLE = {"bond-mode": "nonsense"}, "balance-slb"


def test_drift_of_the_others_is_seen_all_the_same():
    found = drifted(bonded(*IMPOSSIBLE), kernel())

    assert ("xenbr2", "mtu") in [(one.device, one.what) for one in found]
    assert not any(one.device == "bond0" for one in found)


def test_static_routes_of_the_others_are_made_all_the_same():
    records = bonded(*IMPOSSIBLE)
    on = records.pifs["eth2"].network
    keyed = records.networks[on]._replace(other_config={"static-routes": "10.9.0.0/16/10.3.0.1"})
    leased = records.pifs["eth2"]._replace(ip_mode="DHCP", ip="", netmask="")
    records = records._replace(
        pifs={**records.pifs, "eth2": leased}, networks={**records.networks, on: keyed}
    )

    made = late_routes(records, kernel(addresses=(Address(12, "10.3.0.7", 24),)))

    assert [(one.verb, one.device, one.args["destination"]) for one in made] == [
        ("route-add", "xenbr2", "10.9.0.0/16")
    ]
