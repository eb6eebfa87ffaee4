"""Puts the API together and serves it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from typing_extensions import TypedDict

import servmon
from servmon.api import (
    alert_rules,
    alerts,
    audit,
    configuration,
    dependencies,
    documentation,
    endpoints,
    events,
    health,
    maintenance,
    metrics,
    outages,
    sessions,
    suspects,
)
from servmon.api import tokens as tokens_resource
from servmon.api.auth import ACCESS, Access, WrongTokens, authorisation
from servmon.api.cross_origin import add_headers, cross_origin
from servmon.api.endpoint_shapes import EndpointTexts
from servmon.api.openapi import describe
from servmon.api.problems import REQUEST_ID, REQUEST_ID_HEADER, answer_errors, name_requests
from servmon.api.proxies import TrustedProxies
from servmon.api.requests import BODY_LIMIT_BYTES
from servmon.api.routing import (
    ALERTS,
    AVAILABILITY,
    CONNECTION,
    OUTAGES,
    RULES,
    TOKENS,
    Pages,
    Route,
    Words,
    fixed_words,
    matched,
)
from servmon.api.server import DOOR, Door
from servmon.api.settings import ApiSection, origin_of
from servmon.api.typed import typed
from servmon.model import Role
from servmon.services.alert_rules import AlertRuleService
from servmon.services.alerts import AlertService
from servmon.services.availability import AvailabilityService
from servmon.services.connection import Connection
from servmon.services.live import LiveView
from servmon.services.outages import OutageManagementService
from servmon.services.sessions import Sessions
from servmon.services.stream import Stream
from servmon.services.tokens import TokenBook, TokenService

ORIGINS = web.AppKey("origins", frozenset[str])


class Routes(TypedDict):
    """What there is."""

    servmon: str
    routes: list[dict[str, str]]


async def list_routes(_request: web.Request) -> Routes:
    """List the routes."""
    routes = [{"method": route.method, "path": route.path} for route in ROUTES]
    return {"servmon": servmon.__version__, "routes": routes}


ROUTES: tuple[Route, ...] = (
    Route("GET", "/", list_routes, Role.READ),
    dependencies.LIST,
    *endpoints.ROUTES,
    *suspects.ROUTES,
    *dependencies.ROUTES,
    *outages.ROUTES,
    *alert_rules.ROUTES,
    *alerts.ROUTES,
    *maintenance.ROUTES,
    *configuration.ROUTES,
    *tokens_resource.ROUTES,
    *sessions.ROUTES,
    *audit.ROUTES,
    *events.ROUTES,
    *documentation.ROUTES,
    *health.ROUTES,
    *metrics.ROUTES,
)


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers call, all on one ``connection``."""

    connection: Connection
    availability: AvailabilityService
    outages: OutageManagementService
    alerts: AlertService
    tokens: TokenService
    rules: AlertRuleService


@dataclass(frozen=True, slots=True)
class Entrance:
    """How people come in beside by token: the settings, the ``sessions`` of browsers, their address, ``pages``."""

    section: ApiSection = field(default_factory=ApiSection)
    sessions: Sessions | None = None
    public_url: str | None = None
    pages: Pages = field(default_factory=Pages)

    def access(self, book: TokenBook) -> Access:
        """Who is let in, with the tokens of ``book``."""
        proxies = TrustedProxies.of(self.section.trusted_proxies)
        return Access(book, self.sessions or Sessions(book), proxies, origin_of(self.public_url), WrongTokens())


def build_app(
    services: Services,
    *,
    book: TokenBook,
    live: LiveView | None = None,
    stream: Stream | None = None,
    vitals: health.Vitals | None = None,
    running: configuration.Configuration | None = None,
    entrance: Entrance = Entrance(),
) -> web.Application:
    """The API over the services, and pages. Only the holders of tokens in ``book`` get in; some routes are open."""
    routes = (*ROUTES, *entrance.pages.routes)
    origins = frozenset(entrance.section.cors_origins)
    access = entrance.access(book)
    roles: dict[Handler, Role | None] = {}
    as_pages = [entrance.pages.in_a_browser] if entrance.pages.in_a_browser else []
    around = [name_requests, hold_the_door, cross_origin(origins), *as_pages, answer_errors]
    app = web.Application(
        middlewares=[*around, authorisation(access, roles)],
        client_max_size=BODY_LIMIT_BYTES,
    )
    app[DOOR] = Door()
    app[ACCESS] = access
    app[ORIGINS] = origins
    app[CONNECTION] = services.connection
    app[AVAILABILITY] = services.availability
    app[endpoints.TEXTS] = EndpointTexts()
    app[OUTAGES] = services.outages
    app[ALERTS] = services.alerts
    app[RULES] = services.rules
    app[TOKENS] = services.tokens
    app[events.STREAM] = stream or Stream()
    app[events.OPEN] = set()
    app.on_shutdown.append(events.close_streams)
    app[health.LIVE] = live
    app[configuration.CONFIGURATION] = running
    app[health.VITALS] = vitals or health.Vitals()
    app[documentation.DOCUMENT] = _document()
    app.on_response_prepare.append(_add_headers)
    words = fixed_words(routes)
    for route in routes:
        note = partial(audit.note_change, route=route) if route.changes else None
        handler = typed(route.handler, after=note, seconds=route.seconds)
        roles[handler] = None if route.open_to_all else route.role
        for method, path in _addresses(route, words):
            app.router.add_route(method, path, handler)
    return app


@cache
def _document() -> dict[str, Any]:
    """What the API is: the same for everybody who asks, and a tenth of a second of work."""
    return describe(ROUTES)


@web.middleware
async def hold_the_door(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let nobody's connection give way while its request is under way."""
    with request.app[DOOR].at_work(request):
        return await handler(request)


def _addresses(route: Route, words: Words) -> Iterator[tuple[str, str]]:
    return ((method, matched(path, words)) for path in route.paths() for method in route.methods())


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    if REQUEST_ID in request:
        response.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]
    add_headers(request, response, request.app[ORIGINS])
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Server"] = "servmon"
    if request.method in ("GET", "HEAD") and request.app[health.VITALS].is_away():
        response.headers["Servmon-Stale"] = "true"
