"""What a bond is to be, in the kernel's settings, from its mode, its properties and the `bond-*` keys of its PIF.

networking.md 3.4. A key of the PIF wins over a property of the bond; what mainline bonding cannot do is refused
(balance-slb) or told (everything else): nothing is mapped to something similar in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net.finding import DEGRADE, STOP, STOP_UNLESS_BOOT, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostagent.net.records import Bond

ACTIVE_BACKUP, LACP = 1, 4
"""Modes of the kernel (`include/uapi/linux/if_bonding.h`)."""
MODES = {"active-backup": ACTIVE_BACKUP, "lacp": LACP, "802.3ad": LACP}
HASHES = {"tcpudp_ports": 1, "src_mac": 5}
"""xmit_hash_policy layer3+4, and vlan+srcmac (Linux 5.12)."""
RATES = {"slow": 0, "fast": 1}
MIIMON_MS, UPDELAY_MS, DOWNDELAY_MS = 100, 31000, 200
LONGEST_MS = 0x7FFFFFFF
KEY_MOST = 1023
"""ad_user_port_key has ten bits."""
SLB_REASON = (
    "the kernel's bonding driver has no balance-slb: a bond without it would balance otherwise than asked, "
    "and the switch would see MAC addresses move"
)
ELSEWHERE = ("use_carrier", "rebalance-interval", "lacp-fallback-ab")
"""Known keys of other backends; their defaults are what the kernel does."""
NUMBERS = ("miimon", "updelay", "downdelay", "lacp-aggregation-key")
CHOICES = ("hashing-algorithm", "lacp-time")
"""Keys and, but for the spelling, properties that may have some values only."""
AS_THE_KERNEL = {"use_carrier": ("1", "true"), "lacp-fallback-ab": ("true",)}


class BondSettings(NamedTuple):
    settings: Mapping[str, int]
    findings: tuple[Finding, ...]
    primary: str = ""
    """The device that `bond-primary` names, in active-backup: whether it is a member is for the caller to see."""


def settings_of(bond: Bond, keys: Mapping[str, str]) -> BondSettings:
    """The settings of a bond; `keys` are `bond-*` of its PIF without that word.

    Delays are whole multiples of miimon, as the kernel rounds them. A bond of one member has nothing to balance, so
    balance-slb is then active-backup, which is the same on one link. Where the key names a mode that cannot be had, the
    settings are those of the bond's own mode: for a boot. The findings name the bond's PIF; with a STOP there are no
    settings.
    """
    # the record spells one name otherwise than the key
    values = {
        name.replace("hashing_algorithm", "hashing-algorithm"): each for name, each in bond.properties.items()
    }
    values.update(keys)
    findings: list[Finding] = []

    def tell(key: str, found: str, hint: str) -> None:
        findings.append(
            Finding(9, DEGRADE, (bond.master,), f"bond property {key}={values[key]!r} {found}", hint)
        )

    def number(key: str, default: int, least: int, most: int) -> int:
        text = values.get(key, "").strip()
        if text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most:
            return int(text)
        if key in values:
            tell(
                key,
                f"is no number from {least} to {most}",
                f"mend or remove it; meanwhile {default if default >= 0 else 'none'} is used",
            )
        return default

    def choice(key: str, default: str, of: Mapping[str, int]) -> int:
        if values.get(key, default) in of:
            return of[values.get(key, default)]
        tell(key, "is not known", f"use {' or '.join(of)}; meanwhile {default} is used")
        return of[default]

    name = keys.get("mode", bond.mode)
    mode, own = _mode(bond, name), _mode(bond, bond.mode)
    if not mode:
        refusal = _refusal(bond, name)
        if not own:
            return BondSettings({}, (refusal,))
        told = f"{refusal.found}; at boot it is {bond.mode!r}, as the bond has it"
        findings.append(
            refusal._replace(severity=STOP_UNLESS_BOOT, found=told, hint="remove the key bond-mode")
        )
        mode = own
    miimon = number("miimon", MIIMON_MS, 1, LONGEST_MS)
    settings = {
        "mode": mode,
        "miimon": miimon,
        "updelay": number("updelay", UPDELAY_MS, 0, LONGEST_MS) // miimon * miimon,
        "downdelay": number("downdelay", DOWNDELAY_MS, 0, LONGEST_MS) // miimon * miimon,
    }
    if mode == LACP:
        settings["xmit_hash_policy"] = choice("hashing-algorithm", "tcpudp_ports", HASHES)
        settings["ad_lacp_rate"] = choice("lacp-time", "slow", RATES)
        settings["ad_user_port_key"] = max(number("lacp-aggregation-key", -1, 0, KEY_MOST), 0)
    for key in sorted(values):
        if key in ELSEWHERE:
            if values[key] not in AS_THE_KERNEL.get(key, (values[key],)):
                tell(key, "has no effect: Linux bonding does not have it", "remove it")
        elif key == "primary":
            if mode != ACTIVE_BACKUP:
                tell(key, "has no effect: only active-backup has a primary member", "remove it")
        elif key not in ("mode", *NUMBERS, *CHOICES):
            tell(key, "is not known", "remove it")
    return BondSettings(settings, tuple(findings), values.get("primary", "") if mode == ACTIVE_BACKUP else "")


def refused(key: str, value: str) -> Finding | None:
    """Why a `bond-*` key, without that word, may not have a value, whatever bond it is for; None for a key that nobody
    knows too: that one is told when the bond comes up, and does no harm."""
    from hostagent.net.records import Bond

    if key not in ("mode", *NUMBERS, *CHOICES):
        return None
    mode = value if key == "mode" else "lacp"  # where every number and choice has a meaning
    of_two = Bond("", "", "", ("", ""), mode=mode)
    return next(iter(settings_of(of_two, {key: value}).findings), None)


def _mode(bond: Bond, name: str) -> int:
    """The kernel's number of a mode; 0 for one that cannot be had."""
    if name == "balance-slb" and len(bond.slaves) == 1:
        return ACTIVE_BACKUP
    return MODES.get(name, 0)


def _refusal(bond: Bond, mode: str) -> Finding:
    reason = SLB_REASON if mode == "balance-slb" else "no such mode"
    return Finding(
        8,
        STOP,
        (bond.master,),
        f"bond mode {mode!r} cannot be had: {reason}",
        f"hostagent xe bond-set-mode uuid={bond.uuid} mode=active-backup, or mode=lacp where the switch speaks it",
        "VALUE_NOT_SUPPORTED",
        ("mode", mode, reason),
    )
