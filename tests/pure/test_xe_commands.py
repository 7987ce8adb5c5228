"""The everyday commands: which calls they make, what they print, and how errors, help and debug look."""

from __future__ import annotations

import pytest

from hostagent.db.model import load
from hostagent.xe import sentences, shell
from hostagent.xe.session import ApiError, TracedApi
from tests.pure.xe_api import FakeTerminal, Xe, small_pool

NULL = "OpaqueRef:NULL"


@pytest.fixture
def xe(db):
    return Xe(db, small_pool(db))


def test_every_row_names_each_parameter_once_and_says_what_it_does():
    for command in shell.everyday().values():
        names = [*command.required, *command.optional]
        assert len(names) == len(set(names)), command.name
        assert command.help.endswith("."), command.name


# each row: command line, what it must call (with `NAME` for references of the small pool)
ROWS = [
    ("pif-plug uuid=u-pif0", ("PIF.plug", "@pif0")),
    ("pif-unplug uuid=u-pif0", ("PIF.unplug", "@pif0")),
    ("pif-forget uuid=u-pif0", ("PIF.forget", "@pif0")),
    ("pif-scan host-uuid=u-host", ("PIF.scan", "@host")),
    ("pif-reconfigure-ip uuid=u-pif0 mode=dhcp", ("PIF.reconfigure_ip", "@pif0", "DHCP", "", "", "", "")),
    (
        "pif-reconfigure-ip uuid=u-pif0 mode=static IP=192.0.2.7 netmask=255.255.255.0 gateway=192.0.2.1 DNS=a,b",
        ("PIF.reconfigure_ip", "@pif0", "Static", "192.0.2.7", "255.255.255.0", "192.0.2.1", "a,b"),
    ),
    (
        "pif-reconfigure-ipv6 uuid=u-pif0 mode=static IPv6=2001:db8::7/64",
        ("PIF.reconfigure_ipv6", "@pif0", "Static", "2001:db8::7/64", "", ""),
    ),
    ("network-destroy uuid=u-net", ("network.destroy", "@net")),
    ("bond-set-mode uuid=u-bond mode=LACP", ("Bond.set_mode", "@bond", "lacp")),
    ("bond-destroy uuid=u-bond", ("Bond.destroy", "@bond")),
    ("vlan-destroy uuid=u-vlan", ("VLAN.destroy", "@vlan")),
    ("vlan-destroy uuid=u-vlanpif", ("VLAN.destroy", "@vlan")),
    ("sr-scan uuid=u-sr", ("SR.scan", "@sr")),
    ("sr-update uuid=u-sr", ("SR.update", "@sr")),
    ("sr-forget uuid=u-sr", ("SR.forget", "@sr")),
    ("sr-destroy uuid=u-sr", ("SR.destroy", "@sr")),
    ("pbd-plug uuid=u-pbd", ("PBD.plug", "@pbd")),
    ("pbd-unplug uuid=u-pbd", ("PBD.unplug", "@pbd")),
    ("pbd-destroy uuid=u-pbd", ("PBD.destroy", "@pbd")),
    ("host-disable", ("host.disable", "@host", True)),
    ("host-disable host=alpha auto-enable=false", ("host.disable", "@host", False)),
    ("host-enable host=alpha.lan", ("host.enable", "@host")),
    ("host-evacuate host=u-host network-uuid=u-net batch-size=3", ("host.evacuate", "@host", "@net", 3)),
    ("host-evacuate uuid=u-host", ("host.evacuate", "@host", NULL, 0)),
    ("host-reboot name-label=alpha", ("host.reboot", "@host")),
    ("host-shutdown hostname=alpha.lan", ("host.shutdown", "@host")),
    ("host-restart-agent", ("host.restart_agent", "@host")),
    ("host-forget uuid=u-host --force", ("host.destroy", "@host")),
    ("host-declare-dead uuid=u-host force=true", ("host.declare_dead", "@host")),
    ("host-management-reconfigure pif-uuid=u-pif0", ("host.management_reconfigure", "@pif0")),
    ("host-management-disable", ("host.management_disable",)),
    ("host-emergency-management-reconfigure interface=xenbr0", ("host.local_management_reconfigure", "xenbr0")),
    ("host-shutdown-agent", ("host.shutdown_agent",)),
    ("host-set-hostname-live host-uuid=u-host host-name=beta", ("host.set_hostname_live", "@host", "beta")),
    ("host-syslog-reconfigure host-uuid=u-host", ("host.syslog_reconfigure", "@host")),
    ("pool-join master-address=a master-username=b master-password=c", ("pool.join", "a", "b", "c")),
    ("pool-join master-address=a master-username=b master-password=c --force", ("pool.join_force", "a", "b", "c")),
    ("pool-eject host-uuid=u-host --force", ("pool.eject", "@host")),
    ("pool-designate-new-master host-uuid=u-host", ("pool.designate_new_master", "@host")),
    ("pool-emergency-transition-to-master --force", ("pool.emergency_transition_to_master",)),
    ("pool-emergency-reset-master master-address=192.0.2.1", ("pool.emergency_reset_master", "192.0.2.1")),
    ("pool-sync-database", ("pool.sync_database",)),
    ("pool-management-reconfigure network-uuid=u-net", ("pool.management_reconfigure", "@net")),
    ("task-cancel uuid=u-task", ("task.cancel", "@task")),
    ("user-password-change new=b old=a", ("session.change_password", "a", "b")),
    ("vm-start uuid=u-vm2", ("VM.start", "@vm2", False, False)),
    ("vm-start vm=u-vm2 --paused --force", ("VM.start", "@vm2", True, True)),
    ("vm-start vm=u-vm2 on=alpha", ("VM.start_on", "@vm2", "@host", False, False)),
    ("vm-resume vm=u-vm2 on=u-host", ("VM.resume_on", "@vm2", "@host", False, False)),
    ("vm-shutdown power-state=Running", ("VM.clean_shutdown", "@vm1")),
    ("vm-shutdown vm=u-vm1 --force", ("VM.hard_shutdown", "@vm1")),
    ("vm-reboot vm=u-vm1", ("VM.clean_reboot", "@vm1")),
    ("vm-reboot vm=u-vm1 --force", ("VM.hard_reboot", "@vm1")),
    ("vm-suspend vm=u-vm1", ("VM.suspend", "@vm1")),
    ("vm-pause vm=u-vm1", ("VM.pause", "@vm1")),
    ("vm-unpause vm=u-vm1", ("VM.unpause", "@vm1")),
    ("message-destroy uuid=u-m1", ("message.destroy", "@m1")),
    ("vdi-resize uuid=u-vdi disk-size=2GiB", ("VDI.resize", "@vdi", 2 << 30)),
    ("tunnel-destroy uuid=u-tunnel", ("tunnel.destroy", "@tunnel")),
    ("vdi-destroy uuid=u-vdi", ("VDI.destroy", "@vdi")),
]  # fmt: skip


