"""Which part of a long matrix runs today.

The hash of the source tree chooses, so that the same tree always runs the
same part, and every part gets its turn as the code moves. The rest carries the mark `full`.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import re
from typing import TYPE_CHECKING

import pytest
from _pytest.mark.structures import ParameterSet  # pytest has no public name for what pytest.param returns

from nested_xen.paths import PROJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

HASHED = ("hostagent", "ci", "tests", "scripts", "packaging", "pyproject.toml")
CACHES = re.compile(r"(^|/)(\.|__pycache__/)")
SHARD = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", re.ASCII)


@functools.cache
def tree_hash() -> str:
    """Hash of every source file that could change what a test sees, pytest's settings included."""
    seen = hashlib.sha256()
    for name in HASHED:
        top = PROJECT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and not CACHES.search(str(path.relative_to(PROJECT))):
                seen.update(f"{path.relative_to(PROJECT)}\n".encode() + path.read_bytes())
    return seen.hexdigest()[:12]


def rotating(cases: Sequence[object], *, count: int) -> list[object]:
    """All cases as pytest parameters (plain values, or what `pytest.param` makes); only `count` of them, which the
    tree's hash picks, run without `--full`.
    """

    def draw(case: object) -> str:
        return hashlib.sha256(f"{tree_hash()} {case}".encode()).hexdigest()

    today = sorted(cases, key=draw)[:count]
    return [case if case in today else _only_in_full(case) for case in cases]


def _only_in_full(case: object) -> object:
    if isinstance(case, ParameterSet):
        return pytest.param(*case.values, id=case.id, marks=[*case.marks, pytest.mark.full])
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.full)


def shard(text: str) -> str:
    """The value of `--shard`: `i/n`, 1 <= i <= n. Raises ArgumentTypeError for any other: it would select no test, or
    none that another part has, and look like a pass.
    """
    found = SHARD.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]):
        raise argparse.ArgumentTypeError(f"'{text}': give I/N, both whole numbers, I from 1 to N")
    return text


def in_shard(nodeid: str, shard: str) -> bool:
    """Does a test belong to part i of n (`i/n`, counted from 1)? Stable: only the test's own name decides."""
    index, _, count = shard.partition("/")
    return int(hashlib.sha256(nodeid.encode()).hexdigest(), 16) % int(count) == int(index) - 1
