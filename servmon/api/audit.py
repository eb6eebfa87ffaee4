"""``/audit``: who changed what, when, from where; every change that the API makes is noted here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog
from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from servmon.api.auth import TOKEN
from servmon.api.events import STREAM
from servmon.api.problems import REQUEST_ID
from servmon.api.proxies import ADDRESS
from servmon.api.requests import read_cursor, write_cursor, wrong_cursor
from servmon.api.routing import API_PREFIX, BEFORE, CONNECTION, Route
from servmon.api.shapes import Page, page, plain
from servmon.api.typed import Answer, Moment, PageQuery
from servmon.clock import now
from servmon.model import Role
from servmon.store import audit
from servmon.store.pool import AWAY
from servmon.store.rows import Row

_log = structlog.get_logger(__name__)

# The one field of an answer that is a secret.
_SECRET = "token"  # noqa: S105 - the field's name


class AuditQuery(PageQuery):
    """Which changes."""

    who: str | None = Field(None, description="The name of the token.")
    action: str | None = Field(None, description="Such as replace_endpoint.")
    target: str | None = Field(None, description="The address that was changed, such as /services/api-gateway.")
    since: Moment | None = None
    until: Moment | None = None


class AuditShape(TypedDict):
    """One change; ``before`` and ``after`` are null where there was, or is, nothing to show."""

    at: datetime
    who: str
    prefix: str
    address: str
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str


async def list_changes(request: web.Request, query: AuditQuery) -> Page[AuditShape]:
    """List who changed what, newest first."""
    key = read_cursor(query.cursor, 1)
    if key is not None and not (key[0].isascii() and key[0].isdecimal() and len(key[0]) < 19):
        wrong_cursor()
    rows = await audit.get_page(
        request.app[CONNECTION].pool,
        audit.AuditFilter(query.who, query.action, query.target, query.since, query.until),
        before=int(key[0]) if key else None,
        limit=query.limit + 1,
    )
    return await page(rows, query.limit, shape=_shape, cursor=lambda row: write_cursor(str(row["number"])))


async def note_change(request: web.Request, *, route: Route, value: Any) -> None:
    """Write down the change that ``request`` made; ``value`` is what its handler returned."""
    answered = value.value if isinstance(value, Answer) else value
    location = value.headers.get("Location") if isinstance(value, Answer) else None
    target = location or request.path.removeprefix(API_PREFIX).rstrip("/")
    await note(request, route.handler.__name__, target, answered)


async def note(request: web.Request, action: str, target: str, after: Any) -> None:
    """Write down that the holder of the request's token did ``action`` to ``target``, which is ``after`` by now."""
    connection = request.app[CONNECTION]
    entry = audit.AuditEntry(
        at=now(connection.clock),
        who=request[TOKEN].name,
        prefix=request[TOKEN].prefix,
        address=request[ADDRESS],
        action=action,
        target=target,
        before=_without_secret(request.get(BEFORE)),
        after=_without_secret(after),
        request_id=request[REQUEST_ID],
    )
    news = {"action": entry.action, "target": entry.target, "who": entry.who, "at": entry.at}
    request.app[STREAM].publish("change", news)
    try:
        await audit.insert(connection.pool, entry)
    except AWAY as error:
        # The change itself is made; to answer that it was not would be the worse mistake.
        _log.warning("a change could not be noted", action=entry.action, target=entry.target, error=str(error))


def _without_secret(value: Any) -> Mapping[str, Any] | None:
    if not isinstance(value, Mapping):
        return None
    shown: Mapping[str, Any] = plain({name: part for name, part in value.items() if name != _SECRET})
    return shown


def _shape(row: Row) -> AuditShape:
    shape: Any = {name: row[name] for name in AuditShape.__annotations__}
    made: AuditShape = shape
    return made


ROUTES = (Route("GET", "/audit", list_changes, Role.ADMIN),)
