"""`hostagent pif`: the host's network interfaces, brought up and down, and why one is not as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostagent.cli.parser import command, group, seconds

if TYPE_CHECKING:
    import argparse

    from hostagent.cli.parser import Parser, Subparsers

DEFAULT_S = 60.0


def add_parser(subparsers: Subparsers) -> None:
    commands = group(
        subparsers,
        "pif",
        summary="network interfaces (PIFs): list, bring up and down, explain",
        description="""\
PIFs are this host's network interfaces: NICs, bonds, and VLANs on them. Commands name one by its uuid, device (eth0,
eth0.5, bond0) or bridge (xenbr0). They work with the daemon, and without it from the cached copy.""",
        examples="""
            hostagent pif list
            hostagent pif explain xenbr0        why is it not up, or not the gateway?
            hostagent pif plug eth0.5
        """,
    )
    command(
        commands,
        "list",
        list_pifs,
        summary="all PIFs of this host, and which are up",
        examples="""
            hostagent pif list
            hostagent pif list --json | jq '.[] | select(.attached | not)'
        """,
    )
    _named(
        command(
            commands,
            "show",
            show_pif,
            summary="everything about one PIF",
            examples="""
                hostagent pif show eth0
            """,
        )
    )
    _changing(
        command(
            commands,
            "plug",
            plug,
            summary="bring a PIF up",
            description=f"Bring a PIF up, with what it lies on. What is right already is not touched.\n\n{EXITS}",
            examples="""
                hostagent pif plug eth0.5 --plan        what would be done
                hostagent pif plug xenbr0 --confirm     undone unless `hostagent net confirm` follows
            """,
        )
    )
    _changing(
        command(
            commands,
            "unplug",
            unplug,
            summary="take a PIF down",
            description=f"Take a PIF down, with what only it needs.\n\n{EXITS}",
            examples="""
                hostagent pif unplug eth0.5
            """,
        )
    )
    _named(
        command(
            commands,
            "explain",
            explain_pif,
            summary="why a PIF is not up, not the gateway, or has another MTU",
            description="""\
