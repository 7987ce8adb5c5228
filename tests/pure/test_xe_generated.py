"""The commands that every class has, word for word, over a real database."""

from __future__ import annotations

import pytest

from hostagent.db.model import load
from hostagent.xe import generated, shell, views, words
from hostagent.xe.session import ApiError
from tests.pure.xe_api import Xe, small_pool


@pytest.fixture
def xe(db):
    return Xe(db, small_pool(db))


PIFS = """\
uuid ( RO)                  : u-pif0
                device ( RO): eth0
                   MAC ( RO): 52:54:00:12:34:50
    currently-attached ( RO): true
                  VLAN ( RO): -1
          network-uuid ( RO): u-net
             host-uuid ( RO): u-host


uuid ( RO)                  : u-pif1
                device ( RO): eth1
                   MAC ( RO): 52:54:00:12:34:51
    currently-attached ( RO): false
                  VLAN ( RO): -1
          network-uuid ( RO): u-net
             host-uuid ( RO): u-host


"""


def test_a_list_shows_the_default_columns_padded_and_two_blank_lines_after_each_record(xe):
    assert xe("pif-list") == 0
    assert xe.out == PIFS
    assert xe.err == ""


def test_columns_come_in_definition_order_whatever_the_order_asked(xe):
    assert xe("pif-list", "params=host-name-label,MTU,device,IP-configuration-mode", "device=eth1") == 0
    assert xe.out == (
        "device ( RO)                   : eth1\n"
        "          host-name-label ( RO): alpha\n"
        "                      MTU ( RO): 1500\n"
        "    IP-configuration-mode ( RO): None\n\n\n"
    )


def test_a_set_is_separated_by_semicolons_a_few_by_commas_and_a_map_too(xe):
    xe("network-list", "params=tags,bridge")
    assert xe.out == "bridge ( RO)    : xenbr0\n      tags (SRW): a, b,c\n\n\n"
    xe("network-param-get", "uuid=u-net", "param-name=PIF-uuids")
    assert sorted(xe.out.strip().split("; ")) == ["u-pif0", "u-pif1"]
    xe("pbd-list", "params=device-config")
    assert xe.out == "device-config (MRW)    : device: /dev/sdb; x: y\n\n\n"


def test_enums_are_in_the_words_of_xe(xe):
    with xe.db.write() as w:
        w.create("VDI", {"uuid": "u-vdi", "SR": xe.refs["sr"], "type": "ha_statefile"})
        w.set("SR", xe.refs["sr"], "allowed_operations", ["vdi_create", "scan"])
        w.set("task", xe.refs["task"], "allowed_operations", ["cancel"])
    xe("vm-list", "uuid=u-vm1")
    assert xe.out.splitlines()[2] == "    power-state ( RO): running"
    for line, shown in (
        ("vdi-param-get uuid=u-vdi param-name=type", "HA statefile"),
        ("sr-param-get uuid=u-sr param-name=allowed-operations", "VDI.create; scan"),
        ("task-param-get uuid=u-task param-name=allowed_operations", "Cancel"),
        ("vm-param-get uuid=u-vm1 param-name=actions-after-crash", "Destroy"),
        ("pif-param-get uuid=u-pif0 param-name=IP-configuration-mode", "None"),
    ):
        xe(*line.split())
        assert xe.out == f"{shown}\n"
    assert xe.did("vm-param-set", "uuid=u-vm1", "actions-after-crash=Core dump and restart") == [
        ("VM.set_actions_after_crash", xe.refs["vm1"], "coredump_and_restart")
    ]


def test_every_word_for_an_enum_is_for_a_value_of_it():
    for enum, words_of in words.ENUM_WORDS.items():
        assert set(words_of) - set(load().enums[enum]) == set(), enum
        assert len({words.shown(enum, word) for word in load().enums[enum]}) == len(load().enums[enum])
    for cls, field in (*words.FIELD_NAMES, *words.COMMA_FIELDS):
        assert field in load().cls(cls).fields


def test_current_operations_are_a_set_of_words(xe):
    with xe.db.write() as w:
        w.set("host", xe.refs["host"], "current_operations", {"OpaqueRef:1": "vm_start"})
    xe("host-list", "params=current-operations")
    assert xe.out == "current-operations (SRO)    : VM.start\n\n\n"


