"""What a modern Debian host must have running for the agent to be of use: the table behind S15.

Each check looks at one thing and names what to start or install. All of them are made and told, also when an
early one already stops start-up. Open vSwitch is not among them: networks are Linux bridges.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.errors import HostagentError, OperatorError
from hostagent.run import CommandError, run
from hostagent.xen import hypercall, libvirt_link, memory, xenstored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from hostagent.startup.step import Context
    from hostagent.xen.xenstore import Xenstore

MODULE = "kernel module "
MODULES = {
    "bridge": "no bridge can be made: networks stay down",
    "bonding": "no bond can be made",
    "8021q": "no VLAN can be made",
    "xen-netback": "guests have no network",
    "xen-blkback": "guests have no disks on block devices",
}
"""Module → what is missing without it."""
AUTOBALLOON_HINT = (
    "set dom0_mem=SIZE,max:SIZE on the Xen command line (GRUB_CMDLINE_XEN, update-grub, reboot), "
    'or autoballoon="off" in /etc/xen/xl.conf and autoballoon = 0 in /etc/libvirt/libxl.conf'
)
MODPROBE_TIMEOUT_S = 30.0
CONF_LIMIT_CHARS = 65536


class Severity(enum.Enum):
    FATAL = "fatal"
    """Start-up ends: nothing of use can be done."""
    BLOCKS_ENABLING = "blocks enabling"
    """The API works, but the host must not take guests."""
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something is not as it must be: what, how bad, and what to type."""

    severity: Severity
    found: str
    hint: str


