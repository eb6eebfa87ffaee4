"""``/maintenance``: windows of planned work."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from aiohttp import web

from servmon.api.auth import TOKEN_NAME
from servmon.api.requests import is_this_version, read_older_than, write_cursor
from servmon.api.routing import BEFORE, OUTAGES, Route
from servmon.api.shapes import Page, page
from servmon.api.typed import Answer, Created, JsonObject, PageQuery
from servmon.api.window_shapes import WindowShape, window_shape
from servmon.clock import rfc3339
from servmon.model import MaintenanceWindow, Role

WindowBody = Annotated[dict[str, Any], JsonObject("WindowFields")]
WindowChanges = Annotated[dict[str, Any], JsonObject("WindowChanges")]
Extension = Annotated[dict[str, Any], JsonObject("WindowExtension")]


async def list_windows(request: web.Request, query: PageQuery) -> Page[WindowShape]:
    """List all maintenance windows, latest start first."""
    before = read_older_than(query.cursor)
    rows = await request.app[OUTAGES].list_maintenance_windows(limit=query.limit + 1, before=before)
    return await page(rows, query.limit, shape=window_shape, cursor=_cursor)


async def list_active_windows(request: web.Request) -> Page[WindowShape]:
    """Get the active maintenance windows, all of them."""
    rows = await request.app[OUTAGES].get_active_maintenance_windows()
    return await page(rows, len(rows), shape=window_shape, cursor=_cursor)


async def create_window(request: web.Request, body: WindowBody) -> Created[WindowShape]:
    """Create a new maintenance window; without ``created_by`` the token's name is written down."""
    window = await request.app[OUTAGES].create_maintenance_window({"created_by": request[TOKEN_NAME], **body})
    headers = {"Location": f"/maintenance/{window.id}", **_etag(window)}
    return Created(window_shape(window), headers=headers)


async def get_window(request: web.Request) -> Answer[WindowShape]:
    """Get a specific maintenance window; its ETag goes into If-Match to change just this version."""
    return _tagged(await request.app[OUTAGES].get_maintenance_window(_id(request)))


async def replace_window(request: web.Request, body: WindowBody) -> Answer[WindowShape]:
    """Update a maintenance window: the body replaces it whole."""
    version = await _remember(request)
    return _tagged(await request.app[OUTAGES].replace_maintenance_window(_id(request), body, version=version))


async def update_window(request: web.Request, body: WindowChanges) -> Answer[WindowShape]:
    """Change the given fields of a maintenance window."""
    version = await _remember(request)
    return _tagged(await request.app[OUTAGES].update_maintenance_window(_id(request), body, version=version))


async def extend_window(request: web.Request, body: Extension) -> Answer[WindowShape]:
    """Let the running occurrence end later: body ``{"minutes": 30}`` or ``{"end_time": "…"}``."""
    version = await _remember(request)
    return _tagged(await request.app[OUTAGES].extend_maintenance_window(_id(request), body, version=version))


async def end_window(request: web.Request) -> Answer[WindowShape]:
    """Let the running occurrence end now."""
    version = await _remember(request)
    return _tagged(await request.app[OUTAGES].end_maintenance_window(_id(request), version=version))


async def delete_window(request: web.Request) -> None:
    """Delete a maintenance window."""
    version = await _remember(request)
    await request.app[OUTAGES].delete_maintenance_window(_id(request), version=version)


async def _remember(request: web.Request) -> datetime | None:
    """Note what is about to be changed, for the audit; the version that If-Match wants, if it wants one."""
    before = await request.app[OUTAGES].get_maintenance_window(_id(request))
    request[BEFORE] = window_shape(before)
    return before.updated_at if is_this_version(request, before.id, _etag(before)["ETag"]) else None


def _tagged(window: MaintenanceWindow) -> Answer[WindowShape]:
    return Answer(window_shape(window), headers=_etag(window))


def _etag(window: MaintenanceWindow) -> dict[str, str]:
    return {"ETag": f'"{rfc3339(window.updated_at)}"'} if window.updated_at else {}


def _id(request: web.Request) -> str:
    return request.match_info["window_id"]


def _cursor(window: MaintenanceWindow) -> str:
    return write_cursor(rfc3339(window.start_time), window.id)


ROUTES = (
    Route("GET", "/maintenance/", list_windows, Role.READ),
    Route("GET", "/maintenance/active", list_active_windows, Role.READ),
    Route("POST", "/maintenance/", create_window, Role.OPERATE),
    Route("GET", "/maintenance/{window_id}", get_window, Role.READ),
    Route("PUT", "/maintenance/{window_id}", replace_window, Role.OPERATE),
    Route("PATCH", "/maintenance/{window_id}", update_window, Role.OPERATE),
    Route("DELETE", "/maintenance/{window_id}", delete_window, Role.OPERATE),
    Route("POST", "/maintenance/{window_id}/extend", extend_window, Role.OPERATE),
    Route("POST", "/maintenance/{window_id}/end", end_window, Role.OPERATE),
)
