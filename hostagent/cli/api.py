"""`hostagent api`: what of the XenAPI works."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hostagent.cli.parser import command, group

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from hostagent.cli.parser import Subparsers

Names = dict[str, list[str]]
WORKS, NOT_BUILT = "works", "not built"


def add_parser(subparsers: Subparsers) -> None:
    commands = group(
        subparsers,
        "api",
        summary="the XenAPI: what of it works",
        examples="""
            hostagent api coverage
            hostagent api coverage --class host
        """,
    )
    parser = command(
        commands,
        "coverage",
        coverage,
        summary="how many calls of each class work, and which do not yet",
        description="""\
Counts the calls of the data model that the running daemon answers, class by class. Every other call is answered with
NOT_IMPLEMENTED and its name.""",
        examples="""
            hostagent api coverage
            hostagent api coverage --class host          the names
            hostagent api coverage --json | jq '.host["not built"]'
        """,
    )
    parser.add_argument("--class", metavar="CLASS", dest="cls", help="list the calls of this class by name")


def coverage(args: argparse.Namespace) -> int:
    from hostagent.api.client import call
    from hostagent.api.local_socket import socket_path
    from hostagent.cli import output
    from hostagent.config import Paths

    found = cast("dict[str, Names]", call(socket_path(Paths.from_arguments(args)), "hostagent.api_coverage"))
    if args.cls is not None:
        names = _one(found, args.cls)
        rows = [
            {"call": f"{args.cls}.{name}", "state": state} for state in names for name in sorted(names[state])
        ]
        output.emit(args, {args.cls: names} if args.json else rows)
        return 0
    if args.json:
        output.emit(args, found)
        return 0
    output.emit(args, rows_of(found))
    return 0


def rows_of(found: Mapping[str, Names]) -> list[dict[str, object]]:
    """One row a class, by name, and one for all."""
    rows: list[dict[str, object]] = [
        {"class": cls, WORKS: len(names[WORKS]), NOT_BUILT: len(names[NOT_BUILT])}
        for cls, names in sorted(found.items(), key=lambda item: item[0].lower())
    ]
    total = {state: sum(len(names[state]) for names in found.values()) for state in (WORKS, NOT_BUILT)}
    return [*rows, {"class": "all", **total}]


def _one(found: Mapping[str, Names], cls: str) -> Names:
    import difflib

    from hostagent.errors import InvalidValueError

    if cls in found:
        return found[cls]
    near = difflib.get_close_matches(cls, found, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}? " if near else ""
    raise InvalidValueError(
        "class", cls, f"the data model has no class {cls}", hint=f"{meant}`hostagent api coverage` lists them"
    )
