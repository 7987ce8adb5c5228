"""Clients of others, unchanged, against the agent of a real host, over its real sockets."""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import XenAPI

from tests.xen.agent import start
from tests.xen.xenapi import PASSWORD, SOCKET, connect, tunnel

pytestmark = [pytest.mark.destructive]

MIB = 1 << 20
CLIENT_S = 180
ATTEMPTS = 24
"""More than are let through to PAM in a minute."""
CLIENTS = Path(__file__).parent / "clients"
PEOPLE = f"""
[ ! -e /root/people ] || exit 0
for who in admin:hostagent-admin reader:hostagent-readonly nobody-in-particular:users; do
    id -u "${{who%%:*}}" >/dev/null 2>&1 || useradd -M -G "${{who#*:}}" "${{who%%:*}}"
    echo "${{who%%:*}}:{PASSWORD}"
done | chpasswd
echo 'root:{PASSWORD}' | chpasswd
touch /root/people
"""
# what Xen's and Debian's own tools say of the host
LOOK = r"""
xl=$(xl info)
info() { sed -n "s/^$1 *: //p" <<<"$xl"; }
jq -n --arg hostname "$(hostname)" --arg kernel "$(uname -r)" \
  --arg cpus "$(info nr_cpus)" --arg total_mib "$(info total_memory)" --arg free_mib "$(info free_memory)" \
  --arg xen "$(info xen_version)" --arg scheduler "$(info xen_scheduler)" --arg caps "$(info xen_caps)" \
  --arg model "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)" \
  --arg dom0_mib "$(xl list 0 | awk '/Domain-0/{print $3}')" --arg dom0_vcpus "$(xl list 0 | awk '/Domain-0/{print $4}')" \
  --arg installation "$(sed -n "s/^INSTALLATION_UUID='\(.*\)'/\1/p" /etc/hostagent/inventory)" \
  --arg control "$(sed -n "s/^CONTROL_DOMAIN_UUID='\(.*\)'/\1/p" /etc/hostagent/inventory)" \
  --arg fingerprint "$(openssl x509 -in /etc/hostagent/tls/server.pem -noout -fingerprint -sha256 | sed 's/.*=//')" \
  '$ARGS.named'
"""


@pytest.fixture
def ready(xen_host: Any) -> Any:
    """A host whose agent is up, now or for an earlier test, and people who may log in."""
    if xen_host.exec("hostagent status --json >/dev/null", check=False).code != 0:
        run = start(xen_host)
        assert run.report["result"] == "clean", run.troubles
    xen_host.exec(PEOPLE)
    return xen_host


@pytest.fixture
def api(ready):
    with tunnel(ready) as made:
        yield made


@pytest.fixture
def session(api):
    with api.session() as made:
        yield made


def only(records: dict[str, Any]) -> Any:
    (record,) = records.values()
    return record


@pytest.mark.both
def test_records_say_of_the_host_what_its_own_tools_say(session, ready):
    seen = json.loads(ready.exec(LOOK).stdout)

    host = only(session.xenapi.host.get_all_records())
    assert (host["uuid"], host["hostname"]) == (seen["installation"], seen["hostname"])
    assert host["enabled"] is True
    assert seen["xen"].startswith(host["software_version"]["xen"])
    assert host["software_version"]["linux"] == seen["kernel"]
    assert host["cpu_info"]["cpu_count"] == seen["cpus"]
    assert host["cpu_info"]["modelname"] == seen["model"]
    assert set(host["capabilities"]) == set(seen["caps"].split())
    assert host["sched_policy"] == seen["scheduler"]
    assert len(session.xenapi.host_cpu.get_all()) == int(seen["cpus"])
    measured = session.xenapi.host_metrics.get_record(host["metrics"])
    assert measured["live"] is True
    assert abs(int(measured["memory_total"]) - int(seen["total_mib"]) * MIB) <= MIB
    assert abs(int(measured["memory_free"]) - int(seen["free_mib"]) * MIB) <= 16 * MIB
    assert 0 < int(host["memory_overhead"]) < 256 * MIB
    dom0 = session.xenapi.VM.get_record(host["control_domain"])
    assert (dom0["uuid"], dom0["domid"], dom0["power_state"]) == (seen["control"], "0", "Running")
    assert dom0["is_control_domain"] is True
    assert int(dom0["memory_target"]) == int(seen["dom0_mib"]) * MIB
    assert dom0["VCPUs_max"] == seen["dom0_vcpus"]
    certificate = only(session.xenapi.Certificate.get_all_records())
    assert certificate["fingerprint_sha256"].upper() == seen["fingerprint"].upper()


