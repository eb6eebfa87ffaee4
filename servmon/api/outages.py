"""``/outages``: what was or is down, since when, and a person's word that it is over."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiohttp import web
from typing_extensions import TypedDict

from servmon.api.auth import TOKEN_NAME
from servmon.api.outage_shapes import OutageShape, OutageSummaryShape, ResolvedShape, outage_shape
from servmon.api.requests import read_older_than, write_cursor
from servmon.api.routing import OUTAGES, Route
from servmon.api.shapes import Page, page
from servmon.api.typed import Body, Created, Flag, Moment, PageQuery
from servmon.clock import rfc3339
from servmon.model import Outage, Role, Severity
from servmon.store.outages import OutageFilter


class Resolution(Body):
    """A person's word on how an outage ended."""

    resolution_notes: str | None = None


class ActiveQuery(PageQuery):
    """Which outages; the times are of their start."""

    endpoint_id: str | None = None
    severity: Severity | None = None
    site: str | None = None
    tag: str | None = None
    since: Moment | None = None
    until: Moment | None = None


class OutageQuery(ActiveQuery):
    """Which outages, open or over."""

    resolved: Flag | None = None


class Note(Body):
    """Something to write down beside an outage."""

    text: str


class NoteShape(TypedDict):
    """A note as it was written down."""

    id: str
    outage_id: str
    text: str
    said_by: str
    said_at: datetime


class Exclusion(Body):
    """Why an outage does not count against availability."""

    reason: str
    false_alarm: bool = False


class HappenedShape(TypedDict):
    """One thing that happened with an outage, or was said of it; ``by`` is null where it was servmon itself."""

    at: datetime
    kind: str
    text: str
    by: str | None


async def list_outages(request: web.Request, query: OutageQuery) -> Page[OutageShape]:
    """List all service outages, newest first."""
    return await _page(request, query, active=None if query.resolved is None else not query.resolved)


async def list_active_outages(request: web.Request, query: ActiveQuery) -> Page[OutageShape]:
    """Get the active service outages, newest first."""
    return await _page(request, query, active=True)


async def get_timeline(request: web.Request) -> Page[HappenedShape]:
    """Get all that happened with a service outage and was said of it, oldest first."""
    happened: Any = await request.app[OUTAGES].get_timeline(_id(request))
    return {"items": happened, "next_cursor": None}


async def note_outage(request: web.Request, body: Note) -> Created[NoteShape]:
    """Write a note down beside a service outage."""
    remark = await request.app[OUTAGES].note_outage(_id(request), body.text, by=request[TOKEN_NAME])
    note: NoteShape = {
        "id": remark.id,
        "outage_id": remark.outage_id,
        "text": remark.text,
        "said_by": remark.said_by,
        "said_at": remark.said_at,
    }
    return Created(note, headers={"Location": f"/outages/{remark.outage_id}/timeline"})


async def exclude_outage(request: web.Request, body: Exclusion) -> OutageShape:
    """Let a service outage not count against availability, or say that it was a false alarm."""
    return outage_shape(
        await request.app[OUTAGES].exclude_outage(
            _id(request), body.reason, by=request[TOKEN_NAME], false_alarm=body.false_alarm
        )
    )


async def include_outage(request: web.Request) -> OutageShape:
    """Let a service outage count against availability again."""
    return outage_shape(await request.app[OUTAGES].include_outage(_id(request), by=request[TOKEN_NAME]))


async def get_outage(request: web.Request) -> OutageShape:
    """Get a specific service outage."""
    return outage_shape(await request.app[OUTAGES].get_outage(_id(request)))


async def resolve_outage(request: web.Request, body: Resolution = Resolution()) -> ResolvedShape:  # noqa: B008 - frozen
    """Resolve a service outage; ``still_down`` tells whether the last check failed all the same."""
    outage = await request.app[OUTAGES].resolve_outage(_id(request), resolution_notes=body.resolution_notes)
    return {**outage_shape(outage), "still_down": outage.still_down}


async def get_outage_summary(request: web.Request) -> OutageSummaryShape:
    """Get a summary of service outages."""
    summary: OutageSummaryShape = await request.app[OUTAGES].get_outage_summary()  # type: ignore[assignment]
    return summary


async def _page(request: web.Request, query: ActiveQuery, *, active: bool | None) -> Page[OutageShape]:
    before = read_older_than(query.cursor)
    rows = await request.app[OUTAGES].list_outages(
        active=active,
        endpoint_id=query.endpoint_id,
        limit=query.limit + 1,
        before=before,
        wanted=OutageFilter(query.severity, query.since, query.until, query.site, query.tag),
    )
    return await page(rows, query.limit, shape=outage_shape, cursor=_cursor)


def _id(request: web.Request) -> str:
    return request.match_info["outage_id"]


def _cursor(outage: Outage) -> str:
    return write_cursor(rfc3339(outage.start_time), outage.id)


ROUTES = (
    Route("GET", "/outages/", list_outages, Role.READ),
    Route("GET", "/outages/active", list_active_outages, Role.READ),
    Route("GET", "/outages/summary", get_outage_summary, Role.READ),
    Route("GET", "/outages/{outage_id}", get_outage, Role.READ),
    Route("POST", "/outages/{outage_id}/resolve", resolve_outage, Role.OPERATE),
    Route("GET", "/outages/{outage_id}/timeline", get_timeline, Role.READ),
    Route("POST", "/outages/{outage_id}/notes", note_outage, Role.OPERATE),
    Route("POST", "/outages/{outage_id}/exclude", exclude_outage, Role.OPERATE),
    Route("POST", "/outages/{outage_id}/include", include_outage, Role.OPERATE),
)
