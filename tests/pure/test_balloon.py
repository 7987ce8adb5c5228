"""The balloon against an imitation of Xen, kernel and xenstore that behaves as was measured on real ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from hostagent.errors import OperatorError
from hostagent.xen import hypercall, memory
from hostagent.xen.balloon import (
    DRIVER,
    STATIC_MAX,
    TARGET,
    Balloon,
    TargetNotReachedError,
    TargetOverriddenError,
)
from hostagent.xen.memory import NotEnoughMemoryError, XenstoreStaleError, XenstoreState
from hostagent.xen.xenstore_errors import XenstoreUnavailable
from hostagent.xen.xenstored import KERNEL_NODE, MARK, RECORD
from tests.pure.test_hypercall import DOM0, PHYSINFO, XENINFO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from hostagent.xen.hypercall import DomainInfo, HostInfo

MIB = 1024
GIB = 1024 * MIB
SPEED_KIB = 64 * MIB  # the driver moves this far per poll
PATIENCE = 4  # polls without a page until the driver gives up and sleeps


class FakeHost:
    """dom0 and its Xen: keys, driver and pages. Time passes only in `pause`, where the driver works.

    A driver without progress gives up, and sleeps until the target *changes* (storage-memory-xenstore 2.4).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 0.0
        self.keys: dict[str, bytes] = {"/local/domain/0": b"", KERNEL_NODE: b"1"}
        self.listens = True
        self.dead = False
        self.frames_kib = self.current_kib = self.target_kib = self.maxmem_kib = 1536 * MIB
        self.free_kib = 1538240
        self.idle = 0
        self.jams = False
        self.writes: list[int] = []
        self.on_pause: Callable[[], None] = lambda: None
        self.after_look: Callable[[], None] = lambda: None
        self._files()

    def host(self) -> HostInfo:
        seen = hypercall.host_info({**PHYSINFO, "free_memory": self.free_kib}, XENINFO)
        self.after_look()
        return seen

    def domain(self, domid: int) -> DomainInfo:
        record: dict[str, object] = {**DOM0, "mem_kb": self.current_kib, "maxmem_kb": self.maxmem_kib}
        return hypercall.domain_info({**record, "domid": domid})

    def set_ceiling(self, domid: int, maxmem_kib: int) -> None:
        assert domid == 0
        self.maxmem_kib = maxmem_kib

    def read(self, path: str) -> bytes | None:
        return self.read_many([path])[path]

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        if self.dead:
            raise XenstoreUnavailable("nobody listens")
        return {path: self.keys.get(path) for path in paths}

    def transact(self, body: Callable[[Any], None]) -> None:
        if self.dead:
            raise XenstoreUnavailable("nobody listens")
        body(self)

    def must_exist(self, path: str) -> None:
        assert path in self.keys

    def write(self, path: str, value: bytes) -> None:
        self.keys[path] = value
        if path == TARGET:
            self.writes.append(int(value))
            if self.listens and int(value) != self.target_kib:
                self.target_kib, self.idle = int(value), 0
            self._files()

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.on_pause()
        wanted_kib = self.target_kib - self.current_kib
        step_kib = max(-SPEED_KIB, min(SPEED_KIB, wanted_kib))
        if step_kib > 0:
            step_kib = max(0, min(step_kib, self.maxmem_kib - self.current_kib, self.free_kib))
        if self.idle >= PATIENCE or self.jams:
            step_kib = 0
        self.idle = self.idle + 1 if wanted_kib and not step_kib else self.idle
        self.current_kib += step_kib
        self.free_kib -= step_kib
        self._files()

    def _files(self) -> None:
        numbers = {
            f"{DRIVER}/target_kb": self.target_kib,
            f"{DRIVER}/info/current_kb": self.current_kib,
            f"{DRIVER}/info/low_kb": self.frames_kib - self.current_kib,
            f"{DRIVER}/info/high_kb": 0,
            f"{DRIVER}/retry_count": 1,
            f"{DRIVER}/schedule_delay": 1,
        }
        texts = {name: f"{number}\n" for name, number in numbers.items()}
        usable_kib = self.current_kib - 148276
        texts["proc/meminfo"] = f"MemTotal: {usable_kib} kB\nMemAvailable: {usable_kib - 100000} kB\nX\n"
        texts["proc/sys/kernel/random/boot_id"] = "some-boot\n"
        for name, text in texts.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


@pytest.fixture
def balloon(host: FakeHost) -> Balloon:
    return balloon_of(host)


def balloon_of(host: FakeHost, kind: type[Balloon] = Balloon) -> Balloon:
    return kind(
        host,
        root=host.root,
        hypervisor=host,
        progress=lambda _: None,
        clock=lambda: host.now,
        pause=host.pause,
    )


