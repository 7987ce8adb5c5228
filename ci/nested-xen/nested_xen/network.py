"""Segments: the networks of a lab, as bridges inside its own network namespace.

Everything of a lab lives in the namespace `lab-<name>`: bridges, taps, QEMU. A segment that has servers gets
a second one, `lab-<name>.<segment>`, joined to its bridge: a server is reached over its own segment only, on
its real port. Removing the namespaces removes the devices; `ip netns pids` names every process. Nothing
touches the machine's own network.

Link-local frames (LACP, LLDP) cross a segment too: a bridge drops them by default, but each *port* may be
told to forward them (group_fwd_mask of the port, where only the PAUSE address stays forbidden).
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nested_xen import process
from nested_xen.errors import LabError
from nested_xen.machine import GATEWAY, SUBNET, Machine, tap_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
FORWARD_LINK_LOCAL = 0xFFFD  # 01:80:c2:00:00:0X for every X but 1 (PAUSE), which the kernel refuses
# the same in every lab: a restored host still has it in its neighbour table
GATEWAY_MAC = "52:54:00:77:00:01"
NAMESPACES = Path("/run/netns")
SERVER_DEVICE = "eth0"
QUIET = (
    ("ipv4/ip_forward", "0"),
    ("ipv4/conf/all/arp_ignore", "1"),
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
)
MTU = 9000  # a segment carries jumbo frames if its hosts want them


def namespace(lab: str, segment: str | None = None) -> str:
    """The lab's namespace, or the one of a segment's servers."""
    return f"lab-{lab}" if segment is None else f"lab-{lab}.{segment}"


def namespaces(lab: str) -> list[str]:
    """All namespaces of the lab that exist, those of servers first."""
    found = [*NAMESPACES.glob(f"{namespace(lab)}.*"), NAMESPACES / namespace(lab)]
    return [path.name for path in found if path.exists()]


def bridge_name(segment: str) -> str:
    """Device name of a segment's bridge; the kernel allows 15 characters."""
    return f"s-{segment}"[:15]


def create(lab: str) -> None:
    """Make the lab's namespace; the management segment's bridge has the gateway address there."""
    process.run(["ip", "netns", "add", namespace(lab)])
    call_inside(lab, _keep_to_own_segment)
    batch(lab, ["link set lo up"])
    add_segment(lab, "management")
    bridge = bridge_name("management")
    batch(
        lab,
        [
            f"link set {bridge} address {GATEWAY_MAC}",
            f"address add {GATEWAY}/{SUBNET.prefixlen} dev {bridge}",
        ],
    )


def add_segment(lab: str, segment: str) -> None:
    """Make a segment; harmless when it is there."""
    if bridge_name(segment) in _bridges(lab):
        return
    name = bridge_name(segment)
    options = "type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
    batch(lab, [f"link add {name} mtu {MTU} {options}", f"link set {name} up"])


def segments(lab: str) -> list[str]:
    """Names of the lab's segments (cut to what a device name holds); none when the lab is half there."""
    if namespace(lab) not in namespaces(lab):
        return []
    return sorted(name.removeprefix("s-") for name in _bridges(lab))


def connect(lab: str, machine: Machine) -> None:
    """Make the taps of a machine's NICs and put each on its segment."""
    lines = []
    for number, nic in enumerate(machine.nics):
        add_segment(lab, nic.segment)
        tap = tap_name(machine.name, number)
        lines += [f"tuntap add dev {tap} mode tap", f"link set {tap} mtu {MTU} up", *_join(tap, nic.segment)]
    batch(lab, lines)


def disconnect(lab: str, machine: Machine) -> None:
    """Remove the taps of a machine that is off."""
    batch(lab, [f"link delete {tap_name(machine.name, number)}" for number in range(len(machine.nics))])


def move(lab: str, tap: str, segment: str) -> None:
    """Put a tap on another segment."""
    add_segment(lab, segment)
    batch(lab, _join(tap, segment))


