"""What the system's own files say about this machine: processors, boot time, release, firmware, time zone.

Parsers take text and never raise: what is not there is empty. Readers take the root of /proc, /sys and /etc, so that
tests build a small tree; a file that cannot be read counts as absent.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from hostagent.db.datatype import NOT_IN_XML

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LIMIT_BYTES = 2 << 20
"""Below 4 MiB: the kernel refuses to read a setting of /proc/sys into so large a buffer."""
"""/proc/cpuinfo has about 2 KiB per processor."""

DMI = {
    "bios-vendor": "bios_vendor",
    "bios-version": "bios_version",
    "system-manufacturer": "sys_vendor",
    "system-product-name": "product_name",
    "system-version": "product_version",
    "system-serial-number": "product_serial",
    "enclosure-asset-tag": "chassis_asset_tag",
    "baseboard-manufacturer": "board_vendor",
    "baseboard-product-name": "board_name",
    "baseboard-version": "board_version",
    "baseboard-serial-number": "board_serial",
    "baseboard-asset-tag": "board_asset_tag",
}
"""Key of host.bios_strings → file below /sys/class/dmi/id."""
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
SECURE_BOOT_VALUE = 4  # the first four bytes are the variable's attributes
ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")


@dataclass(frozen=True, slots=True)
class Processors:
    """What /proc/cpuinfo says of the first processor, and how many dom0 has. `mhz` is the clock at that moment."""

    count: int = 0
    vendor: str = ""
    family: int = 0
    model: int = 0
    modelname: str = ""
    stepping: str = ""
    mhz: float = 0.0
    flags: str = ""


@dataclass(frozen=True, slots=True)
class System:
    """Everything that is read here, at one moment. `boot_time` is in seconds since 1970, `memory_kib` what this
    kernel can use; both are 0 when not known.
    """

    hostname: str = ""
    kernel: str = ""
    release: str = ""
    boot_time: int = 0
    memory_kib: int = 0
    timezone: str = "UTC"
    secure_boot: bool = False
    bios: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    processors: Processors = field(default_factory=Processors)


def read(root: Path) -> System:
    """All of it. Raises nothing."""
    release = os_release(_text(root / "etc/os-release"))
    return System(
        hostname=_line(root / "proc/sys/kernel/hostname"),
        kernel=_line(root / "proc/sys/kernel/osrelease"),
        release=release.get("PRETTY_NAME", "") or release.get("NAME", ""),
        boot_time=boot_time(_text(root / "proc/stat")),
        memory_kib=memory_kib(_text(root / "proc/meminfo")),
        timezone=timezone(root),
        secure_boot=secure_boot(root),
        bios=bios_strings(root),
        processors=processors(_text(root / "proc/cpuinfo")),
    )


def processors(cpuinfo: str) -> Processors:
    """The text of /proc/cpuinfo (x86) as a value; unknown keys are ignored, numbers that are none count as 0."""
    blocks = [_pairs(block) for block in re.split(r"\n[ \t]*\n", cpuinfo)]
    found = [block for block in blocks if "processor" in block]
    first = found[0] if found else {}
    return Processors(
        count=len(found),
        vendor=first.get("vendor_id", ""),
        family=_number(first.get("cpu family", "")),
        model=_number(first.get("model", "")),
        modelname=first.get("model name", ""),
        stepping=first.get("stepping", ""),
        mhz=_decimal(first.get("cpu MHz", "")),
        flags=" ".join(first.get("flags", "").split()),
    )


def boot_time(stat: str) -> int:
    """When the system booted, from the line `btime` of /proc/stat; 0 when there is none."""
    found = re.search(r"^btime (\d{1,12})$", stat, re.MULTILINE | re.ASCII)
    return int(found[1]) if found else 0


def memory_kib(meminfo: str) -> int:
    """`MemTotal` of /proc/meminfo; 0 when there is none."""
    found = re.search(r"^MemTotal: +(\d{1,15}) kB$", meminfo, re.MULTILINE | re.ASCII)
    return int(found[1]) if found else 0


def os_release(text: str) -> dict[str, str]:
    """Keys and values of os-release(5); lines that are no assignment are left out."""
    found = {}
    for line in text.splitlines():
        key, sign, value = line.strip().partition("=")
        if not sign or not re.fullmatch(r"[A-Z][A-Z0-9_]*", key, re.ASCII):
            continue
        try:
            found[key] = clean("".join(shlex.split(value)))
        except ValueError:  # quotes that do not close
            continue
    return found


def bios_strings(root: Path) -> dict[str, str]:
    """What SMBIOS says, by the keys of host.bios_strings; only what the firmware fills in."""
    found = {key: _line(root / "sys/class/dmi/id" / name) for key, name in DMI.items()}
    return {key: value for key, value in found.items() if value}


def timezone(root: Path) -> str:
    """The IANA name of the time zone: where /etc/localtime points to, else /etc/timezone, else UTC."""
    try:
        target = str((root / "etc/localtime").readlink())
    except OSError:
        target = ""
    for name in (target.rpartition("zoneinfo/")[2], _line(root / "etc/timezone")):
        if ZONE.fullmatch(name):
            return name
    return "UTC"


def secure_boot(root: Path) -> bool:
    """Whether the firmware says that it checked what it booted (UEFI, variable SecureBoot)."""
    try:
        with (root / SECURE_BOOT).open("rb") as file:
            value = file.read(SECURE_BOOT_VALUE + 1)
    except OSError:
        return False
    return len(value) > SECURE_BOOT_VALUE and value[SECURE_BOOT_VALUE] == 1


def clean(text: str) -> str:
    """The text without what no XenAPI value can hold (control characters: firmware is full of them)."""
    return NOT_IN_XML.sub("", text).strip()


def _pairs(block: str) -> dict[str, str]:
    lines = (line.partition(":") for line in block.splitlines())
    return {key.strip(): clean(value) for key, sign, value in lines if sign}


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else 0


def _decimal(text: str) -> float:
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII) else 0.0


def _line(path: Path) -> str:
    return clean(_text(path).partition("\n")[0])


def _text(path: Path) -> str:
    """The start of a text file, empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(LIMIT_BYTES).decode(errors="replace")
    except OSError:
        return ""
