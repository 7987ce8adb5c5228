"""A change of a management interface on a bond with LACP keeps its partner; any other one is waited for and told."""

from __future__ import annotations

import pytest

from hostagent.net import cache, lacp, reconfigure
from hostagent.net.lacp import CARRIES
from hostagent.net.records import Bond, Network, Pif, Records
from tests.pure.net_care import GATEWAY, Careful
from tests.pure.net_machine import UUID, records

SWITCH = "52:54:00:bb:bb:bb"


def bonded(mode):
    """eth0 and eth1 as a bond, which is management."""
    nics = [
        Pif(
            name,
            f"uuid-{name}",
            name,
            "n0",
            mac=f"52:54:00:00:00:0{number}",
            physical=True,
            bond_slave_of="bond",
        )
        for number, name in enumerate(("eth0", "eth1"), start=1)
    ]
    master = Pif("master", UUID, "bond0", "nb", mac=nics[0].mac, management=True, ip_mode="Static", ip="192.0.2.10",
                 netmask="255.255.255.0", gateway=GATEWAY, dns="192.0.2.2", bond_master_of=("bond",))  # fmt: skip
    networks = {ref: Network(ref, ref, ref, bridge) for ref, bridge in (("n0", "xenbr0"), ("nb", "xapi0"))}
    bond = Bond("bond", "bond", "master", ("eth0", "eth1"), primary_slave="eth0", mode=mode)
    pifs = {pif.ref: pif for pif in (*nics, master)}
    return Records("host-1", pifs, networks, {"bond": bond}, {}, "xapi0")


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path, records())
    return Careful(tmp_path)


@pytest.fixture
def cabled(machine):
    """A machine with a second NIC, whose switch answers LACP after `answers` waits, in these groups."""
    machine.kernel.nic("eth1", 3)
    machine.kernel.links[3].mac = machine.kernel.links[3].permanent_mac = "52:54:00:00:00:02"
    machine.answers, machine.groups, machine.negotiates = 3, (1, 1), 0
    wait = machine.wait

    def negotiate(seconds):
        wait(seconds)
        machine.answers -= 1
        for link in machine.kernel.links.values():
            if link.kind == "bond" and machine.answers <= 0:
                link.partner = SWITCH
            if link.master and machine.kernel.links[link.master].kind == "bond":
                link.port = {"ad_aggregator_id": machine.groups[link.ifindex - 2]}
                carries = CARRIES if machine.answers <= -machine.negotiates else 0
                link.port |= {"ad_actor_state": CARRIES, "ad_partner_state": carries}

    machine.wait = negotiate
    return machine


@pytest.mark.parametrize(
    ("answers", "groups", "told"),
    [
        (3, (1, 1), ""),
        (10**6, (1, 1), "no LACP partner on bond0"),
        (
            3,
            (1, 2),
            "different LACP groups, and only one of them carries traffic (aggregator 1: eth0; aggregator 2",
        ),
    ],
)
def test_management_on_an_lacp_bond_is_kept_with_a_partner_only(cabled, answers, groups, told):
    cabled.up(which=bonded("active-backup"))
    before = cabled.kernel.look().by_name()["bond0"].settings["mode"]
    cabled.answers, cabled.groups = answers, groups

    result = cabled.up(which=bonded("lacp"))

    assert result["outcome"] == ("rolled-back" if told else "changed")
    assert told in (result["error"]["found"] if result["error"] else "")
    assert (cabled.kernel.look().by_name()["bond0"].settings["mode"] == before) is bool(told)


def test_at_boot_an_lacp_bond_without_partner_is_better_than_nothing(cabled):
    cabled.answers = 10**6

    assert cabled.up(which=bonded("lacp"), boot=True)["outcome"] == "changed"


def test_a_bond_that_has_no_partner_as_before_does_not_stop_a_change(cabled):
    cabled.answers = 10**6
    cabled.up(which=bonded("lacp"), boot=True)
    given = bonded("lacp")
    pifs = {**given.pifs, "master": given.pifs["master"]._replace(ip="192.0.2.77")}

    assert cabled.up(which=given._replace(pifs=pifs))["outcome"] == "changed"


def guests(mode="lacp"):
    """The same bond, which is for guests alone."""
    given = bonded(mode)
    master = given.pifs["master"]._replace(
        management=False, ip_mode="None", ip="", netmask="", gateway="", dns=""
    )
    return given._replace(pifs={**given.pifs, "master": master}, bridge="")


NO_PARTNER = [
    f"no LACP partner on {name} (hint: make the switch's ports one LACP group, or use mode active-backup)"
    for name in ("eth0", "eth1")
]


def test_any_other_lacp_bond_without_partner_is_degraded_after_a_bound(cabled):
    cabled.answers = 10**6
    for operations in (True, False):
        began = cabled.now

        result = cabled.up(which=guests())

        assert (result["outcome"], result["told"], bool(result["operations"])) == (
            "degraded",
            NO_PARTNER,
            operations,
        )
        assert reconfigure.exit_of(result) == 4
        assert 20 <= cabled.now - began < 30
    assert "xapi0" in cabled.kernel.look().by_name()


def test_any_other_lacp_bond_is_up_when_its_first_member_carries(cabled):
    cabled.answers, cabled.negotiates = 30, 50

    result = cabled.up(which=guests())

    assert (result["outcome"], result["told"]) == ("changed", [])
    assert 7 < cabled.now < 9


def test_a_partner_that_does_not_let_it_carry_is_told(cabled):
    cabled.negotiates = 10**6

    result = cabled.up(which=guests())

    assert result["outcome"] == "degraded"
    assert result["told"] == [
        "LACP lets no member of bond0 carry traffic yet (hint: cat /proc/net/bonding/bond0)"
    ]


def test_a_bond_of_one_member_is_judged_alike(cabled):
    cabled.answers = 10**6
    given = guests()
    bond = given.bonds["bond"]._replace(slaves=("eth0",))

    result = cabled.up(which=given._replace(bonds={"bond": bond}))

    assert (result["outcome"], result["told"]) == ("degraded", NO_PARTNER[:1])


@pytest.mark.parametrize(("mode", "boot"), [("lacp", True), ("active-backup", False)])
def test_no_partner_is_waited_for_at_boot_or_without_lacp(cabled, mode, boot):
    cabled.answers = 10**6

    result = cabled.up(which=guests(mode), boot=boot)

    assert (result["outcome"], result["told"]) == ("changed", [])
    assert cabled.now < 1


def test_a_member_without_carrier_is_told_as_that(cabled):
    cabled.answers = 10**6
    cabled.kernel.links[3].carrier = False

    result = cabled.up(which=guests())

    assert result["told"] == [
        "no carrier on eth1: look at the cable, the switch port, the transceiver",
        NO_PARTNER[0],
    ]


def test_a_management_interface_without_bond_has_no_lacp():
    assert lacp.management_bond(records()) == ""
    assert lacp.management_bond(records()._replace(pifs={})) == ""
    assert lacp.management_bond(bonded("lacp")) == "bond0"