def set_segment_up(lab: str, segment: str, *, up: bool) -> None:
    """Cut a segment (`up=False`) or mend it; the carrier of its NICs stays."""
    batch(lab, [f"link set {bridge_name(segment)} {'up' if up else 'down'}"])


def give_server_address(lab: str, segment: str, address: str) -> None:
    """Let servers on a segment use `address` (with prefix length); makes their namespace when missing."""
    add_segment(lab, segment)
    name, outer = namespace(lab, segment), f"v-{segment}"[:15]
    if name not in namespaces(lab):
        process.run(["ip", "netns", "add", name])
        call_inside(lab, _keep_to_own_segment, segment=segment)
        pair = f"link add {outer} mtu {MTU} type veth peer name {SERVER_DEVICE} mtu {MTU} netns {name}"
        batch(lab, [pair, *_join(outer, segment), f"link set {outer} up"])
        batch(lab, ["link set lo up", f"link set {SERVER_DEVICE} up"], segment=segment)
    batch(lab, [f"address replace {address} dev {SERVER_DEVICE}"], segment=segment)


def remove(lab: str) -> None:
    """Kill every process in the lab's namespaces and remove these with all devices; harmless when gone."""
    for name in namespaces(lab):
        while pids := process.run(["ip", "netns", "pids", name], check=False).stdout.split():
            for pid in pids:
                process.kill(int(pid))
        process.run(["ip", "netns", "delete", name])


def inside(lab: str, argv: Sequence[str], *, segment: str | None = None) -> list[str]:
    """The argument list that runs `argv` in the lab's namespace, or in that of a segment's servers."""
    return ["nsenter", f"--net={NAMESPACES / namespace(lab, segment)}", *argv]


def call_inside(lab: str, function: Callable[[], T], *, segment: str | None = None) -> T:
    """Run a function in a thread in the lab's namespace (or its servers'); sockets it opens stay there.

    Raises LabError when the namespace cannot be entered, else whatever the function raises.
    """
    outcome: list[T] = []
    problem: list[BaseException] = []

    def work() -> None:
        try:
            enter(lab, segment)
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread below
            problem.append(error)

    thread = threading.Thread(target=work, name=f"in {namespace(lab)}")
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return outcome[0]


def enter(lab: str, segment: str | None = None) -> None:
    """Move the calling thread into the lab's namespace, or into that of a segment's servers."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        file = os.open(NAMESPACES / namespace(lab, segment), os.O_RDONLY)
    except OSError as error:
        raise LabError(f"lab {lab} has no namespace: {error.strerror}", hint="lab up makes it") from error
    try:
        if libc.setns(file, CLONE_NEWNET) != 0:
            raise LabError(f"setns: {os.strerror(ctypes.get_errno())}", hint="the lab needs root")
    finally:
        os.close(file)


def _bridges(lab: str) -> list[str]:
    out = process.run(["ip", "-n", namespace(lab), "-br", "link", "show", "type", "bridge"]).stdout
    return [line.split()[0] for line in out.splitlines()]


def _join(tap: str, segment: str) -> list[str]:
    return [
        f"link set {tap} master {bridge_name(segment)}",
        f"link set {tap} type bridge_slave group_fwd_mask {FORWARD_LINK_LOCAL:#x}",
    ]


def batch(lab: str, lines: Sequence[str], *, segment: str | None = None) -> None:
    """Run lines of `ip -batch` in the lab's namespace, or in that of a segment's servers."""
    process.run(["ip", "-n", namespace(lab, segment), "-batch", "-"], stdin="\n".join(lines) + "\n")


def _keep_to_own_segment() -> None:
    """No routing between segments, no ARP answer for another's address, no IPv6 chatter of our own."""
    for name, value in QUIET:
        path = Path("/proc/sys/net", name)
        if path.exists():
            path.write_text(value)
