"""Kernel settings below /proc/sys: IPv6 as each device is to have it, read and written as files.

Files, never dotted names: in `net.ipv6.conf.eth0.5` nobody can tell where the device's name ends (networking.md 3.7).
Paths are below /proc/sys, as in operations; `root` is the root of the file system.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from hostagent.errors import BugError, KernelError
from hostagent.named import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CONF = "net/ipv6/conf"
MODES = {
    "off": (("disable_ipv6", "1"),),
    "link-local": (("accept_ra", "0"), ("autoconf", "0"), ("disable_ipv6", "0")),
    "static": (("accept_ra", "0"), ("autoconf", "0"), ("disable_ipv6", "0")),
    "dhcp": (("accept_ra_defrtr", "0"), ("accept_ra", "1"), ("autoconf", "0"), ("disable_ipv6", "0")),
    "autoconf": (("accept_ra_defrtr", "0"), ("accept_ra", "1"), ("autoconf", "1"), ("disable_ipv6", "0")),
}
"""What each mode of `devices.Device.ipv6` is. In the order of writing: disable_ipv6 last, and accept_ra after what says
which part of an advertisement counts, so that none is taken in between. With dhcp the prefix of the network still comes
from advertisements, and so do routes."""
LIMIT_BYTES = 4096
"""The kernel refuses to read a setting into a very large buffer, and none of ours is longer."""

HINTS = {
    errno.EPERM: "run as root; if you are, see whether lockdown or a security module denies it (dmesg)",
    errno.EACCES: "run as root; if you are, see whether a security module denies it (dmesg)",
    errno.EROFS: "/proc/sys is mounted read-only: mount -o remount,rw /proc/sys",
    errno.ENOENT: "the device went meanwhile, or the kernel has no such setting: look at ip link",
    errno.EINVAL: "the kernel does not take this value",
}


class SysctlError(KernelError):
    """A setting that could not be read or written, or that is not what was written; `errno` is 0 then."""

    def __init__(self, found: str, *, number: int) -> None:
        super().__init__(found, hint=HINTS.get(number, "look at the file, and at dmesg"))
        self.errno = number


class Ipv6(NamedTuple):
    """What the host as a whole says about IPv6."""

    present: bool = True
    """The kernel has it."""
    enabled: bool = True
    """It is not switched off for all devices."""
    forwarding: bool = False
    """The host is a router: then the kernel heeds advertisements only where told to with 2."""

    @property
    def why_not(self) -> str:
        """Why no device is to have IPv6, as a sentence; empty if nothing is against it (catalogue row 66)."""
        if not self.present:
            return "this kernel has no IPv6 (ipv6.disable=1 on its command line, or the module is missing)"
        if not self.enabled:
            return "IPv6 is switched off for the whole host (net.ipv6.conf.all.disable_ipv6 is 1)"
        return ""


def ipv6_files(
    device: str, mode: str, host: Ipv6 | None = None, *, gateway: bool = False
) -> tuple[tuple[str, str], ...]:
    """Path and value of each setting that puts a device into a mode, in the order of writing.

    `gateway`: whether routers that advertise themselves give it the default route (`devices.Device.ipv6_gateway`).

    Without IPv6 in the kernel there is nothing to set. Where the operator switched it off, `link-local`, which is what
    a network without IPv6 gets, stays off too; that modes with addresses are refused there is for the caller
    (`Ipv6.why_not`).
    """
    host = host or Ipv6()
    if not host.present:
        return ()
    if not host.enabled and mode == "link-local":
        mode = "off"
    values = MODES[mode]
    if host.forwarding:
        values = tuple(
            (name, "2" if (name, value) == ("accept_ra", "1") else value) for name, value in values
        )
    if gateway:
        values = tuple((name, "1" if name == "accept_ra_defrtr" else value) for name, value in values)
    return tuple((f"{CONF}/{device}/{name}", value) for name, value in values)


def ipv6_of_host(root: Path) -> Ipv6:
    """What the host says about IPv6; raises SysctlError when it cannot be read."""
    off = read(root, f"{CONF}/all/disable_ipv6")
    if off is None:
        return Ipv6(present=False, enabled=False)
    return Ipv6(enabled=off == "0", forwarding=read(root, f"{CONF}/all/forwarding") not in (None, "0"))


def read_ipv6(root: Path, devices: Iterable[str]) -> dict[str, str]:
    """What the files of our modes hold, by path, for the devices that are there and for `default`, which new devices
    begin with. Empty when the kernel has no IPv6. Raises SysctlError."""
    found = {}
    names = [name for name, _ in MODES["autoconf"]]
    for device in ("default", *devices):
        for name in names:
            path = f"{CONF}/{device}/{name}"
            value = read(root, path)
            if value is None:
                break
            found[path] = value
    return found


def read(root: Path, path: str) -> str | None:
    """The value without the line's end; None when there is no such setting (or device). Raises SysctlError."""
    try:
        descriptor = os.open(_file(root, path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, LIMIT_BYTES).decode(errors="replace").rstrip("\n")
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed("read", path, error) from error


def write(root: Path, path: str, value: str) -> None:
    """Set it and read it back; raises SysctlError when it is not there, not to be written, or other than written."""
    try:
        descriptor = os.open(_file(root, path), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{value}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _failed(f"set to {value}", path, error) from error
    is_ = read(root, path)
    if is_ is None or is_.split() != value.split():
        raise SysctlError(f"/proc/sys/{path} was set to {value} and is {is_}", number=0)


def _file(root: Path, path: str) -> str:
    if path.startswith("/") or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise BugError(f"no path below /proc/sys: {path!r}", hint="report this")
    return f"{root}/proc/sys/{path}"


def _failed(verb: str, path: str, error: OSError) -> SysctlError:
    number = error.errno or 0
    return SysctlError(f"/proc/sys/{path} cannot be {verb}: {os.strerror(number)}", number=number)