Compares what is wanted with what the kernel has, and says what stands between: each reason with its evidence and what
to type next. Nothing is changed. Where nothing shows that the PIF works, it listens for four seconds for LACP, LLDP
and VLAN tags.""",
            examples="""
                hostagent pif explain eth0
                hostagent pif explain xenbr0 --json
            """,
        )
    )


EXITS = """\
exit codes:
  0  done, or nothing to do
  1  failed, and nothing was changed, or undoing it failed in part
  2  wrong command line
  3  failed and undone: the network is as before
  4  done, but less than was asked for (no carrier, no DHCP answer, …)"""


def _named(parser: Parser) -> Parser:
    parser.add_argument("pif", metavar="PIF", help="its uuid, device (eth0, eth0.5) or bridge")
    return parser


def _changing(parser: Parser) -> None:
    _named(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--plan", action="store_true", help="print the operations, and do nothing")
    how.add_argument("--confirm", action="store_true", help="undo it unless it is confirmed in time")
    parser.add_argument(
        "--timeout", type=seconds, default=DEFAULT_S, metavar="SECONDS", help="for all of it (default 60)"
    )


def list_pifs(args: argparse.Namespace) -> int:
    from hostagent.cli import netrecords, output
    from hostagent.config import Paths
    from hostagent.net.attached import as_now

    found = netrecords.read(Paths.from_arguments(args))
    netrecords.tell(found)
    kernel = netrecords.look()
    records = as_now(found.cached.records, kernel)
    links = kernel.by_name()
    rows = []
    for pif in sorted(records.pifs.values(), key=lambda one: (len(one.device), one.device, one.vlan)):
        network = records.networks.get(pif.network)
        link = links.get(pif.device)
        rows.append(
            {
                "device": f"{pif.device}.{pif.vlan}" if pif.vlan >= 0 else pif.device,
                "bridge": network.bridge if network else "",
                "attached": pif.currently_attached,
                "carrier": link.carrier if link else None,
                "management": pif.management,
                "ipv4": " ".join(filter(None, (pif.ip_mode, pif.ip))),
                "ipv6": " ".join((pif.ipv6_mode, *pif.ipv6)),
                "bond": records.pifs[records.bonds[pif.bond_slave_of].master].device
                if pif.bond_slave_of in records.bonds
                and records.bonds[pif.bond_slave_of].master in records.pifs
                else "",
                "mac": pif.mac,
                "uuid": pif.uuid,
            }
        )
    output.emit(args, rows, empty="no PIF is known: hostagent net status")
    return 0


def show_pif(args: argparse.Namespace) -> int:
    from hostagent.cli import netrecords, output
    from hostagent.config import Paths
    from hostagent.net.attached import as_now, device_of

    found = netrecords.read(Paths.from_arguments(args))
    netrecords.tell(found)
    ref = netrecords.pif_of(found, args.pif).ref
    kernel = netrecords.look()
    records = as_now(found.cached.records, kernel)
    pif = records.pifs[ref]
    network = records.networks.get(pif.network)
    links = kernel.by_name()
    vlans = {(link.lower, link.vlan_id): link for link in kernel.links.values() if link.kind == "vlan"}
    device, bridge = device_of(pif, links, vlans), links.get(network.bridge) if network else None
    index = bridge.ifindex if bridge else device.ifindex if device else -1
    shown: dict[str, Any] = {
        **pif._asdict(),
        "network": network.name_label if network else "",
        "bridge": network.bridge if network else "",
        "mtu_wanted": network.mtu if network else None,
        "mtu": device.mtu if device else None,
        "carrier": device.carrier if device else None,
        "addresses": [f"{one.text}/{one.prefix}" for one in kernel.addresses if one.device == index],
    }
    if not args.json:
        shown["properties"] = [f"{name}={value}" for name, value in pif.properties.items()]
        shown["other_config"] = [f"{name}={value}" for name, value in pif.other_config.items()]
    output.emit(args, shown)
    return 0


def plug(args: argparse.Namespace) -> int:
    return _change(args, "up")


def unplug(args: argparse.Namespace) -> int:
    return _change(args, "down")


def _change(args: argparse.Namespace, action: str) -> int:
    from hostagent.cli import netrecords
    from hostagent.config import Paths
    from hostagent.net.bring import DO, PLAN, Request

    paths = Paths.from_arguments(args)
    found = netrecords.read(paths)
    pif = netrecords.pif_of(found, args.pif)
    request = Request(
        action,
        pif.uuid,
        mode=PLAN if args.plan else DO,
        timeout_s=args.timeout,
        confirm=args.confirm,
    )
    result = netrecords.change(paths, request)
    # a damaged copy was set aside by our read: the one of the change did not meet it
    result["told"] = [*(one for one in found.told if one not in result["told"]), *result["told"]]
    return netrecords.show(args, result)


def explain_pif(args: argparse.Namespace) -> int:
    from hostagent.cli import netrecords, output
    from hostagent.config import Paths
    from hostagent.net import evidence, explain, journal
    from hostagent.net.reason import record

    paths = Paths.from_arguments(args)
    found = netrecords.read(paths)
    netrecords.tell(found)
    pif = netrecords.pif_of(found, args.pif)
    kernel = netrecords.look()
    records = found.cached.records
    known = evidence.gather(netrecords.folder_of(paths), journal.boot_id(paths.root))
    known = evidence.ask_around(known, records, kernel, pif, evidence.of_host(paths.root))
    answer = explain.explain(records, kernel, pif.ref, known)
    if args.json:
        reasons = [record(reason) for reason in answer.reasons]
        output.emit(args, {**answer._asdict(), "facts": dict(answer.facts), "reasons": reasons})
    else:
        print(explain.text(answer))
    return 0
