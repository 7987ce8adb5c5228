"""What other network daemons are told about a card that is taken from them, or given back."""

from __future__ import annotations

import contextlib

import pytest

from hostagent.files import FileError
from hostagent.net import dhcp, foreign_daemons
from hostagent.run import CommandError, Finished


@pytest.fixture
def ran(monkeypatch):
    found = []

    def run(argv, **_):
        found.append(argv)
        return Finished(tuple(argv), 0, "active", "", 0.1)

    monkeypatch.setattr(foreign_daemons, "run", run)
    monkeypatch.setattr(dhcp, "run", run)
    return found


def test_daemons_are_started_anew_and_never_made_to_flush(ran, tmp_path):
    for daemon in ("systemd-networkd", "NetworkManager"):
        foreign_daemons.tell(daemon, "let-go", "eth0", tmp_path, dict)
    foreign_daemons.tell("NetworkManager", "reload", "eth0", tmp_path, dict)
    foreign_daemons.tell("systemd-networkd", "reload", "eth0", tmp_path, dict)
    foreign_daemons.tell("dhcpcd", "forget", "xenbr0", tmp_path, dict)
    assert [argv[-2:] for argv in ran] == [
        ["try-restart", "systemd-networkd.service"],
        ["--value", "NetworkManager.service"],
        ["stop", "NetworkManager.service"],
        ["start", "NetworkManager.service"],
        ["--value", "NetworkManager.service"],
        ["stop", "NetworkManager.service"],
        ["start", "NetworkManager.service"],
        ["networkctl", "reload"],
        ["stop", "hostagent-dhcp-xenbr0.service"],
    ]


PROFILE = "[connection]\nuuid={}\ntype=ethernet\ninterface-name={}\nautoconnect-priority={}\n"


