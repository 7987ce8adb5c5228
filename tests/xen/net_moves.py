"""Moves of the management interface, stopped at a place of their journal: killed there, or the power cut."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from typing import TYPE_CHECKING, Any

from nested_xen import machine, network
from nested_xen.errors import LabError
from nested_xen.machine import GATEWAY

from tests.xen.agent import WAIT
from tests.xen.net_look import Look, await_that, console, look, look_from_console
from tests.xen.net_operator import Net, await_start, opened, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nested_xen.host import Host

MANAGEMENT, SECOND = 0, 1
"""NICs of the machine: the second is plugged into the management segment for these tests."""
STEP = "net"
"""Hold points of a network change are `net:begun`, `net:step-N`, `net:applied`, `net:undoing`; of giving a card back
also `net:told`, once its daemon has been told to take it."""
NETLINK_VERBS = ("link-", "address-", "route-")
JOURNAL = "/var/lib/hostagent/net/journal"
BACK_S = 300
"""Longer than the deadline of any undo."""
LOGIN_S = 120
"""A first login starts the user's service manager (over 20 s on a slow machine); ssh gives up a host that is silent by
itself, far sooner."""


def adopt(host: Host) -> None:
    """The only configured NIC becomes a managed PIF on xenbr0, from the ssh session that it carries."""
    if "xenbr0" in look(host).links:
        return
    await_start(host)
    done = run(host, "hostagent", "net", "adopt", "--yes")
    assert done.code == 0, done.said
    assert_reachable(host)


def second_cable(host: Host, segment: str = "management") -> None:
    """Plug the second NIC into another segment."""
    network.move(host.lab, machine.tap_name(host.name, SECOND), segment)


def unplugged_second_cable(host: Host) -> None:
    second_cable(host, machine.DEFAULT_SEGMENTS[SECOND])


def reachable(host: Host, *, timeout_s: float = LOGIN_S) -> bool:
    """Does the host answer a new ssh connection at the address it had all the time?"""
    host.close_ssh()
    try:
        return host.exec("true", check=False, timeout_s=timeout_s).code == 0
    except LabError:  # nothing came back in time
        return False


def assert_reachable(host: Host, *, deadline_s: float = BACK_S) -> None:
    """It answers by itself, nobody has touched it."""
    end = time.monotonic() + deadline_s
    while not reachable(host):
        assert time.monotonic() < end, console(
            host, "ip address; ip route; hostagent net history", check=False
        )
        time.sleep(1)


def management_of(seen: Look, host: Host) -> str:
    """The device with the management address, which must be exactly one bridge with the default route."""
    address = f"{host.machine.address}/{machine.SUBNET.prefixlen}"
    holders = [name for name in seen.addressed if address in seen.addresses(name)]
    assert len(holders) == 1, f"{address} is on {holders}"
    assert seen.kind(holders[0]) == "bridge"
    assert seen.gateways() == [str(GATEWAY)]
    return holders[0]


def bonding_both(net: Net) -> str:
    """The command with which management goes into a bond of its own NIC and the second one, with the same address: the longest move."""
    members = ",".join(net.api.PIF.get_uuid(net.nic(number).pif) for number in (MANAGEMENT, SECOND))
    uuid = net.api.network.get_uuid(net.network("management bond"))
    words = (
        "hostagent-xe",
        "bond-create",
        f"network-uuid={uuid}",
        f"pif-uuids={members}",
        "mode=active-backup",
    )
    return shlex.join(words)


def begin_and_hold(host: Host, order: str, point: str) -> bool:
    """As `hold_at`, with the agent up and its start over."""
    await_start(host)
    return hold_at(host, order, point)


def hold_at(host: Host, order: str, point: str) -> bool:
    """Begin a move in a unit of its own and wait until it is held at the point; False when it ended without coming
    there. The console is used: the network is what is being moved.
    """
    script = f"""
{WAIT}
systemctl reset-failed network-move 2>/dev/null
rm -f /run/hostagent/held
echo {STEP}:{point} >/run/hostagent/hold
systemd-run --quiet --unit network-move --property=RemainAfterExit=no {order}
held_or_over() {{ [ -s /run/hostagent/held ] || ! [ -d /sys/fs/cgroup/system.slice/network-move.service ]; }}
until_true 180 held_or_over
cat /run/hostagent/held 2>/dev/null || echo 'not held'
"""
    said = console(host, script)
    held = f"{STEP}:{point} " in said
    if held:
        journal = json.loads(console(host, f"head -n 1 {JOURNAL}"))
        assert journal["state"] == ("applied" if point in ("applied", "told") else "begun")
    return held


def places_of(host: Host, order: str) -> list[str]:
    """Every place at which the journal lets this move be held: held once at its beginning, its plan is read from the
    journal, and the move is let go on and undone by hand.
    """
    assert begin_and_hold(host, order, "begun"), "the move is not held at its beginning"
    steps = json.loads(console(host, f"head -n 1 {JOURNAL}"))["steps"]
    kill(host)
    return places_in([do[0] for do, *_ in steps])


def places_in(verbs: Sequence[str]) -> list[str]:
    """Every place at which a plan of operations with these verbs can be held."""
    places, after = ["begun"], 0
    while after < len(verbs):
        after += 1
        if verbs[after - 1].startswith(NETLINK_VERBS):  # those that stand in a row go out together
            while after < len(verbs) and verbs[after].startswith(NETLINK_VERBS):
                after += 1
        places.append(f"step-{after}")
    return [*places, "applied"]


def kill(host: Host) -> None:
    """SIGKILL whoever is held, as its pid says, and forget the hold point."""
    console(
        host,
        "pid=$(cut -d' ' -f2 /run/hostagent/held); kill -9 $pid; rm -f /run/hostagent/hold /run/hostagent/held",
    )


def assert_whole(host: Host) -> None:
    """Reachable where it was, with nothing half done and nothing that waits to be undone."""
    assert_reachable(host)
    await_journal(host)
    seen = look_from_console(host)
    bridge = management_of(seen, host)
    inventory = host.exec(
        "sed -n \"s/^MANAGEMENT_INTERFACE='\\(.*\\)'/\\1/p\" /etc/hostagent/inventory"
    ).stdout
    assert inventory.strip() == bridge
    for name in seen.made():
        if seen.kind(name) == "bridge":
            assert len(seen.uplinks(name)) == 1, f"{name} is a bridge without its uplink"


def await_journal(host: Any) -> None:
    """Nothing waits to be undone or kept."""
    over = ("", "committed", "undone")
    await_that(lambda: _journal_state(host) in over, "the journal is over", deadline_s=BACK_S)


def _journal_state(host: Any) -> str:
    # behind the first line stands how far a change has come
    done = host.exec(f"head -n 1 {JOURNAL}", check=False)
    return str(json.loads(done.stdout)["state"]) if done.code == 0 else ""


def as_before(host: Host, before: Look) -> None:
    """The management network is what it was, by the kernel's own indexes."""
    assert_whole(host)
    seen, bridge = look(host), management_of(before, host)
    assert management_of(seen, host) == bridge
    assert seen.uplinks(bridge) == before.uplinks(bridge)
    assert seen.addresses(bridge) == before.addresses(bridge)
    assert seen.routes4 == before.routes4


def management_pif(net: Net) -> str:
    (ref,) = [ref for ref, record in net.api.PIF.get_all_records().items() if record["management"]]
    return str(ref)


@contextlib.contextmanager
def on_one_segment(host: Host) -> Iterator[None]:
    """The second NIC is on the management segment too; what bonds the two goes afterwards."""
    second_cable(host)
    yield
    assert_reachable(host)
    with opened(host) as net:
        for bond in net.api.Bond.get_all():
            net.api.Bond.destroy(bond)
        for ref, record in net.api.network.get_all_records().items():
            if record["name_label"].startswith(("management bond", "a bond")) and not record["PIFs"]:
                net.api.network.destroy(ref)
    unplugged_second_cable(host)
    assert management_of(look(host), host) == "xenbr0"


def at_the_console(host: Host, *words: str) -> tuple[int, str]:
    """A command typed at the console, to its end, whatever becomes of the network meanwhile: its exit code, and what it
    said itself.
    """
    said = console(host, f"{{ {' '.join(words)}; }} 2>&1; echo exit $?", check=False, deadline_s=BACK_S + 60)
    text, _, code = said.rpartition("exit ")
    return int(code), text
