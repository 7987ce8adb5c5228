"""What lies on a PIF's bridge: addresses, default routes, static routes, leases, the resolver (networking.md 3.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.net import inet, keys
from hostagent.net.chains import text
from hostagent.net.devices import Dns, Lease, WantedAddress, WantedRoute
from hostagent.net.finding import DEGRADE, STOP_UNLESS_BOOT, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostagent.net.records import Pif

IPV6 = {"None": "link-local", "Static": "static", "DHCP": "dhcp", "Autoconf": "autoconf"}


class Layer:
    """Gathers, for PIF after PIF. The owners of the default routes and of the resolver are known before.

    What cannot be used is left out and told with STOP_UNLESS_BOOT: at boot, a host with half an address configuration
    is worth more than one with none.
    """

    def __init__(self, gateway4: str, gateway6: str, resolver: str) -> None:
        self.owners = {4: gateway4, 6: gateway6}
        self.resolver = resolver
        self.addresses: list[WantedAddress] = []
        self.routes: dict[str, WantedRoute] = {}
        """By destination: the kernel has one of each."""
        self.leases: list[Lease] = []
        self.dns: Dns | None = None
        self.findings: list[Finding] = []

    def heeds_routers(self, pif: Pif) -> bool:
        """Whether the default route of IPv6 is the one that routers advertise to this PIF."""
        return pif.ref == self.owners[6] and pif.ipv6_mode in ("DHCP", "Autoconf")

    def lay(self, pif: Pif, routes: Iterable[keys.StaticRoute], device: str) -> str:
        """Take up a PIF whose address goes on a device; the answer is the device's IPv6 mode."""
        if pif.ip_mode == "None" and pif.ipv6_mode == "None":
            for route in routes:
                self._off_link(pif, route)
            return IPV6["None"]
        start = len(self.addresses)
        if pif.ip_mode == "Static":
            self._static4(pif, device)
        elif pif.ip_mode == "DHCP":
            self._lease(pif, device, 4)
        elif pif.ip_mode != "None":
            self._bad(pif, f"the IPv4 mode {pif.ip_mode!r} is not known", "use None, DHCP or Static", row=43)
        if pif.ipv6_mode == "Static":
            self._static6(pif, device)
        elif pif.ipv6_mode == "DHCP":
            self._lease(pif, device, 6)
        elif pif.ipv6_mode not in IPV6:
            self._bad(
                pif,
                f"the IPv6 mode {pif.ipv6_mode!r} is not known",
                "use None, DHCP, Static or Autoconf",
                row=43,
            )
        own = self.addresses[start:]
        self._default(pif, device, pif.gateway, 4, own)
        self._default(pif, device, pif.ipv6_gateway, 6, own)
        for route in routes:
            self._static_route(pif, device, route, own)
        if pif.ref == self.resolver:
            self._resolver(pif)
        return IPV6.get(pif.ipv6_mode, IPV6["None"])

    def _static4(self, pif: Pif, device: str) -> None:
        found = inet.address(pif.ip)
        prefix = inet.prefix_of(pif.netmask)
        if not found or ":" in found or not is_host(found, prefix):
            self._bad(
                pif, f"the address {pif.ip!r} cannot be a host's (netmask {pif.netmask!r})", "set it anew"
            )
        elif prefix <= 0:
            self._bad(pif, f"the netmask {pif.netmask!r} is none", "use a form like 255.255.255.0")
        else:
            self.addresses.append(WantedAddress(device, found, prefix))

    def _static6(self, pif: Pif, device: str) -> None:
        if not pif.ipv6:
            self._bad(pif, "IPv6 is Static, and there is no address", "give one as address/length")
        found: dict[str, WantedAddress] = {}
        for element in pif.ipv6:
            text6, prefix = inet.cidr(element) or ("", 0)
            if ":" not in text6 or not prefix or text6 in ("::", "::1") or text6.startswith("ff"):
                hint = "use address/length, as in fd00::2/64"
                self._bad(pif, f"the IPv6 address {element!r} cannot be a host's", hint)
            elif inet.is_link_local(text6):  # what there is of these is the kernel's
                what = f"{text(pif)}: the IPv6 address {element!r} is left out: every interface has a link-local one"
                hint = f"hostagent xe pif-reconfigure-ipv6 uuid={pif.uuid} mode=static IPv6=… gives it another one"
                self.findings.append(Finding(0, DEGRADE, (pif.ref,), what, hint))
            else:
                found.setdefault(text6, WantedAddress(device, text6, prefix))
        self.addresses += found.values()

    def _lease(self, pif: Pif, device: str, family: int) -> None:
        primary = 6 if pif.primary_address_type == "IPv6" else 4
        dns = pif.ref == self.resolver and family == primary
        self.leases.append(Lease(device, family, gateway=pif.ref == self.owners[family], dns=dns))

    def _default(self, pif: Pif, device: str, gateway: str, family: int, own: list[WantedAddress]) -> None:
        mode = pif.ip_mode if family == 4 else pif.ipv6_mode
        if pif.ref != self.owners[family] or mode != "Static" or not gateway:
            return
        found = inet.address(gateway)
        if not found or inet.family(found) != family:
            self._bad(pif, f"the gateway {gateway!r} is no IPv{family} address", "set it anew")
        elif not on_link(found, own):
            self._bad(
                pif,
                f"the gateway {gateway} is in no subnet of the PIF",
                "set address, netmask and gateway anew",
            )
        else:
            self.routes[f"default{family}"] = WantedRoute(device, f"default{family}", found)

    def _static_route(self, pif: Pif, device: str, route: keys.StaticRoute, own: list[WantedAddress]) -> None:
        family = inet.family(route.gateway)
        mode = pif.ip_mode if family == 4 else pif.ipv6_mode
        # what DHCP or a router will give is not known yet
        if mode == "None" or (mode == "Static" and not on_link(route.gateway, own)):
            self._off_link(pif, route)
        elif other := self.routes.get(route.destination):
            found = f"{text(pif)}: a static route to {route.destination} is there already, on {other.device}"
            self.findings.append(Finding(44, DEGRADE, (pif.ref,), found, "remove one of the two"))
        else:
            self.routes[route.destination] = WantedRoute(device, route.destination, route.gateway)

    def _off_link(self, pif: Pif, route: keys.StaticRoute) -> None:
        where = f"the static route to {route.destination} over {route.gateway}"
        found = f"{text(pif)}: {where} is left out: the gateway is in no subnet of the PIF"
        self.findings.append(
            Finding(44, DEGRADE, (pif.ref,), found, "give the PIF an address there, or mend static-routes")
        )

    def _resolver(self, pif: Pif) -> None:
        """The resolver of a Static (or IPv6 Autoconf) PIF; without servers what there is stays (catalogue row 42)."""
        modes = ("Static", "Autoconf") if pif.primary_address_type == "IPv6" else ("Static",)
        if (pif.ipv6_mode if pif.primary_address_type == "IPv6" else pif.ip_mode) not in modes:
            return
        servers = []
        for word in keys.words(pif.dns):
            if found := inet.address(word):
                servers.append(found)
            else:
                self._bad(pif, f"the DNS server {word!r} is no address", "set DNS anew", row=42)
        if servers:
            self.dns = Dns(tuple(dict.fromkeys(servers)), keys.of_pif(pif.other_config).domain)
        else:
            found = f"{text(pif)} owns the resolver and has no DNS server"
            self.findings.append(
                Finding(42, DEGRADE, (pif.ref,), found, "the servers there are now stay; set DNS")
            )

    def _bad(self, pif: Pif, found: str, hint: str, *, row: int = 0) -> None:
        self.findings.append(Finding(row, STOP_UNLESS_BOOT, (pif.ref,), f"{text(pif)}: {found}", hint))


def is_host(address: str, prefix: int) -> bool:
    """Whether an IPv4 address can be a host's; a bad prefix (at most 0) is not the address's fault."""
    value = inet.number(address)
    if value >> 24 in (0, 127) or value >> 28 >= 14:
        return False
    hosts = (1 << (32 - prefix)) - 1 if 0 < prefix < 31 else 0
    return not hosts or value & hosts not in (0, hosts)


def on_link(gateway: str, own: Iterable[WantedAddress]) -> bool:
    """Whether a gateway can be reached without another one: IPv6's link-local addresses always can."""
    if gateway.startswith(("fe8", "fe9", "fea", "feb")) and ":" in gateway:
        return True
    return any(inet.contains(each.text, each.prefix, gateway) and each.text != gateway for each in own)
