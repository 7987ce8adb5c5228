"""`hostagent net`: status, plan, check, graph, history, and the ways back."""

from __future__ import annotations

import json

import pytest

from hostagent.__main__ import main
from hostagent.cli import netrecords
from hostagent.errors import BusyError
from hostagent.net import ask, cache, history, journal
from tests.pure.startup_tree import make_paths
from tests.pure.test_net_reconfigure import Machine, no_daemon, records


@pytest.fixture
def hostagent(tmp_path, capsys, monkeypatch):
    """Run a command on a machine with one NIC, without a daemon; its exit code, and what it printed."""
    paths = make_paths(tmp_path)
    folder = paths.state / "net"
    cache.write(folder, records())
    made = Machine(folder)
    monkeypatch.setattr(ask, "ask", no_daemon)
    monkeypatch.setattr(netrecords, "look", lambda: made.kernel.look())
    monkeypatch.setattr(netrecords, "host_of", made.host)
    monkeypatch.setattr(journal, "boot_id", lambda _root: "boot-1")

    def run(*words):
        code = main([*words, "--etc", str(paths.etc), "--state", str(paths.state), "--run", str(paths.run)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    run.machine = made  # type: ignore[attr-defined]
    return run


def test_status_tells_management_owners_and_generations(hostagent):
    hostagent.machine.up()

    code, out, _ = hostagent("net", "status", "--json")

    told = json.loads(out)
    assert code == 0
    assert (told["bridge"], told["addresses"], told["management_up"]) == ("xenbr0", ["192.0.2.10/24"], True)
    assert (told["generation"], told["last_verified"], told["attached"]) == (1, 1, 1)
    assert told["gateway_IPv4"].startswith("PIF ")
    assert told["last_change"].endswith(", changed")


def test_plan_shows_the_operations_and_check_what_differs(hostagent):
    code, out, _ = hostagent("net", "plan", "--json")
    assert code == 0
    assert "link-add" in {one["verb"] for one in json.loads(out)["operations"]}
    assert hostagent("net", "check")[0] == 4
    assert hostagent.machine.kernel.done == 0

    hostagent.machine.up()

    assert hostagent("net", "check")[:2] == (0, "check: right (from the generation 1)\n")
    assert json.loads(hostagent("net", "plan", "--json")[1])["operations"] == []


def test_graph_as_tree_json_and_picture(hostagent, tmp_path):
    hostagent.machine.up()

    assert hostagent("net", "graph")[1].splitlines()[0].startswith("eth0")
    assert ["eth0", "xenbr0"] in json.loads(hostagent("net", "graph", "--json")[1])["edges"]
    assert hostagent("net", "graph", "-o", str(tmp_path / "net.svg"))[0] == 0
    assert (tmp_path / "net.svg").read_text().startswith("<svg ")
    code, _, err = hostagent("net", "graph", "-o", str(tmp_path / "no" / "net.svg"))
    assert code == 1
    assert "could not be written" in err


def test_history_lists_and_shows_one(hostagent):
    assert hostagent("net", "history")[1] == "nothing was changed yet\n"
    hostagent.machine.up()

    assert "changed" in hostagent("net", "history")[1]
    assert "address-add" in hostagent("net", "history", "1")[1]
    assert json.loads(hostagent("net", "history", "--json")[1])[0]["steps"][0]["verb"]
    code, _, err = hostagent("net", "history", "2")
    assert code == 1
    assert "there is no change number 2; 1 are kept" in err


def test_confirm_keeps_and_undo_takes_back(hostagent):
    hostagent.machine.up(confirm=True)
    assert hostagent("net", "confirm")[1].endswith(": confirmed\n")
    assert hostagent("net", "undo")[1] == "undo: nothing\n"

    found = cache.read(hostagent.machine.folder)
    from hostagent.net import bring

    bring.bring(bring.Request("up", bridge="xapi5", confirm=True), found, hostagent.machine.host())
    assert hostagent("net", "undo")[0] == 0
    assert "xapi5" not in hostagent.machine.kernel.look().by_name()
    assert history.read(hostagent.machine.folder)[0].outcome == "undone"


def test_undo_that_finds_the_lock_taken_says_so_to_its_timer(hostagent, monkeypatch):
    from hostagent.net import bring, guard

    def busy(_):
        raise BusyError("the network is being changed by somebody", hint="wait")

    monkeypatch.setattr(bring, "undo", busy)

    code, _, err = hostagent("net", "undo")

    assert code == guard.BUSY_EXIT
    assert "being changed by somebody" in err


def test_emergency_reset_goes_back_to_the_verified_generation(hostagent):
    folder = hostagent.machine.folder
    cache.mark_verified(folder, cache.read(folder).cached)
    cache.write(folder, records(ip="198.51.100.9"))

    code, out, _ = hostagent("net", "emergency-reset", "--plan")
    assert (code, hostagent.machine.kernel.done) == (0, 0)

    code, out, _ = hostagent("net", "emergency-reset")

    assert code == 0
    assert "cache generation 1, verified" in out
    assert [one.text for one in hostagent.machine.kernel.look().addresses] == ["192.0.2.10"]


def test_emergency_reset_without_a_verified_generation_says_so(hostagent):
    code, out, _ = hostagent("net", "emergency-reset")

    assert code == 0
    assert "no generation was verified yet: taking the newest" in out


def test_adopt_asks_nobody_and_says_so(hostagent):
    code, _, err = hostagent("net", "adopt")
    assert code != 0
    assert "--dry-run" in err
    assert hostagent("net", "release")[0] == 1


def test_adopt_without_a_daemon_takes_the_database_for_itself(hostagent):
    code, _, err = hostagent("net", "adopt", "--dry-run", "--json")
    assert code != 0
    assert "inventory" in json.loads(err)["error"]["found"]


def test_adopt_by_the_daemon_shows_files_and_operations(hostagent, monkeypatch):
    asked = []
    answer = {
        "what": "adopt eth0 from systemd-networkd", "outcome": "planned", "operations": [], "differences": [],
        "told": ["one thing"], "seconds": 0.0, "source": "", "error": None, "files": ["/etc/x"], "bridge": "xenbr0",
    }  # fmt: skip

    def daemon(_path, *words, **_):
        asked.append(words)
        return answer

    monkeypatch.setattr(ask, "ask", daemon)
    code, out, _ = hostagent("net", "adopt", "eth0", "--dry-run")
    assert code == 0
    assert asked == [("hostagent.net_adopt", "eth0", "plan", 60.0)]
    assert "would write /etc/x" in out
    assert "one thing" in out
