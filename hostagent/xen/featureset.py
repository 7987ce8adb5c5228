"""Which processor features Xen gives to guests, as XenAPI writes them: `xen-cpuid` of the running Xen is asked.

The C binding has no call for it. A set is a row of 32-bit words in hexadecimal digits, joined with `-` in XenAPI and
with `:` by the tool; the order of words is Xen's own.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.run import CommandError, run
from hostagent.xen import hypercall

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
LINE = re.compile(
    r"^(Host|(?:PV|HVM)(?: Max| Default)?)[ \t]+([0-9a-f]{8}(?::[0-9a-f]{8}){0,63})[ \t]*$", re.M
)


@dataclass(frozen=True, slots=True)
class Featuresets:
    """What guests get by default (`pv`, `hvm`), and the most they can have, as a guest that migrates here may need
    (`…_max`). Empty where Xen has no such guests, or nobody could tell.
    """

    pv: str = ""
    hvm: str = ""
    pv_max: str = ""
    hvm_max: str = ""


def parse(output: str) -> Featuresets:
    """What `xen-cpuid` printed. Xen before 4.16 calls the defaults PV and HVM and has no maximum: the default then."""
    found = {name: words.replace(":", "-") for name, words in LINE.findall(output)}
    pv = found.get("PV Default", found.get("PV", ""))
    hvm = found.get("HVM Default", found.get("HVM", ""))
    return Featuresets(pv, hvm, found.get("PV Max", pv), found.get("HVM Max", hvm))


def read(root: Path = hypercall.ROOT) -> Featuresets:
    """Ask the tool of the running Xen; all empty when it cannot tell."""
    version = hypercall.hypervisor_version(root)
    if version is None:
        return Featuresets()
    name = f"{version[0]}.{version[1]}"
    path = root / f"usr/lib/xen-{name}/bin/xen-cpuid"
    if not path.is_file():
        log.info("the processor's features are not known: there is no %s", path)
        return Featuresets()
    try:
        return parse(run((str(path),), timeout_s=TIMEOUT_S, package=f"xen-utils-{name}").stdout)
    except CommandError as error:
        log.warning("the processor's features are not known: %s", error)
        return Featuresets()


def common(sets: list[str]) -> str:
    """What all of these sets have: the features of a pool. Words that one of them lacks are left out."""
    if not sets or not all(sets):
        return ""
    rows = [[int(word, 16) for word in one.split("-")] for one in sets]
    shared = []
    for words in zip(*rows, strict=False):
        bits = 0xFFFFFFFF
        for word in words:
            bits &= word
        shared.append(f"{bits:08x}")
    return "-".join(shared)
