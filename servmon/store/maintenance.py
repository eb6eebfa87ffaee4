"""Maintenance windows: the endpoints they name, and the occurrences that are not as their rules say."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from servmon.errors import InvalidInputError, LostUpdateError, NotFoundError, Problem
from servmon.model import MaintenanceWindow
from servmon.store import rows
from servmon.store.pool import Executor

_COLUMNS = """
    description, start_time, end_time, mode, created_by, tags, sites, rrule, timezone, exdates, notify, notify_before,
    creator_channel, rule_from, over_at
"""
_VALUES = "$2, $3, $4, $5, $6, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17"

# The list is stored whole or not at all: `unknown` holds the places of ids that name no endpoint, or a deleted one.
_WANTED = """
wanted as (
    select w.id, (w.place - 1)::int as position, e.id is null as is_unknown
    from unnest($7::text[]) with ordinality w(id, place)
    left join service_endpoint e on e.id = w.id and e.archived_at is null
), unknown as (
    select coalesce(array_agg(position order by position), '{}') as places from wanted where is_unknown
)
"""

_RECORDED = """
    (select jsonb_agg(to_jsonb(o) order by o.start_time) from maintenance_occurrence o where o.window_id = {id})
    as recorded
"""

_INSERT = f"""
with {_WANTED}, stored as (
    insert into maintenance_window (id, {_COLUMNS})
    select $1::text::uuid, {_VALUES} from unknown where places = '{{}}'
    returning *
), linked as (
    insert into maintenance_window_endpoint (window_id, endpoint_id, position)
    select stored.id, wanted.id, wanted.position from stored, wanted
    on conflict do nothing
)
select unknown.places, stored.*, $7::text[] as endpoint_ids, null as recorded from unknown left join stored on true
"""  # noqa: S608 - made of the constants above


async def insert(db: Executor, window: MaintenanceWindow, over_at: datetime | None = None) -> MaintenanceWindow:
    """Store a new window, a recurring one with the end of its last occurrence if it has one.

    Raises ``InvalidInputError`` naming each endpoint id that is unknown or deleted.
    """
    row = await db.fetchrow(_INSERT, *_arguments(window, over_at))
    _refuse_unknown(row["places"])
    return rows.maintenance_window(row)


_UPDATE = f"""
with {_WANTED}, stored as (
    update maintenance_window
    set ({_COLUMNS}, updated_at) = row({_VALUES}, now())
    from unknown
    where id = $1::text::uuid and places = '{{}}' and deleted_at is null and updated_at = coalesce($21, updated_at)
    returning maintenance_window.*
), unlinked as (
    delete from maintenance_window_endpoint
    where window_id = (select id from stored) and endpoint_id <> all ($7)
), linked as (
    insert into maintenance_window_endpoint (window_id, endpoint_id, position)
    select distinct on (wanted.id) stored.id, wanted.id, wanted.position from stored, wanted
    on conflict (window_id, endpoint_id) do update set position = excluded.position
), forgotten as (
    delete from maintenance_occurrence
    where window_id = (select id from stored) and key <> all ($18::text[])
), recorded as (
    insert into maintenance_occurrence (window_id, key, start_time, end_time)
    select stored.id, o.* from stored, unnest($18::text[], $19::timestamptz[], $20::timestamptz[]) o
    on conflict (window_id, key) do update set start_time = excluded.start_time, end_time = excluded.end_time
)
select unknown.places, stored.*, $7::text[] as endpoint_ids, null as recorded from unknown left join stored on true
"""  # noqa: S608 - made of the constants above


async def update(
    db: Executor, window: MaintenanceWindow, over_at: datetime | None = None, *, version: datetime | None = None
) -> MaintenanceWindow:
    """Give the window of this id these values, if it was updated last at ``version`` (``None``: whenever).

    Raises ``NotFoundError``, ``LostUpdateError`` and ``InvalidInputError`` as ``insert``.
    """
    recorded = ([getattr(one, name) for one in window.recorded] for name in ("key", "start_time", "end_time"))
    row = await db.fetchrow(_UPDATE, *_arguments(window, over_at), *recorded, version)
    _refuse_unknown(row["places"])
    if row["id"] is None:
        raise await _not_as_expected(db, window.id)
    return replace(rows.maintenance_window(row), recorded=window.recorded)


_UNKNOWN_NAMES = """
select array(select t.name from unnest($1::text[]) t(name) where not exists (
    select from service_endpoint e where e.archived_at is null and e.tags @> array[t.name]
)) as tags, array(select s.name from unnest($2::text[]) s(name) where not exists (
    select from service_endpoint e where e.archived_at is null and e.site = s.name
)) as sites
"""


async def refuse_unknown_names(db: Executor, window: MaintenanceWindow) -> None:
    """Raise ``InvalidInputError`` for tags and sites that no endpoint has: the work would not be covered."""
    if not (window.tags or window.sites):
        return
    row = await db.fetchrow(_UNKNOWN_NAMES, window.tags, window.sites)
    problems = [
        Problem(f"{field}.{list(given).index(name)}", f"no service endpoint has the {what} {name!r}")
        for field, what, given in (("tags", "tag", window.tags), ("sites", "site", window.sites))
        for name in row[field]
    ]
    if problems:
        raise InvalidInputError(problems)


_DELETE = """
with deleted as (
    update maintenance_window set deleted_at = $2, updated_at = now()
    where id = $1::text::uuid and deleted_at is null and updated_at = coalesce($3, updated_at)
    returning id
), ended as (
    update maintenance_occurrence set end_time = greatest($2, start_time + interval '1 microsecond')
    where window_id in (select id from deleted) and end_time > $2
)
select id from deleted
"""


async def delete(db: Executor, window_id: str, at: datetime, *, version: datetime | None = None) -> None:
    """End a window at that time: nobody finds it any more, but what it covered so far it covers.

    Raises ``NotFoundError`` and ``LostUpdateError`` as ``update``.
    """
    if await db.fetchval(_DELETE, window_id, at, version) is None:
        raise await _not_as_expected(db, window_id)


WINDOWS = f"""
select w.*, coalesce(l.endpoint_ids, '{{}}') as endpoint_ids, {_RECORDED.format(id="w.id")}
from maintenance_window w
cross join lateral (
    select array_agg(endpoint_id order by position, endpoint_id) as endpoint_ids
    from maintenance_window_endpoint where window_id = w.id
) l
"""  # noqa: S608 - made of the constant above

_GET = WINDOWS + "where w.id = $1::text::uuid and w.deleted_at is null"


async def get(db: Executor, window_id: str) -> MaintenanceWindow:
    """One window. Raises ``NotFoundError``, also where it was deleted."""
    row = await db.fetchrow(_GET, window_id)
    if row is None:
        raise _not_found(window_id)
    return rows.maintenance_window(row)


_GET_PAGE = (
    WINDOWS
    + """
