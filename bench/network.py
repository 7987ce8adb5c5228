"""One bond, then many VLAN networks: brought up, checked and torn down, beside other programs that do the same.

Run it as root in a dom0 with hostagent installed: /opt/hostagent/current/bin/python network.py [--json]. It works in
a network namespace of its own, between two pairs of veth devices. Ours is the whole change: wanted, planned,
journalled, done, looked at and compared, in this process, with the records at hand. A network is a bridge with one
VLAN device of the bond, without IPv6 of its own. Peers: `ip -batch`, one `ip` process for each operation, ifupdown2,
systemd-networkd and ovs-vsctl, the slow ones at few networks only; a peer whose program is missing is named. Last,
`interface-reconfigure up` for one VLAN beside a Python that imports argparse, json, socket and struct and sends the
same messages. With --bridges-only networks have no VLAN and there is no bond, for kernels without them. Exit code 1:
a limit was missed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostagent.net import apply, sysctl
from hostagent.net.devices import Wanted
from hostagent.net.journal import COMMITTED, mark
from hostagent.net.model import want, want_network
from hostagent.net.netlink import Netlink
from hostagent.net.plan import plan
from hostagent.net.records import Bond, Network, Pif, Records, Vlan
from hostagent.net.verify import differences
from hostagent.net.wire import encode
from hostagent.run import CommandError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench._network_peers import COUNTS, MAC, MEMBERS, PEERS, Shape, Times, cables, clear, command, missing_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.net.operation import Operation

LONG = 500
CLONE_NEWNET = 0x40000000
PROGRAM = "/usr/sbin/interface-reconfigure"
LIMITS = {
    "up_vs_ip_batch": 1.2,
    "check_vs_up": 0.1,
    "cost_growth": 1.5,
    "reconfigure_ratio": 2.0,
}
"""What the result may be at the most: bring-up beside `ip -batch` at the worst count, a check without change beside the
bring-up at 1000, what a network costs at 1000 beside what it costs at 100, and the command beside its peer."""
LEAST = {"ifupdown2_vs_up": 10.0}
"""What it must be at the least: ifupdown2's bring-up of 50 beside ours."""


# --- ours ---


def records_of(shape: Shape, *, attached: bool) -> Records:
    """What the database would say."""
    networks = {f"n{i}": Network(f"n{i}", f"network-{i}", f"network {i}", f"xapi{i}") for i in shape.numbers}
    if not shape.vlans:
        return Records("host", {}, networks, {}, {})
    networks["n0"] = Network("n0", "network-0", "the bond's", "xapi0")
    pifs = {
        name: Pif(
            name, f"pif-{name}", name, f"of-{name}", mac=MAC.format(n), physical=True, bond_slave_of="bond"
        )
        for n, name in enumerate(MEMBERS)
    }
    networks |= {f"of-{name}": Network(f"of-{name}", name, name, f"xenbr{name}") for name in MEMBERS}
    vlans = {f"v{i}": Vlan(f"v{i}", f"vlan-{i}", "master", f"p{i}", i) for i in shape.numbers}
    pifs["master"] = Pif(
        "master",
        "pif-master",
        "bond0",
        "n0",
        mac=MAC.format(0),
        currently_attached=attached,
        bond_master_of=("bond",),
        vlan_slave_of=tuple(vlans),
    )
    for i in shape.numbers:
        pifs[f"p{i}"] = Pif(
            f"p{i}",
            f"pif-{i}",
            "bond0",
            f"n{i}",
            vlan=i,
            currently_attached=attached,
            vlan_master_of=f"v{i}",
        )
    bond = Bond("bond", "bond-uuid", "master", MEMBERS, MEMBERS[0], "active-backup")
    return Records("host", pifs, networks, {"bond": bond}, vlans)


def wanted_up(shape: Shape, records: Records) -> Wanted:
    if shape.vlans:
        return want(records, ["master", *(f"p{i}" for i in shape.numbers)])
    return Wanted(tuple(d for ref in records.networks for d in want_network(records, ref).devices))


def wanted_down(shape: Shape, records: Records) -> Wanted:
    if shape.vlans:
        return want(records, (), down=[*(f"p{i}" for i in shape.numbers), "master"])
    return Wanted(
        gone=tuple(n for ref in records.networks for n in want_network(records, ref, present=False).gone)
    )


