"""What bench/network.py sets beside hostagent: other programs that make the same networks."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hostagent.run import CommandError, run

if TYPE_CHECKING:
    from collections.abc import Sequence

COUNTS = (10, 50, 100, 500, 1000)
SLOW_COUNTS = (10, 50)
LONGEST_S = 900
MEMBERS = ("bench0", "bench1")
MAC = "02:00:00:00:00:{:02x}"
NETWORKD = "/lib/systemd/systemd-networkd"
BRIDGE = "type bridge forward_delay 0 stp_state 0 mcast_snooping 0"


class Times(NamedTuple):
    """Seconds; None: it has no check."""

    up: float
    check: float | None
    down: float


class Shape(NamedTuple):
    """What is made: so many networks, as VLANs of a bond or as bridges alone."""

    networks: int
    vlans: bool

    @property
    def numbers(self) -> range:
        return range(1, self.networks + 1)

    @property
    def devices(self) -> int:
        """How many come into being."""
        return 2 * self.networks + 2 if self.vlans else self.networks


def command(*words: str) -> None:
    run(words, timeout_s=LONGEST_S)


def cables() -> None:
    """Two NICs with something at the other end."""
    for number, name in enumerate(MEMBERS):
        pair = f"type veth peer name {name}p"
        command("ip", *f"link add {name} address {MAC.format(number)} {pair}".split())
        command("ip", "link", "set", f"{name}p", "up")


def clear() -> None:
    """Everything away that a peer does not take away itself, members included; then new cables."""
    links = json.loads(run(["ip", "-j", "link"], timeout_s=60).stdout)
    lines = [f"link delete {link['ifname']}" for link in links if link["ifname"].startswith("xapi")]
    lines += ["link delete bond0"] * any(link["ifname"] == "bond0" for link in links)
    lines += [f"link delete {name}" for name in MEMBERS if any(link["ifname"] == name for link in links)]
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        command("ip", "-batch", file.name)
    cables()


def ip_lines(shape: Shape) -> tuple[list[str], list[str]]:
    """What `ip` is told to bring all up, and to tear it down."""
    up = []
    if shape.vlans:
        up += ["link add name bond0 type bond mode active-backup miimon 100 updelay 31000 downdelay 200"]
        up += [f"link set {name} master bond0" for name in MEMBERS]
        up += [f"link add name xapi0 address {MAC.format(0)} {BRIDGE}", "link set bond0 master xapi0"]
        up += [f"link set {name} addrgenmode none" for name in ("bond0", "xapi0")]
        up += [f"link set {name} up" for name in ("bond0", "xapi0")]
    for i in shape.numbers:
        up.append(f"link add name xapi{i} group 171 address {MAC.format(0)} {BRIDGE}")
        names = [f"xapi{i}"]
        if shape.vlans:
            up.append(f"link add link bond0 name bond0.{i} group 171 master xapi{i} type vlan id {i}")
            names.append(f"bond0.{i}")
        up += [f"link set {name} addrgenmode none" for name in names]
        up += [f"link set {name} up" for name in names]
    down = [
        f"link delete {name}" for i in shape.numbers for name in ([f"bond0.{i}"] * shape.vlans + [f"xapi{i}"])
    ]
    if shape.vlans:
        down += ["link delete xapi0", "link delete bond0"]
    return up, down


class IpBatch:
    """One process, all operations from a file; its check reads the devices once, with details, and compares nothing."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self._files = (folder / "up.batch", folder / "down.batch")
        for file, lines in zip(self._files, ip_lines(shape), strict=True):
            file.write_text("".join(f"{line}\n" for line in lines))

    def up(self) -> None:
        command("ip", "-batch", str(self._files[0]))

    def check(self) -> None:
        command("ip", "-d", "-j", "link")

    def down(self) -> None:
        command("ip", "-batch", str(self._files[1]))


class IpProcesses:
    """A process for each operation, as scripts do it."""

    def __init__(self, shape: Shape, _folder: Path) -> None:
        self._shape = shape
        self._lines = ip_lines(shape)

    def up(self) -> None:
        for line in self._lines[0]:
            command("ip", *line.split())

    def check(self) -> None:
        for i in self._shape.numbers:
            command("ip", "-d", "-j", "link", "show", f"xapi{i}")

    def down(self) -> None:
        for line in self._lines[1]:
            command("ip", *line.split())


OWN_SYS = ("unshare", "--mount", "sh", "-c", 'mount -t sysfs none /sys && exec "$@"', "sh")
"""A /sys that shows the devices of this network namespace, which ifupdown2 reads and writes there."""


class Ifupdown2:
    def __init__(self, shape: Shape, folder: Path) -> None:
        settings = "  bridge-stp off\n  bridge-fd 0\n  bridge-mcsnoop 0\n"
        text = ""
        if shape.vlans:
            text += f"auto bond0\niface bond0\n  bond-slaves {' '.join(MEMBERS)}\n  bond-mode active-backup\n"
            text += f"  bond-miimon 100\nauto xapi0\niface xapi0\n  bridge-ports bond0\n{settings}"
        for i in shape.numbers:
            port = f"bond0.{i}" if shape.vlans else "none"
            text += f"auto bond0.{i}\niface bond0.{i}\n" * shape.vlans
            text += f"auto xapi{i}\niface xapi{i}\n  bridge-ports {port}\n{settings}"
        self._file = folder / "interfaces"
        self._file.write_text(text)

    def up(self) -> None:
        command(*OWN_SYS, "ifup", "-a", "-i", str(self._file))

    def check(self) -> None:
        command(*OWN_SYS, "ifquery", "-a", "-c", "-i", str(self._file))

    def down(self) -> None:
        command(*OWN_SYS, "ifdown", "-a", "-i", str(self._file))


