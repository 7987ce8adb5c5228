"""The cached database of older products, `network.dbcache` (networking.md 2.4): XML, read and written for comparison.

It has no mode and properties of bonds, no IPv6 and no name labels; what it does not have gets its default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import defusedxml.ElementTree as SafeTree

from hostagent.errors import InvalidValueError
from hostagent.net.records import Bond, Network, Pif, Records, Vlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = "xenserver-network-configuration"
NULL = "OpaqueRef:NULL"
PIF_TEXTS = {
    "device": "device",
    "IP": "ip",
    "netmask": "netmask",
    "gateway": "gateway",
    "DNS": "dns",
    "MAC": "mac",
}


def to_xml(records: Records) -> bytes:
    """The records in the old form."""
    root = ET.Element(ROOT)
    for pif in records.pifs.values():
        element = _object(root, "pif", pif.ref, pif.uuid)
        _add(element, management=_flag(pif.management), network=pif.network)
        _add(element, **{old: getattr(pif, ours) for old, ours in PIF_TEXTS.items()})
        _list(element, "bond_master_of", "slave", pif.bond_master_of)
        _add(element, bond_slave_of=pif.bond_slave_of or NULL, VLAN=str(pif.vlan))
        _add(element, VLAN_master_of=pif.vlan_master_of or NULL)
        _list(element, "VLAN_slave_of", "master", pif.vlan_slave_of)
        _list(element, "tunnel_access_PIF_of", "pif", ())
        _list(element, "tunnel_transport_PIF_of", "pif", ())
        _add(element, ip_configuration_mode=pif.ip_mode, currently_attached=_flag(pif.currently_attached))
        _pairs(element, pif.other_config)
    for network in records.networks.values():
        element = _object(root, "network", network.ref, network.uuid)
        _add(element, bridge=network.bridge, MTU=str(network.mtu))
        on_it = [pif.ref for pif in records.pifs.values() if pif.network == network.ref]
        _list(element, "PIFs", "PIF", on_it)
        _pairs(element, network.other_config)
    for bond in records.bonds.values():
        element = _object(root, "bond", bond.ref, bond.uuid)
        _add(element, master=bond.master)
        _list(element, "slaves", "slave", bond.slaves)
    for vlan in records.vlans.values():
        element = _object(root, "vlan", vlan.ref, vlan.uuid)
        _add(element, tagged_PIF=vlan.tagged, untagged_PIF=vlan.untagged)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def from_xml(data: bytes) -> Records:
    """The records of an old cache. As there, nothing is attached; a NIC is what is neither bond nor VLAN.

    Raises InvalidValueError: not XML of that form.
    """
    try:
        root = SafeTree.fromstring(data)
        if root.tag != ROOT:
            raise ValueError(f"the root is {root.tag}")
        pifs = [_pif(element) for element in root.findall("pif")]
        networks = [
            Network(
                element.attrib["ref"],
                _text(element, "uuid"),
                "",
                _text(element, "bridge"),
                mtu=int(_text(element, "MTU") or 1500),
                other_config=_map(element),
            )
            for element in root.findall("network")
        ]
        bonds = [
            Bond(
                element.attrib["ref"],
                _text(element, "uuid"),
                _ref(element, "master"),
                _items(element, "slaves"),
            )
            for element in root.findall("bond")
        ]
        tags = {pif.ref: pif.vlan for pif in pifs}
        vlans = [
            Vlan(
                element.attrib["ref"],
                _text(element, "uuid"),
                _ref(element, "tagged_PIF"),
                _ref(element, "untagged_PIF"),
                tags.get(_ref(element, "untagged_PIF"), -1),
            )
            for element in root.findall("vlan")
        ]
    except (ET.ParseError, ValueError, LookupError) as error:
        raise InvalidValueError(
            "network.dbcache", "", f"this is no network.dbcache: {error}", hint="give a file that was one"
        ) from error
    bridges = {network.ref: network.bridge for network in networks}
    management = next((bridges.get(pif.network, "") for pif in pifs if pif.management), "")
    return Records(
        "",
        {one.ref: one for one in pifs},
        {one.ref: one for one in networks},
        {one.ref: one for one in bonds},
        {one.ref: one for one in vlans},
        management,
    )


def _pif(element: ET.Element) -> Pif:
    vlan = int(_text(element, "VLAN") or -1)
    bonds = _items(element, "bond_master_of")
    return Pif(
        ref=element.attrib["ref"],
        uuid=_text(element, "uuid"),
        device=_text(element, "device"),
        network=_ref(element, "network"),
        vlan=vlan,
        physical=vlan < 0 and not bonds,
        management=_text(element, "management") == "True",
        ip_mode=_text(element, "ip_configuration_mode") or "None",
        bond_slave_of=_ref(element, "bond_slave_of"),
        bond_master_of=bonds,
        vlan_master_of=_ref(element, "VLAN_master_of"),
        vlan_slave_of=_items(element, "VLAN_slave_of"),
        other_config=_map(element),
        mac=_text(element, "MAC"),
        ip=_text(element, "IP"),
        netmask=_text(element, "netmask"),
        gateway=_text(element, "gateway"),
        dns=_text(element, "DNS"),
    )


def _object(root: ET.Element, name: str, ref: str, uuid: str) -> ET.Element:
    element = ET.SubElement(root, name, ref=ref)
    _add(element, uuid=uuid)
    return element


def _add(element: ET.Element, **texts: str) -> None:
    for name, text in texts.items():
        ET.SubElement(element, name).text = text


def _list(element: ET.Element, name: str, item: str, values: Iterable[str]) -> None:
    inner = ET.SubElement(element, name)
    for value in values:
        ET.SubElement(inner, item).text = value


def _pairs(element: ET.Element, values: Mapping[str, str]) -> None:
    inner = ET.SubElement(element, "other_config")
    for name, value in values.items():
        ET.SubElement(inner, name).text = value


def _flag(value: bool) -> str:  # noqa: FBT001 - a formatter of a value
    return "True" if value else "False"


def _text(element: ET.Element, name: str) -> str:
    return element.findtext(name) or ""


def _ref(element: ET.Element, name: str) -> str:
    text = _text(element, name)
    return "" if text == NULL else text


def _items(element: ET.Element, name: str) -> tuple[str, ...]:
    inner = element.find(name)
    return () if inner is None else tuple(item.text or "" for item in inner)


def _map(element: ET.Element) -> dict[str, str]:
    inner = element.find("other_config")
    return {} if inner is None else {item.tag: item.text or "" for item in inner}
