"""Xenstore on a real dom0: what our code writes Xen's own tools read, and the other way round."""

from __future__ import annotations

import json
import textwrap

import pytest

pytestmark = pytest.mark.full

TREE = "/tool/hostagent-test"
PYTHON = "/opt/hostagent/current/bin/python -"


def run_python(host, script):
    """Run a script with hostagent's interpreter in dom0; it prints one JSON object, which is returned."""
    said = host.exec(PYTHON, stdin=textwrap.dedent(script), timeout_s=180).stdout
    return json.loads(said.splitlines()[-1])


@pytest.fixture
def tree(xen_host):
    """A test's own part of xenstore, empty, removed with Xen's own tool afterwards."""
    xen_host.exec(f"xenstore-rm {TREE} 2>/dev/null; true")
    yield TREE
    xen_host.exec(f"timeout 20 xenstore-rm {TREE}; true")


@pytest.mark.parametrize("way", ["--socket /run/xenstored/socket", "--device /dev/xen/xenbus"])
def test_what_we_write_xens_tools_read_and_what_they_write_we_read(xen_host, tree, way):
    our = "hostagent xen xenstore"

    seen = xen_host.exec(f"""
        set -e
        {our} write {tree}/ours 'a value' {way} >&2
        {our} write {tree}/never x --dry-run {way} >&2
        {our} write {tree}/gone x {way} >&2; {our} rm {tree}/gone {way} >&2
        xenstore-write {tree}/theirs 'their value'
        xenstore-chmod {tree}/theirs n0 r5
        xenstore-ls -fp {tree}
        echo ===; {our} read {tree}/theirs {way}
        echo ===; {our} ls -p {tree} --json {way}
    """).stdout.split("===\n")

    assert seen[0].splitlines() == [
        f'{tree}/ours = "a value"   (n0)',
        f'{tree}/theirs = "their value"   (n0,r5)',
    ]
    assert seen[1] == "their value\n"
    assert [(row["path"], row["value"], row["permissions"]) for row in json.loads(seen[2])] == [
        (f"{tree}/ours", "a value", ["n0"]),
        (f"{tree}/theirs", "their value", ["n0", "r5"]),
    ]


def test_every_octet_permissions_transactions_and_a_long_directory(xen_host, tree):
    done = run_python(
        xen_host,
        f"""
        import json, uuid
        from pathlib import Path
        from hostagent.run import run
        from hostagent.xen.xenstore import Xenstore
        result = {{}}
        names = [str(uuid.uuid4()) for _ in range(300)]
        for way in ({{}}, {{"device": Path("/dev/xen/xenbus")}}):
            with Xenstore.connect(**way) as store:
                values = [b"", b"a\\nb", bytes(range(256)), b"ends in nul\\0", b"z" * 2000]
                back = []
                for value in values:
                    store.write("{tree}/value", value)
                    back.append(store.read("{tree}/value"))
                store.set_permissions("{tree}/value", ["n0", "r5", "b7"])
                tries = []
                def increment(tx):
                    value = int(tx.read("{tree}/count") or b"0")
                    tries.append(value)
                    if len(tries) == 1:
                        store.write("{tree}/count", b"40")
                    tx.write("{tree}/count", str(value + 1).encode())
                store.transact(increment)
                counted = store.read("{tree}/count").decode()
                store.remove("{tree}/count")
                result[store.transport] = {{"octets": back == values, "tries": tries, "count": counted}}
        with Xenstore.connect() as store:
            for name in names:
                store.write("{tree}/many/" + name, b"")
            result["listed"] = sorted(store.list("{tree}/many")) == sorted(names)
            result["walked"] = len(store.tree("{tree}/many").nodes)
            run(["xenstore-exists", f"{tree}/many/{{names[299]}}"], timeout_s=30)
            store.remove("{tree}/many")  # xenstore-ls cannot read past it on oxenstored
        print(json.dumps(result))
        """,
    )
    theirs = xen_host.exec(f"xenstore-read {tree}/value | wc -c; xenstore-ls -fp {tree} | grep value")

    each = {"octets": True, "tries": [0, 40], "count": "41"}
    assert done == {"/run/xenstored/socket": each, "/dev/xen/xenbus": each, "listed": True, "walked": 301}
    assert theirs.stdout.splitlines()[0] == "2001"
    assert theirs.stdout.rstrip().endswith("(n0,r5,b7)")


