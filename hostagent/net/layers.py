"""The part of a plan that lies above the devices: addresses, routes, DHCP clients, resolv.conf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostagent.net.devices import UP, Wanted
from hostagent.net.draft import Draft
from hostagent.net.operation import Operation, Plan
from hostagent.net.resolv_conf import is_other, render
from hostagent.net.verify import (
    BY_ADVERTISEMENT,
    FOREVER,
    NO_PREFIX_ROUTE,
    Around,
    Layer3,
    family_of,
    metric_of,
)

if TYPE_CHECKING:
    from hostagent.net.devices import Address, Kernel, Lease, Link, WantedAddress


def addresses_on(draft: Draft, layer3: Layer3, wanted: Wanted) -> None:
    """Wanted addresses and routes that are missing, on the devices that exist and are up by now.

    Once more on devices whose client was told to stop: it takes its addresses along, and with the last the routes go.
    """
    for need in wanted.addresses:
        link = draft.link(need.device)
        if link is not None and link.flags & UP:
            draft.serves = layer3.serves(need.device)
            _address_on(draft, layer3, link, need)
    missing = []
    for route in wanted.routes:
        link = draft.link(route.device)
        if link is not None and link.flags & UP:
            metric = metric_of(route.destination, route.metric)
            mine = draft.routes.get(link.ifindex, ())
            doubtful = (link.ifindex, family_of(route.destination)) in draft.doubtful
            if doubtful or not any(
                layer3.is_it(have, route.destination, route.gateway, metric) for have in mine
            ):
                missing.append((link, route))
    near = draft.subnets({link.ifindex for link, _ in missing})
    for link, route in missing:
        if layer3.can_be(route.device, route.gateway, near.get(link.ifindex, ())):
            draft.serves = layer3.serves(route.device)
            draft.route_add(link, route.destination, route.gateway, route.metric)
    draft.doubtful = {(i, f) for i, f in draft.doubtful if i in draft.links and not draft.links[i].flags & UP}
    draft.serves = ()


def _address_on(draft: Draft, layer3: Layer3, link: Link, need: WantedAddress) -> None:
    family = family_of(need.text)
    mine = draft.addresses.get(link.ifindex, ())
    held = next((have for have in mine if (have.text, have.prefix) == (need.text, need.prefix)), None)
    if layer3.is_right(held) and (link.ifindex, family) not in draft.doubtful:
        return
    # what the kernel keeps of an address that it is told anew: in IPv6 its prefix, in IPv4 that it has no route
    other = next((have for have in mine if have.text == need.text and have.prefix != need.prefix), None)
    in_the_way = other if family == 6 else held if held is not None and held.flags & NO_PREFIX_ROUTE else None
    if in_the_way is not None:
        draft.address_del(link, in_the_way)
        draft.doubtful.add((link.ifindex, family))
    draft.address_add(link, need.text, need.prefix)


def routes_due(wanted: Wanted, kernel: Kernel) -> Plan:
    """The routes over gateways that a DHCP client or a router gave the way to, which can be by now and are not there.

    `plan` leaves out what cannot be yet. For who follows the kernel: to be carried out when a device with a lease got
    an address; there is nothing to journal, for they are wanted and disturb nobody.
    """
    layer3 = Layer3(wanted)
    routes = [route for route in wanted.routes if layer3.by_others(route.device, family_of(route.gateway))]
    if not routes:
        return Plan(())
    draft = Draft(kernel, None)
    addresses_on(draft, layer3, Wanted(routes=tuple(routes)))
    return Plan(tuple(draft.steps))


def as_planned(wanted: Wanted, planned: Plan, kernel: Kernel) -> Wanted:
    """What the plan could know of: without the routes that can be only now, because an address came meanwhile."""
    tried = [_of_route(step.do) for step in planned.steps if step.do.verb == "route-add"]
    due = [_of_route(step.do) for step in routes_due(wanted, kernel).steps]
    late = [route for route in due if route not in tried]
    if not late:
        return wanted
    routes = (
        route
        for route in wanted.routes
        if (route.device, route.destination, route.gateway, metric_of(route.destination, route.metric))
        not in late
    )
    return wanted._replace(routes=tuple(routes))


def _of_route(do: Operation) -> tuple[object, ...]:
    return do.device, do.args["destination"], do.args["gateway"], do.args["metric"]


def addresses_off(draft: Draft, layer3: Layer3, wanted: Wanted) -> None:
    """Stale routes and addresses of the devices that this is complete about.

    With a primary IPv4 address the kernel drops the others of its subnet, unless promote_secondaries is set: what is
    wanted there is asserted once more.
    """
    running = {(lease.device, lease.family) for lease in draft.around.leases} if draft.around else None
    for index in [index for index in {**draft.addresses, **draft.routes} if index in draft.links]:
        link = draft.links[index]
        if link.name not in layer3.devices:
            continue
        draft.serves = layer3.serves(link.name)
        if any(route.protocol == BY_ADVERTISEMENT for route in draft.routes.get(index, ())):
            draft.sysctl(layer3.devices[link.name], index)  # else the next advertisement brings it back
        for route in [r for r in draft.routes.get(index, ()) if layer3.route_is_stale(link.name, r)]:
            draft.route_del(link, route)
        stale = [
            address
            for address in draft.addresses.get(index, ())
            if layer3.address_is_stale(link.name, address)
            or _before_the_client(layer3, link.name, address, running)
        ]
        for address in reversed(stale):
            draft.address_del(link, address)
        if any(family_of(address.text) == 4 for address in stale):
            _assert_again(draft, link)
    draft.serves = ()


def _before_the_client(
    layer3: Layer3, name: str, address: Address, running: set[tuple[str, int]] | None
) -> bool:
    """Whether it is left from the time before a DHCP client that is now to start: the old static one. One with an end
    is of a lease: the client takes it over, or it ends, and till then the host is reached by it."""
    if address.valid_s != FOREVER:
        return False
    key = (name, family_of(address.text))
    wanted = (name, address.text, address.prefix) in layer3.addresses
    return running is not None and key in layer3.leases and key not in running and not wanted and key[1] == 4


def _assert_again(draft: Draft, link: Link) -> None:
    kept = [a for a in draft.addresses.get(link.ifindex, ()) if family_of(a.text) == 4]
    for address in kept:
        draft.again_address(link, address)
    for route in draft.routes.get(link.ifindex, ()) if kept else ():
        if family_of(route.destination) == 4:
            draft.again_route(link, route)


def around_off(draft: Draft, wanted: Wanted) -> None:
    """DHCP clients that are not to run. One that is to do something else stays with its address: it is told so, first
    who loses the gateway.
    """
    scope = {*wanted.gone, *(device.name for device in wanted.devices)}
    keeps = {(lease.device, lease.family): lease for lease in wanted.leases}
    running = draft.around.leases if draft.around is not None else ()
    for lease in sorted(running, key=lambda lease: not lease.gateway):
        if lease.device not in scope or lease in wanted.leases:
            continue
        draft.serves = ()
        if new := keeps.get((lease.device, lease.family)):
            draft.step(_lease("lease-start", draft, new), _lease("lease-start", draft, lease))
        else:
            draft.step(_lease("lease-stop", draft, lease), _lease("lease-start", draft, lease))
            draft.doubtful.add((draft.index.get(lease.device, 0), lease.family))


def around_on(draft: Draft, wanted: Wanted) -> None:
    around = draft.around or Around()
    running = {(lease.device, lease.family) for lease in around.leases}
    for lease in wanted.leases:
        if (lease.device, lease.family) not in running and lease.device in draft.index:
            draft.step(_lease("lease-start", draft, lease), _lease("lease-stop", draft, lease))


def _lease(verb: str, draft: Draft, lease: Lease) -> Operation:
    args: dict[str, Any] = lease._asdict()
    del args["device"]
    return Operation(verb, lease.device, draft.index.get(lease.device, 0), args)


def dns(draft: Draft, wanted: Wanted) -> None:
    around = draft.around or Around()
    if wanted.dns is None or not is_other(around.resolver, wanted.dns):
        return
    after = render(wanted.dns, around.resolver)
    draft.step(*_dns(around.resolver, after, wanted.dns_bridge))


def dns_left(draft: Draft) -> None:
    """First of all, so that it is undone last: when the bridge is there again, its name servers are, too."""
    for bridge, before, after in draft.around.resolver_left if draft.around is not None else ():
        draft.step(*_dns(before, after, bridge))


def _dns(before: str, after: str, bridge: str) -> tuple[Operation, Operation]:
    """Name servers of a bridge set, and set back."""
    on = {"bridge": bridge} if bridge else {}
    do = Operation("dns", "", 0, {"before": before, "after": after, **on})
    return do, do._replace(args={"before": after, "after": before, **on})
