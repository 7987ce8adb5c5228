# mypy: disable-error-code="union-attr,arg-type"
# each test knows which object it has
"""Changes through the daemon that meet what is not ours: bridges of other programs, guests that no database knows."""

from __future__ import annotations

import pytest

from hostagent.net.devices import GROUP
from hostagent.net.finding import FindingError
from hostagent.net.operation import Operation
from tests.pure.netctl_plugs import a_host, a_host_without_vlan, bonded, raised, state


def theirs(host, name="docker0", kind="bridge"):
    """A bridge of another program, with an address and a port."""
    host.kernel.one(Operation("link-add", name, 900, {"kind": kind, "up": True}))
    host.address(name, "172.17.0.1")
    host.kernel.nic("veth5", 901, up=True)
    host.kernel.links[901].master = 900


def guest(host, bridge, *names):
    for index, name in enumerate(names, 950):
        host.kernel.nic(name, index, up=True)
        host.kernel.links[index].master = host.look().by_name()[bridge].ifindex


def internal(bridge="docker0", **fields):
    made = a_host()
    ref = made.network(bridge, **fields)
    return made.records("xenbr0"), ref


@pytest.mark.parametrize(("kind", "how"), [("bridge", "made by another program"), ("bond", "as a bond")])
def test_a_network_does_not_seize_the_bridge_of_another_program(net, host, kind, how):
    records, ref = internal()
    theirs(host, kind=kind)
    before = state(host)

    with pytest.raises(FindingError, match=f"docker0 is there already, {how}") as refused:
        with net.attach(records, ref, was=records):
            pass
    with pytest.raises(FindingError):
        net.planned_bridge(records, ref)

    assert (refused.value.code, refused.value.params[0]) == ("PIF_CONFIGURATION_ERROR", ref)
    assert (refused.value.finding.row, refused.value.finding.refs) == (46, (ref,))
    assert "managed=false" in refused.value.hint
    assert (state(host), host.done) == (before, [])


@pytest.mark.parametrize("kind", ["bridge", "bond"])
def test_the_bridge_of_another_program_outlives_the_network_that_has_its_name(net, host, kind):
    records, ref = internal()
    theirs(host, kind=kind)
    before = state(host)

    with net.detach(records, ref):
        pass

    assert (state(host), host.done) == (before, [])


def test_a_network_that_others_manage_uses_their_bridge(net, host):
    records, ref = internal(managed=False)
    theirs(host)

    with net.attach(records, ref):
        pass
    with net.detach(records, ref):
        pass

    assert host.done == []


def test_a_bridge_that_is_ours_already_is_attached_again(net, host):
    records, ref = internal("xapi9")
    for _ in range(2):
        with net.attach(records, ref):
            pass

    assert host.look().by_name()["xapi9"].group == GROUP


def test_a_pif_in_the_bridge_of_another_program_is_not_unplugged(net, host):
    records = a_host_without_vlan().records("xenbr0")
    theirs(host, "xenbr1")
    host.kernel.links[3].master = 900
    before = state(host)

    with pytest.raises(FindingError, match="xenbr1 was made by another program") as refused:
        with net.take_down(records, ["eth1"]):
            pass

    assert (refused.value.code, refused.value.params[0]) == ("PIF_CONFIGURATION_ERROR", "eth1")
    assert (state(host), host.done) == (before, [])


def test_a_bond_does_not_remove_the_bridge_of_another_program(net, host):
    records = bonded()
    theirs(host, "xenbr2")

    with pytest.raises(FindingError, match="xenbr2 was made by another program") as refused:
        raised(net, records, "bond0")

    assert refused.value.params[0] == "bond0"
    assert host.done == []


def test_guests_that_no_database_knows_keep_their_bridge(net, host):
    records = a_host_without_vlan().records("xenbr0")
    raised(net, records, "eth1")
    guest(host, "xenbr1", "tap1.0", "vif1.0")
    before = state(host)

    with pytest.raises(FindingError, match=r"guests' interfaces on xenbr1: tap1\.0, vif1\.0") as refused:
        with net.take_down(records, ["eth1"]):
            pass

    network = records.pifs["eth1"].network
    assert (refused.value.code, refused.value.params) == ("VIF_IN_USE", (network, "vif1.0"))
    assert "xl network-detach" in refused.value.hint
    assert state(host) == before


def test_management_is_refused_before_guests(net, host):
    records = a_host().records("xenbr0")
    raised(net, records, "eth0")
    guest(host, "xenbr0", "vif1.0")

    with pytest.raises(FindingError) as refused:
        with net.take_down(records, ["eth0"]):
            pass

    assert refused.value.code == "PIF_IS_MANAGEMENT_INTERFACE"


def test_a_vlan_without_guests_goes_though_the_nic_below_has_some(net, host):
    records = a_host().records("xenbr0")
    raised(net, records, "eth1", "eth1.5")
    guest(host, "xenbr1", "vif1.0")

    with net.take_down(records, ["eth1.5"]):
        pass

    links = host.look().by_name()
    assert "xapi101" not in links
    assert links["vif1.0"].master == links["xenbr1"].ifindex


def test_guests_keep_the_bridge_of_an_internal_network(net, host):
    records, ref = internal("xapi9")
    with net.attach(records, ref):
        pass
    guest(host, "xapi9", "vif1.0")

    with pytest.raises(FindingError, match=r"xapi9 would be removed with guests' .*: vif1\.0") as refused:
        with net.detach(records, ref):
            pass

    assert (refused.value.code, refused.value.params) == ("VIF_IN_USE", (ref, "vif1.0"))
    assert net.has_bridge("xapi9")
