"""What `interface-reconfigure --force BRIDGE rewrite` writes is what the next boot and the next command bring up."""

from __future__ import annotations

import io

import pytest

from hostagent.net import ask, cache, early, foreign, reconfigure
from tests.pure.startup_network import FakeHost
from tests.pure.startup_tree import put

UUID = "11111111-2222-3333-4444-555555555555"
MAC = "52:54:00:00:00:02"


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def rewritten(tmp_path, monkeypatch):
    """The root of a host that has an inventory and no daemon, after the rewrite; and the host."""

    def no_daemon(*_, **__):
        raise ask.NotThereError("nobody listens", hint="")

    monkeypatch.setattr(ask, "ask", no_daemon)
    monkeypatch.setattr(foreign, "owners", lambda *_: ())
    put(tmp_path / "etc/hostagent/inventory", f"INSTALLATION_UUID='{UUID}'\n")
    host = FakeHost()
    host.kernel.nic("eth0", 2, up=True)
    assert run(tmp_path, host, "--force", "xenbr0", "rewrite", "--device=eth0", f"--mac={MAC}", "--mode=static",
               "--ip=192.0.2.10", "--netmask=255.255.255.0")[0] == 0  # fmt: skip
    return tmp_path, host


def run(root, host, *words):
    out = io.StringIO()
    code = reconfigure.main(
        ["--root-prefix", str(root), "--no-syslog", *words],
        open_host=lambda root, _: host.open(root / reconfigure.STATE),
        out=out,
    )
    return code, out.getvalue()


def addresses(host):
    index = host.look().by_name()["xenbr0"].ifindex
    return [one.text for one in host.look().addresses if one.device == index]


def test_it_is_this_hosts(rewritten):
    root, _ = rewritten

    found = cache.read(root / reconfigure.STATE / cache.FOLDER, UUID)

    assert (found.cached.records.host_uuid, found.told) == (UUID, ())


def test_the_next_command_brings_it_up(rewritten):
    code, out = run(*rewritten, "--force", "xenbr0", "--management", "up")

    assert (code, out.splitlines()[0].split(":")[1].split()[0]) == (0, "changed")
    assert addresses(rewritten[1]) == ["192.0.2.10"]


def test_the_next_boot_brings_it_up(rewritten, capsys):
    root, host = rewritten

    assert early.main(root, open_host=lambda root, _: host.open(root / reconfigure.STATE)) == 0

    assert f"management interface: {early.UP}" in capsys.readouterr().out
    assert addresses(host) == ["192.0.2.10"]
