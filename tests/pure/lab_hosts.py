"""A host of a lab that has none running, for tests of the parts of the lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nested_xen import accel, lab, machine

if TYPE_CHECKING:
    from nested_xen.host import Host

TCG = accel.Accel("tcg", "test")


def h1(made: lab.Lab) -> Host:
    return made.hosts["h1"] if "h1" in made.hosts else made.add(machine.standard(1))


class AsContext:
    """Stands in for `qmp.monitor(folder)`."""

    def __init__(self, peer: object) -> None:
        self.peer = peer

    def __enter__(self) -> object:
        return self.peer

    def __exit__(self, *_: object) -> None:
        pass
