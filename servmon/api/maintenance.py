"""``/maintenance``: windows of planned work."""

from __future__ import annotations

from aiohttp import web

from servmon.api.auth import TOKEN_NAME
from servmon.api.requests import only_query, read_limit, read_object, read_older_than, write_cursor
from servmon.api.routing import OUTAGES, Route
from servmon.api.shapes import json_answer, page_answer, window_shape
from servmon.clock import rfc3339
from servmon.model import MaintenanceWindow


async def list_windows(request: web.Request) -> web.Response:
    """List all maintenance windows, latest start first."""
    query = only_query(request, "limit", "cursor")
    limit, before = read_limit(query), read_older_than(query)
    rows = await request.app[OUTAGES].list_maintenance_windows(limit=limit + 1, before=before)
    return page_answer(rows, limit, shape=window_shape, cursor=_cursor)


async def list_active_windows(request: web.Request) -> web.Response:
    """Get the active maintenance windows, all of them."""
    only_query(request)
    rows = await request.app[OUTAGES].get_active_maintenance_windows()
    return page_answer(rows, len(rows), shape=window_shape, cursor=_cursor)


async def create_window(request: web.Request) -> web.Response:
    """Create a new maintenance window; without ``created_by`` the token's name is written down."""
    fields = await read_object(request)
    window = await request.app[OUTAGES].create_maintenance_window({"created_by": request[TOKEN_NAME], **fields})
    return json_answer(window_shape(window), status=201, headers={"Location": f"/maintenance/{window.id}"})


async def get_window(request: web.Request) -> web.Response:
    """Get a specific maintenance window."""
    only_query(request)
    return json_answer(window_shape(await request.app[OUTAGES].get_maintenance_window(_id(request))))


async def replace_window(request: web.Request) -> web.Response:
    """Update a maintenance window: the body replaces it whole."""
    fields = await read_object(request)
    return json_answer(window_shape(await request.app[OUTAGES].replace_maintenance_window(_id(request), fields)))


async def extend_window(request: web.Request) -> web.Response:
    """Let the running occurrence end later: body ``{"minutes": 30}`` or ``{"end_time": "…"}``."""
    fields = await read_object(request)
    return json_answer(window_shape(await request.app[OUTAGES].extend_maintenance_window(_id(request), fields)))


async def end_window(request: web.Request) -> web.Response:
    """Let the running occurrence end now."""
    return json_answer(window_shape(await request.app[OUTAGES].end_maintenance_window(_id(request))))


async def delete_window(request: web.Request) -> web.Response:
    """Delete a maintenance window."""
    await request.app[OUTAGES].delete_maintenance_window(_id(request))
    return web.Response(status=204)


def _id(request: web.Request) -> str:
    return request.match_info["window_id"]


def _cursor(window: MaintenanceWindow) -> str:
    return write_cursor(rfc3339(window.start_time), window.id)


ROUTES = (
    Route("GET", "/maintenance/", list_windows),
    Route("GET", "/maintenance/active", list_active_windows),
    Route("POST", "/maintenance/", create_window),
    Route("GET", "/maintenance/{window_id}", get_window),
    Route("PUT", "/maintenance/{window_id}", replace_window),
    Route("DELETE", "/maintenance/{window_id}", delete_window),
    Route("POST", "/maintenance/{window_id}/extend", extend_window),
    Route("POST", "/maintenance/{window_id}/end", end_window),
)
