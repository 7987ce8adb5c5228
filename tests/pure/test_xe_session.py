"""How xe reaches a server: sessions over the local socket and over HTTP, and `hostagent xe` as a program."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import ssl
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent import cli
from hostagent.__main__ import main
from hostagent.api import client
from hostagent.cli import xe
from hostagent.errors import OperatorError
from hostagent.xe import session
from hostagent.xe.arguments import Options, UsageError
from hostagent.xe.session import ApiError, UnreachableError, connect, result_of, server_socket
from hostagent.xe.terminal import LocalTerminal, TerminalError


class Daemon:
    """Answers calls as the daemon does: `answers` by method, log-ins give the session `S`."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.answers: dict[str, object] = {}

    def __call__(self, _path: object, method: str, *params: object, timeout_s: float) -> object:
        assert timeout_s > 3600
        self.calls.append((method, *params))
        answer = self.answers.get(method, "S" if "login" in method else "")
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def daemon(monkeypatch):
    answering = Daemon()
    monkeypatch.setattr(client, "call", answering)
    return answering


def test_a_session_is_made_used_and_ended(daemon, tmp_path):
    daemon.answers["host.get_all"] = ["R"]
    with connect(Options(), tmp_path / "sock", local=False) as api:
        assert api.call("host.get_all") == ["R"]
    assert daemon.calls == [
        ("session.login_with_password", "root", "", "2.23", "hostagent-xe"),
        ("host.get_all", "S"),
        ("session.logout", "S"),
    ]


def test_an_emergency_session_is_local(daemon, tmp_path):
    with connect(Options(username="u", password="p"), tmp_path / "sock", local=True):
        pass
    assert daemon.calls == [
        ("session.slave_local_login_with_password", "u", "p"),
        ("session.local_logout", "S"),
    ]


def test_an_error_ends_the_session_too_and_a_failed_logout_is_no_error(daemon, tmp_path):
    daemon.answers["x.y"] = client.CallFailedError("x.y", "CODE", ("p",))
    daemon.answers["session.logout"] = client.NotRunningError("gone", hint="h")
    with pytest.raises(ApiError) as caught, connect(Options(), tmp_path / "sock", local=False) as api:
        api.call("x.y", 1)
    assert (caught.value.code, caught.value.params) == ("CODE", ("p",))
    assert daemon.calls[-1] == ("session.logout", "S")


@pytest.mark.parametrize(
    ("options", "path"),
    [
        (Options(), "/run/std"),
        (Options(server="127.0.0.1"), "/run/std"),
        (Options(server="127.0.0.1", port=443), "/run/std"),
        (Options(port=80), "/run/std"),
        (Options(server="localhost"), "/run/std"),
        (Options(server="/tmp/other"), "/tmp/other"),
        (Options(server="localhost", port=443), None),
        (Options(server="192.0.2.1"), None),
    ],
)
def test_which_server_is_a_socket(options, path, tmp_path):
    found = server_socket(options, type(tmp_path)("/run/std"))
    assert (str(found) if found else None) == path


# --- over HTTP: the connection is one end of a socket pair ---


class Peer:
    """Answers each request with the next of `replies` (status line to body), then closes."""

    def __init__(self, *replies: bytes) -> None:
        self.replies = list(replies)
        self.requests: list[dict[str, object]] = []
        self.heads: list[bytes] = []
        self.ours, self.theirs = socket.socketpair()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with self.theirs, self.theirs.makefile("rb") as stream:
            for reply in self.replies:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = stream.readline()
                    if not line:
                        return
                    head += line
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.heads.append(head)
                self.requests.append(json.loads(stream.read(length)))
                self.theirs.sendall(reply)


def answer(content: object, status: str = "200 OK") -> bytes:
    body = json.dumps(content).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def remote(monkeypatch):
    peers = []

    def prepare(*replies: bytes) -> Peer:
        peer = Peer(*replies)
        peers.append(peer)

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                self.sock = peer.ours

        monkeypatch.setattr(session, "_connection", lambda options: Connection(options.server))
        return peer

    yield prepare
    for peer in peers:
        peer.ours.close()
        peer.thread.join()


