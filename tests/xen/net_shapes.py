"""The segments, addresses and NICs that tests of the network share, and what several of them ask of a host."""

from __future__ import annotations

from nested_xen import wire

from tests.xen.net_look import await_that
from tests.xen.net_operator import DONE, RECONFIGURE, STATIC, reconfigure, run

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


def up_in_words(net, pif):
    """What `interface-reconfigure up` prints for people; it must succeed."""
    answer = run(net.host, RECONFIGURE, "--no-syslog", "--pif-uuid", uuid_of(net, pif), "up")
    assert answer.code == DONE, answer.said
    return answer.out


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


def reason_in(text, found):
    """The lines of one reason as explain prints them for people: its sentence, its evidence, the next command."""
    (reason,) = [part for part in text.split("\n\n") if part[2:].startswith(found)]  # behind its mark
    return reason.splitlines()


def now_on(net):
    """The host's clock, as `journalctl --since` has it."""
    return net.host.exec("date +@%s").stdout.strip()


def await_logged(net, since, *words):
    """A line of the agent's log since then holds all of the words."""
    command = f"journalctl -u hostagent -o cat --no-pager --since '{since}'"
    await_that(
        lambda: any(
            all(word in line for word in words) for line in net.host.exec(command).stdout.splitlines()
        ),
        f"the log has {' '.join(words)}",
    )