where w.deleted_at is null and ($1::timestamptz is null or (w.start_time, w.id) < ($1, $2::text::uuid))
order by w.start_time desc, w.id desc
limit $3
"""
)


async def get_page(db: Executor, *, before: tuple[datetime, str] | None, limit: int) -> list[MaintenanceWindow]:
    """At most ``limit`` windows, latest start first, all before the one with start time and id ``before``."""
    start_time, window_id = before or (None, None)
    return [rows.maintenance_window(row) for row in await db.fetch(_GET_PAGE, start_time, window_id, limit)]


IN_PERIOD = """
(
    w.start_time < $2 and coalesce(case when w.rrule is null then w.end_time else w.over_at end > $1, true)
    and (w.deleted_at is null or w.deleted_at > $1)
    or exists (
        select from maintenance_occurrence o where o.window_id = w.id and o.start_time < $2 and o.end_time > $1
    )
)
"""

_BETWEEN = f"{WINDOWS} where {IN_PERIOD} order by w.start_time, w.id"


async def between(db: Executor, since: datetime, until: datetime) -> list[MaintenanceWindow]:
    """The windows that may have an occurrence in [since, until), deleted ones included; their rules know exactly."""
    return [rows.maintenance_window(row) for row in await db.fetch(_BETWEEN, since, until)]


_OVER_ENDPOINT = f"""
{WINDOWS}
where {IN_PERIOD} and (
    w.id in (select window_id from maintenance_window_endpoint where endpoint_id = $3)
    or exists (select from service_endpoint e where e.id = $3 and (e.site = any(w.sites) or e.tags && w.tags))
)
order by w.start_time, w.id
"""  # noqa: S608 - made of the constants above


async def over_endpoint(db: Executor, endpoint_id: str, since: datetime, until: datetime) -> list[MaintenanceWindow]:
    """The windows over an endpoint, by its present tags and site, that may touch [since, until), as ``between``."""
    return [rows.maintenance_window(row) for row in await db.fetch(_OVER_ENDPOINT, since, until, endpoint_id)]


def _arguments(window: MaintenanceWindow, over_at: datetime | None) -> tuple[Any, ...]:
    return (
        window.id,
        window.description,
        window.start_time,
        window.end_time,
        window.mode,
        window.created_by,
        window.endpoint_ids,
        window.tags,
        window.sites,
        window.rrule,
        window.timezone,
        window.exdates,
        window.notify,
        window.notify_before,
        window.creator_channel,
        window.rule_from,
        over_at,
    )


def _refuse_unknown(places: list[int]) -> None:
    if places:
        raise InvalidInputError(
            Problem(f"endpoint_ids.{place}", "must be the id of a service endpoint") for place in places
        )


async def _not_as_expected(db: Executor, window_id: str) -> NotFoundError | LostUpdateError:
    try:
        await get(db, window_id)
    except NotFoundError as error:
        return error
    return LostUpdateError(f"the maintenance window {window_id} was changed by now; read it again, then change it")


def _not_found(window_id: str) -> NotFoundError:
    return NotFoundError(f"there is no maintenance window with the id {window_id}")