class CheckError(OperatorError):
    """A fatal check failed; the error tells the other findings too."""

    def __init__(self, fatal: Sequence[Finding], findings: Sequence[Finding]) -> None:
        others = [finding.found for finding in findings if finding not in fatal]
        also = f" (also: {'; '.join(others)})" if others else ""
        super().__init__(
            "; ".join(finding.found for finding in fatal) + also, hint="; ".join(one.hint for one in fatal)
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """What checks look at: the root of /proc and /sys, our run directory, and how to reach xenstored (raises if
    it cannot).
    """

    root: Path
    run: Path
    xenstore: Callable[[], Xenstore]


@dataclass(frozen=True, slots=True)
class Check:
    """One row: `look` returns what it found wrong and what to type, or None; an error it raises counts as
    found.
    """

    name: str
    severity: Severity
    look: Callable[[Subject], tuple[str, str] | None]


def is_dom0(subject: Subject) -> tuple[str, str] | None:
    if hypercall.hypervisor_version(subject.root) is None:
        return (
            "this system does not run on Xen",
            "boot the Xen entry of the boot loader; apt-get install xen-system-amd64 makes one",
        )
    if not hypercall.is_dom0(subject.root):
        return (
            "this is not dom0: /proc/xen/capabilities does not say control_d",
            "is xenfs mounted (systemctl start xen)? In a guest hostagent has nothing to do",
        )
    return None


def xenstore_answers(subject: Subject) -> tuple[str, str] | None:
    """Reads a node, over the socket or the device; which xenstored runs does not matter."""
    with subject.xenstore() as store:
        if store.read("/local/domain/0/domid") is None:
            return (
                "xenstore knows no dom0: /local/domain/0/domid is missing",
                "`systemctl restart xen` runs xen-init-dom0; if it was started again this boot, reboot",
            )
    return None


def xenstore_is_first(subject: Subject) -> tuple[str, str] | None:
    """Once restarted, xenstored no longer has the watches of dom0's kernel, and nothing brings them back."""
    report = _link_of_xenstore(subject)
    if report.link is not xenstored.Link.RESTARTED:
        return None
    return f"xenstored was started again during this boot ({_signs(report)})", report.hint


def xenstore_is_consistent(subject: Subject) -> tuple[str, str] | None:
    """One sign of a restart against others: somebody may have removed a node."""
    report = _link_of_xenstore(subject)
    if report.link is not xenstored.Link.SUSPECT:
        return None
    return f"it is not clear whether xenstored was started again ({_signs(report)})", report.hint


def _link_of_xenstore(subject: Subject) -> xenstored.LinkReport:
    with subject.xenstore() as store:
        return xenstored.detect_restart(store, root=subject.root, run_dir=subject.run)


def _signs(report: xenstored.LinkReport) -> str:
    return ", ".join(one.seen for one in report.evidence if one.says is xenstored.Says.RESTARTED)


def toolstack_matches(subject: Subject) -> tuple[str, str] | None:
    """The tools of exactly the running Xen are there, and the hypervisor answers them."""
    hypercall.host()
    version = hypercall.hypervisor_version(subject.root)
    if version is None:
        return None
    name = f"{version[0]}.{version[1]}"
    if not (subject.root / f"usr/lib/xen-{name}/bin/xl").exists():
        return f"xl of the running Xen {name} is missing", f"apt-get install xen-utils-{name}"
    return None


def xenconsoled_runs(subject: Subject) -> tuple[str, str] | None:
    if runs(subject.root, "run/xenconsoled.pid", "xenconsoled"):
        return None
    return (
        "xenconsoled is not running: guests have no text console",
        "systemctl restart xen (it also restarts dom0's QEMU, which serves disks in image files)",
    )


def qemu_of_dom0_runs(subject: Subject) -> tuple[str, str] | None:
    if runs(subject.root, "run/qemu-dom0.pid", "qemu"):
        return None
    if not (subject.root / "usr/libexec/xen-qemu-system-i386").exists():
        return "QEMU for Xen is not installed: no disks in image files", "apt-get install qemu-system-xen"
    return "dom0's QEMU is not running: guests have no disks in image files", "systemctl restart xen"


def autoballoon_is_off(subject: Subject) -> tuple[str, str] | None:
    found = memory.autoballoon_conflicts(
        hypercall.host().xen_commandline,
        _text(subject.root / "etc/xen/xl.conf"),
        _text(subject.root / "etc/libvirt/libxl.conf"),
    )
    if not found:
        return None
    return (
        f"{' and '.join(found)} would shrink dom0 when a guest starts, and never give it back",
        AUTOBALLOON_HINT,
    )


def libvirt_listens(subject: Subject) -> tuple[str, str] | None:
    """Only where libvirt's Xen driver is installed. A socket is enough, of the one daemon or of the modular one:
    systemd starts the daemon on demand.
    """
    driver = any((subject.root / "usr/lib").glob("*/libvirt/connection-driver/libvirt_driver_libxl.so"))
    if not driver or any((subject.root / path.relative_to("/")).exists() for path in libvirt_link.SOCKETS):
        return None
    return (
        "libvirt is installed but not listening",
        "systemctl start libvirtd.socket (with modular daemons: virtxend.socket)",
    )


CHECKS = (
    Check("dom0", Severity.FATAL, is_dom0),
    Check("xenstored", Severity.FATAL, xenstore_answers),
    Check("xenstored-restarted", Severity.BLOCKS_ENABLING, xenstore_is_first),
    Check("xenstored-suspect", Severity.WARNING, xenstore_is_consistent),
    Check("toolstack", Severity.BLOCKS_ENABLING, toolstack_matches),
    Check("xenconsoled", Severity.WARNING, xenconsoled_runs),
    Check("dom0-qemu", Severity.WARNING, qemu_of_dom0_runs),
    Check("autoballoon", Severity.WARNING, autoballoon_is_off),
    Check("libvirt", Severity.WARNING, libvirt_listens),
)


def run_all(context: Context, xenstore: Callable[[], Xenstore]) -> tuple[Finding, ...]:
    """Make every check and return what was found, in the order of the table. One that raises counts."""
    subject = Subject(context.config.paths.root, context.config.paths.run, xenstore)
    found: list[Finding] = []
    for check in CHECKS:
        context.progress(f"checking {check.name}")
        try:
            wrong = check.look(subject)
        except HostagentError as error:
            wrong = error.found, error.hint
        if wrong and wrong[0] not in [finding.found for finding in found]:
            found.append(Finding(check.severity, *wrong))
    return tuple(found)


def missing_modules(root: Path) -> tuple[str, ...]:
    """The modules that the running kernel has neither loaded nor built in."""
    return tuple(name for name in MODULES if not (root / "sys/module" / name.replace("-", "_")).exists())


def load_modules(names: Sequence[str], progress: Callable[[str], None]) -> Mapping[str, Finding]:
    """Load kernel modules; what could not be loaded, by name. Harmless for one that is loaded already."""
    refused = {}
    for name in names:
        progress(f"loading kernel module {name}")
        try:
            run(["modprobe", name], timeout_s=MODPROBE_TIMEOUT_S, package="kmod")
        except CommandError as error:
            refused[name] = Finding(
                Severity.WARNING,
                f"kernel module {name} does not load, {MODULES[name]}: {error.found}",
                "is it a Debian kernel (linux-image-amd64)? If it was just upgraded, reboot",
            )
    return refused


def runs(root: Path, pid_file: str, name: str) -> bool:
    """Whether the process that a pid file names is there and is the right one (its name contains `name`)."""
    try:
        pid = int(_text(root / pid_file).split()[0])
    except (IndexError, ValueError):
        return False
    return name in _text(root / f"proc/{pid}/comm")


def _text(path: Path) -> str:
    """The start of a text file, empty when it cannot be read."""
    try:
        with path.open(errors="replace") as file:
            return file.read(CONF_LIMIT_CHARS)
    except OSError:
        return ""