class NetworkManager:
    """A root with its files of eth0 (ifindex 2); it runs, or not, writes its own note of the card when it ends, and has
    the card afterwards with the connection that the note names when it starts.
    """

    def __init__(self, root):
        self.root = root
        self.runs = True
        self.ran = []
        self.fails_at = ""
        self.ends_with = "[device]\nmanaged=false\n"
        self.takes = True
        self.up = ""
        self.put("sys/class/net/eth0/ifindex", "2\n")
        self.put("run/NetworkManager/devices/2", self.ends_with)

    def put(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def profile(self, uuid, nic, priority=0):
        text = PROFILE.format(uuid, nic, priority)
        self.put(f"etc/NetworkManager/system-connections/{uuid}.nmconnection", text)

    def note(self):
        return (self.root / "run/NetworkManager/devices/2").read_text()

    def run(self, argv, **_):
        verb = next(word for word in argv[1:] if not word.startswith("-"))
        out = ""
        if verb == self.fails_at:
            raise CommandError(argv, "failed", hint="look")
        if argv[0] == "nmcli":
            out = self.up
        elif verb == "show":
            out = "active" if self.runs else "inactive"
        else:
            self.ran.append(verb)
        if verb == "stop" and self.runs:
            self.runs = False
            self.put("run/NetworkManager/devices/2", self.ends_with)
        if verb == "start":
            self.runs = True
            self.up = self.note().rpartition("connection-uuid=")[2].strip() if self.takes else ""
        return Finished(tuple(argv), 0, out + "\n", "", 0.1)

    def tell(self, what):
        foreign_daemons.tell("NetworkManager", what, "eth0", self.root, dict)


@pytest.fixture
def networkmanager(monkeypatch, tmp_path):
    daemon = NetworkManager(tmp_path)
    monkeypatch.setattr(foreign_daemons, "run", daemon.run)
    monkeypatch.setattr(dhcp, "run", daemon.run)
    monkeypatch.setattr(foreign_daemons, "TAKEN_S", 0.0)
    return daemon


def test_networkmanager_goes_on_with_the_connection_that_the_card_had_last(networkmanager):
    for uuid, nic, priority in (("a", "eth0", 9), ("b", "eth0", 2), ("c", "eth1", 3), ("d", "", 0)):
        networkmanager.profile(uuid, nic, priority)
    networkmanager.put("run/NetworkManager/devices/3", "[device]\nconnection-uuid=d\n")
    networkmanager.put("var/lib/NetworkManager/timestamps", "[timestamps]\na=1\nb=70\nc=80\nd=90\n")
    networkmanager.tell("take")
    assert networkmanager.ran == ["stop", "start"]
    assert networkmanager.up == "b"
    networkmanager.put("run/NetworkManager/devices/3", "[device]\nconnection-uuid=c\n")
    networkmanager.tell("take")
    assert networkmanager.up == "d"


@pytest.mark.parametrize(("own", "up"), [("a", "a"), ("not in a file", "b")])
def test_networkmanager_that_has_not_let_go_knows_best(networkmanager, own, up):
    networkmanager.profile("a", "eth0")
    networkmanager.profile("b", "eth0")
    networkmanager.put("var/lib/NetworkManager/timestamps", "[timestamps]\na=1\nb=70\n")
    networkmanager.ends_with = f"[device]\nmanaged=true\nconnection-uuid={own}\n"
    networkmanager.tell("take")
    assert networkmanager.up == up


def test_networkmanager_that_took_a_card_back_waits_for_its_server(networkmanager):
    networkmanager.profile("a", "eth0")
    networkmanager.tell("take")
    file = networkmanager.root / "run/NetworkManager/conf.d/00-hostagent-eth0-dhcp.conf"
    assert "match-device=interface-name:eth0\nipv4.dhcp-timeout=2147483647\n" in file.read_text()


def test_networkmanager_that_does_not_run_is_not_started_and_finds_the_note_when_it_is(networkmanager):
    networkmanager.runs = False
    networkmanager.profile("a", "eth0")
    networkmanager.tell("take")
    networkmanager.tell("let-go")
    assert networkmanager.ran == []
    assert "connection-uuid=a\n" in networkmanager.note()


@pytest.mark.parametrize("again", ["take", "let-go"])
def test_networkmanager_that_we_stopped_is_started_by_whoever_comes_next(networkmanager, again):
    """Killed in between; the undo of a takeover tells it to take the card, that of a release to let it go."""
    networkmanager.profile("a", "eth0")
    networkmanager.fails_at = "start"
    with pytest.raises(foreign_daemons.ForeignError, match="NetworkManager"):
        networkmanager.tell("take")
    assert not networkmanager.runs
    networkmanager.fails_at = ""
    networkmanager.tell(again)
    assert networkmanager.runs
    networkmanager.runs = False
    networkmanager.ran = []
    networkmanager.tell("let-go")
    assert networkmanager.ran == []


def test_networkmanager_is_started_also_where_its_note_could_not_be_written(networkmanager, monkeypatch):
    def full(path, text):
        if "conf.d" in str(path):
            raise FileError("the disk is full", hint="df", number=28)
        put(path, text)

    put = foreign_daemons.put_file
    monkeypatch.setattr(foreign_daemons, "put_file", full)
    with pytest.raises(FileError):
        networkmanager.tell("take")
    assert networkmanager.runs


def test_networkmanager_without_a_connection_for_the_card_is_told(networkmanager):
    networkmanager.profile("c", "eth1")
    with pytest.raises(foreign_daemons.ForeignError, match="has no connection for eth0"):
        networkmanager.tell("take")
    assert networkmanager.runs


def test_networkmanager_that_does_not_take_the_card_is_told(networkmanager):
    networkmanager.profile("a", "eth0")
    networkmanager.takes = False
    with pytest.raises(foreign_daemons.ForeignError, match="has not taken eth0 with the connection a"):
        networkmanager.tell("take")


@pytest.mark.parametrize(("code", "good"), [(5, True), (1, False)])
def test_a_client_that_is_gone_is_forgotten(monkeypatch, tmp_path, code, good):
    def run(argv, **_):
        raise CommandError(argv, "failed", hint="look", finished=Finished(tuple(argv), code, "", "", 0.1))

    monkeypatch.setattr(foreign_daemons, "run", run)
    with contextlib.nullcontext() if good else pytest.raises(foreign_daemons.ForeignError):
        foreign_daemons.tell("dhcpcd", "forget", "xenbr0", tmp_path, dict)


def test_client_that_ifupdown_started_is_killed_and_started_again(ran, tmp_path):
    process = tmp_path / "proc/77"
    process.mkdir(parents=True)
    (process / "comm").write_text("dhclient\n")
    (process / "cmdline").write_text("dhclient\0-4\0eth0\0")
    (process / "cgroup").write_text("0::/system.slice/networking.service\n")
    killed = []
    foreign_daemons.tell(
        "ifupdown", "let-go", "eth0", tmp_path, dict, lambda pid, number: killed.append((pid, number))
    )
    assert killed == [(77, 9)]
    foreign_daemons.tell("ifupdown", "take", "eth0", tmp_path, dict)
    assert ran == []
    (tmp_path / "etc/network").mkdir(parents=True)
    (tmp_path / "etc/network/interfaces").write_text("iface eth0 inet dhcp\n")
    foreign_daemons.tell("ifupdown", "take", "eth0", tmp_path, dict)
    assert ran == [[*foreign_daemons.OUTLIVING, "ifup", "--force", "eth0"]]
    assert "--scope" in foreign_daemons.OUTLIVING


@pytest.mark.parametrize(("stays", "starts"), [(1, 1), (2, 2), (3, 2)])
def test_client_of_ifupdown_that_crashed_is_started_once_more(monkeypatch, tmp_path, stays, starts):
    """Only the client of start number `stays` is there afterwards."""
    ran = []

    def run(argv, **_):
        ran.append(argv)
        if len(ran) == stays:
            process = tmp_path / "proc/77"
            process.mkdir(parents=True)
            (process / "comm").write_text("dhclient\n")
            (process / "cmdline").write_text("dhclient\0-4\0eth0\0")
            (process / "cgroup").write_text("0::/system.slice/networking.service\n")
        return Finished(tuple(argv), 0, "", "", 0.1)

    monkeypatch.setattr(foreign_daemons, "run", run)
    (tmp_path / "etc/network").mkdir(parents=True)
    (tmp_path / "etc/network/interfaces").write_text("iface eth0 inet dhcp\n")
    gone = pytest.raises(foreign_daemons.ForeignError, match="no DHCP client for eth0 that stays")
    with gone if stays > starts else contextlib.nullcontext():
        foreign_daemons.tell("ifupdown", "take", "eth0", tmp_path, dict)
    assert ran == [[*foreign_daemons.OUTLIVING, "ifup", "--force", "eth0"]] * starts


def test_daemon_that_does_not_listen(networkmanager):
    networkmanager.fails_at = "stop"
    with pytest.raises(foreign_daemons.ForeignError, match="NetworkManager could not be told"):
        networkmanager.tell("take")
    assert networkmanager.runs


def test_file_is_written_with_its_permissions_and_taken_away(tmp_path):
    file = tmp_path / "a/b"
    foreign_daemons.put_file(file, "one")
    file.chmod(0o600)
    foreign_daemons.put_file(file, "two")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("two", 0o600)
    foreign_daemons.put_file(file, None)
    foreign_daemons.put_file(file, None)
    assert not file.exists()
