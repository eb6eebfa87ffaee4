"""``/outages``: what was or is down, since when, and a person's word that it is over."""

from __future__ import annotations

from aiohttp import web

from servmon.api.requests import only_query, read_limit, read_older_than, read_optional_object, write_cursor
from servmon.api.routing import OUTAGES, Route
from servmon.api.shapes import json_answer, outage_shape, page_answer
from servmon.clock import rfc3339
from servmon.errors import InvalidInputError, Problem
from servmon.model import Outage


async def list_outages(request: web.Request) -> web.Response:
    """List all service outages, newest first."""
    return await _page(request, active=None)


async def list_active_outages(request: web.Request) -> web.Response:
    """Get the active service outages, newest first."""
    return await _page(request, active=True)


async def get_outage(request: web.Request) -> web.Response:
    """Get a specific service outage."""
    only_query(request)
    return json_answer(outage_shape(await request.app[OUTAGES].get_outage(request.match_info["outage_id"])))


async def resolve_outage(request: web.Request) -> web.Response:
    """Resolve a service outage; ``still_down`` tells whether the last check failed all the same."""
    fields = await read_optional_object(request)
    if unknown := fields.keys() - {"resolution_notes"}:
        raise InvalidInputError(Problem(name, "unknown field; known is resolution_notes") for name in sorted(unknown))
    outage = await request.app[OUTAGES].resolve_outage(
        request.match_info["outage_id"], resolution_notes=fields.get("resolution_notes")
    )
    return json_answer({**outage_shape(outage), "still_down": outage.still_down})


async def get_summary(request: web.Request) -> web.Response:
    """Get a summary of service outages."""
    only_query(request)
    return json_answer(await request.app[OUTAGES].get_outage_summary())


async def _page(request: web.Request, *, active: bool | None) -> web.Response:
    query = only_query(request, "limit", "cursor")
    limit, before = read_limit(query), read_older_than(query)
    rows = await request.app[OUTAGES].list_outages(active=active, limit=limit + 1, before=before)
    return page_answer(rows, limit, shape=outage_shape, cursor=_cursor)


def _cursor(outage: Outage) -> str:
    return write_cursor(rfc3339(outage.start_time), outage.id)


ROUTES = (
    Route("GET", "/outages/", list_outages),
    Route("GET", "/outages/active", list_active_outages),
    Route("GET", "/outages/summary", get_summary),
    Route("GET", "/outages/{outage_id}", get_outage),
    Route("POST", "/outages/{outage_id}/resolve", resolve_outage),
)
