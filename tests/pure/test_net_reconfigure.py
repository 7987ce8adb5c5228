"""`interface-reconfigure`: its command line, the daemon's answers, and the whole program."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import ask, bring, cache, options, reconfigure
from hostagent.net.result import Result
from tests.pure.net_machine import MAC, UUID, Machine, no_daemon, records

# command line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--pif-uuid", "u", "up"], {"pif_uuid": "u", "action": "up"}),
        (["up", "--pif-uuid=u", "--management"], {"pif_uuid": "u", "action": "up", "management": True}),
        (["--session", "s", "--pif", "p", "down"], {"session": "s", "pif": "p", "action": "down"}),
        (["--force-interface", "xenbr0", "up"], {"force": "xenbr0", "action": "up"}),
        (["rewrite-configuration"], {"action": "rewrite"}),
        (["--pif-uuid", "u", "--explain"], {"pif_uuid": "u", "action": "up", "explain": True}),
        (["--pif-uuid", "u", "--timeout=2.5", "--confirm", "--", "up"], {"timeout_s": 2.5, "confirm": True}),
        (["-h", "nonsense"], {"help": True}),
    ],
)
def test_the_forms_of_the_reference(words, expected):
    parsed = options.parse(words)._asdict()

    assert {name: parsed[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "exactly one of up, down, rewrite"),
        (["--pif-uuid", "u", "up", "down"], "exactly one"),
        (["--pif-uuid", "u", "restart"], "'restart' is none of"),
        (["up"], "up needs a PIF"),
        (["--session", "s", "up"], "--session and --pif come together"),
        (["--pif", "p", "--session", "s", "--pif-uuid", "u", "up"], "exclude each other"),
        (["--force", "b", "--pif-uuid", "u", "up"], "exclude each other"),
        (["--pif-uuid", "u", "rewrite"], "rewrite takes no PIF"),
        (["--pif-uuid", "u", "--device=eth0", "up"], "--device goes with --force BRIDGE rewrite"),
        (["--force", "b", "rewrite"], "needs --device"),
        (["--force", "b", "--device=e", "--mac=m", "--mode=pppoe", "rewrite"], "--mode is dhcp or static"),
        (["--force", "b", "--device=e", "--mac=m", "--mode=static", "rewrite"], "needs --ip and --netmask"),
        (["--pif-uuid"], "--pif-uuid needs a value"),
        (["--pif-uuid", "u", "--plan=yes", "up"], "--plan takes no value"),
        (["--pif-uuid", "u", "--plan", "--check", "up"], "--plan and --check exclude each other"),
        (["--pif-uuid", "u", "--timeout", "soon", "up"], "--timeout takes seconds"),
        (["--pif-uid", "u", "up"], "did you mean --pif-uuid?"),
        (["--vlan", "5", "up"], "there is no option --vlan"),
        (["--pif-uuid", "u", "--explain", "down"], "as it is: down does not go with it"),
        (["--explain", "rewrite"], "as it is: rewrite does not go with it"),
        (["--pif-uuid", "u", "--explain", "--management"], "--management does not go with it"),
        (["--pif-uuid", "u", "--explain", "--keep-old"], "--keep-old goes with --management"),
        (["--pif-uuid", "u", "--explain", "--confirm"], "--explain and --confirm exclude each other"),
    ],
)
def test_wrong_command_lines_end_with_2(words, told, capsys):
    assert reconfigure.main(words) == 2
    assert told in capsys.readouterr().err


@given(
    st.lists(
        st.sampled_from([*options.VALUES, *options.FLAGS, "up", "--timeout=5", "x"]) | st.text(max_size=6)
    )
)
def test_any_command_line_is_options_or_a_usage_error(words):
    try:
        parsed = options.parse(words)
    except options.UsageError:
        return
    assert parsed.help or parsed.action in ("up", "down", "rewrite")


def test_the_help_names_every_option():
    assert all(name in options.HELP for name in [*options.VALUES, *options.FLAGS])


# the daemon's answers


def http(value, status=b"HTTP/1.1 200 OK"):
    return status + b"\r\nContent-Type: application/json\r\n\r\n" + json.dumps(value).encode()


def test_a_result_and_the_two_kinds_of_errors():
    assert ask.result_of(http({"jsonrpc": "2.0", "result": {"a": 1}, "id": 1})) == {"a": 1}
    with pytest.raises(ask.AnsweredError) as failure:
        ask.result_of(http({"error": {"code": 1, "message": "PIF_UNMANAGED", "data": ["ref"]}}))
    assert (failure.value.code, failure.value.params) == ("PIF_UNMANAGED", ("ref",))
    told = {"code": "VLAN_IN_USE", "params": ["eth0", "5"], "found": "taken", "hint": "another tag"}
    with pytest.raises(ask.AnsweredError, match="taken") as failure:
        ask.result_of(http({"result": {"error": told}}))
    assert (failure.value.code, failure.value.hint) == ("VLAN_IN_USE", "another tag")


def test_the_error_of_a_change_that_was_undone_is_part_of_its_result():
    result = {
        "outcome": "rolled-back",
        "error": {"code": "C", "params": [], "found": "f", "hint": "h"},
        "what": "up",
    }

    with pytest.raises(ask.AnsweredError):
        ask.result_of(http({"result": {"error": result["error"]}}))
    assert ask.result_of(http({"result": result})) == result


@given(st.binary(max_size=300) | st.binary(max_size=99).map(lambda body: b"HTTP/1.1 200 OK\r\n\r\n" + body))
def test_any_answer_is_a_result_or_an_error(answer):
    with contextlib.suppress(ask.NoAnswerError, ask.AnsweredError):
        result = ask.result_of(answer)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["result"] == result


class Silent:
    """A socket whose other end says nothing."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def settimeout(self, _seconds):
        pass

    def connect(self, _path):
        pass

    def sendall(self, _data):
        pass

    def recv(self, _length):
        raise TimeoutError