def shrink(host: FakeHost, target_kib: int = GIB) -> None:
    """A dom0 that has been shrunk before the test begins."""
    balloon_of(host).set_target(target_kib)
    host.writes.clear()


def test_a_snapshot_holds_every_figure(host: FakeHost, balloon: Balloon) -> None:
    for pid, comm in ((77, "qemu-system-i38"), (78, "xen-qemu-system"), (79, "qemu-ga")):
        (host.root / f"proc/{pid}").mkdir()
        (host.root / f"proc/{pid}/comm").write_text(f"{comm}\n")
    (host.root / "etc/xen").mkdir(parents=True)
    (host.root / "etc/xen/xl.conf").write_text('autoballoon="on"\n')

    now = balloon.snapshot()

    assert (now.total_kib, now.free_kib) == (3145200, 1538240)
    assert (now.driver_current_kib, now.driver_target_kib, now.ballooned_kib) == (1536 * MIB, 1536 * MIB, 0)
    assert (now.xenstore_target_kib, now.static_max_kib) == (None, None)
    assert (now.qemus, now.boot_id, now.autoballoon) == (2, "some-boot", ("xl",))


def test_shrinking_and_growing_reach_the_target_exactly(host: FakeHost, balloon: Balloon) -> None:
    down = balloon.set_target(GIB)
    up = balloon_of(host).set_target(1536 * MIB)

    assert (down.after.driver_current_kib, down.after.free_kib) == (GIB, 1538240 + 512 * MIB)
    assert (up.after.driver_current_kib, up.after.free_kib) == (1536 * MIB, 1538240)
    assert host.writes == [GIB, 1280 * MIB, 1536 * MIB]


def test_the_first_target_creates_static_max_with_it(host: FakeHost, balloon: Balloon) -> None:
    result = balloon.set_target(1536 * MIB)

    assert result.changed
    assert (host.keys[TARGET], host.keys[STATIC_MAX]) == (b"1572864", b"1572864")


def test_asking_again_changes_nothing_and_writes_nothing(host: FakeHost) -> None:
    shrink(host)

    result = balloon_of(host).set_target(GIB)

    assert not result.changed
    assert host.writes == []


def test_a_ceiling_lowered_before_is_raised_without_a_stall(host: FakeHost) -> None:
    shrink(host)
    host.maxmem_kib = GIB + MIB

    result = balloon_of(host).set_target(1536 * MIB)

    assert (result.ceiling_kib, result.kicks) == (1537 * MIB, 0)
    assert host.current_kib == 1536 * MIB


def test_a_ceiling_lowered_on_the_way_is_raised_and_the_driver_woken(host: FakeHost) -> None:
    shrink(host)

    def lower_once() -> None:
        host.maxmem_kib, host.on_pause = GIB + 128 * MIB, lambda: None

    host.on_pause = lower_once

    result = balloon_of(host).set_target(1536 * MIB)

    assert result.kicks >= 1
    assert host.current_kib == 1536 * MIB
    assert host.maxmem_kib >= 1536 * MIB


def test_a_driver_asleep_on_this_very_target_is_woken_by_a_page_less(host: FakeHost) -> None:
    shrink(host)
    host.write(TARGET, b"1572864")
    host.idle = PATIENCE
    host.writes.clear()

    result = balloon_of(host).set_target(1536 * MIB)

    assert result.kicks >= 1
    assert host.writes[-2:] == [1536 * MIB - 4, 1536 * MIB]
    assert host.current_kib == 1536 * MIB


def test_a_guest_that_takes_the_memory_meanwhile_makes_dom0_stop_and_give_the_reserve_back(
    host: FakeHost,
) -> None:
    shrink(host)

    def start_guest() -> None:
        host.free_kib, host.on_pause = 100 * MIB, lambda: None

    host.on_pause = start_guest

    with pytest.raises(NotEnoughMemoryError) as caught:
        balloon_of(host).set_target(1536 * MIB)
    assert "dom0 stopped at" in caught.value.found
    assert host.free_kib >= memory.RESERVE_KIB
    assert host.target_kib == host.current_kib == int(host.keys[TARGET])


def test_a_dom0_that_grows_while_it_is_looked_at_gives_back_what_it_took_meanwhile(host: FakeHost) -> None:
    shrink(host)

    def grow_between_the_looks() -> None:
        if 0 < host.free_kib < memory.RESERVE_KIB:
            taken_kib = min(host.free_kib, 5 * MIB)
            host.current_kib += taken_kib
            host.free_kib -= taken_kib
            host.after_look = lambda: None
            host._files()

    def start_guest() -> None:
        host.free_kib, host.on_pause = 100 * MIB, lambda: None

    host.on_pause = start_guest

    class Moving(Balloon):
        def settle(self, start_kib: int) -> int:
            host.after_look = grow_between_the_looks
            return super().settle(start_kib)

    with pytest.raises(NotEnoughMemoryError):
        balloon_of(host, Moving).set_target(1536 * MIB)
    assert host.free_kib >= memory.RESERVE_KIB
    assert host.target_kib == host.current_kib == int(host.keys[TARGET])


