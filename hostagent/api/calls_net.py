"""Our own calls, over the Unix socket, by which the command line has the network brought up and down, and its records.

They run in threads. A failure comes back as `{"error": …}` with all its words, for the operator who typed the command.
They answer in emergency mode too, where the network is there: that is when it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.api.methods import Json, Method, Param, WrongTypeError, method
from hostagent.api.roles import Role
from hostagent.errors import BugError, CallerError, HostagentError
from hostagent.lifecycle import HostStillBootingError, Phase
from hostagent.net.options import LONGEST_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.api.core import Core
    from hostagent.api.service import Service
    from hostagent.netctl.control import Control

REWRITE = "rewrite"
WORDS = {"action": ("up", "down", REWRITE), "mode": ("do", "plan", "check")}


class NoNetworkError(CallerError):
    """This daemon does not look after the host's network. Nothing was changed."""

    code = "HOST_STILL_BOOTING"


def asked(untrusted: object) -> dict[str, object]:
    """A getter for the fields of a `bring.Request`; what is left out has its default."""
    from hostagent.net.bring import Request

    if not isinstance(untrusted, dict) or not {"action"} <= set(untrusted) <= set(Request._fields):
        raise WrongTypeError(f"a struct with action, and any of {', '.join(Request._fields[1:])}")
    for name, value in untrusted.items():
        if name in WORDS:
            if value not in WORDS[name]:
                raise WrongTypeError(f"a struct whose {name} is one of {', '.join(WORDS[name])}")
        elif name == "timeout_s":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value <= LONGEST_S:
                raise WrongTypeError(f"a struct whose timeout_s is a number up to {LONGEST_S:g}")
        elif not isinstance(value, type(Request._field_defaults[name])):
            raise WrongTypeError(f"a struct whose {name} is a {type(Request._field_defaults[name]).__name__}")
        elif name == "boot" and value:  # what start-up may do to its own host
            raise WrongTypeError(
                "a struct whose boot is false: an address that another host has is not taken"
            )
    if untrusted["action"] == REWRITE and untrusted.get("mode", "do") != "do":
        raise WrongTypeError(f"a struct whose mode is do: {REWRITE} cannot be planned or checked")
    return untrusted


def calls(core: Core) -> tuple[Method, ...]:
    """The calls, on the network of `core`."""

    @method(
        "hostagent.net_reconfigure", Param("request", asked), role=Role.POOL_ADMIN, emergency=True, slow=True
    )
    def net_reconfigure(service: Service, request: dict[str, object]) -> Json:
        return _telling(lambda: _reconfigured(core, service, request))

    @method("hostagent.net_records", role=Role.READ_ONLY, emergency=True, slow=True)
    def net_records(service: Service) -> Json:
        return _telling(lambda: _records(core, service))

    return (net_reconfigure, net_records)


def _reconfigured(core: Core, service: Service, given: dict[str, object]) -> Json:
    from hostagent.net import cache
    from hostagent.net.bring import Request
    from hostagent.netctl import reconfigure
    from hostagent.netctl.plug import Network

    control = control_of(core, service)
    if given["action"] == REWRITE:
        return dict(reconfigure.rewrite(control, service.paths.state / cache.FOLDER))
    if not isinstance(control.effect, Network):
        raise BugError("the network of this daemon is not the host's", hint="report it")
    return dict(reconfigure.reconfigure(control, control.effect, Request(**given)))  # type: ignore[arg-type]


def _records(core: Core, service: Service) -> Json:
    from hostagent.net import cache
    from hostagent.netctl.reconfigure import cached

    return cache.encode(cached(control_of(core, service), service.paths.state / cache.FOLDER)).decode()


def control_of(core: Core, service: Service) -> Control:
    """Raises HostStillBootingError while start-up is at the network, NoNetworkError where it never came to it."""
    if service.lifecycle.state.phase is Phase.STARTING:
        raise HostStillBootingError
    if core.network is None:
        raise NoNetworkError(
            "start-up ended before this daemon had the network",
            hint="`hostagent status` says why; until then interface-reconfigure works from the cached records",
            params=(),
        )
    return core.network


def _telling(run: Callable[[], Json]) -> Json:
    try:
        return run()
    except HostagentError as error:
        return {"error": dict(error.record())}
