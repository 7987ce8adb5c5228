"""A machine with a wire for tests of changes that are guarded: who answers there, and what was announced."""

from __future__ import annotations

from hostagent.net.management import Wire
from hostagent.net.probe import Answer, ProbeError
from tests.pure.net_machine import Machine, records

OTHER = "52:54:00:aa:aa:aa"
GATEWAY, PEER = "192.0.2.1", "192.0.2.50"


class Segment:
    """The wire: who answers there, who has addresses, and what was announced."""

    def __init__(self, machine):
        self.machine = machine
        self.answering = {GATEWAY, PEER}
        self.held = {}
        self.announced = []
        self.asked = []
        self.sessions = []
        self.master = ""
        self.carried = 0
        self.measured = []

    def ask(self, probe, seconds):
        self.asked.append(probe.target)
        return Answer(probe, probe.target in self.answering)

    def holder(self, device, address, seconds):
        if device not in self.machine.kernel.look().by_name():
            raise ProbeError("no such device", hint="")
        self.asked.append(f"who has {address}")
        return self.held.get(address, "")

    def announce(self, device, addresses):
        self.announced.append((device, tuple(addresses)))

    def wire(self):
        return Wire(
            self.ask, self.holder, self.announce, lambda: self.sessions, lambda: self.master, self.path
        )

    def path(self, target, most, source):
        self.measured.append((target, most, source))
        if isinstance(self.carried, Exception):
            raise self.carried
        return self.carried


class Careful(Machine):
    def __init__(self, folder):
        super().__init__(folder)
        self.segment = Segment(self)
        self.remarks = []

    def host(self, *_):
        return super().host()._replace(wire=self.segment.wire(), remarks=lambda: self.remarks)


def readdressed(**changed):
    return records(**{"ip": "192.0.2.77", **changed})
