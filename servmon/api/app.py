"""Puts the API together and serves it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web

import servmon
from servmon.api import alerts, configuration, endpoints, health, maintenance, metrics, outages
from servmon.api.auth import AccessToken, authorisation
from servmon.api.problems import REQUEST_ID, REQUEST_ID_HEADER, answer_errors, name_requests
from servmon.api.requests import BODY_LIMIT_BYTES
from servmon.api.routing import ALERTS, AVAILABILITY, OUTAGES, Route
from servmon.api.shapes import json_answer
from servmon.errors import StartError
from servmon.services.alerts import AlertService
from servmon.services.availability import AvailabilityService
from servmon.services.live import LiveView
from servmon.services.outages import OutageManagementService

SHUTDOWN_SECONDS = 5


async def list_routes(_request: web.Request) -> web.Response:
    """What there is."""
    routes = [{"method": route.method, "path": route.path} for route in ROUTES]
    return json_answer({"servmon": servmon.__version__, "routes": routes})


ROUTES: tuple[Route, ...] = (
    Route("GET", "/", list_routes),
    *endpoints.ROUTES,
    *outages.ROUTES,
    *alerts.ROUTES,
    *maintenance.ROUTES,
    *configuration.ROUTES,
    *health.ROUTES,
    *metrics.ROUTES,
)


def build_app(
    availability: AvailabilityService,
    outage_management: OutageManagementService,
    *,
    tokens: Iterable[AccessToken],
    alert_service: AlertService,
    live: LiveView | None = None,
    vitals: health.Vitals | None = None,
    reload: configuration.Reload | None = None,
) -> web.Application:
    """The API over the services. Nobody but the holders of ``tokens`` gets in, but for the open routes."""
    free = [route.handler for route in ROUTES if route.open_to_all]
    app = web.Application(
        middlewares=[name_requests, answer_errors, authorisation(tokens, free)], client_max_size=BODY_LIMIT_BYTES
    )
    app[AVAILABILITY] = availability
    app[OUTAGES] = outage_management
    app[ALERTS] = alert_service
    app[health.LIVE] = live
    app[configuration.RELOAD] = reload
    app[health.VITALS] = vitals or health.Vitals()
    app.on_response_prepare.append(_add_headers)
    for route in ROUTES:
        for path in route.paths():
            for method in route.methods():
                app.router.add_route(method, path, route.handler)
    return app


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    if REQUEST_ID in request:
        response.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Server"] = "servmon"


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A listening API. ``port`` is the real one where any free one was asked for."""

    port: int
    _runner: web.AppRunner

    async def stop(self) -> None:
        """Listen no more and end what is under way, within 5 s."""
        await self._runner.cleanup()


async def serve(app: web.Application, host: str, port: int) -> ApiServer:
    """Listen on ``host`` and ``port`` (0: any free one). Raises ``StartError`` where that cannot be done."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        reason = error.strerror or error
        raise StartError(f"api: cannot listen on {host} port {port}: {reason}; set api.host or api.port") from None
    return ApiServer(runner.addresses[0][1], runner)
