"""Faults of a segment, which need no host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from nested_xen import faults, network, wire
from nested_xen.accel import Accel
from nested_xen.errors import LabError
from nested_xen.frames import BROADCAST, Ethernet, EtherType
from nested_xen.host import Host
from nested_xen.machine import standard

if TYPE_CHECKING:
    from nested_xen.lab import Lab

SOON_S = 5


def test_a_cut_segment_carries_nothing_and_a_mended_one_does_again(segments: Lab) -> None:
    host = Host(segments.name, standard(1), segments.image, Accel("none", "never on"))
    network.add_segment(segments.name, "storage")
    with wire.join(segments.name, "storage", "a") as a, wire.join(segments.name, "storage", "b") as b:
        frame = Ethernet(BROADCAST, a.mac, EtherType.LOCAL, b"still there")
        with faults.cut(host, "storage"):
            a.send(frame)
            b.expect_none(lambda seen: seen.source == a.mac, during_s=0.3)
        a.send(frame)
        b.capture(lambda seen: seen.source == a.mac, deadline_s=SOON_S)


def test_a_cut_that_does_not_come_about_is_an_error(segments: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(segments.name, standard(1), segments.image, Accel("none", "never on"))
    network.add_segment(segments.name, "storage")
    monkeypatch.setattr(network, "set_segment_up", lambda *_, **__: None)
    with pytest.raises(LabError, match="carries frames"), faults.cut(host, "storage"):
        pytest.fail("the block must not run")