def test_a_daemon_that_hangs_is_told_with_what_works_without_it(monkeypatch):
    monkeypatch.setattr("socket.socket", Silent)

    with pytest.raises(ask.NoAnswerError, match="did not answer within 2 s") as caught:
        ask.ask("path", "method", timeout_s=2)

    assert "interface-reconfigure --force BRIDGE up works without it" in caught.value.hint


# the program


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Run it on a root of its own, without a daemon; exit code and output."""
    folder = tmp_path / reconfigure.STATE / "net"
    folder.mkdir(parents=True)
    made = Machine(folder)
    monkeypatch.setattr(ask, "ask", no_daemon)

    def run(*words):
        out = io.StringIO()
        code = reconfigure.main(
            ["--root-prefix", str(tmp_path), "--no-syslog", *words], open_host=made.host, out=out
        )
        return code, out.getvalue()

    run.machine = made  # type: ignore[attr-defined]
    return run


def test_first_boot_rewrite_then_up_from_the_console(program, capsys):
    code, out = program("--force", "xenbr0", "rewrite", "--device=eth0", f"--mac={MAC}", "--mode=static",
                        "--ip=192.0.2.10", "--netmask=255.255.255.0")  # fmt: skip
    assert (code, out.splitlines()[0]) == (0, "rewrite xenbr0 on eth0: changed")

    code, out = program("--force", "xenbr0", "--management", "up")

    assert code == 0
    assert out.startswith("up PIF eth0Pif (eth0): changed")
    assert "address-add" in out
    assert [one.text for one in program.machine.kernel.look().addresses] == ["192.0.2.10"]
    assert "called as interface-reconfigure" in capsys.readouterr().err


def test_without_daemon_and_cache_it_says_what_to_type(program, capsys):
    assert program("--pif-uuid", UUID, "up")[0] == 1
    err = capsys.readouterr().err
    assert "there is no record of the network to work from" in err
    assert "hint: start the daemon" in err


def test_check_gives_4_then_0(program):
    cache.write(program.machine.folder, records())

    assert program("--pif-uuid", UUID, "--check", "up")[0] == 4
    assert program("--pif-uuid", UUID, "up")[0] == 0
    assert program("--pif-uuid", UUID, "--check", "up")[0] == 0


def test_json_is_the_whole_result(program):
    cache.write(program.machine.folder, records())

    code, out = program("--pif-uuid", UUID, "--json", "up")

    assert code == 0
    result = json.loads(out)
    assert set(result) == set(Result.__annotations__)
    assert "no daemon runs" in result["told"]


def test_rewrite_without_a_daemon_has_nothing_to_write_from(program, capsys):
    assert program("rewrite")[0] == 1
    assert "nothing to write the cached network from: no daemon runs" in capsys.readouterr().err


def test_the_daemon_does_it_when_it_answers(program, monkeypatch):
    asked = []

    def answer(path, method, request, *, timeout_s):
        asked.append((method, request["action"], request["pif"], timeout_s))
        return bring.empty_result("up PIF", outcome="degraded")

    monkeypatch.setattr(ask, "ask", answer)

    assert program("--session", "s", "--pif", "OpaqueRef:1", "--timeout=10", "up")[0] == 4
    assert asked == [("hostagent.net_reconfigure", "up", "OpaqueRef:1", 10 + reconfigure.ANSWER_SPARE_S)]


@pytest.mark.parametrize(("code", "works"), [("HOST_STILL_BOOTING", True), ("PIF_UNMANAGED", False)])
def test_a_daemon_that_is_not_ready_is_gone_round_and_its_refusal_is_not(program, monkeypatch, code, works):
    cache.write(program.machine.folder, records())

    def answer(*_, **__):
        raise ask.AnsweredError(code, ())

    monkeypatch.setattr(ask, "ask", answer)

    assert (program("--pif-uuid", UUID, "up")[0] == 0) is works


def test_force_never_asks_the_daemon(program, monkeypatch):
    cache.write(program.machine.folder, records())
    monkeypatch.setattr(ask, "ask", lambda *_, **__: pytest.fail("asked"))

    assert program("--force", "xenbr0", "up")[0] == 0


def test_the_cache_of_another_host_is_not_used(program, tmp_path, capsys):
    cache.write(program.machine.folder, records())
    inventory = tmp_path / "etc/hostagent/inventory"
    inventory.parent.mkdir(parents=True)
    inventory.write_text("INSTALLATION_UUID='host-2'\n")

    assert program("--pif-uuid", UUID, "up")[0] == 1
    assert "is of host host-1, and this is host-2" in capsys.readouterr().err


def test_explain_prints_the_answer_and_changes_nothing(program, monkeypatch):
    cache.write(program.machine.folder, records())

    code, out = program("--pif-uuid", UUID, "--explain")

    assert code == 0
    assert out.startswith(f"PIF {UUID} (eth0): not up")
    assert program.machine.kernel.done == 0


def test_explain_is_of_what_the_daemon_says_and_with_force_of_the_cached_copy(program, monkeypatch):
    cache.write(program.machine.folder, records())
    asked = []

    def answer(path, method, *, timeout_s):
        asked.append((path.endswith("run/hostagent/api.sock"), method))
        fresh = records(uuid="of-the-daemon")
        return cache.encode(cache.Cached(fresh, 9)).decode()

    monkeypatch.setattr(ask, "ask", answer)

    told = json.loads(program("--pif-uuid", "of-the-daemon", "--explain", "--json")[1])
    assert asked == [(True, "hostagent.net_records")]
    assert (told["what"], told["told"]) == ("explain of-the-daemon", [])
    assert json.loads(program("--force", "xenbr0", "--explain", "--json")[1])["what"] == f"explain {UUID}"
    assert len(asked) == 1


def test_explain_tells_of_a_damaged_copy_and_of_a_daemon_that_is_not_ready(program, monkeypatch, capsys):
    cache.write(program.machine.folder, records(), verified=True)
    (program.machine.folder / cache.NEWEST).write_text("{")

    def answer(*_, **__):
        raise ask.AnsweredError("HOST_STILL_BOOTING", ())

    monkeypatch.setattr(ask, "ask", answer)

    assert program("--pif-uuid", UUID, "--explain")[0] == 0
    err = capsys.readouterr().err
    assert "note: the daemon is not ready (HOST_STILL_BOOTING)\n" in err
    assert "(set aside as cache.json.damaged)\n" in err


def test_ctrl_c_ends_with_130_and_says_nothing(program, monkeypatch, capsys):
    """The undo of what is under way is that of every end: see `test_net_apply.py`."""
    cache.write(program.machine.folder, records())
    before = program.machine.kernel.look()
    messages = interrupting(program.machine, monkeypatch)

    assert program("--force", "xenbr0", "up") == (130, "")
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["called"]
    assert len(messages) > 2
    assert program.machine.kernel.look() == before


def interrupting(machine, monkeypatch):
    """Ctrl-C is typed between two messages to the kernel."""
    execute = machine.kernel.execute
    calls = []

    def executing(operations):
        calls.append(operations)
        if len(calls) == 2:
            raise KeyboardInterrupt
        execute(operations)

    monkeypatch.setattr(machine.kernel, "execute", executing)
    return calls
