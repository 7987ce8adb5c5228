"""The network as a file: from it the host raises its interfaces with no daemon and no database (networking.md 2.4).

`STATE/net/cache.json` is the newest generation, `cache-verified.json` the last one with which the management interface
was seen to work; both are one JSON object. Its checksum is over the bytes of `content`, as they stand in the file: what
was cut off, or edited by hand, is not used. A damaged file is set aside, told, and the verified one used instead.
Only values that differ from a field's default are written.
"""

from __future__ import annotations

import errno
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostagent.errors import OperatorError
from hostagent.files import FileError, read_bounded, write_atomic
from hostagent.named import NamedTuple
from hostagent.net.records import Bond, Network, Pif, Records, Vlan

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path("net")
"""Below STATE: the cache, the journal and the history of the network."""
NEWEST, VERIFIED = "cache.json", "cache-verified.json"
DAMAGED = ".damaged"
"""What is set aside gets this behind its name; the one set aside before is replaced."""
SCHEMA = 1
LIMIT_BYTES = 64 << 20  # 4000 VLAN networks make 3 MB
CLASSES: Mapping[str, type] = {"pifs": Pif, "networks": Network, "bonds": Bond, "vlans": Vlan}


class CacheError(OperatorError):
    """No cache that can be used: missing, damaged, of another schema or another host."""


class Position(NamedTuple):
    """A NIC's place for good (networking.md 1.8); one that is not `present` keeps it."""

    position: int
    name: str
    mac: str
    slot: str = ""
    """Where it is plugged in, e.g. a PCI address."""
    port: int = 0
    present: bool = True


class Cached(NamedTuple):
    """A generation. `verified`: the management interface was seen to work with it."""

    records: Records
    generation: int
    verified: bool = False
    positions: tuple[Position, ...] = ()


class Found(NamedTuple):
    """What was read, and what is to be told about it: damaged files, an older generation in use."""

    cached: Cached
    told: tuple[str, ...] = ()
    former: Mapping[str, str] = {}
    """By the name of a NIC in what was read, the one that it has now, where that is another (`remap.py`)."""


def digest(records: Records) -> str:
    """A short name of what records say: of two journals or files, whether they mean the same. Not `currently_attached`,
    which changes with what is done and not with what is wanted.
    """
    return f"{zlib.crc32(_text(still(records)).encode()):08x}"


def still(records: Records) -> Records:
    """The records without what changes with what is done, and not with what is wanted."""
    pifs = {
        ref: pif._replace(currently_attached=False) if pif.currently_attached else pif
        for ref, pif in records.pifs.items()
    }
    return records._replace(pifs=pifs)


def encode(cached: Cached) -> bytes:
    """A generation as the file holds it."""
    content = {
        "generation": cached.generation,
        "verified": cached.verified,
        "positions": [_changed(position) for position in cached.positions],
        **_plain(cached.records),
    }
    inner = _text(content).encode()
    return b'{"schema":%d,"checksum":"%08x","content":%s}\n' % (SCHEMA, zlib.crc32(inner), inner)


