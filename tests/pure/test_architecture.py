"""The folder layout shows the architecture, and these rules keep it true (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "hostagent"
MODULES = sorted(PACKAGE.rglob("*.py"))
DRIVERS = ("xen", "net", "storage")
ABOVE_DRIVERS = ("api", "cli", "daemon", "db", "startup")
STARTS_PROCESSES = PACKAGE / "run.py"
CATCHES_ALL = {
    PACKAGE / "startup" / "runner.py",
    PACKAGE / "api" / "methods.py",
    PACKAGE / "api" / "dispatch.py",
}
PROCESS_MODULES = {"subprocess", "pty", "multiprocessing", "_posixsubprocess", "commands"}
PROCESS_CALLS = re.compile(
    r"^(os\.(system|popen|fork|forkpty|posix_spawnp?|spawn\w+|exec\w+)"
    r"|asyncio(\.subprocess)?\.create_subprocess_\w+|\w+\.subprocess_(exec|shell)|.*ProcessPoolExecutor)$"
)


def by_name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


every_module = pytest.mark.parametrize("path", MODULES, ids=by_name)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(path: Path, tree: ast.Module) -> Iterator[str]:
    """Every module name imported anywhere in a file, `from a import b` as both `a` and `a.b`."""
    package = path.relative_to(PROJECT).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def broken_driver_imports(path: Path, tree: ast.Module) -> set[str]:
    """Imports of a driver module that a driver must not have."""
    own = path.relative_to(PACKAGE).parts[0]
    others = tuple(f"hostagent.{name}" for name in (*ABOVE_DRIVERS, *DRIVERS) if name != own)
    return {
        name
        for name in imports(path, tree)
        if name in others or name.startswith(tuple(f"{o}." for o in others))
    }


def process_starts(path: Path, tree: ast.Module) -> set[str]:
    """Ways in which a module could start a process."""
    found = {name for name in imports(path, tree) if name.split(".")[0] in PROCESS_MODULES}
    found |= {name for name in imports(path, tree) if PROCESS_CALLS.match(name)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return found | {text for call in calls if PROCESS_CALLS.match(text := ast.unparse(call.func))}


def catch_alls(tree: ast.Module) -> list[int]:
    """Lines that swallow any error: `except:`, `except Exception`, `suppress(Exception)`.

    A handler that ends by raising again cleans up and swallows nothing.
    """

    def is_broad(node: ast.expr | None) -> bool:
        names = node.elts if isinstance(node, ast.Tuple) else [node]
        return any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in names)

    def raises_again(handler: ast.ExceptHandler) -> bool:
        last = handler.body[-1]
        return isinstance(last, ast.Raise) and last.exc is None

    found = []
    for node in ast.walk(tree):
        match node:
            case ast.ExceptHandler(type=kind) if (kind is None or is_broad(kind)) and not raises_again(node):
                found.append(node.lineno)
            case ast.Call() if ast.unparse(node.func).endswith("suppress") and any(map(is_broad, node.args)):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.relative_to(PACKAGE).parts[0] in DRIVERS], ids=by_name
)
def test_a_driver_imports_neither_what_is_above_it_nor_another_driver(path):
    assert broken_driver_imports(path, tree_of(path)) == set()


@every_module
def test_only_run_py_starts_processes(path):
    assert path == STARTS_PROCESSES or process_starts(path, tree_of(path)) == set()


@every_module
def test_no_process_goes_through_a_shell(path):
    shells = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.keyword) and node.arg == "shell" and ast.unparse(node.value) != "False"
        if not isinstance(node.value, ast.Attribute)  # shtab.complete(…, shell=args.shell) names a shell
    ]

    assert shells == []


@every_module
def test_only_the_step_runner_and_the_call_dispatcher_catch_everything(path):
    assert path in CATCHES_ALL or catch_alls(tree_of(path)) == []


@every_module
def test_a_module_says_what_it_is_for(path):
    assert len(ast.get_docstring(tree_of(path)) or "") > 20


@pytest.mark.parametrize(
    "path", [*MODULES, *(p for p in (PROJECT / "scripts").iterdir() if p.is_file())], ids=by_name
)
def test_nothing_is_left_for_later(path):
    assert re.findall(r"\b(XXX|TODO|FIXME|HACK)\b", path.read_text()) == []


def test_every_command_module_is_in_the_list_or_below_one_that_is():
    from hostagent import cli

    files = {path.stem: path for path in (PACKAGE / "cli").glob("*.py")}
    offering = {
        name
        for name, path in files.items()
        if any(isinstance(node, ast.FunctionDef) and node.name == "add_parser" for node in tree_of(path).body)
    }
    below = {
        name
        for name in offering
        if any(f"{name}.add_parser(" in files[listed].read_text() for listed in cli.MODULES)
    }

    assert set(cli.MODULES) | below == offering


def test_interface_reconfigure_does_not_exist_before_it_is_real():
    script = PROJECT / "scripts" / "interface-reconfigure"

    assert not script.exists() or "hostagent.net" in script.read_text()


@every_module
def test_named_tuples_are_the_ones_that_are_imported_fast(path):
    tree = tree_of(path)

    assert path.name == "named.py" or "typing.NamedTuple" not in set(imports(path, tree))


def test_the_version_is_stated_once():
    assert re.search(r'^__version__ = "\d+\.\d+\.\d+"$', (PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    assert 'version = { attr = "hostagent.__version__" }' in (PROJECT / "pyproject.toml").read_text()


# the rules themselves can fail


@pytest.mark.parametrize(
    "line",
    [
        "from hostagent.startup import step",
        "import hostagent.net.bridge",
        "from hostagent import storage",
        "from ..db import local",
        "def f():\n    from hostagent.api.app import App",
    ],
)
def test_a_forbidden_import_of_a_driver_is_seen(line):
    assert broken_driver_imports(PACKAGE / "xen" / "example.py", ast.parse(line))


def test_a_driver_may_import_its_own_folder_and_the_shared_modules():
    tree = ast.parse(
        "from hostagent.xen import memory\nfrom hostagent.errors import KernelError\nfrom . import facts"
    )

    assert broken_driver_imports(PACKAGE / "xen" / "example.py", tree) == set()


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess",
        "from subprocess import run",
        "import os\nos.system('true')",
        "import os\nos.execv('/bin/true', [])",
        "from os import popen",
        "import asyncio\nasyncio.create_subprocess_exec('true')",
        "import multiprocessing.pool",
        "from concurrent.futures import ProcessPoolExecutor",
    ],
)
def test_a_way_to_start_a_process_is_seen(line):
    assert process_starts(PACKAGE / "example.py", ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "try:\n    f()\nexcept:\n    pass",
        "try:\n    f()\nexcept Exception as error:\n    pass",
        "try:\n    f()\nexcept (OSError, BaseException):\n    pass",
        "with contextlib.suppress(Exception):\n    f()",
    ],
)
def test_a_catch_all_is_seen(line):
    assert catch_alls(ast.parse(line))
