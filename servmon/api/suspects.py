"""``/services/status/suspects``: what fails and has no outage yet."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web
from typing_extensions import TypedDict

from servmon.api.requests import cursor_moment, read_cursor, write_cursor, wrong_cursor
from servmon.api.routing import AVAILABILITY, Route
from servmon.api.shapes import page
from servmon.api.typed import PageQuery
from servmon.clock import rfc3339
from servmon.model import FailureKind, Role, Suspect
from servmon.services.identity import is_endpoint_id
from servmon.services.suspects import Place


class SuspectShape(TypedDict):
    """An endpoint that fails and has no outage yet, ``since`` its first failure.

    After ``failures_needed`` more (null: not known here) it is asked once more over a fresh path; ``verifying`` tells
    whether that, or what it depends on, is waited for.
    """

    endpoint_id: str
    since: datetime
    failures: int
    failures_needed: int | None
    verifying: bool
    failure_kind: FailureKind | None
    error_message: str | None


class SuspectPage(TypedDict):
    """Some of the suspects; ``total`` is how many there are in all."""

    items: list[SuspectShape]
    next_cursor: str | None
    total: int


async def list_suspects(request: web.Request, query: PageQuery) -> SuspectPage:
    """List the endpoints that fail and have no outage yet, those that fail longest first."""
    total, rows = await request.app[AVAILABILITY].get_suspects(limit=query.limit + 1, after=_place(query.cursor))
    shown = await page(
        rows, query.limit, shape=_shape, cursor=lambda row: write_cursor(rfc3339(row.since), row.endpoint_id)
    )
    return {"items": shown["items"], "next_cursor": shown["next_cursor"], "total": total}


def _place(given: str | None) -> Place | None:
    cursor = read_cursor(given, 2)
    if cursor is None:
        return None
    return cursor_moment(cursor[0]), cursor[1] if is_endpoint_id(cursor[1]) else wrong_cursor()


def _shape(suspect: Suspect) -> SuspectShape:
    return {
        "endpoint_id": suspect.endpoint_id,
        "since": suspect.since,
        "failures": suspect.failures,
        "failures_needed": suspect.failures_needed,
        "verifying": suspect.verifying,
        "failure_kind": suspect.failure_kind,
        "error_message": suspect.error_message,
    }


ROUTES = (Route("GET", "/services/status/suspects", list_suspects, Role.READ),)
