"""Hints that name a command name one that there is, with parameters that it has: a person types them in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hostagent.cli import build_parser
from hostagent.cli.parser import leaves
from hostagent.net import bring, explain
from hostagent.net.checks import check
from hostagent.net.finding import STOP
from hostagent.xe import shell
from hostagent.xe.command import Takes
from tests.pure.net_host import kernel, records

PACKAGE = Path(bring.__file__).parents[1]
FILES = sorted(
    [
        *PACKAGE.glob("net/*.py"),
        *PACKAGE.glob("netctl/adopt*.py"),
        *PACKAGE.glob("cli/net*.py"),
        PACKAGE / "cli/pif.py",
    ]
)
XE = re.compile(r"hostagent xe ([a-z0-9{}-]+)((?: [a-z:-]+=[^\s\"]*)*)")
OURS = re.compile(r"hostagent (?:pif|net) [a-z-]+")
CALL = re.compile(r"\b(?:PIF|Bond|VLAN|network|host)\.[a-z]+_?[a-z_]*")
FINDING = re.compile(r"(?:hint|command)\s*=\s*\(?\s*f?\"([^\"]*)\"")


def words(pattern):
    return [(path.name, match) for path in FILES for match in pattern.finditer(path.read_text())]


def named(name):
    """The xe commands that a name of a hint stands for; `{…}` is filled in when it is told."""
    wanted = re.compile(re.sub(r"\{\w+\}", "[a-z0-9]+", name))
    return [command for each, command in shell.commands().items() if wanted.fullmatch(each)]


def test_every_xe_command_of_a_hint_is_one():
    found = [(file, match) for file, match in words(XE) if match[1] != "help"]
    assert {match[1] for _, match in found} >= {
        "pif-scan",
        "pif-reconfigure-ip",
        "host-management-reconfigure",
    }
    for file, match in found:
        commands = named(match[1])
        assert commands, (file, match[0])
        given = {word.partition("=")[0].partition(":")[0] for word in match[2].split()}
        assert any(takes(command, given) for command in commands), (file, match[0])


def takes(command, given):
    known = {each.rstrip(":") for each in (*command.required, *command.optional)}
    return given <= known or command.takes is Takes.FIELDS


def test_every_command_of_ours_is_one():
    known = {leaf.prog for leaf in leaves(build_parser())}
    found = {(file, match[0]) for file, match in words(OURS)}
    assert found
    for file, command in found:
        assert command in known, (file, command)


def test_no_hint_is_a_call_of_the_api():
    hints = [(file, match[1]) for file, match in words(FINDING)]
    assert len(hints) > 50
    assert [one for one in hints if CALL.search(one[1])] == []


@pytest.mark.parametrize(
    ("changed", "ref", "command"),
    [
        ({"eth2": None}, "nic2", "hostagent xe pif-scan host-uuid=host-1"),
        ({"eth0": None, "eth1": None}, "master", "hostagent net emergency-reset --nic NIC"),
        (
            {"eth2": {"permanent_mac": "52:54:00:00:00:77"}},
            "nic2",
            "hostagent xe pif-scan host-uuid=host-1",
        ),
        ({"eth2": {"name": "eth7"}}, "nic2", "hostagent xe pif-scan host-uuid=host-1"),
    ],
)
def test_what_stands_in_the_way_of_a_nic_has_the_command_to_type(changed, ref, command):
    look = kernel(**changed)

    stops = [finding.hint for finding in check(records(), [ref], kernel=look) if finding.severity == STOP]
    assert stops[0] == command
    assert command in [reason.command for reason in explain.explain(records(), look, ref).reasons]