def test_features_of_the_processors_are_those_that_xen_names(session, ready):
    said = ready.exec("/usr/lib/xen-*/bin/xen-cpuid -p 2>/dev/null || xen-cpuid -p").stdout
    info = only(session.xenapi.host.get_all_records())["cpu_info"]

    words = info["features_hvm_host"].split("-") if info["features_hvm_host"] else []
    listed = info["features_pv_host"].split("-")
    assert listed
    assert all(len(word) == 8 for word in [*words, *listed])
    assert listed[0] in said


@pytest.mark.full
def test_what_a_client_sets_is_there_after_a_restart(api, ready):
    with api.session() as session:
        pool = session.xenapi.pool.get_all()[0]
        session.xenapi.pool.set_name_label(pool, "é < & > \U0001f600")
        session.xenapi.pool.add_to_other_config(pool, "a key", "a value")
        before = session.xenapi.pool.get_record(pool)
        session.xenapi.pool.remove_from_other_config(pool, "a key")
        session.xenapi.pool.add_to_other_config(pool, "a key", "a value")

    assert start(ready).report["result"] == "clean"

    with api.session() as session:
        assert session.xenapi.pool.get_record(pool) == before
        session.xenapi.pool.remove_from_other_config(pool, "a key")
        assert "a key" not in session.xenapi.pool.get_other_config(pool)


@pytest.mark.full
def test_a_change_made_in_one_client_is_seen_in_the_other(session, api):
    pool = session.xenapi.pool.get_all()[0]
    token = session.xenapi.event_from(["pool"], "", 0.0)["token"]
    answers: queue.Queue[Any] = queue.Queue()
    waiting = threading.Thread(target=lambda: answers.put(session.xenapi.event_from(["pool"], token, 60.0)))
    waiting.start()
    with api.session("root", PASSWORD, path=api.tcp) as other:
        other.xenapi.pool.set_name_label(pool, "seen by the other")
    (event,) = answers.get(timeout=60)["events"]
    waiting.join()

    assert (event["class"], event["operation"], event["ref"]) == ("pool", "mod", pool)
    assert event["snapshot"]["name_label"] == "seen by the other"


@pytest.mark.full
def test_an_asynchronous_call_ends_and_its_task_can_be_read(session):
    host = only(session.xenapi.host.get_all_records())
    message = session.xenapi.message.create("NAME", 3, "Host", host["uuid"], "body")
    task = session.xenapi.Async.message.destroy_many([message])
    token, status = "", "pending"
    while status == "pending":
        token = session.xenapi.event_from([f"task/{task}"], token, 10.0)["token"]
        status = session.xenapi.task.get_status(task)
    assert status == "success"
    session.xenapi.task.destroy(task)
    assert message not in session.xenapi.message.get_all()


def refusal(call, *parameters):
    with pytest.raises(XenAPI.Failure) as caught:
        call(*parameters)
    return caught.value.details


@pytest.mark.parametrize("way", ["local", "tcp"])
def test_logging_in_needs_the_password_where_root_is_not_the_caller(api, way):
    client = connect(getattr(api, way))
    try:
        if way == "local":
            client.xenapi.login_with_password("root", "")
        else:
            said = refusal(client.xenapi.login_with_password, "root", "wrong")
            assert said[0] == "SESSION_AUTHENTICATION_FAILED"
            assert (
                refusal(client.xenapi.login_with_password, "root", "")[0] == "SESSION_AUTHENTICATION_FAILED"
            )
            client.xenapi.login_with_password("root", PASSWORD)
        handle = client.handle
        assert client.xenapi.session.get_this_user(handle) is not None
        client.xenapi.session.logout()
        assert client.host.get_all(handle)["ErrorDescription"] == ["SESSION_INVALID", handle]
    finally:
        client("close")()


