"""Commands for storage repositories, PBDs and disks (xenapi.md 6.5)."""

from __future__ import annotations

from hostagent.xe.command import Call, command, create, parameters, plain, record

SR_OPTIONS = "name-description host-uuid device-config: shared physical-size content-type sm-config:"


def _coordinator(call: Call) -> object:
    pools = list(call.objects.records("pool").values())
    return pools[0]["master"] if pools else ""


def _sr_create(call: Call) -> None:
    given = parameters(call, "SR.create", host="host-uuid")
    if call.arguments.get("host-uuid") is None:
        given[0] = _coordinator(call)
    call.print_ref("SR", call.api.call("SR.create", *given))


def _sr_probe(call: Call) -> None:
    given = parameters(call, "SR.probe", host="host-uuid")
    if call.arguments.get("host-uuid") is None:
        given[0] = _coordinator(call)
    call.terminal.print(str(call.api.call("SR.probe", *given)))


def _vdi_create(call: Call) -> None:
    made = record(call, "VDI", SR="sr-uuid")
    if call.arguments.get("type") is None:
        made["type"] = "user"
    call.print_ref("VDI", call.api.call("VDI.create", made))


COMMANDS = (
    command(
        "sr-create", "name-label type", SR_OPTIONS, "Create a storage repository, and its PBDs.", _sr_create
    ),
    plain(
        "sr-introduce",
        "SR.introduce",
        "name-label type uuid",
        "name-description shared content-type sm-config:",
        "Make a record for a storage repository that exists.",
    ),
    command(
        "sr-probe",
        "type",
        "host-uuid device-config: sm-config:",
        "Show what is there, as the driver tells it.",
        _sr_probe,
    ),
    plain("sr-scan", "SR.scan", "uuid", "", "Bring the records of the disks up to date.", sr="uuid"),
    plain("sr-update", "SR.update", "uuid", "", "Bring the sizes up to date.", sr="uuid"),
    plain("sr-forget", "SR.forget", "uuid", "", "Forget a storage repository; its data stays.", sr="uuid"),
    plain("sr-destroy", "SR.destroy", "uuid", "", "Destroy a storage repository and its data.", sr="uuid"),
    create(
        "pbd-create",
        "PBD",
        "host-uuid sr-uuid",
        "device-config: other-config:",
        "Connect a host with a storage repository.",
        host="host-uuid",
        SR="sr-uuid",
    ),
    plain("pbd-plug", "PBD.plug", "uuid", "", "Attach the storage repository on the host.", self="uuid"),
    plain(
        "pbd-unplug", "PBD.unplug", "uuid", "", "Detach the storage repository from the host.", self="uuid"
    ),
    plain("pbd-destroy", "PBD.destroy", "uuid", "", "Destroy a PBD.", self="uuid"),
    command(
        "vdi-create",
        "sr-uuid name-label virtual-size",
        "name-description type sharable read-only sm-config: other-config: tags tags:",
        "Create a disk; virtual-size as 8GiB.",
        _vdi_create,
    ),
    plain(
        "vdi-resize", "VDI.resize", "uuid disk-size", "", "Make a disk larger.", vdi="uuid", size="disk-size"
    ),
    plain("vdi-destroy", "VDI.destroy", "uuid", "", "Destroy a disk and its data.", self="uuid"),
)
