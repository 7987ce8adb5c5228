"""Which other network daemons have a card, what they give to it, and how to keep them from it.

Two daemons on one card make its address come and go (networking.md 5, row 46), so nothing is begun on a card that
has an owner; `hostagent net adopt` takes it over. Read from files (and processes) below a root directory; nothing is
asked or changed.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from hostagent.net import foreign_ifupdown, foreign_networkd, foreign_nm
from hostagent.net.foreign_files import Nic, Owner, address, enabled, first, sections, shown, text, value

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Nic", "Owner", "nic", "owners"]

CLOUD_FILES = (
    "etc/network/interfaces.d/50-cloud-init*",
    "etc/netplan/50-cloud-init.yaml",
    "etc/systemd/network/10-cloud-init-*.network",
    "etc/NetworkManager/system-connections/cloud-init-*.nmconnection",
)
CLOUD_OFF = re.compile(r"^\s*network:\s*(\{\s*config:\s*disabled\s*\}|\n\s+config:\s*disabled)", re.MULTILINE)
CLOUD_DISABLE = "echo 'network: {config: disabled}' > /etc/cloud/cloud.cfg.d/99-hostagent-network.cfg"
CLIENT_UNITS = ("dhclient@{name}.service", "dhcpcd@{name}.service", "udhcpc@{name}.service", "dhcpcd.service")
CONNMAN_SERVICES = "var/lib/connman"


def nic(name: str, root: Path) -> Nic:
    """The card of this name as /sys has it; what cannot be read is left empty."""
    folder = root / "sys/class/net" / name
    index = _line(folder / "ifindex")
    driver = ""
    with suppress(OSError):
        driver = (folder / "device/driver").readlink().name
    path = text(root / "run/udev/data" / f"n{index}")
    found = re.search(r"^E:ID_PATH=(.*)$", path, re.MULTILINE)
    return Nic(
        name,
        int(index) if index.isdecimal() else 0,
        _line(folder / "address").lower(),
        driver,
        found[1] if found else "",
    )


def owners(card: Nic, root: Path) -> tuple[Owner, ...]:
    """Every daemon that has this card, the one that configures it first, then those that would write its files anew.

    Where no file names one, a DHCP client that somebody started on the card (networking.md 5, row 35).
    """
    found = [
        foreign_networkd.owner(card, root),
        foreign_ifupdown.owner(card, root),
        foreign_nm.owner(card, root),
        _connman(card, root),
        *(_client(card, root, unit.format(name=card.name)) for unit in CLIENT_UNITS),
    ]
    held = [owner for owner in found if owner is not None] or _running(card, root)
    if (cloud := _cloud_init(card, root)) is not None:
        held.append(cloud)
    return tuple(held)


def _cloud_init(card: Nic, root: Path) -> Owner | None:
    """cloud-init, when it has written a file that names the card and would write it anew at the next boot."""
    cloud = root / "etc/cloud"
    settings = [cloud / "cloud.cfg", *sorted((cloud / "cloud.cfg.d").glob("*.cfg"))]
    if not (cloud / "cloud.cfg").exists() or (cloud / "cloud-init.disabled").exists():
        return None
    if any(CLOUD_OFF.search(text(file)) for file in settings):
        return None
    word = re.compile(rf"(?<![\w.-]){re.escape(card.name)}(?![\w.-])")
    files = [
        file for pattern in CLOUD_FILES for file in sorted(root.glob(pattern)) if _names(file, word, card)
    ]
    if not files:
        return None
    return Owner(
        "cloud-init", card.name, files=tuple(shown(file, root) for file in files), disable=CLOUD_DISABLE
    )


def _names(file: Path, word: re.Pattern[str], card: Nic) -> bool:
    content = text(file)
    return bool(word.search(content)) or (bool(card.mac) and card.mac in content.lower())


def _connman(card: Nic, root: Path) -> Owner | None:
    """connman, which takes every card that its blacklist does not name (by the beginning of its name)."""
    if not enabled("connman.service", root):
        return None
    general = sections(text(root / "etc/connman/main.conf"))
    blacklist = value(
        general, "General", "NetworkInterfaceBlacklist", "vmnet,vboxnet,virbr,ifb,ve-,vb-"
    ).split(",")
    if any(start.strip() and card.name.startswith(start.strip()) for start in blacklist):
        return None
    service = f"ethernet_{card.mac.replace(':', '')}_cable"
    file = root / CONNMAN_SERVICES / service / "settings"
    parsed = sections(text(file))
    method = value(parsed, service, "IPv4.method", "dhcp")
    found = address(
        value(parsed, service, "IPv4.local_address"), value(parsed, service, "IPv4.netmask_prefixlen")
    )
    dns = value(parsed, service, "Nameservers").replace(",", ";").split(";")
    return Owner(
        "connman",
        card.name,
        {"dhcp": "DHCP", "manual": "Static"}.get(method, "None"),
        (found,) if found and method == "manual" else (),
        first(4, [value(parsed, service, "IPv4.gateway")]),
        tuple(server for server in dns if server),
        (shown(file, root),) if file.exists() else (),
        "systemctl disable connman.service",
        mode6={"auto": "Autoconf", "manual": "Static"}.get(
            value(parsed, service, "IPv6.method", "auto"), "None"
        ),
    )


def _running(card: Nic, root: Path) -> list[Owner]:
    from hostagent.net import dhcp_clients

    return [
        Owner(f"{client.program} (pid {client.pid})", card.name, "DHCP", disable=client.ending)
        for client in dhcp_clients.foreign(card.name, root, {})
        if client.device == card.name
    ]


def _client(card: Nic, root: Path, unit: str) -> Owner | None:
    """A DHCP client that systemd starts for the card (or, dhcpcd.service, for all)."""
    if not enabled(unit, root):
        return None
    program = unit.partition("@")[0].removesuffix(".service")
    config = root / "etc/dhcpcd.conf"
    denied = (
        re.findall(r"^\s*denyinterfaces\s+(.*)$", text(config), re.MULTILINE)
        if unit == "dhcpcd.service"
        else []
    )
    if any(card.name in line.replace(",", " ").split() for line in denied):
        return None
    if unit == "dhcpcd.service":
        return Owner(
            program, card.name, "DHCP", files=(shown(config, root),) if config.exists() else (),
            disable=f"echo 'denyinterfaces {card.name}' >> /etc/dhcpcd.conf", mode6="Autoconf",
        )  # fmt: skip
    lease = foreign_ifupdown.parse_lease(text(root / f"var/lib/dhcp/dhclient.{card.name}.leases"))
    return Owner(
        program,
        card.name,
        "DHCP",
        (lease["address"],) if lease["address"] else (),
        first(4, lease["routers"].split()),
        tuple(lease["dns"].split()),
        disable=f"systemctl disable {unit}",
    )


def _line(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
