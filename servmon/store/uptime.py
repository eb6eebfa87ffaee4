"""What an endpoint's uptime is computed from: when it was out, and when nobody saw it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from servmon.store.pool import Executor

# Degraded is available: an outage that degradation opened counts from the moment it became a failure, if ever.
_OUTAGES = """
select id::text, counted_from as start, coalesce(resolved_at, $3) as end
from service_outage o
cross join lateral (
    select case when o.evidence ->> 'opened_by' = 'degraded'
        then (select min(at) from state_change where outage_id = o.id and new_state = 'down')
        else o.start_time end as counted_from
) c
where endpoint_id = $1 and excluded_reason is null and counted_from < $3 and coalesce(resolved_at, $3) > $2
order by counted_from
"""


async def outages_between(
    db: Executor, endpoint_id: str, since: datetime, until: datetime
) -> list[tuple[str, datetime, datetime]]:
    """The ids and times of the endpoint's outages that touch the period and count; an open one lasts until its end."""
    return [(row["id"], row["start"], row["end"]) for row in await db.fetch(_OUTAGES, endpoint_id, since, until)]


@dataclass(frozen=True, slots=True)
class Seen:
    """``gaps`` are the times about which nothing is known; the counts are of scheduled checks that are kept."""

    gaps: list[tuple[datetime, datetime]]
    good: int
    bad: int


# Raw results tell exactly, for as long as they are kept. Of earlier days the recorded changes tell: to unknown (but
# where a person closed an outage), and the times in which we ourselves were isolated.
_KEPT_SINCE = """
select greatest(min(to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD')),
    (select dropped_before from retention_setting where what = 'results'))::timestamp at time zone 'UTC'
from pg_inherits where inhparent = 'service_status_row'::regclass
"""

# A result speaks for the time until the next one, for at most $4. The row before the first speaks up to the beginning.
_GAPS = """
with said as (
    select $2::timestamptz - $4::interval as timestamp, 'UP'::service_status_type as status
    union all
    select timestamp, status from service_status_row
    where endpoint_key = (select key from service_endpoint where id = $1) and source = 0
    and timestamp >= $2::timestamptz - $4::interval and timestamp < $3
), followed as (
    select timestamp, status, lead(timestamp, 1, $3) over (order by timestamp) as next from said
)
select case when status = 'UNKNOWN' then timestamp else timestamp + $4::interval end as start, next as end
from followed
where status = 'UNKNOWN' or next > timestamp + $4::interval
"""

_COUNTS = """
select count(*) filter (where status in ('UP', 'DEGRADED')) as good, count(*) filter (where status = 'DOWN') as bad
from service_status_row
where endpoint_key = (select key from service_endpoint where id = $1) and source = 0
and timestamp >= $2 and timestamp < $3
"""

_RECORDED_GAPS = """
select at as start, next as end from (
    select at, old_state, new_state, lead(at, 1, $3) over (order by at, seq) as next
    from state_change where endpoint_id = $1 and at < $3
) c where new_state = 'unknown' and old_state <> 'down' and next > $2
union all
select at, next from (
    select at, kind, lead(at, 1, $3) over (order by at, seq) as next
    from event where kind in ('isolated', 'connected') and at < $3
) e where kind = 'isolated' and next > $2
union all
select $2, least(created_at, $3) from service_endpoint where id = $1 and created_at > $2
"""


async def seen_between(db: Executor, endpoint_id: str, since: datetime, until: datetime, patience: timedelta) -> Seen:
    """What is known of the period; a result speaks for the time until the next one, for at most ``patience``."""
    kept_since = min(max(await db.fetchval(_KEPT_SINCE) or until, since), until)
    found = await db.fetch(_GAPS, endpoint_id, kept_since, until, patience) if kept_since < until else []
    if since < kept_since:
        found += await db.fetch(_RECORDED_GAPS, endpoint_id, since, kept_since)
    counts = await db.fetchrow(_COUNTS, endpoint_id, since, until)
    return Seen([(row["start"], row["end"]) for row in found], counts["good"], counts["bad"])
