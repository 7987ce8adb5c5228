"""The network's records follow the kernel within a second: a thread fed by netlink events.

A batch of events becomes one transaction. While a change is carried out it waits: what the kernel has then is no state
to record. What is not as the records want it (drift) is told, and repaired where other_config of the PIF or pool has
`repair-drift=true`, or the setting net.repair-drift says so. What only the records have otherwise since the PIF came up
is no drift: it waits for the next plug. What an undo took back stays so until somebody plugs it.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from hostagent.dbsync.change import put
from hostagent.errors import HostagentError
from hostagent.named import NamedTuple
from hostagent.net import cache
from hostagent.net.attached import as_now, attached
from hostagent.net.chains import text as name_of
from hostagent.net.devices import UP, Kernel, Link, Route
from hostagent.net.model import survey
from hostagent.net.verify import differences
from hostagent.netctl import observed
from hostagent.netctl.leases import Leases, up_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hostagent.dbsync.change import Change
    from hostagent.net.devices import Dns
    from hostagent.net.dhcp_lease import Leased
    from hostagent.net.follow import Event
    from hostagent.net.operation import Operation
    from hostagent.net.records import Records
    from hostagent.net.verify import Difference
    from hostagent.netctl.control import Control

log = logging.getLogger(__name__)

GATHER_S = 0.2
"""Events come in bursts; this long more of them are waited for."""
LOOK_S = 0.5
"""How often the database is looked at for changes that no event tells of."""
AGAIN_S = 2.0
"""After a failure."""
CLASSES = ("PIF", "network", "Bond", "VLAN", "pool")
REPAIR = "repair-drift"
REPAIRS, REPAIRS_S = 3, 600.0
"""So often in so many seconds a PIF is repaired: who undoes it each time is a person's business."""


class Following(Protocol):
    """As `net.follow.Follower`."""

    def wait(self, timeout_s: float) -> bool: ...

    def read(self) -> list[Event] | None: ...

    def close(self) -> None: ...


class Eyes(NamedTuple):
    """What the thread asks of the host, and tells it."""

    follow: Callable[[], Following]
    look: Callable[[], Kernel]
    speed: Callable[[str], observed.Speed]
    leased: Callable[[str, int], Leased | None]
    """The lease of a bridge and family."""
    keep_lease: Callable[[str, Leased], None]
    resolve: Callable[[Dns, str], None]
    """Name servers of the lease of this bridge become the host's."""
    serve: Callable[[str, str], None]
    """Listen on the address of this bridge and family; where it listens already, nothing happens."""
    carry_out: Callable[[Sequence[Operation]], None]
    """Over netlink."""
    keep: Callable[[Records], object]
    """The records as the cache that the next boot begins with."""
    repair: bool = False
    left: Callable[[Records, Kernel], Mapping[str, str]] = lambda *_: {}
    """PIFs that are not to be repaired, and why."""
    taken_back: Callable[[], Mapping[str, str]] = dict
    """PIFs that only a person brings up again, and why; nor does the repair of another PIF."""


