"""The RPC doors: the body of a request becomes a call, its result a reply, in XML-RPC or JSON-RPC."""

from __future__ import annotations

import asyncio
import html
from typing import TYPE_CHECKING

from hostagent.api import jsonrpc, xmlrpc
from hostagent.api.core import Peer
from hostagent.api.fault import CallError
from hostagent.api.http import Response
from hostagent.api.rendered import Rendered
from hostagent.db import model as datamodel
from hostagent.errors import CallerError

if TYPE_CHECKING:
    from hostagent.api import methods
    from hostagent.api.dispatch import Answer, Dispatcher
    from hostagent.api.http import Request

LARGE = 1 << 16
"""A request of more bytes is read, and a reply of more characters put together, in a thread: others need not wait."""
OWN = "hostagent."
"""Our own calls, beside XenAPI's: on the Unix socket only, without a session."""


class Endpoint:
    """Both RPC handlers over one dispatcher. `local` runs our own calls."""

    def __init__(self, dispatcher: Dispatcher, local: methods.Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._local = local
        self._model = datamodel.load()

    async def xml(self, request: Request) -> Response:
        """POST of XML-RPC: every answer to a well-formed call is HTTP 200, also a failure (xenapi.md 1.2)."""
        try:
            if len(request.body) > LARGE:
                name, params = await asyncio.to_thread(xmlrpc.parse_call, request.body)
            else:
                name, params = xmlrpc.parse_call(request.body)
        except xmlrpc.MalformedError as error:
            page = f"<html><body><h1>Bad request</h1><p>{html.escape(error.found)}</p></body></html>\n"
            return Response(500, {"content-type": "text/html; charset=utf-8"}, page.encode())
        except CallerError as error:
            return _xml(xmlrpc.failure(error.code, error.params))
        try:
            answer = await self._dispatcher.call(name, params, peer_of(request))
        except CallError as error:
            return _xml(xmlrpc.failure(error.code, error.params))
        encode = xmlrpc.bare if name == "system.listMethods" else xmlrpc.success
        if isinstance(answer.value, Rendered) and len(answer.value.text) > LARGE:
            return _xml(await asyncio.to_thread(encode, answer.kind, answer.value, self._model))
        return _xml(encode(answer.kind, answer.value, self._model))

    async def json(self, request: Request) -> Response:
        """POST of JSON-RPC 1.0 or 2.0; 204 when nothing in it wants a reply."""
        peer = peer_of(request)

        async def call(name: str, params: list[object]) -> object:
            if name.startswith(OWN) and peer.trusted:
                return await self._local.answer(name, params)
            try:
                answer: Answer = await self._dispatcher.call(name, params, peer)
            except CallError as error:
                raise jsonrpc.Fault(jsonrpc.APPLICATION_ERROR, error.code, list(error.params)) from error
            return answer.value

        reply = await jsonrpc.answer(request.body, call)
        if reply is None:
            return Response(204)
        # exactly this type: with a charset xen-api falls back to XML-RPC (xenapi.md 1.3)
        return Response(200, {"content-type": "application/json"}, reply)


def _xml(body: bytes) -> Response:
    return Response(200, {"content-type": "text/xml"}, body)


def peer_of(request: Request) -> Peer:
    """Who sent a request, as calls see it."""
    address = "" if request.peer.kind == "unix" else request.peer.address
    return Peer(address, request.peer.kind == "unix", request.headers)
