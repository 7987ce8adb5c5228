"""The database follows the kernel: what its own events say, and what `event.from` answers, on one clock of the host.

How long it takes is printed and not asserted: an emulated host says little about it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from nested_xen import faults, services

from tests.xen.net_look import await_that, look
from tests.xen.net_operator import PREFIX, STATIC, clean, opened

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(1800)]

STORAGE, BOND_A = 1, 2
ADDRESS = STATIC.format(11)
WATCH = "/root/watch.py"
SEEN = "/run/watched.jsonl"
FIELDS = ("device", "currently_attached", "IP", "carrier", "speed")

WATCHER = r'''
"""Tells, a line each, what the kernel says of links and addresses and what event.from answers, with the host's clock."""
import http.client, json, socket, struct, sys, threading, time

SOCKET, FIELDS = "/run/hostagent/api.sock", tuple(sys.argv[1:])
NEWLINK, DELLINK, NEWADDR, DELADDR = 16, 17, 20, 21
LOWER_UP = 0x10000
lock = threading.Lock()

def tell(at, **what):
    with lock:
        print(json.dumps({"at": at, **what}), flush=True)

class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)

def call(method, *params):
    connection = Local("localhost")
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    connection.request("POST", "/jsonrpc", body, {"Content-Type": "application/json"})
    reply = json.loads(connection.getresponse().read())
    connection.close()
    return reply["result"]

def attributes(data):
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found

def kernel(heard):
    while True:
        data, at, now = heard.recv(1 << 17), 0, time.monotonic()
        while at + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if length < 16:
                break
            body = data[at + 16 : at + length]
            if kind in (NEWLINK, DELLINK) and body[0] == socket.AF_UNSPEC:
                index, flags = struct.unpack_from("=iI", body, 4)
                more = attributes(body[16:])
                master = struct.unpack("=I", more[10])[0] if 10 in more else 0
                name = more[3].rstrip(b"\0").decode()
                tell(now, by="kernel", link=name, carrier=bool(flags & LOWER_UP), master=master)
            elif kind in (NEWADDR, DELADDR) and body[0] == socket.AF_INET:
                text = socket.inet_ntoa(attributes(body[8:])[2])
                tell(now, by="kernel", address=text, there=kind == NEWADDR)
            at += (length + 3) & ~3

heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
heard.bind((0, 1 | 0x10))  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR
session = call("session.login_with_password", "root", "", "1.0", "test")
token = call("event.from", session, ["PIF", "PIF_metrics"], "", 0)["token"]
threading.Thread(target=kernel, args=(heard,), daemon=True).start()
tell(time.monotonic(), by="ready")
while True:
    batch = call("event.from", session, ["PIF", "PIF_metrics"], token, 60)
    now, token = time.monotonic(), batch["token"]
    for event in batch["events"]:
        record = event.get("snapshot") or {}
        told = {name: record[name] for name in FIELDS if name in record}
        tell(now, by="api", ref=event["ref"], **told)
'''


class Watched:
    """What was seen, in the order of the host's clock."""

    def __init__(self, host: Any) -> None:
        self._host = host
        host.exec(f"cat >{WATCH}", stdin=WATCHER)
        host.exec(
            f"rm -f {SEEN}; systemd-run --quiet --unit watching"
            f" --property=StandardOutput=file:{SEEN} python3 -I -B {WATCH} {' '.join(FIELDS)}"
        )
        await_that(lambda: any(row["by"] == "ready" for row in self.rows()), "somebody watches")

    def rows(self) -> list[dict[str, Any]]:
        text = self._host.exec(f"cat {SEEN}", check=False).stdout
        whole = text[: text.rfind("\n") + 1]
        return sorted(map(json.loads, whole.splitlines()), key=lambda row: row["at"])

    def await_both(self, what: str, said: dict[str, Any], *, recorded: dict[str, Any]) -> None:
        """After `said` of the kernel the record is `recorded`; how long that took is printed. Later calls look at what
        comes after it.
        """

        def found() -> tuple[dict[str, Any], dict[str, Any]] | None:
            rows = [row for row in self.rows() if row["at"] > self._after]
            begun = next((row for row in rows if row["by"] == "kernel" and said.items() <= row.items()), None)
            if begun is None:
                return None
            since = (row for row in rows if row["by"] == "api" and row["at"] >= begun["at"])
            ended = next((row for row in since if recorded.items() <= row.items()), None)
            return None if ended is None else (begun, ended)

        await_that(found, f"{what}: told by the kernel, then by event.from")
        both = found()
        assert both is not None
        begun, ended = both
        self._after = ended["at"]
        print(f"{what}: {ended['at'] - begun['at']:.3f} s from the kernel's event to event.from's answer")

    _after = 0.0


@pytest.fixture
def net(xen_host):
    clean(xen_host)
    with opened(xen_host) as made:
        yield made
    xen_host.exec("systemctl stop watching", check=False)
    clean(xen_host)


@pytest.mark.full
def test_carrier_attachment_addresses_and_speed_in_the_database_follow_the_kernels_events(net):
    host, nic, other = net.host, net.nic(STORAGE), net.nic(BOND_A)
    net.static(nic.pif, ADDRESS)
    net.api.PIF.plug(nic.pif)
    metrics = net.record(nic.pif)["metrics"]
    bridge = look(host).links[nic.bridge]["ifindex"]
    watched = Watched(host)

    faults.set_carrier(host, STORAGE, up=False)
    watched.await_both(
        "cable out", {"link": nic.name, "carrier": False}, recorded={"ref": metrics, "carrier": False}
    )
    faults.set_carrier(host, STORAGE, up=True)
    watched.await_both(
        "cable in", {"link": nic.name, "carrier": True}, recorded={"ref": metrics, "carrier": True}
    )
    speed = host.exec(f"cat /sys/class/net/{nic.name}/speed").stdout.strip()
    assert int(speed) > 0
    await_that(lambda: net.api.PIF_metrics.get_speed(metrics) == speed, "the record has the speed")

    host.exec(f"ip link set {nic.name} nomaster")
    watched.await_both(
        "taken out of its bridge",
        {"link": nic.name, "master": 0},
        recorded={"ref": nic.pif, "currently_attached": False},
    )
    host.exec(f"ip link set {nic.name} master {nic.bridge}")
    watched.await_both(
        "put back",
        {"link": nic.name, "master": bridge},
        recorded={"ref": nic.pif, "currently_attached": True},
    )

    with services.dhcp(host.lab, "bond-a") as server:
        net.api.PIF.reconfigure_ip(other.pif, "DHCP", "", "", "", "")
        net.api.PIF.plug(other.pif)
        await_that(lambda: look(host).addresses(other.bridge), "an address by DHCP")
        [lease] = server.leases()
        assert look(host).addresses(other.bridge) == {f"{lease.address}/{PREFIX}"}
        watched.await_both(
            "an address of a DHCP server",
            {"address": lease.address, "there": True},
            recorded={"ref": other.pif, "IP": lease.address},
        )
