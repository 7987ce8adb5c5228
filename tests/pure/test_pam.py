"""Log-in by password: who is what, how many are asked at a time, and what never reaches PAM."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hostagent.api import pam
from hostagent.api.pam import THREADS, Authenticator
from hostagent.api.roles import Role


def asked(user, password, *, right=True, role=Role.POOL_ADMIN):
    seen = []

    def check(user, password):
        seen.append((user, password))
        return right

    async def play():
        return await Authenticator(check, lambda _user: role)(user, password)

    return asyncio.run(play()), seen


def test_a_right_password_gives_the_users_role():
    assert asked("eve", "pw", role=Role.READ_ONLY) == (Role.READ_ONLY, [("eve", "pw")])


def test_a_wrong_password_or_a_user_of_no_group_gives_nothing():
    assert asked("eve", "pw", right=False) == (None, [("eve", "pw")])
    assert asked("eve", "pw", role=None) == (None, [("eve", "pw")])


@pytest.mark.parametrize(
    ("user", "password"), [("", "x"), ("a\0b", "x"), ("a", "x\0"), ("a" * 300, "x"), ("a", "x" * 2000)]
)
def test_what_can_be_no_log_in_never_reaches_pam(user, password):
    assert asked(user, password) == (None, [])


def test_only_a_few_passwords_are_checked_at_a_time():
    running, most, release = [0], [0], threading.Event()
    full = threading.Event()

    def check(_user, _password):
        running[0] += 1
        most[0] = max(most[0], running[0])
        if running[0] == THREADS:
            full.set()
        release.wait(10)
        running[0] -= 1
        return True

    async def play():
        authenticate = Authenticator(check, lambda _user: Role.READ_ONLY)
        waiting = [asyncio.create_task(authenticate("u", "p")) for _ in range(3 * THREADS)]
        await asyncio.to_thread(full.wait, 10)
        release.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(play()) == [Role.READ_ONLY] * (3 * THREADS)
    assert most[0] == THREADS


def test_users_are_looked_up_in_a_thread_and_threads_end():
    """A directory may be asked for them."""
    looked = []

    def role(_user):
        looked.append(threading.current_thread())
        return Role.READ_ONLY

    async def play():
        authenticate = Authenticator(lambda _user, _password: True, role)
        await authenticate("eve", "pw")
        authenticate.close()

    asyncio.run(play())
    (thread,) = looked
    assert thread is not threading.current_thread()
    thread.join(10)
    assert not thread.is_alive()


class Entry:
    pw_uid = 1000
    pw_gid = 100


@pytest.mark.parametrize(
    ("uid", "groups", "role"),
    [
        (0, (), Role.POOL_ADMIN),
        (1000, ("hostagent-admin", "hostagent-readonly"), Role.POOL_ADMIN),
        (1000, ("hostagent-readonly",), Role.READ_ONLY),
        (1000, ("sudo",), None),
    ],
)
def test_groups_decide_the_role(monkeypatch, uid, groups, role):
    entry = Entry()
    entry.pw_uid = uid
    monkeypatch.setattr("pwd.getpwnam", lambda _user: entry)
    monkeypatch.setattr("os.getgrouplist", lambda _user, _gid: [*range(len(groups)), 4711])

    def by_name(name):
        if name not in groups:
            raise KeyError(name)
        return type("G", (), {"gr_gid": groups.index(name)})()

    def by_number(number):
        if number == 4711:
            raise KeyError("a group without a name")
        return type("G", (), {"gr_name": groups[number]})()

    monkeypatch.setattr("grp.getgrnam", by_name)
    monkeypatch.setattr("grp.getgrgid", by_number)
    assert pam.role_of("u") is role


def test_an_unknown_user_has_no_role(monkeypatch):
    def missing(_user):
        raise KeyError

    monkeypatch.setattr("pwd.getpwnam", missing)
    assert pam.role_of("u") is None
