"""Offloads, link modes, IPv6 modes, listening: in a network namespace of the test's own; ethtool and ip say what is."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from nested_xen.frames import Ethernet, EtherType, Lacpdu, LacpEnd, LacpState

from hostagent.net import sysctl
from hostagent.net.ethtool import Ethtool, EthtoolError, restoring
from hostagent.net.nics_look import hardware, left_out, look
from hostagent.net.sniff import SniffError, sniff

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLONE_NEWNET = 0x40000000
ROOT = Path("/")
SWITCH, US = "02:00:00:00:00:01", "02:00:00:00:00:99"
LISTEN_S = 1.0
PAUSE_S = 0.02
PROGRAM_KEYS = {
    "rx": "rx-checksumming",
    "tx": "tx-checksumming",
    "sg": "scatter-gather",
    "tso": "tcp-segmentation-offload",
    "gso": "generic-segmentation-offload",
    "gro": "generic-receive-offload",
    "lro": "large-receive-offload",
}


@pytest.fixture(autouse=True)
def segments(kernel: None) -> Iterator[None]:
    """Instead of a lab's segments: the test is in a namespace with a veth pair and a bridge, which goes with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "switch")
        run("ip", "link", "add", "xenbr0", "type", "bridge")
        yield
        assert libc.setns(home, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(home)


@pytest.fixture
def ethtool(segments: None) -> Iterator[Ethtool]:
    with Ethtool() as made:
        yield made


@pytest.fixture
def tap(segments: None) -> str:
    """A device whose driver takes any link mode."""
    run("ip", "tuntap", "add", "dev", "tap0", "mode", "tap")
    return "tap0"


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout


def by_program(device: str) -> dict[str, bool]:
    """Offloads as the program ethtool tells them."""
    told = dict(line.split(":", 1) for line in run("ethtool", "-k", device).splitlines() if ":" in line)
    return {key: told[name].split()[0] == "on" for key, name in PROGRAM_KEYS.items()}


def modes_by_program(device: str) -> dict[str, str]:
    lines = [line.strip().split(": ", 1) for line in run("ethtool", device).splitlines()]
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


# offloads


def test_offloads_are_read_as_the_program_tells_them(ethtool: Ethtool) -> None:
    run("ethtool", "-K", "eth0", "tso", "off", "gro", "on")

    everything = ethtool.features()

    assert everything.keys() == {"lo", "eth0", "switch", "xenbr0"}
    for device, found in everything.items():
        assert found == by_program(device)
        assert ethtool.features(device) == {device: found}
    assert (everything["eth0"]["tso"], everything["switch"]["tso"]) == (False, True)


@pytest.mark.parametrize("device", ["eth0", "xenbr0"])
@pytest.mark.parametrize("key", ["tx", "sg", "tso", "gso", "gro"])
def test_an_offload_is_switched_as_the_program_sees(ethtool: Ethtool, device: str, key: str) -> None:
    for on in (False, True, False):
        ethtool.set_features(device, {key: on})

        assert by_program(device)[key] is on


def test_several_offloads_are_switched_at_once_and_others_stay(ethtool: Ethtool) -> None:
    before = by_program("eth0")
    wanted = {"gro": not before["gro"], "tso": False, "lro": False}

    ethtool.set_features("eth0", wanted)

    assert by_program("eth0") == {**before, **wanted}


def test_what_the_driver_cannot_do_is_named_with_it_and_the_rest_is_done(ethtool: Ethtool) -> None:
    with pytest.raises(EthtoolError) as caught:
        ethtool.set_features("eth0", {"lro": True, "tso": False})

    assert caught.value.keys == ("ethtool-lro",)
    assert caught.value.driver == "veth"
    assert "ethtool-lro=on" in caught.value.found
    assert "veth" in caught.value.found
    assert by_program("eth0")["tso"] is False


def test_what_depends_on_another_offload_is_named(ethtool: Ethtool) -> None:
    with pytest.raises(EthtoolError) as caught:
        ethtool.set_features("eth0", {"sg": False, "tso": True})

    assert caught.value.keys == ("ethtool-tso",)
    assert by_program("eth0")["sg"] is False


def test_settings_of_a_device_that_is_not_there_are_an_error(ethtool: Ethtool) -> None:
    for change in (
        lambda: ethtool.set_features("eth7", {"gro": True}),
        lambda: ethtool.set_link("eth7", {"speed": 100}),
        lambda: ethtool.features("eth7"),
        lambda: ethtool.link_modes("eth7"),
    ):
        with pytest.raises(EthtoolError) as caught:
            change()
        assert caught.value.errno == errno.ENODEV
        assert "eth7" in caught.value.found


def test_many_devices_are_read_with_one_question(ethtool: Ethtool) -> None:
    lines = "".join(f"link add br{n} type bridge\n" for n in range(300))
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True, timeout=60)

    assert len(ethtool.features()) == 304


