"""``/alerts``, ``/silences`` and acknowledgements: who was told, who was not and why, and what need not be told."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web

from servmon.api.auth import TOKEN_NAME
from servmon.api.requests import read_older_than, write_cursor
from servmon.api.routing import ALERTS, Route
from servmon.api.shapes import Page, page
from servmon.api.typed import Body, Created, JsonObject, PageQuery
from servmon.clock import rfc3339
from servmon.model import Role

Row = dict[str, Any]
SilenceBody = Annotated[dict[str, Any], JsonObject("SilenceFields")]


class Acknowledgement(Body):
    """What whoever sees to an outage has to say."""

    note: str = ""


async def list_alerts(request: web.Request, query: PageQuery) -> Page[Row]:
    """List all alerts, newest first."""
    return await _page(request, query, active=None)


async def list_active_alerts(request: web.Request, query: PageQuery) -> Page[Row]:
    """Get the alerts that are not over, newest first."""
    return await _page(request, query, active=True)


async def get_alert(request: web.Request) -> Row:
    """Get an alert with its outages, decisions and messages."""
    return await request.app[ALERTS].get_alert(request.match_info["alert_id"])


async def explain_outage(request: web.Request) -> Row:
    """Say who was told of an outage, who was not, and why."""
    return await request.app[ALERTS].explain(request.match_info["outage_id"])


async def acknowledge_outage(request: web.Request, body: Acknowledgement = Acknowledgement()) -> Row:  # noqa: B008 - frozen
    """Acknowledge an open outage: somebody sees to it, so nobody is reminded."""
    return await request.app[ALERTS].acknowledge(request.match_info["outage_id"], request[TOKEN_NAME], body.note)


async def unacknowledge_outage(request: web.Request, body: Body = Body()) -> None:  # noqa: ARG001, B008 - none is needed
    """Take an acknowledgement back."""
    await request.app[ALERTS].unacknowledge(request.match_info["outage_id"], request[TOKEN_NAME])


async def list_silences(request: web.Request) -> Page[Row]:
    """List the silences that are not over."""
    rows = await request.app[ALERTS].list_silences()
    return {"items": rows, "next_cursor": None}


async def create_silence(request: web.Request, body: SilenceBody) -> Created[Row]:
    """Tell nothing of some endpoints until a given time."""
    silence = await request.app[ALERTS].create_silence(body, request[TOKEN_NAME])
    return Created(silence, headers={"Location": f"/silences/{silence['id']}"})


async def end_silence(request: web.Request) -> None:
    """End a silence now."""
    await request.app[ALERTS].end_silence(request.match_info["silence_id"])


async def _page(request: web.Request, query: PageQuery, *, active: bool | None) -> Page[Row]:
    before = read_older_than(query.cursor)
    rows = await request.app[ALERTS].list_alerts(active=active, limit=query.limit + 1, before=before)
    return await page(rows, query.limit, shape=_as_it_is, cursor=_cursor)


def _as_it_is(row: Row) -> Row:
    return row


def _cursor(alert: Row) -> str:
    return write_cursor(rfc3339(alert["opened_at"]), alert["id"])


ROUTES = (
    Route("GET", "/alerts/", list_alerts, Role.READ),
    Route("GET", "/alerts/active", list_active_alerts, Role.READ),
    Route("GET", "/alerts/{alert_id}", get_alert, Role.READ),
    Route("GET", "/outages/{outage_id}/alerts", explain_outage, Role.READ),
    Route("POST", "/outages/{outage_id}/acknowledge", acknowledge_outage, Role.OPERATE),
    Route("POST", "/outages/{outage_id}/unacknowledge", unacknowledge_outage, Role.OPERATE),
    Route("GET", "/silences/", list_silences, Role.READ),
    Route("POST", "/silences/", create_silence, Role.OPERATE),
    Route("DELETE", "/silences/{silence_id}", end_silence, Role.OPERATE),
)
