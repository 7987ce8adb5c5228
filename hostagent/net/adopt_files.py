"""What keeps another network daemon from a card, and from what we make on it, as contents of files. No file is touched.

Each daemon has one file that decides at the next boot whose the card is, the *switch*. It is written in one step:
whenever the power goes, either they bring the card up or we do.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hostagent.errors import OperatorError
from hostagent.named import NamedTuple
from hostagent.net.foreign_files import Owner, text
from hostagent.net.operation import Operation, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NETWORKD, IFUPDOWN, NETWORK_MANAGER, CLOUD_INIT = (
    "systemd-networkd",
    "ifupdown",
    "NetworkManager",
    "cloud-init",
)
DAEMONS = (NETWORKD, IFUPDOWN, NETWORK_MANAGER)
"""Those that a card can be taken over from."""
LET_GO_FIRST = (NETWORK_MANAGER, IFUPDOWN)
"""Those that put back what is taken from a card that they have: they let go of it before its address moves."""
OURS = "xenbr* xapi* xenapi vif* tap*"
"""What we and the tool stack make: a .network file for all names would have it. Not bond*: that may be theirs."""
MARK = "#hostagent# "
"""Before the lines of ifupdown's files that are out of use."""
CLOUD_FILE = "/etc/cloud/cloud.cfg.d/99-hostagent-network.cfg"
CLOUD_TEXT = """\
# Written by `hostagent net adopt`: the network of this host is hostagent's.
network: {config: disabled}
"""
BRIDGES_FILE = "/etc/systemd/network/00-hostagent.network"
BRIDGES_TEXT = f"""\
# Written by `hostagent net adopt`: these devices are hostagent's and the tool stack's.
[Match]
Name={OURS}

[Link]
Unmanaged=yes
"""
ONLINE_FILE = "/etc/systemd/system/systemd-networkd-wait-online.service.d/50-hostagent.conf"
STANZA_ENDS = ("iface", "mapping", "source", "source-directory")


class CannotAdoptError(OperatorError):
    """The card cannot be taken over, or not be given back, as things are; nothing was touched."""

    code = "PIF_CONFIGURATION_ERROR"


class Change(NamedTuple):
    """A file, by its path on the host: what it holds before and after; None for no such file."""

    path: str
    before: str | None
    after: str | None


class Disabling(NamedTuple):
    """`early`: before our first device is made, and then the daemon reads them. `late`: in this order, once all is ours
    and works.
    """

    early: tuple[Change, ...]
    late: tuple[Change, ...]

    @property
    def all(self) -> tuple[Change, ...]:
        return (*self.early, *self.late)


def disabling(owners: Sequence[Owner], content: Callable[[str], str | None], *, alone: bool) -> Disabling:
    """The files that keep these owners of one card from it. `content` reads a file, None: there is none.

    `alone`: systemd-networkd has no other device, so that nothing is left for its wait-online, which would hold up each
    boot for two minutes. Raises CannotAdoptError.
    """
    main = owners[0]
    late = []
    if any(owner.daemon == CLOUD_INIT for owner in owners):
        late.append(_change(CLOUD_FILE, CLOUD_TEXT, content))
    if main.daemon == IFUPDOWN:
        return Disabling((), (*late, *_ifupdown(main, content)))
    if main.daemon == NETWORK_MANAGER:
        always = _change(switch_of(main.daemon, main.device, ()), _network_manager(main.device), content)
        # when the power goes before all is ours, the card is NetworkManager's at the next boot
        early = hold_off(main.daemon, main.device, content)
        return Disabling((early,) if early else (), (*late, always))
    switch = switch_of(main.daemon, main.device, ())
    if main.mac:
        vlans = f"/etc/systemd/network/00-hostagent-{main.device}-vlans.network"
        late.append(_change(vlans, _networkd(f"Type=vlan\nMACAddress={main.mac}"), content))
    late.append(_change(switch, _networkd(_card(main)), content))
    if alone:
        online = (
            "# Written by `hostagent net adopt`: systemd-networkd has no device to wait for.\n"
            f"[Unit]\nConditionPathExists=!{switch}\n"
        )
        late.append(_change(ONLINE_FILE, online, content))
    return Disabling((_change(BRIDGES_FILE, BRIDGES_TEXT, content),), tuple(late))


def switch_of(daemon: str, device: str, files: Sequence[Change]) -> str:
    """The path of the switch; of ifupdown the first of the takeover's `files` that is its own. Empty: there is none."""
    if daemon == NETWORKD:
        return f"/etc/systemd/network/00-hostagent-{device}.network"
    if daemon == NETWORK_MANAGER:
        return f"/etc/{_nm_file(device)}"
    return next((one.path for one in files if one.path != CLOUD_FILE), "")


def file_step(change: Change, switch: str = "") -> Step:
    return Step(file_to(change.path, change.after), (file_back(change, switch),))


def file_to(path: str, content: str | None) -> Operation:
    return Operation("file", "", 0, {"path": path, "content": content})


def file_back(change: Change, switch: str = "") -> Operation:
    """What undoes a change of a file. What it undoes is in it for a later boot, where it may have to be done instead
    (`later_boot.py`), as the `switch` decides."""
    args: dict[str, Any] = {"path": change.path, "content": change.before}
    if change.after != change.before:
        args["instead"] = change.after
        if change.path == switch:
            args["decides"] = True
    return Operation("file", "", 0, args)


def hold_off(daemon: str, device: str, content: Callable[[str], str | None]) -> Change | None:
    """The file with which NetworkManager lets go first, until the next boot; None for the other daemons."""
    if daemon != NETWORK_MANAGER:
        return None
    return _change(f"/run/{_nm_file(device)}", _network_manager(device), content)