@pytest.mark.parametrize(("line", "call"), ROWS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_command_makes_its_call_and_prints_nothing(xe, line, call):
    more_objects(xe)
    for method in ("VDI.destroy", "network.destroy", "PBD.destroy"):
        xe.api.answers[method] = ""
    assert xe.did(*line.split()) == [referred(xe, call)]
    assert (xe.out, xe.err) == ("", "")


CREATED = [
    (
        "pif-introduce host-uuid=u-host device=eth5",
        ("PIF.introduce", "@host", "", "eth5", True),
        "pif1",
    ),
    (
        "bond-create network-uuid=u-net pif-uuids=u-pif0,u-pif1 properties:hashing_algorithm=src_mac mac=02::1",
        ("Bond.create", "@net", ["@pif0", "@pif1"], "02::1", "balance-slb", {"hashing_algorithm": "src_mac"}),
        "bond",
    ),
    ("tunnel-create pif-uuid=u-pif0 network-uuid=u-net", ("tunnel.create", "@pif0", "@net", "gre"), "tunnel"),
    (
        "sr-create name-label=s type=ext device-config:device=/dev/sdc physical-size=8GiB",
        ("SR.create", "@host", {"device": "/dev/sdc"}, 8 << 30, "s", "", "ext", "", False, {}),
        "sr",
    ),
    (
        "sr-introduce name-label=s type=nfs uuid=1 shared=true",
        ("SR.introduce", "1", "s", "", "nfs", "", True, {}),
        "sr",
    ),
    (
        "message-create name=n priority=3 body=text vm-uuid=u-vm1",
        ("message.create", "n", 3, "VM", "u-vm1", "text"),
        "m1",
    ),
]


@pytest.mark.parametrize(
    ("line", "call", "made"), CREATED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_created_object_is_told_by_its_uuid(xe, line, call, made):
    more_objects(xe)
    xe.api.answers[call[0]] = xe.refs[made]
    assert xe.did(*line.split()) == [referred(xe, call)]
    assert xe.out == f"u-{made}\n"


def test_vlan_create_prints_the_uuid_of_its_pif(xe):
    more_objects(xe)
    xe.api.answers["VLAN.create"] = xe.refs["vlan"]
    assert xe.did("vlan-create", "pif-uuid=u-pif0", "vlan=20", "network-uuid=u-net") == [
        referred(xe, ("VLAN.create", "@pif0", 20, "@net"))
    ]
    assert xe.out == "u-vlanpif\n"


def test_a_record_for_a_constructor_has_what_was_typed_and_defaults(xe):
    xe.api.answers["network.create"] = xe.refs["net"]
    [(_, made)] = xe.did("network-create", "name-label=dmz", "MTU=9000")
    assert (made["name_label"], made["MTU"], made["bridge"], made["managed"]) == ("dmz", 9000, "", True)
    assert xe.out == "u-net\n"
    more_objects(xe)
    xe.api.answers["VDI.create"] = xe.refs["vdi"]
    [(_, made)] = xe.did("vdi-create", "sr-uuid=u-sr", "name-label=d", "virtual-size=8GiB", "sm-config:a=b")
    assert (made["SR"], made["virtual_size"], made["type"]) == (xe.refs["sr"], 8 << 30, "user")
    assert (made["sm_config"], made["read_only"], made["tags"]) == ({"a": "b"}, False, [])
    for tags in (["tags=a,b"], ["tags:a=", "tags:b="]):
        [(_, made)] = xe.did("vdi-create", "sr-uuid=u-sr", "name-label=d", "virtual-size=1", *tags)
        assert made["tags"] == ["a", "b"]
    xe.api.answers["PBD.create"] = xe.refs["pbd"]
    [(_, made)] = xe.did("pbd-create", "sr-uuid=u-sr", "host-uuid=u-host", "device-config:device=/dev/x")
    assert made == {
        "host": xe.refs["host"],
        "SR": xe.refs["sr"],
        "device_config": {"device": "/dev/x"},
        "other_config": {},
    }


def test_secret_create_really_makes_one(xe):
    assert xe("secret-create", "value=s3cret") == 0
    uuid = xe.out.strip()
    xe("secret-param-get", f"uuid={uuid}", "param-name=value")
    assert xe.out == "s3cret\n"


@pytest.mark.parametrize(
    ("line", "answers", "out"),
    [
        ("host-compute-free-memory", {"host.compute_free_memory": 123}, "123\n"),
        ("host-dmesg host=alpha", {"host.dmesg": "(XEN) a\n(XEN) b"}, "(XEN) a\n(XEN) b\n"),
        ("host-is-in-emergency-mode", {"host.is_in_emergency_mode": False}, "false\n"),
        ("host-cpu-info", {}, "vendor: X\nspeed : 2400\n"),
        ("host-call-plugin host-uuid=u-host plugin=p fn=f args:a=b", {"host.call_plugin": "ok"}, "ok\n"),
        ("sr-probe type=nfs device-config:server=x", {"SR.probe": "<x/>"}, "<x/>\n"),
    ],
)
def test_what_a_call_answers_is_printed(xe, line, answers, out):
    xe.api.answers |= answers
    assert xe(*line.split()) == 0, xe.err
    assert xe.out == out


def test_pool_vlan_create_and_recover_slaves_print_uuids(xe):
    xe.api.answers["pool.create_VLAN_from_PIF"] = [xe.refs["pif0"], xe.refs["pif1"]]
    xe.api.answers["pool.recover_slaves"] = []
    words = ("pool-vlan-create", "pif-uuid=u-pif0", "vlan=7", "network-uuid=u-net")
    assert xe(*words) == 0
    assert xe.out == "u-pif0\nu-pif1\n"
    assert xe(*words, "--minimal") == 0
    assert xe.out == "u-pif0,u-pif1\n"
    assert xe("pool-recover-slaves") == 0
    assert xe.out == ""
    assert xe("pool-recover-slaves", "--minimal") == 0
    assert xe.out == "\n"


def test_emergency_commands_use_a_session_that_needs_no_coordinator(xe):
    local = [command for command in shell.everyday().values() if command.local]
    assert {command.name for command in local} == {
        "pool-emergency-transition-to-master",
        "pool-emergency-reset-master",
        "host-management-disable",
        "host-emergency-management-reconfigure",
        "host-is-in-emergency-mode",
        "host-shutdown-agent",
    }
    xe.api.answers["host.is_in_emergency_mode"] = True
    xe("host-is-in-emergency-mode")
    xe("host-list")
    assert xe.sessions == [True, False]
    assert all(load().message(name) for name in ("host.is_in_emergency_mode", "pool.emergency_reset_master"))


def test_a_dangerous_command_asks_to_type_yes(xe):
    assert xe("pool-eject", "host-uuid=u-host", replies=("no",)) == 1
    assert xe.err == "Error: Aborted\n"
    assert xe.out == (
        "The host leaves the pool and restarts with a fresh database; its local storage is forgotten.\n"
        "Type 'yes' to continue\n"
    )
    assert xe.api.acted == []
    assert xe.did("host-forget", "uuid=u-host", replies=("yes",)) == [("host.destroy", xe.refs["host"])]
    assert xe("host-declare-dead", "uuid=u-host") == 1  # nobody there to ask


def test_a_selector_that_fits_several_needs_multiple(xe):
    assert xe("vm-shutdown", "name-label=web") == 1
    assert xe.err == ("Error: 2 VMs match: u-vm1 (web), u-vm2 (web)\nSelect one, or add --multiple\n")
    assert xe.did("vm-suspend", "name-label=web", "--multiple") == [
        ("VM.suspend", xe.refs["vm1"]),
        ("VM.suspend", xe.refs["vm2"]),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "vm-shutdown web --multiple",
        "host-disable alpha",
        "vm-list web",
        "event-wait class=host u-host",
        "pif-param-set uuid=u-pif0 MTU",
    ],
)
def test_a_word_without_a_name_never_means_all(xe, line):
    word = next(word for word in line.split()[1:] if "=" not in word and not word.startswith("--"))
    assert xe(*line.split()) == 1
    assert xe.err.startswith(f"Unknown argument: {word} (parameters are written name=value)\n")
    assert xe.sessions == []


def test_what_fails_on_one_of_several_is_told_and_done_to_the_others(xe):
    def refuse_the_first(vm):
        if vm == xe.refs["vm1"]:
            raise ApiError("VM_BAD_POWER_STATE", (vm, "halted", "running"))
        return ""

    xe.api.answers["VM.suspend"] = refuse_the_first
    assert xe("vm-suspend", "name-label=web", "--multiple") == 1
    assert [call[1] for call in xe.api.acted] == [xe.refs["vm1"], xe.refs["vm2"]]
    assert xe.err.startswith(
        "operation failed on u-vm1 (web):\nThe VM is not in the power state that this needs.\n"
    )
    assert xe.err.endswith("\nError: failed on 1 of 2\n")
    assert xe("vm-suspend", "uuid=u-vm1") == 1
    assert xe.err.startswith("The VM is not in the power state that this needs.\nvm: u-vm1 (web)\n")


@pytest.mark.parametrize("words", [("vm=dom0",), ("uuid=u-dom0",), ("vm=debian",), ("vm=nobody",)])
def test_a_selector_never_means_dom0_or_a_template(xe, words):
    assert xe("vm-shutdown", *words) == 1
    assert xe.err == "Error: No matching VMs found\n"


def test_on_a_host_that_does_not_exist_nothing_starts(xe):
    assert xe("vm-start", "vm=u-vm2", "on=nowhere") == 1
    assert xe.err == "Error: 0 hosts are called nowhere; name one by its uuid\n"


def test_event_wait_returns_once_an_object_has_the_values(xe):
    def later(_classes, token, timeout):
        if token:
            with xe.db.write() as w:
                w.set("VM", xe.refs["vm2"], "power_state", "Running")
        asked.append((token, timeout))
        return {"token": f"t{len(asked)}", "events": []}

    asked: list[tuple[str, float]] = []
    xe.api.answers["event.from"] = later
    assert xe("event-wait", "class=vm", "uuid=u-vm2", "power-state=Running", replies=("there",)) == 0
    assert asked == [("", 0.0), ("t1", 30.0)]
    assert xe("event-wait", "class=vm", "uuid=u-vm2", "power-state=/=Halted") == 0
    assert xe("event-wait", "class=vm", "uuid=u-vm2", "power-state=Halted") == 1
    assert xe.err == "Error: the client has left\n"
    assert xe("event-wait", "class=cow") == 1
    assert xe.err == "Error: there is no class cow\n"


def test_messages_are_destroyed_together(xe):
    more_objects(xe)
    xe.did("message-destroy", "uuids=u-m1,u-m2")
    assert [call[0] for call in xe.api.acted] == ["message.destroy"] * 2
    assert xe("message-destroy") == 1
    assert xe("message-create", "name=n", "priority=1", "body=b") == 1
    assert xe.err.startswith("name one object: vm-uuid, host-uuid")


def test_a_certificate_is_read_from_files(xe):
    words = ("host-server-certificate-install", "host-uuid=u-host", "certificate=c.pem", "private-key=k.pem")
    files = {"c.pem": b"CERT", "k.pem": b"KEY"}
    assert xe.did(*words, files=files) == [
        ("host.install_server_certificate", xe.refs["host"], "CERT", "KEY", "")
    ]
    assert xe(*words, files={"c.pem": b"CERT"}) == 1
    assert xe.err == "Error: k.pem: No such file or directory\n"
    assert xe(*words, files={**files, "c.pem": b"\xff\x00"}) == 1
    assert xe.err == "Error: c.pem is not PEM: it has bytes that are no ASCII text\n"


@pytest.mark.parametrize(
    "line", ["pool-dump-database file-name=x", "pool-restore-database file-name=x", "host-get-system-status"]
)
def test_what_is_not_built_says_what_to_use(xe, line):
    assert xe(*line.split()) == 1
    assert " is not there yet: " in xe.err


# errors, help


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ApiError("SESSION_AUTHENTICATION_FAILED", ("root", "x")), "Authentication failed\nFor usage run: 'xe help'\n"),
        (
            ApiError("VM_BAD_POWER_STATE", ("@vm1", "halted", "running")),
            "The VM is not in the power state that this needs.\nvm: u-vm1 (web)\nexpected: halted\nactual: running\n",
        ),
        (ApiError("FROM_THE_FUTURE", ("a", "b")), "Error code: FROM_THE_FUTURE\nError parameters: a, b\n"),
        (ApiError("FROM_THE_FUTURE"), "Error code: FROM_THE_FUTURE\nError parameters: \n"),
        (
            ApiError("HANDLE_INVALID", ("VM", "OpaqueRef:gone")),
            "The object does not exist, or no longer.\nclass: VM\nhandle: OpaqueRef:gone\n",
        ),
        (
            ApiError("PBD_EXISTS", ("@sr", "@host")),
            "The host is connected with this storage repository already.\nsr: u-sr (disks)\nhost: u-host (alpha)\n",
        ),
        (
            ApiError("HOST_STILL_BOOTING", ("more",)),
            "The host is still starting; try again in a while.\n<extra>: more\n",
        ),
        (
            ApiError("POOL_JOINING_HOST_HAS_BONDS"),
            "The server refused this: POOL_JOINING_HOST_HAS_BONDS\n",
        ),
        (ApiError("PIF_IS_MANAGEMENT_INTERFACE", ("@pif0",)), "The PIF is the management interface.\nPIF: u-pif0\n"),
    ],
)  # fmt: skip
def test_an_api_error_is_its_sentence_and_its_parameters_by_name(xe, error, text):
    params = tuple(xe.refs[p[1:]] if p.startswith("@") else p for p in error.params)
    xe.api.answers["VM.suspend"] = ApiError(error.code, params)
    assert xe("vm-suspend", "vm=u-vm1") == 1
    assert xe.out == ""
    assert xe.err == text


