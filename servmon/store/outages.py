"""Outages: one endpoint's time from its first failure to its recovery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from servmon.errors import NotFoundError
from servmon.model import Outage, Severity
from servmon.store import rows
from servmon.store.pool import Executor

RESOLVED_BY_HAND = "resolved by hand"


@dataclass(frozen=True, slots=True)
class OutageSummary:
    """Counts of all outages; ``by_service`` is by endpoint id, the mean is over the resolved ones."""

    total: int
    active: int
    resolved: int
    by_severity: Mapping[str, int]
    by_service: Mapping[str, int]
    mean_time_to_resolve_seconds: float | None


_GET = """
select * from service_outage where id = $1::text::uuid
"""


async def get(db: Executor, outage_id: str) -> Outage:
    """One outage. Raises ``NotFoundError``."""
    row = await db.fetchrow(_GET, outage_id)
    if row is None:
        raise _not_found(outage_id)
    return rows.outage(row)


@dataclass(frozen=True, slots=True)
class OutageFilter:
    """Which outages; ``None`` in a field lets any pass. The times are of their start."""

    severity: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    site: str | None = None
    tag: str | None = None


ANY = OutageFilter()
_GET_PAGE = """
select o.* from service_outage o
where ($1::boolean is null or resolved <> $1)
and ($2::text is null or endpoint_id = $2)
and ($3::timestamptz is null or (start_time, o.id) < ($3, $4::text::uuid))
and ($6::text is null or severity = $6::text::severity_type)
and ($7::timestamptz is null or start_time >= $7)
and ($8::timestamptz is null or start_time < $8)
and (coalesce($9::text, $10::text) is null or exists (
    select from service_endpoint e
    where e.id = o.endpoint_id and ($9::text is null or e.site = $9) and ($10::text is null or $10 = any (e.tags))
))
order by start_time desc, o.id desc
limit $5
"""


async def get_page(
    db: Executor,
    *,
    active: bool | None,
    endpoint_id: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
    wanted: OutageFilter = ANY,
) -> list[Outage]:
    """At most ``limit`` outages, newest first, all older than the one with start time and id ``before``."""
    start_time, outage_id = before or (None, None)
    filters = (wanted.severity, wanted.since, wanted.until, wanted.site, wanted.tag)
    found = await db.fetch(_GET_PAGE, active, endpoint_id, start_time, outage_id, limit, *filters)
    return [rows.outage(row) for row in found]


_OPEN_OUTAGES = """
select * from service_outage where not resolved order by start_time, id
"""


async def open_outages(db: Executor) -> list[Outage]:
    """Every open outage, oldest first."""
    return [rows.outage(row) for row in await db.fetch(_OPEN_OUTAGES)]


_OPEN_AT = """
select * from service_outage where not resolved and endpoint_id = any($1::text[])
"""


async def open_at(db: Executor, endpoint_ids: Sequence[str]) -> list[Outage]:
    """The open outages of these endpoints, in no order."""
    return [rows.outage(row) for row in await db.fetch(_OPEN_AT, endpoint_ids)]


_DURING = """
select * from service_outage where not resolved or resolved_at >= $1 or start_time >= $1 order by start_time, id
"""


async def during(db: Executor, since: datetime) -> list[Outage]:
    """Every outage that was open at some time from ``since`` on, oldest first."""
    return [rows.outage(row) for row in await db.fetch(_DURING, since)]


_RESOLVED_AMONG = """
select * from service_outage where id = any($1::text[]::uuid[]) and resolved
"""


async def resolved_among(db: Executor, ids: Sequence[str]) -> list[Outage]:
    """Those of the outages ``ids`` that are over."""
    return [rows.outage(row) for row in await db.fetch(_RESOLVED_AMONG, ids)]


_RESOLVE = """
with before as (
    select id, resolved, resolution_notes from service_outage where id = $1::text::uuid for update
), after as (
    update service_outage o
    set resolved = true,
        resolved_at = coalesce(o.resolved_at, greatest($3, o.start_time)),
        resolution_notes = coalesce($2, o.resolution_notes),
        revision = o.revision + case
            when b.resolved and ($2::text is null or $2 is not distinct from b.resolution_notes) then 0 else 1 end
    from before b
    where o.id = b.id
    returning o.*, b.resolved as resolved_before
), recorded as (
    insert into state_change (id, endpoint_id, old_state, new_state, reason, at, outage_id)
    select gen_random_uuid(), endpoint_id, 'down', 'unknown', $4, resolved_at, id from after where not resolved_before
)
select * from after
"""


async def resolve(db: Executor, outage_id: str, *, notes: str | None, at: datetime) -> Outage:
    """Close an outage at the time ``at``, by hand, and record the state change; where it is over, only set the notes.

    Raises ``NotFoundError``.
    """
    row = await db.fetchrow(_RESOLVE, outage_id, notes, at, RESOLVED_BY_HAND)
    if row is None:
        raise _not_found(outage_id)
    return rows.outage(row)


_CLOSE_UNWATCHED = """
select close_outages_of_unwatched()
"""


async def close_unwatched(db: Executor) -> None:
    """Close open outages of deleted and inactive endpoints: such as were declared while the endpoint was changed."""
    await db.execute(_CLOSE_UNWATCHED)


_SUMMARY = """
with counted as (
    select endpoint_id, severity, resolved, count(*) as number,
        sum(extract(epoch from resolved_at - start_time)) as seconds
    from service_outage
    group by endpoint_id, severity, resolved
)
select
    coalesce(sum(number), 0)::bigint as total,
    coalesce(sum(number) filter (where not resolved), 0)::bigint as active,
    coalesce(sum(number) filter (where resolved), 0)::bigint as resolved,
    (sum(seconds) / nullif(sum(number) filter (where resolved), 0))::double precision as mean_seconds,
    (select jsonb_object_agg(severity, number) from (
        select severity, sum(number) as number from counted group by severity) s) as by_severity,
    (select jsonb_object_agg(endpoint_id, number) from (
        select endpoint_id, sum(number) as number from counted group by endpoint_id) s) as by_service
from counted
"""


async def summary(db: Executor) -> OutageSummary:
    """Counts of all outages there ever were; every severity is named, each endpoint that had one too."""
    row = await db.fetchrow(_SUMMARY)
    by_severity = rows.from_json(row["by_severity"]) or {}
    return OutageSummary(
        total=row["total"],
        active=row["active"],
        resolved=row["resolved"],
        by_severity={severity.value: by_severity.get(severity, 0) for severity in Severity},
        by_service=rows.from_json(row["by_service"]) or {},
        mean_time_to_resolve_seconds=row["mean_seconds"],
    )


def _not_found(outage_id: str) -> NotFoundError:
    return NotFoundError(f"there is no outage with the id {outage_id}")