# in a mount namespace of its own: its files, and a /sys from which it sees that it need not wait for udev
RUN_NETWORKD = """
set -e
mount --make-rprivate /
mkdir -p /run/systemd/network /run/systemd/netif
mount -t tmpfs none /run/systemd/netif
chown systemd-network: /run/systemd/netif
mount --bind "$1" /run/systemd/network
mount -o bind,remount,ro /sys
"$3" >"$1.log" 2>&1 &
for n in $(seq 30000); do
    kill -0 $! 2>/dev/null || exit 1
    [ "$(ip -o link show up | grep -Ec '^[0-9]+: (xapi|bond0)')" -lt "$2" ] || { kill $!; exit 0; }
    sleep 0.02
done
exit 1
"""


class Networkd:
    """Run by itself in the namespace, until every device is up. It has no check, and takes nothing down."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self._shape = shape
        self._files = folder / "networkd"
        self._files.mkdir()
        self._files.chmod(0o755)
        plain = "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        self._write("unmanaged.network", "[Match]\nName=bench*p\n[Link]\nUnmanaged=yes\n", first=99)
        if shape.vlans:
            bond = "[Bond]\nMode=active-backup\nMIIMonitorSec=0.1\n"
            self._write("bond0.netdev", f"[NetDev]\nName=bond0\nKind=bond\n{bond}")
            self._write("members.network", f"[Match]\nName={' '.join(MEMBERS)}\n[Network]\nBond=bond0\n")
            vlans = "".join(f"VLAN=bond0.{i}\n" for i in shape.numbers)
            self._write("bond0.network", f"[Match]\nName=bond0\n[Network]\nBridge=xapi0\n{plain}{vlans}")
            self._bridge("xapi0", plain)
        for i in shape.numbers:
            self._bridge(f"xapi{i}", plain)
            if shape.vlans:
                self._write(f"v{i}.netdev", f"[NetDev]\nName=bond0.{i}\nKind=vlan\n[VLAN]\nId={i}\n")
                self._write(f"v{i}.network", f"[Match]\nName=bond0.{i}\n[Network]\nBridge=xapi{i}\n{plain}")

    def _bridge(self, name: str, plain: str) -> None:
        settings = "[Bridge]\nSTP=no\nForwardDelaySec=0\nMulticastSnooping=no\n"
        self._write(f"{name}.netdev", f"[NetDev]\nName={name}\nKind=bridge\n{settings}")
        always = "ConfigureWithoutCarrier=yes\n"
        self._write(f"{name}.network", f"[Match]\nName={name}\n[Network]\n{plain}{always}")

    def _write(self, name: str, text: str, *, first: int = 10) -> None:
        (self._files / f"{first}-{name}").write_text(text)

    def up(self) -> None:
        words = ("unshare", "--mount", "sh", "-c", RUN_NETWORKD, "sh")
        command(*words, str(self._files), str(self._shape.devices), NETWORKD)

    def down(self) -> None:
        clear()


class Ovs:
    """Bridges with a tag on one real bridge, a process for each; the switch's daemon runs beside init."""

    def __init__(self, shape: Shape, _folder: Path) -> None:
        self._shape = shape
        pairs = ["type", "veth", "peer", "name"]
        self._beside = ("nsenter", "-t", "1", "-n")
        for name in MEMBERS:
            command(*self._beside, "ip", "link", "add", f"o{name}", *pairs, f"o{name}p")

    def up(self) -> None:
        vsctl("add-br", "xapi0", "--", "add-bond", "xapi0", "bond0", *(f"o{name}" for name in MEMBERS))
        for i in self._shape.numbers:
            vsctl("add-br", f"xapi{i}", "xapi0", str(i))

    def check(self) -> None:
        for i in self._shape.numbers:
            vsctl("br-to-vlan", f"xapi{i}")

    def down(self) -> None:
        for i in self._shape.numbers:
            vsctl("del-br", f"xapi{i}")
        vsctl("del-br", "xapi0")
        for name in MEMBERS:
            command(*self._beside, "ip", "link", "delete", f"o{name}")


def vsctl(*words: str) -> None:
    command("ovs-vsctl", "--timeout=60", *words)


def missing_of(peer: str, shape: Shape) -> str:
    """What of a peer is not here, in words; empty when it can run."""
    match peer:
        case "ifupdown2":
            return "" if shutil.which("ifreload") else "no ifreload (package ifupdown2)"
        case "systemd-networkd":
            return "" if Path(NETWORKD).exists() else f"no {NETWORKD} (package systemd)"
        case "ovs-vsctl":
            if not shape.vlans:
                return "has no bridge without its own kind of VLAN to compare"
            try:
                vsctl("show")
            except CommandError as error:
                return f"{error.found} (package openvswitch-switch)"
    return ""


PEERS: dict[str, tuple[Any, Sequence[int] | None]] = {
    "ip -batch": (IpBatch, None),
    "ip processes": (IpProcesses, SLOW_COUNTS),
    "ifupdown2": (Ifupdown2, SLOW_COUNTS),
    "systemd-networkd": (Networkd, SLOW_COUNTS),
    "ovs-vsctl": (Ovs, SLOW_COUNTS),
}
