"""Stored check results: history, the newest, and what the state is rebuilt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from servmon.clock import now
from servmon.model import CheckResult, FailureKind, ServiceStatus, Status
from servmon.store import rows, status_rows
from servmon.store.pool import Executor

# COPY cannot say it, but a person's check may wait for a statement of its own.
_INSERT = f"""
insert into service_status_row ({", ".join(status_rows.STATUS_COLUMNS)})
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::text::jsonb)
on conflict do nothing
"""  # noqa: S608 - only column names stand in it

_ENSURE_PARTITION = """
select ensure_status_partition(($1::timestamptz at time zone 'UTC')::date)
"""


async def insert_manual(db: Executor, result: CheckResult, observer: int) -> str:
    """Store a check that a person asked for, and return the row's id."""
    record = status_rows.status_record(result, observer)
    try:
        await db.execute(_INSERT, *record)
    except asyncpg.CheckViolationError:
        # The table has no other check than its partitions' bounds: this day has no partition yet.
        await db.execute(_ENSURE_PARTITION, result.timestamp)
        await db.execute(_INSERT, *record)
    return status_rows.status_id(result.endpoint_key, observer, result.timestamp)


# Most of what is asked for lies within that, and a plan over three days' partitions is made in a fraction of the time
# that one over all of them takes.
MOSTLY_WITHIN = timedelta(days=2)

# One index scan for each observer, from the newest partition backwards, that stops at the limit: the order of
# unique (endpoint_key, observer, timestamp).
_HISTORY = """
select r.*, $1::text as endpoint_id, o.name as observer_name,
    r.seq <= (select seq from elasticsearch_cursor)
        and r.seq <> all (array(select version from elasticsearch_dead_letter where kind = 'status'))
        as elasticsearch_synced
from observer o
cross join lateral (
    select * from service_status_row s
    where s.endpoint_key = (select key from service_endpoint where id = $1)
    and s.observer = o.number
    and s.timestamp < coalesce($2::timestamptz, 'infinity')
    and s.timestamp >= coalesce($3::timestamptz, '-infinity')
    and s.timestamp < coalesce($4::timestamptz, 'infinity')
    order by s.timestamp desc
    limit $5
) r
order by r.timestamp desc, r.observer
limit $5
"""