def test_the_class_of_an_object_may_be_another_parameter(xe):
    params = ("VM", xe.refs["vm1"], "start", xe.refs["task"])
    xe.api.answers["VM.suspend"] = ApiError("OTHER_OPERATION_IN_PROGRESS", params)
    xe("vm-suspend", "vm=u-vm1")
    assert xe.err.splitlines()[1:] == [
        "class: VM",
        "object: u-vm1 (web)",
        "operation_type: start",
        f"operation_ref: {xe.refs['task']}",
    ]


def test_every_sentence_is_of_a_code_that_exists():
    assert set(sentences.SENTENCES) - set(load().errors) == set()


def test_help_of_a_command_tells_its_parameters(xe):
    assert xe("help", "pif-introduce") == 0
    assert xe.out == (
        "command name            : pif-introduce\n"
        "        reqd params     : host-uuid, device\n"
        "        optional params : mac, managed\n"
        "        description     : Make a PIF for a network interface of a host.\n"
    )
    assert xe("help", "vm-start") == 0
    assert "optional params : force, on, paused, <vm-selectors>\n" in xe.out
    assert xe("help", "vm-strat") == 1
    assert "Did you mean vm-start?" in xe.err
    assert xe.sessions == []


def test_help_lists_everyday_commands_and_with_all_every_one(xe):
    assert xe("help") == 0
    assert "pif-plug" in xe.out
    assert "pif-param-get" not in xe.out
    assert max(len(line) for line in xe.out.splitlines()) <= 116
    assert xe("help", "--all") == 0
    assert {name.strip() for name in xe.out.replace("\n", " ").split(",")} == set(shell.commands())
    assert xe("help", "--all", "--minimal") == 0
    assert xe.out == ",".join(sorted(shell.commands())) + "\n"
    assert xe("help", "--minimal") == 0
    assert xe.out == ",".join(sorted(shell.everyday())) + "\n"
    assert xe("--help") == 0
    assert xe() == 0


