"""`interface-reconfigure`: the daemon does the work where one answers; where none does, it is done here from the cache.

Exit codes: 0 done, 1 failed, 2 wrong command line, 3 undone, 4 degraded (networking.md 2.3 and 7.10).
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from hostagent.errors import HostagentError, OperatorError
from hostagent.net import ask, cache
from hostagent.net.options import HELP, REWRITE, Options, UsageError, parse
from hostagent.net.shown import removed, words

DONE, FAILED, USAGE, UNDONE, DEGRADED = range(5)
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
EXITS = {
    "failed": FAILED,
    "rolled-back": UNDONE,
    "degraded": DEGRADED,
    "differs": DEGRADED,
    "undo-failed": FAILED,
}
STATE, RUN = "var/lib/hostagent", "run/hostagent"
METHOD = "hostagent.net_reconfigure"
NOT_NOW = ("HOST_STILL_BOOTING", "MESSAGE_METHOD_UNKNOWN", "Method not found")
"""The daemon is there, and cannot do it: while it starts, and in emergency mode."""
ANSWER_SPARE_S = 210.0
"""What the daemon has beyond the deadline of the change, for it to settle (`reachable.LONG_SETTLE_S`, twice), and to
undo it."""
SYSLOG_NOTICE = 29  # daemon.notice (RFC 5424 6.2.1)

OpenHost = Callable[[Path, str], Any]
"""Makes a `bring.Host` of the root folder and the management bridge."""


def main(arguments: Sequence[str], *, open_host: OpenHost | None = None, out: TextIO | None = None) -> int:
    """The whole program; returns its exit code. `open_host` is for tests. Ctrl-C undoes what is under way."""
    try:
        return _main(arguments, open_host or _open_host, out or sys.stdout)
    except KeyboardInterrupt:
        return INTERRUPTED


def _main(arguments: Sequence[str], open_host: OpenHost, out: TextIO) -> int:
    try:
        options = parse(list(arguments))
    except UsageError as error:
        print(f"error: {error}\nhint: interface-reconfigure --help", file=sys.stderr)
        return USAGE
    if options.help:
        print(HELP, end="", file=out)
        return DONE
    log = _Log(options)
    log.tell(f"called as interface-reconfigure {' '.join(arguments)}")
    try:
        result = _work(options, open_host)
    except HostagentError as error:
        log.tell(f"failed: {error.found}")
        if options.json:
            print(json.dumps({"error": error.record()}, indent=2), file=sys.stderr)
        else:
            print(f"error: {error.found}\nhint: {error.hint}", file=sys.stderr)
        return FAILED
    log.tell(f"{result['what']}: {result['outcome']}")
    if options.json:
        print(json.dumps(result, indent=2), file=out)
    elif options.explain:
        for told in result["told"]:
            print(f"note: {told}", file=sys.stderr)
        print(result["text"], file=out)
    else:
        print(text_of(result), file=out)
        complain(result)
    return exit_of(result)


def exit_of(result: Any) -> int:
    """The exit code that a result stands for. What could not be undone whole is a failure."""
    if result["outcome"] == "rolled-back" and result.get("undo_troubles"):
        return FAILED
    if result["outcome"] == "nothing" and result["error"]:  # asked to keep a change, and there is none
        return FAILED
    return EXITS.get(result["outcome"], DONE)


def _work(options: Options, open_host: OpenHost) -> Any:
    root = Path(options.root_prefix)
    folder = root / STATE / cache.FOLDER
    if options.action == REWRITE and options.force:
        return _rewrite(options, folder)
    told: tuple[str, ...] = ()
    if not options.force and not options.explain:
        answer, why = _by_daemon(options, str(root / RUN / "api.sock"))
        if answer is not None:
            return answer
        told = (why,)
    if options.action == REWRITE:
        raise OperatorError(
            f"there is nothing to write the cached network from: {told[0]}",
            hint="systemctl start hostagent; or give all of it: --force BRIDGE rewrite --device=… --mac=… --mode=…",
        )
    if options.explain and not options.force:
        from hostagent.net import looked

        found = looked.read(str(root / RUN / "api.sock"), folder, host_uuid(root))
    else:
        found = cache.read(folder, host_uuid(root))
    found = found._replace(told=(*told, *found.told))
    host = open_host(root, found.cached.records.bridge)
    if found.cached.positions:
        from hostagent.net.remap import fitted_here

        found = fitted_here(found, root, host.tools.netlink)
    if options.explain:
        return _explained(options, found, host)
    from hostagent.net.bring import bring

    return bring(_request(options), found, host)


def _by_daemon(options: Options, path: str) -> tuple[Any, str]:
    """The daemon's answer; or None, and why it has none."""
    try:
        request: dict[str, Any] = {"action": REWRITE}
        if options.action != REWRITE:
            request = _request(options)._asdict()
        return ask.ask(path, METHOD, request, timeout_s=options.timeout_s + ANSWER_SPARE_S), ""
    except ask.NotThereError:
        return None, "no daemon runs"
    except ask.NoAnswerError as error:
        if not (options.plan or options.check):  # it may be at work on it
            raise
        return None, error.found
    except ask.AnsweredError as error:
        if error.code not in NOT_NOW:
            raise
        return None, f"the daemon is not ready ({error.code})"


def _request(options: Options) -> Any:
    from hostagent.net.bring import CHECK, DO, PLAN, Request

    mode = PLAN if options.plan else CHECK if options.check else DO
    return Request(
        options.action,
        options.pif or options.pif_uuid,
        options.force,
        options.management,
        mode,
        options.timeout_s,
        options.confirm,
        options.keep_old,
    )


