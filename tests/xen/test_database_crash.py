"""No acknowledged change is lost: the agent is killed, or the power goes, while a client writes."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.xen.agent import WAIT, power_on, start
from tests.xen.xenapi import connect, tunnel

if TYPE_CHECKING:
    from pathlib import Path

ENOUGH = 20

pytestmark = [pytest.mark.full, pytest.mark.destructive]

# another program's view of the file: is it whole, and what was written last
LOOK = r"""
systemctl stop hostagent
python3 - <<'PY'
import json, sqlite3
database = sqlite3.connect("/var/lib/hostagent/state.db")
records = [json.loads(text) for (text,) in database.execute("SELECT record FROM objects WHERE cls = 'pool'")]
print(json.dumps([database.execute("PRAGMA integrity_check").fetchone()[0], records[0]["name_description"],
                  sorted(key for key in records[0]["other_config"] if key.startswith("n"))]))
PY
"""


class Writer(threading.Thread):
    """A client that changes the pool's record one call after another, until the connection breaks; `acknowledged` is
    the number of the last change that was answered.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.acknowledged = 0
        self.enough = threading.Event()
        self._client = connect(path)

    def run(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._write(self._client.xenapi)
        self._client("close")()

    def _write(self, xenapi: Any) -> None:
        xenapi.login_with_password("root", "")
        (pool,) = xenapi.pool.get_all()
        xenapi.pool.set_other_config(pool, {})
        for number in itertools.count(1):
            xenapi.pool.set_name_description(pool, str(number))
            xenapi.pool.add_to_other_config(pool, f"n{number}", "")
            self.acknowledged = number
            if number == ENOUGH:
                self.enough.set()


def written_until(host, stop) -> int:
    """The number of the last acknowledged change when `stop` had ended the agent."""
    with tunnel(host) as api:
        writer = Writer(api.local)
        writer.start()
        assert writer.enough.wait(120), "too few changes were acknowledged"
        stop()
    writer.join(60)
    assert not writer.is_alive()
    return writer.acknowledged


def check(host, acknowledged: int) -> None:
    integrity, last, keys = json.loads(host.exec(LOOK).stdout)

    assert integrity == "ok"
    assert int(last) in (acknowledged, acknowledged + 1)
    assert len(keys) in (acknowledged, acknowledged + 1)


@pytest.mark.parametrize("delay_s", [0.0, 0.7, 2.1])
def test_a_killed_agent_has_what_it_acknowledged(xen_host, delay_s):
    if xen_host.exec("hostagent status --json >/dev/null", check=False).code != 0:
        start(xen_host)

    def kill():
        time.sleep(delay_s)
        xen_host.exec("rm -f /run/hostagent/startup-report.json; systemctl kill -s KILL hostagent")

    acknowledged = written_until(xen_host, kill)
    xen_host.exec(f"{WAIT}\nwait_for_end", timeout_s=300)

    assert power_on(xen_host).troubles == []
    check(xen_host, acknowledged)


def test_a_host_whose_power_went_has_what_it_acknowledged(xen_host):
    if xen_host.exec("hostagent status --json >/dev/null", check=False).code != 0:
        start(xen_host)

    acknowledged = written_until(xen_host, xen_host.power_off)
    xen_host.boot()

    assert power_on(xen_host).troubles == []
    check(xen_host, acknowledged)
