"""A card is taken over and given back; what fails, is killed or loses power leaves a host that answers."""

from __future__ import annotations

import json

import pytest

from hostagent.errors import BusyError, HostagentError
from hostagent.files import FileError
from hostagent.net import apply, cache, history
from hostagent.net.adopt import AlreadyAdoptedError
from hostagent.net.adopt_files import CannotAdoptError
from hostagent.net.apply import RolledBackError
from hostagent.net.reachable import LostError
from hostagent.net.reconfigure import text_of
from hostagent.net.unfinished import state_of, unfinished
from hostagent.netctl import adopt, adopt_objects
from hostagent.netctl.adopt import take
from hostagent.netctl.adopt_back import release
from hostagent.netctl.adopt_place import NotAdoptedError, Request
from tests.pure import adopt_host
from tests.pure.adopt_host import INTERFACES, Host, Killed

SWITCH = "etc/systemd/network/00-hostagent-eth0.network"


@pytest.fixture
def site(tmp_path):
    with adopt_host.stock(tmp_path) as found:
        yield found


@pytest.fixture
def host(tmp_path, site):
    return Host(tmp_path, site.db).networkd()


@pytest.fixture
def dhcp(tmp_path, site):
    return adopt_host.by_dhcp(tmp_path, site.db)


def pif(site):
    return site.record("PIF", site.pifs[0])


def told(host):
    """What the history has, newest first: what, outcome, and how many operations took how long at all."""
    entries = history.read(host.state / "net")
    return [
        (one.what, one.outcome, len(one.steps), any(s.milliseconds for s in one.steps)) for one in entries
    ]


def adopted(host):
    return {("xenbr0", "192.0.2.10", 24)} == host.addresses()


def test_static_address_moves_without_a_moment_off(host, site):
    result = take(host.place, Request("eth0"))
    assert result["outcome"] == "changed"
    assert host.kernel.without == 0
    assert adopted(host)
    assert host.routes() == {("xenbr0", "default4", "192.0.2.1")}
    assert host.kernel.look().by_name()["eth0"].master == host.kernel.look().by_name()["xenbr0"].ifindex
    record = pif(site)
    assert (record["ip_configuration_mode"], record["IP"], record["netmask"], record["gateway"], record["DNS"]) == (
        "Static", "192.0.2.10", "255.255.255.0", "192.0.2.1", "192.0.2.53")  # fmt: skip
    assert record["management"] is True
    assert record["currently_attached"] is True
    assert host.management == ("xenbr0", "IPv4")
    found = cache.read_verified(host.state / "net")
    assert found is not None
    assert found.records.bridge == "xenbr0"
    assert found.records.pifs[site.pifs[0]].ip == "192.0.2.10"
    assert host.pending() is None
    assert host.armed == 0.0
    assert host.at_boot() == []


def test_daemon_lets_go_only_after_the_address_has_moved_and_ours_is_enabled(host):
    take(host.place, Request("eth0"))
    assert [what for _, what, _ in host.said] == ["reload", "let-go"]
    assert "Unmanaged=yes" in host.files()[SWITCH]


def test_networkmanager_lets_go_before_the_address_moves_as_it_puts_back_what_is_taken(tmp_path, site):
    host = Host(tmp_path, site.db).network_manager()
    verbs = [one["verb"] for one in take(host.place, Request("eth0"))["operations"]]

    assert host.said == [("NetworkManager", "reload", "eth0")]
    assert verbs.index("foreign") < min(
        verbs.index(verb) for verb in ("link-add", "address-add", "address-del")
    )
    names = (
        "run/NetworkManager/conf.d/00-hostagent-eth0.conf",
        "etc/NetworkManager/conf.d/00-hostagent-eth0.conf",
    )
    assert all("interface-name:eth0;" in (host.root / name).read_text() for name in names)
    assert adopted(host)
    (host.root / names[0]).unlink()
    assert host.at_boot() == []

    assert release(host.place, Request())["outcome"] == "changed"
    assert host.at_boot() == ["NetworkManager"]
    assert not any((host.root / name).exists() for name in names)
    assert host.said[1:] == [("NetworkManager", "take", "eth0")]
    assert host.addresses() == {("eth0", "192.0.2.10", 24)}


def test_both_are_in_the_history_with_the_time_of_each_operation(host):
    taken = take(host.place, Request("eth0"))
    back = release(host.place, Request())
    assert told(host) == [
        ("release eth0 to systemd-networkd", "changed", len(back["operations"]), True),
        ("adopt eth0 from systemd-networkd", "changed", len(taken["operations"]), True),
    ]
    assert all(one["milliseconds"] is not None for one in back["operations"])