def decode(data: bytes) -> Cached:
    """The generation that a file holds. Raises CacheError whose sentence fits behind the file's name."""
    head, colon, rest = data.partition(b',"content":')
    if not colon or not rest.endswith(b"}\n"):
        raise _unfit("is not whole, or not ours")
    inner = rest[:-2]
    try:
        outer = json.loads(head + b"}")
        schema, checksum = outer["schema"], outer["checksum"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _unfit("does not begin as ours") from None
    if schema != SCHEMA:
        raise _unfit(f"has schema {schema!r:.40}, and this version knows {SCHEMA}")
    if checksum != f"{zlib.crc32(inner):08x}":
        raise _unfit("is damaged: its checksum does not fit")
    try:
        return _cached(json.loads(inner))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unfit(f"holds something else than a network: {error!s:.100}") from error


def write(
    folder: Path, records: Records, *, positions: tuple[Position, ...] = (), verified: bool = False
) -> Cached:
    """Make `records` the newest generation; on the disk when this returns. `verified` ones become the last verified.

    What says the same as the newest one is not written again. Raises FileError, BusyError.
    """
    try:
        before = _load(folder / NEWEST)
    except (CacheError, FileError):
        before = None
    if before is not None and before.records == records and before.positions == positions:
        return mark_verified(folder, before) if verified and not before.verified else before
    number = max((before.generation if before else 0), _generation(folder / VERIFIED)) + 1
    cached = Cached(records, number, verified, positions)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    data = encode(cached)
    write_atomic(folder / NEWEST, data, mode=0o600)
    if verified:
        write_atomic(folder / VERIFIED, data, mode=0o600)
    return cached


def mark_verified(folder: Path, cached: Cached) -> Cached:
    """The management interface works with this generation: it becomes the one to go back to. Raises FileError."""
    cached = cached._replace(verified=True)
    data = encode(cached)
    write_atomic(folder / VERIFIED, data, mode=0o600)
    if _generation(folder / NEWEST) <= cached.generation:  # else somebody wrote a newer one meanwhile
        write_atomic(folder / NEWEST, data, mode=0o600)
    return cached


def read(folder: Path, host_uuid: str = "") -> Found:
    """The newest generation that can be used, else the last verified one.

    A damaged file is set aside. With `host_uuid`, what belongs to another host (a cloned disk) is not used.
    Raises CacheError when there is none, FileError when the disk does not let us look.
    """
    told: list[str] = []
    for name in (NEWEST, VERIFIED):
        path = folder / name
        try:
            cached = _load(path)
        except CacheError as error:
            told.append(f"{path} {error.found}{_set_aside(path)}")
            continue
        except FileError as error:
            if error.errno != errno.ENOENT:
                raise
            continue
        if host_uuid and cached.records.host_uuid != host_uuid:
            told.append(f"{path} is of host {cached.records.host_uuid}, and this is {host_uuid}")
            continue
        if name == VERIFIED:
            told.append(f"using generation {cached.generation}, the last verified one")
        return Found(cached, tuple(told))
    raise CacheError(
        f"there is no record of the network to work from: {'; '.join(told) or f'no {folder / NEWEST}'}",
        hint="start the daemon, which writes it (systemctl start hostagent), or make a minimal one:"
        " interface-reconfigure --force BRIDGE rewrite --device=… --mac=… --mode=dhcp",
    )


def read_verified(folder: Path) -> Cached | None:
    """The last verified generation (rung 2 of the emergency ladder); None where there is none that can be used."""
    try:
        return _load(folder / VERIFIED)
    except (CacheError, FileError):
        return None


def minimal(
    bridge: str,
    device: str,
    mac: str,
    *,
    mode: str,
    ip: str = "",
    netmask: str = "",
    gateway: str = "",
    host_uuid: str = "",
) -> Records:
    """The records of first boot and reset: one management PIF on one network (networking.md 2.4).

    `host_uuid` as the inventory has it: `read` passes over what is of another host.
    """
    pif = Pif(
        ref="OpaqueRef:initial-pif",
        uuid=f"{device}Pif",
        device=device,
        network="OpaqueRef:initial-network",
        mac=mac.lower(),
        physical=True,
        management=True,
        ip_mode={"dhcp": "DHCP", "static": "Static"}[mode],
        ip=ip,
        netmask=netmask,
        gateway=gateway,
    )
    network = Network(pif.network, "InitialManagementNetwork", "Initial management network", bridge)
    return Records(host_uuid, {pif.ref: pif}, {network.ref: network}, {}, {}, bridge)


def _load(path: Path) -> Cached:
    return decode(read_bounded(path, limit_bytes=LIMIT_BYTES))


def _generation(path: Path) -> int:
    try:
        return _load(path).generation
    except (CacheError, FileError):
        return 0


def _set_aside(path: Path) -> str:
    aside = path.with_name(path.name + DAMAGED)
    try:
        path.rename(aside)
    except OSError as error:
        return f" (and could not be set aside: {error.strerror})"
    return f" (set aside as {aside.name})"


def _unfit(found: str) -> CacheError:
    return CacheError(found, hint="the daemon writes it anew at its start: systemctl restart hostagent")


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _plain(records: Records) -> dict[str, object]:
    return {
        "host_uuid": records.host_uuid,
        "bridge": records.bridge,
        "pool_other_config": dict(records.pool_other_config),
        **{name: [_changed(one) for one in getattr(records, name).values()] for name in CLASSES},
    }


def _changed(record: Any) -> dict[str, object]:
    defaults = record._field_defaults
    return {
        name: value
        for name, value in zip(record._fields, record, strict=True)
        if name not in defaults or value != defaults[name]
    }


def _cached(content: Any) -> Cached:
    pifs, networks, bonds, vlans = (
        {one.ref: one for one in _all(cls, content[name])} for name, cls in CLASSES.items()
    )
    records = Records(
        _typed(content["host_uuid"], str),
        pifs,
        networks,
        bonds,
        vlans,
        _typed(content["bridge"], str),
        _fitting("pool_other_config", content["pool_other_config"], "Mapping[str, str]"),
    )
    return Cached(
        records,
        _typed(content["generation"], int),
        _typed(content["verified"], bool),
        tuple(_all(Position, content["positions"])),
    )


def _all(cls: Any, values: Any) -> list[Any]:
    annotations = {
        name: str(getattr(kind, "__forward_arg__", kind)) for name, kind in cls.__annotations__.items()
    }
    return [
        cls(**{name: _fitting(name, value, annotations[name]) for name, value in fields.items()})
        for fields in values
    ]


def _fitting(name: str, value: Any, kind: str) -> Any:
    """The value of a field, checked: a file that passes its checksum may still be somebody else's."""
    if kind == "str":
        fits = type(value) is str
    elif kind == "int":
        fits = type(value) is int
    elif kind == "bool":
        fits = type(value) is bool
    elif kind == "tuple[str, ...]":
        fits = type(value) is list and all(type(item) is str for item in value)
        value = tuple(value)
    else:
        fits = type(value) is dict and all(type(item) is str for item in value.values())
    if not fits:
        raise TypeError(f"{name} has another type")
    return value


def _typed(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value
