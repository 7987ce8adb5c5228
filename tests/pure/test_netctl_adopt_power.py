"""A takeover or a release that loses power anywhere: after the boot the card is wholly ours or wholly theirs."""

from __future__ import annotations

import contextlib
import copy
import shutil

import pytest

from hostagent.net import apply, bring, early, journal
from hostagent.net.adopt_files import CLOUD_FILE
from hostagent.netctl import adopt
from hostagent.netctl.adopt import take
from hostagent.netctl.adopt_back import release
from hostagent.netctl.adopt_place import Request, notes
from tests.pure import adopt_host
from tests.pure.adopt_host import INTERFACES, LEASE, MAC, Host, Killed

MOST = 60
"""More points than there are."""


def networkd(folder, database):
    return cloudy(Host(folder, database).networkd())


def by_dhcp(folder, database):
    return cloudy(adopt_host.by_dhcp(folder, database))


def ifupdown(folder, database):
    found = Host(folder, database)
    found.put("/etc/network/interfaces", INTERFACES.replace("lo eth0", "lo") + "source interfaces.d/*\n")
    found.put("/etc/network/interfaces.d/start", "auto eth0\n")
    return cloudy(found)


def network_manager(folder, database):
    return Host(folder, database).network_manager()


def cloudy(host):
    """cloud-init has written a file that names the card."""
    host.put("/etc/cloud/cloud.cfg", "datasource_list: [ NoCloud ]\n")
    host.put(
        "/etc/netplan/50-cloud-init.yaml",
        f"network: {{ethernets: {{eth0: {{match: {{macaddress: {MAC}}}}}}}}}\n",
    )
    return host


HOSTS = [networkd, by_dhcp, ifupdown, network_manager]


@contextlib.contextmanager
def fresh(tmp_path, number, made):
    folder = tmp_path / str(number)
    with adopt_host.stock(folder) as site:
        yield made(folder, site.db)


def power_cut(host, number, work, monkeypatch):
    """Whether the work was cut off at this point: nothing of ours ran any more, not even what is to undo."""

    def dead(*_):
        raise Killed

    host.points, host.kill_after = [], number
    try:
        with monkeypatch.context() as patched:
            patched.setattr(adopt._Taking, "undo", dead)
            patched.setattr(apply, "_back", dead)
            work()
    except Killed:
        return True
    finally:
        host.kill_after = -1
    return False


def booted(host, kernel):
    """The next boot: the kernel knows only the card, /run is empty, and no daemon was told anything yet."""
    host.boot, host.kernel, host.clients, host.said = "next boot", copy.deepcopy(kernel), {}, []
    host.armed = 0.0
    for folder in ("run/systemd", "run/NetworkManager"):
        shutil.rmtree(host.root / folder, ignore_errors=True)


def theirs_at_next_boot(host, kernel, number):
    """Whose the card is then; nothing waits, and no daemon was told anything."""
    booted(host, kernel)
    early.recover(host.open(""))
    assert host.pending() is None, number
    assert host.said == [], number
    return bool(host.at_boot())


def lasting(host):
    """Every file of the host and of ours that a takeover touches, but the inventory."""
    kept = {
        str(file.relative_to(host.state)): file.read_text()
        for folder in ("net/adopted", "net/client-ids")
        for file in (host.state / folder).glob("*")
    }
    return {**host.files(), **kept, "etc/hostagent/inventory": ""}


def whole(host):
    """Whether the host is adopted with every file of it."""
    (note,) = notes(host.state)
    files = [change for change in note.files if not change.path.startswith("/run/")]
    return all(host.files().get(change.path.lstrip("/")) == change.after for change in files)


