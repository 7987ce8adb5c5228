"""The NICs that this host has now: what sysfs says of each device, and which devices are no NICs of the host's.

Left out (networking.md 1.9, 1.8): what is not Ethernet, has no hardware (bonds, VLANs, bridges, taps), is a virtual
function or stands for one, belongs to Xen (guests' interfaces; also the phantom that QEMU gives to a dom0 whose disk
backend it is), radio, and NICs that the firmware booted from over iSCSI. Reads below a root; what cannot be read counts
as not there, for devices come and go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.named import NamedTuple
from hostagent.net.nics import Seen
from hostagent.net.nics_types import Nic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from hostagent.net.devices import Link

NETS, BOOTED_FROM = "sys/class/net", "sys/firmware/ibft"
PCI_IDS = "usr/share/misc/pci.ids"
ETHERNET = 1  # ARPHRD_ETHER
XEN_BUSES = ("xen", "xen-backend")
XEN_DRIVERS = ("vif", "xen-netfront", "xen-backend", "xen_netfront", "xen-netback")
RADIO_TYPES = ("wlan", "wwan")
PERMANENT = 0  # NET_ADDR_PERM
BLOCK_VALID = 1  # of an entry of iBFT
LIMIT_BYTES = 4096
PCI_IDS_LIMIT_BYTES = 16 << 20


class Hardware(NamedTuple):
    """A network device as sysfs has it, before anybody decided whether it is a NIC of the host's."""

    name: str
    type: int = -1
    """ARPHRD; -1 when not known."""
    mac: str = ""
    assigned: int = -1
    """How it came to its MAC address (addr_assign_type)."""
    member_mac: str = ""
    """Of a member of a bond: the address it had before."""
    mtu: int = 0
    device: str = ""
    """The real path of its hardware below the root, empty for one without."""
    bus: str = ""
    driver: str = ""
    pci: str = ""
    """PCI address of its function, or of the controller of the USB it is plugged into."""
    vendor: str = ""
    product: str = ""
    virtual_function: bool = False
    radio: bool = False
    port: int = 0
    port_name: str = ""
    onboard: int = 0
    label: str = ""
    functions: int = 0
    """How many virtual functions it can have."""
    carrier: bool = False
    speed: int = 0
    duplex: bool = False


def look(root: Path, links: Iterable[Link] = (), *, names_of: bool = True) -> tuple[Seen, ...]:
    """The NICs of the host. `links`, of a look at the kernel, tell permanent MAC addresses for certain; sysfs does so
    unless somebody changed the address. `names_of`: with names of makers and models, from the file of PCI numbers.
    """
    permanent = {link.name: link.permanent_mac for link in links if link.permanent_mac}
    booted = booted_from(root)
    nics = [
        each
        for each in read(root)
        if not left_out(each) and permanent_mac(each, permanent).lower() not in booted
    ]
    wanted = {(each.vendor, each.product) for each in nics if each.vendor}
    words = pci_names(_bytes(root / PCI_IDS, PCI_IDS_LIMIT_BYTES), wanted) if names_of and wanted else {}
    return tuple(seen(each, permanent_mac(each, permanent), words) for each in nics)


def left_out(each: Hardware) -> str:
    """Why a device is no NIC of the host's, in words; empty if it is one."""
    if each.type != ETHERNET:
        return "it is not Ethernet"
    if each.bus in XEN_BUSES or each.driver in XEN_DRIVERS:
        return "it belongs to Xen"
    if not each.device:
        return "it has no hardware"
    if each.virtual_function:
        return "it is a virtual function"
    if _stands_for_function(each.port_name):
        return f"it stands for a virtual function ({each.port_name})"
    if each.radio:
        return "it is radio"
    return ""


def permanent_mac(each: Hardware, permanent: Mapping[str, str]) -> str:
    """By the kernel's word; else what it had before it joined a bond; else what it has. Lower case."""
    known = permanent.get(each.name, "")
    if not known:
        known = each.mac if each.assigned == PERMANENT else each.member_mac or each.mac
    return known.lower()


def seen(each: Hardware, mac: str, names: Mapping[tuple[str, str], tuple[str, str]]) -> Seen:
    """As the assignment of positions takes it. Without a name in the file, a number is its own name."""
    vendor_name, device_name = names.get((each.vendor, each.product), ("", ""))
    nic = Nic(
        position=-1,
        name=each.name,
        mac=mac,
        mtu=each.mtu,
        capabilities=("sriov",) if each.functions else (),
        vendor_id=each.vendor,
        vendor_name=vendor_name or each.vendor,
        device_id=each.product,
        device_name=device_name or each.product,
        pci_path=each.pci,
        carrier=each.carrier,
        speed=each.speed,
        duplex=each.duplex,
        driver=each.driver,
    )
    return Seen(nic, each.onboard, each.label, each.port)


def read(root: Path) -> list[Hardware]:
    """Every network device with hardware in this network namespace, by name. Of those without, of which a host has
    thousands, nothing is read."""
    try:
        return [
            hardware(root, here.name) for here in sorted((root / NETS).iterdir()) if _is_link(here / "device")
        ]
    except OSError:
        return []


