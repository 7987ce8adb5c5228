"""A card that another network daemon configures becomes a PIF of ours with the same addresses, and back. Pure.

Its address is moved, not made anew: the new bridge has it, and the route, before the card loses them, so that
connections over it go on. A DHCP address is moved as it is, with the time that is left of its lease; then our client
asks the server for just that address, by the name that the server knows this host by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostagent.named import NamedTuple
from hostagent.net.adopt_files import (
    CLOUD_INIT,
    DAEMONS,
    LET_GO_FIRST,
    CannotAdoptError,
    file_back,
    file_step,
    file_to,
)
from hostagent.net.devices import (
    GROUP,
    PROTOCOL,
    SCOPE_LINK,
    Device,
    Lease,
    Wanted,
    WantedAddress,
    WantedRoute,
)
from hostagent.net.operation import Operation, Plan, Step
from hostagent.net.restore import address_add
from hostagent.net.verify import FOREVER, family_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hostagent.net.adopt_files import Change
    from hostagent.net.devices import Address, Kernel, Link
    from hostagent.net.foreign_files import Owner
    from hostagent.net.records import Records

BY_KERNEL, BY_ADVERTISEMENT, BY_DHCP = 2, 9, 16
METRIC = 1024
"""Of the route that our DHCP client makes, too (`dhcp.METRIC`): that then is the one that was moved."""
NO_PROBE = 0x02  # IFA_F_NODAD: nobody else has it, this host has it on the card
LOOPBACK = 0x08  # IFF_LOOPBACK
MANAGED_PREFIX = 0x100 | 0x200  # IFA_F_MANAGETEMPADDR, IFA_F_NOPREFIXROUTE: of whoever put it there
DYNAMIC = ("DHCP", "Autoconf")
DEFAULTS = ("default4", "default6")
OFF = ("address-del", "route-del", "link-del")


class AlreadyAdoptedError(CannotAdoptError):
    """The card is ours already."""


class Settings(NamedTuple):
    """What the PIF is to have. `client_id` and `request` are for our DHCP client; `told`: what is not carried over."""

    mode: str = "None"
    address: str = ""
    netmask: str = ""
    gateway: str = ""
    mode6: str = "None"
    address6: str = ""
    """`address/prefix`."""
    gateway6: str = ""
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    client_id: str = ""
    request: str = ""
    told: tuple[str, ...] = ()


def choose(nic: str, kernel: Kernel) -> str:
    """The card that is meant: that of this name, else the one with the default route; where no card has one, the only
    card with an address.

    Raises CannotAdoptError where that is none, or a device that is no card.
    """
    links = kernel.by_name()
    if not nic:
        routed = [route.device for route in kernel.routes if route.destination in DEFAULTS]
        nics = sorted({kernel.links[device].name for device in routed if device in kernel.links})
        found = f"the default routes are on {', '.join(nics)}"
        if not nics:
            nics = _addressed(kernel)
            having = f"{', '.join(nics)} have addresses" if nics else "no card has an address"
            found = f"there is no default route, and {having}"
        if len(nics) != 1:
            raise CannotAdoptError(f"{found}: which card is meant?", hint="name it: hostagent net adopt NIC")
        (nic,) = nics
    link = links.get(nic)
    if link is None:
        raise CannotAdoptError(f"there is no device {nic}", hint="ip link; hostagent net graph")
    if link.kind == "bridge" and link.group == GROUP:
        raise AlreadyAdoptedError(f"{nic} is a bridge of ours", hint="hostagent net status")
    if link.kind:
        raise CannotAdoptError(
            f"{nic} is a {link.kind}, and only a plain card can be taken over",
            hint="put its address on a card first, or make the PIF, Bond and VLAN anew from the console",
        )
    return nic


def _addressed(kernel: Kernel) -> list[str]:
    """The names of the cards with an address that reaches beyond their link."""
    having = {address.device for address in kernel.addresses if address.scope < SCOPE_LINK}
    links = (kernel.links[device] for device in having if device in kernel.links)
    return sorted(link.name for link in links if not link.kind and not link.flags & LOOPBACK)


def main_owner(link: Link, owners: Sequence[Owner], kernel: Kernel) -> Owner:
    """The daemon that the card is taken from. Raises AlreadyAdoptedError, CannotAdoptError."""
    master = kernel.links.get(link.master)
    if master is not None and master.group == GROUP:
        raise AlreadyAdoptedError(
            f"{link.name} is a port of our {master.name} already", hint="hostagent net status"
        )
    holders = [owner for owner in owners if owner.daemon != CLOUD_INIT]
    if not holders:
        raise CannotAdoptError(
            f"no other network daemon has {link.name}",
            hint="hostagent xe pif-scan host-uuid=…; hostagent xe pif-reconfigure-ip uuid=… mode=dhcp;"
            f" hostagent pif plug {link.name}",
        )
    if len(holders) > 1:
        both = " and ".join(owner.daemon for owner in holders)
        raise CannotAdoptError(
            f"{both} both have {link.name}: which one is right cannot be told",
            hint=f"take it from one of them: {holders[-1].disable or 'see its files'}",
        )
    owner = holders[0]
    through = owner.through or (master.name if master is not None else "")
    if through:
        raise CannotAdoptError(
            f"{link.name} is a port of {through}, which {owner.daemon} makes ({', '.join(owner.files)})",
            hint=f"move the address from {through} to {link.name} first",
        )
    if owner.daemon not in DAEMONS:
        raise CannotAdoptError(
            f"{link.name} is configured by {owner.daemon}, from which it cannot be taken over in one step",
            hint=f"at the console: {owner.disable or f'stop {owner.daemon}'}; then hostagent pif plug",
        )
    return owner


def settings(owner: Owner, link: Link, kernel: Kernel) -> Settings:
    """The same as the card has now. Raises CannotAdoptError where files and kernel do not say the same."""
    mine = [one for one in kernel.addresses if one.device == link.ifindex and one.scope < SCOPE_LINK]
    told: list[str] = []
    found = Settings(owner.mode, mode6=owner.mode6, search=owner.search)
    dns = tuple(server for server in owner.dns if not server.startswith("127."))
    if owner.mode != "None":
        have = _present(owner, link, [one for one in mine if family_of(one.text) == 4], 4, told)
        gateway = _gateway(link, kernel, 4) or owner.gateway
        if owner.mode == "Static":
            found = found._replace(address=have.text, netmask=_netmask(have.prefix), gateway=gateway, dns=dns)
        else:
            found = found._replace(client_id=owner.client_id, request=have.text)
    if owner.mode6 == "Static":
        have = _present(owner, link, [one for one in mine if family_of(one.text) == 6], 6, told)
        found = found._replace(
            address6=f"{have.text}/{have.prefix}",
            gateway6=_gateway(link, kernel, 6) or owner.gateway6,
            dns=dns,
        )
    if owner.mode == owner.mode6 == "None":
        raise CannotAdoptError(
            f"{owner.daemon} gives {link.name} no address",
            hint="give it one: hostagent xe pif-reconfigure-ip uuid=… mode=dhcp",
        )
    told += [
        f"the route {route.destination} via {route.gateway or 'the link'} is not carried over"
        " (hint: hostagent xe network-param-set uuid=… other-config:static-routes=…)"
        for route in kernel.routes
        if route.device == link.ifindex
        and route.destination not in DEFAULTS
        and route.protocol not in (BY_KERNEL, BY_ADVERTISEMENT)
    ]
    return found._replace(told=tuple(told))


def _present(owner: Owner, link: Link, mine: list[Address], family: int, told: list[str]) -> Address:
    """The one address that is carried over: the first of the owner's that the card has."""
    mode = owner.mode if family == 4 else owner.mode6
    texts = [f"{one.text}/{one.prefix}" for one in mine]
    listed = [text for text in owner.addresses if family_of(text) == family]
    held = [text for text in listed if text in texts]
    if not held and mode == "DHCP":
        held = [f"{one.text}/{one.prefix}" for one in mine if one.valid_s != FOREVER] or texts
    if not held:
        raise CannotAdoptError(
            f"{owner.daemon} gives {link.name} {', '.join(listed) or 'an address by ' + mode}, and it has"
            f" {', '.join(texts) or 'none'}",
            hint=f"bring it up as {', '.join(owner.files) or owner.daemon} says first; ip addr show {link.name}",
        )
    told += [
        f"the address {text} is not carried over: a PIF has one for IPv{family}"
        for text in texts
        if text != held[0] and (family == 4 or text in listed)
    ]
    return mine[texts.index(held[0])]


