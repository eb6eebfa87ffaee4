"""Pages of other origins that may ask this API from a browser; none, where none are configured."""

from __future__ import annotations

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

_ALLOWED = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, HEAD, POST, PUT, PATCH, DELETE",
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type, If-Match, Last-Event-ID, X-Request-Id",
    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
}
_SHOWN = "ETag, Location, Retry-After, Servmon-Stale, X-Request-Id"


def cross_origin(origins: frozenset[str]) -> Middleware:
    """Middleware that lets pages of these origins ask, with a token of their own: cookies are for our own pages."""

    @web.middleware
    async def allow(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get(hdrs.ORIGIN) not in origins:
            return await handler(request)
        if request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
            return web.Response(status=204, headers=_ALLOWED)
        return await handler(request)

    return allow


def add_headers(request: web.Request, response: web.StreamResponse, origins: frozenset[str]) -> None:
    """Let the browser show the answer to a page of one of these origins."""
    if not origins:
        return
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    origin = request.headers.get(hdrs.ORIGIN)
    if origin in origins:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _SHOWN
