"""Link settings and offloads of devices, read and set through the kernel's ethtool family.

The words are those of the `ethtool-…` keys (networking.md 1.6): speed, duplex, autoneg, advertise; rx, tx, sg, tso,
gso, gro, lro. Each of the latter stands for all of the kernel's features of that kind, as in the program ethtool. What
was set is read back: what the driver does not do is an error that names key and driver.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

from hostagent.errors import BugError, KernelError
from hostagent.named import NamedTuple
from hostagent.net import ethtool_wire as wire
from hostagent.net.wire_answers import DUMP_INTERRUPTED, NLMSG_DONE, NLMSG_ERROR, decode_error, messages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hostagent.net.ethtool_wire import Features, LinkModes

    Settings = Mapping[str, int | str]

LINK_KEYS = frozenset(("speed", "duplex", "autoneg", "advertise"))
OFFLOADS = {
    "rx": "rx-checksum",
    "tx": "tx-checksum-*",
    "sg": "tx-scatter-gather*",
    "tso": "tx-tcp*",
    "gso": "tx-generic-segmentation",
    "gro": "rx-gro",
    "lro": "rx-lro",
}
"""The features that each key stands for, by the kernel's names; a star stands for any rest."""
ACCOMPANYING = frozenset(
    ("tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation", "tx-tcp-accecn-segmentation")
)
"""They are switched with their key and say nothing of whether it is on: some stay on when the kernel drops the rest."""

GENERIC = 16  # NETLINK_GENERIC
SOL_NETLINK, CAP_ACK, EXT_ACK = 270, 10, 11
DATAGRAM_BYTES = 1 << 16
RECEIVE_BYTES = 1 << 20
ANSWER_S = 30
"""A driver may ask its card, which takes its time; this only keeps a fault from holding us for ever."""
LOOKS = 10
SIOCETHTOOL, GET_DRIVER = 0x8946, 3
DRIVER_BYTES = 196  # struct ethtool_drvinfo: the command, then the driver's name in 32 bytes

HINTS = {
    errno.EPERM: "run as root; if you are, see whether lockdown or a security module denies it (dmesg)",
    errno.ENODEV: "the device is not there: look at ip link",
    errno.ENOENT: "the kernel has no ethtool over netlink: it must be 5.6 or later",
}


class EthtoolError(KernelError):
    """Settings of a device that could not be read, or that its driver did not take.

    `keys` are those not taken, with `ethtool-` before them as in other_config; `driver` whose they are; `errno` and
    `words` the kernel's, 0 and empty where it agreed and did not do it.
    """

    def __init__(
        self,
        found: str,
        *,
        hint: str,
        number: int = 0,
        words: str = "",
        keys: tuple[str, ...] = (),
        driver: str = "",
    ) -> None:
        super().__init__(found, hint=hint)
        self.errno = number
        self.words = words
        self.keys = keys
        self.driver = driver


class Names(NamedTuple):
    """Which bits of this kernel's mean what."""

    size: int
    groups: Mapping[str, int]
    """Key of OFFLOADS → its features."""
    decisive: Mapping[str, int]
    """Key → those of its features that say whether it is on."""


class Modes(NamedTuple):
    """The link modes of this kernel: bit → Mb/s and duplex. Bits of other things, like pause frames, are not in it."""

    size: int
    of: Mapping[int, tuple[int, str]]

    @property
    def mask(self) -> int:
        return sum(1 << bit for bit in self.of)


def group(names: Sequence[str]) -> Names:
    """The features of each key, from the kernel's names of them."""
    groups = dict.fromkeys(OFFLOADS, 0)
    decisive = dict.fromkeys(OFFLOADS, 0)
    for bit, name in enumerate(names):
        for key, pattern in OFFLOADS.items():
            if name == pattern or (pattern[-1] == "*" and name.startswith(pattern[:-1])):
                groups[key] |= 1 << bit
                decisive[key] |= 0 if name in ACCOMPANYING else 1 << bit
    return Names(len(names), groups, decisive)


def modes_from(names: Sequence[str]) -> Modes:
    """Speed and duplex of each mode, from the kernel's names of them, which are like `1000baseT/Full`."""
    found = {}
    for bit, name in enumerate(names):
        speed, base, rest = name.partition("base")
        duplex = rest.rpartition("/")[2].lower()
        if base and speed.isascii() and speed.isdigit() and duplex in wire.DUPLEX_NUMBERS:
            found[bit] = (int(speed), duplex)
    return Modes(len(names), found)


def states(features: Features, names: Names) -> dict[str, bool]:
    """Whether each offload is on, which it is when any of its decisive features is."""
    return {key: bool(features.active & bits) for key, bits in names.decisive.items()}


