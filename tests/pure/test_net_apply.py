"""A plan is carried out whole or undone; what is not so afterwards is told."""

from __future__ import annotations

import pytest

from hostagent.errors import KernelError
from hostagent.files import FileError
from hostagent.net import apply, journal
from hostagent.net.apply import RolledBackError
from hostagent.net.devices import Dns
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.plan import plan
from hostagent.net.resolv_conf import render
from hostagent.net.verify import Around, differences
from tests.pure.net_apply_host import Host
from tests.pure.net_kernel import FakeKernel
from tests.pure.net_plans import BOND, TWO, a_kernel, carry_out


class Killed(BaseException):
    """As a kill at a hold point, which leaves no time for anything."""


WANTED = BOND._replace(dns=Dns(("10.0.0.1",)))


@pytest.fixture
def host():
    kernel = a_kernel()
    carry_out(kernel, TWO)
    return Host(kernel)


def carry(host, folder, made, *, accept=lambda found: not found):
    def check(kernel):
        return differences(WANTED, kernel)

    return apply.carry_out(
        made, host.tools(), folder, boot="b1", digest="d", what="bond", check=check, accept=accept
    )


def the_plan(host):
    return plan(WANTED, host.look(), Around(resolver="old\n"))


def test_a_plan_is_applied_and_waits_for_its_commit(host, tmp_path):
    made = the_plan(host)

    applied, told = carry(host, tmp_path, made)

    assert differences(BOND, host.look()) == ()
    assert host.resolver == render(WANTED.dns)
    assert journal.pending(tmp_path) == applied
    assert applied.state == journal.APPLIED
    assert len(told.milliseconds) == len(made.steps)
    assert (host.held[0], host.held[-2:]) == ("begun", [f"step-{len(made.steps)}", "applied"])


@pytest.mark.parametrize("fails", ["dns", "bond0/disable_ipv6"])
def test_a_step_that_fails_undoes_those_before(host, tmp_path, fails):
    before = host.look()
    host.fails = fails

    with pytest.raises(RolledBackError, match="the network is as before"):
        carry(host, tmp_path, the_plan(host))

    assert host.look() == before
    assert host.resolver == "old\n"
    assert journal.pending(tmp_path) is None


def test_each_netlink_operation_that_the_kernel_refuses_undoes_those_before(host):
    before = host.look()
    made = the_plan(host)
    for position, step in enumerate(made.steps):
        there = Host(FakeKernel(before))
        bad = step._replace(do=Operation("link-set", step.do.device, 4242, {"up": True}))
        with pytest.raises(RolledBackError, match="link-set") as caught:
            apply.apply(Plan((*made.steps[:position], bad)), there.tools())
        assert caught.value.code == "PIF_CONFIGURATION_ERROR"
        assert there.look() == before


def test_an_outcome_that_is_not_accepted_is_undone(host, tmp_path):
    before = host.look()
    made = the_plan(host)

    with pytest.raises(
        RolledBackError, match=r"after all 0 steps eth0: master xenbr0, not bond0; .* and 5 more"
    ):
        carry(host, tmp_path, Plan(()))
    with pytest.raises(RolledBackError):
        carry(host, tmp_path, made, accept=lambda _: False)

    assert host.look() == before
    assert journal.pending(tmp_path) is None


def test_a_kill_at_any_hold_point_is_undone_from_the_journal_and_a_second_time_does_no_harm(host, tmp_path):
    before = host.look()
    carry(host, tmp_path / "count", the_plan(host))
    points = list(host.held)
    assert len(points) > 3
    for number, point in enumerate(points):
        there = Host(FakeKernel(before))

        def hold(name, point=point):
            if name == point:
                raise Killed

        tools = there.tools()._replace(hold=hold)
        folder = tmp_path / str(number)
        made = plan(WANTED, before, Around(resolver="old\n"))
        begun = journal.begin(folder, made, boot="b1", digest="d", what="bond")
        # what the process did before it died, without the roll-back that a living one does
        count = 0
        for first, after in apply._batches([step.do for step in made.steps]):
            if point == "begun":
                break
            journal.progress(folder, after)
            apply._forward(made.steps, first, after, tools, [], [])
            count = after
            if f"step-{after}" == point:
                break
        found = journal.pending(folder)
        assert found == begun._replace(steps=begun.steps[: journal.reach(begun.steps, count)])
        for _ in range(2):
            assert apply.undo(found, there.tools(), boot="b1") == ()
            assert there.look() == before
            assert there.resolver == "old\n"


def test_after_a_reboot_only_files_are_undone(host, tmp_path):
    applied, _ = carry(host, tmp_path, the_plan(host))
    after = host.look()

    assert apply.undo(applied, host.tools(), boot="b2") == ()

    assert host.look() == after
    assert host.resolver == "old\n"


def test_an_undo_that_fails_is_told_and_stays_pending(host, tmp_path):
    bad = Operation("link-set", "eth0", 1, {"mtu": 20})
    made = Plan((Step(Operation("link-set", "eth0", 1, {"altname": "x"}), (bad,)),))

    with pytest.raises(RolledBackError, match="undoing it failed in part") as caught:
        carry(host, tmp_path, made)

    assert [trouble.operation for trouble in caught.value.troubles] == [bad]
    assert journal.pending(tmp_path) is not None


def test_deleting_what_has_gone_by_itself_is_no_failure(host):
    made = Plan((Step(Operation("address-del", "eth0", 1, {"text": "10.9.0.1", "prefix": 24}), ()),))

    apply.apply(made, host.tools())