async def history(
    db: Executor,
    endpoint_id: str,
    *,
    limit: int,
    before: datetime | None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[ServiceStatus]:
    """At most ``limit`` stored checks of an endpoint, newest first, all from before the time ``before``.

    ``since`` (inclusive) and ``until`` (exclusive) bound the period. Deleted endpoints keep their history.
    """
    lately = min(before or until or now(), until or before or now()) - MOSTLY_WITHIN
    found: list[rows.Row] = []
    if since is None or since < lately:
        found = await db.fetch(_HISTORY, endpoint_id, before, lately, until, limit)
    if len(found) < limit:
        found = await db.fetch(_HISTORY, endpoint_id, before, since, until, limit)
    return [status_rows.service_status(row) for row in found]


async def latest(db: Executor, endpoint_id: str) -> ServiceStatus | None:
    """The newest stored check of an endpoint, whoever asked for it."""
    found = await history(db, endpoint_id, limit=1, before=None)
    return found[0] if found else None


# The window is long enough for the counters, which expire after three intervals, and for loss over five checks; where
# anything but good first attempts lies in the last twenty, all of those, for flapping and intermittence. The newest
# result says what was last seen even where the daemon stood still for hours. A day bounds the partitions looked at.
_RECENT_RESULTS = """
select r.*, e.id as endpoint_id
from service_endpoint e
cross join observer o
cross join lateral (
    select s.timestamp from service_status_row s
    where s.endpoint_key = e.key and s.observer = o.number and s.source = 0
    and s.timestamp > now() - interval '1 day'
    order by s.timestamp desc
    limit 1
) newest
cross join lateral (
    select *, bool_or(status <> 'UP' or attempts > 1) over () as troubled, row_number() over () as age
    from (
        select s.timestamp, s.endpoint_key, s.status, s.response_time, s.attempts, s.failure_kind, s.error_message,
            s.source, case when s.details ? 'packets_sent' then s.details end as details
        from service_status_row s
        where s.endpoint_key = e.key and s.observer = o.number and s.source = 0
        and s.timestamp > now() - interval '1 day'
        and s.timestamp >= least(newest.timestamp, now() - greatest(20 * e.check_interval, 60) * interval '1 second')
        order by s.timestamp desc
        limit 80
    ) recent
) r
where (r.troubled or r.age = 1 or (r.age <= 5 and r.details is not null)) and e.is_active and e.archived_at is null
order by r.timestamp
"""


async def recent_results(db: Executor) -> list[CheckResult]:
    """What the state of the active endpoints is rebuilt from, oldest first: scheduled results only.

    Of each endpoint the newest one of the last day, and its last five where they count packets; those of its last
    twenty intervals, at most 80, where any of them was not good at the first attempt. Phases are left out, and details
    but for packets.
    """
    return [status_rows.check_result(row) for row in await db.fetch(_RECENT_RESULTS)]


_LAST_STATUSES = """
select e.id, coalesce((
    select r.status
    from observer o
    cross join lateral (
        select s.timestamp, s.status from service_status_row s
        where s.endpoint_key = e.key and s.observer = o.number
        order by s.timestamp desc
        limit 1
    ) r
    order by r.timestamp desc
    limit 1
), 'UNKNOWN') as status
from service_endpoint e
where e.is_active and e.archived_at is null
"""


async def last_statuses(db: Executor) -> dict[str, Status]:
    """The status of each active endpoint by its newest stored check, UNKNOWN where there is none."""
    return {row["id"]: status_rows.STATUSES[row["status"]] for row in await db.fetch(_LAST_STATUSES)}


@dataclass(frozen=True, slots=True)
class Standing:
    """An endpoint's newest stored check, whoever asked for it, and how many scheduled ones failed in a row."""

    status: Status
    timestamp: datetime
    response_time: float | None
    failure_kind: FailureKind | None
    error_message: str | None
    failures: int


# Far enough back for any threshold people set; a longer run of failures is shown as this many.
COUNTED_FAILURES = 100
# UNKNOWN neither adds to nor breaks a run, and what a person asked for (source 1) counts for nothing.
_STANDINGS = f"""
select distinct on (e.id) e.id as endpoint_id, r.*,
    count(*) filter (where r.source = 0 and r.status = 'DOWN' and not r.broken) over (partition by e.id) as failures
from service_endpoint e
cross join lateral (
    select s.*, bool_or(s.source = 0 and s.status in ('UP', 'DEGRADED')) over (order by s.timestamp desc) as broken
    from observer o
    cross join lateral (
        select timestamp, status, response_time, failure_kind, error_message, source from service_status_row
        where endpoint_key = e.key and observer = o.number
        order by timestamp desc
        limit {COUNTED_FAILURES}
    ) s
    order by s.timestamp desc
    limit {COUNTED_FAILURES}
) r
where e.id = any($1::text[])
order by e.id, r.timestamp desc
"""  # noqa: S608 - only a number of ours stands in it


async def standings(db: Executor, endpoint_ids: Sequence[str]) -> dict[str, Standing]:
    """How the checks of these endpoints stand, by id; without those that were never checked."""
    return {
        row["endpoint_id"]: Standing(
            status=status_rows.STATUSES[row["status"]],
            timestamp=row["timestamp"],
            response_time=rows.seven_digits(row["response_time"]),
            failure_kind=status_rows.FAILURE_KINDS[row["failure_kind"]],
            error_message=row["error_message"],
            failures=row["failures"],
        )
        for row in await db.fetch(_STANDINGS, endpoint_ids)
    }


_FAILING_SINCE = """
select asked.id, max(s.timestamp) filter (where s.begins) as failing_since
from unnest($1::text[], $2::timestamptz[]) asked(id, since)
join service_endpoint e on e.id = asked.id
cross join lateral (
    select coalesce(max(g.timestamp), '-infinity') as at from service_status_row g
    where g.endpoint_key = e.key and g.timestamp >= asked.since and g.source = 0 and g.status in ('UP', 'DEGRADED')
) good
cross join lateral (
    select b.timestamp, coalesce(
        b.timestamp - lag(b.timestamp) over (order by b.timestamp) > $3 * e.check_interval * interval '1 second', true
    ) as begins
    from service_status_row b
    where b.endpoint_key = e.key and b.timestamp >= asked.since and b.timestamp > good.at
    and b.source = 0 and b.status = 'DOWN'
) s
group by asked.id
"""


async def failing_since(db: Executor, since: Mapping[str, datetime], patience: int) -> dict[str, datetime]:
    """The first failure of the present run of each of these endpoints, looked for from that time on.

    A run begins after a good check, or where for more than ``patience`` intervals there was no failure either.
    """
    if not since:
        return {}
    found = await db.fetch(_FAILING_SINCE, list(since), list(since.values()), patience)
    return {row["id"]: row["failing_since"] for row in found}
