"""The command line of `interface-reconfigure` (networking.md 2.1, 2.2): words in, `Options` out.

By hand, because importing argparse costs more than bringing an interface up.
"""

from __future__ import annotations

from typing import Any

from hostagent.named import NamedTuple

UP, DOWN, REWRITE = "up", "down", "rewrite"
ACTIONS = {UP: UP, DOWN: DOWN, REWRITE: REWRITE, "rewrite-configuration": REWRITE}
VALUES = {
    "--session": "session",
    "--pif": "pif",
    "--pif-uuid": "pif_uuid",
    "--force": "force",
    "--force-interface": "force",
    "--device": "device",
    "--mac": "mac",
    "--mode": "mode",
    "--ip": "ip",
    "--netmask": "netmask",
    "--gateway": "gateway",
    "--root-prefix": "root_prefix",
    "--timeout": "timeout_s",
}
FLAGS = {
    "--management": "management",
    "--no-syslog": "no_syslog",
    "--plan": "plan",
    "--check": "check",
    "--json": "json",
    "--confirm": "confirm",
    "--keep-old": "keep_old",
    "--explain": "explain",
    "--help": "help",
    "-h": "help",
}
CONFIG = ("device", "mac", "mode", "ip", "netmask", "gateway")
LONGEST_S = 3600.0
"""A change may take so long, and may wait so long for its confirmation: with the daemon and without it."""

HELP = """\
usage: interface-reconfigure PIF up|down         bring an interface up, or take it down
       interface-reconfigure rewrite             have the daemon write the cached network anew
       interface-reconfigure PIF --explain       say why it is as it is
       interface-reconfigure --force BRIDGE up|down
       interface-reconfigure --force BRIDGE rewrite --device=DEV --mac=MAC CONFIG

Configures a network interface of this host with its bond, VLAN and bridge, from the database through the daemon, and
where no daemon answers from the cached copy (/var/lib/hostagent/net/cache.json). It changes only what is not as it is
to be. What fails is undone.

PIF:
  --pif-uuid UUID             the interface (`hostagent pif list`)
  --session REF --pif REF     the same by reference, as older callers have it
  --force BRIDGE              by the name of its bridge, from the cached copy only, whether a daemon runs or not
                              (also --force-interface)
CONFIG:
  --mode=dhcp, or --mode=static --ip=A --netmask=M [--gateway=G]

options:
  --management        it is, or becomes, the management interface: decides who owns gateway and DNS
  --keep-old          with --management: the former management interface keeps its address in the same subnet
  --plan              print the operations, and do nothing
  --check             compare the host with what is wanted, and do nothing
  --explain           say why the interface is as it is, and do nothing
  --confirm           undo it unless `hostagent net confirm` is typed within --timeout seconds
  --timeout SECONDS   for everything together, carrier and DHCP too (60)
  --json              print JSON
  --root-prefix DIR   look for /sys, /proc, /etc and the cached copy below DIR
  --no-syslog         log to standard error instead of syslog
  -h, --help          this

exit codes:
  0  done, or nothing to do; --check: all as wanted
  1  failed, and nothing was changed, or undoing it failed in part
  2  wrong command line
  3  failed and undone: the network is as before
  4  degraded: done, but less than was asked for (no carrier, no DHCP answer, …); --check: not all as wanted

examples:
  interface-reconfigure --pif-uuid 0d6c1a0e-7a0f-4f3c-8f0f-5a2c6a7f9b11 --plan up
  interface-reconfigure --force xenbr0 --management up      from a console, with no daemon
  interface-reconfigure --force xenbr0 rewrite --device=eth0 --mac=52:54:00:12:34:56 --mode=dhcp
"""


class UsageError(Exception):
    """The command line is wrong; the text says how."""


class Options(NamedTuple):
    action: str = ""
    session: str = ""
    pif: str = ""
    pif_uuid: str = ""
    force: str = ""
    device: str = ""
    mac: str = ""
    mode: str = ""
    ip: str = ""
    netmask: str = ""
    gateway: str = ""
    root_prefix: str = "/"
    timeout_s: float = 60.0
    management: bool = False
    no_syslog: bool = False
    plan: bool = False
    check: bool = False
    json: bool = False
    confirm: bool = False
    keep_old: bool = False
    explain: bool = False
    help: bool = False


