"""Servers on a segment: DHCP with DNS (dnsmasq), NFS (nfs-ganesha) and iSCSI (tgt), each on its real port.

They run in the namespace of the segment's servers (`network.give_server_address`) and keep their files in
`<lab's store>/servers/<kind>-<segment>`; `lab down` ends them also when the process that started them is
gone. Each function returns when its server answers, or raises LabError with the server's log.
"""

from __future__ import annotations

import shutil
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from nested_xen import network, process, registry
from nested_xen.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

READY_S = 20
ADDRESS = "198.51.100.1/24"  # RFC 5737 TEST-NET-2
POOL = ("198.51.100.100", "198.51.100.199")
SHORTEST_LEASE_S = 120  # dnsmasq raises anything shorter to this
NFS_PORT, MOUNT_PORT, ISCSI_PORT = 2049, 20048, 3260
NFS_PROGRAM = 100003

GANESHA = """\
NFS_CORE_PARAM {{ Protocols = {protocols}; Bind_addr = {address}; NFS_Port = {nfs}; MNT_Port = {mount};
                 Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}
NFSV4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = {folder}/recovery; minor_versions = 1, 2; }}
EXPORT {{ Export_Id = 1; Path = {export}; Pseudo = /export; Access_Type = {access}; Squash = {squash};
         SecType = sys; Protocols = {protocols}; Transports = TCP; FSAL {{ Name = VFS; }} }}
"""
# rpcbind and ganesha meet at /run/rpcbind.sock: a /run of their own (with this folder in it) keeps them off
# the machine's
NFS_START = """\
set -e
own="$1/run"
mkdir "$own"
mount -t tmpfs none "$own"
mkdir "$own/ganesha"
case $1 in /run/*) mkdir -p "$own/${1#/run/}"; mount --bind "$1" "$own/${1#/run/}" ;; esac
mount --rbind "$own" /run
rpcbind -f &
until [ -S /run/rpcbind.sock ]; do sleep 0.05; done
exec ganesha.nfsd -F -L STDOUT -f "$1/ganesha.conf" -p /run/ganesha.pid
"""


