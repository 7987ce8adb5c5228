"""`/cli` byte by byte: what a stock client sends is written by hand here, and so is what it must get."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostagent.db.database import open_database
from hostagent.xe import thincli, thinwire
from hostagent.xe.session import ApiError
from hostagent.xe.thinwire import ProtocolError
from tests.pure.xe_api import DatabaseApi, small_pool

GREETING = b"XenSource thin CLI protocol\x00\x00\x00\x00\x02\x00\x00\x00"
OK = b"\x08\x00\x00\x00\x0a\x00\x00\x00\x05\x00\x00\x00"
FAILED = b"\x08\x00\x00\x00\x0a\x00\x00\x00\x06\x00\x00\x00"
WAIT = b"\x08\x00\x00\x00\x0a\x00\x00\x00\x12\x00\x00\x00"
END = b"\x08\x00\x00\x00\x0b\x00\x00\x00\x08\x00\x00\x00"
EXIT_0 = b"\x0c\x00\x00\x00\x09\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00"
EXIT_1 = b"\x0c\x00\x00\x00\x09\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00"
PROMPT = b"\x08\x00\x00\x00\x09\x00\x00\x00\x03\x00\x00\x00"
CREDENTIALS = b"\nusername=root\npassword=null"


def chunk(data: bytes) -> bytes:
    return b"\x0c\x00\x00\x00\x0b\x00\x00\x00\x07\x00\x00\x00" + struct.pack("<i", len(data)) + data


def text_command(tag: int, text: str) -> bytes:
    data = struct.pack("<iii", 9, tag, len(text)) + text.encode()
    return struct.pack("<i", len(data)) + data


def print_(text: str) -> bytes:
    return text_command(0, text)


def print_error(text: str) -> bytes:
    return text_command(16, text)


class Writer:
    """Keeps what is written; from the `breaks`-th write on the client is gone."""

    def __init__(self, breaks: int = 1 << 30) -> None:
        self.sent = b""
        self.left = breaks

    def write(self, data: bytes) -> None:
        self.left -= 1
        if self.left < 0:
            raise ConnectionResetError
        self.sent += data

    async def drain(self) -> None:
        pass


class Server:
    """One database behind `/cli`; `talk` gives what the client gets for what it sends."""

    def __init__(self, db):
        self.api = DatabaseApi(db)
        self.logins = []

    @contextlib.contextmanager
    def log_in(self, user, password, local):
        self.logins.append((user, password, local))
        if password == "wrong":
            raise ApiError("SESSION_AUTHENTICATION_FAILED", (user,))
        yield self.api

    def talk(self, body: bytes, client: bytes, *, breaks: int = 1 << 30) -> bytes:
        async def conversation() -> bytes:
            reader, writer = asyncio.StreamReader(), Writer(breaks)
            reader.feed_data(client)
            reader.feed_eof()
            with ThreadPoolExecutor(1) as executor:
                await thincli.serve(body, reader, writer, self.log_in, executor)
            return writer.sent

        return asyncio.run(conversation())


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thin")
    db = open_database(folder / "state.db", folder / "volatile.db")
    small_pool(db)
    yield db
    db.close()


@pytest.fixture
def server(database):
    return Server(database)


def test_a_list_is_printed_and_the_client_told_to_exit(server):
    sent = server.talk(b"host-list\nparams=uuid\n--minimal" + CREDENTIALS, GREETING)
    assert sent == GREETING + print_("u-host") + EXIT_0
    assert server.logins == [("root", "null", False)]


def test_the_credentials_are_the_last_two_lines(server):
    server.talk(b"host-list\nusername=filter\nusername=me\npassword=a=b", GREETING)
    assert server.logins == [("me", "a=b", False)]


def test_an_error_goes_to_the_error_output_with_its_line_end(server):
    sent = server.talk(b"pif-param-get\nuuid=nope\nparam-name=MTU" + CREDENTIALS, GREETING)
    assert (
        sent == GREETING + print_error("There is no object with this uuid.\ntype: PIF\nuuid: nope\n") + EXIT_1
    )
    sent = server.talk(b"host-list\nusername=root\npassword=wrong", GREETING)
    assert sent == GREETING + print_error("Authentication failed\nFor usage run: 'xe help'\n") + EXIT_1


def test_an_error_without_words_goes_as_code_and_parameters(server):
    server.api.answers["host.get_all_records"] = ApiError("NEW_ERROR", ("a", "bc"))
    sent = server.talk(b"host-list" + CREDENTIALS, GREETING)
    error = (
        b"\x24\x00\x00\x00\x09\x00\x00\x00\x0e\x00\x00\x00"
        b"\x09\x00\x00\x00NEW_ERROR"
        b"\x02\x00\x00\x00\x01\x00\x00\x00a\x02\x00\x00\x00bc"
    )
    assert sent == GREETING + error + EXIT_1


def test_a_file_is_loaded_from_the_client(server):
    body = b"host-server-certificate-install\nhost-uuid=u-host\ncertificate=c\nprivate-key=k" + CREDENTIALS
    client = GREETING + OK + chunk(b"CE") + WAIT + chunk(b"RT") + END + WAIT + OK + END
    assert server.talk(body, client) == GREETING + text_command(1, "c") + text_command(1, "k") + EXIT_0
    assert server.api.acted[0][2:] == ("CERT", "", "")
    sent = server.talk(body, GREETING + FAILED)
    assert sent == GREETING + text_command(1, "c") + print_error("Error: c cannot be read\n") + EXIT_1


def test_a_question_is_printed_and_answered(server):
    body = b"pool-eject\nhost-uuid=u-host" + CREDENTIALS
    sent = server.talk(body, GREETING + chunk(b"yes") + END)
    assert sent.endswith(print_("Type 'yes' to continue") + PROMPT + EXIT_0)
    assert server.api.acted[0][0] == "pool.eject"
    sent = server.talk(body, GREETING + chunk(b"no\xff") + END)
    assert sent.endswith(PROMPT + print_error("Error: Aborted\n") + EXIT_1)


@pytest.mark.parametrize(
    "answer",
    [OK, chunk(b"yes"), chunk(b"yes") + OK, b"\x0c\x00", struct.pack("<i", -1), struct.pack("<i", 1 << 30)],
)
def test_a_client_that_answers_nonsense_does_nothing(server, answer):
    server.talk(b"pool-eject\nhost-uuid=u-host" + CREDENTIALS, GREETING + answer)
    assert server.api.acted == []


def test_a_file_that_never_ends_is_cut_off(server):
    body = b"host-server-certificate-install\nhost-uuid=u-host\ncertificate=c\nprivate-key=k" + CREDENTIALS
    sent = server.talk(body, GREETING + OK + chunk(b"x" * (1 << 19)) * 3 + END)
    assert b"Error: the client sends more than 1 MiB\n" in sent
    assert server.api.acted == []


@pytest.mark.parametrize(
    "greeting", [b"", b"GET / HTTP/1.0\r\n\r\n" * 5, GREETING[:-1], GREETING[:-8] + b"\x01" * 8]
)
def test_who_does_not_greet_gets_no_command_run(server, greeting):
    assert server.talk(b"host-list" + CREDENTIALS, greeting) == GREETING
    assert server.logins == []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "among the arguments are username= and password=; password= is missing"),
        (b"host-list", "among the arguments are username= and password=; password= is missing"),
        (b"host-list\npassword=x", "among the arguments are username= and password=; username= is missing"),
        (b"\xff" + CREDENTIALS, "the arguments are not UTF-8 (invalid start byte at byte 0)"),
        (b"x" * (200 << 10) + CREDENTIALS, "the arguments have 204828 bytes, more than 200 KiB"),
    ],
)  # fmt: skip
def test_a_wrong_body_is_told(server, body, error):
    assert server.talk(body, GREETING) == GREETING + print_error(f"Error: {error}\n") + EXIT_1
    assert server.logins == []


@pytest.mark.parametrize("breaks", [0, 1, 2])
def test_a_client_that_leaves_ends_its_command(server, breaks):
    sent = server.talk(b"host-list\n--minimal" + CREDENTIALS, GREETING, breaks=breaks)
    assert sent == (b"", GREETING, GREETING + print_("u-host"))[breaks]


def test_event_wait_ends_when_the_client_has_left(server):
    server.api.answers["event.from"] = {"token": "t", "events": []}
    server.talk(b"event-wait\nclass=host\nuuid=never" + CREDENTIALS, GREETING)
    assert [call[0] for call in server.api.acted] == ["event.from"]


class Frozen:
    """A client that sent these bytes and then nothing, with the connection open."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def readexactly(self, n: int) -> bytes:
        if len(self.data) < n:
            await asyncio.Event().wait()
        head, self.data = self.data[:n], self.data[n:]
        return head

    def at_eof(self) -> bool:
        return False


