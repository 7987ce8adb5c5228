# mypy: disable-error-code="union-attr,attr-defined,arg-type,index"
# each test knows which outcome it has
"""What S23 makes of a host whose takeover, or whose move of the management interface, was cut off half-way."""

from __future__ import annotations

import pytest

from hostagent.net import early, journal
from hostagent.net.foreign_files import Owner
from hostagent.net.operation import Operation, Plan, Step
from hostagent.startup import network, steps_net, steps_networks
from hostagent.startup.step import Change
from hostagent.xen import inventory
from tests.pure.startup_network import BOOT

STATIC = {
    "ip_configuration_mode": "Static",
    "IP": "192.0.2.10",
    "netmask": "255.255.255.0",
    "gateway": "192.0.2.1",
}


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def adopted(nics, synced):
    """eth0's PIF is the management interface, on xenbr0, for inventory and database; nothing is up yet."""
    steps_networks.record_attachment(synced)
    configure(synced, "eth0", **STATIC, management=True)
    named(synced, "xenbr0")
    return synced


def configure(context, device, **values):
    with context.host.database.write() as w:
        (ref,) = w.where("PIF", device=device)
        w.update("PIF", ref, values)


def named(context, bridge):
    context.host.inventory = inventory.update(
        context.config.paths.inventory, {"MANAGEMENT_INTERFACE": bridge}
    )


def management_of(context):
    return inventory.read(context.config.paths.inventory).management_interface


def on(host, name):
    index = host.look().by_name()[name].ifindex
    return {f"{one.text}/{one.prefix}" for one in host.look().addresses if one.device == index}


# --- a takeover, by a power cut before the other daemon's file was written ---


def test_a_host_whose_takeover_was_cut_off_is_managed_where_the_other_daemon_has_its_address(
    adopted, nics, owners
):
    nics.address("eth0", "192.0.2.10", gateway="192.0.2.1")
    owners["eth0"] = Owner("systemd-networkd", "eth0", "Static", ("192.0.2.10/24",))
    path = adopted.config.paths.inventory
    change = Change(f"{path}#MANAGEMENT_INTERFACE", "xenbr0", "eth0")
    assert change in steps_net.plan_management(adopted)

    outcome = steps_net.raise_management(adopted)

    assert change in outcome.changes
    assert management_of(adopted) == "eth0"
    assert "eth0, 192.0.2.10" in outcome.note
    assert on(nics, "eth0") == {"192.0.2.10/24"}
    assert "xenbr0" not in nics.look().by_name()

    steps_net.raise_management(adopted)  # and at the start after it

    assert management_of(adopted) == "eth0"


@pytest.mark.parametrize("bridged", [True, False])
def test_a_bridge_that_is_there_or_whose_nic_nobody_else_has_stays_the_management_interface(
    adopted, nics, owners, bridged
):
    """`bridged`: files of another daemon still name the NIC, and it is ours already."""
    nics.address("eth1", "198.51.100.9", gateway="198.51.100.1")
    if bridged:
        steps_net.raise_management(adopted)
        owners["eth0"] = Owner("ifupdown", "eth0")

    steps_net.raise_management(adopted)

    assert management_of(adopted) == "xenbr0"
    assert on(nics, "xenbr0") == {"192.0.2.10/24"}


# --- a move between two PIFs that both have an address, by a kill before the database had it ---


def left_over(context, *, state, boot=BOOT):
    folder = network.folder(context.config)
    do = Operation("address-add", "eth1", 3, {"text": "198.51.100.9", "prefix": 24})
    undo = (Operation("address-del", "eth1", 3, {"text": "198.51.100.9", "prefix": 24}),)
    left = journal.begin(folder, Plan((Step(do, undo),)), boot=boot, digest="", what="a move")
    journal.mark(folder, left, state)


@pytest.mark.parametrize("killed", [True, False])
def test_a_move_that_was_undone_did_not_happen_though_its_target_has_an_address(adopted, nics, killed):
    configure(adopted, "eth1", **{**STATIC, "IP": "192.0.2.20"})
    named(adopted, "xenbr1")
    change = Change(f"{adopted.config.paths.inventory}#MANAGEMENT_INTERFACE", "xenbr1", "xenbr0")
    if killed:
        left_over(adopted, state=journal.APPLIED)
    assert (change in steps_net.plan_management(adopted)) is killed

    steps_net.raise_management(adopted)

    assert management_of(adopted) == ("xenbr0" if killed else "xenbr1")
    assert on(nics, "xenbr0" if killed else "xenbr1") == {"192.0.2.10/24" if killed else "192.0.2.20/24"}


def test_without_a_database_what_was_left_is_planned_to_be_undone(adopted, nics, monkeypatch):
    """With nothing to compare with, a journal that names no digest is not the database's."""
    left_over(adopted, state=journal.APPLIED)
    monkeypatch.setattr(steps_net, "_of_database", lambda *_: None)

    (planned,) = steps_net._mend_journal(adopted, [], dry=True)
    (done,) = steps_net._mend_journal(adopted, [], dry=False)

    assert planned == done == Change("network change 'a move'", journal.APPLIED, steps_net.UNDONE)


def test_a_host_without_default_route_keeps_the_name_it_has(adopted, nics, owners):
    owners["eth0"] = Owner("systemd-networkd", "eth0")

    outcome = steps_net.raise_management(adopted)

    assert management_of(adopted) == "xenbr0"
    assert any("configured by systemd-networkd" in told for told in outcome.warnings)
    assert early.FOREIGN not in outcome.note


def test_no_socket_of_a_look_or_of_a_change_is_left_open(adopted, nics, monkeypatch):
    """Once with a change to be undone, once with one that waits."""
    open_: list[Closing] = []
    made = network.open_host

    def counted(config, bridge):
        opened = made(config, bridge)
        kernel = Closing(opened.tools.netlink, open_)
        return opened._replace(tools=opened.tools._replace(netlink=kernel))

    monkeypatch.setattr(network, "open_host", counted)
    for state in (journal.APPLIED, journal.WAITING):
        nics.waits = state == journal.WAITING
        left_over(adopted, state=state)
        steps_net.plan_management(adopted)
        steps_net.raise_management(adopted)

    assert open_ == []
    assert nics.done != []


class Closing:
    def __init__(self, netlink, open_):
        self.look, self.execute, self._open = netlink.look, netlink.execute, open_
        open_.append(self)

    def close(self):
        self._open.remove(self)
