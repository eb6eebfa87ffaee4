"""``/outages``: what was or is down, since when, and a person's word that it is over."""

from __future__ import annotations

from aiohttp import web

from servmon.api.requests import read_older_than, write_cursor
from servmon.api.routing import OUTAGES, Route
from servmon.api.shapes import OutageShape, OutageSummaryShape, Page, ResolvedShape, outage_shape, page
from servmon.api.typed import Body, PageQuery
from servmon.clock import rfc3339
from servmon.model import Outage, Role


class Resolution(Body):
    """A person's word on how an outage ended."""

    resolution_notes: str | None = None


async def list_outages(request: web.Request, query: PageQuery) -> Page[OutageShape]:
    """List all service outages, newest first."""
    return await _page(request, query, active=None)


async def list_active_outages(request: web.Request, query: PageQuery) -> Page[OutageShape]:
    """Get the active service outages, newest first."""
    return await _page(request, query, active=True)


async def get_outage(request: web.Request) -> OutageShape:
    """Get a specific service outage."""
    return outage_shape(await request.app[OUTAGES].get_outage(request.match_info["outage_id"]))


async def resolve_outage(request: web.Request, body: Resolution = Resolution()) -> ResolvedShape:  # noqa: B008 - frozen
    """Resolve a service outage; ``still_down`` tells whether the last check failed all the same."""
    outage = await request.app[OUTAGES].resolve_outage(
        request.match_info["outage_id"], resolution_notes=body.resolution_notes
    )
    return {**outage_shape(outage), "still_down": outage.still_down}


async def get_outage_summary(request: web.Request) -> OutageSummaryShape:
    """Get a summary of service outages."""
    summary: OutageSummaryShape = await request.app[OUTAGES].get_outage_summary()  # type: ignore[assignment]
    return summary


async def _page(request: web.Request, query: PageQuery, *, active: bool | None) -> Page[OutageShape]:
    before = read_older_than(query.cursor)
    rows = await request.app[OUTAGES].list_outages(active=active, limit=query.limit + 1, before=before)
    return page(rows, query.limit, shape=outage_shape, cursor=_cursor)


def _cursor(outage: Outage) -> str:
    return write_cursor(rfc3339(outage.start_time), outage.id)


ROUTES = (
    Route("GET", "/outages/", list_outages, Role.READ),
    Route("GET", "/outages/active", list_active_outages, Role.READ),
    Route("GET", "/outages/summary", get_outage_summary, Role.READ),
    Route("GET", "/outages/{outage_id}", get_outage, Role.READ),
    Route("POST", "/outages/{outage_id}/resolve", resolve_outage, Role.OPERATE),
)
