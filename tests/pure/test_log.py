"""Logging: journal and terminal form, fields from the context, levels while running."""

from __future__ import annotations

import io
import logging

import pytest

from hostagent import log


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def root_logger():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    log.set_levels(logging.getLevelName(level).lower(), {})


def logged(stream, level="debug", **options):
    log.set_up(level, stream=stream, **options)
    return logging.getLogger("hostagent.test")


@pytest.mark.parametrize(("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)])
def test_journal_lines_start_with_their_priority(level, priority):
    stream = io.StringIO()

    getattr(logged(stream), level)("text")

    assert stream.getvalue() == f"<{priority}>text\n"


def test_every_line_of_a_traceback_keeps_the_priority():
    stream = io.StringIO()
    logger = logged(stream)
    try:
        raise ValueError("x")
    except ValueError:
        logger.exception("failed")

    assert len(stream.getvalue().splitlines()) > 2
    assert all(line.startswith("<3>") for line in stream.getvalue().splitlines())


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_audit_log_is_written_at_every_level(level):
    stream = io.StringIO()
    logged(stream, level)

    logging.getLogger(log.AUDIT).info("who did what")

    assert stream.getvalue() == "<6>who did what\n"


def test_the_settings_may_turn_the_audit_log_off_and_on_again():
    stream = io.StringIO()
    logged(stream, "info", modules={log.AUDIT: "error"})

    logging.getLogger(log.AUDIT).info("unseen")
    log.set_levels("warning", {})
    logging.getLogger(log.AUDIT).info("seen")

    assert stream.getvalue() == "<6>seen\n"


def test_a_terminal_gets_time_and_colour_instead():
    stream = Terminal()

    logged(stream).error("text")

    assert "\x1b[31mtext" in stream.getvalue()
    assert "<3>" not in stream.getvalue()


def test_fields_come_from_the_context_and_go_with_it():
    stream = io.StringIO()
    logger = logged(stream)

    with log.fields(step="a"), log.fields(task="7"):
        logger.info("inside")
    logger.info("outside")

    assert stream.getvalue() == "<6>step=a task=7 inside\n<6>outside\n"


def test_levels_change_while_running_and_a_module_falls_back():
    stream = io.StringIO()
    logger = logged(stream, "info")

    log.set_levels("error", {"hostagent.test": "debug"})
    logger.debug("one")
    log.set_levels("error", {})
    logger.warning("two")
    log.set_levels("info", {})
    logger.info("three")

    assert stream.getvalue() == "<7>one\n<6>three\n"


def test_setting_up_twice_does_not_log_twice():
    stream = io.StringIO()
    logged(stream)

    logged(stream).info("once")

    assert stream.getvalue() == "<6>once\n"