def seen(found: LinkModes, wanted: Settings, modes: Modes) -> dict[str, int | str]:
    """What each wanted key is, equal to what is wanted when that is so (for `verify.Around.link`).

    With autonegotiation, speed and duplex are what is advertised, not what came of it; of the advertised modes, only
    those asked for count, and such bits as were asked for. What cannot be told, as a speed while there is no link,
    counts as wanted.
    """
    advertised = [pair for bit, pair in modes.of.items() if found.autoneg and found.advertised >> bit & 1]
    answer: dict[str, int | str] = {}
    for key, value in wanted.items():
        if key == "autoneg":
            answer[key] = "on" if found.autoneg else "off"
        elif key == "advertise":
            answer[key] = found.advertised & (modes.mask | int(value))
        else:
            offered = sorted({pair[key == "duplex"] for pair in advertised}, key=str)
            is_: int | str = found.speed if key == "speed" else found.duplex
            if len(offered) == 1:
                is_ = offered[0]
            elif offered:
                is_ = ",".join(str(each) for each in offered)
            answer[key] = is_ or value
    return answer


def restoring(found: LinkModes, modes: Modes) -> dict[str, int | str]:
    """The settings that bring this back: the undo of any change of the link modes."""
    if found.autoneg:
        advertised = found.advertised & modes.mask
        return {"autoneg": "on", **({"advertise": advertised} if advertised else {})}
    known: dict[str, int | str] = {"autoneg": "off"}
    if found.speed and found.duplex:
        known |= {"speed": found.speed, "duplex": found.duplex}
    return known


