"""``/ui/services``: the endpoints with their status, and all that is known of one."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from aiohttp import web

from servmon.api.requests import DEFAULT_LIMIT, read_cursor, write_cursor, wrong_cursor
from servmon.api.routing import AVAILABILITY, OUTAGES, Route
from servmon.api.window_shapes import WindowShape, window_shape
from servmon.clock import now, rfc3339
from servmon.errors import NotFoundError
from servmon.model import CurrentStatus, Endpoint, Role, Status
from servmon.services.identity import is_endpoint_id
from servmon.store.endpoints import EndpointFilter
from servmon.web.page import inner_page
from servmon.web.queries import AnyQuery, Chosen, ListQuery, Text, further
from servmon.web.reading import Reading

CHECKS = 20
CHANGES = 20
OUTAGES_SHOWN = 10
# So far ahead planned work is shown.
AHEAD = timedelta(days=30)
PERIODS = {"24 hours": timedelta(days=1), "7 days": timedelta(days=7), "30 days": timedelta(days=30)}


class ServicesQuery(ListQuery):
    """Which endpoints."""

    status: Annotated[Status | None, Chosen] = None
    tag: Text = None
    site: Text = None
    q: Text = None


async def list_services(request: web.Request, query: ServicesQuery) -> web.Response:
    """Show the endpoints by their ids, a hundred at a time."""
    cursor = read_cursor(query.cursor, 1)
    after = cursor[0] if cursor else None
    if after is not None and not is_endpoint_id(after):
        wrong_cursor()
    found = await request.app[AVAILABILITY].list_endpoints(
        limit=DEFAULT_LIMIT + 1,
        after=after,
        wanted=EndpointFilter(tag=query.tag, site=query.site, text=query.q),
        status=query.status,
    )
    shown = found[:DEFAULT_LIMIT]
    reading = Reading(request)
    active = [one for one in shown if one.is_active]
    known = await reading.known(request.app[AVAILABILITY].get_current_statuses(active)) or {}
    return inner_page(
        request,
        "services.html",
        rows=[(one, known.get(one.id)) for one in shown],
        query=query,
        statuses=list(Status),
        further=further(request, write_cursor(shown[-1].id) if len(found) > len(shown) else None),
        away=reading.away,
    )


async def show_service(request: web.Request, query: AnyQuery) -> web.Response:
    """Show one endpoint: how it is, how its last checks went, and what is written down of it."""
    del query
    service, outages = request.app[AVAILABILITY], request.app[OUTAGES]
    endpoint = await service.get_endpoint(request.match_info["endpoint_id"])
    reading = Reading(request)
    checks = await reading.stored(service.get_status_history, endpoint.id, limit=CHECKS)
    return inner_page(
        request,
        "service.html",
        endpoint=endpoint,
        current=await _current(request, reading, endpoint),
        impact=await reading.known(service.get_impact(endpoint.id)),
        checks=checks,
        last=checks[0] if checks else None,
        uptimes=await _uptimes(request, reading, endpoint),
        changes=await reading.stored(service.get_state_changes, endpoint.id, limit=CHANGES),
        outages=await reading.stored(outages.list_outages, endpoint_id=endpoint.id, limit=OUTAGES_SHOWN),
        windows=await _windows(request, reading, endpoint),
        away=reading.away,
    )


async def _current(request: web.Request, reading: Reading, endpoint: Endpoint) -> CurrentStatus | None:
    """What is known of an endpoint now; of one that is not watched, or just deleted, nothing."""
    if not endpoint.is_active:
        return None
    try:
        return await reading.known(request.app[AVAILABILITY].get_current_status(endpoint.id))
    except NotFoundError:
        return None


async def _uptimes(request: web.Request, reading: Reading, endpoint: Endpoint) -> dict[str, float | None]:
    """How available it was, in percent, ``None`` where nothing was observed; without those that nobody knows now."""
    found: dict[str, float | None] = {}
    for name, period in PERIODS.items():
        since = rfc3339(now() - period)
        report = await reading.stored(request.app[AVAILABILITY].get_uptime, endpoint.id, since=since)
        if report is not None:
            found[name] = report.uptime.availability
    return found


async def _windows(request: web.Request, reading: Reading, endpoint: Endpoint) -> list[WindowShape] | None:
    """The work that goes on or is planned on an endpoint, what comes first before the rest."""
    known = await reading.stored(request.app[OUTAGES].get_maintenance_windows_over, endpoint.id, AHEAD)
    if known is None:
        return None
    coming = [shape for shape in map(window_shape, known) if shape["next_occurrences"]]
    return sorted(coming, key=lambda shape: shape["next_occurrences"][0]["start_time"])


ROUTES = (
    Route("GET", "/ui/services", list_services, Role.READ, prefixed=False),
    Route("GET", "/ui/services/{endpoint_id}", show_service, Role.READ, prefixed=False),
)
