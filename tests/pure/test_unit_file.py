"""packaging/hostagent.service against what the start-up sequence and its operators rely on."""

from __future__ import annotations

import configparser
import re

import pytest

# systemd.exec(5) of systemd 257: each of these gives the service its own mount namespace, or may
MAKES_A_MOUNT_NAMESPACE = re.compile(
    r"Private\w+|Protect\w+|ProcSubset|\w*Paths|TemporaryFileSystem|Mount\w+|Extension\w+|Root\w+|DynamicUser"
    r"|\w*Namespace\w*|\w+Credential\w*|BindLogSockets|RestrictFileSystems"
)


@pytest.fixture
def unit(project):
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((project / "packaging" / "hostagent.service").read_text())
    return parser


def test_mounts_made_by_the_service_are_the_hosts(unit):
    assert [option for option in unit["Service"] if MAKES_A_MOUNT_NAMESPACE.fullmatch(option)] == []


@pytest.mark.parametrize(
    "option",
    ["ProtectSystem", "PrivateTmp", "ReadWritePaths", "BindPaths", "RootImage", "DynamicUser", "MountFlags"],
)
def test_an_option_that_makes_a_mount_namespace_is_seen(option):
    assert MAKES_A_MOUNT_NAMESPACE.fullmatch(option)


def test_no_condition_lets_a_start_succeed_without_starting(unit):
    assert [option for option in unit["Unit"] if option.startswith("Condition")] == []


def test_exit_codes_mean_to_systemd_what_the_daemon_means(unit):
    service = unit["Service"]

    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "1"
    assert service["RestartForceExitStatus"] == "123"


def test_readiness_and_the_watchdog_come_from_the_main_process(unit):
    service = unit["Service"]

    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert int(service["WatchdogSec"].removesuffix("s")) >= 30


def test_the_retries_of_emergency_mode_stay_below_the_start_limit(unit):
    emergency_delay_s = 60  # at the least (startup-and-pool-join.md 1.4)
    interval_s = int(unit["Unit"]["StartLimitIntervalSec"].removesuffix("s"))
    restart_s = int(unit["Service"]["RestartSec"].removesuffix("s"))

    starts = 1 + interval_s // (emergency_delay_s + restart_s)

    assert starts < int(unit["Unit"]["StartLimitBurst"])


def test_a_loop_whose_start_takes_half_a_minute_is_ended(unit):
    """xenstored is dead: its 30 s of grace, the rest of start-up, the pause before the next try."""
    interval_s = int(unit["Unit"]["StartLimitIntervalSec"].removesuffix("s"))
    cycle_s = 30 + 3 + int(unit["Service"]["RestartSec"].removesuffix("s"))

    assert int(unit["Unit"]["StartLimitBurst"]) < interval_s // cycle_s


def test_guests_start_after_dom0_has_its_memory(unit):
    from hostagent.startup.table import STEPS

    names = [step.name for step in STEPS]

    assert {"xendomains.service", "libvirt-guests.service"} <= set(unit["Unit"]["Before"].split())
    assert names.index("set-dom0-memory") < names.index("notify-ready")


def test_run_state_survives_a_restart_of_the_service(unit):
    service = unit["Service"]

    assert (service["RuntimeDirectory"], service["RuntimeDirectoryMode"]) == ("hostagent", "0700")
    assert service["RuntimeDirectoryPreserve"] == "yes"


def test_the_service_runs_the_command_that_install_dom0_links(unit, project):
    command = unit["Service"]["ExecStart"].split()[0]

    assert f"\nCOMMAND={command}\n" in (project / "scripts" / "install-dom0").read_text()


def test_the_bundle_carries_every_package_the_program_needs(project):
    import tomllib

    wanted = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = re.findall(
        r"^([\w.-]+)==", (project / "packaging" / "constraints.txt").read_text(), re.MULTILINE
    )

    assert {re.split(r"[=<>~! ]", name)[0] for name in wanted} <= set(pinned)