def _gateway(link: Link, kernel: Kernel, family: int) -> str:
    routes = [
        r
        for r in kernel.routes
        if (r.device, r.destination) == (link.ifindex, f"default{family}") and r.gateway
    ]
    return min(routes, key=lambda route: route.metric).gateway if routes else ""


def _netmask(prefix: int) -> str:
    from socket import AF_INET, inet_ntop

    return inet_ntop(AF_INET, (0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF).to_bytes(4, "big"))


def with_settings(records: Records, ref: str, taken: Settings, bridge: str) -> Records:
    """The records with the PIF so, as the management interface on `bridge`; no other one is."""
    pifs = {
        one: pif if not pif.management else pif._replace(management=False)
        for one, pif in records.pifs.items()
    }
    other_config = dict(pifs[ref].other_config)
    if taken.search and taken.dns:
        other_config["domain"] = ",".join(taken.search)
    pifs[ref] = pifs[ref]._replace(
        managed=True, management=True, ip_mode=taken.mode, ip=taken.address, netmask=taken.netmask,
        gateway=taken.gateway, dns=",".join(taken.dns), ipv6_mode=taken.mode6,
        ipv6=(taken.address6,) if taken.address6 else (), ipv6_gateway=taken.gateway6,
        primary_address_type="IPv4" if taken.mode != "None" else "IPv6", other_config=other_config,
    )  # fmt: skip
    network = records.networks[pifs[ref].network]._replace(managed=True, bridge=bridge)
    return records._replace(pifs=pifs, networks={**records.networks, network.ref: network}, bridge=bridge)