class Keeper:
    """One for each daemon."""

    def __init__(self, control: Control, eyes: Eyes, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.drift: tuple[Difference, ...] = ()
        """What is not as the records want it, at the last look."""
        self.due: tuple[Difference, ...] = ()
        """What the records had otherwise first: it comes when the PIF is plugged next."""
        self.lost: frozenset[str] = frozenset()
        """PIFs that were attached, and are not without anybody having asked for it."""
        self._control = control
        self._eyes = eyes
        self._clock = clock
        self._kernel = Kernel({})
        self._records: Records | None = None
        """Of the round before."""
        self._losses = 0
        self._generation = -1
        self._kept = ""
        self._address = ""
        """Of the management interface, as it was written last; S28.m3 writes the first one."""
        self._leases = Leases()
        self._repaired: dict[str, list[float]] = {}
        self._left: set[str] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # --- the thread ---

    def start(self) -> None:
        """Begin; a second time is no error."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="network", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End; what is under way is waited for."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        """Each life of the socket runs in a worker, whose future holds what it raises: the thread goes on."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="network") as worker:
            while not self._stop.is_set():
                error = worker.submit(self._follow).exception()
                if isinstance(error, HostagentError):
                    log.warning("following the network: %s; %s", error.found, error.hint)
                elif error is not None:
                    log.error("following the network ended with a defect", exc_info=error)
                self._stop.wait(AGAIN_S)

    def _follow(self) -> None:
        follower = self._eyes.follow()  # first: what changes during the look is told
        try:
            self._kernel = self._eyes.look()
            self.refresh(follower)
            while not self._stop.is_set():
                if follower.wait(LOOK_S):
                    self._stop.wait(GATHER_S)
                    self.refresh(follower)
                elif self._database_changed():
                    self.refresh(follower)
        finally:
            follower.close()

    # --- one round ---

    def refresh(self, follower: Following) -> list[Change]:
        """Take in what happened, write what differs, tell and repair drift. What was written."""
        with self._control.turn():
            self._take_in(follower)
            changes = self._write()
            if repaired := self._to_repair():
                self._repair(repaired)
                self._kernel = self._eyes.look()
                changes += self._write()
        return changes

    def _take_in(self, follower: Following) -> None:
        while (events := follower.read()) != []:
            after = taken_in(self._kernel, events) if events is not None else None
            if events is None:
                self._losses += 1
                log.warning("the kernel dropped events: looking at everything anew (resync %d)", self._losses)
            self._kernel = self._eyes.look() if after is None else after

    def _write(self) -> list[Change]:
        database = self._control.database
        with database.read() as view:
            records = self._control.records(view)
            self._generation = view.generation
        self._leases.follow(records, self._kernel, self._eyes)
        family = self._control.effect.management_address_type()
        seen = observed.observe(
            records,
            self._kernel,
            family=family,
            speed=self._eyes.speed,
            servers=self._leases.servers.get,
        )
        self._look_for_drift(records)
        now = dt.datetime.now(dt.UTC)
        with database.write() as transaction:
            changes = observed.write(transaction, seen, now)
            if seen.address != self._address:
                host = self._control.host(transaction)
                changes += put(transaction, "host", host, {"address": seen.address})
        self._address = seen.address
        if seen.address:
            self._serve(records.bridge, family)
        self._keep(records)
        return changes

    def _serve(self, bridge: str, family: str) -> None:
        try:
            self._eyes.serve(bridge, family)
        except HostagentError as error:
            log.warning("listening on the management address: %s; %s", error.found, error.hint)

    def _keep(self, records: Records) -> None:
        digest = cache.digest(records)
        if digest == self._kept:
            return
        try:
            self._eyes.keep(records)
            self._kept = digest
        except HostagentError as error:
            log.warning("the network's cache: %s; %s", error.found, error.hint)

    def _database_changed(self) -> bool:
        with self._control.database.read() as view:
            return any(view.changed(self._generation, cls) for cls in CLASSES)

    # --- drift ---

    def _look_for_drift(self, records: Records) -> None:
        up = attached(records, self._kernel)
        meant = {ref for ref, pif in records.pifs.items() if pif.currently_attached}
        lost = frozenset((meant | self.lost) & records.pifs.keys() - up)
        taken_back = self._eyes.taken_back()
        for ref in sorted(lost - self.lost - taken_back.keys()):
            pif = records.pifs[ref]
            log.warning(
                "PIF %s (%s) is not up any more, and nobody asked for it: hostagent pif explain %s",
                pif.uuid,
                pif.device,
                pif.uuid,
            )
        self.lost = lost
        drift = self._drift(records)
        for one in drift:
            if one not in self.drift and not (one.serves and taken_back.keys() >= {*one.serves}):
                log.warning("drift: %s: %s is %s, not %s", one.device, one.what, one.found, one.wanted)
        self.drift = drift

    def _drift(self, records: Records) -> tuple[Difference, ...]:
        """What differs, without what is due: that differed first when the records changed, and the kernel did not."""
        found = {_what(one): one for one in drifted(records, self._kernel)}
        due = found.keys() & {*map(_what, self.due)}
        new = found.keys() - due - {*map(_what, self.drift)}
        if new and self._records is not None:
            new -= {*map(_what, drifted(self._records, self._kernel))}
            for one in (found[what] for what in sorted(new)):
                log.info(
                    "%s: %s is %s, and %s after the next plug", one.device, one.what, one.found, one.wanted
                )
            due |= new
        self._records = records
        self.due = tuple(one for what, one in found.items() if what in due)
        return tuple(one for what, one in found.items() if what not in due)

    def _to_repair(self) -> tuple[str, ...]:
        if not self.lost and not self.drift:
            return ()
        with self._control.database.read() as view:
            records = self._control.records(view)
        by_all = self._eyes.repair or records.pool_other_config.get(REPAIR) == "true"
        hit = dict.fromkeys([*sorted(self.lost), *(ref for one in self.drift for ref in one.serves)])
        left = self._eyes.left(records, self._kernel)
        told = {left[ref] for ref in hit if ref in left}
        held = self._held(records)
        now = self._clock()
        found = []
        for ref in hit:
            pif = records.pifs.get(ref)
            if (
                pif is None
                or not pif.managed
                or ref in left
                or not (by_all or pif.other_config.get(REPAIR) == "true")
            ):
                continue
            if held and (touched := touching(records, ref, self._kernel) & held.keys()):
                told |= {held[one] for one in touched}
                continue
            recent = [at for at in self._repaired.get(ref, ()) if now - at < REPAIRS_S]
            if len(recent) < REPAIRS:
                self._repaired[ref] = [*recent, now]
                found.append(ref)
        self._tell_left(told)
        return tuple(found)

    def _held(self, records: Records) -> dict[str, str]:
        """PIFs that no repair may bring up or change, and why."""
        due = dict.fromkeys(
            (ref for one in self.due for ref in one.serves), "its records were changed since it came up"
        )
        return {
            ref: f"{name_of(records.pifs[ref])} is not repaired: {why}"
            f" (hint: hostagent pif plug {records.pifs[ref].uuid} makes it as its records say)"
            for ref, why in {**due, **self._eyes.taken_back()}.items()
            if ref in records.pifs
        }

    def _tell_left(self, told: set[str]) -> None:
        for line in sorted(told - self._left):
            log.warning("%s", line)
        self._left = told

    def _repair(self, refs: Sequence[str]) -> None:
        with self._control.database.read() as view:
            records = self._control.records(view)
        for ref in refs:  # each is a network of its own: one that fails does not stop the others
            pif = records.pifs[ref]
            try:
                with self._control.effect.bring_up(records, (ref,), was=records, asked=False):
                    log.warning("repaired: PIF %s (%s)", pif.uuid, pif.device)
            except HostagentError as error:
                log.warning("PIF %s (%s) was not repaired: %s", pif.uuid, pif.device, error.found)


# --- pure ---


def drifted(records: Records, kernel: Kernel) -> tuple[Difference, ...]:
    """What of the chains that are up is not as the records want it, as far as the kernel's devices show it.

    A PIF whose records cannot be (a key that was set after it came up) is left out, and stops nobody's check:
    `hostagent net check` tells of it.
    """
    now = as_now(records, kernel)
    return differences(survey(now, up_of(now), links=kernel.by_name()).wanted, kernel)


def touching(records: Records, ref: str, kernel: Kernel) -> set[str]:
    """The PIFs that bringing this one up takes along, changes or displaces, itself among them."""
    found = survey(as_now(records, kernel), (ref,), links=kernel.by_name())
    return {ref, *(one for device in found.wanted.devices for one in device.serves), *found.chains.leaving}


def _what(one: Difference) -> tuple[str, str, str, str]:
    return one.device, one.what, one.wanted, one.found


def taken_in(kernel: Kernel, events: Sequence[Event]) -> Kernel | None:
    """The kernel after these events; None where they do not tell all of it.

    With a link that goes down, or an address, IPv4 routes go without a word.
    """
    links: dict[int, Link] = dict(kernel.links)
    addresses = {(one.device, one.text, one.prefix): one for one in kernel.addresses}
    routes = {_route(one): one for one in kernel.routes}
    for event in events:
        what = event.what
        if isinstance(what, Link):
            if event.gone or (
                what.ifindex in links and links[what.ifindex].flags & UP and not what.flags & UP
            ):
                return None
            links[what.ifindex] = what
        elif isinstance(what, Route):
            _put(routes, _route(what), what, gone=event.gone)
        else:
            if event.gone:
                return None
            addresses[what.device, what.text, what.prefix] = what
    return Kernel(links, tuple(addresses.values()), tuple(routes.values()))


def _route(route: Route) -> tuple[int, str, str, int, int]:
    return route.device, route.destination, route.gateway, route.metric, route.protocol


def _put(
    routes: dict[tuple[int, str, str, int, int], Route],
    key: tuple[int, str, str, int, int],
    route: Route,
    *,
    gone: bool,
) -> None:
    if gone:
        routes.pop(key, None)
    else:
        routes[key] = route
