"""The network as a graph: NIC, bond, VLAN, bridge, guests' interfaces; as a text tree and as a picture (SVG). Pure.

What the records want and the kernel does not have is in it, as missing; what the kernel has and nobody asked for is
in it as foreign, where it is on one of ours.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net.attached import attached, device_of
from hostagent.net.devices import GUESTS_PORTS, SCOPE_LINK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hostagent.net.devices import Kernel, Link
    from hostagent.net.records import Pif, Records

COLUMNS = ("nic", "bond", "vlan", "bridge", "vif")
TITLES = ("NIC", "bond", "VLAN", "bridge", "guest")
UP, DARK, MISSING, DETACHED, FOREIGN = "up", "no carrier", "missing", "not attached", "foreign"
COLOURS = {UP: "#2e7d4f", DARK: "#d98324", MISSING: "#d1343b", DETACHED: "#8a93a0", FOREIGN: "#8e5bd0"}
SGR = {UP: "32", DARK: "33", MISSING: "31", DETACHED: "2", FOREIGN: "35"}
UP_FLAG = 1
LEFT_PX, TOP_PX, BOX_PX, HIGH_PX, STEP_X_PX, STEP_Y_PX = 24, 76, 172, 40, 214, 54
INK, FAINT, EDGE = "#20262e", "#66707d", "#aab2bd"
UNPRINTABLE = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd]")
"""What XML 1.0 does not allow in text (production 2)."""


class Node(NamedTuple):
    name: str
    column: str
    """nic, bond, vlan, bridge or vif."""
    state: str
    note: str = ""
    """MTU, addresses and the like, in words."""


class Graph(NamedTuple):
    nodes: Mapping[str, Node]
    """By name."""
    edges: tuple[tuple[str, str], ...]
    """From the wire to the guest."""


def graph(records: Records, kernel: Kernel) -> Graph:
    """All PIFs of the records with what is on their bridges, and the networks without a PIF whose bridge is there."""
    return _Drawing(records, kernel).graph()


class _Drawing:
    def __init__(self, records: Records, kernel: Kernel) -> None:
        self.records = records
        self.links = kernel.by_name()
        self.by_index = kernel.links
        self.vlans = {
            (link.lower, link.vlan_id): link for link in kernel.links.values() if link.kind == "vlan"
        }
        self.up = attached(records, kernel)
        self.ports: dict[int, list[Link]] = {}
        for link in kernel.links.values():
            if link.master:
                self.ports.setdefault(link.master, []).append(link)
        self.addresses: dict[int, list[str]] = {}
        for address in kernel.addresses:
            if address.scope < SCOPE_LINK:
                self.addresses.setdefault(address.device, []).append(f"{address.text}/{address.prefix}")
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str], None] = {}

    def graph(self) -> Graph:
        pifs = sorted(self.records.pifs.values(), key=lambda pif: (pif.vlan, len(pif.device), pif.device))
        for pif in pifs:
            self._carrier(pif)
        for lower, _ in list(self.edges):
            self._without_pif(lower)
        for pif in pifs:
            self._bridge(pif)
        on_pifs = {pif.network for pif in pifs}
        for ref, network in self.records.networks.items():
            if ref not in on_pifs and network.bridge in self.links:
                self._bridge_node(network.bridge, UP, network.name_label)
        return Graph(self.nodes, tuple(self.edges))

    def _carrier(self, pif: Pif) -> None:
        """The node of what carries a PIF: NIC, bond or VLAN device."""
        link = device_of(pif, self.links, self.vlans)
        if pif.vlan >= 0:
            name = link.name if link else f"{pif.device}.{pif.vlan}"
            state = self._state(pif, link)
            self._add(Node(name, "vlan", state, _join(f"tag {pif.vlan}", self._mtu(link))))
            self.edges[pif.device, name] = None
            return
        if not pif.bond_master_of:
            note = _join(pif.mac, self._mtu(link), "" if pif.managed else "not managed")
            self._add(Node(pif.device, "nic", self._state(pif, link, member=bool(pif.bond_slave_of)), note))
            return
        bond = self.records.bonds.get(pif.bond_master_of[0])
        slaves = [self.records.pifs[ref] for ref in bond.slaves if ref in self.records.pifs] if bond else []
        live = sum(slave.device in self.links and self.links[slave.device].carrier for slave in slaves)
        mode = bond.mode if bond else ""
        note = _join(mode, f"{live} of {len(slaves)} links", self._mtu(link))
        state = self._state(pif, link)
        self._add(Node(pif.device, "bond", DARK if state == UP and live < len(slaves) else state, note))
        for slave in slaves:
            self.edges[slave.device, pif.device] = None

    def _without_pif(self, name: str) -> None:
        """The node of what the records lie on and do not have, as after a restore of the database."""
        link = self.links.get(name)
        column = "bond" if link and link.kind == "bond" else "nic"
        self._add(Node(name, column, FOREIGN if link else MISSING, _join("no PIF", self._mtu(link))))

    def _bridge(self, pif: Pif) -> None:
        network = self.records.networks.get(pif.network)
        if network is None or not network.bridge:
            return
        if pif.bond_slave_of and network.bridge not in self.links:
            return
        link = device_of(pif, self.links, self.vlans)
        carrier = link.name if link else f"{pif.device}.{pif.vlan}" if pif.vlan >= 0 else pif.device
        state = (
            self._wanted_state(pif)
            if network.bridge not in self.links
            else UP
            if pif.ref in self.up
            else MISSING
        )
        if pif.bond_slave_of and network.bridge in self.links:
            state = FOREIGN  # left from before the bond
        label = _join("management" if pif.management else "", network.name_label)
        self._bridge_node(network.bridge, state, label)
        if not pif.bond_slave_of:
            self.edges[carrier, network.bridge] = None

    def _bridge_node(self, name: str, state: str, label: str) -> None:
        link = self.links.get(name)
        addresses = ", ".join(self.addresses.get(link.ifindex, ())) if link else ""
        self._add(Node(name, "bridge", state, _join(addresses, label, self._mtu(link))))
        if link is None:
            return
        for port in self.ports.get(link.ifindex, ()):
            if port.name in self.nodes:
                continue
            foreign = not port.name.startswith(GUESTS_PORTS)
            self._add(Node(port.name, "vif", FOREIGN if foreign else UP, self._mtu(port)))
            self.edges[name, port.name] = None

    def _state(self, pif: Pif, link: Link | None, *, member: bool = False) -> str:
        if link is None:
            return MISSING if pif.vlan < 0 and not pif.bond_master_of else self._wanted_state(pif)
        if pif.ref not in self.up and not member and not self._carries(link):
            return DETACHED
        return UP if link.carrier and link.flags & UP_FLAG else DARK

    def _carries(self, link: Link) -> bool:
        return bool(link.master) or any(lower == link.ifindex for lower, _ in self.vlans)

    @staticmethod
    def _wanted_state(pif: Pif) -> str:
        return MISSING if pif.currently_attached or pif.management else DETACHED

    @staticmethod
    def _mtu(link: Link | None) -> str:
        return f"MTU {link.mtu}" if link and link.mtu != 1500 else ""

    def _add(self, node: Node) -> None:
        self.nodes.setdefault(node.name, node)


def _join(*words: str) -> str:
    return ", ".join(word for word in words if word)


def text(found: Graph, *, coloured: bool = False) -> str:
    """The graph as a tree, one line a node. A bond's NICs stand below it, before what lies on it."""
    below: dict[str, list[str]] = {}
    has_lower = set()
    for lower, upper in found.edges:
        if found.nodes[upper].column == "bond":
            below.setdefault(upper, []).append(lower)
            has_lower.add(lower)
        else:
            below.setdefault(lower, []).append(upper)
            has_lower.add(upper)
    lines: list[tuple[str, Node]] = []

    shown: set[str] = set()

    def walk(name: str, first: str, rest: str, above: tuple[str, ...] = ()) -> None:
        lines.append((first + name, found.nodes[name]))
        shown.add(name)
        children = [child for child in below.get(name, ()) if child not in (name, *above)]
        for number, child in enumerate(children):
            last = number == len(children) - 1
            walk(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "), (name, *above))

    # those in a ring, of records that contradict each other, have no first one
    for name in sorted(found.nodes, key=lambda name: name in has_lower):
        if name not in has_lower or name not in shown:
            walk(name, "", "")
    wide = max((len(label) for label, _ in lines), default=0)
    return "\n".join(_line(label, node, wide, coloured=coloured) for label, node in lines)


def _line(label: str, node: Node, wide: int, *, coloured: bool) -> str:
    state = f"{node.state:<12}"
    if coloured:
        state = f"\x1b[{SGR[node.state]}m{state}\x1b[0m"
    return f"{label:<{wide}}  {node.column:<6}  {state}  {node.note}".rstrip()


def svg(found: Graph, title: str = "Network") -> str:
    """The graph as an SVG document: a column for each kind, an edge for each link; any graph gives well-formed XML."""
    rows = _rows(found)
    place = {
        name: (LEFT_PX + STEP_X_PX * COLUMNS.index(found.nodes[name].column), TOP_PX + STEP_Y_PX * row)
        for name, row in rows.items()
    }
    width = LEFT_PX * 2 + STEP_X_PX * (len(COLUMNS) - 1) + BOX_PX
    height = TOP_PX + STEP_Y_PX * (max(rows.values(), default=0) + 1) + 40
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="DejaVu Sans, Verdana, sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _words(LEFT_PX, 32, title, size=18, weight="bold"),
        *(_words(LEFT_PX + STEP_X_PX * at, 60, word, colour=FAINT) for at, word in enumerate(TITLES)),
        *(_edge(place[lower], place[upper]) for lower, upper in found.edges),
        *(part for name, node in found.nodes.items() for part in _box(node, *place[name])),
        *_legend(found, height),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _rows(found: Graph) -> dict[str, int]:
    """A row for each node: those that hang together near each other, none on another."""
    following: dict[str, list[str]] = {}
    for lower, upper in found.edges:
        following.setdefault(lower, []).append(upper)
    rows: dict[str, int] = {}
    taken = dict.fromkeys(COLUMNS, 0)
    for start in sorted(found.nodes, key=lambda name: COLUMNS.index(found.nodes[name].column)):
        stack = [(start, 0)]
        while stack:
            name, least = stack.pop()
            if name in rows:
                continue
            column = found.nodes[name].column
            rows[name] = max(taken[column], least)
            taken[column] = rows[name] + 1
            stack += [(upper, rows[name]) for upper in reversed(following.get(name, ()))]
    return rows


def _edge(lower: tuple[int, int], upper: tuple[int, int]) -> str:
    x1, y1, x2, y2 = lower[0] + BOX_PX, lower[1] + HIGH_PX // 2, upper[0], upper[1] + HIGH_PX // 2
    middle = (x1 + x2) // 2
    curve = f"M{x1},{y1} C{middle},{y1} {middle},{y2} {x2},{y2}"
    return f'<path d="{curve}" fill="none" stroke="{EDGE}" stroke-width="1.5"/>'


def _box(node: Node, x: int, y: int) -> Iterable[str]:
    colour = COLOURS[node.state]
    dash = ' stroke-dasharray="5 3"' if node.state in (MISSING, DETACHED) else ""
    note = node.note if len(node.note) <= 30 else f"{node.note[:29]}…"
    yield "<g>"
    yield f"<title>{_escape(_join(node.name, node.state, node.note))}</title>"
    yield (
        f'<rect x="{x}" y="{y}" width="{BOX_PX}" height="{HIGH_PX}" rx="5" fill="#ffffff" stroke="{colour}"'
        f' stroke-width="2"{dash}/>'
    )
    yield f'<rect x="{x}" y="{y}" width="6" height="{HIGH_PX}" rx="3" fill="{colour}"/>'
    yield _words(x + 14, y + 17, node.name, weight="bold")
    yield _words(x + 14, y + 32, note or node.state, colour=FAINT, size=9)
    yield "</g>"


def _legend(found: Graph, height: int) -> Iterable[str]:
    x = LEFT_PX
    for state, colour in COLOURS.items():
        if any(node.state == state for node in found.nodes.values()):
            yield f'<rect x="{x}" y="{height - 28}" width="12" height="12" rx="2" fill="{colour}"/>'
            yield _words(x + 18, height - 18, state, colour=FAINT)
            x += 40 + 8 * len(state)


def _words(x: int, y: int, words: str, *, colour: str = INK, size: int = 12, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" font-size="{size}" font-weight="{weight}">{_escape(words)}</text>'


def _escape(words: str) -> str:
    return html.escape(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", words))