# --- the plan ---


def adopting(planned: Plan, kernel: Kernel, nic: Link, taken: Settings, before: Plan) -> Plan:
    """The plan of taking over: `before` (files and their way back), then `planned`, with what is dynamic carried along.

    `planned` is the plan of what is wanted. What it would let go of the card before our DHCP client or a router gives
    it anew is put on the bridge before; and undoing the client does not give the lease back to the server.
    """
    bridge = next(
        (s.do for s in planned.steps if s.do.verb == "link-add" and s.do.args.get("kind") == "bridge"), None
    )
    steps = [
        step._replace(undo=(_forget(step.do.device),)) if step.do.verb == "lease-start" else step
        for step in planned.steps
    ]
    if bridge is not None:
        target = nic._replace(ifindex=bridge.ifindex, name=bridge.device)
        carried = _carried(kernel, nic, target, taken)
        steps = _inserted(steps, (nic.ifindex,), carried)
    return Plan((*before.steps, *steps))


def lasting(plan: Plan, nic: Link) -> Plan:
    """The plan with what of a lease comes back to the card there for good, also by its undo.

    For ifupdown: dhclient leaves an address that it finds as it is until it renews its lease, by when the rest of the
    former one may be over; and dhcpcd 10.1.0 crashes on one with a lifetime.
    """
    return Plan(
        tuple(
            step._replace(do=_for_good(step.do, nic), undo=tuple(_for_good(each, nic) for each in step.undo))
            for step in plan.steps
        )
    )


