"""The database of a real host: checked, copied, replaced while the agent runs, damaged, on a disk that is full."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nested_xen import faults

from tests.xen.agent import REPORT, WAIT, start

pytestmark = [pytest.mark.full, pytest.mark.destructive]

STATE = "/var/lib/hostagent/state.db"
OTHER = "/var/lib/hostagent/other.db"
CONF = "/etc/hostagent/db.conf"
XE = "hostagent xe pool-param-get uuid=$(hostagent xe pool-list --minimal) param-name=name-label"
COPIES = f"printf '[{OTHER}]\\nmode:no_limit\\n\\n[{STATE}]\\nmode:no_limit\\n\\n' >{CONF}"


def name_pool(host: Any, name: str) -> None:
    host.exec(f"hostagent xe pool-param-set uuid=$(hostagent xe pool-list --minimal) name-label='{name}'")


def pool_name(host: Any) -> str:
    return str(host.exec(XE).stdout).rstrip("\n")


def labels_in(host: Any, path: str) -> list[str]:
    """What another program finds in the file."""
    look = f"""python3 -c '
import json, sqlite3
rows = sqlite3.connect("file:{path}?mode=ro", uri=True).execute("SELECT record FROM objects WHERE cls = \\"pool\\"")
print(json.dumps([json.loads(text)["name_label"] for (text,) in rows]))'"""
    found: list[str] = json.loads(host.exec(look).stdout)
    return found


@pytest.fixture
def up(xen_host):
    """A host whose agent is up clean, with one database of its own."""
    xen_host.exec(f"rm -f {CONF}")
    if xen_host.exec("hostagent status --json >/dev/null", check=False).code != 0:
        run = start(xen_host)
        assert run.report["result"] == "clean", run.troubles
    yield xen_host
    xen_host.exec(f"rm -f {CONF}")


def test_a_backup_and_a_dump_come_back_while_the_agent_runs(up):
    name_pool(up, "as-it-was")
    up.exec("hostagent db backup /root/pool.db; hostagent db dump /root/pool.xml")
    assert up.exec("stat -c %a /root/pool.db /root/pool.xml").stdout == "600\n600\n"
    assert labels_in(up, "/root/pool.db") == ["as-it-was"]
    assert up.exec("grep -c as-it-was /root/pool.xml").stdout == "1\n"
    for file in ("/root/pool.db", "/root/pool.xml"):
        name_pool(up, "changed since")
        assert "nothing was changed" in up.exec(f"hostagent db restore {file} --dry-run").stdout
        assert pool_name(up) == "changed since"
        said = up.exec(f"{WAIT}\nrm -f {REPORT}; hostagent db restore {file}; wait_for_end").stdout
        assert "changed: the database was replaced" in said
        assert "no end" not in said
        assert pool_name(up) == "as-it-was"
        assert up.exec("hostagent db check").code == 0


def test_garbage_is_not_restored(up):
    up.exec("head -c 100000 /dev/urandom >/root/garbage; hostagent db dump | head -c 2000 >/root/half.xml")
    before = up.exec("hostagent db dump | sha256sum").stdout
    for file in ("/root/garbage", "/root/half.xml", "/root/missing", "/etc/hostname"):
        refused = up.exec(f"hostagent db restore {file}", check=False)
        assert refused.code != 0
        assert "hint:" in refused.stderr
    assert up.exec("hostagent db dump | sha256sum").stdout == before


@pytest.mark.parametrize(
    "damage",
    [
        f"truncate -s 10000 {STATE}",
        f"dd conv=notrunc status=none bs=4096 seek=1 count=20 if=/dev/urandom of={STATE}",
    ],
    ids=["cut off", "overwritten"],
)
def test_a_damaged_database_is_set_aside_and_the_newest_copy_used(up, damage):
    name_pool(up, "kept twice")
    up.exec(f"rm -f {OTHER}; {COPIES}")
    start(up)
    up.exec(f"timeout 60 sh -c 'until test -e {OTHER}; do sleep 0.2; done'; systemctl stop hostagent")
    assert labels_in(up, OTHER) == ["kept twice"]
    up.exec(f"{damage}; rm -f {STATE}-wal {STATE}-shm")

    run = start(up)

    assert run.report["ending"] == "complete"
    (told,) = [warnings for name, _, warnings, _ in run.troubles if name == "start-database"]
    assert STATE in str(told)
    assert pool_name(up) == "kept twice"
    kept = up.exec("ls /var/lib/hostagent | grep -c corrupt").stdout
    assert int(kept) >= 1
    up.exec("rm -f /var/lib/hostagent/*corrupt*")


def test_a_damaged_only_database_is_kept_and_told_and_never_emptied_silently(up):
    up.exec(f"systemctl stop hostagent; head -c 20000 /dev/urandom >{STATE}; rm -f {STATE}-wal {STATE}-shm")
    before = up.exec(f"sha256sum <{STATE}").stdout

    run = start(up)

    assert "start-database" in [name for name, *_ in run.troubles]
    kept = up.exec("sha256sum /var/lib/hostagent/*corrupt* | cut -d' ' -f1").stdout.split()
    assert before.split()[0] in kept or up.exec(f"sha256sum <{STATE}").stdout == before
    up.exec("rm -f /var/lib/hostagent/*corrupt*")


def test_on_a_full_disk_a_change_is_refused_and_what_was_there_stays(up):
    name_pool(up, "before it was full")
    with faults.full(up, "/var/lib/hostagent"):
        refused = up.exec(
            "for n in $(seq 200); do hostagent xe pool-param-set uuid=$(hostagent xe pool-list --minimal)"
            " other-config:filler$n=$(head -c 20000 /dev/zero | tr '\\0' x) || exit 9; done",
            check=False,
            timeout_s=300,
        )
        still = up.exec("hostagent status --json", check=False)
        assert json.loads(still.stdout)["state"] == "ready"
    assert refused.code == 9
    assert "disk is full" in refused.stderr
    assert pool_name(up) == "before it was full"
    name_pool(up, "after")
    assert up.exec("hostagent db check").code == 0


def test_a_start_on_a_full_disk_leaves_the_database_where_it_is(up):
    name_pool(up, "before it was full")
    up.exec("systemctl stop hostagent")  # which gives back the blocks of the database's log
    with faults.full(up, "/var/lib/hostagent"):
        whole = up.exec(f"sha256sum {STATE}").stdout
        on_full = start(up)
        assert up.exec(f"sha256sum {STATE}").stdout == whole
    assert on_full.report["result"] != "clean"
    assert up.exec("ls /var/lib/hostagent/*corrupt*", check=False).stdout == ""
    after = start(up)
    assert after.report["result"] == "clean", after.troubles
    assert pool_name(up) == "before it was full"
