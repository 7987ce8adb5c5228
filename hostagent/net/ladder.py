"""The emergency ladder: what to try next when the management network does not come up at boot (networking.md 5).

Pure choice, as data: (1) the same plan once more, (2) the last records that were verified, (3) a plain card with the
same fixed address, (4) DHCP on one card after the other, also with the VLAN tags seen there, (5) link-local addresses
and a message on the console. Rungs 3, 4 and the addresses of 5 only on cards that the operator listed (decisions 4):
anything else could open a door of this host on somebody else's wire. Without a list that leaves 1, 2 and the message.

The records of rungs 3 and 4 are of one card alone: bridges of guests are not in them, so nothing touches those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net.records import Network, Pif, Records, Vlan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from hostagent.net.dhcp_lease import Leased

RETRY, RESTORE, PLAIN, DHCP, CONSOLE = 1, 2, 3, 4, 5
ACTIONS = {RETRY: "retry", RESTORE: "restore", PLAIN: "plain", DHCP: "dhcp", CONSOLE: "console"}
TIMEOUTS_S = {RETRY: 60.0, RESTORE: 60.0, PLAIN: 30.0, DHCP: 25.0, CONSOLE: 5.0}
"""DHCP's is for one card and tag: a first try of four discovers, and the probe of the address that comes back."""
TAGS_LIMIT = 8  # tried on one card; a trunk shows hundreds, and each costs its time
EMERGENCY_BRIDGE = "xentemp"  # networking.md 1.5


class Seen(NamedTuple):
    """A card as it is now: whether it has carrier, and the VLAN tags heard on it, the most frequent first."""

    name: str
    mac: str
    carrier: bool
    tags: tuple[int, ...] = ()


class Situation(NamedTuple):
    """All that the choice depends on. `lease`: the last one that the management interface had, if it used DHCP."""

    records: Records
    verified: Records | None
    """What the host last came up with and was seen to work; None when there is none."""
    cards: tuple[Seen, ...]
    listed: tuple[str, ...] = ()
    """Cards that rungs 3 and 4 may use, in the order of the operator."""
    lease: Leased | None = None


class Rung(NamedTuple):
    """One try. `records` are to be brought up with their management PIF; None for the console message.

    `cards`: those that get link-local addresses (rung 5 only).
    """

    number: int
    records: Records | None
    why: str
    card: str = ""
    tag: int = -1
    cards: tuple[str, ...] = ()

    @property
    def action(self) -> str:
        return ACTIONS[self.number]

    @property
    def timeout_s(self) -> float:
        return TIMEOUTS_S[self.number]

    @property
    def key(self) -> tuple[int, str, int]:
        """What makes it the same try."""
        return self.number, self.card, self.tag


def choose(situation: Situation, tried: Collection[tuple[int, str, int]]) -> Rung | None:
    """The next try; None after the console message. Carrier and tags may have changed since the last choice.

    It never climbs down: a card that gets carrier while rung 4 is at work is not tried on rung 3 again.
    """
    highest = max((number for number, *_ in tried), default=0)
    for rung in rungs(situation):
        if rung.number >= highest and rung.key not in tried:
            return rung
    return None


def rungs(situation: Situation) -> Iterator[Rung]:
    """Every try that there is now, in order."""
    records = situation.records
    if management(records) is not None:
        yield Rung(
            RETRY, records, "the same once more: the switch or a server may have been slower than this host"
        )
    if situation.verified is not None and situation.verified != records:
        yield Rung(RESTORE, situation.verified, "the last configuration that was seen to work")
    cards = usable(situation)
    fixed = fixed_address(records, situation.lease)
    if fixed is not None:
        for card in cards:
            why = f"{fixed.ip or ', '.join(fixed.ipv6)} on {card.name} alone, without bond and VLAN"
            yield Rung(PLAIN, on_card(records, card, fixed), why, card.name)
    for card in cards:
        yield Rung(DHCP, on_card(records, card, ASK), f"DHCP on {card.name}, untagged", card.name)
        for tag in card.tags[:TAGS_LIMIT]:
            why = f"DHCP on {card.name} with VLAN tag {tag}, which is heard there"
            yield Rung(DHCP, on_tag(records, card, tag), why, card.name, tag)
    names = tuple(card.name for card in cards)
    where = f"link-local addresses on {', '.join(names)}" if names else "no card is listed for more"
    yield Rung(CONSOLE, None, f"{where}, and a message on the console", cards=names)


def usable(situation: Situation) -> list[Seen]:
    """The listed cards that have carrier, in the operator's order; those outside a bond first: they are whole alone."""
    seen = {card.name: card for card in situation.cards}
    bonded = {pif.device for pif in situation.records.pifs.values() if pif.bond_slave_of}
    found = [seen[name] for name in dict.fromkeys(situation.listed) if name in seen and seen[name].carrier]
    return sorted(found, key=lambda card: card.name in bonded)


def management(records: Records) -> Pif | None:
    """The PIF of the management network: the one marked so, else the one on the bridge of the inventory."""
    marked = [pif for pif in records.pifs.values() if pif.management]
    on_bridge = [
        pif
        for pif in records.pifs.values()
        if records.bridge
        and pif.network in records.networks
        and records.networks[pif.network].bridge == records.bridge
    ]
    return next(iter([*marked, *on_bridge]), None)


class Addressing(NamedTuple):
    """The IP part of a PIF, by the PIF's field names."""

    ip_mode: str
    ip: str = ""
    netmask: str = ""
    gateway: str = ""
    dns: str = ""
    ipv6_mode: str = "None"
    ipv6: tuple[str, ...] = ()
    ipv6_gateway: str = ""
    primary_address_type: str = "IPv4"