@dataclass
class Server:
    """A running server; a context manager that stops it."""

    lab: str
    segment: str
    folder: Path
    address: str
    """Without prefix length."""
    pid: int

    @property
    def running(self) -> bool:
        return process.alive(self.pid)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def stop(self) -> None:
        """End it as its owner would; harmless when it has ended. Its files stay until `lab down`."""
        process.end(self.pid)

    def kill(self) -> None:
        """End it as a crash would: SIGKILL, nobody is told."""
        process.kill(self.pid)
        process.end(self.pid, timeout_s=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass(frozen=True, slots=True)
class Lease:
    """A DHCP lease as the server keeps it; `expires` in seconds since the epoch, empty texts when not given."""

    expires: int
    mac: str
    address: str
    hostname: str


@dataclass
class DhcpServer(Server):
    """dnsmasq: DHCP and DNS."""

    def leases(self) -> list[Lease]:
        """Leases handed out and not released, as on disk now."""
        file = self.folder / "leases"
        rows = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        blank = {"*": ""}
        return [
            Lease(int(expires), mac, address, blank.get(name, name))
            for expires, mac, address, name, _ in rows
        ]


@dataclass
class NfsServer(Server):
    """nfs-ganesha with one export, pseudo path and v3 path alike `export_path`."""

    export: Path
    """The exported folder on this machine."""
    pseudo: str = "/export"

    def source(self, version: str = "4.2") -> str:
        """What to mount: NFS 4 sees the pseudo path, NFS 3 the real one."""
        return f"{self.address}:{self.export if version.startswith('3') else self.pseudo}"


@dataclass
class IscsiServer(Server):
    """tgt with one target; LUN 1 is `disk`."""

    target: str
    disk: Path

    def stop(self) -> None:
        process.end(self.pid, timeout_s=0)  # tgtd does not end on SIGTERM


def dhcp(
    lab: str,
    segment: str,
    *,
    address: str = ADDRESS,
    pool: tuple[str, str] = POOL,
    lease_s: int = 3600,
    options: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> DhcpServer:
    """Hand out leases and answer DNS.

    Arguments: `address` of the server with prefix length; `pool`, first and last address; `lease_s`, at least
    SHORTEST_LEASE_S; `options` as dnsmasq writes them (`option:router,198.51.100.1`, `option:mtu,9000`);
    `names`, host names and their addresses for DNS.
    """
    if lease_s < SHORTEST_LEASE_S:
        raise LabError(f"a lease of {lease_s} s", hint=f"dnsmasq's shortest is {SHORTEST_LEASE_S} s")
    folder = _prepare(lab, segment, "dhcp", address)
    lines = [
        f"dhcp-range={pool[0]},{pool[1]},{lease_s}s",
        f"dhcp-leasefile={folder}/leases",
        f"interface={network.SERVER_DEVICE}",
        "dhcp-authoritative",
        "bind-interfaces",
        "except-interface=lo",
        "no-resolv",
        "no-hosts",
        "no-ping",
        "log-dhcp",
        "user=root",
        "pid-file",
        *(f"dhcp-option={option}" for option in options),
        *(f"host-record={name},{where}" for name, where in (names or {}).items()),
    ]
    (folder / "dnsmasq.conf").write_text("\n".join(lines) + "\n")
    dnsmasq = process.require("dnsmasq", "dnsmasq-base")
    words = [dnsmasq, "--keep-in-foreground", "--log-facility=-", f"--conf-file={folder}/dnsmasq.conf"]
    pid = _spawn(lab, segment, folder, words)
    server = DhcpServer(lab, segment, folder, address.partition("/")[0], pid)
    _await(server, lambda: "DHCP, IP range" in server.log)
    return server


def nfs(
    lab: str,
    segment: str,
    *,
    address: str = ADDRESS,
    versions: Sequence[int] = (3, 4),
    read_only: bool = False,
    squash: str = "No_Root_Squash",
) -> NfsServer:
    """Export an empty folder over NFS 3 (with rpcbind and mountd, no locking), 4.1 and 4.2, without grace
    period.
    """
    folder = _prepare(lab, segment, "nfs", address)
    export = folder / "export"
    for path in (export, folder / "recovery"):
        path.mkdir()
    plain = address.partition("/")[0]
    text = GANESHA.format(
        protocols=", ".join(map(str, versions)),
        address=plain,
        nfs=NFS_PORT,
        mount=MOUNT_PORT,
        folder=folder,
        export=export,
        access="RO" if read_only else "RW",
        squash=squash,
    )
    (folder / "ganesha.conf").write_text(text)
    process.require("ganesha.nfsd", "nfs-ganesha nfs-ganesha-vfs")
    process.require("rpcbind", "rpcbind")
    words = ["unshare", "--mount", "sh", "-c", NFS_START, "sh", str(folder)]
    server = NfsServer(lab, segment, folder, plain, _spawn(lab, segment, folder, words), export)
    _await(server, lambda: _answers_rpc(server, max(versions)))
    return server


def iscsi(
    lab: str,
    segment: str,
    *,
    address: str = ADDRESS,
    size_mib: int = 256,
    chap: tuple[str, str] | None = None,
    target: str = "iqn.2026-01.invalid.hostagent-lab:disk",
) -> IscsiServer:
    """One iSCSI target with a disk of `size_mib`; `chap`: user and password that initiators must give."""
    folder = _prepare(lab, segment, "iscsi", address)
    plain = address.partition("/")[0]
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(size_mib << 20)
    tgtd = process.require("tgtd", "tgt")
    control = f"TGT_IPC_SOCKET={registry.folder(lab)}/tgt-{segment}"  # a socket's path must be short
    words = ["env", control, tgtd, "-f", "--iscsi", f"portal={plain}:{ISCSI_PORT}"]
    server = IscsiServer(
        lab, segment, folder, plain, _spawn(lab, segment, folder, words), target=target, disk=disk
    )

    def admin(*more: str, check: bool = True) -> bool:
        line = ["env", control, "tgtadm", "--lld", "iscsi", *more]
        return (
            process.run(network.inside(lab, line, segment=segment), check=check, timeout_s=READY_S).code == 0
        )

    _await(server, lambda: admin("--mode", "system", "--op", "show", check=False))
    admin("--mode", "target", "--op", "new", "--tid", "1", "-T", target)
    admin("--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", str(disk))
    if chap is not None:
        user, password = chap
        admin("--mode", "account", "--op", "new", "--user", user, "--password", password)
        admin("--mode", "account", "--op", "bind", "--tid", "1", "--user", user)
    admin("--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL")
    _await(server, lambda: _connects(server, ISCSI_PORT))
    return server


def _prepare(lab: str, segment: str, kind: str, address: str) -> Path:
    """The server's empty folder; its address is on the segment."""
    folder = registry.store(lab) / "servers" / f"{kind}-{segment}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    network.give_server_address(lab, segment, address)
    return folder


def _spawn(lab: str, segment: str, folder: Path, words: Sequence[str]) -> int:
    return process.spawn(network.inside(lab, words, segment=segment), log=folder / "log")


def _await(server: Server, ready: Callable[[], bool]) -> None:
    """Wait until `ready`; a server that ends or does not get there is stopped and its log shown."""
    deadline = time.monotonic() + READY_S
    while not ready():
        if not server.running or time.monotonic() > deadline:
            server.stop()
            raise LabError(f"{server.folder.name} does not answer: {server.log[-2000:]}")
        time.sleep(0.05)


def _connects(server: Server, port: int) -> bool:
    def connect() -> bool:
        with socket.socket() as client:
            client.settimeout(1)
            return client.connect_ex((server.address, port)) == 0

    return network.call_inside(server.lab, connect, segment=server.segment)


def _answers_rpc(server: Server, version: int) -> bool:
    """Does the NFS program answer its NULL procedure (RFC 5531) with success?"""
    call = struct.pack("!I6I4I", 0x80000028, 1, 0, 2, NFS_PROGRAM, version, 0, 0, 0, 0, 0)

    def ask() -> bool:
        try:
            with socket.create_connection((server.address, NFS_PORT), timeout=1) as client:
                client.sendall(call)
                return client.recv(64)[8:] == struct.pack("!5I", 1, 0, 0, 0, 0)
        except OSError:
            return False

    return network.call_inside(server.lab, ask, segment=server.segment)
