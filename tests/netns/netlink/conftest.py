"""Tests of the netlink driver: each in an empty network namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hostagent.net.netlink import Netlink
from tests.netns.netlink_links import own_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def segments(kernel: None) -> Iterator[None]:
    """Instead of a lab's segments."""
    with own_namespace():
        yield


@pytest.fixture
def netlink(segments: None) -> Iterator[Netlink]:
    with Netlink() as made:
        yield made