def test_operations_name_devices_and_show_no_content_of_files(host):
    result = take(host.place, Request("eth0", dry_run=True))
    assert [one["args"]["master"] for one in result["operations"] if "master" in one["args"]] == ["xenbr0"]
    text = text_of(result)
    assert "master=xenbr0" in text
    (note,) = [one for one in result["operations"] if one["args"].get("path", "").endswith("eth0.json")]
    assert f"path={note['args']['path']} size={len(note['args']['content'])}\n" in text
    assert note["args"]["content"] not in text


def test_dry_run_changes_nothing(host, site):
    before = (host.files(), host.addresses(), site.everything())
    result = take(host.place, Request("eth0", dry_run=True))
    assert (host.files(), host.addresses(), site.everything()) == before
    assert result["outcome"] == "planned"
    assert not host.said
    assert "address-add" in [operation["verb"] for operation in result["operations"]]
    assert "/" + SWITCH in result["files"]


def test_card_with_the_default_route_is_meant_when_none_is_named(host):
    assert take(host.place, Request())["what"] == "adopt eth0 from systemd-networkd"


def test_dhcp_address_is_carried_along_until_the_client_has_it(dhcp):
    take(dhcp.place, Request("eth0"))
    assert dhcp.kernel.without == 0
    assert adopted(dhcp)
    assert dhcp.routes() == {("xenbr0", "default4", "192.0.2.1")}
    (moved,) = dhcp.kernel.look().addresses
    assert moved.valid_s == 3000
    assert ("xenbr0", 4) in dhcp.clients
    kept = json.loads((dhcp.state / "net/client-ids/xenbr0.json").read_text())
    assert kept == {"client_id": "ff:00:01:02:03", "request": "192.0.2.10"}


@pytest.mark.parametrize("given", ["", "192.0.2.99"])
def test_other_address_or_none_from_the_server_undoes_all(dhcp, site, given):
    before = (dhcp.files(), dhcp.addresses(), dhcp.routes())
    dhcp.given = given
    with pytest.raises(HostagentError):
        take(dhcp.place, Request("eth0"))
    assert (dhcp.files(), dhcp.addresses(), dhcp.routes()) == before
    assert pif(site)["ip_configuration_mode"] == "None"
    assert not dhcp.clients
    assert dhcp.armed == 0.0


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        ("", "no DHCP server offers anything on eth0"),
        ("192.0.2.99", r"offers 192\.0\.2\.99 on eth0, and not 192\.0\.2\.10"),
    ],
)
def test_no_offer_of_the_address_is_refused_with_nothing_touched(dhcp, offered, said):
    dhcp.offered = offered
    with pytest.raises(CannotAdoptError, match=said):
        take(dhcp.place, Request("eth0"))
    assert dhcp.asked == [("eth0", "ff:00:01:02:03", "192.0.2.10", 60.0)]
    assert dhcp.points == []
    assert told(dhcp) == []
    assert dhcp.armed == 0.0


def test_gateway_that_does_not_answer_over_the_bridge_undoes_all(host, site):
    before = (host.files(), host.addresses(), host.routes(), pif(site)["IP"])
    ask = host.place.site.ask

    def deaf(one):
        return ask(one)._replace(answered=one.device != "xenbr0" and ask(one).answered)

    host.place = host.place._replace(site=host.place.site._replace(ask=deaf))
    with pytest.raises(HostagentError, match=r"192\.0\.2\.1"):
        take(host.place, Request("eth0"))
    assert (host.files(), host.addresses(), host.routes(), pif(site)["IP"]) == before
    assert host.pending() is None
    assert [one[:2] for one in told(host)] == [("adopt eth0 from systemd-networkd", "rolled-back")]


def test_daemon_that_cannot_be_told_undoes_all_and_the_database_too(host, site):
    before = (host.files(), host.addresses(), host.routes())
    hanging(host, ("let-go",))
    with pytest.raises(RolledBackError, match="let-go hangs; the network is as before"):
        take(host.place, Request("eth0"))
    assert (host.files(), host.addresses(), host.routes()) == before
    assert pif(site)["ip_configuration_mode"] == "None"
    assert pif(site)["management"] is False
    assert host.management == ("", "IPv4")


def hanging(host, words, error=LostError):
    """The daemon hangs when it is told one of these."""
    tell = host._foreign

    def told(daemon, what, device):
        if what in words:
            raise error(f"{what} hangs", hint="")
        tell(daemon, what, device)

    host._foreign = told


