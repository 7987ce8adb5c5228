"""The DHCP server of the host's internal network: what it is told, and how it is started, found again and stopped."""

from __future__ import annotations

import pytest

from hostagent.net import dhcp, leases_server
from hostagent.net.leases_server import LeasesError, Served
from hostagent.net.records import Network
from tests.pure.net_dhcp import Host

XENAPI = Served("xenapi", "169.254.0.2", "169.254.255.254", "255.255.0.0")
INTERNAL = {"is_host_internal_management_network": "true"}


@pytest.fixture
def host(monkeypatch):
    made = Host()
    for module in (dhcp, leases_server):
        monkeypatch.setattr(module, "run", made.run)
    monkeypatch.setattr("socket.if_nametoindex", lambda _: 7)
    return made


@pytest.fixture
def dirs(tmp_path):
    return tmp_path / "run", tmp_path / "state/net"


def network(bridge="xenapi", **config):
    return Network("ref", "uuid", "internal", bridge, other_config={**INTERNAL, **config})


def changes(host):
    return [line for line in host.ran if not line.startswith("systemctl show")]


def test_it_hands_out_what_follows_the_hosts_own_address():
    assert leases_server.served(network()) == XENAPI
    other = network(ip_begin="10.9.0.1", ip_end="10.9.0.9", netmask="255.255.255.0")
    assert leases_server.served(other) == Served("xenapi", "10.9.0.2", "10.9.0.9", "255.255.255.0")


@pytest.mark.parametrize(
    "found",
    [
        network(is_host_internal_management_network="false"),
        network()._replace(managed=False),
        network(ip_end="169.254.0.1"),
        network(ip_begin="255.255.255.255"),
    ],
)
def test_what_is_not_internal_or_has_no_room_has_no_server(found):
    assert leases_server.served(found) is None


def test_it_answers_on_its_bridge_alone_and_gives_neither_router_nor_name_servers(tmp_path):
    lines = leases_server.configuration(XENAPI, 7, tmp_path / "xenapi.leases").splitlines()

    assert {
        "port=0",
        "interface=xenapi",
        "bind-dynamic",
        "dhcp-range=169.254.0.2,169.254.255.254,255.255.0.0,12h",
        "dhcp-option=option:router",
        "dhcp-option=option:dns-server",
        f"dhcp-leasefile={tmp_path}/xenapi.leases",
    } <= set(lines)
    assert [line for line in lines if line.startswith("interface")] == ["interface=xenapi"]


def test_it_is_a_unit_of_its_own_that_comes_back_and_ends_with_the_bridge(dirs, host):
    run, folder = dirs

    assert leases_server.ensure(XENAPI, 7, run, folder) == "started"

    (started,) = host.did("systemd-run")
    for part in (
        "--unit=hostagent-leases-xenapi.service",
        "--property=Restart=always",
        "--property=BindsTo=sys-subsystem-net-devices-xenapi.device",
        "--property=NoNewPrivileges=yes",
        "--property=ProtectSystem=strict",
        f"--property=ReadWritePaths={folder}/served",
    ):
        assert part in started
    file = run / "served/xenapi.conf"
    assert started.endswith(f"-- dnsmasq --keep-in-foreground --log-facility=- --conf-file={file}")
    assert file.read_text() == leases_server.configuration(XENAPI, 7, folder / "served/xenapi.leases")
    assert (folder / "served").is_dir()


def test_a_server_that_does_what_is_wanted_is_left_alone(dirs, host):
    leases_server.put("xenapi", network(), *dirs)
    host.ran.clear()

    leases_server.put("xenapi", network(), *dirs)

    assert host.active
    assert changes(host) == []


@pytest.mark.parametrize(
    ("wanted", "index"), [(XENAPI._replace(last="169.254.0.99"), 7), (XENAPI, 8)], ids=["range", "bridge"]
)
def test_another_range_and_a_bridge_that_was_made_anew_restart_it(dirs, host, wanted, index):
    leases_server.ensure(XENAPI, 7, *dirs)
    host.ran.clear()

    assert leases_server.ensure(wanted, index, *dirs) == "restarted"

    stopped, tried, settled, started = changes(host)
    assert stopped == "systemctl stop hostagent-leases-xenapi.service"
    assert tried.startswith("dnsmasq --test ")
    assert settled == "udevadm settle --timeout=5"  # else systemd may end it for the bridge of before
    assert started.startswith("systemd-run ")


def test_one_that_died_is_started_anew(dirs, host):
    leases_server.ensure(XENAPI, 7, *dirs)
    host.active = False

    assert leases_server.ensure(XENAPI, 7, *dirs) == "started"


def test_without_the_program_the_package_is_named(dirs, host):
    host.fails = "dnsmasq"

    with pytest.raises(LeasesError, match="no addresses are handed out on xenapi") as caught:
        leases_server.put("xenapi", network(), *dirs)

    assert caught.value.hint == "apt-get install it"  # as `run` makes it of the package
    assert host.packages[-1] == leases_server.PACKAGE
    assert host.did("systemd-run") == []


@pytest.mark.parametrize("bridge", ["a,b", "x*", "a\\b", "x#", "a-b"])
def test_a_bridge_with_another_meaning_to_dnsmasq_is_told(dirs, host, bridge):
    with pytest.raises(LeasesError, match="its name has more than"):
        leases_server.put(bridge, network(bridge), *dirs)

    assert changes(host) == []


def test_a_bridge_that_went_again_is_told(dirs, host, monkeypatch):
    def gone(_):
        raise OSError(19, "No such device")

    monkeypatch.setattr("socket.if_nametoindex", gone)
    with pytest.raises(LeasesError, match="it has gone again"):
        leases_server.put("xenapi", network(), *dirs)

    assert changes(host) == []


@pytest.mark.parametrize("then", [None, network(is_host_internal_management_network="false")])
def test_it_ends_with_its_network_and_remembers_its_leases(dirs, host, then):
    leases_server.put("xenapi", network(), *dirs)
    leases = dirs[1] / "served/xenapi.leases"
    leases.write_text("0 52:54:00:00:00:01 169.254.0.9 * *\n")

    leases_server.put("xenapi", then, *dirs)

    assert not host.active
    assert not (dirs[0] / "served/xenapi.conf").exists()
    assert leases.exists()


@pytest.mark.parametrize("bridge", ["xapi1", "", "../precious"])
def test_where_there_was_none_nobody_is_asked_and_nothing_goes(dirs, host, bridge):
    precious = dirs[0] / "precious.conf"
    (dirs[0] / "served").mkdir(parents=True)
    precious.write_text("mine")

    leases_server.put(bridge, None, *dirs)

    assert host.ran == []
    assert precious.exists()