def test_a_command_without_its_required_parameters_says_which(xe):
    for name, command in shell.commands().items():
        assert xe("help", name) == 0
        assert xe.out.startswith(f"command name            : {name}\n")
        if command.required:
            assert xe(name) == 1
            first = command.required[0]
            assert xe.err == f"Required parameter not found: {first}\nFor usage run: 'xe help {name}'\n"
    assert xe.sessions == []


@pytest.mark.parametrize("words", [("uuid=u-host",), ("--minimal",), ("=",)])
def test_parameters_without_a_command_are_an_error(xe, words):
    assert xe(*words) == 1
    assert (xe.out, xe.err) == ("", "Syntax error: the command is missing\nFor usage run: 'xe help'\n")


def test_debug_tells_calls_and_never_their_parameters(xe):
    terminal = FakeTerminal()
    api = TracedApi(xe.api, terminal)
    api.call("host.get_by_uuid", "u-host")
    with pytest.raises(ApiError):
        api.call("host.get_by_uuid", "s3cret")
    assert terminal.err == (
        "debug: host.get_by_uuid (1 parameters): done\ndebug: host.get_by_uuid (1 parameters): UUID_INVALID\n"
    )


def more_objects(xe):
    with xe.db.write() as w:
        refs = xe.refs
        vlan = w.create("VLAN", {"uuid": "u-vlan", "tag": 20, "tagged_PIF": refs["pif0"]})
        pif = w.create("PIF", {"uuid": "u-vlanpif", "host": refs["host"], "VLAN": 20, "VLAN_master_of": vlan})
        w.set("VLAN", vlan, "untagged_PIF", pif)
        refs |= {
            "vlan": vlan,
            "vlanpif": pif,
            "bond": w.create("Bond", {"uuid": "u-bond", "master": refs["pif0"]}),
            "tunnel": w.create("tunnel", {"uuid": "u-tunnel"}),
            "vdi": w.create("VDI", {"uuid": "u-vdi", "SR": refs["sr"]}),
            "m1": w.create("message", {"uuid": "u-m1", "name": "a"}),
            "m2": w.create("message", {"uuid": "u-m2", "name": "b"}),
        }


def referred(xe, value):
    """`@name` becomes the reference of that object, at any depth."""
    if isinstance(value, str) and value.startswith("@"):
        return xe.refs[value[1:]]
    if isinstance(value, list | tuple):
        return type(value)(referred(xe, item) for item in value)
    return value
