"""The segments, addresses and NICs that tests of the network share, and what several of them ask of a host."""

from __future__ import annotations

from nested_xen import wire

from tests.xen.net_operator import DONE, STATIC, reconfigure, run

STORAGE, BOND_A, BOND_B = 1, 2, 3
ADDRESS, TESTER, ANOTHER = STATIC.format(11), STATIC.format(200), STATIC.format(12)
DEAD_ADDRESS = STATIC.format(1)
TAG = 5
JUMBO = 9000
JUMBO_PING = JUMBO - 28
LACP_S = 240


def agent(host, *words):
    """A command of ours that must succeed; its JSON."""
    answer = run(host, "hostagent", *words, "--json")
    assert answer.code == DONE, answer.said
    return answer.value


def uuid_of(net, pif):
    return net.api.PIF.get_uuid(pif)


def up(net, pif, *options):
    return reconfigure(net.host, "--pif-uuid", uuid_of(net, pif), *options, "up")


def pair(net):
    return net.nic(BOND_A), net.nic(BOND_B)


def addressed(net):
    """The NIC of the storage segment, which is given an address and is not brought up."""
    nic = net.nic(STORAGE)
    net.static(nic.pif, ADDRESS)
    return nic


def port_on(net, segment, name="test"):
    return wire.join(net.host.lab, segment, name)


def explained(net, pif):
    """What `hostagent pif explain` finds: its sentences with their evidence, and the commands it offers."""
    found = agent(net.host, "pif", "explain", uuid_of(net, pif))["reasons"]
    return [(each["found"], " ".join(each["evidence"]), each["command"]) for each in found]


def says(net, pif, *words):
    """Does one reason hold all of the words?"""
    return any(all(word in " ".join(reason) for word in words) for reason in explained(net, pif))
