"""What can go wrong with xenstore, by who must act; import these from `hostagent.xen.xenstore`.

The server answers with the *name* of an error (docs/misc/xenstore.txt in the Xen tree), never its number.
"""

from __future__ import annotations

from hostagent.errors import BusyError, CallerError, InvalidValueError, KernelError, OperatorError

START_HINT = (
    "is xenstored running? `systemctl restart xen` (script /etc/init.d/xen) starts it; while it is dead "
    "`xl list` and xenstore-read hang. If it had run before during this boot, starting it again does not "
    "reconnect dom0's kernel: see `hostagent xen xenstore status` and plan a reboot"
)


class XenstoreUnavailable(OperatorError):
    """No connection to xenstored: not running, not there, or lost while a call was under way."""

    def __init__(self, found: str, *, hint: str = START_HINT) -> None:
        super().__init__(found, hint=hint)


class XenstoreLost(XenstoreUnavailable):
    """The connection ended under a call, which may or may not have been done."""


class XenstoreDeadline(OperatorError):
    """xenstored is connected but did not answer in time. A change asked for may still be made later."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(
            f"xenstored did not {what} within {seconds:.1f} s",
            hint="is xenstored frozen or very busy (`ps -C oxenstored,xenstored -o pid,stat,time,cmd`)? "
            "a change that timed out may still be made: read it back before repeating it",
        )


class XenstoreConflict(BusyError):
    """Others kept changing what a transaction had read. XenAPI OTHER_OPERATION_IN_PROGRESS."""

    def __init__(self, found: str) -> None:
        super().__init__(
            found,
            hint="try again; if it stays so, `hostagent xen xenstore watch` shows who keeps writing there",
            params=("xenstore", "transaction"),
        )


class XenstoreQuota(OperatorError):
    """A limit of xenstored: value or reply too long, too many nodes, watches or transactions."""

    def __init__(self, found: str, *, hint: str = "see the limits with `xenstore-control quota`") -> None:
        super().__init__(found, hint=hint)


class XenstoreDenied(CallerError):
    """xenstored refused this client the node."""

    code = "PERMISSION_DENIED"


class XenstoreMissing(CallerError):
    """A node that has to exist does not."""


class XenstoreRefused(KernelError):
    """xenstored answered with an error that has no class of its own; `name` is the error's name."""

    def __init__(self, found: str, *, name: str) -> None:
        super().__init__(
            found, hint="this xenstored may be too old for the request; see its log and `xl dmesg`"
        )
        self.name = name


class XenstoreProtocol(XenstoreUnavailable):
    """What came over the connection is not xenstore's protocol; the connection is closed then."""

    def __init__(self, found: str) -> None:
        super().__init__(found, hint="is the socket really xenstored's? see `hostagent xen xenstore status`")


class InvalidPath(InvalidValueError):
    """A path outside xenstore's alphabet or length. XenAPI INVALID_VALUE."""

    def __init__(self, path: str, found: str) -> None:
        super().__init__(
            "path",
            path,
            f"{path!r} is no xenstore path: {found}",
            hint="letters, digits and - / _ @ only, no // and no / at the end; "
            "at most 3072 characters, 2048 when relative",
        )


def named_error(name: str, doing: str) -> Exception:
    """The error for an answer of xenstored: its name, and what was being done (a verb and a path)."""
    found = f"xenstored refused to {doing}: {name}"
    match name:
        case "ENOENT":
            return XenstoreMissing(
                f"could not {doing}: no such node", hint="`hostagent xen xenstore ls` its parent"
            )
        case "EAGAIN":
            return XenstoreConflict(
                f"could not {doing}: another client changed what the transaction had read"
            )
        case "E2BIG" if doing.startswith("list"):
            return XenstoreQuota(
                f"{found} (more than 4096 bytes of names)",
                hint="this xenstored cannot list it here: read the nodes by name, or use its socket "
                "instead of the xenbus device",
            )
        case "E2BIG":
            return XenstoreQuota(f"{found} (too long)", hint="a value may have about 2000 bytes")
        case "EQUOTA" | "ENOSPC":
            return XenstoreQuota(found)
        case "EACCES" | "EPERM" | "EROFS":
            return XenstoreDenied(
                found, hint="run it as root in dom0; see the node with `hostagent xen xenstore ls -p`"
            )
        case _:
            return XenstoreRefused(found, name=name)
