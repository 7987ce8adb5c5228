"""packaging/hostagent-network.service: the network before everything that needs it, and never taken away."""

from __future__ import annotations

import configparser
import importlib

import pytest

from hostagent.net import early


@pytest.fixture
def unit(project):
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((project / "packaging" / "hostagent-network.service").read_text())
    return parser


def test_it_comes_before_all_that_needs_a_network_and_waits_for_nothing_that_needs_one(unit):
    assert {"network.target", "network-online.target"} <= set(unit["Unit"]["Before"].split())
    assert unit["Unit"]["DefaultDependencies"] == "no"
    behind = set(unit["Unit"]["After"].split())
    assert behind.isdisjoint({"xen.service", "remote-fs.target", "hostagent.service", "network.target"})


def test_it_needs_neither_xen_nor_daemon_and_no_condition_hides_that_it_did_not_run(unit):
    assert "hostagent.service" not in " ".join(unit["Unit"].values())
    assert [option for option in unit["Unit"] if option.startswith(("Condition", "Assert"))] == []


def test_stopping_it_touches_nothing(unit):
    service = unit["Service"]

    assert (service["Type"], service["RemainAfterExit"]) == ("oneshot", "yes")
    assert [option for option in service if option.startswith("ExecStop")] == []


def test_it_runs_a_module_that_is_there(unit):
    *_, flag, module = unit["Service"]["ExecStart"].split()

    assert flag == "-m"
    assert importlib.import_module(module).main is early.main


def test_it_has_the_time_that_its_tries_take(unit):
    limit_s = int(unit["Service"]["TimeoutStartSec"].removesuffix("s"))

    # no rung is begun after four times the first try's; the last one may then take its own time
    assert early.NICS_S + 4 * early.TIMEOUT_S + 60 < limit_s


def test_run_state_is_not_given_to_others_and_stays_when_it_ends(unit):
    service = unit["Service"]

    assert (service["RuntimeDirectory"], service["RuntimeDirectoryMode"]) == ("hostagent", "0700")
    assert service["RuntimeDirectoryPreserve"] == "yes"


def test_it_is_in_the_bundle_installed_and_removed(project):
    name = "hostagent-network.service"
    installer = (project / "scripts/install-dom0").read_text()

    assert f"packaging/{name}" in (project / "scripts/make-bundle").read_text()
    assert f'put "$bundle/{name}" "$NETWORK_UNIT"' in installer
    assert f"enable {name}" in installer
    assert 'rm "$NETWORK_UNIT"' in installer
    assert f"systemctl stop {name}" not in installer