def test_metrics_are_columns_of_what_they_measure(xe):
    with xe.db.write() as w:
        metrics = w.create(
            "PIF_metrics", {"carrier": True, "speed": 10000, "duplex": True, "device_name": "X710"}
        )
        dark = w.create("PIF_metrics", {})
        w.set("PIF", xe.refs["pif0"], "metrics", metrics)
        w.set("PIF", xe.refs["pif1"], "metrics", dark)
        guest = w.create("VM_guest_metrics", {"os_version": {"name": "Debian", "major": "12"}})
        w.set("VM", xe.refs["vm1"], "guest_metrics", guest)
    xe("pif-list", "params=carrier,speed,duplex,device-name", "carrier=true")
    assert xe.out == (
        "carrier ( RO)        : true\n    device-name ( RO): X710\n"
        "          speed ( RO): 10000 Mbit/s\n         duplex ( RO): full\n\n\n"
    )
    xe("pif-param-get", "uuid=u-pif1", "param-name=duplex")
    assert xe.out == "unknown\n"
    with xe.db.write() as w:
        w.update("PIF_metrics", dark, {"carrier": True})
    xe("pif-param-get", "uuid=u-pif1", "param-name=duplex")
    assert xe.out == "half\n"
    xe("vm-param-get", "uuid=u-vm1", "param-name=os-version", "param-key=major")
    assert xe.out == "12\n"
    xe("vm-list", "os-version:name=Debian", "--minimal")
    assert xe.out == "u-vm1\n"
    xe("vm-list", "os-version:name=/=Debian", "is-control-domain=false", "--minimal")
    assert xe.out == "u-vm2\n"
    xe("host-param-get", "uuid=u-host", "param-name=memory-free")
    assert xe.out == "<not in database>\n"
    assert xe("pif-param-set", "uuid=u-pif1", "carrier=false") == 1
    assert xe.err == "Error: carrier is read-only\n"


def test_a_field_is_known_by_the_name_of_the_api_as_well(xe):
    for name in ("PIF-uuids", "PIFs"):
        xe("network-param-get", "uuid=u-net", f"param-name={name}")
        assert sorted(xe.out.strip().split("; ")) == ["u-pif0", "u-pif1"]
    for name in ("subtask_of", "subtask-of"):
        xe("task-list", f"params={name}")
        assert xe.out == "subtask_of ( RO)    : <not in database>\n\n\n"


def test_a_message_is_listed_with_its_body(xe):
    with xe.db.write() as w:
        w.create("message", {"uuid": "u-m", "name": "N", "body": "why"})
    xe("message-list")
    assert "body ( RO): why\n" in xe.out


def test_a_link_shows_not_in_database_when_null_and_invalid_reference_when_dangling(xe):
    xe("pool-list", "params=master,default-SR")
    assert xe.out == "master ( RO)        : u-host\n    default-SR ( RW): <not in database>\n\n\n"
    with xe.db.write() as w:
        w.destroy("network", xe.refs["net"])
    xe("pif-list", "params=network-uuid,network-name-label", "device=eth0")
    assert xe.out == (
        "network-uuid ( RO)          : <invalid reference>\n"
        "    network-name-label ( RO): <invalid reference>\n\n\n"
    )


def test_a_float_has_three_decimals(xe):
    xe("task-param-get", "uuid=u-task", "param-name=progress")
    assert xe.out == "0.500\n"


def test_an_sr_shows_its_host_or_that_it_is_shared(xe):
    xe("sr-list")
    assert "                host ( RO): alpha\n" in xe.out
    with xe.db.write() as w:
        other = w.create("host", {"name_label": "beta"})
        w.create("PBD", {"host": other, "SR": xe.refs["sr"]})
        w.update("SR", xe.refs["sr"], {"shared": True})
    xe("sr-list", "params=host", "--minimal")
    assert xe.out == "<shared>\n"


def test_minimal_prints_the_first_selected_column_joined_and_escaped(xe):
    xe("pif-list", "--minimal")
    assert xe.out == "u-pif0,u-pif1\n"
    xe("vm-list", "params=power-state,name-label", "--minimal")
    assert xe.out == "dom0,web,web\n"
    xe("network-list", "params=tags", "--minimal")
    assert xe.out == "a\\, b\\,c\n"
    xe("pif-list", "device=eth7", "--minimal")
    assert xe.out == "\n"


