"""The lease of the management interface while it moves to another bridge, and when the timer takes it back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hostagent.__main__ import main
from hostagent.cli import netrecords
from hostagent.errors import HostagentError
from hostagent.net import apply, dhcp, guard, journal
from hostagent.net import host as net_host
from hostagent.net.devices import GROUP, Address, Device, Kernel, Lease, Wanted
from hostagent.net.operation import Operation, Plan
from hostagent.net.plan import plan
from hostagent.net.verify import differences
from tests.pure.net_kernel import FakeKernel
from tests.pure.startup_tree import make_paths

BEFORE, AFTER = (Lease(bridge, 4, gateway=True, dns=True) for bridge in ("xenbr0", "xapi0"))
AFTER6 = Lease("xapi0", 6, gateway=False, dns=False)


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


class Clients:
    """systemd with the clients it keeps, and dhcpcd, by what they are asked."""

    def __init__(self):
        self.ran = []
        self.active = set()

    def run(self, argv, *, timeout_s, package=None, check=True):
        del timeout_s, package, check
        self.ran.append(" ".join(argv))
        out = ""
        if argv[:2] == ["systemctl", "show"]:
            out = "active\n" if argv[-1] in self.active else "inactive\n"
        elif argv[:2] == ["systemctl", "stop"]:
            self.active.discard(argv[-1])
        elif argv[0] == "systemd-run":
            unit = next(word for word in argv if word.startswith("--unit="))
            self.active.add(unit.removeprefix("--unit="))
        return SimpleNamespace(stdout=out)

    def released(self):
        return [line for line in self.ran if "--release" in line]


class Netlink(FakeKernel):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.fixture
def clients(monkeypatch):
    made = Clients()
    monkeypatch.setattr(dhcp, "run", made.run)
    return made


@pytest.fixture
def netlink(monkeypatch):
    kernel = Netlink(Kernel({}))
    for index, bridge in ((40, "xenbr0"), (41, "xapi0")):
        kernel.one(Operation("link-add", bridge, index, {"kind": "bridge", "group": GROUP, "up": True}))
    monkeypatch.setattr(net_host, "Netlink", lambda: kernel)
    return kernel


@pytest.fixture
def opened(tmp_path, clients, netlink):
    """Another process's tools, by the management interface's bridge."""
    del clients, netlink

    def made(bridge):
        return net_host._Tools(tmp_path, tmp_path / "run", bridge, tmp_path / "state")

    return made


def tools_of(made, netlink):
    return apply.Tools(
        netlink=netlink,
        sysctl=made.sysctl,
        ethtool=made.ethtool,
        lease_start=made.lease_start,
        lease_stop=made.lease_stop,
        lease_leave=made.lease_leave,
        resolver=lambda *_: None,
    )


def wanted_of(*leases, gone=()):
    names = {lease.device for lease in leases}
    return Wanted(tuple(Device(name, "bridge") for name in sorted(names)), leases=leases, gone=gone)


def moved(opened, netlink, *, leases=(AFTER,)):
    """The journal of a move that was made and not committed, and how it came to be."""
    first = opened("xenbr0")
    first.lease_start(BEFORE)
    wanted = wanted_of(*leases, gone=("xenbr0",))
    first.around(wanted, netlink.look())
    planned = plan(wanted, netlink.look(), first.around(wanted, netlink.look()))
    steps = tuple(step for step in planned.steps if step.do.verb.startswith("lease"))
    tools = tools_of(first, netlink)
    apply.apply(planned._replace(steps=steps), tools)
    return journal.Journal(journal.APPLIED, "boot-1", "", "move", 0.0, steps)


def conf(tmp_path, bridge):
    return dhcp.file_of(bridge, tmp_path / "run").read_text()


def test_the_timers_undo_gives_nothing_back_and_the_former_bridge_keeps_its_last_lease(
    opened, netlink, clients, tmp_path
):
    left = moved(opened, netlink, leases=(AFTER, AFTER6))
    netlink.addresses += [
        Address(41, "10.9.0.4", 24, flags=0, valid_s=3600),
        Address(41, "fd00::4", 128, flags=0, valid_s=3600),
        Address(41, "fd00::aa", 64, flags=0, valid_s=3600),
    ]
    assert [step.do.verb for step in left.steps] == ["lease-stop", "lease-start", "lease-start"]
    assert clients.active == {dhcp.unit("xapi0")}

    troubles = apply.undo(left, tools_of(opened("xenbr0"), netlink), boot="boot-1")

    assert troubles == ()
    assert clients.released() == []
    assert clients.active == {dhcp.unit("xenbr0")}
    assert "lastleaseextend" in conf(tmp_path, "xenbr0")
    # those of advertisements are the kernel's
    assert [one.text for one in netlink.addresses if one.device == 41] == ["fd00::aa"]


def test_an_undo_that_leaves_the_bridge_one_family_leaves_its_client(opened, netlink, clients, tmp_path):
    made = opened("xenbr0")
    made.lease_start(AFTER)
    made.lease_start(AFTER6)

    made.lease_leave(AFTER6)

    assert clients.active == {dhcp.unit("xapi0")}
    assert "noipv6" in conf(tmp_path, "xapi0").splitlines()
    assert clients.released() == []


def test_after_the_move_the_next_change_finds_the_heirs_client_as_it_is_to_be(
    opened, netlink, clients, tmp_path
):
    moved(opened, netlink)
    assert "lastleaseextend" in conf(tmp_path, "xapi0")
    wanted = wanted_of(AFTER)
    next_one = opened("xapi0")

    around = next_one.around(wanted, netlink.look())

    assert around.leases == (AFTER,)
    steps = plan(wanted, netlink.look(), around).steps
    assert [step for step in steps if step.do.verb.startswith("lease")] == []


def test_a_client_of_the_management_bridge_that_would_give_up_is_told_otherwise(
    opened, netlink, clients, tmp_path
):
    """As releases before this one left it."""
    opened("").lease_start(AFTER)
    assert "lastleaseextend" not in conf(tmp_path, "xapi0")
    wanted, made = wanted_of(AFTER), opened("xapi0")

    around = made.around(wanted, netlink.look())
    found = differences(wanted, netlink.look(), around)
    steps = plan(wanted, netlink.look(), around).steps
    apply.apply(
        Plan(tuple(one for one in steps if one.do.verb == "lease-start")),
        tools_of(made, netlink),
    )

    assert "lease" in {one.what for one in found}
    assert "lastleaseextend" in conf(tmp_path, "xapi0")
    assert clients.released() == []


def test_the_timers_command_opens_the_host_with_the_inventorys_bridge(tmp_path, monkeypatch):
    paths = make_paths(tmp_path)
    asked = []

    def host_of(_paths, bridge=""):
        asked.append(bridge)
        raise HostagentError("no netlink here", hint="")

    monkeypatch.setattr(netrecords, "host_of", host_of)
    words = ["net", "undo", "--etc", str(paths.etc), "--state", str(paths.state), "--run", str(paths.run)]
    for content in (INVENTORY, "", "garbage"):
        paths.inventory.write_text(content)
        assert main(words) == guard.FAILED_EXIT

    assert asked == ["xenbr7", "", ""]


INVENTORY = """\
INSTALLATION_UUID='11111111-1111-1111-1111-111111111111'
CONTROL_DOMAIN_UUID='22222222-2222-2222-2222-222222222222'
MANAGEMENT_INTERFACE='xenbr7'
MANAGEMENT_ADDRESS_TYPE='IPv4'
BUILD_NUMBER='0'
"""


def test_a_bridge_that_goes_takes_its_client_along_and_gives_its_lease_back(
    opened, netlink, clients, tmp_path
):
    opened("xapi9").lease_start(BEFORE)
    netlink.addresses.append(Address(40, "10.9.0.4", 24, flags=0, valid_s=3600))
    wanted, made = Wanted(gone=("xenbr0",)), opened("xapi9")

    steps = plan(wanted, netlink.look(), made.around(wanted, netlink.look())).steps
    assert steps[0].do.verb == "lease-stop"
    apply.apply(Plan(steps), tools_of(made, netlink))

    assert clients.active == set()
    assert len(clients.released()) == 1
    assert not dhcp.file_of("xenbr0", tmp_path / "run").exists()