def _nm_file(device: str) -> str:
    return f"NetworkManager/conf.d/00-hostagent-{device}.conf"


def _change(path: str, after: str, content: Callable[[str], str | None]) -> Change:
    return Change(path, content(path), after)


def _card(owner: Owner) -> str:
    """The card, under whatever name where networkd would find it so. By name the file is for its VLANs too, which are
    ours as well; those of a card by its MAC address have that, but not as their permanent one, and a file of their own.
    """
    if owner.mac:
        return f"PermanentMACAddress={owner.mac}"
    return f"Name={owner.device} {owner.device}.*"


def _networkd(match: str) -> str:
    return f"""\
# Written by `hostagent net adopt`; `hostagent net release` removes it.
[Match]
{match}

[Link]
Unmanaged=yes
"""


def _network_manager(device: str) -> str:
    names = ";".join(f"interface-name:{name}" for name in (device, f"{device}.*", *OURS.split()))
    return f"""\
# Written by `hostagent net adopt`; `hostagent net release` removes it.
[keyfile]
unmanaged-devices+={names}
"""


def _ifupdown(owner: Owner, content: Callable[[str], str | None]) -> list[Change]:
    """The file with the card's stanza first: it is the switch; a line that starts a card without one does nothing."""
    found = []
    for path in owner.files:
        before = content(path) or ""
        after, stanzas = comment_out(before, owner.device)
        if after != before:
            found.append((stanzas, Change(path, before, after)))
    if sum(stanzas > 0 for stanzas, _ in found) != 1:
        files = ", ".join(owner.files) or "no file"
        raise CannotAdoptError(
            f"the stanzas of {owner.device} stand in {files}, and not in one file: no single step disables them",
            hint=f"move all `iface {owner.device} …` stanzas into /etc/network/interfaces (no ifdown is needed)",
        )
    return [change for stanzas, change in sorted(found, key=lambda each: -each[0])]


def comment_out(content: str, device: str) -> tuple[str, int]:
    """The text of an interfaces(5) file without the device, and how many `iface` stanzas of it went.

    Its stanzas become comments; of a line that starts several devices only its name goes.
    """
    out: list[str] = []
    inside = False
    stanzas = 0
    goes_on = False
    for line in content.splitlines(keepends=True):
        words = line.split()
        first = words[0] if words else ""
        if goes_on or first.startswith("#") or not words:
            hidden = inside and bool(words) and not first.startswith("#")
        elif first == "iface":
            inside = words[1:2] == [device]
            stanzas += inside
            hidden = inside
        elif first == "auto" or first.startswith("allow-"):
            inside = hidden = False
            if device in words[1:] and not line.rstrip("\n").endswith("\\"):
                rest = [word for word in words[1:] if word != device]
                out.append(MARK + line)
                if rest:
                    end = "" if line.endswith("\n") else "\n"
                    out.append(f"{end}{' '.join([first, *rest])}\n")
                continue
        else:
            inside = inside and first not in STANZA_ENDS and not first.startswith("no-")
            hidden = inside
        goes_on = line.rstrip("\n").endswith("\\") and not first.startswith("#")
        out.append(MARK + line if hidden else line)
    return "".join(out), stanzas


def networkd_others(nic: str, root: Path) -> tuple[str, ...]:
    """Indexes of the other devices that a running systemd-networkd has, by its state files."""
    folder = root / "run/systemd/netif/links"
    index = text(root / "sys/class/net" / nic / "ifindex").strip()
    found = []
    for file in sorted(folder.glob("*")) if folder.is_dir() else []:
        lines = re.findall(r"^ADMIN_STATE=(.*)$", text(file), re.MULTILINE)
        if file.name != index and lines and lines[-1] not in ("unmanaged", "pending", "initialized"):
            found.append(file.name)
    return tuple(found)


def uncommented(content: str) -> str:
    """What `comment_out` was given, with whatever was written into the file since."""
    out: list[str] = []
    starts: list[str] = []
    for line in content.splitlines(keepends=True):
        words = line.split()
        if line.startswith(MARK):
            line, words = line[len(MARK) :], words[1:]
            starts = words if words and (words[0] == "auto" or words[0].startswith("allow-")) else []
        elif starts and words[1:] and words[0] == starts[0] and set(words) < set(starts):
            starts = []  # the line that stood for the other devices of the one before
            continue
        else:
            starts = []
        out.append(line)
    return "".join(out)


def restoring(
    changes: Sequence[Change], content: Callable[[str], str | None], beside: Sequence[str] = ()
) -> tuple[Change, ...]:
    """The way back for a release: what these changes made is as it was before, the switch last. A file of ifupdown's
    that was edited since keeps that, and the stanzas of other cards that are ours (`beside`) stay out of use in it.

    Raises CannotAdoptError for another file that somebody has edited since and that was not ours alone.
    """
    found = []
    for change in reversed(changes):
        now, back = content(change.path), change.before
        of_ifupdown = now is not None and MARK in (change.after or "")
        edited = now not in (back, change.after) and back is not None
        if now is not None and of_ifupdown and (edited or beside):
            back = uncommented(now)
            for device in beside:
                back = comment_out(back, device)[0]
        elif edited:
            raise CannotAdoptError(
                f"{change.path} was edited since it was taken over; what it held before must not replace that",
                hint="make it hold again what it held before (the note of the takeover in"
                " /var/lib/hostagent/net/adopted has it), then: hostagent net release",
            )
        if now != back:
            found.append(Change(change.path, now, back))
    return tuple(found)
