"""Which generation is marked as the one to go back to: where the management interface has a gateway, that answers."""

from __future__ import annotations

import pytest

from hostagent.net import bring, cache, early
from hostagent.net.devices import Address, Route
from hostagent.net.probe import ProbeError
from hostagent.net.reachable import GATEWAY_S
from tests.pure.net_care import GATEWAY, PEER, Careful
from tests.pure.net_machine import Machine, records

GATEWAY6, ROUTER = "2001:db8::1", "fe80::1"
GIVEN = "192.0.2.99", "2001:db8::99"
"""Addresses by a lease, and by advertisement."""
NO_GATEWAY = {"gateway": ""}
LEASE = {"ip_mode": "DHCP", "ip": "", "netmask": "", "gateway": "", "dns": ""}
ADVERTISED = {"ipv6_mode": "Autoconf"}
ADDRESS6 = {"ipv6_mode": "Static", "ipv6": ("2001:db8::10/64",)}
SILENT = "generation 2 is not marked as verified: the gateway {} does not answer on xenbr0"


class Asked(Careful):
    """How long each gateway was asked for; `leads` are default routes that come with the bridge and an address."""

    def __init__(self, folder, leads=()):
        super().__init__(folder)
        self.leads = leads
        self.spent = {}

    def ask(self, probe, seconds):
        self.spent[probe.target] = self.spent.get(probe.target, 0.0) + seconds
        return self.segment.ask(probe, seconds)

    def host(self, *_):
        host = super().host()
        tools = host.tools._replace(netlink=self)
        return host._replace(wire=self.segment.wire()._replace(ask=self.ask), tools=tools)

    def execute(self, operations):
        self.kernel.execute(operations)

    def look(self):
        kernel = self.kernel.look()
        bridge = kernel.by_name().get("xenbr0")
        if bridge is None:
            return kernel
        led = [
            Route(bridge.ifindex, f"default{6 if ':' in one else 4}", one, protocol=9) for one in self.leads
        ]
        came = [Address(bridge.ifindex, "fe80::10", 64, scope=253)]
        came += [
            Address(bridge.ifindex, GIVEN[":" in one], 64 if ":" in one else 24, valid_s=3600)
            for one in self.leads[:1]
        ]
        return kernel._replace(routes=(*kernel.routes, *led), addresses=(*kernel.addresses, *came))


class Deaf(Asked):
    def ask(self, probe, seconds):
        raise ProbeError("no such device", hint="")


class Refusing(Asked):
    """It takes no other MTU."""

    def execute(self, operations):
        if any(one.args.get("mtu", 1500) > 1500 for one in operations):
            raise ProbeError("no", hint="")
        super().execute(operations)


def good(folder):
    """What was verified before."""
    return cache.write(folder, records(ip="192.0.2.9"), verified=True)


def newest(folder, **changed):
    return cache.write(folder, records(**changed))


def boot(machine):
    return early.raise_management(
        cache.read(machine.folder), machine.host(), early.Around(lambda _: (), lambda: ())
    )


def test_at_boot_a_wrong_vlan_or_gateway_is_not_what_to_go_back_to(tmp_path):
    before = good(tmp_path)
    newest(tmp_path)
    machine = Asked(tmp_path)
    machine.segment.answering = {PEER}

    raised = boot(machine)

    assert raised.outcome == early.UP
    assert raised.told == (SILENT.format(GATEWAY),)
    assert cache.read_verified(tmp_path) == before
    assert machine.spent == {GATEWAY: GATEWAY_S}


def test_by_hand_it_is_not_either_and_nothing_has_failed(tmp_path):
    before = good(tmp_path)
    newest(tmp_path)
    machine = Asked(tmp_path)
    machine.segment.answering = set()

    result = machine.up()

    assert (result["outcome"], result["error"]) == ("changed", None)
    assert result["told"] == [SILENT.format(GATEWAY)]
    assert cache.read_verified(tmp_path) == before


