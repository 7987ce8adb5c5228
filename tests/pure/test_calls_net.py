# mypy: disable-error-code="union-attr,index,arg-type,call-overload"
# each test knows what a call answers
"""`hostagent.net_reconfigure` and `hostagent.net_records`: refusals first, then the change on a kernel with rules."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from hostagent.api import calls_adopt, calls_net
from hostagent.api.jsonrpc import INVALID_PARAMS, Fault
from hostagent.api.methods import Dispatcher
from hostagent.api.service import Service
from hostagent.config import Paths
from hostagent.lifecycle import Lifecycle
from hostagent.net import cache, journal
from hostagent.net.bring import Request
from hostagent.netctl.control import Control
from hostagent.netctl.plug import Network, Site
from tests.pure.netctl_host import NICS, opened
from tests.pure.startup_network import FakeHost


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


class Daemon:
    """Our own calls over a database, and a kernel on which nothing is up yet."""

    def __init__(self, site, root):
        self.site, self.root, self.host = site, root, FakeHost()
        for number, nic in enumerate(NICS):
            self.host.kernel.nic(nic.name, number + 2)
            it = self.host.kernel.links[number + 2]
            it.mac = it.permanent_mac = nic.mac
        self.management = ("xenbr0", "IPv4")
        effect = Network(
            Site(
                open=lambda _: self.host.open(root),
                owners=lambda _: (),
                management=lambda: self.management,
                set_management=lambda bridge, family, _: setattr(self, "management", (bridge, family)),
                serve=lambda *_: None,
                nics=lambda: NICS,
                has_bridge=lambda name: name in self.host.look().by_name(),
                ask=self.host.ask,
            )
        )
        site.core.network = Control(site.db, "host-uuid", effect)
        self.lifecycle = Lifecycle()
        self.lifecycle.became_ready()
        service = Service(Paths(run=root, root=root, state=root), self.lifecycle, 0.0, print, print)
        self.methods = Dispatcher(calls_net.calls(site.core), service)

    def ask(self, action, pif="", **more):
        given = Request(action, pif, **more)._asdict()
        return self.methods.call("hostagent.net_reconfigure", [given])

    def attached(self, pif):
        return self.site.record("PIF", pif)["currently_attached"]

    def names(self):
        return set(self.host.look().by_name())


@pytest.fixture
def daemon(tmp_path):
    (tmp_path / "db").mkdir()
    with opened(tmp_path / "db") as site:
        yield Daemon(site, tmp_path)


def test_up_and_down_change_kernel_and_database_and_tell_each_operation(daemon):
    eth1 = daemon.site.pifs[1]
    result = daemon.ask("up", eth1)
    assert (result["outcome"], result["error"], result["source"]) == ("changed", None, "database")
    assert next(op["verb"] for op in result["operations"]) == "link-add"
    assert all(op["milliseconds"] is not None for op in result["operations"])
    assert daemon.attached(eth1)
    assert "xenbr1" in daemon.names()
    assert daemon.ask("up", eth1)["outcome"] == "unchanged"
    assert daemon.ask("down", eth1)["outcome"] == "changed"
    assert not daemon.attached(eth1)
    assert "xenbr1" not in daemon.names()


def test_what_the_calls_refuse_is_refused_with_their_codes_and_nothing_is_touched(daemon):
    eth0, eth1, eth2 = daemon.site.pifs[:3]
    daemon.site.set("PIF", eth1, disallow_unplug=True)
    daemon.site.bond(eth2, daemon.site.pifs[3])
    before = daemon.site.everything()
    answers = [
        daemon.ask("down", eth0),
        daemon.ask("down", eth1),
        daemon.ask("up", eth2),
        daemon.ask("up", "x"),
    ]
    assert [(one["error"]["code"], one["error"]["params"][0]) for one in answers] == [
        ("PIF_IS_MANAGEMENT_INTERFACE", eth0),
        ("PIF_DOES_NOT_ALLOW_UNPLUG", eth1),
        ("CANNOT_PLUG_BOND_SLAVE", eth2),
        ("HANDLE_INVALID", "PIF"),
    ]
    assert (daemon.site.everything(), daemon.host.done) == (before, [])


def test_another_hosts_pif_is_none_of_ours(daemon):
    _, far = daemon.site.other_host()
    assert daemon.ask("up", far)["error"]["code"] == "HANDLE_INVALID"


def test_plan_and_check_touch_nothing(daemon):
    eth1 = daemon.site.pifs[1]
    planned, checked = daemon.ask("up", eth1, mode="plan"), daemon.ask("up", eth1, mode="check")
    assert (planned["outcome"], checked["outcome"]) == ("planned", "differs")
    assert planned["operations"]
    assert checked["differences"]
    assert (daemon.host.done, daemon.attached(eth1)) == ([], False)


def test_what_fails_is_undone_and_told_with_its_error(daemon):
    eth1 = daemon.site.pifs[1]
    daemon.host.fails.add("eth1")
    result = daemon.ask("up", eth1)
    assert (result["outcome"], result["error"]["code"]) == ("rolled-back", "PIF_CONFIGURATION_ERROR")
    assert not daemon.attached(eth1)
    assert "xenbr1" not in daemon.names()


def test_one_that_waits_for_its_confirmation_is_not_committed_and_its_timer_runs(daemon):
    result = daemon.ask("up", daemon.site.pifs[1], confirm=True, timeout_s=30.0)
    assert result["outcome"] == "waiting"
    assert (daemon.host.armed, daemon.host.disarmed) == (1, 0)
    left = journal.pending(daemon.root / cache.FOLDER)
    daemon.host.waits = True
    assert (left.state, left.digest) == (journal.WAITING, "")
    assert daemon.ask("up", daemon.site.pifs[2])["error"]["code"] == "OTHER_OPERATION_IN_PROGRESS"


def test_the_management_interface_moves_with_inventory_and_records(daemon):
    eth1 = daemon.site.pifs[1]
    static = {"ip_configuration_mode": "Static", "IP": "198.51.100.7", "netmask": "255.255.255.0"}
    daemon.site.set("PIF", eth1, **static, primary_address_type="IPv4")
    assert "error" in daemon.ask("up", eth1, management=True, confirm=True)
    assert daemon.management == ("xenbr0", "IPv4")
    assert daemon.ask("up", eth1, management=True)["error"] is None
    assert daemon.management == ("xenbr1", "IPv4")
    assert daemon.site.record("PIF", eth1)["management"] is True


def test_without_carrier_it_is_degraded(daemon):
    daemon.host.kernel.links[3].carrier = False
    result = daemon.ask("up", daemon.site.pifs[1])
    assert result["outcome"] == "degraded"
    assert "no carrier on eth1" in result["told"][-1]


def test_rewrite_makes_the_cache_and_records_are_its_text(daemon):
    first, second = daemon.ask("rewrite"), daemon.ask("rewrite")
    assert (first["outcome"], second["outcome"]) == ("changed", "unchanged")
    told = cache.decode(daemon.methods.call("hostagent.net_records", []).encode())
    kept = cache.read(daemon.root / cache.FOLDER).cached
    assert (told.generation, cache.digest(told.records)) == (kept.generation, cache.digest(kept.records))
    assert told.records.pifs[daemon.site.pifs[0]].currently_attached


def test_before_the_network_is_there_the_caller_is_sent_to_the_cached_copy(daemon):
    daemon.site.core.network = None
    told = daemon.ask("up", "x")["error"]
    assert (told["code"], list(told["params"])) == ("HOST_STILL_BOOTING", [])
    assert "cached records" in told["hint"]
    assert daemon.methods.call("hostagent.net_records", [])["error"]["code"] == "HOST_STILL_BOOTING"


@pytest.mark.parametrize("call", ["hostagent.net_adopt", "hostagent.net_release"])
def test_a_card_cannot_be_taken_over_by_a_daemon_without_a_network(daemon, call):
    methods = Dispatcher(calls_adopt.calls(daemon.site.core), daemon.methods._service)
    daemon.site.core.network = None
    told = methods.call(call, ["eth0", "plan", 30.0])["error"]
    assert (told["code"], list(told["params"])) == ("HOST_STILL_BOOTING", [])
    assert "`hostagent status`" in told["hint"]


@pytest.mark.parametrize(("call", "work"), [("adopt", "adopt.take"), ("release", "adopt_back.release")])
def test_a_card_is_taken_over_and_given_back_in_the_turn_of_the_daemon(daemon, monkeypatch, call, work):
    control = daemon.site.core.network
    had_it = threading.Event()

    def other():
        with control.turn():
            had_it.set()

    thread = threading.Thread(target=other)

    def working(_place, _request):
        thread.start()
        return {"waits": not had_it.wait(0.05)}

    monkeypatch.setattr(f"hostagent.netctl.{work}", working)
    methods = Dispatcher(calls_adopt.calls(daemon.site.core), daemon.methods._service)

    assert methods.call(f"hostagent.net_{call}", ["eth0", "do", 30.0]) == {"waits": True}
    thread.join()


def test_while_start_up_runs_the_caller_is_told_to_wait(daemon):
    starting = dataclasses.replace(daemon.methods._service, lifecycle=Lifecycle())
    methods = Dispatcher(calls_net.calls(daemon.site.core), starting)
    assert "--watch" in methods.call("hostagent.net_records", [])["error"]["hint"]


@pytest.mark.parametrize(
    "given",
    [
        "up", {}, {"action": "sideways"}, {"action": "up", "nic": "eth0"}, {"action": "up", "mode": "maybe"},
        {"action": "up", "timeout_s": 0}, {"action": "up", "timeout_s": True}, {"action": "up", "pif": 5},
        {"action": "up", "confirm": "yes"}, {"action": ["up"]}, {"action": "up", "boot": True},
    ],
)  # fmt: skip
def test_what_is_no_request_is_named(daemon, given):
    with pytest.raises(Fault) as caught:
        daemon.methods.call("hostagent.net_reconfigure", [given])
    assert caught.value.number == INVALID_PARAMS


# --- as careful as without a daemon ---


def readdress(daemon, number, **more):
    static = {"ip_configuration_mode": "Static", "IP": f"192.0.2.{number}0", "netmask": "255.255.255.0"}
    daemon.site.set("PIF", daemon.site.pifs[number], **static, primary_address_type="IPv4", **more)
    return daemon.site.pifs[number]


def test_an_address_of_another_host_is_not_taken(daemon):
    eth1 = readdress(daemon, 1)
    daemon.host.held["192.0.2.10"] = "52:54:00:aa:aa:aa"
    result = daemon.ask("up", eth1)
    assert (result["outcome"], result["error"]["code"]) == ("rolled-back", "PIF_CONFIGURATION_ERROR")
    assert "another host, 52:54:00:aa:aa:aa, has 192.0.2.10" in result["error"]["found"]
    assert "xenbr1" not in daemon.names()
    assert not daemon.attached(eth1)


def test_a_new_address_is_asked_for_and_announced_once(daemon):
    result = daemon.ask("up", readdress(daemon, 1))
    assert result["outcome"] == "changed"
    assert daemon.host.asked_for == [("xenbr1", "192.0.2.10")]
    assert daemon.host.announced == [("xenbr1", ("192.0.2.10",))]


def test_what_comes_late_is_waited_for_before_the_address_is_asked_for(daemon):
    eth1 = readdress(daemon, 1)
    link, waited = daemon.host.kernel.links[3], daemon.host.wait
    link.carrier = False

    def wait(seconds):
        waited(seconds)
        link.carrier = daemon.host.now > 3

    daemon.host.wait = wait
    assert daemon.ask("up", eth1)["outcome"] == "changed"
    assert daemon.host.announced == [("xenbr1", ("192.0.2.10",))]


def test_the_former_management_interface_loses_its_address_in_the_same_subnet(daemon):
    eth0 = daemon.site.pifs[0]
    daemon.ask("up", eth0)
    result = daemon.ask("up", readdress(daemon, 1), management=True)
    assert result["error"] is None
    assert any("loses 192.0.2.7 (hint: --keep-old" in told for told in result["told"])
    record = daemon.site.record("PIF", eth0)
    assert (record["ip_configuration_mode"], record["IP"]) == ("None", "")
    assert {one.text for one in daemon.host.look().addresses} == {"192.0.2.10"}


def test_keep_old_keeps_it(daemon):
    daemon.ask("up", daemon.site.pifs[0])
    daemon.ask("up", readdress(daemon, 1), management=True, keep_old=True)
    assert {one.text for one in daemon.host.look().addresses} == {"192.0.2.7", "192.0.2.10"}


def test_management_that_works_is_the_generation_to_go_back_to(daemon):
    assert daemon.ask("up", daemon.site.pifs[0])["outcome"] == "changed"
    verified = cache.read_verified(daemon.root / cache.FOLDER)
    assert verified is not None
    assert verified.records.bridge == "xenbr0"


def verified_records(daemon):
    return cache.read_verified(daemon.root / cache.FOLDER).records


def test_management_changed_by_calls_and_still_reached_is_the_generation_to_go_back_to(daemon):
    eth0 = daemon.site.pifs[0]
    daemon.ask("up", eth0)
    daemon.site.call("PIF.reconfigure_ip", eth0, "Static", "192.0.2.8", "255.255.255.0", "192.0.2.1", "")
    found = verified_records(daemon)
    assert (found.pifs[eth0].ip, found.bridge) == ("192.0.2.8", "xenbr0")
    eth1 = readdress(daemon, 1, gateway="192.0.2.1")
    daemon.site.call("host.management_reconfigure", eth1)
    found = verified_records(daemon)
    assert (found.bridge, [ref for ref, pif in found.pifs.items() if pif.management]) == ("xenbr1", [eth1])


def test_what_nobody_answered_before_is_not_the_generation_to_go_back_to(daemon):
    eth0 = daemon.site.pifs[0]
    daemon.ask("up", eth0)
    daemon.host.answers = False
    daemon.site.call("PIF.reconfigure_ip", eth0, "Static", "192.0.2.8", "255.255.255.0", "192.0.2.1", "")
    assert verified_records(daemon).pifs[eth0].ip == "192.0.2.7"
