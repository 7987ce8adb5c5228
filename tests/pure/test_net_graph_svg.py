# mypy: disable-error-code="union-attr,arg-type"
# each test knows what it has drawn
"""The picture of the network, parsed: what stands where, what leads from where to where, and in which colour."""

from __future__ import annotations

import re

import defusedxml.ElementTree as Tree
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import graph
from hostagent.net.devices import Kernel
from hostagent.net.graph import COLOURS, DARK, DETACHED, FOREIGN, MISSING, UP
from hostagent.net.records import Bond, Network, Pif, Records, Vlan
from tests.pure.net_host import kernel, link, records

SVG = "{http://www.w3.org/2000/svg}"
CURVE = re.compile(r"M(-?\d+),(-?\d+) C.* (-?\d+),(-?\d+)")


class Picture:
    """`boxes`: name → left, top, right and middle of the height, colour, title; `edges`: pairs of names."""

    def __init__(self, drawn):
        root = Tree.fromstring(drawn)
        self.boxes = {}
        for group in root.iter(f"{SVG}g"):
            frame, bar = group.findall(f"{SVG}rect")
            name = group.find(f"{SVG}text").text
            x, y = int(frame.get("x")), int(frame.get("y"))
            middle = y + int(frame.get("height")) // 2
            assert frame.get("stroke") == bar.get("fill")
            self.boxes[name] = (x, y, x + int(frame.get("width")), middle, bar.get("fill"))
        leaving = {(right, middle): name for name, (_, _, right, middle, _) in self.boxes.items()}
        arriving = {(left, middle): name for name, (left, _, _, middle, _) in self.boxes.items()}
        self.edges = set()
        for path in root.iter(f"{SVG}path"):
            x1, y1, x2, y2 = map(int, CURVE.fullmatch(path.get("d")).groups())
            assert path.get("stroke") not in ("none", "#ffffff", None)
            self.edges.add((leaving[x1, y1], arriving[x2, y2]))
        words = [(one.text, int(one.get("x"))) for one in root.findall(f"{SVG}text")]
        self.columns = {text: x for text, x in words if text in graph.TITLES}
        swatches = [one for one in root.findall(f"{SVG}rect") if one.get("width") == "12"]
        self.legend = {
            next(text for text, x in words if text in COLOURS and x == int(one.get("x")) + 18): one.get(
                "fill"
            )
            for one in swatches
        }


def picture(known=None, **changed):
    return Picture(graph.svg(graph.graph(known or records(), kernel(**changed))))


def test_nic_bond_vlan_bridge_and_guest_stand_below_their_titles():
    found = picture()

    standing = {title: {name for name, box in found.boxes.items() if box[0] == x}
                for title, x in found.columns.items()}  # fmt: skip
    assert standing == {
        "NIC": {"eth0", "eth1", "eth2"}, "bond": {"bond0"}, "VLAN": {"bond0.5"},
        "bridge": {"xapi1", "xapi5", "xenbr2"}, "guest": {"vif1.0"},
    }  # fmt: skip
    assert list(found.columns.values()) == sorted(found.columns.values())


def test_the_edges_end_at_what_they_link():
    assert picture().edges == {
        ("eth0", "bond0"), ("eth1", "bond0"), ("bond0", "bond0.5"), ("bond0", "xapi1"), ("bond0.5", "xapi5"),
        ("xapi5", "vif1.0"), ("eth2", "xenbr2"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "name", "state"),
    [
        ({}, "bond0", UP),
        ({"eth1": {"carrier": False}}, "eth1", DARK),
        ({"eth1": None}, "eth1", MISSING),
        ({}, "eth2", DETACHED),
        ({"vif1.0": {"name": "veth7"}}, "veth7", FOREIGN),
    ],
)
def test_each_state_has_its_colour_and_the_legend_says_which(changed, name, state):
    found = picture(**changed)

    assert found.boxes[name][4] == COLOURS[state]
    assert found.legend[state] == COLOURS[state]


def test_colours_are_told_apart_and_the_legend_has_those_that_are_drawn():
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert picture().legend == {state: COLOURS[state] for state in (UP, DETACHED)}


def lost():
    """Records of a restored database: the VLAN's is there, of what it lies on nothing is."""
    known = records()
    pifs = {"upper": known.pifs["upper"]._replace(device="eth9", currently_attached=True)}
    return known._replace(pifs=pifs, bonds={})