class Ours:
    """hostagent's own way, from records to a verified kernel."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self._shape = shape
        self._folder = folder
        self._before = records_of(shape, attached=False)
        self._after = records_of(shape, attached=True)

    def up(self) -> None:
        self._change(lambda: wanted_up(self._shape, self._before))

    def check(self) -> None:
        with Netlink() as kernel:
            wanted, found = wanted_up(self._shape, self._after), kernel.look()
            wrong = differences(wanted, found)
            assert wrong == (), wrong[:3]

    def down(self) -> None:
        self._change(lambda: wanted_down(self._shape, self._after))

    def _change(self, wish: Callable[[], Wanted]) -> None:
        with Netlink() as kernel:
            wanted = wish()
            planned = plan(wanted, kernel.look())
            assert planned.steps
            journal, _ = apply.carry_out(
                planned,
                tools(kernel),
                self._folder,
                boot="bench",
                digest="",
                what="bench",
                check=lambda found: differences(wanted, found),
            )
            mark(self._folder, journal, COMMITTED)


def tools(kernel: Netlink) -> apply.Tools:
    def none(*_: object) -> None:
        raise AssertionError("no plan of these networks needs it")

    return apply.Tools(
        netlink=kernel,
        sysctl=lambda path, value: sysctl.write(Path("/"), path, value),
        ethtool=none,
        lease_start=none,
        lease_stop=none,
        resolver=none,
    )


# --- the measurement ---


def own_namespace() -> None:
    """Move this process, and what it starts, into a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}; run as root")
    command("ip", "link", "set", "lo", "up")


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def once(kind: Any, shape: Shape) -> Times:
    """One round of one program, which leaves nothing."""
    clear()
    with tempfile.TemporaryDirectory() as name:
        peer = kind(shape, Path(name))
        up = seconds(peer.up)
        check = seconds(peer.check) if hasattr(peer, "check") else None
        return Times(up, check, seconds(peer.down))


def told(name: str, count: int, times: Times) -> Times:
    """The same, said on standard error: under emulation the slow peers take minutes."""
    print(f"{count:8}  {name:18} up {times.up:8.2f} s  down {times.down:8.2f} s", file=sys.stderr, flush=True)
    return times


def measure(count: int, rounds: int, *, vlans: bool) -> dict[str, Any]:
    """Ours and every peer at one count, in turn, so that a busy machine slows all alike."""
    shape = Shape(count, vlans)
    found: dict[str, list[Times]] = {"ours": []}
    missing = {}
    for name, (_, counts) in PEERS.items():
        if counts is None or count in counts:
            missing[name] = missing_of(name, shape)
            found[name] = []
    for number in range(rounds):
        found["ours"].append(told("ours", count, once(Ours, shape)))
        for name, why in missing.items():
            if not why and (name == "ip -batch" or number == 0):
                try:
                    found[name].append(told(name, count, once(PEERS[name][0], shape)))
                except CommandError as error:
                    missing[name] = f"it failed: {error.found}"
    pairs = list(zip(found["ours"], found["ip -batch"], strict=False))  # none where `ip -batch` failed
    middle: dict[str, Any] = {
        name: {
            field: None if values[0] is None else statistics.median(values)
            for field, values in zip(Times._fields, zip(*times, strict=True), strict=True)
        }
        for name, times in found.items()
        if times
    }
    return {
        "count": count,
        "seconds": middle,
        "missing": {name: why for name, why in missing.items() if why},
        "up_vs_ip_batch": statistics.median([ours.up / batch.up for ours, batch in pairs] or [math.nan]),
        "check_vs_up": middle["ours"]["check"] / middle["ours"]["up"],
    }


# What a Python costs that imports the same and sends the same: argv[1] holds messages in hex, and files of /proc/sys.
SAME_MESSAGES = """
import argparse, json, socket, struct, sys
parser = argparse.ArgumentParser()
parser.add_argument("file")
with open(parser.parse_args().file) as file:
    steps = json.load(file)
kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
kernel.bind((0, 0))
for what, value in steps:
    if what:
        with open("/proc/sys/" + what, "w") as file:
            file.write(value)
    else:
        kernel.send(bytes.fromhex(value))
        while True:
            answer = kernel.recv(65536)
            if struct.unpack_from("=IHH", answer)[1] == 2:
                number = struct.unpack_from("=i", answer, 16)[0]
                if number:
                    sys.exit(number)
                break
"""