def test_a_guest_that_starts_between_two_steps_stops_the_growth_before_the_next(host: FakeHost) -> None:
    shrink(host)

    def start_guest() -> None:
        if host.current_kib == 1216 * MIB:
            host.free_kib = 200 * MIB

    host.on_pause = start_guest

    with pytest.raises(NotEnoughMemoryError):
        balloon_of(host).set_target(1536 * MIB)
    assert 1536 * MIB not in host.writes
    assert host.current_kib == 1280 * MIB


def test_a_target_changed_by_somebody_else_is_left_standing(host: FakeHost) -> None:
    shrink(host)
    host.on_pause = lambda: host.write(TARGET, b"1153434")

    with pytest.raises(TargetOverriddenError, match="1153434"):
        balloon_of(host).set_target(1536 * MIB)
    assert host.keys[TARGET] == b"1153434"


def test_a_kernel_that_does_not_follow_is_named_and_xenstore_put_right(host: FakeHost) -> None:
    shrink(host)
    host.listens = False

    with pytest.raises(XenstoreStaleError, match="ignores xenstore"):
        balloon_of(host).set_target(1536 * MIB)
    assert host.keys[TARGET] == b"1048576"


def test_a_driver_that_cannot_be_woken_is_named_and_its_target_set_to_its_size(host: FakeHost) -> None:
    shrink(host)
    host.jams = True

    with pytest.raises(TargetNotReachedError, match="driver gave up"):
        balloon_of(host).set_target(1536 * MIB)
    assert host.keys[TARGET] == b"1048576"


def test_a_change_that_takes_too_long_ends_at_its_deadline(host: FakeHost) -> None:
    shrink(host)

    with pytest.raises(TargetNotReachedError):
        balloon_of(host).set_target(1536 * MIB, timeout_s=0.25)
    assert host.target_kib == host.current_kib


def test_a_dead_xenstored_is_seen_and_nothing_attempted(host: FakeHost, balloon: Balloon) -> None:
    host.dead = True

    assert balloon.snapshot().xenstore is XenstoreState.DEAD
    with pytest.raises(XenstoreStaleError):
        balloon.set_target(GIB)
    assert host.writes == []


def test_a_restarted_xenstored_is_seen_and_nothing_attempted(host: FakeHost, balloon: Balloon) -> None:
    host.keys = {"/local/domain/0": b""}

    assert balloon.snapshot().xenstore is XenstoreState.RESTARTED
    with pytest.raises(XenstoreStaleError, match="started again"):
        balloon.set_target(GIB)
    assert host.writes == []


def test_one_removed_node_among_signs_of_the_same_xenstored_is_no_restart(
    host: FakeHost, balloon: Balloon
) -> None:
    record = host.root / "run/hostagent" / RECORD
    record.parent.mkdir(parents=True)
    record.write_text('{"boot_id": "some-boot", "pid": null, "marked": true}')
    host.keys = {"/local/domain/0": b"", MARK: b"some-boot"}

    assert balloon.snapshot().xenstore is XenstoreState.USABLE
    balloon.set_target(GIB)


def test_a_restart_that_wrote_the_kernels_node_again_is_seen(host: FakeHost, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / RECORD).write_text(
        '{"boot_id": "some-boot", "pid": 371, "started_ticks": 5, "marked": true}'
    )
    (host.root / "proc/1292").mkdir()
    (host.root / "proc/1292/stat").write_text("1292 (oxenstored) S " + "0 " * 18 + "9 0 0\n")
    balloon = Balloon(host, root=host.root, run_dir=tmp_path / "mine", hypervisor=host)

    assert balloon.snapshot().xenstore is XenstoreState.RESTARTED


def test_a_snapshot_without_xenstore_has_all_but_the_keys(host: FakeHost) -> None:
    now = Balloon(None, root=host.root, hypervisor=host).snapshot()

    assert now.xenstore is XenstoreState.DEAD
    assert replace(now, xenstore=XenstoreState.USABLE) == balloon_of(host).snapshot()


def test_a_kernel_without_balloon_driver_is_named(host: FakeHost, balloon: Balloon) -> None:
    (host.root / DRIVER / "target_kb").unlink()

    with pytest.raises(OperatorError, match="balloon driver"):
        balloon.snapshot()
