"""Name servers in systemd-resolved, which files them by bridge, when management moves to another one and back."""

from __future__ import annotations

import pytest

from hostagent.net import apply, bring, journal, resolver
from hostagent.net import host as net_host
from hostagent.net.devices import GROUP, Device, Dns, Wanted
from hostagent.net.model import want
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.plan import plan
from hostagent.net.resolv_conf import render
from hostagent.net.unfinished import unfinished
from tests.pure.net_kernel import FakeKernel
from tests.pure.net_records import STATIC, Host
from tests.pure.startup_network import FakeHost

DNS = Dns(("10.1.0.1",), ("a.example",))
INDEX = {"xenbr0": 40, "xapi0": 41}


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def resolved(tmp_path, monkeypatch):
    """A host with resolved, which remembers what it is told per bridge; its commands."""
    told = []
    states = tmp_path / "run/systemd/resolve/netif"
    states.mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / resolver.FILE).symlink_to("../run/systemd/resolve/stub-resolv.conf")
    for bridge, index in INDEX.items():
        place = tmp_path / "sys/class/net" / bridge
        place.mkdir(parents=True)
        (place / "ifindex").write_text(f"{index}\n")

    def run(argv, **_):
        told.append(" ".join(argv[1:]))
        file = states / str(INDEX[argv[2]])
        if argv[1] == "dns":
            file.write_text(f"SERVERS={' '.join(argv[3:])}\n")
        elif argv[1] == "domain":
            file.write_text(f"{file.read_text()}DOMAINS={' '.join(argv[3:])}\n")
        elif argv[1] == "revert":
            file.unlink(missing_ok=True)

    monkeypatch.setattr(resolver, "run", run)
    return told


@pytest.fixture
def kernel():
    made = FakeKernel()
    for bridge, index in INDEX.items():
        made.one(Operation("link-add", bridge, index, {"kind": "bridge", "group": GROUP, "up": True}))
    return made


def tools_of(root, bridge):
    return net_host._Tools(root, root / "run", bridge, root / "state")


def steps_of(made, wanted, kernel):
    """Those about name servers, of the plan."""
    steps = plan(wanted, kernel.look(), made.around(wanted, kernel.look())).steps
    assert [step for step in steps[1:-1] if step.do.verb == "dns"] == []
    return Plan(tuple(step for step in steps if step.do.verb == "dns"))


def applying(made, kernel):
    def no(*_):
        raise AssertionError

    return apply.Tools(kernel, made.sysctl, made.ethtool, no, no, made.resolver)


def servers(root, bridge):
    return resolver.current(root, bridge)


def moved(**changed):
    return Wanted((Device("xapi0", "bridge"),), dns=DNS, dns_bridge="xapi0")._replace(**changed)


@pytest.mark.parametrize("gone", [(), ("xenbr0",)])
def test_they_go_along_and_the_timers_undo_has_them_back(tmp_path, resolved, kernel, gone):
    made = tools_of(tmp_path, "xenbr0")
    made.resolver(render(DNS), "xenbr0")
    planned = steps_of(made, moved(gone=gone), kernel)

    apply.apply(planned, applying(made, kernel))

    assert (servers(tmp_path, "xenbr0"), servers(tmp_path, "xapi0")) == ("", render(DNS))
    assert steps_of(tools_of(tmp_path, "xapi0"), moved(), kernel).steps == ()

    left = journal.Journal(journal.APPLIED, "boot-1", "", "a move", 0.0, planned.steps)
    assert apply.undo(left, applying(tools_of(tmp_path, ""), kernel), boot="boot-1") == ()

    assert (servers(tmp_path, "xenbr0"), servers(tmp_path, "xapi0")) == (render(DNS), "")
    assert made.soft == []


def test_those_of_a_bridge_that_is_not_managements_are_looked_for_there(tmp_path, resolved, kernel):
    tools_of(tmp_path, "").resolver(render(DNS), "xapi0")

    assert steps_of(tools_of(tmp_path, "xenbr0"), moved(), kernel).steps == ()


def test_an_operation_of_an_earlier_release_means_the_management_interface(tmp_path, resolved, kernel):
    made = tools_of(tmp_path, "xenbr0")
    do = Operation("dns", "", 0, {"before": "", "after": render(DNS)})

    apply.apply(Plan((Step(do, ()),)), applying(made, kernel))

    assert servers(tmp_path, "xenbr0") == render(DNS)


def test_a_plain_file_is_written_once_whichever_bridge_it_is_for(tmp_path, kernel):
    (tmp_path / "etc").mkdir()
    (tmp_path / resolver.FILE).write_text(render(DNS))
    made = tools_of(tmp_path, "xenbr0")

    assert steps_of(made, moved(gone=("xenbr0",)), kernel).steps == ()


def test_they_belong_to_the_bridge_of_their_owner():
    made = Host()
    made.nic("eth0", management=True, **STATIC)
    made.nic("eth1", **STATIC | {"ip": "10.2.0.2", "gateway": "", "other_config": {"peerdns": "true"}})

    assert want(made.records("xenbr0"), ["eth0"]).dns_bridge == "xenbr0"
    assert want(made.records("xenbr0"), ["eth0", "eth1"]).dns_bridge == "xenbr1"
    assert want(made.records("xenbr0"), ["eth1"], down=["eth0"]).dns_bridge == "xenbr1"


# --- what could not be set back ---


def left_over(folder):
    do = Operation("dns", "", 0, {"before": "", "after": render(DNS)})
    left = journal.begin(folder, Plan((Step(do, (do,)),)), boot="boot-1", digest="", what="a move")
    journal.mark(folder, left, journal.APPLIED)


@pytest.mark.parametrize("by_timer", [True, False])
def test_an_undo_tells_what_resolved_did_not_take(tmp_path, by_timer):
    """It is no trouble of the undo, and no part of what is changed next."""
    opened = FakeHost().open(tmp_path)

    def refuses(*_):
        opened.soft.append("systemd-resolved did not take the name servers of xenbr0")

    opened = opened._replace(tools=opened.tools._replace(resolver=refuses))
    left_over(opened.folder)

    if by_timer:
        result = bring.undo(opened)
        assert (result["outcome"], result["told"]) == ("undone", opened.soft)
        assert opened.soft != []
    else:
        assert "did not take the name servers of xenbr0" in unfinished(opened)
        assert opened.soft == []