def reconfigure(rounds: int) -> dict[str, Any]:
    """`interface-reconfigure up` from the cached copy for one VLAN, beside the same messages."""
    program = shutil.which(Path(PROGRAM).name) or str(
        Path(__file__).parents[1] / "scripts" / Path(PROGRAM).name
    )
    if not Path(program).exists():
        return {"reconfigure_missing": f"no {PROGRAM}", "reconfigure_ratio": math.nan}
    cache = importlib.import_module("hostagent.net.cache")
    shape = Shape(1, vlans=True)
    clear()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder in ("proc", "sys"):
            (root / folder).symlink_to(f"/{folder}")
        records = records_of(shape, attached=False)
        cache.write(root / "var/lib/hostagent/net", records)
        ours = [program, f"--root-prefix={name}", "--force", "xapi1"]
        command(*ours[:-1], "xapi0", "up")
        attached = records._replace(
            pifs={**records.pifs, "master": records.pifs["master"]._replace(currently_attached=True)}
        )
        with Netlink() as kernel:
            steps = [step.do for step in plan(want(attached, ["p1"]), kernel.look()).steps]
        messages = root / "messages"
        messages.write_text(json.dumps([encoded(one) for one in steps]))
        peer = [sys.executable, "-I", "-c", SAME_MESSAGES, str(messages)]
        pairs = []
        for _ in range(rounds):
            mine = seconds(lambda: command(*ours, "up"))
            command(*ours, "down")
            theirs = seconds(lambda: command(*peer))
            command(*ours, "down")
            pairs.append((mine, theirs))
    return {
        "reconfigure_s": statistics.median(mine for mine, _ in pairs),
        "same_messages_s": statistics.median(theirs for _, theirs in pairs),
        "reconfigure_ratio": statistics.median(mine / theirs for mine, theirs in pairs),
    }


def encoded(operation: Operation) -> tuple[str, str]:
    args: Any = operation.args
    if operation.verb == "sysctl":
        return args["path"], args["value"]
    return "", encode(operation, 1, ack=True).hex()


def summary(results: list[dict[str, Any]]) -> dict[str, float]:
    """The figures that have limits, as far as they were measured."""
    by_count = {result["count"]: result for result in results}
    ours = {count: result["seconds"]["ours"]["up"] for count, result in by_count.items()}
    ratios = [result["up_vs_ip_batch"] for result in results]
    found = {"up_vs_ip_batch": math.nan if any(map(math.isnan, ratios)) else max(ratios)}
    if 1000 in ours:
        found["check_vs_up"] = by_count[1000]["check_vs_up"]
    if 100 in ours and 1000 in ours:
        found["cost_growth"] = (ours[1000] / 1000) / (ours[100] / 100)
    if 50 in ours:
        slow = by_count[50]["seconds"].get("ifupdown2")
        found["ifupdown2_vs_up"] = slow["up"] / ours[50] if slow else math.nan
    return found


def missed(found: dict[str, Any]) -> list[str]:
    """The figures past their limit, and those that were to be measured and could not be."""
    return [
        *(name for name, limit in LIMITS.items() if not found.get(name, 0) <= limit),
        *(name for name, least in LEAST.items() if not found.get(name, least) >= least),
    ]


def show(results: list[dict[str, Any]], found: dict[str, Any], over: list[str]) -> None:
    print(f"{'networks':>8}  {'':18} {'up ms':>10} {'check ms':>10} {'down ms':>10}  {'up beside ours':>14}")
    for result in results:
        for name, times in result["seconds"].items():
            columns = " ".join(
                "          " if times[field] is None else f"{times[field] * 1000:10.1f}"
                for field in Times._fields
            )
            ratio = times["up"] / result["seconds"]["ours"]["up"]
            print(f"{result['count']:8}  {name:18} {columns}  {ratio:14.2f}")
        for name, why in result["missing"].items():
            print(f"{result['count']:8}  {name:18} not measured: {why}")
    for name, value in found.items():
        limit = f"  at most {LIMITS[name]:g}" if name in LIMITS else ""
        limit = f"  at least {LEAST[name]:g}" if name in LEAST else limit
        text = f"{value:8.3f}" if isinstance(value, float) else value
        print(f"{name:20} {text}{limit}{'   MISSED' if name in over else ''}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help=f"how often each (default: %(default)s; once from {LONG} networks on)",
    )
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="how many networks")
    parser.add_argument("--bridges-only", action="store_true", help="networks without VLAN, no bond")
    arguments = parser.parse_args()
    own_namespace()
    with contextlib.suppress(CommandError):
        command("modprobe", "-a", "bonding", "8021q", "bridge", "veth")
    cables()
    vlans = not arguments.bridges_only
    results = [
        measure(count, arguments.rounds if count < LONG else 1, vlans=vlans) for count in arguments.counts
    ]
    found: dict[str, Any] = summary(results)
    if vlans:
        found |= reconfigure(10)
    over = missed(found)
    if arguments.json:
        print(json.dumps({"results": results, **found, "missed": over}))
    else:
        show(results, found, over)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
