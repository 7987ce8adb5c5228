"""Links made in a network namespace of a test's own, and what iproute2 says of them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from hostagent.net.netlink import Netlink, NetlinkError
from hostagent.net.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostagent.net.devices import Link
    from hostagent.net.operation import Value


CLONE_NEWNET = 0x40000000
A, B, C, D = range(0x10000000, 0x10000004)
SOON_S = 5


@contextlib.contextmanager
def own_namespace() -> Iterator[None]:
    """This thread is in an empty namespace, which goes with the last socket in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
        assert libc.setns(home, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(home)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=20)


def ip_json(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(["ip", "-j", *arguments], check=True, capture_output=True, text=True, timeout=20)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found


def device(name: str) -> dict[str, Any]:
    [found] = ip_json("-d", "link", "show", "dev", name)
    return found


def add(name: str, index: int, kind: str = "bridge", **args: Value) -> Operation:
    return Operation("link-add", name, index, {"kind": kind, **args})


def change(verb: str, name: str, index: int, **args: Value) -> Operation:
    return Operation(verb, name, index, args)


def link(netlink: Netlink, name: str) -> Link:
    return netlink.look().by_name()[name]


def needs(netlink: Netlink, kind: str, **args: Value) -> None:
    """Skip, naming the kind, when this kernel cannot make it."""
    probe = add("probe", D, kind, **args)
    try:
        netlink.execute([probe, change("link-del", "probe", D)])
    except NetlinkError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip(f"the kernel has no {kind} device: {error.text}")


BRIDGE = add(
    "xapi1",
    A,
    mac="02:00:00:00:00:01",
    mtu=1400,
    group=171,
    up=True,
    settings={"forward_delay": 0, "mcast_snooping": 0, "priority": 4096, "ageing_time": 12000},
)
