"""Logging in over a real database: passwords, pool secrets, limits on failures, who is sent to the coordinator."""

from __future__ import annotations

import asyncio

from hostagent.api import calls_session
from hostagent.api.core import Peer
from tests.pure.api_server import SECRET, authenticate
from tests.pure.xenapi_server import LOCAL, REMOTE


def test_a_wrong_password_is_refused_late_and_many_are_refused_without_asking(serve, monkeypatch):
    asked = []

    async def count(user, password):
        asked.append(user)
        return await authenticate(user, password)

    async def play(server):
        server.core.authenticate = count
        for _ in range(calls_session.FAILURES):
            error = await server.fails("session.login_with_password", "root", "wrong", peer=REMOTE)
            assert error[:2] == ["SESSION_AUTHENTICATION_FAILED", "root"]
        asked.clear()
        assert (await server.fails("session.login_with_password", "root", "letmein", peer=REMOTE))[0] == (
            "SESSION_AUTHENTICATION_FAILED"
        )
        assert asked == []
        assert await server.log_in(peer=Peer(address="192.0.2.8"))

    serve(play)


WRONG = ("session.login_with_password", "root", "wrong")


def test_a_flood_of_wrong_passwords_locks_nobody_else_out(serve, monkeypatch):
    """All wait for their late answer at once, from one network; PAM is left to others."""
    asking = {"now": 0, "most": 0}

    async def slowly(user, password):
        asking["now"] += 1
        asking["most"] = max(asking.values())
        await asyncio.sleep(0)
        asking["now"] -= 1
        return await authenticate(user, password)

    async def play(server):
        server.core.authenticate = slowly
        monkeypatch.setattr(calls_session, "FAILURE_DELAY_S", 3600.0)
        peers = [Peer(address=f"2001:db8::{number:x}") for number in range(1, 100)]
        flood = [asyncio.create_task(server.call(*WRONG, peer=peer)) for peer in peers]
        async with asyncio.timeout(30):
            while sum(len(origin.failures) for origin in calls_session._failures.values()) < (
                calls_session.FAILURES
            ):
                await asyncio.sleep(0)
            assert await server.log_in(peer=Peer(address="2001:db8:1::1"))
            assert await server.log_in(peer=REMOTE)
        for one in flood:
            one.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        assert asking["most"] <= calls_session.TURNS
        assert len(calls_session._failures["2001:db8::/64"].failures) < (
            calls_session.FAILURES + calls_session.TURNS
        )

    serve(play)


def test_wrong_pool_secrets_are_counted_too(serve):
    async def play(server):
        for _ in range(calls_session.FAILURES + 5):
            await server.fails("session.slave_local_login", "wrong", peer=REMOTE)
        assert len(calls_session._failures[REMOTE.address].failures) == calls_session.FAILURES
        assert (await server.fails("session.slave_local_login", SECRET, peer=REMOTE))[0] == (
            "SESSION_AUTHENTICATION_FAILED"
        )

    serve(play)


def test_who_leaves_before_the_answer_has_failed(serve):
    async def never(_user, _password):
        await asyncio.Event().wait()

    async def play(server):
        server.core.authenticate = never
        for _ in range(calls_session.FAILURES):
            one = asyncio.create_task(server.call(*WRONG, peer=REMOTE))
            await asyncio.sleep(0)
            one.cancel()
            await asyncio.gather(one, return_exceptions=True)
        assert (await server.fails(*WRONG, peer=REMOTE))[0] == "SESSION_AUTHENTICATION_FAILED"

    serve(play)


def test_of_a_long_originator_the_beginning_is_kept(serve):
    async def play(server):
        session = await server.log_in("eve", "1.0", "o" * 100_000, peer=REMOTE)
        kept = await server.call("session.get_originator", session, session)
        assert kept == "o" * calls_session.ORIGINATOR_CHARACTERS

    serve(play)


def test_old_failures_are_forgotten(serve, monkeypatch):
    async def play(server):
        monkeypatch.setattr(calls_session, "FAILURES_WITHIN_S", 0.0)
        for number in range(1, 20):
            await server.fails(*WRONG, peer=Peer(address=f"192.0.2.{number}"))
        assert len(calls_session._failures) == 1

    serve(play)


def test_a_member_sends_log_ins_to_its_coordinator_but_not_those_of_its_own_root(serve):
    async def play(server):
        server.core.coordinator = lambda: "192.0.2.1"
        assert await server.fails("session.login_with_password", "root", "letmein", peer=REMOTE) == [
            "HOST_IS_SLAVE",
            "192.0.2.1",
        ]
        assert await server.call("session.login_with_password", "", "", peer=LOCAL)

    serve(play)


def test_the_pool_secret_opens_sessions_of_the_pool(serve):
    async def play(server):
        session = await server.call("session.slave_login", server.host, SECRET, peer=REMOTE)
        assert await server.call("session.get_pool", session, session) is True
        assert (await server.fails("session.slave_login", server.host, "wrong", peer=REMOTE))[0] == (
            "SESSION_AUTHENTICATION_FAILED"
        )

    serve(play)
