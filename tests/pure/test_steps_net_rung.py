# mypy: disable-error-code="union-attr,attr-defined,arg-type,index"
# each test knows which outcome it has
"""Start-up on a host whose management stands on a rung of the emergency ladder: that is left as it is, and told."""

from __future__ import annotations

import dataclasses

import pytest

from hostagent.net import emergency
from hostagent.netctl import plug
from hostagent.startup import network, steps_net, steps_networks
from tests.pure.startup_management import links, on
from tests.pure.startup_network import Silence

OWN = "192.0.2.10/24"
RUNG = "management stands on rung 3 of the ladder"


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    """Hundreds of small files and rows, each made durable, take minutes on a busy disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def rung(adopted, nics):
    """The management cable is out, and rung 3 has helped, on eth2."""
    context = dataclasses.replace(
        adopted, config=dataclasses.replace(adopted.config, emergency_nics=("eth2",))
    )
    steps_net.raise_management(context)
    cable(nics, out=True)
    steps_net.raise_management(context)
    assert on(nics, "xenbr2") == {OWN}
    return context


def cable(nics, *, out):
    for it in nics.kernel.links.values():
        if it.name in ("eth0", "xenbr0"):
            it.carrier = not out


def test_another_start_finds_it_up_and_changes_nothing(rung, nics):
    before = nics.look()
    assert steps_net.plan_management(rung) == ()

    outcome = steps_net.raise_management(rung)

    assert nics.look() == before
    assert any(RUNG in told for told in outcome.warnings)
    assert outcome.note.startswith("xenbr2, 192.0.2.10")


def test_the_other_networks_are_brought_up_and_its_nic_is_left(rung, nics):
    outcome = steps_networks.raise_networks(rung)

    assert on(nics, "xenbr2") == {OWN}
    assert on(nics, "xenbr0") == set()
    assert "xenbr1" in links(nics)
    assert any(RUNG in told and "eth2 is left as it is" in told for told in outcome.warnings)


def test_it_is_not_repaired(rung, nics):
    config = dataclasses.replace(rung.config, repair_drift=True)
    steps_networks.record_attachment(rung)
    control = network.control_of(config, rung.host)

    network.keeper(config, rung.host, control).refresh(Seeing(nics))

    assert on(nics, "xenbr2") == {OWN}
    assert on(nics, "xenbr0") == set()


class Seeing(Silence):
    """Its first word is that something was missed: then the kernel is looked at."""

    def __init__(self, _nics):
        super().__init__()
        self.lose()


def test_when_the_cable_is_back_a_start_goes_back_and_frees_the_nic(rung, nics):
    cable(nics, out=False)

    steps_net.raise_management(rung)

    assert on(nics, "xenbr0") == {OWN}
    assert on(nics, "xenbr2") == set()
    assert not (rung.config.paths.run / emergency.FILE).exists()
    assert not any(RUNG in told for told in steps_networks.raise_networks(rung).warnings)


@pytest.mark.parametrize("device", ["eth2", "eth0"])
def test_a_plug_of_its_nic_or_of_management_that_works_ends_it(rung, nics, device):
    cable(nics, out=False)
    effect = plug.Network(network.site(rung.config, rung.host))
    with rung.host.database.read() as view:
        records = steps_net.records_in(view, rung, "xenbr0")
    ref = next(ref for ref, one in records.pifs.items() if one.device == device)

    with effect.bring_up(records, (ref,), was=records):
        pass

    assert on(nics, "xenbr2") == set()
    assert not (rung.config.paths.run / emergency.FILE).exists()
