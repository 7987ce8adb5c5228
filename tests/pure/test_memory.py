"""dom0 memory: limits, plans, and what a stall means; sizes as they were seen on a 3 GiB host unless said."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hostagent.errors import InvalidValueError
from hostagent.xen import memory
from hostagent.xen.memory import (
    ConstraintError,
    Dom0Memory,
    NotEnoughMemoryError,
    Observation,
    Progress,
    XenstoreStaleError,
    XenstoreState,
)

MIB = 1024
GIB = 1024 * MIB

# a Debian 12 dom0 booted with dom0_mem=1536M,max:1536M, before anybody touched its memory
BOOTED = Dom0Memory(
    total_kib=3145200,
    free_kib=1538240,
    scrub_kib=0,
    dom0_kib=1536 * MIB,
    maxmem_kib=1536 * MIB,
    driver_target_kib=1536 * MIB,
    driver_current_kib=1536 * MIB,
    ballooned_kib=0,
    mem_total_kib=1424588,
    mem_available_kib=1323036,
)
SHRUNK = replace(
    BOOTED,
    free_kib=BOOTED.free_kib + 512 * MIB,
    dom0_kib=GIB,
    driver_target_kib=GIB,
    driver_current_kib=GIB,
    ballooned_kib=512 * MIB,
    mem_total_kib=BOOTED.mem_total_kib - 512 * MIB,
    mem_available_kib=BOOTED.mem_available_kib - 512 * MIB,
    xenstore_target_kib=GIB,
    static_max_kib=1536 * MIB,
)
SEEN = Observation(
    driver_target_kib=1536 * MIB,
    driver_current_kib=1200 * MIB,
    xenstore_target_kib=1536 * MIB,
    maxmem_kib=1537 * MIB,
    free_kib=GIB,
    since_request_s=1.0,
    since_progress_s=0.1,
)


def pages(least_kib: int, most_kib: int) -> st.SearchStrategy[int]:
    """A size in whole pages between these."""
    return st.integers(least_kib // memory.PAGE_KIB, most_kib // memory.PAGE_KIB).map(
        lambda count: count * memory.PAGE_KIB
    )


@st.composite
def wishes(draw: st.DrawFn) -> tuple[Dom0Memory, int]:
    """Any dom0 up to 16 GiB on any host, and a target: mostly one it can have, sometimes any."""
    current_kib = draw(pages(0, 16 * GIB))
    ballooned_kib = draw(pages(0, 8 * GIB))
    mem_total_kib = draw(st.integers(current_kib * 3 // 4, current_kib))
    now = Dom0Memory(
        total_kib=64 * GIB,
        free_kib=draw(pages(0, 16 * GIB)),
        scrub_kib=draw(pages(0, GIB)),
        dom0_kib=current_kib,
        maxmem_kib=draw(st.integers(0, 32 * GIB)),
        driver_target_kib=draw(pages(0, 16 * GIB)),
        driver_current_kib=current_kib,
        ballooned_kib=ballooned_kib,
        mem_total_kib=mem_total_kib,
        mem_available_kib=draw(st.integers(mem_total_kib // 2, mem_total_kib)),
        xenstore_target_kib=draw(st.none() | pages(0, 16 * GIB)),
        static_max_kib=draw(st.none() | st.integers(8 * GIB, 32 * GIB)),
        qemus=draw(st.integers(0, 20)),
    )
    allowed = memory.limits(now)
    most_kib = max(min(allowed.ceiling_kib, allowed.reachable_kib), current_kib)
    least_kib = min(allowed.floor_kib, current_kib)
    fit = st.integers(least_kib, most_kib) | st.integers(current_kib, most_kib)
    return now, draw(fit | fit | st.integers(0, 32 * GIB))


def made_plan(wish: tuple[Dom0Memory, int]) -> memory.Plan:
    """The plan, for targets that are allowed."""
    try:
        return memory.plan(*wish)
    except (ConstraintError, NotEnoughMemoryError):
        assume(False)  # noqa: FBT003 - hypothesis's own signature
        raise


MOST_WISHES_ARE_REFUSED = settings(suppress_health_check=[HealthCheck.filter_too_much], max_examples=200)


@given(wishes())
def test_no_plan_shrinks_dom0_below_its_floor(wish: tuple[Dom0Memory, int]) -> None:
    now, _target_kib = wish
    plan = made_plan(wish)

    least_kib = min(memory.limits(now).floor_kib, now.driver_current_kib)
    assert all(step >= least_kib for step in (*plan.steps_kib, plan.target_kib))


@MOST_WISHES_ARE_REFUSED
@given(wishes())
def test_no_plan_that_grows_dom0_leaves_xen_less_than_its_reserve(wish: tuple[Dom0Memory, int]) -> None:
    now, _target_kib = wish
    plan = made_plan(wish)
    assume(plan.target_kib > now.driver_current_kib)

    left_kib = now.free_kib + now.scrub_kib - (plan.target_kib - now.driver_current_kib)
    assert left_kib >= memory.RESERVE_KIB


@given(wishes())
def test_every_plan_ends_at_its_target_in_whole_pages_and_bounded_steps(wish: tuple[Dom0Memory, int]) -> None:
    now, target_kib = wish
    plan = made_plan(wish)

    assert plan.target_kib <= target_kib < plan.target_kib + memory.PAGE_KIB
    assert all(step % memory.PAGE_KIB == 0 for step in plan.steps_kib)
    assert plan.steps_kib[-1:] in ((), (plan.target_kib,))
    sizes = (now.driver_current_kib, *plan.steps_kib)
    assert all(after - before <= memory.STEP_KIB for before, after in itertools.pairwise(sizes))


@MOST_WISHES_ARE_REFUSED
@given(wishes())
def test_every_growing_plan_has_room_below_xens_ceiling(wish: tuple[Dom0Memory, int]) -> None:
    now, _target_kib = wish
    plan = made_plan(wish)
    assume(plan.target_kib > now.driver_current_kib)

    assert (plan.ceiling_kib or now.maxmem_kib) >= plan.target_kib


@given(pages(0, 16 * GIB), pages(0, GIB), st.integers(0, GIB))
def test_settling_never_goes_below_the_start_nor_above_what_dom0_has(
    start_kib: int, grown_kib: int, free_kib: int
) -> None:
    settled_kib = memory.settle_kib(start_kib, start_kib + grown_kib, free_kib)

    assert start_kib <= settled_kib <= start_kib + grown_kib
    assert settled_kib == start_kib or start_kib + grown_kib - settled_kib >= memory.RESERVE_KIB - free_kib


def test_the_floor_of_a_small_idle_dom0_is_512_mib() -> None:
    idle = replace(BOOTED, mem_available_kib=BOOTED.mem_total_kib)

    assert memory.limits(idle).floor_kib == 512 * MIB


def test_the_floor_counts_what_is_used_headroom_device_models_and_the_kernel() -> None:
    busy = replace(BOOTED, mem_available_kib=BOOTED.mem_total_kib - 300 * MIB, qemus=3)

    kernel_kib = 1536 * MIB - BOOTED.mem_total_kib
    assert memory.limits(busy).floor_kib == 300 * MIB + 256 * MIB + 3 * 64 * MIB + kernel_kib


def test_the_ceiling_is_what_the_kernel_has_page_frames_for() -> None:
    assert memory.limits(BOOTED).ceiling_kib == 1536 * MIB
    assert memory.limits(SHRUNK).ceiling_kib == 1536 * MIB


def test_a_smaller_static_max_lowers_the_ceiling() -> None:
    assert memory.limits(replace(SHRUNK, static_max_kib=1200 * MIB)).ceiling_kib == 1200 * MIB


def test_a_target_below_the_floor_is_refused_with_the_numbers() -> None:
    with pytest.raises(ConstraintError) as caught:
        memory.plan(BOOTED, 300 * MIB)

    assert caught.value.code == "MEMORY_CONSTRAINT_VIOLATION"
    assert caught.value.params == ("307200 KiB >= floor 524288 KiB",)
    assert "512 MiB" in caught.value.found


def test_a_dom0_that_is_below_the_floor_may_still_grow() -> None:
    tiny = replace(
        SHRUNK, driver_current_kib=300 * MIB, driver_target_kib=300 * MIB, ballooned_kib=1236 * MIB
    )

    assert memory.plan(tiny, 400 * MIB).steps_kib == (400 * MIB,)


def test_a_target_the_kernel_has_no_page_frames_for_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConstraintError) as caught:
        memory.plan(BOOTED, 2 * GIB)

    assert caught.value.params == ("2097152 KiB <= ceiling 1572864 KiB",)
    assert "dom0_mem=" in caught.value.hint


def test_growth_into_xens_reserve_is_refused_with_bytes_needed_and_available() -> None:
    with pytest.raises(NotEnoughMemoryError) as caught:
        memory.plan(replace(SHRUNK, free_kib=572 * MIB), 1536 * MIB)

    assert caught.value.code == "HOST_NOT_ENOUGH_FREE_MEMORY"
    assert caught.value.params == (str(512 * MIB * 1024), str(500 * MIB * 1024))


def test_memory_that_waits_for_scrubbing_counts_as_free() -> None:
    scrubbing = replace(SHRUNK, free_kib=284 * MIB, scrub_kib=300 * MIB)

    assert memory.plan(scrubbing, 1536 * MIB).target_kib == 1536 * MIB


def test_growth_goes_in_steps_of_256_mib_and_shrinking_in_one() -> None:
    assert memory.plan(SHRUNK, 1536 * MIB).steps_kib == (1280 * MIB, 1536 * MIB)
    assert memory.plan(SHRUNK, 1300 * MIB).steps_kib == (1280 * MIB, 1300 * MIB)
    assert memory.plan(BOOTED, 1024 * MIB).steps_kib == (1024 * MIB,)


def test_a_dom0_that_is_there_needs_nothing() -> None:
    plan = memory.plan(SHRUNK, GIB)

    assert (plan.steps_kib, plan.ceiling_kib, plan.static_max_kib, plan.changes) == ((), None, None, ())


def test_missing_keys_are_created_with_the_present_values() -> None:
    plan = memory.plan(BOOTED, 1536 * MIB)

    assert [(change.what, change.old, change.new) for change in plan.changes] == [
        ("/local/domain/0/memory/static-max", None, "1572864"),
        ("/local/domain/0/memory/target", None, "1572864"),
    ]
    assert plan.steps_kib == (1536 * MIB,)


def test_static_max_is_created_even_where_only_that_key_is_missing() -> None:
    # libxl then refuses every memory call: "Cannot get memory info from …/static-max"
    plan = memory.plan(replace(SHRUNK, static_max_kib=None), GIB)

    assert plan.static_max_kib == 1536 * MIB
    assert plan.steps_kib == ()


def test_static_max_of_a_dom0_without_ceiling_is_what_it_has_page_frames_for() -> None:
    unlimited = replace(BOOTED, maxmem_kib=(1 << 34) - 4)

    assert memory.plan(unlimited, 1536 * MIB).static_max_kib == 1536 * MIB


def test_a_ceiling_that_xl_lowered_is_raised_before_growing() -> None:
    # after `xl mem-set 0 1400` Xen's ceiling is 1401 MiB
    plan = memory.plan(replace(SHRUNK, maxmem_kib=1401 * MIB), 1536 * MIB)

    assert plan.ceiling_kib == 1537 * MIB
    assert ("Xen ceiling of dom0 (KiB)", "1434624", "1573888") in [
        (change.what, change.old, change.new) for change in plan.changes
    ]


def test_a_ceiling_equal_to_the_target_is_left_alone() -> None:
    # dom0_mem=…,max:1536M leaves exactly 1536 MiB, and dom0 reaches exactly that
    assert memory.plan(SHRUNK, 1536 * MIB).ceiling_kib is None


def test_a_driver_that_sleeps_on_this_very_target_gets_a_kick() -> None:
    asleep = replace(SHRUNK, driver_target_kib=1536 * MIB, xenstore_target_kib=1536 * MIB)

    assert memory.plan(asleep, 1536 * MIB).kick
    assert not memory.plan(SHRUNK, 1536 * MIB).kick


@pytest.mark.parametrize("state", [XenstoreState.DEAD, XenstoreState.RESTARTED])
def test_without_a_xenstore_the_kernel_listens_to_nothing_is_planned(state: XenstoreState) -> None:
    with pytest.raises(XenstoreStaleError, match="xenstored"):
        memory.plan(replace(SHRUNK, xenstore=state), GIB)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (SEEN, Progress.MOVING),
        (replace(SEEN, driver_current_kib=1536 * MIB), Progress.REACHED),
        (replace(SEEN, since_progress_s=5.0), Progress.GAVE_UP),
        (replace(SEEN, driver_current_kib=1408 * MIB, maxmem_kib=1401 * MIB), Progress.CEILING),
        (replace(SEEN, free_kib=0), Progress.OUT_OF_PAGES),
        (replace(SEEN, free_kib=71 * MIB), Progress.OUT_OF_PAGES),
        (replace(SEEN, driver_target_kib=1200 * MIB), Progress.MOVING),
        (replace(SEEN, driver_target_kib=1200 * MIB, since_request_s=2.0), Progress.IGNORED),
        (replace(SEEN, xenstore_target_kib=1400 * MIB), Progress.OVERRIDDEN),
        (replace(SEEN, xenstore_target_kib=None), Progress.OVERRIDDEN),
    ],
)
def test_each_observation_while_growing_has_its_meaning(seen: Observation, verdict: Progress) -> None:
    assert memory.classify(1536 * MIB, GIB, seen) is verdict


def test_a_shrinking_dom0_is_not_out_of_pages_however_little_xen_has() -> None:
    seen = replace(SEEN, driver_target_kib=GIB, xenstore_target_kib=GIB, free_kib=0)

    assert memory.classify(GIB, 1536 * MIB, seen) is Progress.MOVING
    assert memory.classify(GIB, 1536 * MIB, replace(seen, since_progress_s=5.0)) is Progress.GAVE_UP


def test_settling_gives_the_reserve_back_but_no_more_than_was_taken() -> None:
    # seen: 1366 MiB, Xen free 20 MiB -> 52 MiB go back
    assert memory.settle_kib(GIB, 1366 * MIB, 20 * MIB) == 1314 * MIB
    assert memory.settle_kib(1350 * MIB, 1366 * MIB, 20 * MIB) == 1350 * MIB
    assert memory.settle_kib(GIB, 1366 * MIB, 400 * MIB) == 1366 * MIB


def test_host_figures_are_exact_without_guests_and_an_estimate_with_them() -> None:
    empty = memory.host_memory(BOOTED, guests_kib=0)
    busy = memory.host_memory(replace(BOOTED, free_kib=BOOTED.free_kib - 300 * MIB), guests_kib=256 * MIB)

    assert empty.boot_free_kib == 1538240 + 1536 * MIB
    assert empty.overhead_kib == 3145200 - empty.boot_free_kib + 72 * MIB
    assert (empty.estimate, busy.estimate) == (False, True)
    assert busy.boot_free_kib == empty.boot_free_kib - 44 * MIB


@pytest.mark.parametrize(
    ("commandline", "xl_conf", "libxl_conf", "conflicts"),
    [
        ("console=com1 dom0_mem=1536M,max:1536M", "", "", ()),
        ("console=com1", "", "", ("xl", "libvirt")),
        ("console=com1", 'autoballoon="off"\n', "autoballoon = 0\n", ()),
        ("dom0_mem=2G", 'autoballoon="on"\n', "autoballoon = 1\n", ("xl", "libvirt")),
        ("console=com1", '#autoballoon="off"\nautoballoon="auto"\n', "autoballoon=0", ("xl",)),
        ("console=com1", 'autoballoon="auto"\nautoballoon="off"\n', "#autoballoon = 1", ("libvirt",)),
        ("xdom0_mem=2G", "", "autoballoon=0", ("xl",)),
    ],
)
def test_who_would_shrink_dom0_by_itself_is_found(
    commandline: str, xl_conf: str, libxl_conf: str, conflicts: tuple[str, ...]
) -> None:
    assert memory.autoballoon_conflicts(commandline, xl_conf, libxl_conf) == conflicts


@pytest.mark.parametrize(
    ("text", "kib"),
    [("1572864", 1572864), ("1536M", 1572864), ("1536 MiB", 1572864), ("2g", 2097152), ("4K", 4), ("0", 0)],
)
def test_sizes_are_read_as_operators_type_them(text: str, kib: int) -> None:
    assert memory.parse_size_kib(text) == kib


@pytest.mark.parametrize("text", ["", "12x", "-4M", "1.5G", "M", "0x10", "1M 2M", "٣M"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        memory.parse_size_kib(text)


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with suppress(InvalidValueError):
        assert memory.parse_size_kib(text) >= 0


@given(st.none() | st.binary(max_size=20))
def test_any_value_of_a_memory_key_is_a_number_or_ignored(value: bytes | None) -> None:
    kib = memory.parse_key_kib(value)

    assert kib is None or (value is not None and kib == int(value))
