"""QEMU's monitor (QMP) and the guest agent, over their Unix sockets; the protocol is qemu.qmp's."""

from __future__ import annotations

import base64
import contextlib
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from nested_xen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

# a socket that is not there yet is tried again below
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

CONNECT_S = 20
COMMAND_S = 60
AGENT_PING_S = 2
POLL_S = 0.05
AGENT_POLL_S = 1.0
"""The longest time between two questions to the guest agent: each costs an emulated dom0 a line in its journal."""


T = TypeVar("T")


class _Bounded(QEMUMonitorProtocol):
    """The library waits for ever to connect and to close: QEMU serves one client at a time, and may be stuck."""

    def _sync(self, future: Awaitable[T], timeout: float | None = None) -> T:
        return super()._sync(future, CONNECT_S if timeout is None else timeout)


@contextlib.contextmanager
def monitor(folder: Path) -> Iterator[Monitor]:
    """The machine monitor of a host, whose folder holds the socket `qmp`."""
    with _connected(folder / "qmp", negotiate=True) as protocol:
        yield Monitor(protocol)


class _Peer:
    """Somebody who takes commands by their QMP names; underscores in argument names stand for dashes."""

    who: str

    def __init__(self, protocol: QEMUMonitorProtocol) -> None:
        self._protocol = protocol

    def command(self, name: str, /, **arguments: object) -> Any:  # the answer's shape depends on the command
        """Run a command and return its answer. Raises HostError when it is refused or not answered."""
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            answer = self._protocol.cmd_obj({"execute": name, "arguments": given, "id": uuid.uuid4().hex})
        except (QMPError, TimeoutError, OSError) as error:
            raise HostError(f"{self.who} does not answer {name}: {error or type(error).__name__}") from error
        if "error" in answer:
            raise HostError(f"{self.who} refuses {name}: {answer['error'].get('desc')}")
        return answer["return"]


class Monitor(_Peer):
    """The machine monitor."""

    who = "QEMU"

    def await_event(self, name: str, /, *, deadline_s: float = COMMAND_S, **data: object) -> None:
        """Wait for an event whose data holds `data`, also one that came since this monitor was opened."""
        deadline = time.monotonic() + deadline_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self._protocol.pull_event(wait=left) or {}
            except TimeoutError:
                break
            except (QMPError, OSError) as error:
                raise HostError(f"QEMU is gone before it reports {name}: {error}") from error
            if event.get("event") == name and data.items() <= event.get("data", {}).items():
                return
        raise HostError(f"QEMU does not report {name} {data} within {deadline_s:g} s")

    def save(self, state: Path, *, deadline_s: float = 120) -> None:
        """Stop the machine and write its state (memory and devices, not disks) to a file."""
        self.command("stop")
        self.command("migrate-set-parameters", max_bandwidth=1 << 34)
        self.command("migrate", uri=f"exec:cat > {state}")
        self._await_migration("save", deadline_s)

    def load(self, state: Path, *, deadline_s: float = 120) -> None:
        """Read a state into a machine started with `-incoming defer`, and let it run."""
        self.command("migrate-incoming", uri=f"exec:cat {state}")
        self._await_migration("load", deadline_s)
        self.command("cont")

    def _await_migration(self, verb: str, deadline_s: float) -> None:
        deadline = time.monotonic() + deadline_s
        while (status := self.command("query-migrate").get("status")) != "completed":
            if status in {"failed", "cancelled"} or time.monotonic() > deadline:
                raise HostError(f"QEMU could not {verb} the machine's state: {status}")
            time.sleep(POLL_S)


@contextlib.contextmanager
def agent(
    folder: Path, *, deadline_s: float = 20, hopeless: Callable[[], None] = lambda: None
) -> Iterator[Agent]:
    """The guest agent of a host, whose folder holds the socket `qga`; it needs neither network nor ssh.

    Raises HostError when it does not answer within the deadline (dom0 has not booted that far), or whatever
    `hopeless` raises, which is asked between two tries.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        with _connected(folder / "qga", negotiate=False) as protocol:
            found = Agent(protocol)
            protocol.settimeout(AGENT_PING_S)
            if found.answers():
                protocol.settimeout(COMMAND_S)
                yield found
                return
        hopeless()
        if time.monotonic() > deadline:
            raise HostError(f"the guest agent does not answer within {deadline_s:g} s")


class Agent(_Peer):
    """The guest agent inside dom0."""

    who = "the guest agent"

    def answers(self) -> bool:
        try:
            self.command("guest-ping")
        except HostError:
            return False
        return True

    def execute(self, argv: list[str], *, stdin: str = "", deadline_s: float = 60) -> tuple[int, str]:
        """Run a program in dom0 to its end; returns exit code and output (both streams)."""
        data = base64.b64encode(stdin.encode()).decode()
        started = self.command("guest-exec", path=argv[0], arg=argv[1:], input_data=data, capture_output=True)
        deadline, nap_s = time.monotonic() + deadline_s, POLL_S
        while not (status := self.command("guest-exec-status", pid=started["pid"]))["exited"]:
            if time.monotonic() > deadline:
                raise HostError(f"{argv} did not end in dom0 within {deadline_s:g} s")
            time.sleep(nap_s)
            nap_s = min(nap_s * 1.5, AGENT_POLL_S)
        output = base64.b64decode(status.get("out-data", "")) + base64.b64decode(status.get("err-data", ""))
        return status.get("exitcode", -status.get("signal", 1)), output.decode(errors="replace")


@contextlib.contextmanager
def _connected(socket: Path, *, negotiate: bool) -> Iterator[QEMUMonitorProtocol]:
    protocol = _Bounded(str(socket))
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            protocol.connect(negotiate=negotiate)
            break
        except Exception as error:
            if time.monotonic() > deadline:
                raise HostError(f"QEMU does not answer on {socket}: {error}") from error
            time.sleep(POLL_S)
            protocol = _Bounded(str(socket))
    protocol.settimeout(COMMAND_S)
    try:
        yield protocol
    finally:
        with contextlib.suppress(Exception):
            protocol.close()