def test_another_host_is_called_over_one_connection(remote, tmp_path):
    peer = remote(answer({"result": "S"}), answer({"result": [1]}), answer({"result": ""}))
    options = Options(server="192.0.2.1", password="p", traceparent="00-abc")
    with connect(options, tmp_path, local=False) as api:
        assert api.call("host.get_all", "é") == [1]
    assert [(r["method"], r["params"]) for r in peer.requests] == [
        ("session.login_with_password", ["root", "p", "2.23", "hostagent-xe"]),
        ("host.get_all", ["S", "é"]),
        ("session.logout", ["S"]),
    ]
    assert b"POST /jsonrpc HTTP/1.1\r\n" in peer.heads[0]
    assert b"traceparent: 00-abc\r\n" in peer.heads[0]
    assert b"Content-Type: application/json\r\n" in peer.heads[0]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (answer({}, "404 Not Found"), "192.0.2.1 answered HTTP 404"),
        (answer(["no"]), "192.0.2.1 answered with something that is not JSON-RPC"),
        (b"", "192.0.2.1 cannot be reached: "),
        (b"SSH-2.0\r\n\r\n", "192.0.2.1 cannot be reached: "),
    ],
)
def test_what_is_no_xenapi_server_is_told(remote, tmp_path, reply, error):
    peer = remote(*([reply] if reply else []))
    if not reply:
        peer.thread.join()
    with (
        pytest.raises(UnreachableError) as caught,
        connect(Options(server="192.0.2.1"), tmp_path, local=False),
    ):
        pass
    assert caught.value.found.startswith(error)


@pytest.mark.parametrize(
    "error", [{"code": 1, "message": "HOST_IS_SLAVE", "data": ["192.0.2.2"]}, ["HOST_IS_SLAVE", "192.0.2.2"]]
)
def test_both_shapes_of_an_error_are_understood(error):
    with pytest.raises(ApiError) as caught:
        result_of(json.dumps({"error": error, "id": 1}).encode(), "h")
    assert (caught.value.code, caught.value.params) == ("HOST_IS_SLAVE", ("192.0.2.2",))


def test_a_result_beside_an_empty_error_is_a_result():
    assert result_of(b'{"result": 5, "error": null, "id": 1}', "h") == 5


KEYS = st.sampled_from(["error", "result", "message", "data", "code"])
ANSWERS = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)
)


@given(st.binary() | ANSWERS.map(lambda answer: json.dumps(answer).encode()))
def test_any_answer_is_a_result_an_error_or_refused(content):
    try:
        result_of(content, "h")
    except ApiError as error:
        assert isinstance(error.code, str)  # noqa: PT017
    except UnreachableError as error:
        assert error.hint  # noqa: PT017


def test_certificates_are_verified_unless_told_otherwise(tmp_path):
    def context(options: Options) -> ssl.SSLContext:
        made = session._connection(options)
        assert isinstance(made, http.client.HTTPSConnection)
        return made._context  # type: ignore[attr-defined,no-any-return]

    strict = context(Options(server="h"))
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    lax = context(Options(server="h", verify=False))
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)
    plain = session._connection(Options(server="[2001:db8::1]", nossl=True))
    assert (type(plain), plain.host, plain.port) == (http.client.HTTPConnection, "2001:db8::1", 80)
    assert session._connection(Options(server="h", port=8443)).port == 8443
    (tmp_path / "ca.pem").write_text("nonsense")
    for missing in ("ca.pem", "absent.pem"):
        with pytest.raises(UsageError, match="--ca"):
            session._connection(Options(server="h", ca=str(tmp_path / missing)))


def test_a_certificate_that_is_not_trusted_names_the_way_out():
    error = ssl.SSLCertVerificationError(1, "self-signed")
    error.verify_message = "self-signed certificate"
    told = session._unreachable(Options(server="h"), error)
    assert told.found == "the certificate of h is not trusted: self-signed certificate"
    assert "--ca FILE" in told.hint
    assert "--no-verify" in told.hint


