"""Changes of the network through `plug.Network`, on a kernel with the rules of a real one and three NICs."""

from __future__ import annotations

import pytest

from hostagent.net import cache
from tests.pure.netctl_plugs import Files, a_network, three_nics


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def host():
    return three_nics()


@pytest.fixture
def files():
    return Files()


@pytest.fixture
def net(host, files, tmp_path):
    return a_network(host, files, tmp_path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / cache.FOLDER