def _rewrite(options: Options, folder: Path) -> Any:
    """The minimal records of first boot and reset in the place of the cached ones."""
    from hostagent.net import inet, names

    for name in ("ip", "gateway"):
        value = getattr(options, name)
        if value and not inet.address(value):
            raise OperatorError(f"--{name}={value} is no address", hint="give it as 192.0.2.10")
    if options.netmask and inet.prefix_of(options.netmask) < 0:
        raise OperatorError(f"--netmask={options.netmask} is none", hint="give it as 255.255.255.0")
    for name in (options.force, options.device):
        if not names.is_name(name):
            raise OperatorError(
                f"{name!r} can be no device's name", hint="names have 1 to 15 bytes, no blanks"
            )
    if options.force == options.device:
        raise OperatorError(
            f"{options.force} cannot be the NIC and its bridge",
            hint="the NIC's name goes with --device: ip link",
        )
    mac = options.mac.lower()
    if not inet.is_mac(mac):
        raise OperatorError(
            f"--mac={options.mac} is no MAC address of a device", hint=f"ip link show {options.device}"
        )
    records = cache.minimal(
        options.force,
        options.device,
        mac,
        mode=options.mode,
        ip=options.ip,
        netmask=options.netmask,
        gateway=options.gateway,
        host_uuid=host_uuid(Path(options.root_prefix)),
    )
    _check(records)
    what = f"rewrite {options.force} on {options.device}"
    if options.plan:
        return {"what": what, "outcome": "planned", "operations": [], "differences": [], "told": []}
    written = cache.write(folder, records)
    told = [f"generation {written.generation}; bring it up: interface-reconfigure --force {options.force} up"]
    return {"what": what, "outcome": "changed", "operations": [], "differences": [], "told": told}


def _check(records: Any) -> None:
    """What is never to come up must not displace a good copy. Raises OperatorError."""
    from hostagent.net.finding import DEGRADE
    from hostagent.net.model import survey

    for finding in survey(records, list(records.pifs)).findings:
        if finding.severity != DEGRADE:
            raise OperatorError(finding.found, hint=finding.hint)


def _explained(options: Options, found: cache.Found, host: Any) -> Any:
    from hostagent.net import explain
    from hostagent.net.bring import find
    from hostagent.net.evidence import ask_around, gather, of_host
    from hostagent.net.reason import record

    records = found.cached.records
    pif = find(records, _request(options))
    kernel = host.tools.netlink.look()
    asking = of_host(Path(options.root_prefix))
    evidence = ask_around(gather(host.folder, host.boot), records, kernel, pif, asking)
    answer = explain.explain(records, kernel, pif.ref, evidence)
    return {
        "what": f"explain {pif.uuid}",
        "outcome": "explained",
        "told": list(found.told),
        "reasons": [record(reason) for reason in answer.reasons],
        "text": explain.text(answer),
    }


def host_uuid(root: Path) -> str:
    """This host's, from its inventory; empty where that cannot be read: then any cache is better than none."""
    try:
        content = (root / "etc/hostagent/inventory").read_text(errors="replace")
    except OSError:
        return ""
    for line in content.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "INSTALLATION_UUID":
            return value.strip().strip("'\"")
    return ""


def _open_host(root: Path, management: str) -> Any:
    from hostagent.net.host import open_host

    return open_host(root, state=root / STATE, run=root / RUN, management=management)


def text_of(result: Any) -> str:
    """A result for people: what became of it, each operation with its time, and what is less than was asked for."""
    took = f" in {result['seconds'] * 1000:.0f} ms" if result.get("seconds") else ""
    lines = [f"{result['what']}: {result['outcome']}{took}"]
    if result.get("source"):
        lines[0] += f" (from the {result['source']})"
    for number, operation in enumerate(result.get("operations", ()), start=1):
        args = words(operation["verb"], operation["args"])
        ms = operation.get("milliseconds")
        spent = f"{ms:9.2f} ms  " if ms is not None else ""
        lines.append(f"{number:4}  {spent}{operation['verb']:<12} {operation['device']:<15} {args}".rstrip())
    lines += [
        f"  {one['device'] or 'the resolver'}: {one['what']} is {one['found']}, wanted {one['wanted']}"
        for one in result.get("differences", ())
    ]
    if result["outcome"] in ("changed", "degraded", "waiting"):
        lines += [f"  {told}" for told in removed(result.get("operations", ()))]
    lines += [f"  {told}" for told in result.get("told", ())]
    return "\n".join(lines)


def complain(result: Any) -> None:
    """Print the error of a result and its hint to where errors go."""
    if error := result.get("error"):
        print(f"error: {error['found']}\nhint: {error['hint']}", file=sys.stderr)


class _Log:
    """Lines for syslog, or for standard error; a syslog that is not there holds nobody up."""

    def __init__(self, options: Options) -> None:
        self._to_stderr = options.no_syslog
        self._path = str(Path(options.root_prefix) / "dev/log")

    def tell(self, line: str) -> None:
        if self._to_stderr:
            print(line, file=sys.stderr)
            return
        message = f"<{SYSLOG_NOTICE}>interface-reconfigure[{os.getpid()}]: {line}"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
                log.settimeout(0)
                log.sendto(message.encode(errors="replace"), self._path)
        except OSError:
            return
