"""The network as a graph: what is in it, with which state, as a tree and as a picture."""

from __future__ import annotations

import re

import defusedxml.ElementTree as Tree
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import graph
from hostagent.net.graph import DARK, DETACHED, FOREIGN, MISSING, UP, Graph, Node
from tests.pure.net_host import kernel, link, records


def states(**changed):
    return {name: node.state for name, node in graph.graph(records(), kernel(**changed)).nodes.items()}


def test_every_device_of_the_chain_is_there_with_its_links():
    found = graph.graph(records(), kernel())

    assert set(found.edges) == {
        ("eth0", "bond0"), ("eth1", "bond0"), ("bond0", "bond0.5"), ("bond0", "xapi1"), ("bond0.5", "xapi5"),
        ("xapi5", "vif1.0"), ("eth2", "xenbr2"),
    }  # fmt: skip
    assert found.nodes["bond0"].note == "lacp, 2 of 2 links"
    assert found.nodes["xapi1"].note == "192.0.2.10/24, management, net nb"


def test_states_of_a_network_that_works():
    assert states() == {
        "eth0": UP, "eth1": UP, "bond0": UP, "bond0.5": UP, "xapi1": UP, "xapi5": UP, "vif1.0": UP,
        "eth2": DETACHED, "xenbr2": DETACHED,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "name", "state"),
    [
        ({"eth1": {"carrier": False}}, "eth1", DARK),
        ({"eth1": {"carrier": False}}, "bond0", DARK),
        ({"eth1": None}, "eth1", MISSING),
        ({"xapi1": None}, "xapi1", MISSING),
        ({"bond0": {"master": 0}}, "xapi1", MISSING),
        ({"vif1.0": {"name": "veth7"}}, "veth7", FOREIGN),
    ],
)
def test_what_is_wrong_has_its_colour(changed, name, state):
    assert states(**changed)[name] == state


def test_the_tree_has_the_members_of_a_bond_below_it():
    tree = graph.text(graph.graph(records(), kernel()))
    lines = [re.split(r" +(?:nic|bond|vlan|bridge|vif) ", line)[0] for line in tree.splitlines()]

    assert lines[lines.index("bond0") :][:7] == [
        "bond0", "├─ eth0", "├─ eth1", "├─ bond0.5", "│  └─ xapi5", "│     └─ vif1.0", "└─ xapi1",
    ]  # fmt: skip


def test_colours_only_when_asked_for():
    found = graph.graph(records(), kernel())

    assert "\x1b[32mup" in graph.text(found, coloured=True)
    assert "\x1b" not in graph.text(found)


def boxes(picture):
    root = Tree.fromstring(picture)
    rects = [one.attrib for one in root.iter("{http://www.w3.org/2000/svg}rect") if one.get("height") == "40"]
    return [(int(one["x"]), int(one["y"])) for one in rects if one["width"] != "6"]


def test_the_picture_has_a_box_for_each_node_and_none_on_another():
    found = graph.graph(records(), kernel())

    assert len(boxes(graph.svg(found))) == len(set(boxes(graph.svg(found)))) == len(found.nodes)


names = st.text(max_size=8)
nodes = st.builds(Node, names, st.sampled_from(graph.COLUMNS), st.sampled_from(list(graph.COLOURS)), names)


@given(st.lists(nodes, max_size=12, unique_by=lambda node: node.name), st.data(), names)
def test_any_graph_is_well_formed_xml_without_overlaps(found, data, title):
    by_name = {node.name: node for node in found}
    pairs = [
        (a.name, b.name)
        for a in found
        for b in found
        if graph.COLUMNS.index(a.column) < graph.COLUMNS.index(b.column)
    ]
    edges = tuple(data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=10))) if pairs else ()

    placed = boxes(graph.svg(Graph(by_name, edges), title))

    assert len(set(placed)) == len(found)


def test_a_thousand_vlans_are_drawn_once_each():
    base, look = records(), kernel()
    links = {
        **look.links,
        **{100 + n: link(100 + n, f"v{n}", "vlan", lower=10, vlan_id=n) for n in range(6, 1006)},
    }
    template = base.pifs["upper"]
    pifs = {f"v{n}": template._replace(ref=f"v{n}", uuid=f"v{n}", vlan=n, network="") for n in range(6, 1006)}

    found = graph.graph(base._replace(pifs={**base.pifs, **pifs}), look._replace(links=links))

    assert sum(node.column == "vlan" for node in found.nodes.values()) == 1001