def test_a_plan_of_nothing_does_nothing(host):
    assert apply.apply(plan(TWO, host.look()), host.tools()).milliseconds == ()


def test_what_may_have_begun_is_on_the_disk_before_it_begins(host, tmp_path):
    made = the_plan(host)
    seen = []

    def hold(name):
        found = journal.pending(tmp_path)
        assert found is not None
        seen.append((name, len(found.steps)))

    tools = host.tools()._replace(hold=hold)
    apply.carry_out(made, tools, tmp_path, boot="b1", digest="d", what="bond", check=lambda _: ())

    begun = [count for name, count in seen if name == "begun"]
    assert begun == [journal.reach(made.steps, 0)]
    assert begun[0] < len(made.steps)
    assert all(count >= int(name[5:]) for name, count in seen if name.startswith("step-"))
    assert len({count for _, count in seen}) <= apply.MARKS + 2


def test_a_plan_that_only_makes_devices_marks_nothing(tmp_path):
    host = Host(a_kernel())
    made = Plan(
        (Step(Operation("link-add", "br", 9, {"kind": "bridge"}), (Operation("link-del", "br", 9),)),)
    )
    marks: list[int] = []

    apply.apply(made, host.tools(), marks.append)

    assert marks == []


class Lost(KernelError):
    """As `netlink.NetlinkError` when the answer to a chunk is lost."""

    def __init__(self, unknown):
        super().__init__("the kernel's answer was lost", hint="")
        self.position, self.errno, self.executed, self.unknown = 0, 105, (), unknown


def losing(host, times):
    """The kernel does all that is asked of it, and the answer to the first so many sends is lost."""
    left = [times]
    execute = host.kernel.execute

    def lossy(operations):
        try:
            execute(operations)
        finally:
            if left[0]:
                left[0] -= 1
                raise Lost(tuple(range(len(operations))))

    return host.tools()._replace(netlink=Sending(host, lossy))


class Sending:
    def __init__(self, host, execute):
        self.look, self.execute = host.look, execute


def test_what_was_done_is_undone_though_the_kernels_answer_was_lost(host, tmp_path):
    before = host.look()

    with pytest.raises(RolledBackError, match=r"link-add|link-set") as caught:
        apply.carry_out(
            the_plan(host), losing(host, 1), tmp_path, boot="b1", digest="d", what="bond", check=lambda _: ()
        )

    assert "the network is as before" in caught.value.found
    assert host.look() == before
    assert journal.pending(tmp_path) is None


def test_an_undo_whose_answer_is_lost_is_sent_again(host, tmp_path):
    before = host.look()
    applied, _ = carry(host, tmp_path, the_plan(host))

    assert apply.take_back(applied, losing(host, 2), tmp_path, boot="b1") == ()

    assert host.look() == before


def test_an_undo_whose_answers_are_all_lost_has_troubles(host, tmp_path):
    applied, _ = carry(host, tmp_path, the_plan(host))

    assert apply.take_back(applied, losing(host, 10_000), tmp_path, boot="b1") != ()

    left = journal.pending(tmp_path)
    assert left is not None
    assert left.state == journal.UNDO_FAILED


def test_what_comes_back_to_no_device_has_not_come_back(host, tmp_path):
    """The card was pulled out meanwhile."""
    back = Operation("address-add", "eth9", 99, {"text": "10.9.0.1", "prefix": 24})
    do = Operation("address-del", "eth9", 99, {"text": "10.9.0.1", "prefix": 24})
    left = journal.begin(tmp_path, Plan((Step(do, (back,)),)), boot="b1", digest="d", what="gone")

    (trouble,) = apply.take_back(left, host.tools(), tmp_path, boot="b1")

    assert trouble.operation == back


def test_an_outcome_that_cannot_be_looked_at_is_undone(host, tmp_path):
    before = host.look()

    def check(_):
        raise KernelError("no answer within 20 s", hint="try again")

    with pytest.raises(RolledBackError, match=r"could not be checked: no answer.*the network is as before"):
        apply.carry_out(
            the_plan(host), host.tools(), tmp_path, boot="b1", digest="d", what="bond", check=check
        )

    assert host.look() == before
    assert journal.pending(tmp_path) is None


def test_who_is_interrupted_while_looking_undoes_it(host, tmp_path):
    before = host.look()

    def check(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply.carry_out(
            the_plan(host), host.tools(), tmp_path, boot="b1", digest="d", what="bond", check=check
        )

    assert host.look() == before
    assert journal.pending(tmp_path) is None


@pytest.mark.parametrize("state", [journal.APPLIED, journal.UNDONE])
def test_a_journal_that_cannot_be_marked_is_told_and_stays(host, tmp_path, monkeypatch, state):
    before = host.look()
    mark = journal.mark

    def full(folder, left, wanted):
        if wanted in (state, journal.UNDONE):
            raise FileError("no space left on device", hint="df -h", number=28)
        return mark(folder, left, wanted)

    monkeypatch.setattr(journal, "mark", full)

    with pytest.raises(RolledBackError, match="undoing it failed in part: no space left") as caught:
        carry(host, tmp_path, the_plan(host), accept=lambda found: not found and state == journal.APPLIED)

    assert str(caught.value) == caught.value.found
    assert host.look() == before
    assert journal.pending(tmp_path) is not None
