"""A change that the database has stays, also where its journal cannot be marked, and whoever comes next."""

from __future__ import annotations

import pytest

from hostagent.files import FileError
from hostagent.net import cache, journal
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.unfinished import state_of, unfinished
from hostagent.netctl.plug import Network, Site
from tests.pure.net_records import STATIC, Host
from tests.pure.startup_network import FakeHost

FULL = "no space left on device"


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def host():
    found = FakeHost()
    for number in range(2):
        found.kernel.nic(f"eth{number}", number + 2, up=True)
        mac = f"02:00:00:00:00:0{number}"
        found.kernel.links[number + 2].permanent_mac = found.kernel.links[number + 2].mac = mac
    return found


@pytest.fixture
def net(host, tmp_path):
    return Network(
        Site(
            open=lambda _: host.open(tmp_path),
            owners=lambda _: (),
            management=lambda: ("xenbr0", "IPv4"),
            set_management=lambda *_: None,
            serve=lambda *_: None,
            nics=lambda: (),
            has_bridge=lambda name: name in host.look().by_name(),
            ask=host.ask,
        )
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / cache.FOLDER


@pytest.fixture
def full(monkeypatch):
    """A disk that has no room for the mark that a change is over."""
    mark = journal.mark

    def marked(folder, left, state):
        if state == journal.COMMITTED:
            raise FileError(FULL, hint="df -h", number=28)
        return mark(folder, left, state)

    monkeypatch.setattr(journal, "mark", marked)


def records_of(**eth1):
    made = Host()
    made.nic("eth0", management=True, **STATIC)
    made.nic("eth1", **eth1)
    made.network("xapi0")
    return made.records("xenbr0")


BEFORE, AFTER = records_of(), records_of(currently_attached=True)


@pytest.mark.parametrize("told", [True, False])
def test_a_change_that_the_database_has_stays_where_the_disk_is_full(net, host, folder, full, told):
    """`told`: whether what the database says tells that it has it."""
    with net.bring_up(AFTER, ["eth1"], was=BEFORE if told else AFTER):
        pass

    assert journal.pending(folder) is None
    assert unfinished(host.open(folder.parent)) == ""
    assert "xenbr1" in host.look().by_name()


def test_the_bridge_of_an_internal_network_stays_where_the_disk_is_full(net, host, folder, full):
    with net.attach(BEFORE, "net-xapi0", was=BEFORE):
        pass

    assert unfinished(host.open(folder.parent)) == ""
    assert "xapi0" in host.look().by_name()


@pytest.mark.parametrize("removes", [True, False])
def test_a_journal_that_cannot_even_be_removed_is_kept_by_what_the_database_says(
    net, host, folder, full, monkeypatch, removes
):
    def fails(*_, **__):
        raise OSError(30, "Read-only file system")

    if not removes:
        monkeypatch.setattr(type(folder), "unlink", fails)

    with net.bring_up(AFTER, ["eth1"], was=BEFORE):
        pass

    left = journal.pending(folder)
    assert (left is None) is removes
    if left is not None:
        assert (left.state, left.digest) == (journal.APPLIED, state_of(AFTER))


def whole(folder, records):
    """A whole change that the database has, whose maker was killed before it could say so."""
    step = Step(
        Operation("link-add", "xapi8", 90, {"kind": "bridge"}), (Operation("link-del", "xapi8", 90, {}),)
    )
    left = journal.begin(folder, Plan((step,)), boot="boot-1", digest=state_of(records), what="up eth1")
    journal.mark(folder, left, journal.APPLIED)


@pytest.mark.parametrize("what", ["attach", "remove", "detach", "bring_up"])
def test_whatever_is_done_next_keeps_it(net, host, folder, what):
    host.kernel.one(Operation("link-add", "xapi8", 90, {"kind": "bridge"}))
    whole(folder, AFTER)

    if what == "remove":
        net.remove_bridges(["xapi0"], AFTER)
    elif what == "bring_up":
        with net.bring_up(AFTER, ["eth0"], was=AFTER):
            pass
    else:
        done = (
            net.attach(AFTER, "net-xapi0", was=AFTER) if what == "attach" else net.detach(AFTER, "net-xapi0")
        )
        with done:
            pass

    assert "xapi8" in host.look().by_name()
    assert journal.pending(folder) is None


# --- what the database says ---

BY_DHCP = {"ip_mode": "DHCP", "ipv6_mode": "DHCP"}
GIVEN = {"ip": "192.0.2.7", "netmask": "255.255.255.0", "gateway": "192.0.2.1", "dns": "192.0.2.2"}
GIVEN6 = {"ipv6": ("fd00::7/64",), "ipv6_gateway": "fe80::1"}


@pytest.mark.parametrize(
    ("modes", "given_"),
    [
        ({"ip_mode": "DHCP"}, GIVEN),
        ({"ipv6_mode": "Autoconf"}, GIVEN6),
        (BY_DHCP, {**GIVEN, **GIVEN6}),
        ({"ipv6_mode": "DHCP"}, {**GIVEN6, "dns": "fd00::53"}),
    ],
)
def test_what_a_server_or_a_router_gave_does_not_change_what_the_database_says(modes, given_):
    assert state_of(records_of(**modes)) == state_of(records_of(**modes, **given_))


@pytest.mark.parametrize("name", [*GIVEN, *GIVEN6, "ip_mode", "currently_attached", "management"])
def test_what_was_asked_for_does(name):
    static = {"ip_mode": "Static", "ipv6_mode": "Static", **GIVEN, **GIVEN6}
    other = {"ip_mode": "None", "ipv6": ("fd00::8/64",), "currently_attached": True, "management": True}

    assert state_of(records_of(**static)) != state_of(
        records_of(**static | {name: other.get(name, "fe80::9")})
    )


def test_a_network_that_was_given_another_name_says_the_same(net, folder):
    renamed = {ref: one._replace(name_label=f"{one.name_label}!") for ref, one in AFTER.networks.items()}
    after = AFTER._replace(networks=renamed)
    assert state_of(AFTER) == state_of(after)
    with net.bring_up(AFTER, ["eth1"], was=AFTER):
        pass

    with net.take_down(AFTER, ["eth1"], after=after):
        left = journal.pending(folder)

    assert left is not None
    assert left.digest == ""  # nothing tells whether the database has it: whoever finds it undoes it
