"""Networks to go from and to, in tests of plans, and kernels in which plans are carried out and taken back."""

from __future__ import annotations

from hostagent.net.devices import Device, Wanted, WantedAddress, WantedRoute
from hostagent.net.plan import plan
from hostagent.net.sysctl import Ipv6
from hostagent.net.verify import Around
from tests.pure.net_kernel import FakeKernel, RefusedError

MAC = "52:54:00:00:00:{:02x}"


def nic(name, master="", *, mtu=1500, **more):
    return Device(name, "physical", master=master, mtu=mtu, **more)


def bridge(name, mac=1, *, mtu=1500, **more):
    return Device(name, "bridge", mac=MAC.format(mac), mtu=mtu, ipv6="link-local", **more)


def vlan(lower, tag, master, mac=1, *, mtu=1500):
    return Device(
        f"{lower}.{tag}", "vlan", mac=MAC.format(mac), mtu=mtu, master=master, lower=lower, vlan_id=tag
    )


def bond(name, master, mac=1, *, mtu=1500, **settings):
    values = {"mode": 1, "miimon": 100, "updelay": 31000, "downdelay": 200, **settings}
    return Device(name, "bond", mac=MAC.format(mac), mtu=mtu, master=master, settings=values)


ADDRESS, GATEWAY = "10.0.0.5", "10.0.0.1"


def with_address(name, *devices, gone=()):
    return Wanted(
        devices,
        (WantedAddress(name, ADDRESS, 24),),
        (WantedRoute(name, "default4", GATEWAY),),
        gone=gone,
    )


PLAIN = with_address("xenbr0", nic("eth0", "xenbr0"), bridge("xenbr0"))
VLANS = with_address(
    "xenbr0",
    nic("eth0", "xenbr0"),
    bridge("xenbr0"),
    bridge("xapi3"),
    vlan("eth0", 5, "xapi3"),
    gone=("bond0.5",),
)
MANAGEMENT_ON_VLAN = with_address(
    "xapi3", nic("eth0", "xenbr0"), bridge("xenbr0"), bridge("xapi3"), vlan("eth0", 5, "xapi3")
)
TWO = with_address("xenbr0", nic("eth0", "xenbr0"), nic("eth1", "xenbr1"), bridge("xenbr0"), bridge("xenbr1", 2),
    gone=("bond0", "xapi2", "bond0.5", "xapi3"))  # fmt: skip
BOND = with_address(
    "xapi2", nic("eth0", "bond0"), nic("eth1", "bond0"), bond("bond0", "xapi2"), bridge("xapi2"),
    bridge("xapi3"), vlan("bond0", 5, "xapi3"), gone=("xenbr0", "xenbr1", "eth0.5"),
)  # fmt: skip
LACP = BOND._replace(
    devices=tuple(
        d._replace(settings={**d.settings, "mode": 4, "ad_lacp_rate": 1, "ad_user_port_key": 3})
        if d.kind == "bond"
        else d
        for d in BOND.devices
    )
)
SLOW = BOND._replace(
    devices=tuple(
        d._replace(settings={**d.settings, "updelay": 0}) if d.kind == "bond" else d for d in BOND.devices
    )
)
JUMBO = BOND._replace(devices=tuple(d._replace(mtu=9000) for d in BOND.devices))
NOTHING = Wanted(
    (nic("eth0"), nic("eth1")), gone=("xenbr0", "xenbr1", "bond0", "xapi2", "xapi3", "eth0.5", "bond0.5")
)
ALL = {
    "plain": PLAIN, "vlans": VLANS, "management on vlan": MANAGEMENT_ON_VLAN, "two": TWO, "bond": BOND, "lacp": LACP,
    "slow": SLOW, "jumbo": JUMBO, "nothing": NOTHING,
}  # fmt: skip


def a_kernel(*, nics=2, promote=False):
    kernel = FakeKernel(promote=promote)
    for number in range(nics):
        kernel.nic(f"eth{number}", number + 1)
    return kernel


def netlink(steps):
    return [step.do for step in steps if step.do.verb.startswith(("link", "group", "address", "route"))]


def carry_out(kernel, wanted, around=None):
    made = plan(wanted, kernel.look(), around)
    kernel.execute(netlink(made.steps))
    return made


def take_back(kernel, steps):
    for step in reversed(steps):
        for operation in step.undo:
            if operation.verb.startswith(("link", "address", "route")):
                try:
                    kernel.execute([operation])
                except RefusedError as error:
                    if error.errno not in (17, 19, 99, 3, 2):
                        raise


def every_prefix_can_be_undone(kernel, wanted):
    before = kernel.look()
    made = plan(wanted, before)
    for count in range(len(made.steps) + 1):
        there = FakeKernel(before, promote=kernel.promote)
        there.execute(netlink(made.steps[:count]))
        take_back(there, made.steps[:count])
        assert there.look() == before, f"after {count} steps: {made.steps[:count]}"


def every_kill_can_be_undone(kernel, wanted):
    """Killed after any step, all undone from the journal, and once more."""
    before = kernel.look()
    made = plan(wanted, before)
    for count in range(0, len(made.steps) + 1, 3):
        there = FakeKernel(before, promote=kernel.promote)
        there.execute(netlink(made.steps[:count]))
        for _ in range(2):
            take_back(there, made.steps)
            assert there.look() == before, f"killed after {count} steps"


NO_MODES = Around(ipv6=Ipv6(present=False, enabled=False))
