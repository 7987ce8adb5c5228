"""Our own calls, over the Unix socket, that take a card over from another network daemon and give it back.

They run in threads. A failure comes back as `{"error": …}` with all its words, for the operator who typed the command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.api.calls_net import control_of
from hostagent.api.methods import Json, Method, Param, WrongTypeError, method, one_of, text
from hostagent.api.roles import Role
from hostagent.errors import BugError, HostagentError
from hostagent.net.options import LONGEST_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostagent.api.core import Core
    from hostagent.api.service import Service
    from hostagent.netctl.adopt_place import Place, Request


def seconds(untrusted: object) -> float:
    """A getter for a time that is neither nothing nor for ever."""
    if isinstance(untrusted, int | float) and not isinstance(untrusted, bool) and 0 < untrusted <= LONGEST_S:
        return float(untrusted)
    raise WrongTypeError(f"a number of seconds above 0, at most {LONGEST_S:g}")


def calls(core: Core) -> tuple[Method, ...]:
    """The calls, on the network of `core`."""
    params = (Param("nic", text), Param("how", one_of("plan", "do")), Param("timeout_s", seconds))

    @method("hostagent.net_adopt", *params, role=Role.POOL_ADMIN, slow=True)
    def adopt(service: Service, nic: str, how: str, timeout_s: float) -> Json:
        from hostagent.netctl.adopt import take

        return _done(core, service, take, nic, how, timeout_s)

    @method("hostagent.net_release", *params, role=Role.POOL_ADMIN, slow=True)
    def release(service: Service, nic: str, how: str, timeout_s: float) -> Json:
        from hostagent.netctl.adopt_back import release

        return _done(core, service, release, nic, how, timeout_s)

    return (adopt, release)


def _done(
    core: Core, service: Service, work: Callable[[Place, Request], Json], nic: str, how: str, timeout_s: float
) -> Json:
    from hostagent.netctl.adopt_place import Request, place_of
    from hostagent.netctl.plug import Network

    try:
        control = control_of(core, service)
        if not isinstance(control.effect, Network):
            raise BugError("the network of this daemon is not the host's", hint="report it")
        place = place_of(service.paths, core.host_uuid, control.database, control.effect.site)
        with control.turn():  # the change has a Control of its own
            return work(place, Request(nic, how == "plan", timeout_s))
    except HostagentError as error:
        return {"error": dict(error.record())}
