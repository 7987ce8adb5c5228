"""`hostagent net`: status, plan, check, graph, history, and the ways back."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from hostagent.__main__ import main
from hostagent.cli import netrecords
from hostagent.errors import BusyError, CallerError
from hostagent.net import ask, cache, history, journal
from hostagent.net.bring import empty_result
from hostagent.net.change import Change, Course
from hostagent.net.devices import Link
from hostagent.net.model import want
from hostagent.net.noted import note_course
from hostagent.net.plan import plan as plan_of
from hostagent.net.records import Network, Pif
from tests.pure.net_machine import MAC, UUID, Machine, nic_link, no_daemon, records
from tests.pure.startup_tree import make_paths


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

    assert hostagent("net", "check")[:2] == (0, "check: right (from the records of generation 1)\n")
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


def test_an_entry_shows_what_each_operation_was_done_with(hostagent):
    hostagent.machine.up()

    _, out, _ = hostagent("net", "history", "1")

    lines = [line.split(None, 2)[2] for line in out.splitlines() if " ms " in line]
    assert "address-add  xenbr0          text=192.0.2.10 prefix=24" in lines
    assert any(line.startswith("link-set     eth0 ") and "master=xenbr0" in line for line in lines)
    steps = json.loads(hostagent("net", "history", "1", "--json")[1])["steps"]
    assert "text=192.0.2.10 prefix=24" in [step["args"] for step in steps]


def test_operations_of_other_callers_have_their_arguments_in_the_history_too(hostagent):
    made = hostagent.machine
    kernel = made.kernel.look()
    wanted = want(records(), ["nic"])
    change = Change("up", records(), kernel, wanted, plan_of(wanted, kernel), digest="")
    course = Course()
    course.change = change

    note_course(made.host(), course, 1.0)

    (entry,) = history.read(made.folder)
    assert "text=192.0.2.10 prefix=24" in [step.args for step in entry.steps]
    assert any("master=xenbr0" in step.args for step in entry.steps)


@pytest.mark.parametrize("number", ["-3", "0", "x", "1.5"])
def test_how_many_changes_are_listed_is_one_or_more(hostagent, capsys, number):
    with pytest.raises(SystemExit) as ended:
        hostagent("net", "history", "--last", number)

    assert ended.value.code == 2
    assert f"a number, 1 or more, not '{number}'" in capsys.readouterr().err
    assert hostagent("net", "history", "--last", "1")[0] == 0


def test_an_error_of_a_result_is_with_the_other_errors(hostagent, monkeypatch):
    """Exit code 3: what became of the change is on standard output, why on standard error."""
    failed = CallerError("the switch is silent", hint="look at it")
    undone = {**empty_result("up", outcome="rolled-back"), "error": failed.record()}
    monkeypatch.setattr(netrecords, "change", lambda *_: undone)

    code, out, err = hostagent("pif", "plug", "eth0")
    assert (code, out, err) == (3, "up: rolled-back\n", "error: the switch is silent\nhint: look at it\n")
    code, out, err = hostagent("pif", "plug", "eth0", "--json")
    assert (code, json.loads(out)["error"]["found"], err) == (3, "the switch is silent", "")


def test_confirm_keeps_and_undo_takes_back(hostagent):
    hostagent.machine.up(confirm=True)
    assert hostagent("net", "confirm")[1].endswith(": confirmed\n")
    assert hostagent("net", "undo")[:2] == (0, "undo: nothing\n")

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

    answer |= {"what": "release eth0 to systemd-networkd"}
    assert "would put back /etc/x" in hostagent("net", "release", "eth0", "--dry-run")[1]
    answer |= {"outcome": "changed"}
    assert "  put back /etc/x" in hostagent("net", "release", "eth0", "--yes")[1]


# what is wanted, and cannot be had


def told(hostagent, *words):
    code, out, _ = hostagent("net", *words, "--json")
    result = json.loads(out)
    return code, result["outcome"], " ".join(result["told"])


def up(hostagent):
    hostagent.machine.up()
    assert told(hostagent, "check") == (0, "right", "")
    assert told(hostagent, "plan") == (0, "planned", "")


def test_a_management_nic_that_is_gone_is_not_right(hostagent):
    up(hostagent)
    hostagent.machine.kernel.links.pop(2)

    code, outcome, words = told(hostagent, "check")

    assert (code, outcome) == (4, "differs")
    assert f"eth0 ({MAC}) is not in this host" in words
    assert told(hostagent, "plan")[:2] == (4, "degraded")


def test_a_nic_that_was_taken_out_of_its_bridge_is_not_right_though_its_pif_is_not_up_any_more(hostagent):
    hostagent.machine.up()
    cache.write(hostagent.machine.folder, records(management=False))
    assert told(hostagent, "check")[0] == 0
    hostagent.machine.kernel.links[2].master = 0

    code, outcome, _ = told(hostagent, "check")

    assert (code, outcome) == (4, "differs")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ({"permanent_mac": "52:54:00:00:00:99"}, "another NIC is in its place"),
        ({"name": "eth7"}, "is now called eth7"),
        ({"max_mtu": 1400}, "eth0 takes at most 1400"),
    ],
)
def test_what_stops_a_pif_is_not_right_though_nothing_else_differs(hostagent, link, words):
    up(hostagent)
    vars(hostagent.machine.kernel.links[2]).update(link)

    code, outcome, found = told(hostagent, "check")

    assert (code, outcome) == (4, "differs")
    assert words in found
    assert told(hostagent, "plan")[:2] == (4, "degraded")


def test_no_carrier_is_told_and_is_as_wanted(hostagent):
    up(hostagent)
    hostagent.machine.kernel.links[2].carrier = False

    code, outcome, found = told(hostagent, "check")

    assert (code, outcome) == (0, "right")
    assert "no carrier on eth0" in found


def test_what_nobody_wants_up_may_be_as_it_likes(hostagent):
    """A PIF whose NIC is gone and one whose NIC another program has, none of them up."""
    spare = Pif("spare", "uuid-spare", "eth8", "n8", mac="52:54:00:00:00:08", physical=True)
    taken = Pif("taken", "uuid-taken", "eth9", "n9", mac="52:54:00:00:00:09", physical=True)
    known = records()
    networks = {**known.networks, **{ref: Network(ref, ref, ref, f"xen{ref}") for ref in ("n8", "n9")}}
    known = known._replace(pifs={**known.pifs, "spare": spare, "taken": taken}, networks=networks)
    cache.write(hostagent.machine.folder, known)
    nic = nic_link()._replace(ifindex=50, name="eth9", permanent_mac="52:54:00:00:00:77", master=51, flags=1)
    for link in (nic, Link(51, "br9", "bridge", nic.mac, 1500, 0, 0, 1, 0, carrier=True, operstate=6)):
        hostagent.machine.kernel.links[link.ifindex] = SimpleNamespace(
            **link._asdict(), up=True, mac_set=True, mtu_set=False, original=(link.mac, 1500)
        )

    up(hostagent)


# too late to confirm


def test_a_confirmation_that_comes_too_late_fails_and_says_what_became_of_the_change(hostagent):
    code, out, err = hostagent("net", "confirm")
    assert (code, out) == (1, "confirm: nothing\n")
    assert "error: no change waits for confirmation\nhint: hostagent net history" in err

    hostagent.machine.up(confirm=True)
    assert hostagent("net", "undo")[0] == 0
    code, _, err = hostagent("net", "confirm")

    assert code == 1
    assert f"no change waits for confirmation: up PIF {UUID} (eth0) was undone at 20" in err
    assert json.loads(hostagent("net", "confirm", "--json")[1])["outcome"] == "nothing"


def test_a_change_that_is_not_whole_is_not_confirmed(hostagent, monkeypatch):
    hostagent.machine.up(confirm=True)
    monkeypatch.setattr(
        journal, "pending", lambda _, read=journal.pending: read(_)._replace(state=journal.BEGUN)
    )
    code, _, err = hostagent("net", "confirm")
    assert code == 1
    assert "begun, and not whole: it cannot be confirmed\nhint: hostagent net undo" in err


def test_a_confirmed_change_is_not_told_of_as_undone(hostagent):
    hostagent.machine.up(confirm=True)
    hostagent("net", "undo")
    hostagent.machine.up(confirm=True)
    assert hostagent("net", "confirm")[0] == 0
    code, out, err = hostagent("net", "confirm")
    assert (code, "was undone" in out + err) == (1, False)


# words


@pytest.mark.parametrize("words", [("plan",), ("check",), ("confirm",), ("undo",), ("adopt",), ("release",)])
def test_the_help_has_the_exit_codes(hostagent, capsys, words):
    with pytest.raises(SystemExit):
        hostagent("net", *words, "--help")
    assert "exit codes:" in capsys.readouterr().out


def test_a_long_note_is_cut_in_the_list_and_whole_in_the_entry(hostagent):
    note = "no carrier " * 60
    entry = history.Entry(0.0, "up", "degraded", 1.0, "me", told=(note,))
    history.append(hostagent.machine.folder, entry)

    assert max(map(len, hostagent("net", "history")[1].splitlines())) < 160
    assert note in hostagent("net", "history", "1")[1]
    assert json.loads(hostagent("net", "history", "--json")[1])[0]["told"] == [note]