@pytest.mark.parametrize("made", HOSTS)
def test_takeover_without_power_is_wholly_ours_or_wholly_theirs_after_the_boot(tmp_path, made, monkeypatch):
    seen = []
    for number in range(1, MOST):
        with fresh(tmp_path, number, made) as host:
            before, kernel, inventory = lasting(host), copy.deepcopy(host.kernel), host.inventory.read_text()
            if not power_cut(host, number, lambda host=host: take(host.place, Request("eth0")), monkeypatch):
                break
            theirs = theirs_at_next_boot(host, kernel, number)
            seen.append(theirs)
            if not theirs:
                assert whole(host), number
                assert "'xenbr0'" in host.inventory.read_text()
                continue
            assert lasting(host) == before, number
            assert host.inventory.read_text() == inventory, number
            if made is by_dhcp:
                host.put("/run/systemd/netif/leases/2", LEASE)
            take(host.place, Request("eth0"))
            assert whole(host), number
            release(host.place, Request())
            assert lasting(host) == before, number
    assert number < MOST - 1
    assert sorted(seen, reverse=True) == seen
    assert set(seen) == {True, False}


@pytest.mark.parametrize("made", HOSTS)
def test_release_without_power_is_wholly_ours_or_wholly_theirs_after_the_boot(tmp_path, made, monkeypatch):
    seen = []
    for number in range(1, MOST):
        with fresh(tmp_path, number, made) as host:
            before, kernel = lasting(host), copy.deepcopy(host.kernel)
            take(host.place, Request("eth0"))
            ours = lasting(host)
            if not power_cut(host, number, lambda host=host: release(host.place, Request()), monkeypatch):
                break
            theirs = theirs_at_next_boot(host, kernel, number)
            seen.append(theirs)
            assert lasting(host) == (before if theirs else ours), number
    assert number < MOST - 1
    assert sorted(seen) == seen
    assert set(seen) == {True, False}


def cut_at(host, point, work, monkeypatch):
    """Cut off where a point of this name comes first."""
    hold = host._hold

    def ended(name):
        if point in name:
            raise Killed
        hold(name)

    def dead(*_):
        raise Killed

    kernel = copy.deepcopy(host.kernel)
    with monkeypatch.context() as patched:
        patched.setattr(host, "_hold", ended)
        patched.setattr(adopt._Taking, "undo", dead)
        patched.setattr(apply, "_back", dead)
        with pytest.raises(Killed):
            work()
    booted(host, kernel)


def test_next_takeover_resolves_it_first_so_that_its_note_has_every_file(tmp_path, monkeypatch):
    """With no boot of ours between: cloud-init's file is of the takeover that was cut off, and not as it was before."""
    with fresh(tmp_path, 1, networkd) as host:
        before = lasting(host)
        cut_at(host, "wrote /etc/cloud", lambda: take(host.place, Request("eth0")), monkeypatch)
        assert CLOUD_FILE[1:] in host.files()

        told = take(host.place, Request("eth0"))["told"]

        assert [one.startswith("undid what was left unfinished: adopt eth0") for one in told] == [True]
        (note,) = notes(host.state)
        assert CLOUD_FILE in [one.path for one in note.files]
        assert all(one.before is None for one in note.files)
        release(host.place, Request())
        assert lasting(host) == before


def test_undo_by_hand_after_the_boot_keeps_what_was_decided(tmp_path, monkeypatch):
    with fresh(tmp_path, 1, networkd) as host:
        cut_at(
            host,
            "wrote /etc/systemd/network/00-hostagent-eth0.n",
            lambda: take(host.place, Request("eth0")),
            monkeypatch,
        )
        assert not whole(host)

        result = bring.undo(host.open(""))

        assert result["outcome"] == "confirmed"
        assert result["told"][0].startswith(
            "kept, as the power went after it was decided: adopt eth0; carried on"
        )
        assert whole(host)
        assert bring.undo(host.open(""))["outcome"] == "nothing"


def test_file_that_cannot_be_written_leaves_it_to_the_next_try(tmp_path, monkeypatch):
    with fresh(tmp_path, 1, networkd) as host:
        cut_at(
            host,
            "wrote /etc/systemd/network/00-hostagent-eth0.n",
            lambda: take(host.place, Request("eth0")),
            monkeypatch,
        )
        in_the_way = host.root / "etc/systemd/system/systemd-networkd-wait-online.service.d"
        in_the_way.write_text("")

        (told,) = early.recover(host.open(""))

        assert "was not resolved" in told
        assert host.pending().state == journal.APPLIED
        in_the_way.unlink()
        early.recover(host.open(""))
        assert whole(host)
        assert host.pending() is None