# --- the program ---


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XE_EXTRA_ARGS", "XE_CA", "TRACEPARENT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_hostagent_xe_prints_what_the_daemon_answers(daemon, home, capsys):
    (home / ".xe").write_text("username=rc\n")
    (home / "pwf").write_text("me\nsecret\n")
    daemon.answers["pool.get_all_records"] = {"R": {"uuid": "u", "name_label": "n"}}
    assert main(["xe", "pool-list", "params=uuid", "--minimal"]) == 0
    assert capsys.readouterr() == ("u\n", "")
    assert daemon.calls[0][1] == "rc"
    assert main(["xe", "-pwf", str(home / "pwf"), "pool-list", "params=uuid", "--debug"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "uuid ( RO)    : u\n\n\n"
    assert "debug: pool.get_all_records (0 parameters): done\n" in shown.err
    assert daemon.calls[-3][1:3] == ("me", "secret")


def test_the_password_for_another_host_is_asked_for_at_a_terminal(home, monkeypatch, capsys, remote):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"asked:{prompt}")
    peer = remote(answer({"result": "S"}), answer({"result": {}}), answer({"result": ""}))
    assert main(["xe", "-s", "192.0.2.1", "host-list", "--minimal"]) == 0
    assert capsys.readouterr().out == "\n"
    assert peer.requests[0]["params"] == ["root", "asked:root@192.0.2.1: ", "2.23", "hostagent-xe"]


def test_hostagent_xe_without_a_daemon_says_so(home, capsys, tmp_path):
    assert main(["xe", "-s", str(tmp_path / "absent.sock"), "host-list"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: the daemon does not run")
    assert "\nhint: " in error


@pytest.mark.parametrize("words", [["-p", "x"], ["-pwf", "/nonexistent/pwf", "host-list"], ["nossl=x"]])
def test_hostagent_xe_refuses_wrong_options(home, words, capsys):
    assert main(["xe", *words]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.endswith("For usage run: 'xe help'\n")


@pytest.mark.parametrize("server", ["a b", "a\nb", "[]", "a\x7f"])
def test_what_is_no_server_is_refused(home, server, capsys):
    assert main(["xe", "-s", server, "-pw", "x", "host-list"]) == 1
    assert capsys.readouterr().err.startswith(f"a server is a name or an address, not {server!r}\n")


def test_an_error_without_words_is_printed_as_the_stock_client_does(daemon, home, capsys):
    daemon.answers["host.get_all_records"] = client.CallFailedError("m", "NEW", ("a", "b"))
    assert main(["xe", "host-list"]) == 1
    assert capsys.readouterr().err == "Error code: NEW\nError parameters: a, b\n"


def test_what_follows_xe_is_not_parsed_by_argparse():
    args = cli.parse(["xe", "--json", "-s", "h", "--multiple"])
    assert isinstance(args, argparse.Namespace)
    assert (args.words, args.json, args.handler) == (["--json", "-s", "h", "--multiple"], False, xe.run)


def test_hostagent_xe_is_a_program_of_its_own(home, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hostagent-xe", "help", "pif-plug"])
    assert xe.program() == 0
    assert "pif-plug" in capsys.readouterr().out


def test_the_rc_file_may_be_missing_or_binary(tmp_path):
    assert xe.rc_text(tmp_path / "none") == ""
    (tmp_path / "rc").write_bytes(b"a=\xff\n")
    assert xe.rc_text(tmp_path / "rc") == "a=\ufffd\n"


def test_the_local_terminal_reads_files_within_limits_and_asks(tmp_path, monkeypatch, capsys):
    terminal = LocalTerminal()
    (tmp_path / "f").write_bytes(b"x" * (1 << 20))
    assert len(terminal.read_file(str(tmp_path / "f"))) == 1 << 20
    (tmp_path / "f").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(TerminalError, match="larger than 1 MiB"):
        terminal.read_file(str(tmp_path / "f"))
    with pytest.raises(TerminalError, match="No such file"):
        terminal.read_file(str(tmp_path / "absent"))
    monkeypatch.setattr("builtins.input", lambda text: f"{text}yes")
    assert terminal.prompt("Sure?") == "Sure? yes"

    def ended(_text: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    with pytest.raises(TerminalError, match="nobody to ask"):
        terminal.prompt("Sure?")
    terminal.check()


def test_text_that_the_terminal_cannot_show_is_escaped(capsys):
    LocalTerminal().print("half \ud800")
    LocalTerminal().print_error("\udcff")
    assert capsys.readouterr() == ("half \\ud800\n", "\\udcff\n")


def test_errors_of_the_connection_are_the_operators():
    assert issubclass(UnreachableError, OperatorError)