def test_undo_of_a_takeover_that_has_troubles_says_so(host, site):
    hanging(host, ("let-go", "take"))
    with pytest.raises(
        RolledBackError, match="let-go hangs; undoing it failed in part: take hangs"
    ) as caught:
        take(host.place, Request("eth0"))
    assert caught.value.code == "PIF_CONFIGURATION_ERROR"
    assert told(host)[0][:2] == ("adopt eth0 from systemd-networkd", "rolled-back")


def test_undo_of_a_release_that_has_troubles_says_so(tmp_path, site):
    host = Host(tmp_path, site.db).network_manager()
    take(host.place, Request("eth0"))
    hanging(host, ("let-go",))
    host.place = deaf(host.place)
    with pytest.raises(RolledBackError, match="undoing it failed in part: let-go hangs"):
        release(host.place, Request())


def test_what_others_changed_meanwhile_keeps_its_code(tmp_path, site):
    """The database refuses the release: everything is as before, and that is no fault of the network."""
    host = Host(tmp_path, site.db)
    host.put("/etc/network/interfaces", INTERFACES)
    take(host.place, Request("eth0"))
    hanging(host, ("take",), BusyError)
    with pytest.raises(BusyError):
        release(host.place, Request())
    assert told(host)[0][:2] == ("release eth0 to ifupdown", "rolled-back")


def test_database_that_does_not_take_its_rows_back_is_told(host, site, monkeypatch):
    def full(*_):
        raise FileError("the disk is full", hint="df", number=28)

    hanging(host, ("let-go",))
    monkeypatch.setattr(adopt_objects, "restore", full)
    with pytest.raises(RolledBackError, match="undoing it failed in part: the disk is full"):
        take(host.place, Request("eth0"))
    assert host.management == ("", "IPv4")


def test_timer_that_ends_while_we_have_the_lock_finds_nothing_to_undo(host):
    host.late = True
    take(host.place, Request("eth0"))
    assert host.time_is_up()["outcome"] == "nothing"
    assert adopted(host)


POINTS = range(1, 23)


def test_there_are_no_more_points_than_are_tried(host):
    take(host.place, Request("eth0"))
    assert len(host.points) == len(POINTS)
    assert [point for point in host.points if "let-go" in point]
    assert "applied" in host.points


@pytest.mark.parametrize("number", POINTS)
def test_killed_anywhere_the_timer_gives_all_back(host, number, monkeypatch):
    before = (host.files(), host.addresses(), host.routes())
    killed_at(host, number, monkeypatch)
    if host.pending() is not None:
        host.time_is_up()
    assert (host.files(), host.addresses(), host.routes()) == before
    assert host.at_boot() == ["systemd-networkd"]
    assert host.pending() is None


@pytest.mark.parametrize("number", POINTS)
def test_killed_anywhere_the_start_gives_all_back_though_the_database_has_it(host, number, monkeypatch):
    before = (host.files(), host.addresses(), host.routes())
    killed_at(host, number, monkeypatch)
    told = unfinished(host.open(""), state_of(adopt_objects.records(host.place, host.management[0])))
    assert not told.startswith("kept")
    assert (host.files(), host.addresses(), host.routes()) == before
    assert host.at_boot() == ["systemd-networkd"]
    assert host.pending() is None


@pytest.mark.parametrize("number", POINTS)
def test_power_cut_anywhere_somebody_brings_it_up_at_the_next_boot(host, number, monkeypatch):
    killed_at(host, number, monkeypatch)
    if theirs := host.at_boot():
        assert theirs == ["systemd-networkd"]
        assert host.files()["etc/systemd/network/20-eth0.network"] == adopt_host.NETWORKD
        return
    found = cache.read(host.state / "net").cached.records
    assert found.bridge == "xenbr0"
    assert [one.ip for one in found.pifs.values() if one.management] == ["192.0.2.10"]
    assert "MANAGEMENT_INTERFACE='xenbr0'" in host.inventory.read_text()


def killed_at(host, number, monkeypatch):
    """Killed for real: nothing of ours runs any more, not even what is to undo."""

    def dead(*_):
        raise Killed

    host.kill_after = number
    with monkeypatch.context() as patched:
        patched.setattr(adopt._Taking, "undo", dead)
        patched.setattr(apply, "_back", dead)
        with pytest.raises(Killed):
            take(host.place, Request("eth0"))
    host.kill_after = -1


def test_again_is_refused_as_it_is_ours(host):
    take(host.place, Request("eth0"))
    with pytest.raises(AlreadyAdoptedError):
        take(host.place, Request("eth0"))


