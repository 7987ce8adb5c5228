"""The daemon: startup, main loop, shutdown.

The main thread serves the local API and feeds the watchdog; the start-up sequence runs in a thread of its
own (`startup/runner.py`), so that `hostagent status` is answered while steps work. Signals only set the
exit code or ask for a reload; nothing but the exit code ends the main loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from hostagent import __version__
from hostagent import log as logs
from hostagent.api.local_socket import SecondInstanceError, listening_socket, only_instance, socket_path
from hostagent.api.service import Service
from hostagent.api.xenapi import XenApi
from hostagent.config import ConfigError, load
from hostagent.errors import BugError, HostagentError
from hostagent.files import FileError
from hostagent.lifecycle import Lifecycle, Phase
from hostagent.sdnotify import Notifier, watchdog_interval_s
from hostagent.startup.report import Ending, Recorder
from hostagent.startup.runner import RESTART_EXIT, run_sequence
from hostagent.startup.state import begin
from hostagent.xen import xenstored

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from types import TracebackType

    from hostagent.config import Paths
    from hostagent.startup.report import Report, StepRecord
    from hostagent.startup.step import Step

log = logging.getLogger(__name__)

CLEAN_EXIT = 0
BUG_EXIT = 2
STEP_MARGIN_S = 30.0
"""Beyond a step's own deadline, before systemd gives up the start: the runner decides first."""
XENSTORED_LOOK_S = 30.0
"""Between two looks whether xenstored is still the one of first contact: two small files each."""
STOP_WAIT_S = 5.0
"""For the start-up thread to note that it was asked to stop; it looks every 0.1 s."""

RESTART_ANSWER_S = 1.0
"""For the answer to a call that asked for a restart."""
THREAD_END_S = 0.1
"""For a thread whose work is done to be gone."""


def run(paths: Paths, overrides: Sequence[str] = (), steps: Sequence[Step] | None = None) -> int:
    """Be the daemon until it should end; returns its exit code. `steps`: instead of the table.

    Raises SecondInstanceError before anything is touched. What else keeps it from starting ends it with BUG_EXIT: exit
    code 1 would be final, and is kept for what only a person can mend.
    """
    if steps is None:
        from hostagent.startup.table import STEPS

        steps = STEPS
    with contextlib.ExitStack() as stack:
        stack.push(_end_as_bug)
        stack.enter_context(only_instance(paths))
        listener = stack.enter_context(listening_socket(socket_path(paths)))
        daemon = Daemon(paths, overrides, steps, listener)
        code = asyncio.run(daemon.serve())
    log.info("ended with exit code %d", code)
    if _threads_left():
        _leave(code)
    return code


def _end_as_bug(
    kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
) -> bool:
    """A defect, or a /run that is full, ends the daemon with BUG_EXIT, so that systemd starts it again; Python's own
    exit code 1 means unusable settings, and is final.
    """
    if kind is None or not issubclass(kind, Exception) or issubclass(kind, SecondInstanceError):
        return False
    if isinstance(error, HostagentError):
        log.critical("%s; hint: %s", error.found, error.hint)
    else:
        log.critical("a defect of hostagent ended the daemon", exc_info=error)
    raise SystemExit(BUG_EXIT)


