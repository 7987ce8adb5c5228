# mypy: disable-error-code="union-attr,attr-defined,arg-type"
# each test knows which outcome it has; modules are reached through the one that uses them
"""The step that sizes dom0."""

from __future__ import annotations

import dataclasses

import pytest

from hostagent.errors import HostagentError, OperatorError
from hostagent.hostinfo.facts import Memory
from hostagent.startup import steps_xen
from hostagent.startup.state import HostState
from hostagent.startup.step import Change, Unchanged
from hostagent.xen import balloon
from tests.pure import host_samples
from tests.pure.startup_host import planned_then_done
from tests.pure.startup_tree import context_of, put


def test_by_default_missing_keys_are_made_from_the_drivers_target(paths, dom0):
    put(paths.root / balloon.DRIVER / "info/current_kb", "1500000")  # on its way

    outcome = planned_then_done(context_of(paths), steps_xen.plan_dom0_memory, steps_xen.set_dom0_memory)

    assert outcome.changes == (
        Change("/local/domain/0/memory/target", None, "1572864"),
        Change("/local/domain/0/memory/static-max", None, "1500000"),
    )


def test_by_default_a_dom0_that_somebody_moves_is_left_to_go_on(paths, dom0):
    """xl shrinks dom0 for a guest: neither the target nor the size of this instant is written over that."""
    store = steps_xen.connect_xenstore(None)
    store.nodes["/local/domain/0/memory/target"] = b"1048576"
    store.nodes["/local/domain/0/memory/static-max"] = b"1572864"
    before = dict(store.nodes)

    assert steps_xen.plan_dom0_memory(context_of(paths)) == ()
    assert isinstance(steps_xen.set_dom0_memory(context_of(paths)), Unchanged)
    assert store.nodes == before
    assert dom0() == 1572864


def test_a_target_that_appears_meanwhile_is_not_written_over(paths, dom0, monkeypatch):
    store = steps_xen.connect_xenstore(None)
    transact = store.transact

    def somebody_is_faster(body):
        store.nodes["/local/domain/0/memory/target"] = b"1048576"
        transact(body)

    monkeypatch.setattr(store, "transact", somebody_is_faster)

    steps_xen.set_dom0_memory(context_of(paths))

    assert store.nodes["/local/domain/0/memory/target"] == b"1048576"
    assert store.nodes["/local/domain/0/memory/static-max"] == b"1572864"


def test_garbage_in_a_memory_key_is_replaced(paths, dom0):
    store = steps_xen.connect_xenstore(None)
    store.nodes["/local/domain/0/memory/target"] = b"much"
    store.nodes["/local/domain/0/memory/static-max"] = b"1572864"

    outcome = planned_then_done(context_of(paths), steps_xen.plan_dom0_memory, steps_xen.set_dom0_memory)

    assert outcome.changes == (Change("/local/domain/0/memory/target", "much", "1572864"),)


@pytest.mark.parametrize(("deadline_s", "moves_s"), [(600.0, 590.0), (30.0, 20.0), (4.0, 2.0), (0.0, 0.0)])
def test_dom0_stops_moving_before_the_steps_deadline(paths, dom0, monkeypatch, deadline_s, moves_s):
    given = []
    monkeypatch.setattr(steps_xen.time, "monotonic", lambda: 100.0)
    real = balloon.set_target

    def set_target(target_kib, store, **options):
        given.append(options["timeout_s"])
        return real(target_kib, store, **options)

    monkeypatch.setattr(balloon, "set_target", set_target)

    steps_xen.set_dom0_memory(context_of(paths, timeout_s=deadline_s, dom0_memory_mib=1536))

    assert given == [moves_s]


def test_the_configured_size_is_what_dom0_gets(paths, dom0):
    context = context_of(paths, dom0_memory_mib=1024)

    planned_then_done(context, steps_xen.plan_dom0_memory, steps_xen.set_dom0_memory)

    assert dom0() == 1024 * 1024


@pytest.mark.parametrize(("dry_run", "size_mib"), [(False, 1536), (True, 1024)])
def test_the_size_that_dom0_gets_is_what_later_steps_record(paths, dom0, dry_run, size_mib):
    """What Xen says after the move, which here stays as it was; in a dry run what is planned."""
    host = HostState(facts=host_samples.facts(memory=Memory(dom0=1)))
    context = dataclasses.replace(context_of(paths, host, dom0_memory_mib=1024), dry_run=dry_run)

    (steps_xen.plan_dom0_memory if dry_run else steps_xen.set_dom0_memory)(context)

    assert host.facts.memory.dom0 == size_mib << 20


def test_an_unsafe_size_is_refused_and_dom0_left_alone(paths, dom0):
    with pytest.raises(HostagentError, match="dom0 needs"):
        steps_xen.set_dom0_memory(context_of(paths, dom0_memory_mib=128))

    assert dom0() == 1572864


def test_without_a_balloon_driver_the_size_cannot_be_told(paths, dom0):
    (paths.root / balloon.DRIVER / "target_kb").unlink()

    with pytest.raises(OperatorError, match="no usable balloon driver"):
        steps_xen.set_dom0_memory(context_of(paths))