def parse(words: list[str]) -> Options:
    """GNU style, options anywhere, `--` ends them. Raises UsageError."""
    values: dict[str, Any] = {}
    positional: list[str] = []
    left = list(reversed(words))
    while left:
        word = left.pop()
        if word == "--":
            positional += reversed(left)
            break
        if not word.startswith("-") or word == "-":
            positional.append(word)
            continue
        name, equals, value = word.partition("=")
        if name in FLAGS:
            if equals:
                raise UsageError(f"{name} takes no value")
            values[FLAGS[name]] = True
        elif name in VALUES:
            if not equals:
                if not left:
                    raise UsageError(f"{name} needs a value")
                value = left.pop()
            values[VALUES[name]] = _seconds(value) if name == "--timeout" else value
        else:
            raise UsageError(f"there is no option {name}{_meant(name)}")
    options = Options(**values)
    if options.help:
        return options
    return _checked(options._replace(action=_action(positional, options)))


def _action(positional: list[str], options: Options) -> str:
    if not positional and options.explain:
        return UP
    if len(positional) != 1:
        raise UsageError("exactly one of up, down, rewrite is needed")
    if positional[0] not in ACTIONS:
        raise UsageError(f"{positional[0]!r} is none of up, down, rewrite")
    return ACTIONS[positional[0]]


def _checked(options: Options) -> Options:
    """The combinations of networking.md 2.1."""
    if bool(options.session) != bool(options.pif):
        raise UsageError("--session and --pif come together")
    ways = [name for name, given in (("--pif", options.pif), ("--pif-uuid", options.pif_uuid),
                                     ("--force", options.force)) if given]  # fmt: skip
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)} exclude each other")
    config = [f"--{name}" for name in CONFIG if getattr(options, name)]
    if options.explain and (options.action != UP or options.management):
        word = options.action if options.action != UP else "--management"
        raise UsageError(f"--explain says why the interface is as it is: {word} does not go with it")
    if options.action == REWRITE:
        if options.pif or options.pif_uuid:
            raise UsageError("rewrite takes no PIF")
        if options.force:
            _check_config(options)
        elif config:
            raise UsageError(f"{config[0]} goes with --force BRIDGE rewrite")
        elif options.plan:
            raise UsageError("--plan goes with up, down, or --force BRIDGE rewrite")
        given = [name for name in ("check", "confirm", "keep_old", "management") if getattr(options, name)]
        if given:
            raise UsageError(f"--{given[0].replace('_', '-')} goes with up or down")
        return options
    if config:
        raise UsageError(f"{config[0]} goes with --force BRIDGE rewrite")
    if options.keep_old and not options.management:
        raise UsageError("--keep-old goes with --management")
    if not ways:
        raise UsageError(f"{options.action} needs a PIF: --pif-uuid UUID, or --force BRIDGE")
    modes = [name for name in ("plan", "check", "explain", "confirm") if getattr(options, name)]
    if len(modes) > 1:
        raise UsageError(f"--{modes[0]} and --{modes[1]} exclude each other")
    return options


def _check_config(options: Options) -> None:
    for name in ("device", "mac", "mode"):
        if not getattr(options, name):
            raise UsageError(f"--force BRIDGE rewrite needs --{name}")
    if options.mode not in ("dhcp", "static"):
        raise UsageError(f"--mode is dhcp or static, not {options.mode!r}")
    if options.mode == "static" and not (options.ip and options.netmask):
        raise UsageError("--mode=static needs --ip and --netmask")
    if options.mode == "dhcp" and (options.ip or options.netmask or options.gateway):
        raise UsageError("--ip, --netmask and --gateway go with --mode=static")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= LONGEST_S:  # so is nan refused, too
        raise UsageError(f"--timeout takes seconds above 0, at most {LONGEST_S:g}, not {text!r}")
    return seconds


def _meant(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, [*VALUES, *FLAGS], n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
