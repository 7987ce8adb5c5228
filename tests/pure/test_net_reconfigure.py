"""`interface-reconfigure`: its command line, the daemon's answers, and a PIF brought up from records alone."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import CallerError, HostagentError
from hostagent.net import apply, ask, bring, cache, history, journal, options, reconfigure
from hostagent.net.attached import attached
from hostagent.net.devices import Address, Kernel, Link
from hostagent.net.model import want
from hostagent.net.plan import plan
from hostagent.net.records import Network, Pif, Records, Vlan
from tests.pure.net_kernel import FakeKernel

MAC = "52:54:00:00:00:01"
UUID = "11111111-0000-0000-0000-000000000001"


def records(**changed):
    """A NIC with a static address on xenbr0, which is management, and VLAN 5 on it."""
    nic = Pif("nic", UUID, "eth0", "n0", mac=MAC, physical=True, management=True, ip_mode="Static",
              ip="192.0.2.10", netmask="255.255.255.0", gateway="192.0.2.1", dns="192.0.2.2",
              vlan_slave_of=("vlan",))  # fmt: skip
    upper = Pif("upper", "uuid-vlan", "eth0", "n5", vlan=5, vlan_master_of="vlan")
    networks = {
        "n0": Network("n0", "uuid-n0", "LAN", "xenbr0"),
        "n5": Network("n5", "uuid-n5", "five", "xapi5"),
    }
    vlan = Vlan("vlan", "uuid-v", "nic", "upper", 5)
    pifs = {"nic": nic._replace(**changed), "upper": upper}
    return Records("host-1", pifs, networks, {}, {"vlan": vlan}, "xenbr0")


def nic_link(*, carrier=True):
    return Link(2, "eth0", "", MAC, 1500, 0, 0, 0, 0, carrier, 6, permanent_mac=MAC, max_mtu=9000)


class Machine:
    """A kernel that keeps state, a clock that waiting moves, and what was asked of the guard."""

    def __init__(self, folder, *, carrier=True):
        self.folder = folder
        self.kernel = FakeKernel(Kernel({2: nic_link(carrier=carrier)}))
        self.now = 0.0
        self.armed = []
        self.waits = False
        self.soft = []
        self.lease = lambda lease: None

    def wait(self, seconds):
        self.now += seconds

    def host(self, *_):
        return bring.Host(
            folder=self.folder,
            tools=apply.Tools(
                netlink=self.kernel,
                sysctl=lambda path, value: None,
                ethtool=lambda device, args: None,
                lease_start=lambda lease: self.lease(lease),
                lease_stop=lambda lease: None,
                resolver=lambda *_: None,
            ),
            boot="boot-1",
            around=lambda wanted, kernel: None,
            arm=self.armed.append,
            disarm=lambda: self.armed.append("disarmed"),
            waiting=lambda: self.waits,
            stand_down=lambda: self.armed.append("stood down"),
            wait=self.wait,
            clock=lambda: self.now,
            soft=self.soft,
        )

    def up(self, *, which=None, **request):
        cached = cache.read(self.folder) if which is None else cache.Found(cache.Cached(which, 7))
        return bring.bring(bring.Request("up", UUID, **request), cached, self.host())


@pytest.fixture
def machine(tmp_path):
    cache.write(tmp_path, records())
    return Machine(tmp_path)


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


# work from records


def test_up_makes_the_chain_and_marks_the_generation_as_verified(machine):
    result = machine.up()

    kernel = machine.kernel.look()
    assert (result["outcome"], result["told"], result["error"]) == ("changed", [], None)
    assert attached(records(), kernel) == {"nic"}
    assert [(one.text, one.prefix) for one in kernel.addresses] == [("192.0.2.10", 24)]
    assert cache.read_verified(machine.folder) == cache.read(machine.folder).cached
    assert journal.pending(machine.folder) is None
    assert all(operation["milliseconds"] is not None for operation in result["operations"])


def test_up_again_touches_nothing_and_is_no_change_in_the_history(machine):
    machine.up()
    done = machine.kernel.done

    again = machine.up()

    assert (again["outcome"], again["operations"], machine.kernel.done) == ("unchanged", [], done)
    assert len(history.read(machine.folder)) == 1


def test_plan_and_check_touch_nothing(machine):
    planned, checked = machine.up(mode=bring.PLAN), machine.up(mode=bring.CHECK)

    assert planned["outcome"] == "planned"
    assert planned["operations"][0]["milliseconds"] is None
    assert checked["outcome"] == "differs"
    assert {"device": "xenbr0", "what": "device", "wanted": "bridge", "found": "missing"} in checked[
        "differences"
    ]
    assert machine.kernel.done == 0
    assert not (machine.folder / history.NAME).exists()
    machine.up()
    assert machine.up(mode=bring.CHECK)["outcome"] == "right"


def test_a_vlan_takes_its_lower_device_along(machine):
    found = cache.read(machine.folder)

    result = bring.bring(bring.Request("up", bridge="xapi5"), found, machine.host())

    assert result["what"] == "up PIF uuid-vlan (eth0 tag 5)"
    assert "upper" in attached(records(), machine.kernel.look())


def test_down_takes_the_vlan_away_and_leaves_management(machine):
    found = cache.read(machine.folder)
    machine.up()
    bring.bring(bring.Request("up", bridge="xapi5"), found, machine.host())

    result = bring.bring(bring.Request("down", bridge="xapi5"), found, machine.host())

    assert result["outcome"] == "changed"
    assert attached(records(), machine.kernel.look()) == {"nic"}
    assert "xapi5" not in machine.kernel.look().by_name()


def test_without_carrier_it_is_degraded_and_not_verified(tmp_path):
    cache.write(tmp_path, records())

    result = Machine(tmp_path, carrier=False).up()

    assert result["outcome"] == "degraded"
    assert result["told"] == ["no carrier on eth0: look at the cable, the switch port, the transceiver"]
    assert reconfigure.exit_of(result) == 4
    assert cache.read_verified(tmp_path) is None


def test_a_cable_that_was_pulled_is_told_also_where_nothing_is_to_do(tmp_path):
    cache.write(tmp_path, records())
    machine = Machine(tmp_path, carrier=False)
    machine.up()

    again = machine.up()

    assert (again["outcome"], again["operations"]) == ("degraded", [])
    assert again["told"] == ["no carrier on eth0: look at the cable, the switch port, the transceiver"]
    assert reconfigure.exit_of(again) == 4
    assert cache.read_verified(tmp_path) is None


def test_a_generation_in_which_another_one_is_management_is_not_verified(machine):
    found = cache.read(machine.folder)

    result = bring.bring(bring.Request("up", bridge="xapi5", management=True), found, machine.host())

    assert result["outcome"] == "changed"
    assert cache.read_verified(machine.folder) is None


def test_what_a_tool_could_not_do_degrades_and_does_not_undo(machine):
    machine.soft.append("lro cannot be switched off")

    result = machine.up()

    assert (result["outcome"], result["told"]) == ("degraded", ["lro cannot be switched off"])
    assert attached(records(), machine.kernel.look()) == {"nic"}


def test_a_refused_step_is_undone_and_ends_with_3(machine, monkeypatch):
    before = machine.kernel.look()
    execute = machine.kernel.execute

    def refuse_addresses(operations):
        bad = [at for at, one in enumerate(operations) if one.verb == "address-add"]
        if not bad:
            return execute(operations)
        execute(operations[: bad[0]])
        raise refused(bad[0])

    machine.kernel.execute = refuse_addresses

    result = machine.up()

    assert result["outcome"] == "rolled-back"
    assert reconfigure.exit_of(result) == 3
    assert "the network is as before" in result["error"]["found"]
    assert set(machine.kernel.look().by_name()) == set(before.by_name())
    (entry,) = history.read(machine.folder)
    assert (entry.outcome, entry.told) == ("rolled-back", (result["error"]["found"],))
    assert journal.pending(machine.folder) is None


def refused(position):
    from tests.pure.net_kernel import RefusedError

    return RefusedError(position, 22, tuple(range(position)), "no")


def test_confirm_leaves_it_waiting_with_the_timer_armed_before_the_change(machine):
    result = machine.up(confirm=True, timeout_s=90.0)

    assert (result["outcome"], machine.armed) == ("waiting", [90.0])
    waiting = journal.pending(machine.folder)
    assert waiting is not None
    assert waiting.state == journal.WAITING
    assert cache.read_verified(machine.folder) is None
    kept = bring.confirm(machine.host())
    assert (kept["outcome"], machine.armed) == ("confirmed", [90.0, "disarmed"])
    assert journal.pending(machine.folder) is None
    assert bring.confirm(machine.host())["outcome"] == "nothing"


def test_what_is_not_confirmed_is_undone(machine):
    before = set(machine.kernel.look().by_name())
    machine.up(confirm=True)

    result = bring.undo(machine.host())

    assert result["outcome"] == "undone"
    assert set(machine.kernel.look().by_name()) == before
    assert bring.undo(machine.host())["outcome"] == "nothing"
    assert [entry.outcome for entry in history.read(machine.folder)] == ["undone", "waiting"]


def test_a_change_that_waits_is_not_overtaken(machine):
    machine.up(confirm=True)
    machine.waits = True
    found = cache.read(machine.folder)

    with pytest.raises(HostagentError, match="not committed"):
        bring.bring(bring.Request("up", bridge="xapi5"), found, machine.host())


def test_what_a_killed_process_left_is_undone_first(machine):
    planned = plan(want(records(), ["upper"]), machine.kernel.look())
    journal.begin(machine.folder, planned, boot="boot-1", digest="", what="up the VLAN")
    machine.kernel.execute([step.do for step in planned.steps if step.do.verb.startswith("link")][:1])

    result = machine.up()

    assert result["told"] == ["undid what was left unfinished: up the VLAN"]
    assert attached(records(), machine.kernel.look()) == {"nic"}
    assert "xapi5" not in machine.kernel.look().by_name()


def test_no_answer_of_a_dhcp_server_is_degraded_after_the_deadline(machine):
    result = machine.up(which=records(ip_mode="DHCP", ip="", netmask="", gateway=""), timeout_s=20.0)

    if not machine.kernel.look().addresses:
        assert result["outcome"] == "degraded"
        assert result["told"] == ["no DHCP answer on xenbr0 after 20 s; the client goes on trying"]
    assert machine.now >= 20.0


def test_an_address_that_comes_in_time_ends_the_wait(machine):
    waited = machine.wait

    def answer(seconds):
        waited(seconds)
        index = machine.kernel.look().by_name()["xenbr0"].ifindex
        if machine.now > 3 and not machine.kernel.addresses:
            machine.kernel.addresses.append(Address(index, "192.0.2.77", 24))

    machine.wait = answer

    result = machine.up(which=records(ip_mode="DHCP", ip="", netmask="", gateway=""))

    assert result["outcome"] == "changed"
    assert 3 < machine.now < 5


@pytest.mark.parametrize("request_", [bring.Request("up", "nobody"), bring.Request("up", bridge="xenbr9")])
def test_an_unknown_pif_is_told_with_those_that_there_are(machine, request_):
    with pytest.raises(CallerError, match=r"known: .*(eth0|xenbr0)"):
        bring.bring(request_, cache.read(machine.folder), machine.host())


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


def no_daemon(*_, **__):
    raise ask.NotThereError("nobody listens", hint="")


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
    assert set(result) == set(bring.Result.__annotations__)
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
    assert asked == [("hostagent.net_reconfigure", "up", "OpaqueRef:1", 40.0)]


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