def test_a_client_that_says_nothing_is_given_up(server, monkeypatch):
    monkeypatch.setattr(thincli, "GREETING_S", 0.0)
    monkeypatch.setattr(thincli, "ANSWER_S", 0.0)

    async def conversation(data: bytes) -> bytes:
        writer = Writer()
        with ThreadPoolExecutor(1) as executor:
            body = b"pool-eject\nhost-uuid=u-host" + CREDENTIALS
            await thincli.serve(body, Frozen(data), writer, server.log_in, executor)
        return writer.sent

    assert asyncio.run(conversation(b"")) == GREETING
    assert server.api.acted == []


@given(
    st.binary(max_size=60) | st.lists(st.sampled_from([OK, FAILED, WAIT, END, chunk(b"yes")])).map(b"".join)
)
@example(struct.pack("<i", 0))
@example(struct.pack("<iii", 8, 10, 99))
@example(struct.pack("<iiii", 12, 11, 7, -1))
def test_any_bytes_of_the_client_end_cleanly(database, data):
    server = Server(database)
    server.api.answers["pool.eject"] = ""
    sent = server.talk(b"pool-eject\nhost-uuid=u-host" + CREDENTIALS, GREETING + data)
    assert sent.startswith(GREETING)
    agreed = data.replace(WAIT, b"").startswith(chunk(b"yes") + END)
    assert ("pool.eject" in [call[0] for call in server.api.acted]) is agreed


