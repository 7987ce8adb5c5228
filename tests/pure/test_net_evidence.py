"""What is asked for an explanation, when it listens, and how large a packet passes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.errors import KernelError
from hostagent.net import evidence, path_mtu
from hostagent.net.evidence import Asking, ask_around
from hostagent.net.foreign_files import Owner
from hostagent.net.probe import Answer
from hostagent.net.reason import Evidence
from hostagent.net.sniff import Sniffed
from hostagent.net.sniff_frames import Lacpdu, LacpEnd, Neighbour
from tests.pure.net_host import kernel, records

SWITCH = "52:54:00:aa:aa:aa"


class Asked:
    """A host that answers; `listened` are the NICs of each time it listened."""

    def __init__(self):
        self.listened = []
        self.answers = True
        self.holders = {}
        self.heard = {}
        self.found_owners = ()
        self.carried = 0
        self.broken = False

    def asking(self):
        return Asking(
            gateway=lambda question, seconds: self._or_break(Answer(question, self.answers)),
            holder=lambda device, address, seconds: self._or_break(self.holders.get(address, "")),
            sniff=self._sniff,
            speed=lambda device: self._or_break({"eth0": 1000, "eth1": 100}.get(device, 0)),
            owners=lambda device: self._or_break(self.found_owners),
            tries=lambda bridge: self._or_break("3 discovers"),
            path=lambda target, most, source: self._or_break(self.carried),
            setting=lambda path: self._or_break("1" if path.endswith("-iptables") else ""),
        )

    def _or_break(self, value):
        if self.broken:
            raise KernelError("no", hint="")
        return value

    def _sniff(self, devices, seconds):
        self.listened.append(tuple(devices))
        return self._or_break(self.heard)


@pytest.fixture
def host():
    return Asked()


def around(host, ref="master", look=None, known=None, **options):
    known = known or records()
    return ask_around(Evidence(), known, look or kernel(), known.pifs[ref], host.asking(), **options)


def test_the_gateway_of_a_pif_is_asked_also_where_another_pif_has_the_default_route(host):
    known, look = records(), kernel()
    pif = known.pifs["master"]._replace(ip_mode="Static", gateway="192.0.2.77")
    host.answers = False

    found = around(
        host, look=look._replace(routes=()), known=known._replace(pifs={**known.pifs, "master": pif})
    )

    assert found.gateways == {"192.0.2.77": False}
    assert host.listened != []


def test_a_pif_whose_gateway_answers_is_not_listened_for(host):
    found = around(host)

    assert found.gateways == {"192.0.2.1": True}
    assert found.speeds == {"eth0": 1000, "eth1": 100}
    assert found.settings == {"net/bridge/bridge-nf-call-iptables": "1"}
    assert host.listened == []


@pytest.mark.parametrize(
    ("change", "listened"),
    [
        ({"look": kernel(eth1={"carrier": False})}, [("eth0",)]),
        ({"look": kernel()._replace(routes=(), addresses=())}, [("eth0", "eth1")]),
        ({"ref": "upper"}, [("eth0", "eth1")]),
        ({"ref": "nic2"}, []),  # down: nothing can be heard
        ({"listen": True}, [("eth0", "eth1")]),
        ({"look": kernel(eth1={"carrier": False}), "listen": False}, []),
    ],
)
def test_it_listens_where_nothing_shows_that_the_pif_works(host, change, listened):
    around(host, **change)

    assert host.listened == listened


def test_a_lease_shows_that_it_works_and_no_lease_is_told_with_the_tries(host):
    known = records(ip_mode="DHCP", ip="", netmask="", gateway="", dns="")

    assert around(host, known=known, look=kernel()._replace(routes=())).dhcp == {"xapi1": "3 discovers"}
    assert host.listened == []
    around(host, known=known, look=kernel()._replace(addresses=(), routes=()))
    assert host.listened == [("eth0", "eth1")]


def test_a_lease_whose_gateway_is_silent_shows_nothing(host):
    host.answers = False

    around(host, known=records(ip_mode="DHCP", ip="", netmask="", gateway="", dns=""))

    assert host.listened == [("eth0", "eth1")]


def test_the_tries_of_a_client_for_ipv6_alone_are_told(host):
    known = records(ipv6_mode="DHCP")

    assert around(host, known=known).dhcp == {"xapi1": "3 discovers"}


def test_what_was_heard_is_put_into_words(host):
    actor = LacpEnd(SWITCH, 1, 7, 1, 1, 0x3D)
    host.answers = False
    host.heard = {
        "eth0": Sniffed(9, 3, {0: 1, 10: 4, 20: 2}, (Lacpdu(actor, actor),)),
        "eth1": Sniffed(neighbours=(Neighbour(SWITCH, "7", 120, system_name="sw-1", untagged_vlan=30),)),
    }

    found = around(host)

    assert found.lacpdus == {"eth0": SWITCH}
    assert found.tags == {"eth0": (10, 20)}
    assert found.lldp == {"eth1": "sw-1 port 7, untagged VLAN 30"}


def test_an_address_of_another_host_is_found(host):
    host.holders["192.0.2.10"] = SWITCH

    assert around(host).conflicts == {"192.0.2.10": SWITCH}


@pytest.mark.parametrize(("carried", "told"), [(1472, {"192.0.2.1": 1472}), (1500, {}), (0, {})])
def test_a_narrow_path_is_found(host, carried, told):
    host.carried = carried

    assert around(host).paths == told


def test_a_silent_gateway_has_no_path(host):
    host.answers, host.carried = False, 1472

    assert around(host).paths == {}


def test_another_daemon_is_named_where_the_nic_is_not_in_a_device_of_ours(host):
    host.found_owners = (
        Owner("ifupdown", "eth2", files=("/etc/network/interfaces",), disable="ifdown eth2"),
    )

    found = around(host, "nic2")

    assert found.foreign == {"eth2": "ifupdown (/etc/network/interfaces)"}
    assert found.keep_off == {"eth2": "ifdown eth2"}
    assert around(host).foreign == {}


def test_what_cannot_be_asked_keeps_nobody_from_the_rest(host):
    host.broken = True

    found = around(host, listen=True)

    assert found == Evidence()


# the path


def test_sizes_come_down_from_the_largest():
    assert path_mtu.sizes(1500)[:3] == (1500, 1492, 1472)
    assert path_mtu.sizes(9000)[0] == 9000
    assert path_mtu.sizes(500) == (500,)


@given(st.integers(0, 0xFFFF), st.integers(path_mtu.HEADERS_BYTES, 0xFFFF))
def test_an_echo_has_its_size_and_a_right_checksum_and_its_reply_is_known(identity, size):
    sent = path_mtu.echo(identity, size)

    assert len(sent) == size - 20
    words = sum(struct.unpack(f"!{(len(sent) + 1) // 2}H", sent + bytes(len(sent) % 2)))
    while words > 0xFFFF:
        words = (words & 0xFFFF) + (words >> 16)
    assert words == 0xFFFF
    header = bytes([0x45]) + bytes(19)
    assert path_mtu.answered(header + bytes([0]) + sent[1:], identity) == size
    assert path_mtu.answered(header + sent, identity) == 0  # a request, e.g. our own to ourselves
    assert path_mtu.answered(header + bytes([0]) + sent[1:], identity ^ 1) == 0


@given(st.binary(max_size=80), st.integers(0, 0xFFFF))
def test_any_packet_is_an_answer_or_none(packet, identity):
    assert 0 <= path_mtu.answered(packet, identity) <= 0xFFFF


def test_the_host_itself_is_read_below_its_root(tmp_path):
    folder = tmp_path / "proc/sys/net/bridge"
    folder.mkdir(parents=True)
    (folder / "bridge-nf-call-iptables").write_text("1\n")
    asking = evidence.of_host(tmp_path)

    assert asking.setting("net/bridge/bridge-nf-call-iptables") == "1"
    assert asking.setting("net/bridge/bridge-nf-call-arptables") == ""
    assert asking.owners("eth0") == ()