def test_release_gives_all_back(host, site):
    before = (host.files(), host.addresses(), host.routes())
    take(host.place, Request("eth0"))
    host.kernel.without = 0
    result = release(host.place, Request())
    assert result["outcome"] == "changed"
    files, addresses, routes = before
    assert host.files() == {**files, "etc/hostagent/inventory": host.inventory.read_text()}
    assert (host.addresses(), host.routes()) == (addresses, routes)
    assert host.kernel.without == 0
    assert "xenbr0" not in host.kernel.look().by_name()
    assert host.said[-1] == ("systemd-networkd", "take", "eth0")
    assert pif(site)["management"] is False
    assert pif(site)["ip_configuration_mode"] == "None"
    assert host.at_boot() == ["systemd-networkd"]
    assert host.management == ("", "IPv4")
    with pytest.raises(NotAdoptedError):
        release(host.place, Request())


def test_released_dhcp_address_keeps_its_time_and_its_lease(dhcp):
    take(dhcp.place, Request("eth0"))
    dhcp.kernel.without = 0
    release(dhcp.place, Request())
    (back,) = dhcp.kernel.look().addresses
    assert (back.device, back.text, back.valid_s) == (2, "192.0.2.10", 3000)
    assert dhcp.kernel.without == 0
    assert not dhcp.clients
    assert ("dhcpcd", "forget", "xenbr0") in dhcp.said
    assert not (dhcp.state / "net/client-ids/xenbr0.json").exists()


def deaf(place):
    """Nobody answers over eth0."""
    ask = place.site.ask

    def over_others(one):
        return ask(one)._replace(answered=one.device != "eth0" and ask(one).answered)

    return place._replace(site=place.site._replace(ask=over_others))


def test_release_that_loses_the_gateway_is_undone(host, site):
    take(host.place, Request("eth0"))
    before = (host.files(), host.addresses(), host.routes(), pif(site)["IP"])
    host.place = deaf(host.place)
    with pytest.raises(HostagentError):
        release(host.place, Request())
    assert (host.files(), host.addresses(), host.routes(), pif(site)["IP"]) == before
    assert told(host)[0][:2] == ("release eth0 to systemd-networkd", "rolled-back")


def test_takeover_from_networkmanager_that_is_undone_has_it_take_the_card(tmp_path, site):
    host = Host(tmp_path, site.db).network_manager()
    before = (host.files(), host.addresses(), host.routes())
    ask = host.place.site.ask
    silent = host.place.site._replace(ask=lambda one: ask(one)._replace(answered=one.device == "eth0"))
    host.place = host.place._replace(site=silent)
    with pytest.raises(HostagentError):
        take(host.place, Request("eth0"))
    assert (host.files(), host.addresses(), host.routes()) == before
    assert [what for _, what, _ in host.said] == ["reload", "take"]


@pytest.mark.parametrize("rebooted", [False, True])
def test_release_to_networkmanager_that_is_undone_has_it_let_go_first(tmp_path, site, rebooted):
    host = Host(tmp_path, site.db).network_manager()
    take(host.place, Request("eth0"))
    below_run = host.root / "run/NetworkManager/conf.d/00-hostagent-eth0.conf"
    if rebooted:
        below_run.unlink()
    before = (host.files(), host.addresses(), host.routes())
    host.place = deaf(host.place)
    with pytest.raises(HostagentError):
        release(host.place, Request())
    assert (host.files(), host.addresses(), host.routes()) == before
    assert below_run.exists() is not rebooted
    assert [what for _, what, _ in host.said[1:]] == ["take", "let-go"]
    assert host.answers()


def test_release_dry_run_changes_nothing(host, site):
    take(host.place, Request("eth0"))
    before = (host.files(), host.addresses(), site.everything())
    result = release(host.place, Request(dry_run=True))
    assert result["operations"]
    assert (host.files(), host.addresses(), site.everything()) == before


def test_file_edited_since_keeps_the_edit(tmp_path, site):
    host = Host(tmp_path, site.db)
    host.put("/etc/network/interfaces", INTERFACES)
    take(host.place, Request("eth0"))
    host.put("/etc/network/interfaces", host.files()["etc/network/interfaces"] + "# by hand\n")
    release(host.place, Request("eth0"))
    assert host.files()["etc/network/interfaces"] == INTERFACES + "# by hand\n"


def test_guest_on_the_bridge_stops_a_release(host):
    take(host.place, Request("eth0"))
    host.kernel.nic("vif1.0", 9)
    bridge = host.kernel.look().by_name()["xenbr0"].ifindex
    host.do("link-set", {"master": bridge}, "vif1.0", 9)
    with pytest.raises(HostagentError, match=r"vif1\.0"):
        release(host.place, Request())


def test_wait_online_is_left_alone_while_networkd_has_other_devices(tmp_path, site):
    host = Host(tmp_path, site.db).networkd(others=True)
    take(host.place, Request("eth0"))
    assert not [path for path in host.files() if "wait-online" in path]