@given(st.binary(max_size=80))
def test_any_greeting_is_the_right_one_or_refused(database, data):
    server = Server(database)
    server.talk(b"help" + CREDENTIALS, data)
    assert server.logins == []


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda body: body + CREDENTIALS))
def test_any_body_is_arguments_or_refused(body):
    try:
        words, user, password = thinwire.arguments_of(body)
    except ProtocolError as error:
        assert str(error)  # noqa: PT017
        return
    lines = [line.removesuffix("\r") for line in body.decode().split("\n")]
    found = [*words, f"username={user}", f"password={password}"]
    assert sorted(found) == sorted(line for line in lines if line)


@pytest.mark.parametrize(
    "body",
    [
        b"vm-list\n--minimal\nusername=me\npassword=p",
        b"vm-list\r\n--minimal\r\nusername=me\r\npassword=p\r\n",
        b"username=me\npassword=p\nvm-list\n--minimal\n",
    ],
)
def test_lines_may_end_as_on_windows_and_credentials_come_anywhere(body):
    assert thinwire.arguments_of(body) == (["vm-list", "--minimal"], "me", "p")


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=80))
def test_any_message_is_known_or_refused(head, message):
    with contextlib.suppress(ProtocolError):
        assert 0 < thinwire.length_of(head) <= 64
    with contextlib.suppress(ProtocolError):
        assert thinwire.reply_of(message).length >= 0
