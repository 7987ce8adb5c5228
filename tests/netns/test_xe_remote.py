"""`hostagent xe -s HOST` against the API on TCP and TLS: log-in, trust in our own certificate, refusals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from nested_xen import network

from hostagent.__main__ import main
from hostagent.api import calls_session, certificate
from hostagent.api.tcp import listening_tcp
from tests.pure.api_server import serving
from tests.pure.startup_tree import make_paths

if TYPE_CHECKING:
    from pathlib import Path

    from nested_xen.lab import Lab

ADDRESS = "127.0.0.2"
"""Of HTTPS: to xe, 127.0.0.1 is the local socket."""
TUNNEL = ("-s", "localhost", "-p", "80", "--nossl")
"""How who is not root reaches the API on the host itself."""
ROOT, EVE = ("-u", "root", "-pw", "letmein"), ("-u", "eve", "-pw", "look")
UUID = "params=uuid"


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """Certificate and key as a host makes them for itself."""
    folder = tmp_path_factory.mktemp("tls")
    files = (folder / "server.pem", folder / "server.key")
    certificate.ensure(*files, hostname="alpha", addresses=[ADDRESS])
    return files


@pytest.fixture
def xe(segments: Lab, pair, tmp_path, monkeypatch, capsys):
    """Type `xe` where the API is at HTTPS on ADDRESS, and at plain HTTP on 127.0.0.1."""
    monkeypatch.setattr(calls_session, "FAILURE_DELAY_S", 0.001)
    calls_session._failures.clear()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XE_EXTRA_ARGS", "XE_CA", "TRACEPARENT"):
        monkeypatch.delenv(name, raising=False)

    paths = make_paths(tmp_path)

    async def run(words: tuple[str, ...]) -> tuple[int, int]:
        async with serving(paths) as daemon:
            context = certificate.server_context(*pair)
            daemon.server.start("https", [listening_tcp(ADDRESS, 443, tmp_path)], "tls", tls=context)
            daemon.server.start("http", [listening_tcp("127.0.0.1", 80, tmp_path)], "localhost")
            code = await asyncio.to_thread(main, ["xe", *words])
            return code, len(daemon.core.sessions)

    def typed(*words: str) -> tuple[int, str, str]:
        code, left = network.call_inside(segments.name, lambda: asyncio.run(run(words)))
        assert left == 0
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return typed


def test_a_host_is_trusted_by_its_own_certificate(xe, pair):
    words = ("-s", ADDRESS, *ROOT, "--ca", str(pair[0]), "host-list", UUID, "--minimal")
    assert xe(*words) == (0, "host-uuid\n", "")


def test_a_host_that_nobody_vouches_for_is_refused_unless_told_otherwise(xe):
    code, out, err = xe("-s", ADDRESS, *ROOT, "host-list")
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: the certificate of {ADDRESS} is not trusted: self-signed certificate\n")
    assert "--ca FILE" in err
    trusting = xe("-s", ADDRESS, "--no-verify", *ROOT, "host-list", UUID, "--minimal")
    assert trusting == (0, "host-uuid\n", "")


def test_without_tls_a_password_is_asked_for_and_the_role_counts(xe):
    assert xe(*TUNNEL, *EVE, "host-list", UUID, "--minimal") == (0, "host-uuid\n", "")
    wrong = xe(*TUNNEL, "-u", "root", "-pw", "guess", "host-list")
    assert wrong == (1, "", "Authentication failed\nFor usage run: 'xe help'\n")
    code, _, err = xe(*TUNNEL, *EVE, "secret-create", "value=x")
    assert code == 1
    assert err.startswith("Your role does not allow this.\npermission: secret.create\n")
