"""Which handler answers which request: the routing table, and the doors that XenAPI clients knock at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.api.http import RPC_BODY_LIMIT_BYTES, AnyRoute, RefusedError, Request, Response, Route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostagent.api.http import Handler

FRONT_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>hostagent</title></head>
<body><h1>hostagent</h1>
<p>This Xen host answers XenAPI: JSON-RPC at POST /jsonrpc, XML-RPC at POST /RPC2.</p></body></html>
"""
PREFLIGHT_HEADERS = {
    "access-control-allow-methods": "POST, OPTIONS",
    "access-control-allow-headers": "content-type, x-requested-with",
}


class Routes:
    """A table of routes. Per method the longest prefix wins (xenapi.md 1.1); a prefix ends at a slash, so that
    `/cli` takes `/cli/x` and leaves `/client` to `/`.
    """

    def __init__(self, routes: Iterable[AnyRoute]) -> None:
        """Raises ValueError when two routes have the same method and prefix."""
        self._by_method: dict[str, list[tuple[str, str, AnyRoute]]] = {}
        for route in routes:
            prefix = route.prefix.rstrip("/")
            known = self._by_method.setdefault(route.method, [])
            if any(prefix == other for other, _, _ in known):
                raise ValueError(f"two routes for {route.method} {route.prefix}")
            known.append((prefix, f"{prefix}/", route))
        for known in self._by_method.values():
            known.sort(key=lambda row: len(row[0]), reverse=True)

    def __len__(self) -> int:
        return sum(len(known) for known in self._by_method.values())

    def find(self, method: str, path: str) -> AnyRoute:
        """Raises RefusedError: 405 when only other methods are served at this path, else 404.

        `POST /` takes every path; it does not turn a GET of any path into a 405.
        """
        found = self._match(method, path)
        if found is not None:
            return found
        others = {other: self._match(other, path) for other in self._by_method}
        allowed = sorted(m for m, route in others.items() if route and (route.prefix != "/" or path == "/"))
        if allowed and allowed != ["OPTIONS"]:
            raise RefusedError(405, f"{path} takes {', '.join(allowed)}", {"allow": ", ".join(allowed)})
        raise RefusedError(404, f"nothing is at {path}: calls go to POST /jsonrpc or POST /RPC2")

    def _match(self, method: str, path: str) -> AnyRoute | None:
        for prefix, below, route in self._by_method.get(method, ()):
            if path == route.prefix or path == prefix or (route.below and path.startswith(below)):
                return route
        return None


def rpc_routes(json_rpc: Handler, xml_rpc: Handler | None = None) -> tuple[AnyRoute, ...]:
    """The doors for calls, with what a browser needs to use them (XO Lite): POST of any path is XML-RPC but at
    /jsonrpc and /json (xenapi.md 1.5).
    """
    doors = [("/jsonrpc", json_rpc), ("/json", json_rpc)]
    if xml_rpc is not None:
        doors.append(("/", xml_rpc))
    return (
        *(
            Route("POST", prefix, handler, RPC_BODY_LIMIT_BYTES, cross_origin=True)
            for prefix, handler in doors
        ),
        Route("OPTIONS", "/", preflight, cross_origin=True),
        Route("GET", "/", front_page, below=False),
    )


async def preflight(_request: Request) -> Response:
    """What a browser asks before it lets a page of another origin call."""
    return Response(200, PREFLIGHT_HEADERS)


async def front_page(_request: Request) -> Response:
    """For people who open the host's address in a browser."""
    return Response(200, {"content-type": "text/html; charset=utf-8"}, FRONT_PAGE)