def _threads_left() -> bool:
    """Whether a thread runs on although it had a moment to end: one that has just told its result needs it."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(THREAD_END_S)
    return threading.active_count() > 1


def _leave(code: int) -> None:
    """End although a step that was given up still runs in its thread, which would hold up a normal exit."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Daemon:
    """One life of the daemon. It is the runner's Observer, and the DaemonHooks of the steps."""

    def __init__(
        self, paths: Paths, overrides: Sequence[str], steps: Sequence[Step], listener: socket.socket
    ) -> None:
        self.config, self._host = begin(paths, overrides=overrides, arguments=tuple(sys.argv[1:]), hooks=self)
        logs.set_up(self.config.log_level, self.config.log_modules)
        self.lifecycle = Lifecycle()
        self._overrides = overrides
        self._steps = steps
        self._notifier = Notifier()
        service = Service(
            paths,
            self.lifecycle,
            time.time(),
            self._set_log_level,
            self._restart,
            lambda: self._api.serving(),
        )
        self._service = service
        self._listener = listener
        self._api: XenApi
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._exit: asyncio.Future[int]
        self._sequence_over: asyncio.Event

    async def serve(self) -> int:
        await self.startup()
        code = await self.main_loop()
        await self.shutdown()
        return code

    async def startup(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._exit = self._loop.create_future()
        self._sequence_over = asyncio.Event()
        self._handle_signals()
        self._api = XenApi(self._service, self._host)
        self._api.serve_local(self._listener)
        log.info("hostagent %s, pid %d, serves %s", __version__, os.getpid(), socket_path(self.config.paths))
        threading.Thread(target=self._run_sequence, name="start-up", daemon=True).start()

    async def main_loop(self) -> int:
        tasks = [asyncio.create_task(work) for work in (self._feed_watchdog(), self._look_at_xenstored())]
        code = await self._exit
        for task in tasks:
            task.cancel()
        return code

    async def shutdown(self) -> None:
        self.lifecycle.stopping()
        self._notifier.stopping("stopping")
        self._stop.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._sequence_over.wait(), STOP_WAIT_S)
        await self._api.stop()
        if self._host.scheduler is not None:
            self._host.scheduler.stop()
        self._host.close()

    # --- start-up sequence: called from its threads ---

    def step_started(self, record: StepRecord, report: Report) -> None:
        self.lifecycle.reported(report)
        if (
            self.lifecycle.state.phase is Phase.STARTING
        ):  # once ready, systemd would extend the watchdog by it
            self._notifier.extend_start(record.timeout_s + STEP_MARGIN_S)
        if not record.background:
            self._notifier.status(f"{self.lifecycle.state.phase.value}: {record.ref} {record.name}")

    def step_progressed(self, record: StepRecord, report: Report) -> None:
        self.lifecycle.reported(report)

    def step_finished(self, record: StepRecord, report: Report) -> None:
        self.lifecycle.reported(report)

    def sequence_finished(self, report: Report) -> None:
        self.lifecycle.reported(report)

    def notify_ready(self) -> bool:
        self.lifecycle.became_ready()
        return self._notifier.ready("ready: the rest of start-up goes on")

    def notify_status(self, text: str) -> None:
        self._notifier.status(text)

    @property
    def api(self) -> XenApi:
        return self._api

    def _run_sequence(self) -> None:
        report: Report | None = None
        try:
            observers = (Recorder(self.config.paths), self)
            report = run_sequence(
                self._steps,
                self.config,
                self._host,
                observers=observers,
                stop=self._stop,
            )
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._sequence_ended, report)

    # --- main thread ---

    def _sequence_ended(self, report: Report | None) -> None:
        self._sequence_over.set()
        if self.lifecycle.state.phase is Phase.STOPPING:
            return
        if report is None:
            log.error("start-up broke off; the traceback is above")
            self._end(BUG_EXIT)
        elif report.ending is Ending.EMERGENCY:
            self._enter_emergency()
        elif report.exit_code is not None:
            self._end(report.exit_code)
        else:
            result = report.result
            told = f"start-up {result.value if result else 'over'} in {report.seconds:.1f} s"
            log.info("%s", told)
            if self.lifecycle.became_ready():
                self._notifier.ready(told)
            else:
                self._notifier.status(told)

    def _enter_emergency(self) -> None:
        error = self._host.emergency or BugError("emergency mode without an error", hint="report this")
        spread_s = random.SystemRandom().uniform(0, self.config.emergency_spread_s)
        delay_s = self.config.emergency_delay_s + spread_s
        self.lifecycle.entered_emergency(error.record(), time.time() + delay_s)
        log.error("emergency mode: %s %s; restart in %.0f s", error.code, error.found, delay_s)
        self._notifier.ready(f"emergency mode: {error.code} {error.found}")
        self._loop.call_later(delay_s, self._end, RESTART_EXIT)

    def _end(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code)

    def _restart(self, why: str) -> None:
        """From any thread."""
        log.warning("%s; ends, to be started again", why)
        self._loop.call_soon_threadsafe(self._loop.call_later, RESTART_ANSWER_S, self._end, RESTART_EXIT)

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._end, CLEAN_EXIT)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        settled = self.lifecycle.state.phase in (Phase.READY, Phase.EMERGENCY)
        if settled:
            self._notifier.reloading()
        try:
            fresh, _ = load(self.config.paths, self._overrides)
        except ConfigError as error:
            log.error("reload: %s; hint: %s; the settings stay as they were", error, error.hint)
        else:
            logs.set_levels(fresh.log_level, fresh.log_modules)
            log.info("reload: log level is %s", fresh.log_level)
        if settled:
            self._notifier.ready(f"{self.lifecycle.state.phase.value}")

    def _set_log_level(self, level: str) -> None:
        logs.set_levels(level, self.config.log_modules)

    async def _look_at_xenstored(self) -> None:
        paths = self.config.paths
        while True:
            with contextlib.suppress(FileError):
                report = xenstored.look(root=paths.root, run_dir=paths.run)
                if self.lifecycle.saw_xenstored(report.trouble) and report.trouble:
                    log.error("xenstored: %(link)s: %(seen)s; hint: %(hint)s", report.trouble)
            await asyncio.sleep(XENSTORED_LOOK_S)

    async def _feed_watchdog(self) -> None:
        interval_s = watchdog_interval_s()
        if interval_s is None:
            return
        if not self.config.watchdog:
            self._notifier.watchdog_off()
            return
        while True:
            self._notifier.alive()
            await asyncio.sleep(interval_s)
