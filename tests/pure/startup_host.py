"""What the tests of steps share: a dom0 as Xen tells it, a xenstore that moves it, a step compared with its plan."""

from __future__ import annotations

from hostagent.startup.step import Changed, Unchanged
from hostagent.xen import hypercall
from tests.pure.startup_tree import FakeXenstore, files_below, put

UUID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"


def ours(paths):
    return files_below(paths.etc, paths.state, paths.run)


def planned_then_done(context, plan, run):
    """Plan, run, run again: a plan changes nothing, a run does what it said, the second run nothing."""
    paths = context.config.paths
    before = ours(paths)
    changes = plan(context)
    assert ours(paths) == before
    outcome = run(context)
    assert isinstance(outcome, Changed)
    assert outcome.changes == changes
    assert plan(context) == ()
    assert isinstance(run(context), Unchanged)
    return outcome


def a_domain(handle, *, mem_kib=1024, maxmem_kib=2048):
    flags = dict.fromkeys(("running", "paused", "blocked", "shutdown", "crashed", "dying", "hvm"), False)
    return hypercall.DomainInfo(
        domid=0,
        handle=handle,
        online_vcpus=2,
        mem_kib=mem_kib,
        maxmem_kib=maxmem_kib,
        cpu_time_ns=0,
        shutdown_reason=None,
        **flags,
    )


class BalloonedXenstore(FakeXenstore):
    """A xenstore whose dom0 follows its memory target at once."""

    def __init__(self, driver):
        super().__init__({"/local/domain/0": "", "/local/domain/0/control/feature-poweroff": "1"})
        self._driver = driver

    def must_exist(self, path):
        assert path in self.nodes

    def write(self, path, value):
        super().write(path, value)
        if path.endswith("memory/target"):
            put(self._driver / "target_kb", value.decode())
            put(self._driver / "info/current_kb", value.decode())