def _for_good(do: Operation, nic: Link) -> Operation:
    if (do.verb, do.ifindex) != ("address-add", nic.ifindex) or family_of(str(do.args["text"])) != 4:
        return do
    return do._replace(args={key: value for key, value in do.args.items() if key != "valid_s"})


def _carried(kernel: Kernel, nic: Link, target: Link, taken: Settings) -> list[Step]:
    """Addresses that have a lifetime, and the IPv4 default route, on another device."""
    found = []
    for have in kernel.addresses:
        mode = taken.mode if family_of(have.text) == 4 else taken.mode6
        mine = have.device == nic.ifindex and have.scope < SCOPE_LINK
        if mine and mode in DYNAMIC and (have.valid_s != FOREVER or have.text == taken.request):
            flags = have.flags & ~MANAGED_PREFIX | (NO_PROBE if family_of(have.text) == 6 else 0)
            do = address_add(target, have._replace(device=target.ifindex, flags=flags))
            gone = do._replace(verb="address-del", args={"text": have.text, "prefix": have.prefix})
            found.append(Step(do, (gone,)))
    gateway = _gateway(nic, kernel, 4)
    leased = any(family_of(str(step.do.args["text"])) == 4 for step in found)
    if leased and gateway:
        args: dict[str, Any] = {
            "destination": "default4",
            "gateway": gateway,
            "protocol": BY_DHCP,
            "metric": METRIC,
        }
        do = Operation("route-add", target.name, target.ifindex, args)
        found.append(Step(do, (do._replace(verb="route-del"),)))
    return found


def _inserted(steps: list[Step], devices: Sequence[int], carried: list[Step]) -> list[Step]:
    """Before the first step that takes something from these devices, or moves them."""
    for at, step in enumerate(steps):
        do = step.do
        if do.ifindex in devices and (do.verb in OFF or "master" in do.args or do.args.get("up") is False):
            return [*steps[:at], *carried, *steps[at:]]
    return [*steps, *carried]


def tell(what: str, daemon: str, device: str) -> Operation:
    """Something to tell a daemon (`foreign_daemons.tell`)."""
    return Operation("foreign", device, 0, {"daemon": daemon, "what": what})


def _forget(bridge: str) -> Operation:
    return tell("forget", "dhcpcd", bridge)


def beginning(
    mark: Change, early: Sequence[Change], late: Sequence[Change], owner: Owner, first: str, switch: str = ""
) -> Plan:
    """The first steps: a note of what is under way, files that must be there before our first device, and what the
    daemon is told then (`first`). `switch`: which of the `late` files decides.

    Undoing the note, which comes last, undoes every file, those too that are written only when all works, and has the
    daemon take the card again: undoing what did not happen does no harm.
    """
    back = [file_back(one, switch) for one in reversed(late)]
    note = file_step(mark)
    steps = [note._replace(undo=(*back, tell("take", owner.daemon, owner.device), *note.undo))]
    steps += [file_step(change) for change in early]
    return Plan((*steps, Step(tell(first, owner.daemon, owner.device), ())))


# --- back ---


def refuse_release(records: Records, ref: str, bridge: Link, nic: Link, kernel: Kernel) -> None:
    """Raises CannotAdoptError while something of ours lies on the card or its bridge."""
    guests = [
        link.name
        for link in kernel.links.values()
        if link.master == bridge.ifindex and link.ifindex != nic.ifindex
    ]
    if guests:
        raise CannotAdoptError(
            f"{bridge.name} has the ports {', '.join(guests)}",
            hint="shut down or move the guests on that network",
        )
    above = [link.name for link in kernel.links.values() if link.kind == "vlan" and link.lower == nic.ifindex]
    if above or records.pifs[ref].vlan_slave_of:
        raise CannotAdoptError(
            f"VLANs lie on {nic.name}: {', '.join(above) or 'with PIFs'}",
            hint="hostagent xe vlan-destroy uuid=…",
        )
    if records.pifs[ref].bond_slave_of:
        raise CannotAdoptError(f"{nic.name} is a member of a bond", hint="hostagent xe bond-destroy uuid=…")


