"""What README and docs/ name exists: files, make targets, commands, options of our scripts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code_lines(text: str) -> list[str]:
    """What stands in indented or inline code."""
    return re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)


@every_page
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())

    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


@every_page
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = {
        match for line in code_lines(page.read_text()) for match in re.findall(r"\bmake ([a-z-]+)", line)
    }

    assert named <= targets


@every_page
def test_hostagent_commands_parse(page):
    from hostagent.cli import parse
    from hostagent.xe import arguments, shell

    lines = [re.split(r"  +|\s#", line)[0] for line in code_lines(page.read_text())]
    commands = [
        shlex.split(line)[1:] for line in lines if re.match(r"hostagent [a-z]", line) and "…" not in line
    ]

    for command in commands:
        args = parse(command)
        if args.command == "xe" and args.words[:1] not in ([], ["help"]):
            _, typed = arguments.parse(args.words)
            shell.commands()[typed.command].check(typed)


@every_page
def test_project_files_named_in_code_exist(page):
    tops = "hostagent|scripts|packaging|ci|tests"
    named = {
        match
        for line in code_lines(page.read_text())
        for match in re.findall(rf"^((?:{tops})/[\w./-]+\.\w+)$", line)
    }

    assert [name for name in sorted(named) if not (PROJECT / name).exists()] == []


def test_every_target_of_the_makefile_is_explained():
    text = (PROJECT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None

    assert set(phony.group(1).split()) == set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))


def test_the_ci_command_is_the_one_readme_names():
    assert (PROJECT / ".ci" / "run").read_text().splitlines()[-1] == "make test"
    assert re.search(r"^    make test ", (PROJECT / "README.md").read_text(), re.MULTILINE)
