"""``/services``: service endpoints, their checks and their status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from servmon.api.auth import TOKEN_NAME
from servmon.api.endpoint_shapes import (
    CurrentStatusShape,
    EndpointShape,
    EndpointTexts,
    current_status_shape,
    endpoint_shape,
)
from servmon.api.health import LIVE
from servmon.api.history_shapes import (
    HistoryPage,
    StatusShape,
    UptimeShape,
    history_shape,
    moment_of,
    status_shape,
    uptime_shape,
)
from servmon.api.requests import cursor_moment, is_this_version, read_cursor, write_cursor, wrong_cursor
from servmon.api.routing import AVAILABILITY, BEFORE, CONNECTION, Route
from servmon.api.shapes import Page, page
from servmon.api.typed import Answer, Body, Created, Flag, JsonObject, MomentOrDay, PageQuery, Query, Zone
from servmon.clock import rfc3339
from servmon.model import Endpoint, Role, State, Status
from servmon.services import bulk
from servmon.services.history import Resolution
from servmon.services.identity import is_endpoint_id
from servmon.store.endpoints import EndpointFilter

TEXTS = web.AppKey("texts", EndpointTexts)
EndpointBody = Annotated[dict[str, Any], JsonObject("EndpointFields")]
EndpointChanges = Annotated[dict[str, Any], JsonObject("EndpointChanges")]


class BulkBody(Body):
    """Changes to many endpoints, made in this order."""

    mode: bulk.Mode = bulk.Mode.ALL_OR_NOTHING
    operations: tuple[bulk.Operation, ...] = Field(min_length=1, max_length=bulk.MOST_OPERATIONS)


class BulkResult(TypedDict):
    """What came of one operation; ``endpoint`` is null where it was deleted or refused."""

    ok: bool
    endpoint: EndpointShape | None
    errors: list[dict[str, str]]


class BulkShape(TypedDict):
    """What came of each operation, in their order."""

    results: list[BulkResult]


class UptimeQuery(Query):
    """Which period; a day such as 2026-11-01 stands for its first moment in the time zone."""

    since: MomentOrDay | None = Field(None, description="A time or a day; by default 30 days before the end.")
    until: MomentOrDay | None = Field(None, description="A time or a day; by default now.")
    timezone: Zone | None = Field(None, description="An IANA name such as Asia/Kolkata; by default UTC.")


class HistoryQuery(PageQuery):
    """Which part of a history; with neither period nor resolution the newest single checks."""

    since: MomentOrDay | None = Field(None, description="A time, or a day in UTC.")
    until: MomentOrDay | None = Field(None, description="A time, or a day in UTC.")
    resolution: Literal["raw", "hour", "day", "auto"] | None = Field(
        None, description="Single checks, hours or days; auto: what fits the period's length."
    )


class Deletion(Query):
    """How much of an endpoint goes."""

    purge: Flag = Field(False, description="Its results, outages and notes too, for ever.")


class EndpointQuery(PageQuery):
    """Which endpoints, and from which end."""

    status: Status | None = Field(None, description="The last check's; UNKNOWN where there was none.")
    state: State | None = Field(None, description="What servmon makes of the checks, such as suspected.")
    in_maintenance: Flag | None = Field(None, description="Whether a window is over it now.")
    now: Flag = Field(False, description="Whether each shows in the field now how it is.")
    protocol: str | None = None
    tag: str | None = None
    site: str | None = None
    is_active: Flag | None = None
    q: str | None = Field(None, description="Text in id, name, url or site, in capitals or not.")
    sort: Literal["id", "-id"] = "id"


async def list_endpoints(request: web.Request, query: EndpointQuery) -> Page[EndpointShape]:
    """List all service endpoints, by id."""
    cursor = read_cursor(query.cursor, 1)
    after = cursor[0] if cursor else None
    if after is not None and not is_endpoint_id(after):
        wrong_cursor()
    protocol = query.protocol.upper() if query.protocol else None
    rows = await request.app[AVAILABILITY].list_endpoints(
        limit=query.limit + 1,
        after=after,
        wanted=EndpointFilter(protocol, query.tag, query.site, query.is_active, query.q),
        status=query.status,
        state=query.state,
        in_maintenance=query.in_maintenance,
        backwards=query.sort == "-id",
    )
    shape = await _with_now(request, rows[: query.limit]) if query.now else request.app[TEXTS].of
    return await page(rows, query.limit, shape=shape, cursor=lambda row: write_cursor(row.id))


async def _with_now(request: web.Request, shown: Sequence[Endpoint]) -> Callable[[Endpoint], Any]:
    """How an endpoint of these looks in a list with what is known of it now."""
    known = await request.app[AVAILABILITY].get_current_statuses([one for one in shown if one.is_active])
    texts = request.app[TEXTS]
    return lambda endpoint: texts.with_now(endpoint, known.get(endpoint.id))


async def create_endpoint(request: web.Request, body: EndpointBody) -> Created[EndpointShape]:
    """Create a new service endpoint; the id of a deleted one brings its history back, and ``revived`` says so."""
    endpoint = await request.app[AVAILABILITY].create_endpoint(body)
    headers = {"Location": f"/services/{endpoint.id}", **_etag(endpoint)}
    shape = endpoint_shape(endpoint)
    if endpoint.updated_at != endpoint.created_at:  # it was there before
        shape["revived"] = True
    return Created(shape, headers=headers)


async def get_endpoint(request: web.Request) -> Answer[EndpointShape]:
    """Get a specific service endpoint; its ETag goes into If-Match to change just this version."""
    return _tagged(await request.app[AVAILABILITY].get_endpoint(_id(request)))


async def replace_endpoint(request: web.Request, body: EndpointBody) -> Answer[EndpointShape]:
    """Update a service endpoint: the body replaces it whole, but for secrets that are left out or masked."""
    revision = await _remember(request)
    return _tagged(await request.app[AVAILABILITY].replace_endpoint(_id(request), body, revision=revision))


async def update_endpoint(request: web.Request, body: EndpointChanges) -> Answer[EndpointShape]:
    """Change the given fields of a service endpoint."""
    revision = await _remember(request)
    return _tagged(await request.app[AVAILABILITY].update_endpoint(_id(request), body, revision=revision))


async def delete_endpoint(request: web.Request, query: Deletion) -> None:
    """Delete a service endpoint; its history stays, unless ``purge`` removes that too, of one that is deleted already.

    What was told of it, and the audit, stay all the same.
    """
    service = request.app[AVAILABILITY]
    if query.purge:
        request[BEFORE] = endpoint_shape(await service.get_purgeable(_id(request)))
        await service.purge_endpoint(_id(request))
        return
    revision = await _remember(request)
    await service.delete_endpoint(_id(request), revision=revision)


async def change_many(request: web.Request, body: BulkBody) -> BulkShape:
    """Create, update and delete many service endpoints: all or none of them, or each for itself."""
    if body.mode is bulk.Mode.PER_ITEM:
        done = await bulk.each(request.app[AVAILABILITY], body.operations)
    else:
        done = await bulk.all_or_nothing(request.app[CONNECTION], request.app[LIVE], body.operations)
    return {"results": [_bulk_result(one) for one in done]}


async def check_endpoint(request: web.Request) -> StatusShape:
    """Manually check a service endpoint, now."""
    return status_shape(await request.app[AVAILABILITY].check_endpoint(_id(request), by=request[TOKEN_NAME]))


async def get_status(request: web.Request) -> CurrentStatusShape:
    """Get the current status of a service endpoint."""
    return current_status_shape(await request.app[AVAILABILITY].get_current_status(_id(request)))


async def get_history(request: web.Request, query: HistoryQuery) -> HistoryPage:
    """Get the status history of a service endpoint, newest first; over a longer period its hours or days."""
    if query.since is None and query.until is None and query.resolution is None:
        return await _get_results(request, query)
    cursor = read_cursor(query.cursor, 2)
    # A later page goes on as the first one began, though "until now" lasts longer by then.
    resolution: str | None = query.resolution
    if cursor:
        resolution = cursor[0] if cursor[0] in list(Resolution) else wrong_cursor()
    before = cursor_moment(cursor[1]) if cursor else None
    found = await request.app[AVAILABILITY].get_history(
        _id(request),
        since=query.since,
        until=query.until,
        resolution=resolution,
        limit=query.limit + 1,
        before=before,
    )
    shown = await page(
        found.rows,
        query.limit,
        shape=history_shape,
        cursor=lambda row: write_cursor(found.resolution, rfc3339(moment_of(row))),
    )
    return {"items": shown["items"], "next_cursor": shown["next_cursor"], "resolution": found.resolution}


async def _get_results(request: web.Request, query: HistoryQuery) -> HistoryPage:
    cursor = read_cursor(query.cursor, 1)
    before = cursor_moment(cursor[0]) if cursor else None
    rows = await request.app[AVAILABILITY].get_status_history(_id(request), limit=query.limit + 1, before=before)
    shown = await page(rows, query.limit, shape=history_shape, cursor=lambda row: write_cursor(rfc3339(moment_of(row))))
    return {"items": shown["items"], "next_cursor": shown["next_cursor"]}


async def get_uptime(request: web.Request, query: UptimeQuery) -> UptimeShape:
    """Get how available a service endpoint was over a period, and what the rest of the time was."""
    period = query.model_dump()
    return uptime_shape(await request.app[AVAILABILITY].get_uptime(_id(request), **period))


async def get_status_summary(request: web.Request) -> dict[str, int]:
    """Get a summary of service statuses."""
    return await request.app[AVAILABILITY].get_status_summary()


async def list_tags(request: web.Request) -> dict[str, int]:
    """Count the service endpoints of each tag."""
    return await request.app[AVAILABILITY].count_tags()


async def list_sites(request: web.Request) -> dict[str, int]:
    """Count the service endpoints at each site."""
    return await request.app[AVAILABILITY].count_sites()


def _etag(endpoint: Endpoint) -> dict[str, str]:
    return {"ETag": f'"{endpoint.revision}"'}


def _tagged(endpoint: Endpoint) -> Answer[EndpointShape]:
    return Answer(endpoint_shape(endpoint), headers=_etag(endpoint))


async def _remember(request: web.Request) -> int | None:
    """Note what is about to be changed, for the audit; the revision that If-Match wants, if it wants one."""
    before = await request.app[AVAILABILITY].get_endpoint(_id(request))
    request[BEFORE] = endpoint_shape(before)
    return before.revision if is_this_version(request, before.id, _etag(before)["ETag"]) else None


def _bulk_result(done: bulk.Done) -> BulkResult:
    errors = bulk.problems_of(done.error) if done.error else ()
    return {
        "ok": done.error is None,
        "endpoint": endpoint_shape(done.endpoint) if done.endpoint else None,
        "errors": [{"field": problem.field, "message": problem.message} for problem in errors],
    }


def _id(request: web.Request) -> str:
    return request.match_info["endpoint_id"]


ROUTES = (
    Route("GET", "/services/", list_endpoints, Role.READ),
    Route("POST", "/services/", create_endpoint, Role.ADMIN),
    Route("POST", "/services/bulk", change_many, Role.ADMIN),
    Route("GET", "/services/status/summary", get_status_summary, Role.READ),
    Route("GET", "/services/{endpoint_id}", get_endpoint, Role.READ),
    Route("PUT", "/services/{endpoint_id}", replace_endpoint, Role.ADMIN),
    Route("PATCH", "/services/{endpoint_id}", update_endpoint, Role.ADMIN),
    Route("DELETE", "/services/{endpoint_id}", delete_endpoint, Role.ADMIN),
    Route("POST", "/services/{endpoint_id}/check", check_endpoint, Role.OPERATE, is_change=False, seconds=None),
    Route("GET", "/services/{endpoint_id}/status", get_status, Role.READ),
    Route("GET", "/services/{endpoint_id}/history", get_history, Role.READ),
    Route("GET", "/services/{endpoint_id}/uptime", get_uptime, Role.READ),
    Route("GET", "/tags", list_tags, Role.READ),
    Route("GET", "/sites", list_sites, Role.READ),
)