def test_a_list_of_nothing_prints_nothing(xe):
    assert xe("bond-list") == 0
    assert (xe.out, xe.err) == ("", "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("vm-list",), "u-dom0,u-vm1,u-vm2"),
        (("template-list",), "u-template"),
        (("snapshot-list",), "u-snapshot"),
        (("vm-list", "name-label=web", "power-state=halted"), "u-vm2"),
        (("vm-list", "power-state=Halted"), "u-vm2"),
        (("vm-list", "power-state=/=running"), "u-vm2"),
        (("pif-list", "MAC=52:54:00:12:34:50"), "u-pif0"),
        (("host-list", "allowed-operations:contains=VM.start"), "u-host"),
        (("host-list", "allowed-operations:contains=vm_migrate"), ""),
        (("host-list", "current-operations:contains=Evacuate"), "u-host"),
        (("vm-list", "dom-id=7"), "u-vm1"),
        (("vm-list", "resident-on=u-host", "is-control-domain=false"), "u-vm1"),
        (("pbd-list", "device-config:x=y"), "u-pbd"),
        (("pbd-list", "device-config:x=z"), ""),
        (("pbd-list", "device-config:z=y"), ""),
        (("network-list", "tags:contains=b,c"), "u-net"),
        (("network-list", "tags:contains=b"), ""),
        (("network-list", "PIF-uuids:contains=u-pif1"), "u-net"),
        (("network-list", "PIFs:contains=u-pif1"), "u-net"),
        (("pif-list", "network-name-label=lan", "device=eth0"), "u-pif0"),
        (("host-list", "--multiple"), "u-host"),
    ],
)
def test_filters(xe, words, found):
    with xe.db.write() as w:
        w.set("host", xe.refs["host"], "allowed_operations", ["vm_start"])
        w.set("host", xe.refs["host"], "current_operations", {"OpaqueRef:1": "evacuate"})
    assert xe(*words, "--minimal") == 0, xe.err
    assert xe.out == f"{found}\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("pif-list", "devise=eth0"), "Error: Unknown field: devise (did you mean device?)\n"),
        (("pif-list", "params=uuid,zzz"), "Error: Unknown field: zzz\n"),
        (("pif-list", "params="), "Error: params= names no field\n"),
        (
            ("pif-list", "device:x=1"),
            "Error: device:x: device is no map (MAP:KEY=VALUE) or set (SET:contains=VALUE)\n",
        ),
        (
            ("vm-list", "database:filename=/x"),
            "Error: database: another database cannot be read here; `hostagent db dump` shows one\n",
        ),
        (("pif-lst",), "Unknown command: pif-lst\nDid you mean pif-list?\nFor usage run: 'xe help'\n"),
        (
            ("pif-param-list",),
            "Required parameter not found: uuid\nFor usage run: 'xe help pif-param-list'\n",
        ),
        (
            ("pif-param-get", "uuid=u-pif0", "param-name=device", "x=1"),
            "Unknown parameter: x\nFor usage run: 'xe help pif-param-get'\n",
        ),
        (
            ("pif-param-list", "uuid=u-pif0", "extra"),
            "Unknown argument: extra (parameters are written name=value)\nFor usage run: 'xe help pif-param-list'\n",
        ),
        (
            ("pif-param-get", "uuid=nope", "param-name=MTU"),
            "There is no object with this uuid.\ntype: PIF\nuuid: nope\n",
        ),
        (("pif-param-get", "uuid=u-pif0", "param-name=MTU", "param-key=x"), "Error: MTU is no map, it has no keys\n"),
        (
            ("pbd-param-get", "uuid=u-pbd", "param-name=device-config", "param-key=z"),
            "Error: device-config has no key z\n",
        ),
        (("pif-param-set", "uuid=u-pif0", "device=eth9"), "Error: device is read-only\n"),
        (
            ("pif-param-set", "uuid=u-pif0", "disallow-unplug=maybe"),
            "disallow-unplug is true or false, not 'maybe'\nFor usage run: 'xe help pif-param-set'\n",
        ),
        (("pif-param-set", "uuid=u-pif0"), "Error: nothing to set: write FIELD=VALUE or MAP:KEY=VALUE\n"),
        (("network-param-remove", "uuid=u-net", "param-name=tags", "param-key=z"), "Error: tags has no member z\n"),
        (
            ("network-param-remove", "uuid=u-net", "param-name=MTU", "param-key=z"),
            "Error: MTU is neither a set nor a map\n",
        ),
        (("network-param-clear", "uuid=u-net", "param-name=MTU"), "Error: MTU is no set, map, link or text\n"),
        (("network-param-add", "uuid=u-net", "param-name=MTU", "x=z"), "Error: MTU is no map\n"),
        (
            ("network-param-add", "uuid=u-net", "param-name=tags", "param-key=a", "x=z"),
            "Unknown parameter: x (of a set, write param-key=VALUE)\nFor usage run: 'xe help network-param-add'\n",
        ),
        (
            ("network-param-add", "uuid=u-net", "param-name=other-config", "param-key=a", "x=z"),
            "Unknown parameter: param-key (of a map, write KEY=VALUE)\nFor usage run: 'xe help network-param-add'\n",
        ),
        (("network-param-set", "uuid=u-net", "tags:x=z"), "Error: tags is no map\n"),
        (
            ("network-param-set", "uuid=u-net", "other-config=z"),
            "other-config is a map: write other-config:KEY=VALUE\nFor usage run: 'xe help network-param-set'\n",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_on_the_error_output_with_exit_status_1(xe, words, error):
    assert xe(*words) == 1
    assert (xe.out, xe.err) == ("", error)
    assert xe.api.acted == []


def test_param_list_shows_every_column(xe):
    assert xe("network-param-list", "uuid=u-net") == 0
    labels = [line.partition(":")[0].strip() for line in xe.out.rstrip().splitlines()]
    assert labels == [column.label for column in views.views()["network"].columns]
    assert xe.out.endswith("\n\n\n")
    assert "MTU ( RW): 1500\n" in xe.out


def test_param_get_prints_the_value_alone(xe):
    xe("pbd-param-get", "uuid=u-pbd", "param-name=device-config", "param-key=device")
    assert xe.out == "/dev/sdb\n"
    xe("pbd-param-get", "uuid=u-pbd", "param-name=host-uuid")
    assert xe.out == "u-host\n"


def test_param_set_converts_by_type_and_sets_maps_key_by_key(xe):
    net, pool = xe.refs["net"], xe.refs["pool"]
    assert xe.did("network-param-set", "uuid=u-net", "other-config:k=v=w", "MTU=9000", "tags=x,y\\,z") == [
        ("network.set_MTU", net, 9000),
        ("network.set_tags", net, ["x", "y,z"]),
        ("network.add_to_other_config", net, "k", "v=w"),
    ]
    assert xe.did("network-param-set", "uuid=u-net", "other-config:k=2") == [
        ("network.add_to_other_config", net, "k", "2"),
        ("network.remove_from_other_config", net, "k"),
        ("network.add_to_other_config", net, "k", "2"),
    ]
    assert xe.did("pool-param-set", "uuid=u-pool", "default-SR=u-sr") == [
        ("pool.set_default_SR", pool, xe.refs["sr"])
    ]
    assert xe.did("pool-param-set", "uuid=u-pool", "default-SR=") == [
        ("pool.set_default_SR", pool, "OpaqueRef:NULL")
    ]
    assert xe.out == ""
    with xe.db.read() as view:
        assert view.get("network", net, "other_config") == {"k": "2"}


def test_a_map_without_calls_for_single_keys_is_set_whole(xe):
    tunnel = xe.db
    with tunnel.write() as w:
        ref = w.create("PBD", {"uuid": "u-p2", "device_config": {"a": "1"}})
    assert xe.did("pbd-param-set", "uuid=u-p2", "device-config:b=2") == [
        ("PBD.set_device_config", ref, {"a": "1", "b": "2"})
    ]
    assert xe.did("pbd-param-remove", "uuid=u-p2", "param-name=device-config", "param-key=a") == [
        ("PBD.set_device_config", ref, {"b": "2"})
    ]
    assert xe.did("pbd-param-add", "uuid=u-p2", "param-name=device-config", "c=3") == [
        ("PBD.set_device_config", ref, {"b": "2", "c": "3"})
    ]


def test_param_add_remove_and_clear_of_sets_and_maps(xe):
    net = xe.refs["net"]
    on = ("uuid=u-net", "param-name=tags")
    assert xe.did("network-param-add", *on, "param-key=z") == [("network.add_tags", net, "z")]
    assert xe.did("network-param-remove", *on, "param-key=b,c") == [("network.remove_tags", net, "b,c")]
    assert xe.did("network-param-clear", *on) == [("network.set_tags", net, [])]
    on = ("uuid=u-net", "param-name=other-config")
    assert xe.did("network-param-add", *on, "a=1", "b=2") == [
        ("network.add_to_other_config", net, "a", "1"),
        ("network.add_to_other_config", net, "b", "2"),
    ]
    assert xe.did("network-param-remove", *on, "param-key=a") == [
        ("network.remove_from_other_config", net, "a")
    ]
    assert xe("network-param-add", *on, "b=3") == 1
    assert xe.err == (
        "The map has this key already, with another value.\n"
        "type: network\nparam_name: other_config\nuuid: u-net (lan)\nkey: b\n"
    )
    assert xe.did("network-param-clear", *on) == [("network.set_other_config", net, {})]
    assert xe.did("network-param-add", *on, "c=first", "d=4", "c=second") == [
        ("network.add_to_other_config", net, "c", "first"),
        ("network.add_to_other_config", net, "d", "4"),
    ]


def test_param_clear_empties_texts_and_links_too(xe):
    assert xe.did("network-param-clear", "uuid=u-net", "param-name=name-description") == [
        ("network.set_name_description", xe.refs["net"], "")
    ]
    assert xe.did("pool-param-clear", "uuid=u-pool", "param-name=default-SR") == [
        ("pool.set_default_SR", xe.refs["pool"], "OpaqueRef:NULL")
    ]


def test_a_list_of_secrets_does_not_show_them(xe):
    xe("secret-create", "value=s3cret")
    xe("secret-list")
    assert xe.out.startswith("uuid ( RO)    : ")
    assert "s3cret" not in xe.out
    xe("secret-list", "params=value", "--minimal")
    assert xe.out == "s3cret\n"


def test_names_come_first_and_the_rest_as_the_data_model_has_it():
    vm, pif = views.views()["vm"], views.views()["pif"]
    names = [column.name for column in vm.columns]
    assert names[:3] == ["uuid", "name-label", "name-description"]
    fields = [column.field.name for column in vm.columns[3:] if column.link is None]
    assert fields == [name for name in vm.cls.fields if name in fields]
    assert [column.name for column in pif.columns][:7] == list(pif.default)


def test_a_list_fetches_each_class_once(xe):
    xe("pif-list", "params=all")
    methods = [method for method, *_ in xe.api.calls]
    assert len(methods) == len(set(methods))
    assert all(method.endswith(".get_all_records") for method in methods)


def test_every_listed_class_has_its_commands():
    commands = generated.commands()
    for cls in load().classes.values():
        if cls.listed and cls.state != "removed" and cls.name != "VM":
            assert {
                f"{views.class_name(cls.name)}-{name}" for name in ("list", "param-list", "param-get")
            } <= set(commands)
    for name in (
        "vm",
        "template",
        "snapshot",
        "appliance",
        "patch",
        "update",
        "host-cpu",
        "sm",
        "message",
        "secret",
    ):
        assert f"{name}-list" in commands
    assert "network-param-clear" in commands
    assert "pci-param-set" in commands
    assert "pif-metrics-param-add" in commands
    assert "message-param-set" not in commands
    assert "role-param-add" not in commands
    assert len(shell.commands()) == len(generated.commands()) + len(shell.everyday())


def test_every_default_column_exists_and_column_names_are_unique():
    for view in views.views().values():
        names = [column.name for column in view.columns]
        assert len(names) == len(set(names)), view.name
        assert set(view.default) <= set(names), view.name
        assert view.default
        assert names[0] == "uuid", view.name
        assert [name for name in names if name in view.default] == list(view.default), view.name


def test_every_class_can_be_listed_with_all_its_columns(xe):
    for name, view in views.views().items():
        kind = {"snapshot": {"is_a_snapshot": True}, "template": {"is_a_template": True}}.get(name, {})
        with xe.db.write() as w:
            w.create(view.cls.name, {"uuid": f"u-new-{name}", **kind})
        assert xe(f"{name}-list", "params=all", f"uuid=u-new-{name}") == 0, xe.err
        assert len(xe.out.rstrip().splitlines()) == len(view.columns)


def test_labels_say_what_may_be_changed():
    pool, sr, vm = (views.views()[name] for name in ("pool", "sr", "vm"))

    def label(view, name):
        return view.column(name).label

    assert label(sr, "name-label") == "name-label ( RW)"
    assert label(sr, "type") == "type ( RO)"
    assert label(sr, "virtual-allocation") == "virtual-allocation ( RO)"
    assert label(pool, "other-config") == "other-config (MRW)"
    assert label(vm, "allowed-operations") == "allowed-operations (SRO)"
    assert label(vm, "PCI-bus") == "PCI-bus ( RW) [DEPRECATED]"


def test_an_error_of_the_api_in_a_list_is_reported(xe):
    xe.api.answers["host.get_all_records"] = ApiError("HOST_STILL_BOOTING")
    assert xe("host-list") == 1
    assert xe.err == "The host is still starting; try again in a while.\n"
