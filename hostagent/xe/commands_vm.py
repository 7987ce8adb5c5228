"""Commands for the life of VMs, and for tasks, events, messages, secrets and passwords (xenapi.md 6.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hostagent.db.model import load
from hostagent.xe.arguments import UsageError, split_list
from hostagent.xe.command import COMMON, Call, CommandError, Takes, command, create, plain
from hostagent.xe.generated import matching
from hostagent.xe.selectors import host_named, on_vms
from hostagent.xe.values import from_text
from hostagent.xe.views import Objects, views

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 30.0
MESSAGE_CLASSES = {
    "vm-uuid": "VM",
    "host-uuid": "Host",
    "sr-uuid": "SR",
    "pool-uuid": "Pool",
    "vdi-uuid": "VDI",
    "certificate-uuid": "Certificate",
}


def _started(method: str) -> Callable[[Call, str], None]:
    """VM.start or VM.resume, on the host that `on=` names if it does."""

    def act(call: Call, vm: str) -> None:
        flags = (call.arguments.flag("paused"), call.arguments.flag("force"))
        on = call.arguments.get("on")
        if on is None:
            call.api.call(method, vm, *flags)
        else:
            call.api.call(f"{method}_on", vm, host_named(call, on), *flags)

    return act


def _stopped(operation: str) -> Callable[[Call, str], None]:
    def act(call: Call, vm: str) -> None:
        how = "hard" if call.arguments.flag("force") else "clean"
        call.api.call(f"VM.{how}_{operation}", vm)

    return act


def _simple(method: str) -> Callable[[Call, str], None]:
    def act(call: Call, vm: str) -> None:
        call.api.call(method, vm)

    return act


def _event_wait(call: Call) -> None:
    """Returns when an object of the class passes all filters; looks again after each change."""
    view = views().get(call.need("class").lower())
    if view is None:
        raise CommandError(f"there is no class {call.need('class')}")
    filters = call.arguments.others((*COMMON, "class"))
    token = ""
    while True:
        answer = call.api.call("event.from", [view.cls.name.lower()], token, WAIT_S if token else 0.0)
        token = str(cast("dict[str, object]", answer)["token"])
        fresh = Call(call.arguments, call.api, call.terminal, Objects(call.api))
        if matching(view, fresh, filters):
            return
        call.terminal.check()


def _message_create(call: Call) -> None:
    about = [name for name in MESSAGE_CLASSES if call.arguments.get(name) is not None]
    if len(about) != 1:
        raise UsageError(f"name one object: {', '.join(MESSAGE_CLASSES)}")
    priority = from_text(
        load().classes["message"].fields["priority"].type, call.need("priority"), "priority", call.find
    )
    call.print_ref(
        "message",
        call.api.call(
            "message.create",
            call.need("name"),
            priority,
            MESSAGE_CLASSES[about[0]],
            call.need(about[0]),
            call.need("body"),
        ),
    )


def _message_destroy(call: Call) -> None:
    given = call.arguments.get("uuids") or call.arguments.get("uuid")
    if not given:
        raise UsageError("Required parameter not found: uuid")
    refs = [call.find("message", uuid) for uuid in split_list(given)]
    for ref in refs:
        call.api.call("message.destroy", ref)


def _password_change(call: Call) -> None:
    call.api.call("session.change_password", call.arguments.get("old") or "", call.need("new"))


COMMANDS = (
    on_vms("vm-start", "force on paused", "Start VMs.", _started("VM.start")),
    on_vms("vm-resume", "force on paused", "Resume suspended VMs.", _started("VM.resume")),
    on_vms("vm-shutdown", "force", "Shut VMs down; force pulls the plug.", _stopped("shutdown")),
    on_vms("vm-reboot", "force", "Restart VMs; force presses reset.", _stopped("reboot")),
    on_vms("vm-suspend", "", "Suspend VMs to disk.", _simple("VM.suspend")),
    on_vms("vm-pause", "", "Stop the CPUs of VMs.", _simple("VM.pause")),
    on_vms("vm-unpause", "", "Let the CPUs of paused VMs run.", _simple("VM.unpause")),
    plain("task-cancel", "task.cancel", "uuid", "", "Cancel a task.", task="uuid"),
    command(
        "event-wait",
        "class",
        "",
        "Wait until an object of a class has the given values; FIELD=/=VALUE means any other.",
        _event_wait,
        Takes.FIELDS,
    ),
    command(
        "message-create",
        "name priority body",
        " ".join(MESSAGE_CLASSES),
        "Make a message about one object.",
        _message_create,
    ),
    command("message-destroy", "", "uuid uuids", "Destroy messages.", _message_destroy),
    create("secret-create", "secret", "value", "other-config:", "Keep a secret."),
    command(
        "user-password-change",
        "new",
        "old",
        "Change the password of the user who is logged in.",
        _password_change,
    ),
)