@pytest.mark.parametrize("try_", [boot, Machine.up])
def test_where_the_gateway_answers_it_is_marked_and_that_is_all(tmp_path, try_):
    newest(tmp_path)
    machine = Asked(tmp_path)

    try_(machine)

    verified = cache.read_verified(tmp_path)
    assert verified is not None
    assert verified.records == records()
    machine.spent.clear()
    try_(machine)
    assert machine.spent == {}  # what is marked is not asked for again


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize(
    ("changed", "leads", "gateway"),
    [
        (LEASE, (GATEWAY,), GATEWAY),
        ({**NO_GATEWAY, **ADDRESS6, "ipv6_gateway": GATEWAY6}, (), GATEWAY6),
        ({"ip_mode": "None", **ADVERTISED}, (ROUTER,), ROUTER),
        (ADVERTISED, (ROUTER,), ROUTER),
        (ADVERTISED, (ROUTER,), GATEWAY),
    ],
)
def test_the_gateway_is_that_of_the_record_of_a_lease_or_of_a_router(
    tmp_path, changed, leads, gateway, answers
):
    newest(tmp_path, **changed)
    machine = Asked(tmp_path, leads)
    machine.segment.answering = {GATEWAY, GATEWAY6, ROUTER} - (set() if answers else {gateway})

    boot(machine)

    assert (cache.read_verified(tmp_path) is not None) == answers
    assert machine.spent[gateway] > 0
    assert sum(machine.spent.values()) <= GATEWAY_S


def test_one_of_two_routers_is_enough(tmp_path):
    newest(tmp_path, **NO_GATEWAY, **ADVERTISED)
    machine = Asked(tmp_path, (ROUTER, "fe80::2"))
    machine.segment.answering = {"fe80::2"}

    boot(machine)

    assert cache.read_verified(tmp_path) is not None
    assert sum(machine.spent.values()) == GATEWAY_S


def test_without_a_gateway_nobody_is_asked(tmp_path):
    newest(tmp_path, **NO_GATEWAY)
    machine = Asked(tmp_path)
    machine.segment.answering = set()

    assert boot(machine).told == ()

    assert cache.read_verified(tmp_path) is not None
    assert machine.spent == {}


def test_a_gateway_that_cannot_be_asked_has_not_answered(tmp_path):
    newest(tmp_path)
    boot(Deaf(tmp_path))

    assert cache.read_verified(tmp_path) is None


@pytest.mark.parametrize("answers", [True, False])
def test_with_less_at_boot_it_is_what_to_go_back_to_where_the_gateway_answers_and_it_is_asked_once(
    tmp_path, answers
):
    newest(tmp_path)
    machine = Asked(tmp_path)
    machine.soft.append("lro cannot be switched off")
    if not answers:
        machine.segment.answering = set()

    assert boot(machine).outcome == early.UP

    assert (cache.read_verified(tmp_path) is not None) == answers
    assert machine.spent == {GATEWAY: GATEWAY_S}


def test_an_address_that_never_came_is_not_what_to_go_back_to(tmp_path):
    newest(tmp_path, **LEASE)
    machine = Asked(tmp_path)

    assert boot(machine).outcome == early.DOWN

    assert cache.read_verified(tmp_path) is None


def test_what_was_undone_is_not_what_to_go_back_to_though_the_one_before_works(tmp_path):
    newest(tmp_path)
    machine = Refusing(tmp_path)
    machine.up()
    before = cache.read_verified(tmp_path)
    newest(tmp_path, other_config={"mtu": "9000"})

    boot(machine)

    assert cache.read_verified(tmp_path) == before


def test_a_rung_of_the_ladder_asks_nobody(tmp_path):
    machine = Asked(tmp_path)
    machine.segment.answering = set()
    request = bring.Request(bring.UP, pif="nic", management=True, boot=True)

    bring.bring(request, cache.Found(cache.Cached(records(), 0, verified=True)), machine.host())

    assert machine.spent == {}