def test_a_vlan_on_what_neither_records_nor_kernel_have_is_shown_on_something_missing():
    found = graph.graph(lost(), kernel())

    drawn = Picture(graph.svg(found))
    assert {("eth9", "eth9.5"), ("eth9.5", "xapi5")} <= drawn.edges
    assert drawn.boxes["eth9"][4] == COLOURS[MISSING]
    lines = graph.text(found).splitlines()
    (at,) = [at for at, line in enumerate(lines) if line.startswith("eth9 ")]
    assert lines[at].split() == ["eth9", "nic", "missing", "no", "PIF"]
    assert lines[at + 1].startswith("└─ eth9.5 ")
    assert lines[at + 2].startswith("   └─ xapi5 ")


def test_a_vlan_on_a_nic_of_the_kernel_that_is_no_pifs_is_shown_on_something_foreign():
    look = kernel()
    look = look._replace(links={**look.links, 30: link(30, "eth9")})

    assert graph.graph(lost(), look).nodes["eth9"].state == FOREIGN


@pytest.mark.parametrize("first", [(), (("eth0", "a"),)])
def test_a_ring_is_shown_once_round(first):
    nodes = {name: graph.Node(name, "vlan", UP) for name in ("a", "b", *("eth0" for _ in first))}
    ring = graph.Graph(nodes, (*first, ("a", "b"), ("b", "a")))

    shown = [line.lstrip(" └─").split(" ")[0] for line in graph.text(ring).splitlines()]

    assert shown == [*("eth0" for _ in first), "a", "b"]
    assert set(Picture(graph.svg(ring)).edges) == set(ring.edges)


NAMES = st.sampled_from(["eth0", "eth1", "bond0", "bond0.5", "xapi1", "eth0.5", "vif1.0"])
REFS = st.sampled_from(["a", "b", "c", "d", ""])
PIFS = st.lists(
    st.builds(
        Pif, ref=REFS, uuid=REFS, device=NAMES, network=REFS, vlan=st.sampled_from([-1, 5]), physical=st.booleans(),
        managed=st.booleans(), management=st.booleans(), currently_attached=st.booleans(), bond_slave_of=REFS,
        bond_master_of=st.sampled_from([(), ("a",), ("b",)]), vlan_master_of=REFS,
        vlan_slave_of=st.sampled_from([(), ("a",)]),
    ),
    max_size=4, unique_by=lambda pif: pif.ref,
)  # fmt: skip
LINKS = st.lists(
    st.builds(
        link, st.integers(1, 6), NAMES, st.sampled_from(["", "bond", "vlan", "bridge"]), master=st.integers(0, 6),
        lower=st.integers(0, 6), vlan_id=st.sampled_from([0, 5]), carrier=st.booleans(), flags=st.integers(0, 1),
    ),
    max_size=5, unique_by=(lambda one: one.ifindex, lambda one: one.name),
)  # fmt: skip


@st.composite
def networks(draw):
    """Records that contradict each other, and a kernel that has little of them."""
    pifs = {pif.ref: pif for pif in draw(PIFS)}
    bridges = {
        ref: Network(ref, ref, "", name)
        for ref, name in draw(st.dictionaries(REFS, NAMES, max_size=4)).items()
    }
    slaves = draw(st.dictionaries(REFS, st.lists(REFS, max_size=3), max_size=2))
    bonds = {ref: Bond(ref, ref, "a", tuple(of)) for ref, of in slaves.items()}
    tagged = draw(st.dictionaries(REFS, st.tuples(REFS, REFS), max_size=2))
    vlans = {ref: Vlan(ref, ref, of[0], of[1], 5) for ref, of in tagged.items()}
    links = {one.ifindex: one for one in draw(LINKS)}
    return Records("host", pifs, bridges, bonds, vlans), Kernel(links, (), ())


@given(networks())
def test_records_that_contradict_each_other_are_drawn_all_the_same(host):
    found = graph.graph(*host)

    tree = graph.text(found)
    Tree.fromstring(graph.svg(found))
    shown = [re.sub(r"^[│├└─ ]+", "", line).split(" ")[0] for line in tree.splitlines()]
    assert set(shown) == set(found.nodes)
