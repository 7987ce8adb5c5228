"""What every pure test runs under: the ban on touching the machine, and reproducible examples."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import hypothesis.configuration
import pytest

from tests.pure import ban

if TYPE_CHECKING:
    from collections.abc import Iterator

# the same tree always runs the same examples, and a busy machine does not fail them
hypothesis.settings.register_profile(
    "pure",
    database=None,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("pure")
hypothesis.configuration.set_hypothesis_home_dir(Path(ban.TEMPORARY) / "hypothesis")


@pytest.fixture(autouse=True)
def pure_ban(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Arm the ban for the test."""
    monkeypatch.setattr(time, "sleep", ban.no_sleep)
    ban.armed["now"] = True
    yield
    ban.armed["now"] = False


@pytest.fixture
def project() -> Path:
    """The source tree."""
    return Path(__file__).parents[2]