@pytest.mark.parametrize("device", ["None", 'Path("/dev/xen/xenbus")'])
def test_a_watch_sees_what_xens_tools_write(xen_host, tree, device):
    events = run_python(
        xen_host,
        f"""
        import json
        from pathlib import Path
        from hostagent.run import run
        from hostagent.xen.xenstore import Xenstore
        with Xenstore.connect(device={device}) as store, store.watch("{tree}") as watch:
            events = [watch.wait(10)]
            run(["xenstore-write", "{tree}/a", "1"], timeout_s=30)
            events.append(watch.wait(10))
            run(["xenstore-rm", "{tree}"], timeout_s=30)
            events.append(watch.wait(10))
        print(json.dumps([event and event.path for event in events]))
        """,
    )

    assert events[0] == tree
    assert f"{tree}/a" in events[1:] or events[1] == tree
    assert events[2] is not None


def test_a_healthy_host_is_told_as_such_and_the_kernel_answers_the_probe(xen_host):
    seen = xen_host.exec(
        "hostagent xen xenstore status --probe --json; pgrep -x 'oxenstored|xenstored'"
    ).stdout

    record, end = json.JSONDecoder().raw_decode(seen)
    assert record["link"] == "connected"
    assert {item["check"]: item["says"] for item in record["evidence"]}["probe"] == "same"
    assert str(record["pid"]) == seen[end:].strip()


KILLED_AND_RESTARTED = """
    import json, os, signal, threading, time
    from pathlib import Path
    from hostagent.errors import HostagentError
    from hostagent.run import run
    from hostagent.xen.xenstore import Xenstore
    from hostagent.xen.xenstored import detect_restart, remember, running_daemon

    result = {}
    run_dir = Path("/run/hostagent-test")
    run_dir.mkdir(exist_ok=True)

    def timed(name, call):
        started = time.monotonic()
        try:
            said = call()
            said = said if isinstance(said, str) else type(said).__name__
        except HostagentError as error:
            said = type(error).__name__
        result[name] = [said, time.monotonic() - started]

    store = Xenstore.connect()
    bus = Xenstore.connect(device=Path("/dev/xen/xenbus"))
    remember(store, run_dir=run_dir)
    result["before"] = detect_restart(store, run_dir=run_dir, probe=True).link.value
    watch = store.watch("/tool/hostagent-test")
    watch.wait(10)
    pid = running_daemon().pid

    os.kill(pid, signal.SIGSTOP)
    timed("frozen read", lambda: store.read("domid", deadline_s=2))
    timed("frozen bus read", lambda: bus.read("domid", deadline_s=2))
    os.kill(pid, signal.SIGCONT)
    timed("thawed read", lambda: store.read("domid"))

    threading.Timer(1.0, os.kill, (pid, signal.SIGKILL)).start()
    timed("killed in a wait", lambda: watch.wait(5))
    timed("dead read", lambda: store.read("domid"))
    timed("dead bus read", lambda: bus.read("domid", deadline_s=2))
    timed("dead connect", lambda: Xenstore.connect())
    result["dead"] = detect_restart(None, run_dir=run_dir).link.value
    result["dead cli"] = run(
        ["hostagent", "xen", "xenstore", "status", "--json"], timeout_s=60, check=False
    ).code

    run(["systemctl", "restart", "xen"], timeout_s=120)
    timed("watch after restart", lambda: watch.wait(10))
    timed("read after restart", lambda: store.read("domid"))
    report = detect_restart(store, run_dir=run_dir, probe=True)
    result["after"] = report.link.value
    result["evidence"] = {item.check: item.says.value for item in report.evidence}
    result["hint"] = report.hint
    store.close()
    print(json.dumps(result))
"""


@pytest.mark.destructive
def test_a_killed_and_restarted_xenstored_never_blocks_and_is_reported(xen_host):
    xen_host.exec("systemctl stop hostagent")

    seen = run_python(xen_host, KILLED_AND_RESTARTED)

    said = {name: value[0] for name, value in seen.items() if isinstance(value, list)}
    seconds = {name: value[1] for name, value in seen.items() if isinstance(value, list)}
    # whether the device still takes a request for a daemon that is gone depends on the kernel; neither waits for ever
    assert said.pop("dead bus read") in ("XenstoreDeadline", "XenstoreUnavailable")
    assert said == {
        "frozen read": "XenstoreDeadline",
        "frozen bus read": "XenstoreDeadline",
        "thawed read": "bytes",
        "killed in a wait": "XenstoreUnavailable",
        "dead read": "XenstoreUnavailable",
        "dead connect": "XenstoreUnavailable",
        "watch after restart": "Resync",
        "read after restart": "bytes",
    }
    assert seconds["frozen read"] < 4
    assert seconds["killed in a wait"] < 8
    assert seconds["dead read"] < 2
    assert seconds["dead connect"] < 2
    assert (seen["before"], seen["dead"], seen["dead cli"], seen["after"]) == (
        "connected",
        "dead",
        1,
        "restarted",
    )
    assert set(seen["evidence"].values()) == {"restarted"}
    assert "reboot" in seen["hint"]
