"""Watches: events, the bounded queue, and what the watcher learns when the daemon goes and comes."""

from __future__ import annotations

import time

import pytest

from hostagent.xen import xenstore_watch
from hostagent.xen.xenstore import InvalidPath, XenstoreDeadline, XenstoreQuota, XenstoreUnavailable
from hostagent.xen.xenstore_watch import QUEUE_EVENTS, Changed, Resync, ResyncReason, Watcher
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


def drain(watch):
    """All events until the queue is empty."""
    events = []
    while (event := watch.wait(0.02)) is not None:
        events.append(event)
    return events


def test_a_new_watch_tells_once_of_its_own_path_and_then_of_changes_below(store):
    with store.watch("/w") as watch:
        assert watch.wait(5) == Changed("/w")

        store.write("/w/a", b"1")

        assert watch.wait(5) == Changed("/w/a")
        assert watch.wait(0.01) is None


def test_several_paths_share_one_queue_and_other_watches_have_their_own(store):
    with store.watch("@introduceDomain", "@releaseDomain") as domains, store.watch("/w") as other:
        assert {domains.wait(5), domains.wait(5)} == {Changed("@introduceDomain"), Changed("@releaseDomain")}
        assert other.wait(5) == Changed("/w")
        assert domains.wait(0.01) is None


def test_a_closed_watch_is_forgotten_by_the_daemon(daemon, store):
    store.watch("/w").close()

    assert daemon.watches == []


def test_requests_and_watches_have_connections_of_their_own(daemon, store):
    store.read("domid")
    with store.watch("/w"), store.watch("/v"):
        assert daemon.dials == 2


def test_a_path_that_is_none_is_refused_before_it_is_sent(daemon, store):
    with pytest.raises(InvalidPath):
        store.watch("/w/")
    assert daemon.asked == []


def test_a_refused_watch_is_an_error_and_leaves_nothing(daemon, store):
    daemon.on_request = lambda asked: (
        asked.op == fake.WATCH
        and asked.path == "/no"
        and asked.sock.sendall(fake.packet(fake.ERROR, b"EQUOTA\0", asked.rq)) is None
    )

    with pytest.raises(XenstoreQuota):
        store.watch("/yes", "/no")
    assert daemon.watches == []


def test_more_events_than_the_queue_holds_become_one_resync(daemon, store):
    with store.watch("/w") as watch, store.watch("/end") as end:
        for _ in range(QUEUE_EVENTS):
            daemon.fire("/w/x")
        daemon.fire("/end/1")
        while end.wait(5) != Changed("/end/1"):
            pass

        assert drain(watch) == [Resync(ResyncReason.OVERFLOW)]

        daemon.fire("/w/after")
        assert watch.wait(5) == Changed("/w/after")


def test_after_a_restart_the_watches_stand_again_and_a_resync_says_so(daemon, store):
    with store.watch("/w", "/v") as watch:
        watch.wait(5)
        watch.wait(5)

        daemon.hang_up()

        assert watch.wait(5) == Resync(ResyncReason.RECONNECTED)
        drain(watch)
        daemon.fire("/v/a")
        assert watch.wait(5) == Changed("/v/a")


def test_a_dead_daemon_is_an_error_at_the_deadline_of_the_wait(daemon, store):
    with store.watch("/w") as watch:
        drain(watch)
        daemon.is_down = True
        daemon.hang_up()

        with pytest.raises(XenstoreUnavailable, match="not watching /w"):
            watch.wait(0.3)
        with pytest.raises(XenstoreUnavailable):
            store.watch("/v")

        daemon.is_down = False
        assert watch.wait(5) == Resync(ResyncReason.RECONNECTED)


def test_a_watch_registered_again_that_the_daemon_refuses_is_tried_until_it_stands(daemon, store):
    with store.watch("/w") as watch:
        drain(watch)
        refusals: list[fake.Asked] = []

        def refuse_twice(asked):
            if asked.op == fake.WATCH and len(refusals) < 2:
                refusals.append(asked)
                asked.sock.sendall(fake.packet(fake.ERROR, b"EQUOTA\0", asked.rq))
                return True
            return False

        daemon.on_request = refuse_twice
        daemon.hang_up()

        assert watch.wait(5) == Resync(ResyncReason.RECONNECTED)
        assert len(refusals) == 2


def test_a_frozen_daemon_is_noticed_by_its_silence(daemon):
    watcher = Watcher(daemon.dial, 0.2, idle_s=0.05)
    watch = watcher.add(("/w",), time.monotonic() + 5)
    watch.wait(5)
    daemon.on_request = lambda asked: True

    with pytest.raises(XenstoreUnavailable):
        watch.wait(0.5)
    watcher.close()


def test_an_idle_daemon_that_answers_is_not_taken_for_dead(daemon):
    watcher = Watcher(daemon.dial, 5, idle_s=0.02)
    watch = watcher.add(("/w",), time.monotonic() + 5)

    assert watch.wait(5) == Changed("/w")
    assert watch.wait(0.3) is None
    assert daemon.dials == 1
    assert sum(asked.op == fake.READ for asked in daemon.asked) >= 2
    watcher.close()


def test_over_the_device_a_watch_is_only_set_when_the_daemon_answers(daemon):
    watcher = Watcher(daemon.dial_device, 5)
    daemon.hold("domid")

    with pytest.raises(XenstoreDeadline):
        watcher.add(("/w",), time.monotonic() + 0.05)

    assert fake.WATCH not in [asked.op for asked in daemon.asked]
    watcher.close()


def test_over_the_device_a_watch_is_only_closed_when_the_daemon_answers(daemon, monkeypatch):
    monkeypatch.setattr(xenstore_watch, "UNWATCH_S", 0.05)
    watcher = Watcher(daemon.dial_device, 5)
    watch = watcher.add(("/w",), time.monotonic() + 5)
    daemon.hold("domid")
    daemon.is_down = True

    watch.close()

    assert fake.UNWATCH not in [asked.op for asked in daemon.asked]
    with pytest.raises(XenstoreUnavailable):
        drain(watch)
    watcher.close()


def test_over_the_device_a_closed_watch_is_forgotten_by_a_daemon_that_answers(daemon):
    watcher = Watcher(daemon.dial_device, 5)

    watcher.add(("/w",), time.monotonic() + 5).close()

    assert daemon.watches == []
    watcher.close()


def test_closing_the_store_ends_a_wait_and_the_thread(store):
    watch = store.watch("/w")
    thread = store._watcher._thread

    store.close()

    drain_error = pytest.raises(XenstoreUnavailable, match="closed")
    with drain_error:
        drain(watch)
    assert not thread.is_alive()


def test_closing_while_the_daemon_is_down_ends_the_thread(daemon, store):
    watch = store.watch("/w")
    thread = store._watcher._thread
    daemon.is_down = True
    daemon.hang_up()
    drain_error = pytest.raises(XenstoreUnavailable)
    with drain_error:
        drain(watch)

    store.close()

    assert not thread.is_alive()