ASK = Addressing("DHCP", ipv6_mode="Autoconf")


def fixed_address(records: Records, lease: Leased | None) -> Addressing | None:
    """The management PIF's own fixed address, else that of its last lease; None when it never had one."""
    pif = management(records)
    if pif is None:
        return None
    own6 = pif.ipv6 if pif.ipv6_mode == "Static" else ()
    found = Addressing(
        "None",
        dns=pif.dns,
        ipv6_mode="Static" if own6 else "None",
        ipv6=own6,
        ipv6_gateway=pif.ipv6_gateway if own6 else "",
        primary_address_type=pif.primary_address_type,
    )
    if pif.ip_mode == "Static" and pif.ip:
        return found._replace(ip_mode="Static", ip=pif.ip, netmask=pif.netmask, gateway=pif.gateway)
    if pif.ip_mode == "DHCP" and lease is not None and lease.family == 4 and lease.addresses:
        ip, _, prefix = lease.addresses[0].partition("/")
        if prefix.isdecimal() and int(prefix) <= 32:
            return found._replace(
                ip_mode="Static",
                ip=ip,
                netmask=netmask_of(int(prefix)),
                gateway=next(iter(lease.routers), ""),
                dns=",".join(lease.dns) or pif.dns,
            )
    return found if own6 else None


def on_card(records: Records, card: Seen, addressing: Addressing) -> Records:
    """Records of this card alone, as management, on its own bridge."""
    pif, network = _plain(records, card)
    pif = pif._replace(management=True, **addressing._asdict())
    return Records(
        records.host_uuid,
        {pif.ref: pif},
        {network.ref: network},
        {},
        {},
        network.bridge,
        records.pool_other_config,
    )


def on_tag(records: Records, card: Seen, tag: int) -> Records:
    """Records of this card and a VLAN on it, which is management and asks for its address, on a bridge of its own."""
    lower, network = _plain(records, card)
    upper_ref, vlan_ref = f"emergency-{card.name}.{tag}", f"emergency-vlan-{card.name}.{tag}"
    temporary = Network(f"{upper_ref}-network", "", "Emergency management", EMERGENCY_BRIDGE)
    upper = Pif(
        upper_ref,
        "",
        card.name,
        temporary.ref,
        vlan=tag,
        management=True,
        vlan_master_of=vlan_ref,
        **ASK._asdict(),
    )
    lower = lower._replace(vlan_slave_of=(vlan_ref,))
    return Records(
        records.host_uuid,
        {lower.ref: lower, upper.ref: upper},
        {network.ref: network, temporary.ref: temporary},
        {},
        {vlan_ref: Vlan(vlan_ref, "", lower.ref, upper.ref, tag)},
        EMERGENCY_BRIDGE,
        records.pool_other_config,
    )


def _plain(records: Records, card: Seen) -> tuple[Pif, Network]:
    """The card's own PIF and network without address, bond and VLANs; made up where it has none."""
    own = [pif for pif in records.pifs.values() if pif.physical and pif.device == card.name and pif.managed]
    pif = own[0] if own else Pif(f"emergency-{card.name}", "", card.name, "", mac=card.mac, physical=True)
    network = records.networks.get(pif.network)
    if network is None or not network.bridge:
        network = Network(f"emergency-{card.name}-network", "", "Emergency management", f"br{card.name}"[:15])
    bare = Pif(
        pif.ref,
        pif.uuid,
        pif.device,
        network.ref,
        mac=pif.mac or card.mac,
        physical=True,
        properties=pif.properties,
        other_config={name: text for name, text in pif.other_config.items() if name.startswith("ethtool-")},
    )
    return bare, network


def netmask_of(prefix: int) -> str:
    number = 0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF
    return ".".join(str(number >> shift & 0xFF) for shift in (24, 16, 8, 0))


def console_message(
    failed: Sequence[tuple[Rung, str]], situation: Situation, local: Sequence[str] = ()
) -> str:
    """What stands on the console at the end: each try and why it failed, the cards, and what to type.

    `local`: link-local addresses by which the host can be reached from its segment."""
    lines = ["The management network of this host is down.", ""]
    lines += [f"  rung {rung.number} ({rung.why}): {reason}" for rung, reason in failed]
    lines += ["", *(_card_line(card, situation.listed) for card in situation.cards)]
    lines += [f"  {told}" for told in unknown(situation)]
    lines += [f"  reachable from the same segment: {each}" for each in local]
    lines += [
        "",
        "Log in here as root, then: hostagent net status; hostagent net emergency-reset --help",
    ]
    if not situation.listed:
        lines.append(
            "Cards that may be used in an emergency are named with hostagent net emergency-reset --nic NIC,"
            " or in the setting net.emergency-nics (none is)."
        )
    return "\n".join(lines) + "\n"


def unknown(situation: Situation) -> list[str]:
    """The listed names that no card has, in words."""
    names = [card.name for card in situation.cards]
    there = ", ".join(names) or "none"
    return [
        f"there is no NIC {name}; there are: {there}"
        for name in dict.fromkeys(situation.listed)
        if name not in names
    ]


def _card_line(card: Seen, listed: Collection[str]) -> str:
    carrier = "carrier" if card.carrier else "no carrier"
    tags = f", VLAN tags seen: {', '.join(map(str, card.tags[:TAGS_LIMIT]))}" if card.tags else ""
    return f"  {card.name} {card.mac}: {carrier}{tags}{'' if card.name in listed else ', not listed for emergencies'}"
