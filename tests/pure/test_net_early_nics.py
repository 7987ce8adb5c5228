"""For which NICs the early unit waits: those of the records, by name or, when a boot renamed them, by their MAC."""

from __future__ import annotations

import pytest

from hostagent.net import cache, early
from hostagent.net.nics import Seen
from hostagent.net.nics_types import Nic
from tests.pure.net_records import STATIC, Host
from tests.pure.startup_network import FakeHost

MACS = "02:00:00:00:00:00", "02:00:00:00:00:01"


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


class Booting(FakeHost):
    """NICs come, and are renamed, at seconds of the clock: `at` is second → the names they have from then on."""

    def __init__(self, at):
        super().__init__()
        self._at = dict(at)
        self.wait(0)

    def wait(self, seconds):
        super().wait(seconds)
        for when in sorted(second for second in self._at if second <= self.now):
            for number, name in enumerate(self._at.pop(when)):
                if number + 2 in self.kernel.links:
                    self.kernel.links[number + 2].name = name
                    continue
                self.kernel.nic(name, number + 2, up=True)
                made = self.kernel.links[number + 2]
                made.permanent_mac = made.mac = MACS[number]

    def seen(self):
        return [
            Seen(Nic(-1, link.name, link.permanent_mac))
            for link in self.look().links.values()
            if not link.kind
        ]


def raised(host, state, *, bonded=False):
    """How long it took, and the names that the NICs of the management interface then had."""
    made = Host()
    made.nic("eth0", **({} if bonded else {**STATIC, "management": True}))
    made.nic("eth1")
    if bonded:
        made.bond("bond0", ("eth0", "eth1"), **{**STATIC, "management": True})
    records = made.records("xapi0" if bonded else "xenbr0")
    positions = tuple(
        cache.Position(number, f"eth{number}", mac, f"0000:00:0{number}.0") for number, mac in enumerate(MACS)
    )
    found = cache.Found(cache.Cached(records, 1, verified=False, positions=positions))
    opened = host.open(state)
    waited = []
    left_alone = early.left_alone

    def asked(fitted, pif, *rest):
        waited.append((host.now, early.nics_of(fitted, pif)))
        return left_alone(fitted, pif, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(early, "left_alone", asked)
        around = early.Around(lambda _: (), lambda: (), seen=host.seen)
        outcome = early.raise_management(found, opened, around, nics_s=early.NICS_S)
    return outcome, *waited[0]


def test_nics_that_come_late_under_their_names_are_waited_for(tmp_path):
    outcome, after_s, names = raised(Booting({4: ("eth0", "eth1")}), tmp_path)

    assert outcome.outcome == early.UP
    assert 4 <= after_s < 4 + early.RENAMED_S
    assert names == ("eth0",)


@pytest.mark.parametrize("bonded", [True, False])
def test_a_nic_that_has_another_name_now_is_not_waited_for_under_its_old_one(tmp_path, bonded):
    outcome, after_s, names = raised(Booting({0: ("enp1s0", "enp2s0")}), tmp_path, bonded=bonded)

    assert outcome.outcome == early.UP
    assert early.RENAMED_S <= after_s < early.NICS_S / 2
    assert names == (("enp1s0", "enp2s0") if bonded else ("enp1s0",))


def test_one_that_udev_is_yet_to_name_is_waited_for(tmp_path):
    """First the kernel's name for a moment, which is another one than the records', then its own."""
    host = Booting({0: ("net0", "net1"), early.RENAMED_S - 1: ("eth0", "eth1")})

    outcome, after_s, names = raised(host, tmp_path)

    assert outcome.outcome == early.UP
    assert names == ("eth0",)
    assert early.RENAMED_S - 1 <= after_s < early.RENAMED_S


def test_one_that_never_comes_is_waited_for_no_longer_than_before(tmp_path):
    _, after_s, _ = raised(Booting({0: ("enp1s0",)}), tmp_path, bonded=True)

    assert early.NICS_S <= after_s < early.NICS_S + 1
