"""Tests in network namespaces of their own: they need root and iproute2; a lack is named and skipped."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from nested_xen import lab, network, process
from nested_xen.errors import LabError
from nested_xen.paths import cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nested_xen.lab import Lab

PROBE = "probe"


@pytest.fixture(scope="session", autouse=True)
def own_run_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Labs of these tests keep their files apart from the labs that people have up."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSTAGENT_LAB_RUN", str(folder))
        patch.setenv("HOSTAGENT_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def kernel(own_run_folder: Path) -> None:
    """Skips everything, by name, when this machine cannot make what a segment is made of."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for program in ("ip", "ethtool", "nsenter"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    name = f"n{os.getpid()}-{PROBE}"
    try:
        network.create(name)
        for kind in ("veth", "bridge"):
            with _named(f"the kernel has no {kind} device"):
                network.batch(name, [f"link add probe type {kind}", "link delete probe"])
        with _named("the kernel's bridge has no group_fwd_mask per port"):
            network.batch(name, ["tuntap add dev probe mode tap"])
            network.move(name, "probe", "probe")
    except LabError as error:
        pytest.skip(f"no network namespaces here: {error.found}")
    finally:
        network.remove(name)


@contextlib.contextmanager
def _named(lack: str) -> Iterator[None]:
    try:
        yield
    except LabError as error:
        pytest.skip(f"{lack}: {error.found}")


@pytest.fixture(autouse=True)
def segments(kernel: None) -> Iterator[Lab]:
    """A lab without hosts; taken down after the test, which must have left no process and no namespace."""
    made = lab.create_segments(f"n{os.getpid()}", owner=os.getpid())
    yield made
    lab.down(made.name)
    assert network.namespaces(made.name) == []
    assert not made.folder.exists()
    assert not (cache() / "labs" / made.name).exists()


@pytest.fixture
def need() -> Callable[[str, str], None]:
    """`need(program, package)`: skip, naming both, when a server is not installed."""

    def check(program: str, package: str) -> None:
        try:
            process.require(program, package)
        except LabError as error:
            pytest.skip(f"{error.found} ({package})")

    return check