def test_a_driver_has_a_name(ethtool: Ethtool) -> None:
    assert ethtool.driver("eth0") == "veth"
    assert ethtool.driver("xenbr0") == "bridge"
    assert ethtool.driver("eth7") == ""


# link modes


def test_link_modes_are_set_as_the_program_sees(ethtool: Ethtool, tap: str) -> None:
    ethtool.set_link(tap, {"autoneg": "off", "speed": 1000, "duplex": "half"})

    told = modes_by_program(tap)
    assert (told["Speed"], told["Duplex"], told["Auto-negotiation"]) == ("1000Mb/s", "Half", "off")
    found = ethtool.link_modes(tap)
    assert found is not None
    assert (found.autoneg, found.speed, found.duplex) == (False, 1000, "half")


def test_advertised_modes_are_set_and_pause_frames_stay(ethtool: Ethtool, tap: str) -> None:
    run("ethtool", "-s", tap, "autoneg", "on", "advertise", "0x202F")
    before = ethtool.link_modes(tap)
    assert before is not None
    assert (before.autoneg, before.advertised) == (True, 0x202F)  # 0x2000: pause frames

    ethtool.set_link(tap, {"advertise": 0x28})

    found = ethtool.link_modes(tap)
    assert found is not None
    assert (found.autoneg, found.advertised) == (True, 0x2028)


def test_link_modes_are_put_back(ethtool: Ethtool, tap: str) -> None:
    before = ethtool.link_modes(tap)
    assert before is not None
    ethtool.set_link(tap, {"speed": 100, "duplex": "half"})
    assert modes_by_program(tap)["Duplex"] == "Half"

    ethtool.set_link(tap, restoring(before, ethtool.modes))

    assert ethtool.link_modes(tap) == before


def test_a_driver_without_link_modes_is_named_with_every_key(ethtool: Ethtool) -> None:
    with pytest.raises(EthtoolError) as caught:
        ethtool.set_link("eth0", {"speed": 100, "duplex": "half"})

    assert caught.value.keys == ("ethtool-speed", "ethtool-duplex")
    assert (caught.value.driver, caught.value.errno) == ("veth", errno.EOPNOTSUPP)
    assert "Operation not supported" in caught.value.found


def test_what_is_so_already_is_no_error_though_the_driver_cannot_change_it(ethtool: Ethtool) -> None:
    ethtool.set_link("eth0", {"autoneg": "off"})
    ethtool.set_features("eth0", {"lro": False})
    ethtool.set_link("eth0", {})


# IPv6


def addresses6(device: str) -> list[str]:
    found: list[dict[str, Any]] = json.loads(run("ip", "-j", "-6", "addr", "show", "dev", device))
    return [address["local"] for each in found for address in each.get("addr_info", [])]


def set_mode(device: str, mode: str) -> None:
    for path, value in sysctl.ipv6_files(device, mode, sysctl.ipv6_of_host(ROOT)):
        sysctl.write(ROOT, path, value)


