"""``/services``: service endpoints, their checks and their status."""

from __future__ import annotations

from aiohttp import web

from servmon.api.requests import (
    cursor_moment,
    only_query,
    read_cursor,
    read_limit,
    read_object,
    write_cursor,
    wrong_cursor,
)
from servmon.api.routing import AVAILABILITY, Route
from servmon.api.shapes import (
    current_status_shape,
    endpoint_shape,
    history_shape,
    json_answer,
    moment_of,
    page_answer,
    status_shape,
    uptime_shape,
)
from servmon.clock import rfc3339
from servmon.services.history import Resolution
from servmon.services.identity import is_endpoint_id


async def list_endpoints(request: web.Request) -> web.Response:
    """List all service endpoints, by id."""
    query = only_query(request, "limit", "cursor")
    limit, cursor = read_limit(query), read_cursor(query, 1)
    after = cursor[0] if cursor else None
    if after is not None and not is_endpoint_id(after):
        wrong_cursor()
    rows = await request.app[AVAILABILITY].list_endpoints(limit=limit + 1, after=after)
    return page_answer(rows, limit, shape=endpoint_shape, cursor=lambda row: write_cursor(row.id))


async def create_endpoint(request: web.Request) -> web.Response:
    """Create a new service endpoint."""
    fields = await read_object(request)
    endpoint = await request.app[AVAILABILITY].create_endpoint(fields)
    return json_answer(endpoint_shape(endpoint), status=201, headers={"Location": f"/services/{endpoint.id}"})


async def get_endpoint(request: web.Request) -> web.Response:
    """Get a specific service endpoint."""
    only_query(request)
    return json_answer(endpoint_shape(await request.app[AVAILABILITY].get_endpoint(_id(request))))


async def replace_endpoint(request: web.Request) -> web.Response:
    """Update a service endpoint: the body replaces it whole."""
    fields = await read_object(request)
    return json_answer(endpoint_shape(await request.app[AVAILABILITY].replace_endpoint(_id(request), fields)))


async def delete_endpoint(request: web.Request) -> web.Response:
    """Delete a service endpoint; its history stays."""
    await request.app[AVAILABILITY].delete_endpoint(_id(request))
    return web.Response(status=204)


async def check_endpoint(request: web.Request) -> web.Response:
    """Manually check a service endpoint, now."""
    return json_answer(status_shape(await request.app[AVAILABILITY].check_endpoint(_id(request))))


async def get_status(request: web.Request) -> web.Response:
    """Get the current status of a service endpoint."""
    only_query(request)
    return json_answer(current_status_shape(await request.app[AVAILABILITY].get_current_status(_id(request))))


async def get_history(request: web.Request) -> web.Response:
    """Get the status history of a service endpoint, newest first; over a longer period its hours or days."""
    query = only_query(request, "limit", "cursor", "since", "until", "resolution")
    if not query.keys() & {"since", "until", "resolution"}:
        return await _get_results(request, query)
    limit, cursor = read_limit(query), read_cursor(query, 2)
    # A later page goes on as the first one began, though "until now" lasts longer by then.
    asked = {"since": query.get("since"), "until": query.get("until"), "resolution": query.get("resolution")}
    if cursor:
        asked["resolution"] = cursor[0] if cursor[0] in list(Resolution) else wrong_cursor()
    before = cursor_moment(cursor[1]) if cursor else None
    found = await request.app[AVAILABILITY].get_history(_id(request), **asked, limit=limit + 1, before=before)
    return page_answer(
        found.rows,
        limit,
        shape=history_shape,
        cursor=lambda row: write_cursor(found.resolution, rfc3339(moment_of(row))),
        more={"resolution": found.resolution},
    )


async def _get_results(request: web.Request, query: dict[str, str]) -> web.Response:
    limit, cursor = read_limit(query), read_cursor(query, 1)
    before = cursor_moment(cursor[0]) if cursor else None
    rows = await request.app[AVAILABILITY].get_status_history(_id(request), limit=limit + 1, before=before)
    return page_answer(rows, limit, shape=status_shape, cursor=lambda row: write_cursor(rfc3339(row.timestamp)))


async def get_uptime(request: web.Request) -> web.Response:
    """Get how available a service endpoint was over a period, and what the rest of the time was."""
    query = only_query(request, "since", "until", "timezone")
    return json_answer(uptime_shape(await request.app[AVAILABILITY].get_uptime(_id(request), **query)))


async def get_summary(request: web.Request) -> web.Response:
    """Get a summary of service statuses."""
    only_query(request)
    return json_answer(await request.app[AVAILABILITY].get_status_summary())


def _id(request: web.Request) -> str:
    return request.match_info["endpoint_id"]


ROUTES = (
    Route("GET", "/services/", list_endpoints),
    Route("POST", "/services/", create_endpoint),
    Route("GET", "/services/status/summary", get_summary),
    Route("GET", "/services/{endpoint_id}", get_endpoint),
    Route("PUT", "/services/{endpoint_id}", replace_endpoint),
    Route("DELETE", "/services/{endpoint_id}", delete_endpoint),
    Route("POST", "/services/{endpoint_id}/check", check_endpoint),
    Route("GET", "/services/{endpoint_id}/status", get_status),
    Route("GET", "/services/{endpoint_id}/history", get_history),
    Route("GET", "/services/{endpoint_id}/uptime", get_uptime),
)
