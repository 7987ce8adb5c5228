# mypy: disable-error-code="union-attr,attr-defined,arg-type,index"
# each test knows which outcome it has
"""The step that raises the management interface, and HTTPS on it, on a kernel with the rules of a real one."""

from __future__ import annotations

import dataclasses

import pytest

from hostagent.api import certificate
from hostagent.errors import KernelError
from hostagent.net import cache
from hostagent.net.devices import Address, Kernel, Link
from hostagent.netctl import observed
from hostagent.startup import network, steps_net
from hostagent.startup.role import supporter_of
from hostagent.xen import inventory
from tests.pure.startup_management import STATIC, compared, links, on
from tests.pure.startup_network import Silence
from tests.pure.startup_tree import Hooks, context_of


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    """Hundreds of small files and rows, each made durable, take minutes on a busy disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)


# --- S23 ---


def test_the_management_interface_comes_up_as_the_database_has_it(adopted, nics):
    outcome = compared(adopted, steps_net.plan_management, steps_net.raise_management)

    assert links(nics)["eth0"].master == links(nics)["xenbr0"].ifindex
    assert on(nics, "xenbr0") == {"192.0.2.10/24"}
    assert "xenbr0, 192.0.2.10" in outcome.note
    assert cache.read_verified(network.folder(adopted.config)).records.bridge == "xenbr0"


def test_a_supporter_raises_it_from_the_cache(adopted, nics, paths):
    steps_net.raise_management(adopted)
    links_before = set(links(nics))
    nics.kernel._link_del(nics.kernel._by_name("xenbr0"))
    state = dataclasses.replace(adopted.host, database=None, network=None, role=supporter_of("192.0.2.99"))
    alone = context_of(paths, state)

    steps_net.raise_management(alone)

    assert set(links(nics)) == links_before
    assert on(nics, "xenbr0") == {"192.0.2.10/24"}


def test_where_it_does_not_come_up_the_last_verified_generation_does(adopted, nics):
    steps_net.raise_management(adopted)
    with adopted.host.database.write() as w:
        (ref,) = w.where("PIF", device="eth0")
        (other,) = w.where("PIF", device="eth1")
        w.update("PIF", other, {**STATIC})
        w.update("PIF", ref, {"ip_configuration_mode": "None", "IP": ""})
        w.update("network", w.get("PIF", other, "network"), {"bridge": "xenbr7"})
    adopted.host.inventory = inventory.update(
        adopted.config.paths.inventory, {"MANAGEMENT_INTERFACE": "xenbr7"}
    )
    nics.fails = {"xenbr7"}

    outcome = steps_net.raise_management(adopted)

    assert any("rung 2" in told for told in outcome.warnings)
    assert on(nics, "xenbr0") == {"192.0.2.10/24"}


def test_a_management_interface_that_stays_down_fails_the_step_and_is_told_on_the_console(
    adopted, nics, paths
):
    (paths.root / "dev").mkdir()
    nics.fails = {"xenbr0"}

    with pytest.raises(KernelError, match="did not come up"):
        steps_net.raise_management(adopted)

    assert "rung 1" in (paths.root / "dev/console").read_text()
    assert "xenbr0" not in links(nics)


# --- HTTPS ---


@pytest.fixture
def served(monkeypatch):
    """Sockets and certificate of listeners."""
    monkeypatch.setattr("hostagent.api.tcp.listening_tcp", lambda address, port, _root: f"{address}:{port}")
    monkeypatch.setattr(certificate, "server_context", lambda *_: None)


def test_https_listens_on_the_address_of_the_management_interface(stock, synced, served):
    synced.host.hooks = Hooks()

    outcome = steps_net.raise_management(synced)

    assert synced.host.hooks.api.listeners == {"management": "192.0.2.10:443"}
    assert "HTTPS on 192.0.2.10:443" in outcome.note


def test_without_an_address_nothing_listens(adopted, nics, served):
    adopted.host.hooks = Hooks()
    adopted.host.hooks.api.listeners["management"] = "192.0.2.99:443"

    assert network.serve(adopted.config, adopted.host, "xenbr0", "IPv4") == ""

    assert adopted.host.hooks.api.listeners == {}


class Waited(Silence):
    """A follower to whom something happens whenever it waits."""

    waits = 0

    def wait(self, _timeout_s):
        self.waits += 1
        return True


@pytest.mark.parametrize(
    ("flags", "found"), [(0xC0, ""), (0x88, ""), (0xC4, "2001:db8::7"), (0x80, "2001:db8::7")]
)
def test_an_ipv6_address_that_is_not_checked_is_no_management_address_yet(flags, found):
    link = Link(2, "xenbr0", "bridge", "52:54:00:00:00:01", 1500, 0, 0, 1, 0, carrier=True, operstate=6)
    kernel = Kernel({2: link}, (Address(2, "2001:db8::7", 64, flags),))

    assert observed.management_address(kernel, "xenbr0", "IPv6") == found


def test_an_ipv6_address_that_is_being_checked_is_waited_for_and_not_for_ever(synced, monkeypatch):
    link = Link(2, "xenbr0", "bridge", "52:54:00:00:00:01", 1500, 0, 0, 1, 0, carrier=True, operstate=6)
    checking = Kernel({2: link}, (Address(2, "2001:db8::7", 64, 0xC0),))
    looks = iter([checking, checking, checking._replace(addresses=(Address(2, "2001:db8::7", 64),))])
    follower = Waited()
    monkeypatch.setattr(network, "look", lambda _: next(looks, checking))
    monkeypatch.setattr(network, "open_follower", lambda: follower)

    assert network._address(synced.config, "xenbr0", "IPv6") == "2001:db8::7"
    assert (follower.waits, follower.closed) == (2, True)
    monkeypatch.setattr(network, "CHECKED_S", 0.0)
    assert network._address(synced.config, "xenbr0", "IPv6") == ""


def test_a_port_that_is_taken_is_a_warning(stock, synced, monkeypatch, served):
    def taken(*_):
        raise KernelError("port 443 is taken by nginx", hint="stop it")

    monkeypatch.setattr("hostagent.api.tcp.listening_tcp", taken)
    synced.host.hooks = Hooks()

    assert any("nginx" in told for told in steps_net.raise_management(synced).warnings)
