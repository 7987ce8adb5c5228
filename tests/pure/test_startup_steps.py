# mypy: disable-error-code="union-attr,attr-defined,arg-type"
# each test knows which outcome it has; modules are reached through the one that uses them
"""What holds for every row of the table."""

from __future__ import annotations

import pytest

from hostagent.api.local_socket import listening_socket, socket_path
from hostagent.startup import steps_xen
from hostagent.startup.state import HostState
from hostagent.startup.table import STEPS
from tests.pure import host_samples as samples
from tests.pure.startup_tree import Hooks, context_of


def test_every_changing_step_is_compared_with_its_plan(project):
    folder = project / "tests/pure"
    pages = (*folder.glob("test_steps_*.py"), folder / "startup_database.py")
    text = "".join(page.read_text() for page in pages)

    assert [step.name for step in STEPS if step.plan and f"{step.plan.__name__}" not in text] == []


@pytest.fixture
def recorded(paths, inventory_file, monkeypatch):
    """What the steps of API and database ask: the facts of a host, its addresses, the daemon's socket."""
    monkeypatch.setattr(
        "hostagent.hostinfo.facts.gather",
        lambda _root, inventory, **_: samples.facts(host_uuid=inventory.installation_uuid),
    )
    monkeypatch.setattr("hostagent.hostinfo.address.look", dict)
    with listening_socket(socket_path(paths)):
        yield


def test_a_step_holds_only_at_points_its_row_names(
    paths, inventory_file, healthy, scripts, dom0, recorded, monkeypatch
):
    store = steps_xen.connect_xenstore(None)
    held = {}
    host = HostState(hooks=Hooks())
    for step in STEPS:
        reached: list[str] = []
        if step.name != "stop-role-scripts":
            step.run(context_of(paths, host, held=reached, localhost_port=0))
        held[step.name] = reached
    host.scheduler.stop()
    host.close()

    assert store.nodes
    assert {
        step.name: held[step.name] for step in STEPS if not set(held[step.name]) <= set(step.hold_points)
    } == {}
    assert held["start-role-scripts"] == ["scripts-run", "flag-written"]
