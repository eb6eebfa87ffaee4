"""Maintenance windows and the endpoints they cover."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from servmon.errors import InvalidInputError, NotFoundError, Problem
from servmon.model import MaintenanceWindow
from servmon.store import rows
from servmon.store.pool import Executor

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

_INSERT = f"""
with {_WANTED}, stored as (
    insert into maintenance_window (id, description, start_time, end_time, mode, created_by)
    select $1::text::uuid, $2, $3, $4, $5, $6 from unknown where places = '{{}}'
    returning *
), linked as (
    insert into maintenance_window_endpoint (window_id, endpoint_id, position)
    select stored.id, wanted.id, wanted.position from stored, wanted
    on conflict do nothing
)
select unknown.places, stored.*, $7::text[] as endpoint_ids from unknown left join stored on true
"""  # noqa: S608 - made of the constant above


async def insert(db: Executor, window: MaintenanceWindow) -> MaintenanceWindow:
    """Store a new window. Raises ``InvalidInputError`` naming each endpoint id that is unknown or deleted."""
    row = await db.fetchrow(_INSERT, *_arguments(window))
    _refuse_unknown(row["places"])
    return rows.maintenance_window(row)


_UPDATE = f"""
with {_WANTED}, stored as (
    update maintenance_window
    set description = $2, start_time = $3, end_time = $4, mode = $5, created_by = $6, updated_at = now()
    from unknown
    where id = $1::text::uuid and places = '{{}}'
    returning maintenance_window.*
), unlinked as (
    delete from maintenance_window_endpoint
    where window_id = (select id from stored) and endpoint_id <> all ($7)
), linked as (
    insert into maintenance_window_endpoint (window_id, endpoint_id, position)
    select distinct on (wanted.id) stored.id, wanted.id, wanted.position from stored, wanted
    on conflict (window_id, endpoint_id) do update set position = excluded.position
)
select unknown.places, stored.*, $7::text[] as endpoint_ids from unknown left join stored on true
"""  # noqa: S608 - made of the constant above


async def update(db: Executor, window: MaintenanceWindow) -> MaintenanceWindow:
    """Give the window of this id these values. Raises ``NotFoundError`` and ``InvalidInputError`` as ``insert``."""
    row = await db.fetchrow(_UPDATE, *_arguments(window))
    _refuse_unknown(row["places"])
    if row["id"] is None:
        raise _not_found(window.id)
    return rows.maintenance_window(row)


_DELETE = """
delete from maintenance_window where id = $1::text::uuid returning id
"""


async def delete(db: Executor, window_id: str) -> None:
    """Remove a window. Raises ``NotFoundError``."""
    if await db.fetchval(_DELETE, window_id) is None:
        raise _not_found(window_id)


_WINDOWS = """
select w.*, coalesce(l.endpoint_ids, '{}') as endpoint_ids
from maintenance_window w
cross join lateral (
    select array_agg(endpoint_id order by position, endpoint_id) as endpoint_ids
    from maintenance_window_endpoint where window_id = w.id
) l
"""

_GET = _WINDOWS + "where w.id = $1::text::uuid"


async def get(db: Executor, window_id: str) -> MaintenanceWindow:
    """One window. Raises ``NotFoundError``."""
    row = await db.fetchrow(_GET, window_id)
    if row is None:
        raise _not_found(window_id)
    return rows.maintenance_window(row)


_GET_PAGE = (
    _WINDOWS
    + """
where $1::timestamptz is null or (w.start_time, w.id) < ($1, $2::text::uuid)
order by w.start_time desc, w.id desc
limit $3
"""
)


async def get_page(db: Executor, *, before: tuple[datetime, str] | None, limit: int) -> list[MaintenanceWindow]:
    """At most ``limit`` windows, latest start first, all before the one with start time and id ``before``."""
    start_time, window_id = before or (None, None)
    return [rows.maintenance_window(row) for row in await db.fetch(_GET_PAGE, start_time, window_id, limit)]


_ACTIVE = _WINDOWS + "where w.start_time <= $1 and w.end_time > $1 order by w.start_time, w.id"


async def active(db: Executor, at: datetime) -> list[MaintenanceWindow]:
    """The windows that cover the moment ``at``; a window's end is no longer part of it."""
    return [rows.maintenance_window(row) for row in await db.fetch(_ACTIVE, at)]


_NOT_ENDED = _WINDOWS + "where w.end_time > $1 order by w.start_time, w.id"


async def not_ended(db: Executor, at: datetime) -> list[MaintenanceWindow]:
    """The windows that are not over at ``at``, planned ones included."""
    return [rows.maintenance_window(row) for row in await db.fetch(_NOT_ENDED, at)]


_OVER_ENDPOINT = f"""
{_WINDOWS}
where w.start_time < $3 and w.end_time > $2
and w.id in (select window_id from maintenance_window_endpoint where endpoint_id = $1)
order by w.start_time, w.id
"""  # noqa: S608 - made of the constant above


async def over_endpoint(db: Executor, endpoint_id: str, since: datetime, until: datetime) -> list[MaintenanceWindow]:
    """The windows over an endpoint that touch the period from ``since`` until ``until``."""
    return [rows.maintenance_window(row) for row in await db.fetch(_OVER_ENDPOINT, endpoint_id, since, until)]


def _arguments(window: MaintenanceWindow) -> tuple[Any, ...]:
    return (
        window.id,
        window.description,
        window.start_time,
        window.end_time,
        window.mode,
        window.created_by,
        window.endpoint_ids,
    )


def _refuse_unknown(places: list[int]) -> None:
    if places:
        raise InvalidInputError(
            Problem(f"endpoint_ids.{place}", "must be the id of a service endpoint") for place in places
        )


def _not_found(window_id: str) -> NotFoundError:
    return NotFoundError(f"there is no maintenance window with the id {window_id}")
