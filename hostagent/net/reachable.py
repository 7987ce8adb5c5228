"""Whether a change of the management interface keeps the host reachable: asked before, and asked again after.

What answered before must answer after: the gateway of each family, if the interface is still to have one, which may be
another one; the pool's coordinator; and of the neighbours that talk with this host now (the operator's own session) at
least one. Where none of them is left to be asked (another subnet without a gateway), nothing shows that anybody reaches
the host: that is taken for lost, unless somebody is to confirm it. And the announcements and the probe for a duplicate
address that a new address needs (networking.md 5, rows 1, 40 and 41; RFC 5227).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.errors import HostagentError, KernelError
from hostagent.named import NamedTuple
from hostagent.net import inet
from hostagent.net.bonds import LACP
from hostagent.net.devices import SCOPE_LINK
from hostagent.net.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hostagent.net.devices import Kernel, Wanted
    from hostagent.net.management import Wire
    from hostagent.net.operation import Plan
    from hostagent.net.records import Pif

DEFAULTS = {4: "default4", 6: "default6"}
GATEWAY, PEER, COORDINATOR = "gateway", "peer", "coordinator"
PEERS = 3
"""Neighbours that are asked, at most."""
PROBE_S = 1.0
GATEWAY_S = 3.0
"""For the gateways of an interface together, where what they answer decides what to go back to."""
CONFLICT_S = 0.9
SETTLE_S = 30.0
"""For the answers after a change of addresses and routes alone."""
LONG_SETTLE_S = 75.0
"""Where a NIC goes down or comes up, a lease is wanted, or a bond needs a partner: a switch port with spanning tree
forwards 30 s (2 forward delays, IEEE 802.1D) after its link is up, which takes 3 s; a DHCP client asks in between with
growing pauses; a partner that speaks LACP slowly, each 30 s, is taken for a partner after the second time."""
"""802.3ad, include/uapi/linux/if_bonding.h."""
POLL_S = 0.5


class Baseline(NamedTuple):
    """What answered before the change; empty when nothing did, and nothing can be lost."""

    gateways: tuple[tuple[int, str], ...] = ()
    """Family and address."""
    peers: tuple[str, ...] = ()
    coordinator: str = ""
    through: tuple[int, ...] = ()
    """Families in which open connections come through the gateway: they need a default route afterwards."""

    def __bool__(self) -> bool:
        return bool(self.gateways or self.peers or self.coordinator)


class LostError(KernelError):
    """What answered before a change of the management interface does not after it: the change was undone."""

    code = "PIF_CONFIGURATION_ERROR"


class ConflictError(KernelError):
    """Another host has an address that this one is to get (row 40)."""

    code = "PIF_CONFIGURATION_ERROR"


def before(kernel: Kernel, device: str, wire: Wire) -> Baseline:
    """What answers now on the management interface."""
    index = _index(kernel, device)
    if not index:
        return Baseline()
    gateways = tuple(
        (family, gateway)
        for family, gateway in _gateways(kernel, index)
        if _answers(wire, kernel, device, gateway)
    )
    mine = {one.text: one.prefix for one in kernel.addresses if one.device == index}
    talking = [(own, other) for own, other in wire.talking() if own in mine and own != other]
    near = dict.fromkeys(other for own, other in talking if inet.contains(own, mine[own], other))
    far = {6 if ":" in other else 4 for _, other in talking if other not in near}
    through = tuple(
        family for family in DEFAULTS if family in far and any(of == family for of, _ in gateways)
    )
    routers = {gateway for _, gateway in gateways}
    peers = [
        other
        for other in [each for each in near if each not in routers][:PEERS]
        if _answers(wire, kernel, device, other)
    ]
    coordinator = wire.coordinator()
    if coordinator and not _connects(wire, coordinator):
        coordinator = ""
    return Baseline(gateways, tuple(peers), coordinator, through)


def settle_s(wanted: Wanted, plan: Plan, kernel: Kernel) -> float:
    """How long what answered before may take to answer after this plan."""
    cards = {link.name for link in kernel.links.values() if not link.kind}
    moved = any(
        step.do.verb == "link-set"
        and step.do.device in cards
        and not {"up", "master"}.isdisjoint(step.do.args)
        for step in plan.steps
    )
    lacp = any(one.settings.get("mode") == LACP for one in wanted.devices)
    return LONG_SETTLE_S if moved or lacp or wanted.leases else SETTLE_S


def await_again(
    baseline: Baseline,
    wanted: Wanted,
    device: str,
    wire: Wire,
    *,
    look: Callable[[], Kernel],
    wait: Callable[[float], None],
    clock: Callable[[], float],
    ref: str = "",
    confirmed: bool = False,
    settle_s: float = SETTLE_S,
) -> None:
    """Return when all that answered before answers again on `device`. Raises LostError when it does not in time.

    `confirmed`: somebody is to confirm the change, and none of it needs to be there to be asked.
    """
    until = clock() + settle_s
    while True:
        kernel = look()
        late = clock() >= until
        missing, answered = _missing(baseline, wanted, kernel, device, wire)
        cut = () if confirmed else _cut(baseline, kernel)
        fine = not missing and not cut
        fine = fine and (answered or confirmed or _given_up_answers(baseline, kernel, device, wire))
        if fine and (late or not _checking(kernel, device)):
            return
        if late:
            break
        wait(POLL_S)
    if cut and not missing:
        raise LostError(
            f"connections come through {' and '.join(cut)}, and after the change there is no default route",
            hint="give a gateway (gateway=); or interface-reconfigure --confirm, and confirm it",
            params=(ref, f"no default route any more, as through {' and '.join(cut)}"),
        )
    told = " and ".join(missing)
    if not missing:
        told = ", ".join((*(gateway for _, gateway in baseline.gateways), *baseline.peers))
        raise LostError(
            f"of what answered before the change ({told}) nothing can be asked on {device} after it:"
            " no gateway, and none of them is in its subnets",
            hint="look at address and netmask, give a gateway; or interface-reconfigure --confirm, and confirm it",
            params=(ref, f"nothing of {told} can be asked"),
        )
    raise LostError(
        f"{told} answered before the change, and not within {settle_s:g} s after it on {device}",
        hint="look at address, netmask, gateway, VLAN tag, bond mode and the switch's port",
        params=(ref, f"no answer of {told}"),
    )


def _missing(
    baseline: Baseline, wanted: Wanted, kernel: Kernel, device: str, wire: Wire
) -> tuple[list[str], bool]:
    """What does not answer, in words; and whether anything was asked that does."""
    missing, answered = [], False
    index = _index(kernel, device)
    now = _gateways(kernel, index)
    for family, former in baseline.gateways:
        if not _is_to_have_gateway(wanted, device, family):
            continue
        if any(of == family and _answers(wire, kernel, device, gateway) for of, gateway in now):
            answered = True
        else:
            wants = [route.gateway for route in wanted.routes
                     if route.device == device and route.destination == DEFAULTS[family]]  # fmt: skip
            missing.append(f"the gateway {wants[0] if wants else former}")
    if near := _near(baseline.peers, kernel, index):
        if any(_answers(wire, kernel, device, peer) for peer in near):
            answered = True
        else:
            missing.append(f"the neighbour {', '.join(near)}")
    if baseline.coordinator:
        if _connects(wire, baseline.coordinator):
            answered = True
        else:
            missing.append(f"the pool's coordinator {baseline.coordinator}")
    return missing, answered


def _cut(baseline: Baseline, kernel: Kernel) -> tuple[str, ...]:
    """Gateways that carry open connections of a family that has no default route any more, on whatever device."""
    left = {route.destination for route in kernel.routes}
    return tuple(
        gateway
        for family, gateway in baseline.gateways
        if family in baseline.through and DEFAULTS[family] not in left
    )


def _checking(kernel: Kernel, device: str) -> bool:
    """Whether an IPv6 address of the device is yet being checked: it cannot be listened on until it is done."""
    index = _index(kernel, device)
    return any(one.device == index and one.checking for one in kernel.addresses)


def _given_up_answers(baseline: Baseline, kernel: Kernel, device: str, wire: Wire) -> bool:
    """Whether a former gateway answers as a neighbour: the interface is to have none any more, and is where it was."""
    near = _near([gateway for _, gateway in baseline.gateways], kernel, _index(kernel, device))
    return any(_answers(wire, kernel, device, gateway) for gateway in near)


def _near(targets: Sequence[str], kernel: Kernel, index: int) -> list[str]:
    """Those in a subnet of the device."""
    subnets = [(one.text, one.prefix) for one in kernel.addresses if one.device == index]
    return [target for target in targets if any(inet.contains(*subnet, target) for subnet in subnets)]


def _is_to_have_gateway(wanted: Wanted, device: str, family: int) -> bool:
    """Whether a default route is to be there: a fixed one, a lease's, or a router's advertisement."""
    fixed = any(r.device == device and r.destination == DEFAULTS[family] for r in wanted.routes)
    leased = any(one.device == device and one.family == family and one.gateway for one in wanted.leases)
    routers = family == 6 and any(
        one.name == device and one.ipv6 in ("dhcp", "autoconf") and one.ipv6_gateway for one in wanted.devices
    )
    return fixed or leased or routers


def silent_gateway(pif: Pif, kernel: Kernel, device: str, wire: Wire) -> str:
    """A gateway of the interface on this device that does not answer: the one that its record fixes, else, in each
    family, all that a lease or routers gave. Empty where they answer, or there is none."""
    led = _gateways(kernel, _index(kernel, device))
    gateways = {family: [address for of, address in led if of == family] for family in DEFAULTS}
    if pif.ip_mode == "Static" and pif.gateway:
        gateways[4] = [pif.gateway]
    if pif.ipv6_mode == "Static" and pif.ipv6_gateway:
        gateways[6] = [pif.ipv6_gateway]
    seconds = GATEWAY_S / max(1, sum(map(len, gateways.values())))
    for some in gateways.values():
        if some and not any(_answers(wire, kernel, device, gateway, seconds) for gateway in some):
            return " and ".join(some)
    return ""


def narrow(pif: Pif, kernel: Kernel, device: str, wire: Wire) -> str:
    """That the way to the IPv4 gateway of the PIF on this device carries less than its MTU (row 19), in words; empty
    where it does not, or nothing answers: a switch may not forward yet."""
    index = _index(kernel, device)
    led = [address for of, address in _gateways(kernel, index) if of == 4]
    if pif.ip_mode == "Static" and pif.gateway:
        led = [pif.gateway]
    own = [one.text for one in kernel.addresses if one.device == index and ":" not in one.text]
    if not led or not own:
        return ""
    mtu = kernel.links[index].mtu
    try:
        carried = wire.path(led[0], mtu, own[0])
    except HostagentError:
        return ""
    if not 0 < carried < mtu:
        return ""
    return (
        f"the way to the gateway {led[0]} carries {carried} bytes, and the MTU of {device} is {mtu}: larger packets"
        " get no answer (hint: raise the MTU of the switch's ports, or lower the network's)"
    )


def conflicts(wanted: Wanted, kernel: Kernel, wire: Wire, *, carried: Callable[[str], str]) -> dict[str, str]:
    """Wanted addresses that the host does not have yet and another host has: address → its MAC.

    `carried`: the device on which a wanted device's frames can be seen now, empty for none. What cannot be asked is
    left out.
    """
    have = {address.text for address in kernel.addresses}
    found = {}
    for address in wanted.addresses:
        device = carried(address.device)
        if address.text in have or not device:
            continue
        try:
            mac = wire.holder(device, address.text, CONFLICT_S)
        except HostagentError:
            continue
        if mac:
            found[address.text] = mac
    return found


def told_of(address: str, mac: str) -> str:
    return f"another host, {mac}, has {address}"


def announce(wanted: Wanted, plan: Plan, wire: Wire) -> list[str]:
    """Tell the neighbours of every fixed address whose devices the plan has touched; what failed, in words."""
    touched = {ref for step in plan.steps for ref in step.serves}
    names = {device.name for device in wanted.devices if not touched.isdisjoint(device.serves)}
    by_device: dict[str, list[str]] = {}
    for address in wanted.addresses:
        if address.device in names:
            by_device.setdefault(address.device, []).append(address.text)
    troubles = []
    for device, addresses in by_device.items():
        try:
            wire.announce(device, addresses)
        except HostagentError as error:
            troubles.append(f"{', '.join(addresses)} not announced: {error.found}")
    return troubles


def _gateways(kernel: Kernel, index: int) -> list[tuple[int, str]]:
    families = {name: family for family, name in DEFAULTS.items()}
    return [
        (families[route.destination], route.gateway)
        for route in kernel.routes
        if index and route.device == index and route.destination in families and route.gateway
    ]


def _answers(wire: Wire, kernel: Kernel, device: str, target: str, seconds: float = PROBE_S) -> bool:
    index, six = _index(kernel, device), ":" in target
    own = [
        one for one in kernel.addresses if one.device == index and (":" in one.text) == six
    ]  # a router's link-local address is asked for from ours
    own.sort(key=lambda one: (one.scope >= SCOPE_LINK) != target.startswith("fe80:"))
    if not own:
        return False
    try:
        return wire.ask(Probe("gateway", target, device, source=own[0].text), seconds).answered
    except HostagentError:
        return False


def _connects(wire: Wire, address: str) -> bool:
    try:
        return wire.ask(Probe("tcp", address, port=443), PROBE_S).answered
    except HostagentError:
        return False


def _index(kernel: Kernel, name: str) -> int:
    return next((index for index, link in kernel.links.items() if link.name == name), 0)