@pytest.mark.full
def test_people_have_the_role_of_their_group(api, ready):
    with api.session("admin", PASSWORD, path=api.tcp) as admin:
        pool = admin.xenapi.pool.get_all()[0]
        admin.xenapi.pool.set_name_description(pool, "by an administrator")
    with api.session("reader", PASSWORD, path=api.tcp) as reader:
        assert reader.xenapi.pool.get_name_description(pool) == "by an administrator"
        said = refusal(reader.xenapi.pool.set_name_description, pool, "by a reader")
        assert said[:2] == ["RBAC_PERMISSION_DENIED", "pool.set_name_description"]
    client = connect(api.tcp)
    said = refusal(client.xenapi.login_with_password, "nobody-in-particular", PASSWORD)
    assert said[0] == "SESSION_AUTHENTICATION_FAILED"
    client("close")()


@pytest.mark.full
def test_a_session_that_nobody_uses_expires(ready):
    ready.exec(
        "mkdir -p /etc/hostagent/conf.d; printf '[api]\\nsession-idle = 2\\n' >/etc/hostagent/conf.d/70-idle.toml"
    )
    try:
        assert start(ready).report["result"] == "clean"
        with tunnel(ready) as api:
            client = connect(api.tcp)
            client.xenapi.login_with_password("root", PASSWORD)
            handle = client.handle
            ready.exec("sleep 3")
            assert client.host.get_all(handle)["ErrorDescription"] == ["SESSION_INVALID", handle]
            client("close")()
    finally:
        ready.exec("rm /etc/hostagent/conf.d/70-idle.toml")
        start(ready)


@pytest.mark.full
def test_messages_of_clients_are_there_after_a_restart(api, ready):
    texts = {"the first", "the second"}
    with api.session() as session:
        pool = session.xenapi.pool.get_uuid(session.xenapi.pool.get_all()[0])
        for text in texts:
            session.xenapi.message.create("KEPT_OVER_A_RESTART", "3", "Pool", pool, text)
    assert start(ready).report["result"] == "clean"
    with api.session() as session:
        kept = session.xenapi.message.get_all_records().values()
    assert {one["body"] for one in kept if one["name"] == "KEPT_OVER_A_RESTART"} == texts


@pytest.mark.full
def test_a_port_that_another_has_is_named_and_the_host_still_takes_guests(ready):
    squat = """
systemctl stop hostagent
systemd-run --quiet --unit squatter python3 -m http.server 80 --bind 127.0.0.1
until ss -Hltn 'sport = 80' | grep -q 127.0.0.1; do sleep 0.2; done"""
    try:
        run = start(ready, before=squat)
        assert "python3" in run.steps["listen-localhost"]["error"]["found"]
        assert run.statuses["enable-host"] == "changed"
        enabled = "hostagent-xe host-param-get uuid=$(hostagent-xe host-list --minimal) param-name=enabled"
        assert ready.exec(enabled).stdout == "true\n"
    finally:
        ready.exec("systemctl stop squatter")
    assert start(ready).report["result"] == "clean"


def pam_failures(host):
    """How many wrong passwords PAM's own log has of us."""
    return int(
        host.exec("journalctl -b | grep -c 'hostagent:auth.*authentication failure'", check=False).stdout
    )


@pytest.mark.full
def test_a_flood_of_wrong_passwords_is_refused_and_holds_nobody_else_up(api, ready):
    def attempt(_number):
        client = connect(api.tcp)
        try:
            return refusal(client.xenapi.login_with_password, "root", "wrong")[0]
        finally:
            client("close")()

    before = pam_failures(ready)
    try:
        with ThreadPoolExecutor(ATTEMPTS) as attempts:
            refused = [attempts.submit(attempt, number) for number in range(ATTEMPTS)]
            with api.session() as session:  # root, over the Unix socket
                assert len(session.xenapi.host.get_all()) == 1
            assert {one.result() for one in refused} == {"SESSION_AUTHENTICATION_FAILED"}
        assert attempt(ATTEMPTS) == "SESSION_AUTHENTICATION_FAILED"
        assert 0 < pam_failures(ready) - before < ATTEMPTS
    finally:
        start(ready)


