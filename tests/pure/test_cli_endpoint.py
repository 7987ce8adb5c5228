"""`POST /cli` over a real socket, byte by byte, by a client that is written here: what the stock xe would see."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.api import calls_session, cli_door
from hostagent.api.fault import CallError
from tests.pure.api_server import serve, talk
from tests.pure.test_xe_thincli import EXIT_0, EXIT_1, GREETING, PROMPT, print_, print_error

pytestmark = pytest.mark.usefixtures("quick_failures")


def request(*words, user="root", password="null"):  # noqa: S107 - what the stock client sends without one
    """What the stock client sends before it waits for the greeting."""
    body = "\n".join((*words, f"username={user}", f"password={password}"))
    head = f"POST /cli HTTP/1.0\r\nUser-agent: xe\r\noriginator: cli\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def run(paths, *words, kind="unix", look=lambda daemon: None, before=lambda daemon: None, **who):
    """What the client gets for a command whose words are these, and what `look` sees afterwards."""

    def play(daemon):
        before(daemon)
        return talk(daemon.socket, request(*words, **who) + GREETING), look(daemon)

    return serve(paths, play, kind=kind)


def sessions(daemon):
    with daemon.core.db.read() as view:
        return len(daemon.core.sessions), len(view.refs("session"))


def test_a_list_is_printed_and_nothing_of_http_is_seen(paths):
    assert run(paths, "host-list", "params=uuid", "--minimal") == (
        GREETING + print_("host-uuid") + EXIT_0,
        None,
    )


def test_the_session_of_a_command_ends_with_it(paths):
    _, left = run(paths, "pool-list", look=sessions)
    assert left == (0, 0)


def test_what_a_command_changes_is_in_the_database(paths):
    def name(daemon):
        with daemon.core.db.read() as view:
            return view.get("pool", view.the_only("pool"), "name_label")

    words = ("pool-param-set", "name-label=new", "uuid=")
    sent, seen = run(paths, *words[:2], f"uuid={uuid_of(paths)}", look=name)
    assert (sent, seen) == (GREETING + EXIT_0, "new")


def uuid_of(paths):
    sent, _ = run(paths, "pool-list", "params=uuid", "--minimal")
    return sent[len(GREETING) + 16 : -len(EXIT_0)].decode()


def test_over_another_listener_a_password_is_asked_for(paths):
    right, _ = run(paths, "host-list", "--minimal", kind="localhost", password="letmein")
    wrong, left = run(paths, "host-list", "--minimal", kind="localhost", look=sessions)

    assert right == GREETING + print_("host-uuid") + EXIT_0
    assert wrong == GREETING + print_error("Authentication failed\nFor usage run: 'xe help'\n") + EXIT_1
    assert left == (0, 0)


def test_a_role_that_does_not_do_is_an_error_of_the_command(paths):
    uuid = uuid_of(paths)
    words = ("pool-param-set", f"uuid={uuid}", "name-label=new")
    sent, _ = run(paths, *words, kind="localhost", user="eve", password="look")
    assert b"Your role does not allow this.\npermission: pool.set_name_label\n" in sent
    assert sent.endswith(EXIT_1)


def test_an_unknown_command_is_told(paths):
    sent, _ = run(paths, "host-lisp")
    told = "Unknown command: host-lisp\nDid you mean host-list?\nFor usage run: 'xe help'\n"
    assert sent == GREETING + print_error(told) + EXIT_1


def test_in_emergency_mode_only_commands_for_it_work(paths):
    def emergency(daemon):
        daemon.blocked = CallError("HOST_BROKEN")

    blocked, _ = run(paths, "host-list", before=emergency)
    asked, _ = run(paths, "host-is-in-emergency-mode", before=emergency)
    assert blocked == GREETING + print_error("The server refused this: HOST_BROKEN\n") + EXIT_1
    assert asked == GREETING + print_("true") + EXIT_0


def test_a_client_that_leaves_ends_its_command_and_its_session(paths):
    def play(daemon):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(daemon.socket))
            connection.sendall(request("pool-eject", "host-uuid=host-uuid") + GREETING)
            received = b""
            while not received.endswith(PROMPT):
                received += connection.recv(4096)
            asked = sessions(daemon)
        late = time.monotonic() + 20
        while sessions(daemon) != (0, 0) and time.monotonic() < late:
            pass
        assert sessions(daemon) == (0, 0)
        return asked, talk(daemon.socket, request("host-list", "--minimal") + GREETING)

    assert serve(paths, play) == ((1, 1), GREETING + print_("host-uuid") + EXIT_0)


def test_a_body_beyond_the_limit_is_refused_in_http(paths):
    head = b"POST /cli HTTP/1.0\r\ncontent-length: 999999\r\n\r\n"
    assert serve(paths, lambda daemon: talk(daemon.socket, head)).startswith(b"HTTP/1.1 413 ")


def test_whatever_comes_after_the_head_the_next_client_is_served(paths):
    def play(daemon):
        @given(st.binary(max_size=40), st.binary(max_size=60))
        @settings(max_examples=25)
        def nonsense(body, after):
            head = b"POST /cli HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(20)
                connection.connect(str(daemon.socket))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(head + body + after)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass

        nonsense()
        return talk(daemon.socket, request("host-list", "--minimal") + GREETING), sessions(daemon)

    sent, left = serve(paths, play)
    assert sent == GREETING + print_("host-uuid") + EXIT_0
    assert left == (0, 0)


def test_the_greeting_is_what_the_stock_client_wants():
    assert GREETING == b"XenSource thin CLI protocol" + struct.pack("<ii", 0, 2)


def test_wrong_passwords_take_no_thread_of_commands(paths, monkeypatch):
    """All of them wait for their late answer while a command of another client is run."""
    monkeypatch.setattr(calls_session, "FAILURE_DELAY_S", 3600.0)

    def play(daemon):
        with contextlib.ExitStack() as stack:
            for _ in range(cli_door.THREADS):
                one = stack.enter_context(socket.socket(socket.AF_UNIX))
                one.connect(str(daemon.socket))
                one.sendall(request("host-list", password="wrong") + GREETING)
            while len(calls_session._failures.get("", calls_session._Origin()).failures) < (
                calls_session.FAILURES
            ):
                pass
            return talk(daemon.socket, request("help", "nonsense") + GREETING)

    assert b"Unknown command: nonsense" in serve(paths, play, kind="localhost")


def test_a_command_that_never_starts_leaves_no_session(paths):
    """Its arguments are wrong, which is seen in its thread."""
    sent, left = run(paths, "pool-param-set", look=sessions)
    assert b"uuid" in sent
    assert left == (0, 0)
