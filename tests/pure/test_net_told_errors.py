"""Errors and results say what their descriptions promise."""

from __future__ import annotations

import contextlib
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.net import bring, probe, sniff
from hostagent.net.reconfigure import FAILED, UNDONE, exit_of


@given(st.text(max_size=20))
def test_any_text_is_an_address_or_a_probe_error(text):
    with contextlib.suppress(probe.ProbeError):
        assert len(probe._bytes(text)) in (4, 16)


@pytest.mark.parametrize("text", ["192.0.2.1\0", "192.0.2.²", "::\0"])
def test_what_the_library_refuses_otherwise_is_a_probe_error_too(text):
    with pytest.raises(probe.ProbeError):
        probe._bytes(text)


class Failing:
    """A socket that fails for a reason that is not a NIC that went."""

    def fileno(self):
        return 0

    def recvmsg(self, *_):
        raise OSError(errno.ENOMEM, "no memory")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


class Ready:
    """A selector for which everything is ready."""

    def __init__(self):
        self.keys = []

    def register(self, fileobj, _events, data):
        self.keys.append(type("Key", (), {"fileobj": fileobj, "data": data}))

    def get_map(self):
        return self.keys

    def select(self, _left):
        return [(key, 1) for key in self.keys]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_a_socket_that_fails_while_it_listens_is_a_sniff_error(monkeypatch):
    monkeypatch.setattr(sniff, "_listen", lambda *_, **__: Failing())
    monkeypatch.setattr("selectors.DefaultSelector", Ready)

    with pytest.raises(sniff.SniffError, match="eth0 cannot be listened on"):
        sniff.sniff(["eth0"], 1.0)


def test_the_exit_code_of_what_was_undone_does_not_hang_on_words():
    result = bring.empty_result("up", outcome="rolled-back")
    result["error"] = {"code": "x", "params": [], "found": "undoing it failed is a word of it", "hint": ""}
    assert exit_of(result) == UNDONE

    result["undo_troubles"].append("eth0 stayed up")
    assert exit_of(result) == FAILED
