"""The command `lab`: real Xen hosts from the command line."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nested_xen import install, lab, network, process, progress, registry
from nested_xen.errors import LabError
from nested_xen.host import SERIAL_LOG
from nested_xen.image import Release
from nested_xen.machine import MAX_HOSTS, custom, standard

if TYPE_CHECKING:
    from nested_xen.host import Host
    from nested_xen.machine import Machine

EXAMPLES = """\
examples:
  lab up                                  one Debian 13 Xen host, h1, in the lab `default`
  lab up --release bookworm --hosts 2     two Debian 12 hosts, h1 and h2, on common segments
  lab install                             hostagent into every host's dom0, then `lab exec h1 hostagent status`
  lab ssh h1                              a root shell in dom0
  lab snapshot h1 before; lab reset h1 --to before
  lab down                                everything of it is gone

The first `up` of a release builds its image (a minute or two) and boots each host once (a minute or more
under emulation); from then on a fresh booted host takes seconds. Everything stays inside one network
namespace per lab.
"""

UNUSUAL = (
    "nics",
    "memory_mib",
    "macs",
    "pci_order",
    "missing",
    "without_carrier",
    "e1000e",
    "sata",
    "nvme",
    "usb",
    "cd",
)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        process.require_root()
        return int(args.handler(args))
    except (LabError, OSError) as problem:
        error = problem if isinstance(problem, LabError) else LabError(str(problem))
        if args.json:
            print(json.dumps({"error": error.found, "hint": error.hint}))
        else:
            print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; `lab list` shows what is up, `lab down` removes it", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="default", help="which lab (default: %(default)s)")
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    parser = argparse.ArgumentParser(
        prog="lab",
        description="Boot real Xen hosts under QEMU and work with them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(name: str, handler: object, text: str) -> argparse.ArgumentParser:
        found = verbs.add_parser(name, parents=[common], help=text, description=text)
        found.set_defaults(handler=handler)
        return found

    up = verb("up", _up, "Bring a lab up: fresh, booted Xen hosts that answer ssh.")
    up.add_argument(
        "--release", choices=[*Release], default=Release.TRIXIE, help="Debian release (default: %(default)s)"
    )
    up.add_argument(
        "--hosts", type=int, choices=range(1, MAX_HOSTS + 1), default=1, help="how many (default: 1)"
    )
    up.add_argument(
        "--accel", choices=["auto", "kvm", "tcg"], default="auto", help="default: auto, probes and says"
    )
    up.add_argument("--install", action="store_true", help="with hostagent installed")
    odd = up.add_argument_group(
        "unusual hardware", "for h1; such a machine boots cold, which takes a minute or more"
    )
    odd.add_argument("--nics", type=int, metavar="N", help="how many NICs (default: 4)")
    odd.add_argument("--memory", type=int, metavar="MIB", dest="memory_mib", help="(default: 3072)")
    odd.add_argument("--macs", type=_words, metavar="MAC,MAC", help="of the first NICs, in order")
    odd.add_argument("--pci-order", type=_numbers, metavar="N,N,…", help="which PCI place each NIC sits in")
    odd.add_argument(
        "--missing", type=_numbers, metavar="N,N", help="NICs that are not there; 0 is management"
    )
    odd.add_argument("--without-carrier", type=_numbers, metavar="N,N", help="NICs whose cable is out")
    odd.add_argument("--e1000e", type=_numbers, metavar="N,N", help="NICs of that model, and not virtio")
    for bus in ("sata", "nvme", "usb", "cd"):
        odd.add_argument(f"--{bus}", type=int, metavar="N", help=f"that many {bus} disks more")
    down = verb("down", _down, "Take a lab down; nothing of it is left.")
    down.add_argument("--all", action="store_true", help="every lab that is up")
    verb("list", _list, "Labs that are up, with their hosts and segments.")
    ssh = verb("ssh", _ssh, "A root shell in a host's dom0.")
    execute = verb(
        "exec", _exec, "Run a command in a host's dom0 with our input; its exit code is this command's."
    )
    execute.add_argument("--timeout", type=float, default=300, help="seconds (default: %(default)s)")
    copy = verb(
        "copy", _copy, "Copy a file or folder into dom0, or a file out of it (HOST:PATH names the far side)."
    )
    copy.add_argument("source")
    copy.add_argument("target")
    reset = verb(
        "reset", _reset, "Back to the state the host came from, in seconds; all its changes are gone."
    )
    reset.add_argument("--to", metavar="SNAPSHOT", help="to a snapshot of yours instead")
    snapshot = verb("snapshot", _snapshot, "Save a host as it is now, for `reset --to`.")
    logs = verb("logs", _logs, "The serial console of a host: hypervisor and dom0 from power-on.")
    logs.add_argument("--follow", "-f", action="store_true", help="go on as it grows")
    deploy = verb("install", _install, "Install or upgrade hostagent in dom0, as an operator would.")
    for one in (ssh, execute, reset, snapshot, logs):
        one.add_argument("host", metavar="HOST", help="h1, h2, …")
    snapshot.add_argument("snapshot", metavar="SNAPSHOT", help="a name for it")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    ssh.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    deploy.add_argument("host", nargs="*", metavar="HOST", help="default: all of the lab")
    return parser


def _up(args: argparse.Namespace) -> int:
    started = time.monotonic()
    made = lab.create(args.name, Release(args.release), accel=args.accel, hosts=args.hosts)
    progress.note(f"accelerator: {made.accel.kind} ({made.accel.why})")
    try:
        unusual = {name: getattr(args, name) for name in UNUSUAL if getattr(args, name) is not None}
        for index in range(1, args.hosts + 1):
            host = made.start(_custom(index, unusual) if unusual and index == 1 else standard(index))
            if args.install:
                with progress.step(f"installing hostagent on {host.name}"):
                    if host.machine.odd:
                        install.install(host)
                    else:
                        host.restore(install.installed_state(host))
        made.record()
    except BaseException:
        if not made.hosts:
            lab.down(args.name)
        raise
    seconds = time.monotonic() - started
    record = _describe(made) | {"seconds": round(seconds, 1)}
    _print(args, record, [f"lab {made.name} is up in {seconds:.1f} s:", *_lines(record)])
    return 0


def _custom(index: int, hardware: dict[str, Any]) -> Machine:
    try:
        return custom(index, **hardware)
    except ValueError as error:
        raise LabError(str(error), hint="lab up --help") from error


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _down(args: argparse.Namespace) -> int:
    gone = registry.names() if args.all else [args.name]
    for name in gone:
        with progress.step(f"taking lab {name} down"):
            lab.down(name)
    # a killed `up` can have been in the middle of a saved state, which is made in a lab of its own
    gone += registry.drop_stale()
    _print(args, {"down": gone}, [f"lab {name} is gone" for name in gone] or ["no lab is up"])
    return 0


def _list(args: argparse.Namespace) -> int:
    records = [_describe(lab.open_lab(name)) for name in registry.names()]
    lines = [line for record in records for line in [f"lab {record['name']}:", *_lines(record)]]
    _print(args, {"labs": records}, lines or ["no lab is up; `lab up` makes one"])
    return 0


def _ssh(args: argparse.Namespace) -> int:
    if args.json:
        raise LabError("a shell has no JSON form", hint="lab exec --json HOST COMMAND")
    words = _host(args).ssh_arguments()
    process.exec_replace([*words[:-1], "-t", words[-1], *args.command])
    return 0


def _exec(args: argparse.Namespace) -> int:
    if not args.command:
        raise LabError("no command given", hint="lab exec h1 xl info")
    host, line = _host(args), " ".join(args.command)
    if not args.json:
        return process.stream([*host.ssh_arguments(), line], timeout_s=args.timeout)
    with progress.step(f"running on {host.name}"):
        result = host.exec(line, check=False, timeout_s=args.timeout)
    print(json.dumps({"code": result.code, "stdout": result.stdout, "stderr": result.stderr}))
    return result.code


def _copy(args: argparse.Namespace) -> int:
    hosts = lab.open_lab(args.name).hosts
    source_host, _, source = args.source.rpartition(":")
    target_host, _, target = args.target.rpartition(":")
    if (source_host in hosts) == (target_host in hosts) or (source_host and target_host):
        raise LabError(
            "one side is HOST:PATH, the other a local path", hint="lab copy notes.txt h1:/root/notes.txt"
        )
    with progress.step(f"copying {args.source} to {args.target}"):
        if target_host:
            if not Path(source).exists():
                raise LabError(f"there is no {source}")
            hosts[target_host].put(Path(source), target)
        else:
            local = Path(target)
            hosts[source_host].get(source, local / Path(source).name if local.is_dir() else local)
    _print(args, {"copied": [args.source, args.target]}, [])
    return 0


def _reset(args: argparse.Namespace) -> int:
    opened = lab.open_lab(args.name)
    host = _host(args)
    started = time.monotonic()
    opened.hosts[host.name] = host
    try:
        with progress.step(f"resetting {host.name}"):
            host.reset(args.to)
    finally:
        opened.record()
    _print(args, {"host": host.name, "seconds": round(time.monotonic() - started, 1)}, [])
    return 0


def _snapshot(args: argparse.Namespace) -> int:
    host = _host(args)
    with progress.step(f"saving {host.name} as {args.snapshot}"):
        host.snapshot(args.snapshot)
    _print(args, {"host": host.name, "snapshot": args.snapshot}, [])
    return 0


def _logs(args: argparse.Namespace) -> int:
    host = _host(args)
    log = host.folder / SERIAL_LOG
    if not log.exists():
        raise LabError(f"{host.name} has no serial log yet: it was never on")
    if args.json:
        if args.follow:
            raise LabError("--follow has no JSON form", hint="leave one of the two away")
        print(json.dumps({"host": host.name, "serial": log.read_text(errors="replace")}))
        return 0
    with log.open(errors="replace") as file:
        while True:
            shutil.copyfileobj(file, sys.stdout)
            sys.stdout.flush()
            if not args.follow or host.pid is None:
                return 0
            time.sleep(0.5)


def _install(args: argparse.Namespace) -> int:
    opened = lab.open_lab(args.name)
    said = {}
    for name in args.host or list(opened.hosts):
        with progress.step(f"installing hostagent on {name}"):
            said[name] = install.install(_host(argparse.Namespace(name=args.name, host=name)))
    _print(
        args,
        {"installed": said},
        [f"{name}: {line}" for name, text in said.items() for line in text.splitlines()],
    )
    return 0


def _host(args: argparse.Namespace) -> Host:
    hosts = lab.open_lab(args.name).hosts
    if args.host not in hosts:
        raise LabError(
            f"lab {args.name} has no host {args.host}", hint=f"it has {', '.join(hosts) or 'none'}"
        )
    return hosts[args.host]


def _describe(opened: lab.Lab) -> dict[str, object]:
    return {
        "name": opened.name,
        "release": opened.image.release,
        "accelerator": opened.accel.kind,
        "accelerator_why": opened.accel.why,
        "segments": network.segments(opened.name),
        "hosts": [
            {
                "name": host.name,
                "state": host.state,
                "address": host.machine.address,
                "nics": [{"mac": nic.mac, "segment": nic.segment} for nic in host.machine.nics],
                "disks": [
                    {"serial": disk.serial, "bus": disk.bus, "size": disk.size} for disk in host.machine.disks
                ],
                "serial_log": str(host.folder / SERIAL_LOG),
            }
            for host in opened.hosts.values()
        ],
    }


def _lines(record: dict[str, object]) -> list[str]:
    hosts = record["hosts"]
    assert isinstance(hosts, list)  # noqa: S101 - the shape _describe gives it
    lines = [f"  Debian {record['release']}, {record['accelerator']} ({record['accelerator_why']})"]
    lines += [
        f"  {host['name']}  {host['state']:<7} {host['address']}  {host['serial_log']}" for host in hosts
    ]
    return lines


def _print(args: argparse.Namespace, record: dict[str, object], lines: list[str]) -> None:
    print(json.dumps(record, indent=1) if args.json else "\n".join(lines))
