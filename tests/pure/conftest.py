"""What every pure test runs under (the ban on touching the machine, reproducible examples), and what several share."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import hypothesis.configuration
import pytest
from nested_xen import lab, process, registry
from nested_xen import network as lab_network
from nested_xen import paths as lab_paths
from nested_xen.image import Image, Release

from hostagent.api import calls_session
from hostagent.db import local
from hostagent.db.database import open_database
from hostagent.hostinfo import address
from hostagent.net import foreign
from hostagent.net.foreign_files import Owner
from hostagent.run import CommandError, Finished
from hostagent.startup import checks, network, steps_db, steps_networks, steps_scripts, steps_xen
from hostagent.startup.role import COORDINATOR
from hostagent.startup.state import HostState
from hostagent.xen import balloon, hypercall, inventory
from tests.pure import ban
from tests.pure.host_samples import DOM0_UUID, HOST_UUID, facts
from tests.pure.lab_hosts import TCG
from tests.pure.startup_database import DBSYNC
from tests.pure.startup_host import UUID, BalloonedXenstore, a_domain
from tests.pure.startup_management import STATIC
from tests.pure.startup_network import FakeHost, Silence, nic_files
from tests.pure.startup_tree import FakeXenstore, context_of, make_paths, put
from tests.pure.xenapi_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

# the same tree always runs the same examples, and a busy machine does not fail them
hypothesis.settings.register_profile(
    "pure",
    database=None,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("pure")
hypothesis.configuration.set_hypothesis_home_dir(Path(ban.TEMPORARY) / "hypothesis")


@pytest.fixture(autouse=True)
def pure_ban(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Arm the ban for the test."""
    monkeypatch.setattr(time, "sleep", ban.no_sleep)
    ban.armed["now"] = True
    yield
    ban.armed["now"] = False


@pytest.fixture
def project() -> Path:
    """The source tree."""
    return Path(__file__).parents[2]


# --- a fabricated host for the steps of start-up ---


@pytest.fixture(autouse=True)
def network_host(monkeypatch):
    """The kernel that steps about the network find in the place of netlink: without NICs until a test adds one."""
    found = FakeHost()
    monkeypatch.setattr(
        network, "open_host", lambda config, _bridge: found.open(config.paths.state, run=config.paths.run)
    )
    monkeypatch.setattr(network, "open_follower", Silence)
    monkeypatch.setattr(network, "ask", found.ask)
    return found


@pytest.fixture
def paths(tmp_path):
    return make_paths(tmp_path)


@pytest.fixture
def inventory_file(paths):
    paths.inventory.write_text(inventory.new(control_domain_uuid=UUID))
    return paths.inventory


@pytest.fixture
def xenstore(monkeypatch):
    store = FakeXenstore({"/local/domain/0/name": "Domain-0", "/local/domain/0/domid": "0"})
    monkeypatch.setattr(steps_xen, "connect_xenstore", lambda _: store)
    return store


@pytest.fixture
def healthy(paths, xenstore, monkeypatch):
    """A dom0 on which every check is content; modprobe loads into its /sys."""
    root = paths.root
    xenstore.write("/local/domain/0/control/feature-poweroff", b"1")
    put(root / "usr/lib/xen-4.20/bin/xl", "")
    put(root / "usr/libexec/xen-qemu-system-i386", "")
    put(root / "run/xenconsoled.pid", "11\n")
    put(root / "proc/11/comm", "xenconsoled\n")
    put(root / "run/qemu-dom0.pid", "12")
    put(root / "proc/12/comm", "qemu-system-i38\n")
    host = hypercall.HostInfo(1, 1, 0, 2, 1, 1, 2, 1, 1, "", "4.20", "", "", "", (), (), "dom0_mem=1G,max:1G")
    monkeypatch.setattr(hypercall, "host", lambda: host)

    def modprobe(argv, *, timeout_s, package=None):
        (root / "sys/module" / argv[1].replace("-", "_")).mkdir()
        return Finished(tuple(argv), 0, "", "", 0.0)

    monkeypatch.setattr(checks, "run", modprobe)
    return root


@pytest.fixture
def scripts(monkeypatch):
    """What was run, in order; a script whose name holds `bad` fails."""
    ran = []

    def run(argv, *, timeout_s):
        ran.append((argv[0].rpartition("/")[2], *argv[1:], timeout_s))
        if "bad" in argv[0]:
            raise CommandError(argv, "failed with exit code 3: no luck", hint="try it")

    monkeypatch.setattr(steps_scripts, "run", run)
    return ran


