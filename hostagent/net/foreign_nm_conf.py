"""Which cards NetworkManager's own configuration keeps it from (NetworkManager.conf(5)): what counts before it has
started and written its state.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from hostagent.net.foreign_files import Nic, Sections, sections, text, value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAIN = "etc/NetworkManager/NetworkManager.conf"
BEFORE_MAIN = ("usr/lib/NetworkManager/conf.d", "run/NetworkManager/conf.d")
AFTER_MAIN = "etc/NetworkManager/conf.d"
"""A file here or below /run takes the place of one of the same name in the folders before."""
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def unmanaged(nic: Nic, root: Path) -> bool:
    """Whether `keyfile.unmanaged-devices` lists the card, or a [device] section has `managed=0` for it."""
    read = [sections(text(file)) for file in _files(root)]
    specs: list[str] = []
    for parsed in read:
        for key, given in (pair for name, pairs in parsed if name == "keyfile" for pair in pairs):
            words = [word.strip() for word in re.split("[;,]", given) if word.strip()]
            if key == "unmanaged-devices":
                specs = words
            elif key == "unmanaged-devices+":
                specs += words
            elif key == "unmanaged-devices-":
                specs = [spec for spec in specs if spec not in words]
    return listed(nic, specs) or any(_device_is_off(nic, parsed) for parsed in read)


def _files(root: Path) -> list[Path]:
    """Those that are read, in the order in which they count."""
    folders = (*BEFORE_MAIN, AFTER_MAIN)
    found = {
        folder: {file.name: file for file in sorted((root / folder).glob("*.conf"))} for folder in folders
    }
    kept = [
        [
            file
            for name, file in found[folder].items()
            if not any(name in found[one] for one in folders[at + 1 :])
        ]
        for at, folder in enumerate(folders)
    ]
    return [*kept[0], *kept[1], root / MAIN, *kept[2]]


def _device_is_off(nic: Nic, parsed: Sections) -> bool:
    names = [name for name, _ in parsed if name == "device" or name.startswith("device-")]
    return any(
        value(parsed, name, "managed") in ("0", "false", "no", "off")
        and listed(nic, [one.strip() for one in re.split("[;,]", value(parsed, name, "match-device", "*"))])
        for name in names
    )


def listed(nic: Nic, specs: Sequence[str]) -> bool:
    """Whether a device list has the card; `except:` wins."""
    hits = [(spec.startswith("except:"), _is(nic, spec.removeprefix("except:"))) for spec in specs]
    if any(exception and hit for exception, hit in hits):
        return False
    wanted = [hit for exception, hit in hits if not exception]
    return any(wanted) if wanted else bool(hits)


def _is(nic: Nic, spec: str) -> bool:
    kind, _, given = spec.partition(":")
    if spec == "*":
        return True
    if MAC.fullmatch(spec.lower()):
        return spec.lower() == nic.mac.lower()
    if kind == "interface-name":
        if given.startswith("="):
            return given[1:] == nic.name
        return fnmatch.fnmatchcase(nic.name, given.removeprefix("~").replace("[", "[[]"))
    if kind == "mac":
        return given.lower() == nic.mac.lower()
    if kind == "driver":
        return bool(nic.driver) and fnmatch.fnmatchcase(nic.driver, given)
    return spec == nic.name or (kind, given) == ("type", "ethernet")