@pytest.mark.parametrize("mode", ["off", "link-local", "dhcp", "autoconf"])
def test_a_device_is_in_the_mode_it_was_put_into(mode: str) -> None:
    set_mode("xenbr0", mode)
    run("ip", "link", "set", "xenbr0", "up")

    host = sysctl.ipv6_of_host(ROOT)
    found = sysctl.read_ipv6(ROOT, ["xenbr0"])
    assert dict(sysctl.ipv6_files("xenbr0", mode, host)).items() <= found.items()
    assert [text[:4] for text in addresses6("xenbr0")] == ([] if mode == "off" else ["fe80"])


def test_off_takes_addresses_away(segments: None) -> None:
    run("ip", "link", "set", "xenbr0", "up")
    run("ip", "addr", "add", "2001:db8::1/64", "dev", "xenbr0")
    assert "2001:db8::1" in addresses6("xenbr0")

    set_mode("xenbr0", "off")

    assert addresses6("xenbr0") == []


def test_a_name_with_a_dot_is_a_device_of_its_own(segments: None) -> None:
    run("ip", "link", "add", "eth0.5", "type", "bridge")

    set_mode("eth0.5", "off")

    found = sysctl.read_ipv6(ROOT, ["eth0", "eth0.5"])
    assert found["net/ipv6/conf/eth0.5/disable_ipv6"] == "1"
    assert found["net/ipv6/conf/eth0/disable_ipv6"] == "0"


def test_ipv6_switched_off_for_the_whole_host_is_seen_and_kept(segments: None) -> None:
    assert sysctl.ipv6_of_host(ROOT).why_not == ""

    sysctl.write(ROOT, "net/ipv6/conf/all/disable_ipv6", "1")

    assert "net.ipv6.conf.all.disable_ipv6" in sysctl.ipv6_of_host(ROOT).why_not
    set_mode("xenbr0", "link-local")
    run("ip", "link", "set", "xenbr0", "up")
    assert addresses6("xenbr0") == []


def test_a_value_that_the_kernel_refuses_is_an_error(segments: None) -> None:
    with pytest.raises(sysctl.SysctlError) as caught:
        sysctl.write(ROOT, "net/ipv6/conf/xenbr0/disable_ipv6", "many")

    assert caught.value.errno == errno.EINVAL


# NICs


@pytest.fixture
def own_sysfs(segments: None, tmp_path: Path) -> Iterator[Path]:
    """A root whose sysfs shows the devices of this namespace."""
    (tmp_path / "sys").mkdir()
    run("mount", "-t", "sysfs", "none", str(tmp_path / "sys"))
    try:
        yield tmp_path
    finally:
        run("umount", str(tmp_path / "sys"))


def test_what_has_no_hardware_is_no_nic(own_sysfs: Path, tap: str) -> None:
    assert look(own_sysfs) == ()
    for device in ("eth0", "xenbr0", tap):
        assert left_out(hardware(own_sysfs, device)) == "it has no hardware"
    assert left_out(hardware(own_sysfs, "lo")) == "it is not Ethernet"


# listening


@contextmanager
def sending(device: str, frames: Sequence[bytes]) -> Iterator[None]:
    """Send these over and over."""
    stop = threading.Event()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as port:
        port.bind((device, 0))

        def work() -> None:
            while not stop.wait(PAUSE_S):
                for frame in frames:
                    port.send(frame)

        sender = threading.Thread(target=work)
        sender.start()
        try:
            yield
        finally:
            stop.set()
            sender.join()


def tagged(*vlans: int) -> bytes:
    return bytes(Ethernet(US, SWITCH, EtherType.LOCAL, b"hello", vlans))


