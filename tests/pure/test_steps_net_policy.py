"""NICs of the boot disk: neither start-up's scan nor PIF.introduce makes of them what could be taken into a bridge."""

from __future__ import annotations

import pytest

from hostagent.net import foreign, nic_policy
from hostagent.net.devices import Route
from hostagent.net.nic_policy import Policy
from hostagent.run import CommandError
from hostagent.startup import steps_net, steps_networks
from tests.pure.netctl_host import NICS, opened
from tests.pure.startup_database import rows
from tests.pure.startup_network import nic_files
from tests.pure.startup_tree import put


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def first_start(monkeypatch, paths, network_host, synced):
    """A host with eth0 to eth2, of which no PIF knows yet; it boots from eth1, and needs eth2."""
    for number in range(3):
        network_host.kernel.nic(f"eth{number}", number + 2, up=True)
        nic_files(paths.root, f"eth{number}", number + 2)
    monkeypatch.setattr(foreign, "owners", lambda *_: ())
    monkeypatch.setattr(nic_policy, "read", lambda _: Policy(frozenset(("eth1",)), frozenset(("eth2",))))
    return synced


def test_the_scan_at_start_heeds_the_policy(first_start):
    planned = steps_net.scan_nics(first_start, [], plan=True)

    assert steps_net.scan_nics(first_start, [], plan=False) == planned
    assert {
        pif["device"]: (pif["managed"], pif["disallow_unplug"]) for pif in rows(first_start)["PIF"].values()
    } == {"eth0": (True, False), "eth1": (False, False), "eth2": (True, True)}


def test_no_bridge_takes_the_nic_of_the_boot_disk(first_start, network_host):
    steps_net.scan_nics(first_start, [], plan=False)

    steps_networks.raise_networks(first_start)

    links = network_host.look().by_name()
    assert (links["eth0"].master != 0, links["eth1"].master, links["eth2"].master != 0) == (True, 0, True)


def test_the_nic_of_a_root_on_nfs_stays_plugged(first_start, monkeypatch, network_host):
    monkeypatch.setattr(nic_policy, "read", lambda _: Policy())
    mount = "25 1 0:20 / / rw - nfs4 192.0.2.9:/root rw,addr=192.0.2.9\n"
    put(first_start.config.paths.root / "proc/self/mountinfo", mount)
    network_host.kernel.routes.append(Route(3, "192.0.2.0/24", "", protocol=4))

    steps_net.scan_nics(first_start, [], plan=False)

    pinned = {pif["device"]: pif["disallow_unplug"] for pif in rows(first_start)["PIF"].values()}
    assert pinned == {"eth0": False, "eth1": True, "eth2": False}


def test_without_the_programs_word_no_pif_is_made(first_start, monkeypatch):
    def fails(_root):
        raise CommandError(["bfs-interfaces"], "ended with 1", hint="look")

    monkeypatch.setattr(nic_policy, "read", fails)
    warnings: list[str] = []

    steps_net.scan_nics(first_start, warnings, plan=False)

    assert rows(first_start)["PIF"] == {}
    assert warnings == ["`bfs-interfaces` ended with 1 (look)"]


def test_an_introduced_nic_that_must_stay_is_marked(tmp_path):
    with opened(tmp_path) as site:
        site.call("PIF.forget", site.pifs[1])
        site.net.found = [nic._replace(pinned=nic.name == "eth1") for nic in NICS]

        pif = site.call("PIF.introduce", site.host, "", "eth1")

        assert site.record("PIF", pif)["disallow_unplug"] is True