def hardware(root: Path, name: str) -> Hardware:
    """What sysfs says of one device."""
    here = root / NETS / name
    device = (here / "device").resolve() if _is_link(here / "device") else None
    function = _pci_function(device)
    bus = _target(device / "subsystem") if device else ""
    own = function if bus != "usb" else None
    return Hardware(
        name=name,
        type=_number(here / "type", -1),
        mac=_text(here / "address"),
        assigned=_number(here / "addr_assign_type", -1),
        member_mac=_text(here / "bonding_slave/perm_hwaddr"),
        mtu=_number(here / "mtu", 0),
        device=str(device or ""),
        bus=bus,
        driver=_target(device / "driver") if device else "",
        pci=function.name if function else "",
        vendor=_hexadecimal(own / "vendor") if own else "",
        product=_hexadecimal(own / "device") if own else "",
        virtual_function=own is not None and _is_link(own / "physfn"),
        radio=_is_radio(here),
        port=_number(here / "dev_port", 0),
        port_name=_text(here / "phys_port_name"),
        onboard=_onboard(own),
        label=_text(own / "label") if own else "",
        functions=_number(own / "sriov_totalvfs", 0) if own else 0,
        carrier=_text(here / "carrier") == "1",
        speed=max(0, _number(here / "speed", 0)),
        duplex=_text(here / "duplex") == "full",
    )


def booted_from(root: Path) -> frozenset[str]:
    """The MAC addresses of the NICs in the firmware's table of its boot over iSCSI, lower case."""
    try:
        entries = sorted((root / BOOTED_FROM).iterdir())
    except OSError:
        return frozenset()
    return frozenset(
        _text(entry / "mac").lower()
        for entry in entries
        if entry.name.startswith("ethernet") and _number(entry / "flags", BLOCK_VALID) & BLOCK_VALID
    ) - {""}


def pci_names(data: bytes, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, str]]:
    """The names of maker and model for (vendor, device), each four hexadecimal digits, from the text of pci.ids; a
    name that is not in it is empty."""
    found = {}
    data = b"\n" + data
    for vendor, device in wanted:
        start = data.find(f"\n{vendor}  ".encode())
        if not vendor or start < 0:
            continue
        first, *lines = data[start + 1 : _next_maker(data, start + 1)].split(b"\n")
        begin = f"\t{device}  ".encode()
        model = next((line[len(begin) :] for line in lines if line.startswith(begin)), b"")
        found[vendor, device] = (_clean(first[6:]), _clean(model))
    return found


def _next_maker(data: bytes, position: int) -> int:
    """Where the lines of a maker end: those of its models begin with a tab, remarks with #."""
    while (position := data.find(b"\n", position)) >= 0:
        position += 1
        if data[position : position + 1] not in (b"\t", b"#"):
            return position - 1
    return len(data)


def _stands_for_function(port_name: str) -> bool:
    """`pf0vf3`, `c1pf0sf88`: ports of a card's switch that lead to a virtual function."""
    _, physical, rest = port_name.partition("pf")
    number = rest.lstrip("0123456789")
    return bool(physical) and number != rest and number.startswith(("vf", "sf"))


def _is_radio(here: Path) -> bool:
    if _is_link(here / "phy80211"):
        return True
    lines = _text(here / "uevent").split("\n")
    return any(line == f"DEVTYPE={kind}" for line in lines for kind in RADIO_TYPES)


def _pci_function(device: Path | None) -> Path | None:
    """The folder of the PCI function that a device is, or hangs from."""
    places = (device, *device.parents) if device else ()
    return next((place for place in places if _is_pci_address(place.name)), None)


def _is_pci_address(text: str) -> bool:
    """Like 0000:00:03.0; a domain may be longer."""
    return (
        len(text) >= 12
        and text[-8] == text[-5] == ":"
        and text[-2] == "."
        and not (text[:-8] + text[-7:-5] + text[-4:-2] + text[-1]).strip("0123456789abcdef")
    )


def _onboard(function: Path | None) -> int:
    """The number that the firmware gives to a NIC on the board: by ACPI, else by SMBIOS; 0 for none."""
    if function is None:
        return 0
    return _number(function / "acpi_index", 0) or _number(function / "index", 0)


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:
        return False


def _target(link: Path) -> str:
    try:
        return link.readlink().name
    except OSError:
        return ""


def _number(path: Path, default: int) -> int:
    text = _text(path)
    try:
        return int(text, 0)
    except ValueError:
        return default


def _hexadecimal(path: Path) -> str:
    digits = _text(path).lower().removeprefix("0x")
    return digits if len(digits) == 4 and not digits.strip("0123456789abcdef") else ""


def _text(path: Path) -> str:
    return _clean(_bytes(path, LIMIT_BYTES))


def _bytes(path: Path, limit: int) -> bytes:
    """Up to `limit` bytes of a file; none when it cannot be read, as `speed` while the link is down."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError:
        return b""


def _clean(data: bytes) -> str:
    return data.decode(errors="replace").strip()
