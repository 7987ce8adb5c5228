"""The part of a plan that lies above the devices: addresses, routes, DHCP clients, resolv.conf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostagent.net.operation import Operation
from hostagent.net.resolv_conf import is_other, render
from hostagent.net.verify import FOREVER, UP, Around, Layer3, family_of, metric_of

if TYPE_CHECKING:
    from hostagent.net.devices import Address, Lease, Link, Wanted
    from hostagent.net.draft import Draft


def addresses_on(draft: Draft, layer3: Layer3, wanted: Wanted) -> None:
    """Wanted addresses and routes that are missing, on the devices that exist and are up by now."""
    for need in wanted.addresses:
        link = draft.link(need.device)
        if link is not None and link.flags & UP:
            held = _held(draft, link, need.text, need.prefix)
            if held is None or held.valid_s != FOREVER:
                draft.serves = layer3.serves(need.device)
                draft.address_add(link, need.text, need.prefix)
    for route in wanted.routes:
        link = draft.link(route.device)
        if link is not None and link.flags & UP:
            metric = metric_of(route.destination, route.metric)
            mine = draft.routes.get(link.ifindex, ())
            if not any(layer3.is_it(have, route.destination, route.gateway, metric) for have in mine):
                draft.serves = layer3.serves(route.device)
                draft.route_add(link, route.destination, route.gateway, metric)
    draft.serves = ()


def _held(draft: Draft, link: Link, text: str, prefix: int) -> Address | None:
    mine = draft.addresses.get(link.ifindex, ())
    return next((have for have in mine if (have.text, have.prefix) == (text, prefix)), None)


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
    """Whether it is left from the time before a DHCP client that is now to start: the old static one."""
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
    """DHCP clients that are not to run, or not so."""
    scope = {*wanted.gone, *(device.name for device in wanted.devices)}
    for lease in draft.around.leases if draft.around is not None else ():
        if lease.device in scope and lease not in wanted.leases:
            draft.step(_lease("lease-stop", draft, lease), _lease("lease-start", draft, lease))


def around_on(draft: Draft, wanted: Wanted) -> None:
    around = draft.around or Around()
    for lease in wanted.leases:
        if lease not in around.leases and lease.device in draft.index:
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
    do = Operation("dns", "", 0, {"before": around.resolver, "after": after})
    draft.step(do, do._replace(args={"before": after, "after": around.resolver}))
