"""Name servers in systemd-resolved, which files them by bridge, when management moves to another one and back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hostagent.net import apply, bring, journal, resolver
from hostagent.net import host as net_host
from hostagent.net.devices import GROUP, Device, Dns, Lease, Wanted
from hostagent.net.model import want
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.plan import plan
from hostagent.net.resolv_conf import render
from hostagent.net.unfinished import unfinished
from hostagent.startup import network
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


# --- of an owner that is not the management interface ---

OTHER = Dns(("10.2.0.1",))
LEASE = Lease("xenbr0", 4, gateway=True, dns=True)


@pytest.fixture
def storage(tmp_path, resolved, kernel):
    """xapi0 has them, and management is on xenbr0."""
    kernel.links[INDEX["xapi0"]].group = GROUP
    made = tools_of(tmp_path, "xenbr0")
    made.resolver(render(OTHER), "xapi0")
    return made


def back(**changed):
    return Wanted((Device("xenbr0", "bridge"),))._replace(**changed)


def undo(planned, root, kernel):
    left = journal.Journal(journal.APPLIED, "boot-1", "", "a move", 0.0, planned.steps)
    assert apply.undo(left, applying(tools_of(root, ""), kernel), boot="boot-1") == ()


@pytest.mark.parametrize("gone", [(), ("xapi0",)])
def test_those_of_another_bridge_go_when_management_has_its_own_again_and_an_undo_has_them_back(
    tmp_path, storage, kernel, gone
):
    planned = steps_of(storage, back(dns=DNS, dns_bridge="xenbr0", gone=gone), kernel)

    apply.apply(planned, applying(storage, kernel))
    assert (servers(tmp_path, "xenbr0"), servers(tmp_path, "xapi0")) == (render(DNS), "")

    undo(planned, tmp_path, kernel)
    assert (servers(tmp_path, "xenbr0"), servers(tmp_path, "xapi0")) == ("", render(OTHER))


def test_they_stay_until_a_dhcp_server_gave_the_next_owner_its_own(tmp_path, storage, kernel, monkeypatch):
    wanted = back(leases=(LEASE,))
    steps = plan(wanted, kernel.look(), storage.around(wanted, kernel.look())).steps
    planned = Plan(tuple(step for step in steps if step.do.verb == "dns"))

    apply.apply(planned, applying(storage, kernel))
    assert (servers(tmp_path, "xenbr0"), servers(tmp_path, "xapi0")) == ("", render(OTHER))

    monkeypatch.setattr(network, "look", lambda _: kernel.look())
    monkeypatch.setattr(network, "management", lambda _: ("xenbr0", "IPv4"))
    config: Any = SimpleNamespace(
        paths=SimpleNamespace(root=tmp_path, state=tmp_path / "state"), repair_drift=False
    )
    no: Any = None
    network.keeper(config, no, no)._eyes.resolve(DNS, "xenbr0")
    assert (servers(tmp_path, "xenbr0"), servers(tmp_path, "xapi0")) == (render(DNS), "")

    undo(planned, tmp_path, kernel)
    assert (servers(tmp_path, "xenbr0"), servers(tmp_path, "xapi0")) == ("", render(OTHER))


def test_an_owner_whose_client_runs_has_them_or_never_will(tmp_path, storage, kernel):
    found = resolver.left(tmp_path, back(leases=(LEASE,)), kernel.look(), (LEASE,), "xenbr0")

    assert found == ()


def test_an_owner_that_is_yet_to_be_made_is_not_told_of(tmp_path, storage, kernel):
    wanted = Wanted(leases=(LEASE._replace(device="xapi7"),))

    found = resolver.left(tmp_path, wanted, kernel.look(), (), "xenbr0")

    assert found == (("xapi0", render(OTHER), render(OTHER)),)


def test_those_of_a_bridge_that_others_made_are_theirs(tmp_path, storage, kernel):
    kernel.links[INDEX["xapi0"]].group = 0

    planned = steps_of(storage, back(dns=DNS, dns_bridge="xenbr0"), kernel)
    apply.apply(planned, applying(storage, kernel))
    resolver.take_off(tmp_path, "xenbr0", kernel.look(), "xenbr0")

    assert servers(tmp_path, "xapi0") == render(OTHER)


# --- whose they are ---


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