def released(kernel: Kernel, nic: Link, bridge: Link) -> Wanted:
    """The card with the addresses and the default routes of the bridge, and no bridge.

    The lease, for a plan without `Around`, only says that addresses with a lifetime are right.
    """
    mine = [one for one in kernel.addresses if one.device == bridge.ifindex and one.scope < SCOPE_LINK]
    routes = [r for r in kernel.routes if r.device == bridge.ifindex and r.protocol == PROTOCOL and r.gateway]
    return Wanted(
        (Device(nic.name, "physical", ipv6="autoconf"),),
        tuple(WantedAddress(nic.name, one.text, one.prefix) for one in mine if one.valid_s == FOREVER),
        tuple(WantedRoute(nic.name, r.destination, r.gateway, r.metric) for r in routes),
        tuple(Lease(nic.name, 4, gateway=True, dns=False) for one in mine[:1] if _leased(mine)),
        gone=(bridge.name,),
    )


def _leased(mine: Sequence[Address]) -> bool:
    return any(family_of(one.text) == 4 and one.valid_s != FOREVER for one in mine)


def releasing(
    planned: Plan,
    kernel: Kernel,
    nic: Link,
    bridge: Link,
    daemon: str,
    files: Sequence[Change],
    leases: Sequence[Lease],
    hold_off: Change | None = None,
    notes: Sequence[Change] = (),
    switch: str = "",
) -> Plan:
    """The plan of giving back: their files first (both may have the card then, and at a boot they come first:
    `early.held`), then the addresses, those of a lease with the time they have left. The daemon is told afterwards.

    `leases`: those that our DHCP client of the bridge is after. `hold_off`: the file below /run by which a daemon of
    `LET_GO_FIRST` that has one lets go of the card; it goes last, so that an undo begins with it. `notes`: files of our
    own that go, before which an undo must not start our client again. `switch`: which of the `files` decides.
    """
    path = f"net/ipv6/conf/{nic.name}/disable_ipv6"
    ipv6 = Operation("sysctl", nic.name, nic.ifindex, {"path": path, "value": "0"})
    carried = _carried(kernel, bridge, nic, Settings("DHCP", mode6="Autoconf"))
    again = tuple(_lease_start(lease) for lease in leases)
    forget = [Step(_forget(bridge.name), again)] if leases else []
    moved = _inserted(list(planned.steps), (bridge.ifindex, nic.ifindex), carried)
    let_go = tell("let-go", daemon, nic.name)
    last = let_go if hold_off is None else file_to(hold_off.path, hold_off.before)
    return Plan(
        (
            *_file_steps(files, notes, switch, last),
            *forget,
            Step(ipv6, (ipv6._replace(args={"path": path, "value": "1"}),)),
            *moved,
            *(file_step(change) for change in notes),
            *_free(hold_off, let_go),
        )
    )


def _file_steps(files: Sequence[Change], notes: Sequence[Change], switch: str, last: Operation) -> list[Step]:
    """What comes back with the first is undone last, and with it the other files and the `notes`, so that a journal
    that knows of the first knows of all; and then the daemon lets the card go again (`last`)."""
    back = tuple(file_back(change, switch) for change in reversed((*files, *notes)))
    return [Step(file_to(one.path, one.after), () if at else (*back, last)) for at, one in enumerate(files)]


def _free(hold_off: Change | None, let_go: Operation) -> list[Step]:
    """The last step, with which an undo begins: the daemon, which was told to take the card, lets go of it."""
    if hold_off is None:
        return [Step(let_go, (let_go,))] if let_go.args["daemon"] in LET_GO_FIRST else []
    held = file_to(hold_off.path, hold_off.after)
    return [Step(file_to(hold_off.path, None), (held, let_go))]


def _lease_start(lease: Lease) -> Operation:
    args: dict[str, Any] = lease._asdict()
    del args["device"]
    return Operation("lease-start", lease.device, 0, args)
