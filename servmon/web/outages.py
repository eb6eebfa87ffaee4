"""``/ui/outages``: what was or is down, what happened with each, and the button that says that somebody sees to it."""

from __future__ import annotations

from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from servmon.api import alerts
from servmon.api.audit import note
from servmon.api.requests import DEFAULT_LIMIT, read_older_than, write_cursor
from servmon.api.routing import OUTAGES, Route
from servmon.api.typed import Form
from servmon.clock import rfc3339
from servmon.model import Role, Severity
from servmon.services.alerts import NOTE_LIMIT
from servmon.store.outages import OutageFilter
from servmon.web.page import inner_page, lead
from servmon.web.queries import AnyQuery, Chosen, ListQuery, Text, further
from servmon.web.reading import Reading


class OutagesQuery(ListQuery):
    """Which outages."""

    state: Annotated[Literal["open", "over"] | None, Chosen] = None
    severity: Annotated[Severity | None, Chosen] = None
    endpoint_id: Text = None
    site: Text = None
    tag: Text = None


class AcknowledgementForm(Form):
    """What whoever sees to an outage has to say."""

    note: Annotated[str, Field(max_length=NOTE_LIMIT)] = ""


async def list_outages(request: web.Request, query: OutagesQuery) -> web.Response:
    """Show the outages, newest first, a hundred at a time."""
    found = await request.app[OUTAGES].list_outages(
        active=None if query.state is None else query.state == "open",
        endpoint_id=query.endpoint_id,
        limit=DEFAULT_LIMIT + 1,
        before=read_older_than(query.cursor),
        wanted=OutageFilter(severity=query.severity, site=query.site, tag=query.tag),
    )
    shown = found[:DEFAULT_LIMIT]
    reading = Reading(request)
    cursor = write_cursor(rfc3339(shown[-1].start_time), shown[-1].id) if len(found) > len(shown) else None
    return inner_page(
        request,
        "outages.html",
        outages=shown,
        names=await reading.names(one.endpoint_id for one in shown),
        seen_to=await reading.seen_to(one.id for one in shown if not one.resolved),
        query=query,
        severities=list(Severity),
        further=further(request, cursor),
        away=reading.away,
    )


async def show_outage(request: web.Request, query: AnyQuery) -> web.Response:
    """Show one outage: since when and why, what happened with it, and what the verdict rests on."""
    del query
    outage = await request.app[OUTAGES].get_outage(request.match_info["outage_id"])
    reading = Reading(request)
    known = [outage.endpoint_id, *([outage.caused_by] if outage.caused_by else ())]
    return inner_page(
        request,
        "outage.html",
        outage=outage,
        names=await reading.names(known),
        seen_to=(await reading.seen_to([outage.id])).get(outage.id),
        timeline=await reading.stored(request.app[OUTAGES].get_timeline, outage.id),
        note_limit=NOTE_LIMIT,
        away=reading.away,
    )


async def acknowledge_outage(request: web.Request, query: AnyQuery, body: AcknowledgementForm) -> web.Response:
    """Say that somebody sees to an outage, as the API does it, and show its page again."""
    del query
    done = await alerts.acknowledge_outage(request, alerts.Acknowledgement(note=body.note.strip()))
    outage_id = done["outage_id"]
    await note(request, alerts.acknowledge_outage.__name__, f"/outages/{outage_id}/acknowledge", done)
    return lead(request, f"/ui/outages/{outage_id}")


ROUTES = (
    Route("GET", "/ui/outages", list_outages, Role.READ, prefixed=False),
    Route("GET", "/ui/outages/{outage_id}", show_outage, Role.READ, prefixed=False),
    # Noted in the audit by itself, just as the change through the API that it is.
    Route(
        "POST",
        "/ui/outages/{outage_id}/acknowledge",
        acknowledge_outage,
        Role.OPERATE,
        prefixed=False,
        is_change=False,
    ),
)
