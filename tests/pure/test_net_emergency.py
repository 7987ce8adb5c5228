"""What the ladder leaves behind: one address on one bridge, and a note of what management stands on."""

from __future__ import annotations

import pytest

from hostagent.net import bring, cache, climb, emergency, ladder, reset
from hostagent.net.finding import FindingError
from tests.pure.net_machine import MAC, Machine, records
from tests.pure.net_plans import BOND, PLAIN, a_kernel, carry_out

SECOND = "52:54:00:00:00:03"
OWN = "192.0.2.10"


@pytest.fixture
def machine(tmp_path):
    """Its management NIC has lost its carrier, another one has it."""
    folder = tmp_path / "net"
    cache.write(folder, records())
    made = Machine(folder)
    made.kernel.nic("eth1", 3, up=True)
    made.up(management=True)
    dark(made, 2)
    return made


def dark(machine, *indexes):
    for index, it in machine.kernel.links.items():
        it.carrier = not indexes or (index not in indexes and it.name != "xenbr0")


def host(machine):
    return machine.host()._replace(run=machine.folder.parent / "run")


def cards():
    return (ladder.Seen("eth0", MAC, carrier=False), ladder.Seen("eth1", SECOND, carrier=True))


def run(machine, **options):
    return reset.reset(cache.Found(cache.Cached(records(), 3)), host(machine), cards, **options)


def holders(machine):
    kernel = machine.kernel.look()
    return [(kernel.links[one.device].name, one.text) for one in kernel.addresses]


def ways(machine):
    kernel = machine.kernel.look()
    return [kernel.links[one.device].name for one in kernel.routes if one.destination == "default4"]


def standing(machine):
    return emergency.standing(machine.folder.parent / "run", machine.kernel.look())


def test_rung_3_leaves_the_address_on_its_own_bridge_alone(machine):
    result = run(machine, listed=("eth1",))

    assert result["outcome"] == "degraded"
    assert holders(machine) == [("breth1", OWN)]
    assert ways(machine) == ["breth1"]
    assert machine.kernel.look().by_name()["eth0"].master  # its bridge and NIC stay
    assert "xenbr0 has lost its addresses" in result["told"]


def test_where_no_rung_helps_the_address_is_where_it_was(machine, monkeypatch):
    monkeypatch.setattr(climb, "works", lambda *_: False)

    climbed = climb.climb(
        lambda: ladder.Situation(records(), None, cards(), ("eth1",)), host(machine), tried=reset.FIRST
    )

    assert [rung.number for rung, _ in climbed.failed] == [ladder.PLAIN, ladder.DHCP]
    assert holders(machine) == [("xenbr0", OWN)]
    assert standing(machine) is None


def test_the_rung_is_noted_until_management_works_again(machine):
    run(machine, listed=("eth1",))
    found = standing(machine)
    assert found is not None
    assert (found.number, found.card, found.bridge, found.former) == (
        ladder.PLAIN,
        "eth1",
        "breth1",
        "xenbr0",
    )

    dark(machine)
    result = run(machine, listed=("eth1",))

    assert result["outcome"] in ("changed", "unchanged"), result["told"]
    assert holders(machine) == [("xenbr0", OWN)]
    assert not (machine.folder.parent / "run" / emergency.FILE).exists()


def test_a_vlan_that_would_bring_the_fixed_address_back_beside_the_rung_is_refused(machine):
    def refused(*refs):
        return emergency.want_beside(host(machine).run, records(), refs, machine.kernel.look())

    refused("upper")
    run(machine, listed=("eth1",))

    with pytest.raises(FindingError) as caught:
        refused("upper")
    assert "management stands on breth1" in caught.value.found
    assert "emergency-reset" in caught.value.hint
    refused("nic", "upper")
    refused("nic")
    request = bring.Request(bring.UP, pif="upper", mode=bring.PLAN)
    with pytest.raises(FindingError, match="management stands on breth1"):
        bring.bring(request, cache.Found(cache.Cached(records(), 3)), host(machine))


def test_a_note_of_a_bridge_without_an_address_says_nothing(machine):
    run(machine, listed=("eth1",))
    machine.kernel.addresses.clear()

    assert standing(machine) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"number": 3}', "\0"])
def test_a_note_that_cannot_be_read_is_none(machine, text):
    run(machine, listed=("eth1",))
    (machine.folder.parent / "run" / emergency.FILE).write_text(text)

    assert standing(machine) is None


@pytest.mark.parametrize("wanted", [PLAIN, BOND])
def test_a_bridge_is_stripped_of_addresses_and_keeps_its_uplinks(tmp_path, wanted):
    machine = Machine(tmp_path)
    machine.kernel = a_kernel()
    carry_out(machine.kernel, wanted)
    (bridge,) = {one.device for one in wanted.addresses}
    before = machine.kernel.look()

    emergency.aside([bridge], machine.host())

    after = machine.kernel.look()
    assert (after.addresses, after.routes) == ((), ())
    assert after.links == before.links


def test_a_bridge_of_others_is_left_alone(machine):
    machine.kernel.links[next(i for i, it in machine.kernel.links.items() if it.name == "xenbr0")].group = 0

    assert emergency.aside(["xenbr0"], host(machine)) == []
    assert holders(machine) == [("xenbr0", OWN)]
