"""`hostagent pif`: what is printed of records and kernel, and what is handed on."""

from __future__ import annotations

import argparse
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.__main__ import main
from hostagent.api import calls_adopt, calls_net
from hostagent.api.methods import WrongTypeError
from hostagent.cli import netrecords
from hostagent.cli.parser import seconds
from hostagent.net import ask, bring, cache, evidence, options
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


TIMES = ["nan", "inf", "-inf", "-5", "0", "-0.0", "3600.1", "1e400", "soon", "", "0x10", "5 5"]


@pytest.mark.parametrize("given", TIMES)
@pytest.mark.parametrize(
    "words",
    [
        ("pif", "plug", "eth2", "--confirm"), ("pif", "unplug", "eth2"), ("net", "emergency-reset", "--plan"),
        ("net", "adopt", "--dry-run"), ("net", "release", "--dry-run"),
    ],
)  # fmt: skip
def test_no_time_that_makes_no_sense_is_taken(hostagent, monkeypatch, capsys, words, given):
    monkeypatch.setattr(netrecords, "change", lambda *_: pytest.fail("it was tried"))

    with pytest.raises(SystemExit) as ended:
        hostagent(*words, f"--timeout={given}")

    assert ended.value.code == 2
    assert f"seconds above 0, at most 3600, not {given!r}" in capsys.readouterr().err


def test_the_longest_time_is_the_same_wherever_it_is_given():
    for most in ("3600", "3600.5"):
        taken = []
        for parse in (
            lambda text: options.parse(["--pif-uuid", "u", "up", f"--timeout={text}"]).timeout_s,
            seconds,
            lambda text: calls_net.asked({"action": "up", "timeout_s": float(text)})["timeout_s"],
            lambda text: calls_adopt.seconds(float(text)),
        ):
            try:
                taken.append(parse(most))
            except (options.UsageError, argparse.ArgumentTypeError, WrongTypeError):
                taken.append(None)
        assert taken == [3600.0 if most == "3600" else None] * 4


@given(st.text() | st.floats().map(str))
def test_any_word_is_a_time_or_a_usage_error(word):
    try:
        assert 0 < seconds(word) <= options.LONGEST_S
    except argparse.ArgumentTypeError:
        return


def test_a_plan_waits_for_no_confirmation(hostagent, capsys):
    with pytest.raises(SystemExit) as ended:
        hostagent("pif", "plug", "eth2", "--plan", "--confirm")

    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