def lacpdu() -> bytes:
    actor = LacpEnd(SWITCH, 9, 1, LacpState.ACTIVITY | LacpState.AGGREGATION)
    return bytes(Lacpdu(actor, LacpEnd("00:00:00:00:00:00", 0, 0, LacpState(0))).frame(SWITCH))


def lldp() -> bytes:
    chassis = b"\x02\x07\x04" + bytes.fromhex(SWITCH.replace(":", ""))
    port = b"\x04\x09\x05ge-0/0/7"
    vlan = b"\xfe\x06\x00\x80\xc2\x01\x00\x14"
    payload = chassis + port + b"\x06\x02\x00\x78" + vlan + b"\x0a\x03sw1" + b"\x00\x00"
    return bytes(Ethernet("01:80:c2:00:00:0e", SWITCH, EtherType.LLDP, payload))


@pytest.fixture(params=["alone", "port-of-a-bridge"])
def wire(segments: None, request: pytest.FixtureRequest) -> None:
    """eth0 and the switch's end are up."""
    for device in ("eth0", "switch", "xenbr0"):
        run("sysctl", "-q", "-w", f"net.ipv6.conf.{device}.disable_ipv6=1")  # else the kernel speaks too
        run("ip", "link", "set", device, "up")
    if request.param == "port-of-a-bridge":
        run("ip", "link", "set", "eth0", "master", "xenbr0")


def test_vlans_lacp_and_lldp_are_heard(wire: None) -> None:
    sent = [tagged(10), tagged(0x2014), tagged(30, 40), tagged(), lacpdu(), lldp()]
    with sending("switch", sent):
        heard = sniff(["eth0"], LISTEN_S)["eth0"]

    assert heard.vlans.keys() == {10, 20, 30}
    assert heard.untagged > 0
    assert heard.frames == heard.untagged + sum(heard.vlans.values())
    [pdu] = heard.lacp
    assert (pdu.actor.system, pdu.actor.key, pdu.actor.port) == (SWITCH, 9, 1)
    [neighbour] = heard.neighbours
    assert (neighbour.chassis, neighbour.port, neighbour.system_name) == (SWITCH, "ge-0/0/7", "sw1")
    assert neighbour.untagged_vlan == 20
    assert heard.down is False


def test_what_we_send_ourselves_is_not_heard(wire: None) -> None:
    with sending("eth0", [tagged(10), lacpdu()]):
        heard = sniff(["eth0", "switch"], LISTEN_S)

    assert heard["switch"].vlans.keys() == {10}
    assert heard["eth0"].vlans == {}
    assert heard["eth0"].lacp == ()


def test_control_frames_are_heard_through_a_flood(wire: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostagent.net.sniff.MOST_FRAMES", 50)
    with sending("switch", [tagged(10)] * 40 + [lldp()]):
        heard = sniff(["eth0"], LISTEN_S)["eth0"]

    assert heard.frames == 50
    assert len(heard.neighbours) == 1


def test_a_nic_that_goes_down_meanwhile_is_told(wire: None) -> None:
    later = threading.Timer(LISTEN_S / 5, run, ("ip", "link", "set", "eth0", "down"))
    later.start()
    heard = sniff(["eth0", "switch"], LISTEN_S)
    later.join()

    assert heard["eth0"].down is True


@pytest.mark.parametrize(("device", "number"), [("eth0", errno.ENETDOWN), ("eth7", errno.ENODEV)])
def test_a_nic_that_is_down_or_gone_is_an_error_that_names_it(
    segments: None, device: str, number: int
) -> None:
    with pytest.raises(SniffError) as caught:
        sniff([device], LISTEN_S)

    assert (caught.value.device, caught.value.errno) == (device, number)
    assert device in caught.value.found


def test_taking_all_frames_ends_with_the_listening(wire: None) -> None:
    sniff(["eth0"], PAUSE_S)

    [link] = json.loads(run("ip", "-j", "-d", "link", "show", "eth0"))
    assert link["promiscuity"] == (1 if link.get("master") else 0)
