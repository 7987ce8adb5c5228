"""`hostagent net status`, `plan`, `check` and `graph`: the network looked at, and nothing done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostagent.cli.parser import command
from hostagent.named import NamedTuple

if TYPE_CHECKING:
    import argparse

    from hostagent.cli.parser import Subparsers
    from hostagent.net.devices import Kernel, Wanted
    from hostagent.net.verify import Around


def add_parser(commands: Subparsers) -> None:
    command(
        commands,
        "status",
        status,
        summary="management interface, gateway and DNS owners, changes that wait",
        examples="""
            hostagent net status
            hostagent net status --json
        """,
    )
    command(
        commands,
        "plan",
        plan,
        summary="the operations that would bring everything attached to what is wanted",
        description="""\
The operations that would make the kernel as it is wanted, in order. Nothing is done.

exit codes:
  0  planned, or nothing to do
  1  failed
  4  planned, with less than is wanted: a NIC is not in this host, another program has it, …""",
        examples="""
            hostagent net plan
            hostagent net plan --json
        """,
    )
    command(
        commands,
        "check",
        check,
        summary="compare the kernel with what is wanted",
        description="""\
Compare devices, addresses, routes and settings with what is wanted of the PIFs that are up and of the management
interface.

exit codes:
  0  all as wanted
  1  failed
  4  something differs, or cannot be had: a NIC is not in this host, another program has it, …""",
        examples="""
            hostagent net check
        """,
    )
    graph = command(
        commands,
        "graph",
        graph_of,
        summary="NICs, bonds, VLANs, bridges and guests as a tree, or as a picture (SVG)",
        examples="""
            hostagent net graph
            hostagent net graph -o net.svg
        """,
    )
    graph.add_argument("-o", "--output", metavar="FILE", help="write a picture (SVG) here instead")


def status(args: argparse.Namespace) -> int:
    from hostagent.cli import netrecords, output
    from hostagent.config import Paths
    from hostagent.net import cache, evidence, journal
    from hostagent.net.attached import as_now
    from hostagent.net.chains import text
    from hostagent.net.owners import dns_owner, gateway_owner

    paths = Paths.from_arguments(args)
    found = netrecords.read(paths)
    kernel = netrecords.look()
    records = as_now(found.cached.records, kernel)
    up = [ref for ref, pif in records.pifs.items() if pif.currently_attached]
    known = evidence.gather(netrecords.folder_of(paths), journal.boot_id(paths.root))
    management = next((pif for pif in records.pifs.values() if pif.management), None)
    verified = cache.read_verified(netrecords.folder_of(paths))

    def owner(which: Any) -> str:
        return f"{text(records.pifs[which.ref])}: {which.reason}" if which.ref else f"none: {which.reason}"

    link = kernel.by_name().get(records.bridge)
    output.emit(
        args,
        {
            "management": text(management) if management else "none",
            "bridge": records.bridge,
            "addresses": [
                f"{one.text}/{one.prefix}" for one in kernel.addresses if link and one.device == link.ifindex
            ],
            "management_up": management.currently_attached if management else None,
            "pifs": len(records.pifs),
            "attached": len(up),
            "gateway_IPv4": owner(gateway_owner(records, up, 4)),
            "gateway_IPv6": owner(gateway_owner(records, up, 6)),
            "dns": owner(dns_owner(records, up)),
            "generation": found.cached.generation,
            "last_verified": verified.generation if verified else None,
            "waits_for_confirmation": known.pending or None,
            "last_change": known.last or None,
            "notes": list(found.told),
        },
    )
    return 0


class _Looked(NamedTuple):
    """What is wanted of everything that is up and of management, and a look at the host."""

    wanted: Wanted
    kernel: Kernel
    around: Around | None
    source: str
    told: tuple[str, ...]
    less: bool
    """Something of what is wanted cannot be had: no difference tells of it, for it is left out of `wanted`."""


def _looked(args: argparse.Namespace) -> _Looked:
    from hostagent.cli import netrecords
    from hostagent.config import Paths
    from hostagent.net.attached import as_now, torn
    from hostagent.net.checks import findings_of
    from hostagent.net.finding import STOP
    from hostagent.net.model import survey

    paths = Paths.from_arguments(args)
    found = netrecords.read(paths)
    records = found.cached.records
    host = netrecords.host_of(paths, records.bridge)
    kernel = host.tools.netlink.look()
    now = as_now(records, kernel)
    broken = torn(records, kernel)
    up = [
        ref
        for ref, pif in records.pifs.items()
        if (pif.currently_attached or pif.management or now.pifs[ref].currently_attached or ref in broken)
        and not pif.bond_slave_of
    ]
    surveyed = survey(now, up, links=kernel.by_name())
    findings = findings_of(now, surveyed, kernel=kernel)
    return _Looked(
        surveyed.wanted,
        kernel,
        host.around(surveyed.wanted, kernel),
        f"records of generation {found.cached.generation}",
        (*found.told, *(f"{finding.found} (hint: {finding.hint})" for finding in findings)),
        any(finding.severity == STOP and not set(up).isdisjoint(finding.refs) for finding in findings),
    )


def plan(args: argparse.Namespace) -> int:
    from hostagent.cli import netrecords
    from hostagent.net.bring import empty_result, put_plan
    from hostagent.net.plan import plan as plan_of

    looked = _looked(args)
    result = empty_result("plan", looked.source, "degraded" if looked.less else "planned")
    put_plan(result, plan_of(looked.wanted, looked.kernel, looked.around), looked.kernel)
    result["told"] += looked.told
    return netrecords.show(args, result)


def check(args: argparse.Namespace) -> int:
    from hostagent.cli import netrecords
    from hostagent.net.bring import empty_result, put_differences
    from hostagent.net.verify import differences

    looked = _looked(args)
    differing = differences(looked.wanted, looked.kernel, looked.around)
    result = empty_result("check", looked.source, "differs" if differing or looked.less else "right")
    put_differences(result, differing)
    result["told"] += looked.told
    return netrecords.show(args, result)


def graph_of(args: argparse.Namespace) -> int:
    from pathlib import Path

    from hostagent.cli import netrecords, output
    from hostagent.config import Paths
    from hostagent.errors import OperatorError
    from hostagent.net import graph

    found = netrecords.read(Paths.from_arguments(args))
    netrecords.tell(found)
    drawn = graph.graph(found.cached.records, netrecords.look())
    if args.output is not None:
        try:
            Path(args.output).write_text(graph.svg(drawn, "Network of this host"), encoding="utf-8")
        except OSError as error:
            raise OperatorError(
                f"{args.output} could not be written: {error.strerror}", hint="choose another place with -o"
            ) from error
        output.emit(args, {"file": args.output})
    elif args.json:
        nodes = [node._asdict() for node in drawn.nodes.values()]
        output.emit(args, {"nodes": nodes, "edges": [list(edge) for edge in drawn.edges]})
    else:
        print(graph.text(drawn, coloured=output.coloured()) or "no PIF is known: hostagent net status")
    return 0