@pytest.fixture
def dom0(paths, monkeypatch):
    """A dom0 of 1536 MiB that can have at most that, with 1 GiB free in Xen; its size in KiB when called."""
    driver = paths.root / balloon.DRIVER
    figures = {"target_kb": 1572864, "info/current_kb": 1572864, "info/low_kb": 0, "info/high_kb": 0}
    for name, value in {**figures, "retry_count": 1, "schedule_delay": 1}.items():
        put(driver / name, str(value))
    put(paths.root / "proc/meminfo", "MemTotal: 1424000 kB\nMemAvailable: 1300000 kB\n")
    host = hypercall.HostInfo(
        3 << 20, 1 << 20, 0, 2, 1, 1, 2, 1, 1, "", "4.20", "", "", "", (), (), "dom0_mem=1536M"
    )
    monkeypatch.setattr(hypercall, "host", lambda: host)
    domain = a_domain(UUID, mem_kib=1572864, maxmem_kib=1573888)
    monkeypatch.setattr(hypercall, "domain", lambda _: domain)
    store = BalloonedXenstore(driver)
    monkeypatch.setattr(steps_xen, "connect_xenstore", lambda _: store)
    return lambda: int((driver / "info/current_kb").read_text())


# --- a database ---


@pytest.fixture
def files(tmp_path):
    return tmp_path / "state.db", tmp_path / "volatile.db"


@pytest.fixture
def db(files):
    opened = open_database(*files)
    yield opened
    opened.close()


@pytest.fixture
def host(paths):
    """What a start of a host whose database is still to be made knows."""
    put(paths.root / "proc/sys/kernel/hostname", "h1\n")
    paths.inventory.write_text(inventory.new(installation_uuid=HOST_UUID, control_domain_uuid=DOM0_UUID))
    found = HostState(facts=facts(), role=COORDINATOR, on_system_boot=True)
    found.inventory = inventory.read(paths.inventory)
    found.local = local.open_store(paths.local_database)
    yield found
    if found.scheduler:
        found.scheduler.stop()
    found.close()


@pytest.fixture
def context(paths, host):
    return context_of(paths, host)


@pytest.fixture
def started(context):
    """A context with an open, empty database."""
    steps_db.start_database(context)
    return context


@pytest.fixture
def synced(started):
    for run, _ in DBSYNC:
        run(started)
    return started


@pytest.fixture
def one_key(monkeypatch):
    monkeypatch.setattr(address, "look", lambda: {"xenbr0": [(2, "192.0.2.10")]})


# --- the network, for the steps about it ---


@pytest.fixture
def owners(monkeypatch):
    """NIC → the daemon that has it."""
    found: dict[str, Owner] = {}
    monkeypatch.setattr(foreign, "owners", lambda nic, _root: (found[nic.name],) if nic.name in found else ())
    return found


@pytest.fixture
def nics(paths, network_host, owners):
    """eth0 to eth2."""
    for number in range(3):
        network_host.kernel.nic(f"eth{number}", number + 2, up=True)
        nic_files(paths.root, f"eth{number}", number + 2)
    return network_host


@pytest.fixture
def stock(nics, owners):
    """ifupdown has eth0, with the host's address."""
    nics.address("eth0", "192.0.2.10", gateway="192.0.2.1")
    owners["eth0"] = Owner(
        "ifupdown", "eth0", "Static", ("192.0.2.10/24",), files=("etc/network/interfaces",)
    )
    return nics


@pytest.fixture
def recorded(nics, synced):
    """PIFs of all NICs are there."""
    steps_networks.record_attachment(synced)
    return synced


@pytest.fixture
def adopted(recorded, nics):
    """eth0's PIF is the management interface, on xenbr0, with the address of STATIC; nothing is up yet."""
    with recorded.host.database.write() as w:
        (ref,) = w.where("PIF", device="eth0")
        w.update("PIF", ref, {**STATIC, "management": True})
    recorded.host.inventory = inventory.update(
        recorded.config.paths.inventory, {"MANAGEMENT_INTERFACE": "xenbr0"}
    )
    return recorded


# --- the API ---


@pytest.fixture
def path(tmp_path):
    return tmp_path / "api.sock"


@pytest.fixture
def quick_failures(monkeypatch):
    """Wrong passwords are answered at once, and none was tried before."""
    monkeypatch.setattr(calls_session, "FAILURE_DELAY_S", 0.001)
    calls_session._failures.clear()


@pytest.fixture
def serve(tmp_path, quick_failures):
    """Run a coroutine function with a server."""

    def run(play, more=()):
        async def whole():
            server = Server(tmp_path, more)
            try:
                return await play(server)
            finally:
                server.db.close()

        return asyncio.run(whole())

    return run


# --- a lab ---


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run folder and cache of a lab."""
    monkeypatch.setenv("HOSTAGENT_LAB_RUN", str(tmp_path / "r"))
    monkeypatch.setenv("HOSTAGENT_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lab_paths, "LONGEST_RUN_FOLDER", 1000)
    return tmp_path


@pytest.fixture
def made(folders: Path, monkeypatch: pytest.MonkeyPatch) -> lab.Lab:
    """A lab without a network."""
    for name in ("connect", "disconnect"):
        monkeypatch.setattr(lab_network, name, lambda *_: None)
    monkeypatch.setattr(process, "started_at", lambda _: None)
    registry.claim("pure")
    found = lab.Lab("pure", Image(Release.TRIXIE, folders / "image"), TCG, None)
    found.record()
    return found
