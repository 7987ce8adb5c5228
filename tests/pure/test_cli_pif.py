"""`hostagent pif`: what is printed of records and kernel, and what is handed on."""

from __future__ import annotations

import json

import pytest

from hostagent.__main__ import main
from hostagent.cli import netrecords
from hostagent.net import ask, bring, cache, evidence
from tests.pure.net_host import kernel, records
from tests.pure.startup_tree import make_paths


@pytest.fixture
def hostagent(tmp_path, capsys, monkeypatch):
    """Run a command on the small network without a daemon; its exit code, and what it printed."""
    paths = make_paths(tmp_path)
    cache.write(paths.state / "net", records())
    monkeypatch.setattr(ask, "ask", no_daemon)
    monkeypatch.setattr(netrecords, "look", kernel)
    monkeypatch.setattr("hostagent.net.journal.boot_id", lambda _root: "boot-1")
    monkeypatch.setattr(evidence, "ask_around", lambda known, *_: known)

    def run(*words):
        code = main([*words, "--etc", str(paths.etc), "--state", str(paths.state), "--run", str(paths.run)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def no_daemon(*_, **__):
    raise ask.NotThereError("nobody listens", hint="")


def test_list_has_the_truth_of_the_kernel(hostagent):
    code, out, _ = hostagent("pif", "list", "--json")

    rows = {row["device"]: row for row in json.loads(out)}
    assert code == 0
    assert {name for name, row in rows.items() if row["attached"]} == {"bond0", "bond0.5"}
    assert (rows["eth0"]["bond"], rows["bond0"]["ipv4"]) == ("bond0", "Static 192.0.2.10")
    assert [line.split()[0] for line in hostagent("pif", "list")[1].splitlines()][2:] == list(rows)


def test_the_daemon_is_asked_first(hostagent, monkeypatch):
    fresh = records(ip="192.0.2.99")
    monkeypatch.setattr(ask, "ask", lambda *_, **__: cache.encode(cache.Cached(fresh, 9)).decode())

    assert "192.0.2.99" in hostagent("pif", "list")[1]


def test_a_daemon_that_hangs_leaves_the_cached_copy_to_look_at_and_says_what_works(hostagent, monkeypatch):
    def hang(*_, **__):
        raise ask.NoAnswerError("the daemon did not answer within 10 s", hint="it may still be at work")

    monkeypatch.setattr(ask, "ask", hang)

    code, out, err = hostagent("pif", "list")
    assert (code, "192.0.2.10" in out) == (0, True)
    assert "note: the daemon did not answer within 10 s: this is the cached copy" in err
    code, _, err = hostagent("pif", "plug", "eth2")
    assert (code, "hint: it may still be at work" in err) == (1, True)


@pytest.mark.parametrize("name", ["uuid-master", "master", "bond0", "xapi1"])
def test_a_pif_is_found_by_every_name_it_has(hostagent, name):
    code, out, _ = hostagent("pif", "show", name, "--json")

    assert code == 0
    shown = json.loads(out)
    assert (shown["uuid"], shown["addresses"], shown["bridge"]) == ("uuid-master", ["192.0.2.10/24"], "xapi1")


def test_an_unknown_name_is_told(hostagent):
    code, _, err = hostagent("pif", "show", "eth9")

    assert code == 1
    assert "no PIF is called eth9" in err
    assert "hint: hostagent pif list" in err


def test_explain_is_text_or_json(hostagent):
    code, out, _ = hostagent("pif", "explain", "xenbr2")
    assert code == 0
    assert out.startswith("PIF uuid-nic2 (eth2): not up")

    told = json.loads(hostagent("pif", "explain", "eth2", "--json")[1])
    assert told["facts"]["attached"] == "no"
    assert {"weight", "found", "evidence", "command"} == set(told["reasons"][0])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("plug", "bond0.5"), ("up", "uuid-upper", "do", False, 60.0)),
        (("unplug", "xapi5", "--plan"), ("down", "uuid-upper", "plan", False, 60.0)),
        (("plug", "eth2", "--confirm", "--timeout", "9"), ("up", "uuid-nic2", "do", True, 9.0)),
    ],
)
def test_changes_are_handed_on_and_their_outcome_is_the_exit_code(hostagent, monkeypatch, words, expected):
    asked = []

    def change(_paths, request):
        asked.append((request.action, request.pif, request.mode, request.confirm, request.timeout_s))
        return bring.empty_result("it", outcome="rolled-back")

    monkeypatch.setattr(netrecords, "change", change)

    assert hostagent("pif", *words)[0] == 3
    assert asked == [expected]
