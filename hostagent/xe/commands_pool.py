"""Commands for the pool and its hosts (xenapi.md 6.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hostagent.xe.command import Call, Command, CommandError, command, parameters, plain
from hostagent.xe.selectors import on_hosts
from hostagent.xe.terminal import TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable

JOIN = "master-address master-username master-password"


def _join(call: Call) -> None:
    method = "pool.join_force" if call.arguments.flag("force") else "pool.join"
    call.api.call(method, *parameters(call, method))


def _eject(call: Call) -> None:
    host = call.ref("host", "host-uuid")
    call.confirm(
        "The host leaves the pool and restarts with a fresh database; its local storage is forgotten."
    )
    call.api.call("pool.eject", host)


def _host_gone(method: str, warning: str) -> Callable[[Call], None]:
    def run(call: Call) -> None:
        host = call.ref("host", "uuid")
        call.confirm(warning)
        call.api.call(method, host)

    return run


def _disable(call: Call, host: str) -> None:
    call.api.call("host.disable", host, call.arguments.flag("auto-enable", default=True))


def _evacuate(call: Call, host: str) -> None:
    _, network, batch = parameters(
        call, "host.evacuate", network="network-uuid", evacuate_batch_size="batch-size"
    )
    call.api.call("host.evacuate", host, network, batch)


def _each(method: str) -> Callable[[Call, str], None]:
    def act(call: Call, host: str) -> None:
        result = call.api.call(method, host)
        if result not in ("", None):
            call.terminal.print(str(result))

    return act


def _cpu_info(call: Call, host: str) -> None:
    facts = cast("dict[str, str]", call.objects.records("host")[host]["cpu_info"])
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        call.terminal.print(f"{name.ljust(width)}: {value}")


def _install_certificate(call: Call) -> None:
    host = call.ref("host", "host-uuid")
    names = [call.need("certificate"), call.need("private-key"), call.arguments.get("certificate-chain")]
    texts = [_pem(call, name) if name else "" for name in names]
    call.api.call("host.install_server_certificate", host, *texts)


def _pem(call: Call, name: str) -> str:
    try:
        return call.terminal.read_file(name).decode("ascii")
    except UnicodeDecodeError as error:
        raise TerminalError(f"{name} is not PEM: it has bytes that are no ASCII text") from error


def _absent(name: str, parameter: str, help_: str, instead: str) -> Command:
    def run(_call: Call) -> None:
        raise CommandError(f"{name} is not there yet: {instead}")

    return command(name, parameter, "dry-run" if "restore" in name else "", help_, run)


POOL = (
    command("pool-join", JOIN, "force", "Make this host a member of another pool.", _join),
    command("pool-eject", "host-uuid", "force", "Take a host out of the pool; asks first.", _eject),
    plain(
        "pool-designate-new-master",
        "pool.designate_new_master",
        "host-uuid",
        "",
        "Hand the role of coordinator to another host.",
        host="host-uuid",
    ),
    plain(
        "pool-emergency-transition-to-master",
        "pool.emergency_transition_to_master",
        "",
        "force",
        "Make this member the coordinator, from its last backup of the database.",
        local=True,
    ),
    plain(
        "pool-emergency-reset-master",
        "pool.emergency_reset_master",
        "master-address",
        "",
        "Tell this member the address of its coordinator.",
        local=True,
    ),
    plain(
        "pool-recover-slaves",
        "pool.recover_slaves",
        "",
        "",
        "Tell all members in emergency mode that this host is the coordinator; prints those reached.",
    ),
    plain(
        "pool-sync-database", "pool.sync_database", "", "", "Write the database to every host of the pool."
    ),
    plain(
        "pool-management-reconfigure",
        "pool.management_reconfigure",
        "network-uuid",
        "",
        "Move the management interface of every host to a network.",
        network="network-uuid",
    ),
    plain(
        "pool-vlan-create",
        "pool.create_VLAN_from_PIF",
        "pif-uuid vlan network-uuid",
        "",
        "Create a VLAN on every host of the pool.",
        pif="pif-uuid",
        VLAN="vlan",
        network="network-uuid",
    ),
    _absent(
        "pool-dump-database", "file-name", "Save the database.", "`hostagent db dump` writes it on the host"
    ),
    _absent(
        "pool-restore-database",
        "file-name",
        "Restore the database.",
        "`hostagent db restore` reads it on the host",
    ),
)

HOST = (
    on_hosts("host-disable", "auto-enable", "Let no more VMs start on a host.", _disable),
    on_hosts("host-enable", "", "Let VMs start on a host.", _each("host.enable")),
    on_hosts("host-evacuate", "network-uuid batch-size", "Move all VMs off a host.", _evacuate),
    on_hosts("host-reboot", "", "Restart a host; it must be disabled.", _each("host.reboot")),
    on_hosts("host-shutdown", "", "Switch a host off; it must be disabled.", _each("host.shutdown")),
    on_hosts(
        "host-compute-free-memory",
        "",
        "Show how many bytes of memory VMs could still have.",
        _each("host.compute_free_memory"),
    ),
    on_hosts("host-dmesg", "", "Show the hypervisor's messages.", _each("host.dmesg")),
    on_hosts("host-cpu-info", "", "Show the CPUs of a host.", _cpu_info),
    on_hosts("host-restart-agent", "", "Restart the agent of a host.", _each("host.restart_agent")),
    plain(
        "host-syslog-reconfigure",
        "host.syslog_reconfigure",
        "host-uuid",
        "",
        "Send the host's log to where host.logging says.",
        host="host-uuid",
    ),
    command(
        "host-forget",
        "uuid",
        "force",
        "Forget a host that will not come back; asks first.",
        _host_gone("host.destroy", "The host's record is destroyed, with its local storage and interfaces."),
    ),
    command(
        "host-declare-dead",
        "uuid",
        "force",
        "Declare that a host is off, so that its VMs can start elsewhere; asks first.",
        _host_gone(
            "host.declare_dead",
            "If the host is in truth alive, VMs started elsewhere will corrupt their disks.",
        ),
    ),
    plain(
        "host-management-reconfigure",
        "host.management_reconfigure",
        "pif-uuid",
        "",
        "Move the management interface to a PIF.",
        pif="pif-uuid",
    ),
    plain(
        "host-management-disable",
        "host.management_disable",
        "",
        "",
        "Switch the management interface off.",
        local=True,
    ),
    plain(
        "host-emergency-management-reconfigure",
        "host.local_management_reconfigure",
        "interface",
        "",
        "Move the management interface of a host in emergency mode.",
        local=True,
    ),
    plain(
        "host-is-in-emergency-mode",
        "host.is_in_emergency_mode",
        "",
        "",
        "Is this member without its coordinator? Prints true or false.",
        local=True,
    ),
    plain("host-shutdown-agent", "host.shutdown_agent", "", "", "Stop the agent of this host.", local=True),
    plain(
        "host-set-hostname-live",
        "host.set_hostname_live",
        "host-uuid host-name",
        "",
        "Change the host name.",
        host="host-uuid",
        hostname="host-name",
    ),
    plain(
        "host-call-plugin",
        "host.call_plugin",
        "host-uuid plugin fn",
        "args:",
        "Call a function of a plugin; prints its answer.",
        host="host-uuid",
    ),
    command(
        "host-server-certificate-install",
        "host-uuid certificate private-key",
        "certificate-chain",
        "Install the host's certificate from PEM files.",
        _install_certificate,
    ),
    _absent(
        "host-get-system-status",
        "",
        "Collect what support needs.",
        "journalctl and /var/lib/hostagent have it",
    ),
)

COMMANDS = (*POOL, *HOST)
