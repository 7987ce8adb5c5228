"""What a call is (wire name, parameters, role, emergency or not), and the dispatcher that runs one.

`calls.py` and its like list the calls; nothing registers itself. A call runs in the main loop, so it answers from
memory or one small file; one that is declared slow runs in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.api.jsonrpc import APPLICATION_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, Fault
from hostagent.api.roles import Role
from hostagent.errors import HostagentError

if TYPE_CHECKING:
    from hostagent.api.service import Service

log = logging.getLogger(__name__)
audit = logging.getLogger("hostagent.audit")

Json = Mapping[str, object] | list[object] | list[str] | str | int | float | bool | None


class WrongTypeError(Exception):
    """A parameter is not what its getter wants; the text says what it wants."""


@dataclass(frozen=True, slots=True)
class Param:
    """One positional parameter: its name, and the typed getter that checks it."""

    name: str
    get: Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Method:
    """A call. `run` gets the service and the checked parameters, and returns what goes on the wire."""

    name: str
    params: tuple[Param, ...]
    role: Role
    emergency: bool
    run: Callable[..., Json]
    slow: bool = False


def method(
    name: str, *params: Param, role: Role, emergency: bool = False, slow: bool = False
) -> Callable[[Callable[..., Json]], Method]:
    """Turn a function into the call `name`. `emergency`: answered also in emergency mode and at boot. `slow`: runs in a
    thread.
    """

    def declare(run: Callable[..., Json]) -> Method:
        return Method(name, params, role, emergency, run, slow)

    return declare


def text(untrusted: object) -> str:
    if isinstance(untrusted, str):
        return untrusted
    raise WrongTypeError("a string")


def one_of(*words: str) -> Callable[[object], str]:
    """A getter for an enumeration."""

    def get(untrusted: object) -> str:
        if isinstance(untrusted, str) and untrusted in words:
            return untrusted
        raise WrongTypeError(f"one of {', '.join(words)}")

    return get


class Dispatcher:
    """Runs a call by its wire name: looks it up, asks role and mode, checks the parameters, runs it."""

    def __init__(self, methods: Iterable[Method], service: Service) -> None:
        self._methods = {item.name: item for item in methods}
        self._service = service

    async def answer(self, name: str, params: list[object]) -> Json:
        """What the call returns, in a thread where it is slow. Raises Fault, nothing else."""
        found = self._methods.get(name)
        if found is not None and found.slow:
            return await asyncio.to_thread(self.call, name, params)
        return self.call(name, params)

    def call(self, name: str, params: list[object], *, role: Role = Role.POOL_ADMIN) -> Json:
        """What the call returns. Raises Fault, nothing else.

        The local socket admits root only, who has every role.
        """
        found = self._methods.get(name)
        if found is None:
            raise Fault(METHOD_NOT_FOUND, "MESSAGE_METHOD_UNKNOWN", [name])
        if role < found.role:
            raise Fault(
                APPLICATION_ERROR, "RBAC_PERMISSION_DENIED", [name, "the role of the caller is too low"]
            )
        blocking = self._service.lifecycle.state.blocking
        if blocking is not None and not found.emergency:
            raise Fault(APPLICATION_ERROR, blocking["code"], blocking["params"])
        arguments = _checked(found, params)
        try:
            result = found.run(self._service, *arguments)
        except HostagentError as error:
            _note(found, error.code)
            raise Fault(APPLICATION_ERROR, error.code, list(error.params)) from error
        except Exception as error:
            reference = os.urandom(4).hex()
            log.exception("call %s failed, reference %s", name, reference)
            _note(found, "INTERNAL_ERROR")
            told = f"look for {reference} in journalctl -u hostagent"
            raise Fault(APPLICATION_ERROR, "INTERNAL_ERROR", [told]) from error
        match result:
            case {"error": {"code": str(code)}}:
                _note(found, code)
            case _:
                _note(found, "success")
        return result


def _note(found: Method, outcome: str) -> None:
    """A line in the audit log for a call that changes something."""
    if found.role is Role.POOL_ADMIN:
        audit.info("root from local: %s: %s", found.name, outcome)


def _checked(found: Method, params: list[object]) -> list[object]:
    wanted = len(found.params)
    if len(params) != wanted:
        raise Fault(
            INVALID_PARAMS,
            "MESSAGE_PARAMETER_COUNT_MISMATCH",
            [found.name, str(wanted), str(len(params))],
        )
    checked = []
    for param, untrusted in zip(found.params, params, strict=True):
        try:
            checked.append(param.get(untrusted))
        except WrongTypeError as error:
            raise Fault(INVALID_PARAMS, "FIELD_TYPE_ERROR", [f"{param.name}: wants {error}"]) from error
    return checked