class Ethtool:
    """A socket in the network namespace of the thread that makes it. A context manager; for one thread at a time."""

    def __init__(self) -> None:
        self._sequence = 0
        self._names: Names | None = None
        self._modes: Modes | None = None
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, GENERIC)
        except OSError as error:
            raise _failed("no generic netlink socket", error.errno or 0) from error
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            for option in (CAP_ACK, EXT_ACK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
            self._socket.settimeout(ANSWER_S)
            bodies = self._ask(wire.ask_family(), "the ethtool family")
            self._family = wire.family_of(bodies[0] if bodies else b"")
        except OSError as error:
            self._socket.close()
            raise _failed("no generic netlink socket", error.errno or 0) from error
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Ethtool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    @property
    def names(self) -> Names:
        if self._names is None:
            self._names = group(self._strings(wire.FEATURE_NAMES))
        return self._names

    @property
    def modes(self) -> Modes:
        if self._modes is None:
            self._modes = modes_from(self._strings(wire.LINK_MODE_NAMES))
        return self._modes

    def features(self, device: str = "") -> dict[str, dict[str, bool]]:
        """Offloads (on, off) of each device, or of one; raises EthtoolError. One question, whatever their number."""
        return {each.device: states(each, self.names) for each in self._features(device)}

    def link_modes(self, device: str) -> LinkModes | None:
        """How a device makes its link; None for one that knows no such thing. Raises EthtoolError."""
        try:
            bodies = self._ask(wire.ask(self._family, wire.LINK_MODES_GET, device), f"link modes of {device}")
        except EthtoolError as error:
            if error.errno == errno.EOPNOTSUPP:
                return None
            raise
        return wire.link_modes_of(bodies[0]) if bodies else None

    def set_features(self, device: str, wanted: Mapping[str, bool]) -> None:
        """Have these offloads on or off; what can be done is done. Raises EthtoolError, which names the rest."""
        if not wanted.keys() <= OFFLOADS.keys():
            raise BugError(f"no offloads: {sorted(wanted.keys() - OFFLOADS.keys())}", hint="report this")
        value = mask = 0
        for features in self._features(device):
            is_ = states(features, self.names)
            for key, on in wanted.items():
                bits = self.names.groups[key] & features.changeable if is_[key] != on else 0
                mask |= bits
                value |= bits if on else 0
        refusal = None
        if mask:
            request = wire.set_features(self._family, device, value, mask, self.names.size)
            refusal = self._try(request, f"offloads of {device}")
        is_ = self.features(device).get(device, {})
        self._verify(device, wanted, is_, refusal)

    def set_link(self, device: str, wanted: Settings) -> None:
        """Have these link modes; the link goes down and comes back. Raises EthtoolError, which names what was refused.

        `wanted` is as `devices.Device.link`: speed (Mb/s), duplex (half, full), autoneg (on, off), advertise (a mask of
        modes: pause frames and the like stay as they are unless their bits are in it). A speed with autonegotiation on
        restricts what is advertised.
        """
        self._check(wanted)
        if not wanted:
            return
        found = self.link_modes(device)
        mask = (found.supported | found.advertised) & self.modes.mask if found is not None else 0
        request = wire.set_link_modes(self._family, device, wanted, mask, self.modes.size)
        refusal = self._try(request, f"link modes of {device}")
        found = self.link_modes(device)
        is_ = seen(found, wanted, self.modes) if found is not None else {}
        self._verify(device, wanted, is_, refusal)

    def driver(self, device: str) -> str:
        """The name of a device's driver, also of one without hardware; empty when the kernel does not say."""
        import array
        import fcntl

        answer = array.array("B", struct.pack("=I", GET_DRIVER).ljust(DRIVER_BYTES, b"\0"))
        request = struct.pack("16sP16x", os.fsencode(device), answer.buffer_info()[0])
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_:
                fcntl.ioctl(any_, SIOCETHTOOL, request)
        except OSError:
            return ""
        return os.fsdecode(answer.tobytes()[4:36].partition(b"\0")[0])

    def _check(self, wanted: Settings) -> None:
        right = (
            wanted.keys() <= LINK_KEYS
            and wanted.get("duplex", "full") in wire.DUPLEX_NUMBERS
            and wanted.get("autoneg", "on") in ("on", "off")
            and all(isinstance(wanted[key], int) for key in ("speed", "advertise") if key in wanted)
        )
        if not right:
            raise BugError(f"no link settings of {wanted!r}", hint="report this")

    def _verify(
        self,
        device: str,
        wanted: Mapping[str, int | str | bool],
        is_: Mapping[str, int | str | bool],
        refusal: EthtoolError | None,
    ) -> None:
        wrong = [key for key, value in wanted.items() if is_.get(key) != value]
        if not wrong:
            return
        driver = self.driver(device)
        told = ", ".join(f"ethtool-{key}={_word(wanted[key])} (is {_word(is_.get(key))})" for key in wrong)
        raise EthtoolError(
            f"{device}: its driver {driver or '(unknown)'} does not take {told}"
            + (f": {refusal.words}" if refusal else ""),
            hint=f"`ethtool {device}` and `ethtool -k {device}` show what it can do; remove or change the key",
            number=refusal.errno if refusal else 0,
            keys=tuple(f"ethtool-{key}" for key in wrong),
            driver=driver,
        )

    def _features(self, device: str) -> list[Features]:
        """Of one device or of all of them."""
        what = f"offloads of {device or 'all devices'}"
        return [
            wire.features_of(body)
            for body in self._ask(wire.ask(self._family, wire.FEATURES_GET, device), what)
        ]

    def _strings(self, which: int) -> tuple[str, ...]:
        bodies = self._ask(wire.ask_names(self._family, which), "the names of settings")
        return wire.names_of(bodies[0]) if bodies else ()

    def _try(self, request: bytes, what: str) -> EthtoolError | None:
        """Do it; what the kernel answers when it does not, unless the device is not there or we may not at all."""
        try:
            self._ask(request, what)
        except EthtoolError as error:
            if error.errno in HINTS:
                raise
            return error
        return None

    def _ask(self, request: bytes, what: str) -> list[bytes]:
        """The bodies of the answers; an interrupted dump is asked for again. Raises EthtoolError."""
        for _ in range(LOOKS):
            self._sequence += 1
            try:
                self._socket.sendall(wire.numbered(request, self._sequence))
                bodies = self._answers(what)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue
                raise _failed(
                    what, errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno or 0
                ) from error
            if bodies is not None:
                return bodies
        raise _failed(what, errno.EINTR)

    def _answers(self, what: str) -> list[bytes] | None:
        """What comes up to the acknowledgement, None if a dump was interrupted. Always reads to its end."""
        bodies = []
        interrupted = False
        while True:
            for message in messages(self._socket.recv(DATAGRAM_BYTES)):
                if message.sequence != self._sequence:
                    continue
                interrupted |= bool(message.flags & DUMP_INTERRUPTED)
                if message.type not in (NLMSG_DONE, NLMSG_ERROR):
                    bodies.append(message.body)
                    continue
                number, words = decode_error(message)
                if number:
                    raise _failed(what, number, words)
                return None if interrupted else bodies


def _failed(what: str, number: int, words: str = "") -> EthtoolError:
    said = words or os.strerror(number)
    return EthtoolError(
        f"{what}: {said} ({errno.errorcode.get(number, number)})",
        hint=HINTS.get(number, "look at the device with: ethtool, ethtool -k"),
        number=number,
        words=said,
    )


def _word(value: object) -> str:
    """As it is written in other_config."""
    if value is None:
        return "unknown"
    return ("off", "on")[value] if isinstance(value, bool) else str(value)