def following(api, transport, password=PASSWORD):
    node = Path(sys.prefix) / "bin/node"
    words = [*api.inside, str(node), str(CLIENTS / "follow.js"), api.url, "root", password, transport]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=CLIENTS)


def lines_of(process):
    """What the program says, line by line; it is killed when it takes too long."""
    watch = threading.Timer(CLIENT_S, process.kill)
    watch.start()
    text = []
    with process:
        for line in process.stdout:
            text.append(line)
            with contextlib.suppress(ValueError):  # a warning of node
                yield json.loads(line)
    watch.cancel()
    assert process.returncode == 0, "".join(text)


@pytest.mark.parametrize(
    "transport", ["auto", *(pytest.param(name, marks=pytest.mark.full) for name in ("json-rpc", "xml-rpc"))]
)
def test_the_library_of_xen_orchestra_works_unchanged(api, session, transport):
    pool = session.xenapi.pool.get_all()[0]
    said = {}
    for what, *rest in lines_of(following(api, transport)):
        said[what] = rest
        if what == "following":
            session.xenapi.pool.set_name_label(pool, f"for {transport}")

    types = set(said["objects"][0].values())
    assert {"host", "pool", "VM", "host_metrics", "VM_metrics"} <= types
    assert said["coordinator"] == [only(session.xenapi.host.get_all_records())["hostname"]]
    assert said["saw"] == [f"for {transport}"]
    assert said["own change"] == [f"by {transport}"]
    assert said["error"] == ["HANDLE_INVALID", ["host", "OpaqueRef:none"]]
    assert "asynchronous call ended" in said
    assert list(said)[-1] == "end"
    assert session.xenapi.pool.get_name_description(pool) == f"by {transport}"


@pytest.mark.full
def test_the_library_of_xen_orchestra_is_told_of_a_wrong_password(api):
    assert list(lines_of(following(api, "auto", "wrong"))) == [["refused", "SESSION_AUTHENTICATION_FAILED"]]


def test_node_and_its_packages_are_there():
    assert (CLIENTS / "node_modules/xen-api/package.json").is_file()
    assert shutil.which("node", path=str(Path(sys.prefix) / "bin"))


# Runs in dom0: that many clients of the Unix socket wait for an event, each on a connection of its own.
LISTENERS = 500
LISTEN = f"""
import asyncio, json, os, subprocess, time

PID = subprocess.check_output(["systemctl", "show", "hostagent", "-p", "MainPID", "--value"], text=True).strip()

async def call(method, *params):
    reader, writer = await asyncio.open_unix_connection("{SOCKET}")
    body = json.dumps({{"jsonrpc": "2.0", "id": 1, "method": method, "params": params}}).encode()
    writer.write(b"POST /jsonrpc HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\nConnection: close\\r\\n"
                 b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
    answer = await reader.read()
    writer.close()
    reply = json.loads(answer.partition(b"\\r\\n\\r\\n")[2])
    assert "result" in reply, reply
    return reply["result"]

def status(key):
    return int(next(line for line in open(f"/proc/{{PID}}/status") if line.startswith(key)).split()[1])

async def main():
    session = await call("session.login_with_password", "root", "", "1.0", "test")
    (pool,) = await call("pool.get_all", session)
    token = (await call("event.from", session, ["pool"], "", 0))["token"]
    waiting = [asyncio.create_task(call("event.from", session, ["pool"], token, 300)) for _ in range({LISTENERS})]
    while len(os.listdir(f"/proc/{{PID}}/fd")) < {LISTENERS}:  # with some files that are no connections, and are always open
        await asyncio.sleep(0.1)
    threads = status("Threads:")
    begun = time.monotonic()
    await call("pool.set_name_description", session, pool, "for all")
    answers = await asyncio.gather(*waiting)
    told = sum(event["snapshot"]["name_description"] == "for all" for one in answers for event in one["events"])
    print(json.dumps([told, threads, status("VmRSS:"), round(time.monotonic() - begun, 2)]))

asyncio.run(main())
"""


@pytest.mark.full
def test_hundreds_wait_for_events_and_cost_no_thread_each(ready):
    told, threads, rss_kib, _seconds = json.loads(ready.exec("python3 -", stdin=LISTEN).stdout)

    assert told == LISTENERS
    assert threads < 50
    assert rss_kib < 100 * 1024
