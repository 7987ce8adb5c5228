"""The network as its operators drive it: hostagent-xe, XenAPI over the tunnel, interface-reconfigure, `hostagent net`."""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import XenAPI

from tests.xen.agent import WAIT, start
from tests.xen.net_look import look
from tests.xen.xenapi import tunnel

if TYPE_CHECKING:
    from collections.abc import Iterator

DONE, FAILED, USAGE, UNDONE, DEGRADED = range(5)
"""Exit codes of interface-reconfigure (networking.md 7.10)."""
STATIC = "198.51.100.{}"
NETMASK, PREFIX = "255.255.255.0", 24
RECONFIGURE = "interface-reconfigure"
CHANGE_S = 300


@dataclass(frozen=True)
class Answer:
    """What a program said and how it ended."""

    code: int
    out: str
    error: str

    @property
    def value(self) -> Any:
        return json.loads(self.out)

    @property
    def said(self) -> str:
        return self.out + self.error


def run(host: Any, *words: str, timeout_s: float = CHANGE_S) -> Answer:
    done = host.exec(shlex.join(words), check=False, timeout_s=timeout_s)
    return Answer(done.code, done.stdout, done.stderr)


def xe(host: Any, *words: str) -> str:
    """An operator's `xe`; what it printed. It must succeed."""
    answer = run(host, "hostagent-xe", *words)
    assert answer.code == 0, answer.said
    return answer.out.strip()


def reconfigure(host: Any, *words: str) -> Answer:
    return run(host, RECONFIGURE, "--no-syslog", "--json", *words)


def checked(host: Any) -> Answer:
    """`hostagent net check`: the product's own comparison; tests never rest on it alone."""
    return run(host, "hostagent", "net", "check", "--json")


@dataclass(frozen=True)
class Nic:
    """A NIC of the machine with its PIF. `number` is its place in the machine."""

    number: int
    name: str
    mac: str
    pif: str
    uuid: str
    network: str
    bridge: str


@dataclass(frozen=True)
class Net:
    """A host's network through a session; what a test made goes with `clean`."""

    host: Any
    api: Any

    @property
    def me(self) -> str:
        (ref,) = self.api.host.get_all()
        return str(ref)

    def nic(self, number: int) -> Nic:
        mac = self.host.machine.nics[number].mac
        found = [
            (ref, record)
            for ref, record in self.api.PIF.get_all_records().items()
            if record["physical"] and record["MAC"] == mac
        ]
        assert len(found) == 1, f"PIFs of NIC {number} ({mac}): {found}"
        ((ref, record),) = found
        bridge = self.api.network.get_bridge(record["network"])
        return Nic(number, record["device"], mac, ref, record["uuid"], record["network"], bridge)

    def network(self, label: str, mtu: int = 1500, **other_config: str) -> str:
        record = {
            "name_label": label,
            "name_description": "",
            "MTU": str(mtu),
            "other_config": {"made-by": "test", **other_config},
            "bridge": "",
            "managed": True,
            "tags": [],
        }
        return str(self.api.network.create(record))

    def bridge(self, pif: str) -> str:
        return str(self.api.network.get_bridge(self.api.PIF.get_network(pif)))

    def vlan(self, tagged: str, tag: int, *, mtu: int = 1500) -> str:
        """A VLAN on a PIF with a network of its own; its upper PIF."""
        vlan = self.api.VLAN.create(tagged, str(tag), self.network(f"tag {tag}", mtu))
        return str(self.api.VLAN.get_untagged_PIF(vlan))

    def bond(self, members: list[str], mode: str, *, mtu: int = 1500, **properties: str) -> tuple[str, str]:
        """A bond; it and its master PIF."""
        bond = self.api.Bond.create(self.network(f"a bond, {mode}", mtu), members, "", mode, properties)
        return str(bond), str(self.api.Bond.get_master(bond))

    def static(self, pif: str, address: str, *, gateway: str = "", dns: str = "") -> None:
        self.api.PIF.reconfigure_ip(pif, "Static", address, NETMASK, gateway, dns)

    def no_address(self, pif: str) -> None:
        self.api.PIF.reconfigure_ip(pif, "None", "", "", "", "")

    def record(self, pif: str) -> Any:
        return self.api.PIF.get_record(pif)

    def attached(self, pif: str) -> bool:
        return bool(self.api.PIF.get_currently_attached(pif))

    def clean(self) -> None:
        """Everything but the management interface as on a host that was just scanned."""
        for ref, record in self.api.VLAN.get_all_records().items():
            if not self.api.PIF.get_management(record["untagged_PIF"]):
                self.api.VLAN.destroy(ref)
        for ref, record in self.api.Bond.get_all_records().items():
            if not self.api.PIF.get_management(record["master"]):
                self.api.Bond.destroy(ref)
        for ref, record in self.api.PIF.get_all_records().items():
            if record["management"] or record["bond_slave_of"] != "OpaqueRef:NULL":
                continue
            for key in record["other_config"]:
                self.api.PIF.remove_from_other_config(ref, key)
            if record["ip_configuration_mode"] != "None":
                self.no_address(ref)
            if record["ipv6_configuration_mode"] != "None":
                self.api.PIF.reconfigure_ipv6(ref, "None", "", "", "")
            if self.api.network.get_MTU(record["network"]) != "1500":
                self.api.network.set_MTU(record["network"], "1500")
            if record["currently_attached"]:
                self.api.PIF.unplug(ref)
        for ref, record in self.api.network.get_all_records().items():
            if record["other_config"].get("made-by") == "test" and not record["PIFs"]:
                self.api.network.destroy(ref)


def await_start(host: Any) -> None:
    """The agent is up, and its start-up is over; one that systemd is starting again counts as not yet up."""
    ready = f"""
{WAIT}
is_over() {{ hostagent status --json 2>/dev/null | jq -e '.boot_result != null' >/dev/null; }}
state=$(systemctl is-active hostagent)
[ "$state" = active ] || [ "$state" = activating ] && until_true 180 is_over
"""
    if host.exec(ready, check=False, timeout_s=CHANGE_S).code != 0:
        began = start(host)
        assert began.report["ending"] == "complete", began.troubles


@contextlib.contextmanager
def opened(host: Any) -> Iterator[Net]:
    """The host's network over its Unix socket; the agent is up, and every NIC has its PIF."""
    await_start(host)
    with tunnel(host) as made, made.session() as session:
        net = Net(host, session.xenapi)
        net.api.PIF.scan(net.me)
        yield net


def clean(host: Any) -> None:
    """Everything away, in the records and in the kernel, but the management interface."""
    with opened(host) as net:
        net.clean()
        pifs = net.api.PIF.get_all_records().items()
        kept = {net.bridge(ref) for ref, record in pifs if record["management"]}
        assert look(host).made() <= kept


def refusal(call: Any, *parameters: Any) -> list[str]:
    """Code and parameters with which a call is refused."""
    with pytest.raises(XenAPI.Failure) as caught:
        call(*parameters)
    return list(caught.value.details)
