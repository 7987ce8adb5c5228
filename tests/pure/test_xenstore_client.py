"""The client against a xenstored that misbehaves: each defect of stock pyxs (P1 to P12) stays cured."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import InvalidValueError
from hostagent.xen.xenstore import (
    Xenstore,
    XenstoreConflict,
    XenstoreDeadline,
    XenstoreDenied,
    XenstoreLost,
    XenstoreMissing,
    XenstoreProtocol,
    XenstoreQuota,
    XenstoreRefused,
    XenstoreUnavailable,
)
from hostagent.xen.xenstore_router import LAST_REQUEST_ID, Client, Router
from tests.pure import fake_xenstored as fake


@pytest.fixture
def daemon():
    server = fake.FakeXenstored()
    yield server
    server.close()


@pytest.fixture
def store(daemon):
    with daemon.store() as opened:
        yield opened


def soon() -> float:
    return time.monotonic() + 5


# P1: a call ends when the daemon does, whatever it was doing


def test_p1_a_connection_closed_in_mid_call_ends_the_call(daemon):
    daemon.on_request = lambda asked: daemon.hang_up() is None
    router = Router(daemon.dial())

    with pytest.raises(XenstoreLost):
        Client(router, soon()).read(b"domid")


def test_p1_a_reply_cut_short_by_the_daemons_death_ends_the_call(daemon):
    def half(asked):
        asked.sock.sendall(fake.packet(fake.READ, b"half a value", asked.rq)[:20])
        daemon.hang_up()
        return True

    daemon.on_request = half

    with pytest.raises(XenstoreLost):
        Client(Router(daemon.dial()), soon()).read(b"domid")


def test_p1_a_silent_daemon_ends_the_call_at_its_deadline_and_the_late_reply_is_dropped(daemon, store):
    daemon.nodes["/a"] = b"late"
    daemon.nodes["/b"] = b"next"
    held = daemon.hold("/a")

    with pytest.raises(XenstoreDeadline, match="read /a"):
        store.read("/a", deadline_s=0.02)
    daemon.answer(held[0])

    assert store.read("/b") == b"next"
    assert daemon.dials == 1


def test_p1_all_waiting_threads_learn_of_the_end(daemon, store):
    arrived = threading.Semaphore(0)

    def let_wait(asked):
        arrived.release()
        return True

    daemon.on_request = let_wait
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(Client(store._live_router(soon()), soon()).read, b"domid") for _ in range(4)]
        for _ in range(4):
            assert arrived.acquire(timeout=5)

        daemon.is_down = True
        daemon.hang_up()

        for call in waiting:
            assert isinstance(call.exception(timeout=5), XenstoreLost)


# P2, P3: long directories


def test_p2_a_directory_reply_over_4096_bytes_is_read(daemon, store):
    names = [str(uuid.UUID(int=number)) for number in range(300)]
    daemon.nodes |= {f"/big/{name}": b"" for name in names} | {"/big": b""}

    assert store.list("/big") == names
    assert [asked.op for asked in daemon.asked] == [fake.DIRECTORY]


def test_p3_a_directory_the_server_finds_too_long_is_read_in_parts(daemon, store):
    daemon.long_replies = False
    names = [str(uuid.UUID(int=number)) for number in range(300)]
    daemon.nodes |= {f"/big/{name}": b"" for name in names} | {"/big": b""}

    assert store.list("/big") == names
    assert [asked.op for asked in daemon.asked] == [fake.DIRECTORY, *[fake.DIRECTORY_PART] * 3]


def test_p3_a_directory_that_changes_between_two_parts_is_read_again(daemon, store):
    daemon.long_replies = False
    daemon.nodes |= {f"/big/{uuid.UUID(int=number)}": b"" for number in range(300)} | {"/big": b""}

    def change_once(asked):
        if asked.op == fake.DIRECTORY_PART and asked.words[1] != b"0" and daemon.generation == 1:
            daemon.generation = 2
            del daemon.nodes[f"/big/{uuid.UUID(int=0)}"]
        return False

    daemon.on_request = change_once

    assert store.list("/big") == [str(uuid.UUID(int=number)) for number in range(1, 300)]


def test_p3_a_directory_that_never_holds_still_is_a_conflict(daemon, store):
    daemon.long_replies = False
    daemon.nodes |= {f"/big/{uuid.UUID(int=number)}": b"" for number in range(300)} | {"/big": b""}

    def change(asked):
        daemon.generation += 1
        return False

    daemon.on_request = change

    with pytest.raises(XenstoreConflict):
        store.list("/big")


def test_p3_a_server_without_parts_is_a_clear_error_and_the_connection_lives(daemon, store):
    daemon.long_replies = False
    daemon.nodes |= {f"/big/{uuid.UUID(int=number)}": b"" for number in range(300)} | {"/big": b""}

    def no_parts(asked):
        if asked.op != fake.DIRECTORY_PART:
            return False
        asked.sock.sendall(fake.packet(fake.ERROR, b"ENOSYS\0", asked.rq))
        return True

    daemon.on_request = no_parts

    with pytest.raises(XenstoreQuota, match="list /big: E2BIG"):
        store.list("/big")
    assert store.read("domid") == b"0"


# P4: values are octets


@given(st.binary(max_size=2048))
def test_p4_every_value_comes_back_as_it_was_written(value):
    daemon = fake.FakeXenstored()
    with daemon.store() as store:
        store.write("/a", value)
        assert daemon.nodes["/a"] == value
        assert store.read("/a") == value
        assert store.read_many(["/a"]) == {"/a": value}
    daemon.close()


# P5, P6, P11: clients, routers and transactions are apart from one another


def test_p5_closing_one_client_leaves_the_others_their_connection(daemon):
    router = Router(daemon.dial())

    with Client(router, soon()) as first:
        first.read(b"domid")

    assert Client(router, soon()).read(b"domid") == b"0"
    router.end("done")


def test_p6_the_same_object_connects_again_when_the_daemon_is_back(daemon, store):
    assert store.read("domid") == b"0"
    daemon.is_down = True
    daemon.hang_up()
    with pytest.raises(XenstoreUnavailable) as caught:
        store.read("domid")
    assert "systemctl" in caught.value.hint or caught.value.hint

    daemon.is_down = False

    assert store.read("domid") == b"0"
    assert daemon.dials == 2


def test_p6_a_restart_between_two_calls_is_not_noticed_by_the_caller(daemon, store):
    store.write("/a", b"1")
    daemon.hang_up()

    store.write("/a", b"2")

    assert daemon.nodes["/a"] == b"2"


def test_p11_two_transactions_at_a_time_keep_apart(daemon, store):
    seen = []

    def outer(tx):
        tx.write("/outer", b"1")
        store.transact(lambda inner: inner.read("domid"))
        seen.append(store.read("/outer"))
        tx.read("domid")

    store.transact(outer)

    assert seen == [None]
    assert daemon.nodes["/outer"] == b"1"
    assert [asked.tx for asked in daemon.asked if asked.op == fake.END] == [2, 1]


def test_a_closed_store_says_so(daemon):
    store = daemon.store()
    store.close()
    store.close()

    with pytest.raises(XenstoreUnavailable, match="closed"):
        store.read("domid")


# P8, P9: request ids


def test_p8_each_of_many_threads_gets_its_own_replies_even_out_of_order(daemon, store):
    daemon.nodes |= {f"/n/{number}": str(number).encode() for number in range(400)}
    held = []

    def reverse_each_four(asked):
        held.append(asked)
        if len(held) == 4:
            while held:
                daemon.answer(held.pop())
        return True

    daemon.on_request = reverse_each_four
    with ThreadPoolExecutor(4) as pool:
        parts = [[f"/n/{number}" for number in range(start, 400, 4)] for start in range(4)]
        answers = list(pool.map(store.read_many, parts))

    assert [value for part in answers for value in part.values()] == [
        path.removeprefix("/n/").encode() for part in parts for path in part
    ]


def test_p9_request_ids_stay_in_32_bits_and_never_are_that_of_events(daemon):
    router = Router(daemon.dial(), first_id=LAST_REQUEST_ID - 1)
    client = Client(router, soon())

    assert [client.read(b"domid") for _ in range(4)] == [b"0"] * 4

    assert [asked.rq for asked in daemon.asked] == [LAST_REQUEST_ID - 1, LAST_REQUEST_ID, 1, 2]
    router.end("done")


def test_p9_an_id_still_waited_for_is_not_given_out_again(daemon):
    router = Router(daemon.dial(), first_id=LAST_REQUEST_ID)
    daemon.nodes |= {"/slow": b"slow", "/a": b"a", "/b": b"b"}
    held = daemon.hold("/slow")
    slow_came = router.post(fake.READ, b"/slow\0")
    router._next_id = LAST_REQUEST_ID - 1

    answers = [Client(router, soon()).read(path) for path in (b"/a", b"/b")]
    daemon.answer(held[0])
    Client(router, soon()).read(b"/a")

    assert answers == [b"a", b"b"]
    assert slow_came()
    assert [asked.rq for asked in daemon.asked] == [LAST_REQUEST_ID, LAST_REQUEST_ID - 1, 1, 2]
    router.end("done")


# P10: errors by name


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (b"ENOENT", XenstoreMissing),
        (b"EAGAIN", XenstoreConflict),
        (b"EQUOTA", XenstoreQuota),
        (b"ENOSPC", XenstoreQuota),
        (b"E2BIG", XenstoreQuota),
        (b"EACCES", XenstoreDenied),
        (b"EPERM", XenstoreDenied),
        (b"EROFS", XenstoreDenied),
        (b"EINVAL", XenstoreRefused),
        (b"EFUTURE", XenstoreRefused),
        (b"\xff\xfe", XenstoreRefused),
        (b"", XenstoreRefused),
    ],
)
def test_p10_an_error_is_told_by_its_name_with_path_and_hint(daemon, store, name, error):
    def refuse(asked):
        asked.sock.sendall(fake.packet(fake.ERROR, name + b"\0", asked.rq))
        return True

    daemon.on_request = refuse

    with pytest.raises(error, match="write /a") as caught:
        store.write("/a", b"")
    assert caught.value.hint


# P12: operations above 19


def test_p12_new_operations_can_be_asked_for(daemon):
    router = Router(daemon.dial())

    with pytest.raises(XenstoreRefused) as caught:
        Client(router, soon()).execute_command(23, b"\0")

    assert caught.value.name == "ENOSYS"
    assert daemon.asked[0].op == 23
    router.end("done")


# what else a connection may bring


@pytest.mark.parametrize(
    "nonsense",
    [
        fake.packet(99, b""),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        fake.packet(fake.WRITE, b"OK\0"),
        fake.packet(fake.WATCH_EVENT, b"no token"),
        fake.HEADER.pack(2, 1, 0, 2**32 - 1),
    ],
)
def test_nonsense_ends_the_connection_and_not_the_program(daemon, nonsense):
    daemon.on_request = lambda asked: not asked.sock.sendall(nonsense)

    with pytest.raises(XenstoreLost):
        Client(Router(daemon.dial()), soon()).read(b"domid")


def test_an_acknowledgement_that_is_none_is_a_protocol_error(daemon, store):
    daemon.on_request = lambda asked: not asked.sock.sendall(fake.packet(fake.WRITE, b"NO\0", asked.rq))

    with pytest.raises(XenstoreProtocol, match="NO"):
        store.write("/a", b"")


def test_over_the_device_a_request_waits_for_the_reply_to_the_last(daemon):
    daemon.nodes |= {f"/n/{number}": str(number).encode() for number in range(100)}
    open_requests = []

    def one_at_a_time(asked):
        open_requests.append(asked)
        asked.sock.settimeout(0)
        with pytest.raises(BlockingIOError):
            asked.sock.recv(1)
        asked.sock.settimeout(None)
        daemon.answer(asked)
        return True

    daemon.on_request = one_at_a_time
    with Xenstore(daemon.dial_device) as store:
        values = store.read_many([f"/n/{number}" for number in range(100)])

    assert list(values.values()) == [str(number).encode() for number in range(100)]
    assert len(open_requests) == 100


def test_over_the_device_a_missed_deadline_ends_the_connection(daemon):
    daemon.hold("/a")
    with Xenstore(daemon.dial_device) as store:
        with pytest.raises(XenstoreDeadline):
            store.read("/a", deadline_s=0.02)

        assert store.read("domid") == b"0"
    assert daemon.dials == 2


# the calls


def test_what_is_absent_is_none(store):
    assert store.read("/nope") is None
    assert store.list("/nope") is None
    assert store.tree("/nope") is None
    assert store.read_many(["/nope", "domid", "/nope"]) == {"/nope": None, "domid": b"0"}
    store.remove("/nope")


def test_permissions_of_what_is_absent_are_an_error(store):
    with pytest.raises(XenstoreMissing):
        store.permissions("/nope")
    with pytest.raises(XenstoreMissing):
        store.set_permissions("/nope", ["n0"])


def test_permissions_are_set_and_read(store):
    store.write("/a", b"")

    store.set_permissions("/a", ["n0", "r5", "b7"])

    assert store.permissions("/a") == ["n0", "r5", "b7"]


@pytest.mark.parametrize("entry", ["", "x0", "n", "n-1", "n0\n", "r 5"])
def test_a_permission_that_is_none_is_refused_before_it_is_sent(daemon, store, entry):
    with pytest.raises(InvalidValueError):
        store.set_permissions("/a", [entry])
    assert daemon.asked == []


def test_must_exist_passes_or_names_what_is_missing(store):
    store.must_exist("domid")
    with pytest.raises(XenstoreMissing, match="/local/domain/7"):
        store.must_exist("/local/domain/7")


def test_a_tree_comes_parents_first_and_whole(store):
    for path in ("/t/a/x", "/t/b", "/t/a/y"):
        store.write(path, path.encode())

    tree = store.tree("/t")

    assert [node.path for node in tree.nodes] == ["/t", "/t/a", "/t/a/x", "/t/a/y", "/t/b"]
    assert tree.nodes[2].value == b"/t/a/x"
    assert not tree.truncated


def test_a_subtree_that_vanishes_during_the_walk_is_left_out(daemon, store):
    for path in ("/t/a/x", "/t/b/x"):
        store.write(path, b"")

    def vanish(asked):
        if asked.op == fake.READ and asked.path == "/t/a/x":
            for name in [node for node in daemon.nodes if node.startswith("/t/a")]:
                del daemon.nodes[name]
        return False

    daemon.on_request = vanish

    assert [node.path for node in store.tree("/t").nodes] == ["/t", "/t/a", "/t/b", "/t/b/x"]


def test_a_tree_stops_at_its_bounds_and_says_so(store):
    for number in range(50):
        store.write(f"/t/{number}/x", b"")

    assert len(store.tree("/t", max_nodes=10).nodes) == 10
    assert store.tree("/t", max_nodes=10).truncated
    assert len(store.tree("/t", max_depth=1).nodes) == 51
    assert store.tree("/t", max_depth=1).truncated
    assert not store.tree("/t", max_depth=2).truncated


# transactions


def test_a_transaction_is_run_again_after_a_conflict(daemon, store):
    store.write("/n", b"1")
    tries = []

    def increment(tx):
        value = int(tx.read("/n"))
        tries.append(value)
        if len(tries) < 3:
            store.write("/n", str(value + 10).encode())
        tx.write("/n", str(value + 1).encode())
        return value + 1

    assert store.transact(increment) == 22
    assert tries == [1, 11, 21]
    assert daemon.nodes["/n"] == b"22"
    assert daemon.transactions == {}


def test_conflicts_without_end_are_an_error_after_the_retries(daemon, store):
    tries = []

    def always_late(tx):
        tries.append(1)
        store.write("/n", str(len(tries)).encode())
        tx.write("/m", b"")

    with pytest.raises(XenstoreConflict, match="9 conflicts"):
        store.transact(always_late)
    assert len(tries) == 9
    assert "/m" not in daemon.nodes


def test_a_transaction_whose_body_fails_changes_nothing_and_is_ended(daemon, store):
    def fails(tx):
        tx.write("/n", b"1")
        raise LookupError

    with pytest.raises(LookupError):
        store.transact(fails)

    assert "/n" not in daemon.nodes
    assert daemon.transactions == {}


def test_a_daemon_that_dies_in_a_transaction_ends_it_and_it_is_not_repeated(daemon, store):
    tries = []

    def body(tx):
        tries.append(1)
        daemon.hang_up()
        tx.write("/n", b"1")

    with pytest.raises(XenstoreLost):
        store.transact(body)
    assert tries == [1]
    assert store.read("domid") == b"0"


def test_a_transaction_nobody_answers_takes_its_connection_with_it(daemon, store):
    daemon.on_request = lambda asked: asked.op == fake.WRITE

    with pytest.raises(XenstoreDeadline):
        store.transact(lambda tx: tx.write("/n", b"1"), deadline_s=0.05)

    assert store.read("domid") == b"0"
    assert daemon.dials == 2


def test_a_start_of_a_transaction_that_comes_late_does_not_stay_open(daemon, store):
    daemon.on_request = lambda asked: asked.op == fake.START

    with pytest.raises(XenstoreDeadline):
        store.transact(lambda tx: None, deadline_s=0.05)

    assert store.read("domid") == b"0"
    assert daemon.dials == 2


@pytest.mark.parametrize("refusal", [b"EIO\0", None])
def test_a_transaction_that_cannot_be_ended_goes_with_its_connection_and_its_own_error_is_told(
    daemon, store, refusal
):
    def answer(asked):
        if asked.op != fake.END:
            return False
        if refusal is None:
            asked.sock.shutdown(socket.SHUT_RDWR)
        else:
            asked.sock.sendall(fake.packet(fake.ERROR, refusal, asked.rq))
        return True

    def fails(tx):
        raise LookupError

    daemon.on_request = answer

    with pytest.raises(LookupError):
        store.transact(fails)

    assert store.read("domid") == b"0"
    assert daemon.dials == 2
