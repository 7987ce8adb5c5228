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
from hostagent.net import ask, bring, cache, evidence, nics_look, options
from hostagent.net.bring import empty_result
from hostagent.net.nics import Seen
from hostagent.net.nics_types import Nic
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

    run.folder = paths.state / "net"  # type: ignore[attr-defined]
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


# what is told of the records


@pytest.fixture
def renamed(monkeypatch):
    """eth2 is called eth7 now, and its PIF was up."""
    places = tuple(cache.Position(n, f"eth{n}", f"02:00:00:00:00:0{n}", f"0000:00:0{n}.0") for n in range(3))
    seen = [
        Seen(Nic(-1, name, f"02:00:00:00:00:0{n}", pci_path=f"0000:00:0{n}.0"))
        for n, name in enumerate(("eth0", "eth1", "eth7"))
    ]

    def of(run):
        cached = cache.read(run.folder).cached
        cache.write(run.folder, cached.records, positions=places)
        monkeypatch.setattr(nics_look, "look", lambda *_, **__: seen)
        now = kernel()
        links = {
            index: link._replace(name="eth7", mac=LAST, permanent_mac=LAST) if link.name == "eth2" else link
            for index, link in now.links.items()
        }
        monkeypatch.setattr(netrecords, "look", lambda: now._replace(links=links))

    return of


LAST = "02:00:00:00:00:02"
FOLLOWS = f"note: eth2 is called eth7 now ({LAST}): its PIF follows\n"


def test_looks_follow_a_nic_that_has_another_name_as_changes_do(hostagent, renamed):
    renamed(hostagent)

    code, out, err = hostagent("pif", "list", "--json")
    assert (code, err) == (0, FOLLOWS)
    assert "eth7" in [row["device"] for row in json.loads(out)]
    assert hostagent("pif", "show", "eth7")[::2] == (0, FOLLOWS)
    code, out, err = hostagent("pif", "explain", "eth7")
    assert (code, err) == (0, FOLLOWS)
    assert "pif-scan" not in out
    code, out, err = hostagent("net", "graph")
    assert (code, err) == (0, FOLLOWS)
    assert "eth7" in out
    told = json.loads(hostagent("net", "status", "--json")[1])["notes"]
    assert told == [FOLLOWS.removeprefix("note: ").strip()]


@pytest.mark.parametrize("words", [("show",), ("explain",), ("plug", "--plan")])
def test_the_name_that_a_nic_had_still_means_its_pif(hostagent, renamed, monkeypatch, words):
    renamed(hostagent)
    asked = []

    def change(_, request):
        asked.append(request.pif)
        return empty_result("up")

    monkeypatch.setattr(netrecords, "change", change)

    code, out, err = hostagent("pif", words[0], "eth2", *words[1:])

    assert code == 0
    assert asked == ["uuid-nic2"] if words[0] == "plug" else "uuid-nic2" in out
    assert FOLLOWS.removeprefix("note: ").strip() in out + err


def test_names_that_the_daemon_says_are_those_it_works_with(hostagent, renamed, monkeypatch):
    renamed(hostagent)
    content = (hostagent.folder / cache.NEWEST).read_text()
    monkeypatch.setattr(ask, "ask", lambda *_, **__: content)

    assert hostagent("pif", "show", "eth2")[::2] == (0, "")


@pytest.mark.parametrize(
    "words", [("pif", "list"), ("pif", "show", "eth2"), ("pif", "explain", "eth2"), ("net", "graph")]
)
def test_whoever_looks_first_tells_that_the_copy_was_damaged(hostagent, monkeypatch, words):
    cache.mark_verified(hostagent.folder, cache.read(hostagent.folder).cached)
    (hostagent.folder / cache.NEWEST).write_text("{")

    def answer(*_, **__):
        raise ask.AnsweredError("HOST_STILL_BOOTING", ())

    monkeypatch.setattr(ask, "ask", answer)

    code, _, err = hostagent(*words)

    lines = err.splitlines()
    assert (code, len(lines)) == (0, 3)
    assert lines[0] == "note: the daemon is not ready (HOST_STILL_BOOTING)"
    assert lines[1].endswith("(set aside as cache.json.damaged)")
    assert lines[2] == "note: using generation 1, the last verified one"


def test_a_change_tells_that_the_copy_was_damaged_which_its_look_set_aside(hostagent, monkeypatch):
    cache.mark_verified(hostagent.folder, cache.read(hostagent.folder).cached)
    (hostagent.folder / cache.NEWEST).write_text("{")
    monkeypatch.setattr(netrecords, "change", lambda *_: empty_result("up"))

    told = json.loads(hostagent("pif", "plug", "eth2", "--plan", "--json")[1])["told"]

    assert "(set aside as cache.json.damaged)" in told[0]
