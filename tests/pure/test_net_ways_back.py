"""The ways back by hand on NICs that have other names now, and without a management interface in the records."""

from __future__ import annotations

import io
import json

import pytest

from hostagent.__main__ import main
from hostagent.cli import netrecords
from hostagent.net import ask, bring, cache, journal, ladder, nics_look, reconfigure, remap, reset
from hostagent.net.bring import NoSuchPifError
from hostagent.net.devices import Address
from hostagent.net.nics import Seen
from hostagent.net.nics_types import Nic
from tests.pure.net_machine import MAC, Machine, no_daemon, records
from tests.pure.startup_tree import make_paths

PLACES = (cache.Position(0, "eth0", MAC),)
NOTHING = records()._replace(pifs={}, networks={}, vlans={}, bridge="")


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def renamed(tmp_path, monkeypatch):
    """A host whose eth0 is called ens3 since it was booted, with the cache of before."""
    paths = make_paths(tmp_path)
    made = Machine(paths.state / "net")
    made.kernel.links[2].name = "ens3"
    monkeypatch.setattr(ask, "ask", no_daemon)
    monkeypatch.setattr(netrecords, "host_of", made.host)
    monkeypatch.setattr(journal, "boot_id", lambda _root: "boot-1")
    monkeypatch.setattr(nics_look, "look", lambda *_, **__: (Seen(Nic(-1, "ens3", MAC)),))
    cache.write(made.folder, records(), positions=PLACES)
    made.paths = paths  # type: ignore[attr-defined]
    return made


def hostagent(made, *words):
    paths = made.paths
    return main([*words, "--etc", str(paths.etc), "--state", str(paths.state), "--run", str(paths.run)])


def came_up(made):
    links = made.kernel.look().by_name()
    return links["ens3"].master == links["xenbr0"].ifindex and [
        one.text for one in made.kernel.look().addresses
    ] == ["192.0.2.10"]


def test_an_emergency_reset_follows_a_nic_to_its_new_name(renamed, capsys):
    assert hostagent(renamed, "net", "emergency-reset") == 0
    assert "eth0 is called ens3 now" in capsys.readouterr().out
    assert came_up(renamed)


def test_its_plan_does_too(renamed, capsys):
    assert hostagent(renamed, "net", "emergency-reset", "--plan", "--json") == 0
    assert "ens3" in {one["device"] for one in json.loads(capsys.readouterr().out)["operations"]}


def test_pif_plug_without_a_daemon_follows_it(renamed):
    request = bring.Request("up", bridge="xenbr0")

    assert netrecords.change(renamed.paths, request)["outcome"] == "changed"
    assert came_up(renamed)


def test_interface_reconfigure_force_follows_it(renamed, tmp_path):
    folder = tmp_path / "root" / reconfigure.STATE / "net"
    cache.write(folder, records(), positions=PLACES)
    out = io.StringIO()

    words = ["--root-prefix", str(tmp_path / "root"), "--no-syslog", "--force", "xenbr0", "up"]
    assert reconfigure.main(words, open_host=renamed.host, out=out) == 0

    assert "eth0 is called ens3 now" in out.getvalue()
    assert came_up(renamed)


def test_names_stay_where_the_nics_cannot_be_read():
    def blind():
        raise journal.JournalError("nothing to see", hint="none")

    found = cache.Found(cache.Cached(records(), 1, positions=PLACES))

    assert remap.fitted(found, blind) == (found, ["the NICs could not be told apart: nothing to see"])


# without a management interface


def answering(made):
    """A DHCP server answers on whatever bridge is there."""
    waited = made.wait

    def wait(seconds):
        waited(seconds)
        bridges = [link for link in made.kernel.look().links.values() if link.kind == "bridge"]
        if bridges and not made.kernel.addresses:
            made.kernel.addresses.append(Address(bridges[0].ifindex, "192.0.2.99", 24))

    made.wait = wait


def climbed(made, known, *listed):
    cards = (ladder.Seen("eth0", MAC, carrier=True),)
    return reset.reset(cache.Found(cache.Cached(known, 3)), made.host(), lambda: cards, listed=listed)


def test_a_named_nic_is_tried_where_no_record_says_what_management_is(tmp_path):
    made = Machine(tmp_path)
    answering(made)

    result = climbed(made, NOTHING, "eth0")

    assert result["outcome"] == "degraded", result
    assert any(told.startswith("rung 4 of the ladder: DHCP on eth0") for told in result["told"])


def test_a_pif_that_is_marked_is_tried_where_the_inventory_names_no_bridge(tmp_path):
    made = Machine(tmp_path)

    result = climbed(made, records()._replace(bridge=""))

    assert result["outcome"] == "degraded", result
    assert [one.text for one in made.kernel.look().addresses] == ["192.0.2.10"]


def test_with_neither_there_is_nothing_to_try(tmp_path):
    with pytest.raises(NoSuchPifError):
        climbed(Machine(tmp_path), NOTHING)


def test_without_any_cache_a_named_nic_is_tried(renamed, monkeypatch, capsys):
    for name in (cache.NEWEST, cache.VERIFIED):
        (renamed.folder / name).unlink(missing_ok=True)
    answering(renamed)
    seen = lambda *_: lambda: (ladder.Seen("ens3", MAC, carrier=True),)  # noqa: E731
    monkeypatch.setattr("hostagent.net.cards.cards_of", seen)

    assert hostagent(renamed, "net", "emergency-reset") == 1
    assert "no record of the network" in capsys.readouterr().err
    assert hostagent(renamed, "net", "emergency-reset", "--nic", "ens3") == 4
    assert "no record of the network" in capsys.readouterr().out


@pytest.mark.parametrize("unmanaged", [True, False])
def test_no_name_means_no_pif(unmanaged):
    networks = {"n0": records().networks["n0"]._replace(bridge="")} if unmanaged else {}

    with pytest.raises(NoSuchPifError, match="no bridge is named"):
        bring.find(records()._replace(networks=networks), bring.Request("up"))
