"""``/ui/maintenance``: windows of planned work."""

from __future__ import annotations

from aiohttp import web

from servmon.api import maintenance
from servmon.api.routing import OUTAGES, Route
from servmon.api.typed import PageQuery
from servmon.api.window_shapes import window_shape
from servmon.model import Role
from servmon.web.page import inner_page
from servmon.web.queries import AnyQuery, ListQuery, further


async def list_windows(request: web.Request, query: ListQuery) -> web.Response:
    """Show the windows, latest start first, a hundred at a time."""
    found = await maintenance.list_windows(request, PageQuery(cursor=query.cursor))
    return inner_page(
        request,
        "windows.html",
        windows=found["items"],
        first=query.cursor,
        further=further(request, found["next_cursor"]),
    )


async def show_window(request: web.Request, query: AnyQuery) -> web.Response:
    """Show one window, and when it holds next."""
    del query
    window = await request.app[OUTAGES].get_maintenance_window(request.match_info["window_id"])
    return inner_page(request, "window.html", window=window_shape(window))


ROUTES = (
    Route("GET", "/ui/maintenance", list_windows, Role.READ, prefixed=False),
    Route("GET", "/ui/maintenance/{window_id}", show_window, Role.READ, prefixed=False),
)
