# mypy: disable-error-code="union-attr,attr-defined,arg-type,index"
# each test knows which outcome it has
"""What hostagent-network.service does before the daemon: the management interface from the cache alone."""

from __future__ import annotations

import pytest

from hostagent.net import cache, early, journal
from hostagent.net.foreign_files import Owner
from hostagent.net.operation import Operation, Step
from hostagent.startup import network, steps_net
from tests.pure.host_samples import HOST_UUID
from tests.pure.startup_management import boot, left_over, links, on
from tests.pure.startup_tree import put


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    """Hundreds of small files and rows, each made durable, take minutes on a busy disk."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def test_the_unit_leaves_a_bridge_of_others_with_its_address(cached, paths):
    cached.kernel.one(Operation("link-add", "xenbr0", 40, {"kind": "bridge", "up": True}))
    cached.address("xenbr0", "198.51.100.1", gateway="198.51.100.254")
    before = cached.look()

    assert boot(cached, paths) == 0

    assert cached.look() == before


@pytest.fixture
def cached(adopted, nics, paths):
    """What the daemon left on the disk, for a root."""
    steps_net.raise_management(adopted)
    source = network.folder(adopted.config) / cache.NEWEST
    put(paths.root / early.STATE / "net" / cache.NEWEST, source.read_text())
    put(paths.root / "etc/hostagent/inventory", f"INSTALLATION_UUID='{HOST_UUID}'\n")
    nics.kernel._link_del(nics.kernel._by_name("xenbr0"))
    return nics


def test_the_unit_raises_the_management_interface_from_the_cache_alone(cached, paths):
    assert boot(cached, paths) == 0

    assert on(cached, "xenbr0") == {"192.0.2.10/24"}


def test_the_unit_leaves_a_nic_to_the_daemon_that_has_it(cached, paths, owners):
    owners["eth0"] = Owner("NetworkManager", "eth0", "DHCP")

    assert boot(cached, paths) == 0

    assert "xenbr0" not in links(cached)


def test_without_a_cache_the_unit_changes_nothing(nics, paths):
    assert boot(nics, paths) == 0

    assert nics.done == []


def test_the_unit_undoes_nothing_of_the_kernel_after_a_power_cut_and_ends_the_journal(cached, paths):
    folder = paths.root / early.STATE / "net"
    left_over(folder, state=journal.BEGUN, boot="boot-0")

    assert boot(cached, paths) == 0

    assert journal.pending(folder) is None


@pytest.mark.parametrize("content", [b"", b"\0" * 9, b'{"version":0,"state":"begun"}\n'])
def test_the_unit_raises_it_whatever_the_journal_holds(cached, paths, content, capsys):
    folder = paths.root / early.STATE / "net"
    (folder / journal.NAME).write_bytes(content)

    assert boot(cached, paths) == 0

    assert on(cached, "xenbr0") == {"192.0.2.10/24"}
    assert "THE JOURNAL OF THE LAST NETWORK CHANGE WAS LOST" in capsys.readouterr().out


def test_the_unit_raises_it_though_an_undo_fails(cached, paths, capsys):
    folder = paths.root / early.STATE / "net"
    do = left_over(folder, state=journal.APPLIED)
    left = journal.pending(folder)
    never = Operation("address-add", "eth9", 99, {"text": "198.51.100.9", "prefix": 24})
    journal.mark(folder, left._replace(steps=(Step(do, (never,)),)), journal.UNDO_FAILED)

    assert boot(cached, paths) == 0

    assert on(cached, "xenbr0") == {"192.0.2.10/24"}
    assert "UNDOING WHAT WAS LEFT UNFINISHED HAS FAILED IN PART" in capsys.readouterr().out
    assert journal.pending(folder) is None


def test_the_unit_waits_for_nics_that_come_late(cached, paths):
    late = cached.kernel.links.pop(2)
    waited = cached.wait

    def wait(seconds):
        waited(seconds)
        cached.kernel.links[2] = late

    cached.wait = wait

    assert boot(cached, paths) == 0
    assert on(cached, "xenbr0") == {"192.0.2.10/24"}


def test_a_management_interface_that_the_unit_cannot_raise_fails_it(cached, paths):
    cached.fails = {"xenbr0"}

    assert boot(cached, paths) == 1


def test_the_last_resort_uses_only_listed_nics(cached, paths):
    """Rung 3: the same address on a listed NIC alone."""
    put(paths.root / "etc/hostagent/hostagent.toml", '[net]\nemergency-nics = ["eth2"]\n')
    cached.fails = {"xenbr0"}

    assert boot(cached, paths) == 0

    assert on(cached, "xenbr2") == {"192.0.2.10/24"}
    assert cache.read(paths.root / early.STATE / "net").cached.records.bridge == "xenbr0"
