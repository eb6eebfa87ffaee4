"""``/alerts``, ``/silences`` and acknowledgements: who was told, who was not and why, and what need not be told."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from servmon.api.auth import TOKEN_NAME
from servmon.api.requests import (
    only_query,
    read_limit,
    read_object,
    read_older_than,
    read_optional_object,
    write_cursor,
)
from servmon.api.routing import ALERTS, Route
from servmon.api.shapes import json_answer, page_answer
from servmon.clock import rfc3339
from servmon.errors import InvalidInputError, Problem


async def list_alerts(request: web.Request) -> web.Response:
    """List all alerts, newest first."""
    return await _page(request, active=None)


async def list_active_alerts(request: web.Request) -> web.Response:
    """Get the alerts that are not over, newest first."""
    return await _page(request, active=True)


async def get_alert(request: web.Request) -> web.Response:
    """Get an alert with its outages, decisions and messages."""
    only_query(request)
    return json_answer(await request.app[ALERTS].get_alert(request.match_info["alert_id"]))


async def explain_outage(request: web.Request) -> web.Response:
    """Say who was told of an outage, who was not, and why."""
    only_query(request)
    return json_answer(await request.app[ALERTS].explain(request.match_info["outage_id"]))


async def acknowledge_outage(request: web.Request) -> web.Response:
    """Acknowledge an open outage: somebody sees to it, so nobody is reminded."""
    fields = await read_optional_object(request)
    if unknown := fields.keys() - {"note"}:
        raise InvalidInputError(Problem(name, "unknown field; known is note") for name in sorted(unknown))
    alerts = request.app[ALERTS]
    outage_id = request.match_info["outage_id"]
    return json_answer(await alerts.acknowledge(outage_id, request[TOKEN_NAME], fields.get("note", "")))


async def unacknowledge_outage(request: web.Request) -> web.Response:
    """Take an acknowledgement back."""
    await read_optional_object(request)
    await request.app[ALERTS].unacknowledge(request.match_info["outage_id"])
    return web.Response(status=204)


async def list_silences(request: web.Request) -> web.Response:
    """List the silences that are not over."""
    only_query(request)
    rows = await request.app[ALERTS].list_silences()
    return page_answer(rows, len(rows), shape=_as_it_is, cursor=_as_id)


async def create_silence(request: web.Request) -> web.Response:
    """Tell nothing of some endpoints until a given time."""
    silence = await request.app[ALERTS].create_silence(await read_object(request), request[TOKEN_NAME])
    return json_answer(silence, status=201, headers={"Location": f"/silences/{silence['id']}"})


async def end_silence(request: web.Request) -> web.Response:
    """End a silence now."""
    await request.app[ALERTS].end_silence(request.match_info["silence_id"])
    return web.Response(status=204)


async def _page(request: web.Request, *, active: bool | None) -> web.Response:
    query = only_query(request, "limit", "cursor")
    limit, before = read_limit(query), read_older_than(query)
    rows = await request.app[ALERTS].list_alerts(active=active, limit=limit + 1, before=before)
    return page_answer(rows, limit, shape=_as_it_is, cursor=_cursor)


def _as_it_is(row: dict[str, Any]) -> dict[str, Any]:
    return row


def _as_id(row: dict[str, Any]) -> str:
    return write_cursor(row["id"])


def _cursor(alert: dict[str, Any]) -> str:
    return write_cursor(rfc3339(alert["opened_at"]), alert["id"])


ROUTES = (
    Route("GET", "/alerts/", list_alerts),
    Route("GET", "/alerts/active", list_active_alerts),
    Route("GET", "/alerts/{alert_id}", get_alert),
    Route("GET", "/outages/{outage_id}/alerts", explain_outage),
    Route("POST", "/outages/{outage_id}/acknowledge", acknowledge_outage),
    Route("POST", "/outages/{outage_id}/unacknowledge", unacknowledge_outage),
    Route("GET", "/silences/", list_silences),
    Route("POST", "/silences/", create_silence),
    Route("DELETE", "/silences/{silence_id}", end_silence),
)
