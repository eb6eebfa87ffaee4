"""What an endpoint's results amount to: its hours and its UTC days, read. ``rollup_worker`` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from servmon.store import rows
from servmon.store.pool import Executor


class Period(StrEnum):
    """What results are summed up over."""

    HOUR = "hour"
    DAY = "day"


LENGTHS = {Period.HOUR: timedelta(hours=1), Period.DAY: timedelta(days=1)}
TABLES = {Period.HOUR: "service_status_hourly", Period.DAY: "service_status_daily"}
# What is not summed up yet is read from the results themselves, but only of late: it should not be much.
UNSUMMED = {Period.HOUR: timedelta(hours=6), Period.DAY: timedelta(days=3)}

FIGURES = """
    count(*) filter (where s.status = 'UP') as up,
    count(*) filter (where s.status = 'DEGRADED') as degraded,
    count(*) filter (where s.status = 'DOWN') as down,
    count(*) filter (where s.status = 'UNKNOWN') as unknown,
    min(s.response_time) as response_time_min,
    avg(s.response_time) as response_time_avg,
    percentile_cont(array[0.5, 0.95, 0.99]) within group (order by s.response_time) as percentiles,
    max(s.response_time) as response_time_max,
    100 * (1 - sum(s.packets_received) / nullif(sum(s.packets_sent), 0)) as loss_percent
"""

# A plug-in's details may hold anything under these names.
PACKETS = """
    case when jsonb_typeof(details -> 'packets_sent') = 'number'
        then (details -> 'packets_sent')::double precision end as packets_sent,
    case when jsonb_typeof(details -> 'packets_received') = 'number'
        then (details -> 'packets_received')::double precision end as packets_received
"""


@dataclass(frozen=True, slots=True)
class Rollup:
    """One period of one endpoint: how many scheduled checks ended how, and their response times in milliseconds.

    ``loss_percent`` is of the packets that its checks sent. What no check told is ``None``.
    """

    period: Period
    start: datetime
    up: int
    degraded: int
    down: int
    unknown: int
    response_time_min: float | None
    response_time_avg: float | None
    response_time_p50: float | None
    response_time_p95: float | None
    response_time_p99: float | None
    response_time_max: float | None
    loss_percent: float | None

    @property
    def end(self) -> datetime:
        """Its first moment no longer."""
        return self.start + LENGTHS[self.period]


_STORED = """
select start, up, degraded, down, unknown, response_time_min, response_time_avg,
    array[response_time_p50, response_time_p95, response_time_p99] as percentiles, response_time_max, loss_percent
from {table}
where endpoint_key = (select key from service_endpoint where id = $1)
and start >= coalesce($2::timestamptz, '-infinity') and start < $3
order by start desc
limit $4
"""
_STORED_OF = {period: _STORED.format(table=table) for period, table in TABLES.items()}

_FRESH = f"""
select date_trunc($4, timestamp, 'UTC') as start, {FIGURES}
from observer o
cross join lateral (
    select timestamp, status, response_time, {PACKETS}
    from service_status_row
    where endpoint_key = (select key from service_endpoint where id = $1) and observer = o.number
    and timestamp >= $2 and timestamp < $3 and source = 0
    offset 0
) s
group by 1
order by 1 desc
"""  # noqa: S608 - made of the constants above

_LAST = """
select max(start) from {table} where endpoint_key = (select key from service_endpoint where id = $1) and start >= $2
"""
_LAST_OF = {period: _LAST.format(table=table) for period, table in TABLES.items()}


async def history(
    db: Executor,
    endpoint_id: str,
    period: Period,
    *,
    limit: int,
    since: datetime | None,
    before: datetime,
    present: datetime,
) -> list[Rollup]:
    """At most ``limit`` hours or days of an endpoint in which it was checked, newest first.

    They begin at ``since`` or later and before ``before``; the last one, still running at ``present``, is as it stands.
    """
    fresh = await _unsummed(db, endpoint_id, period, since, before, present)
    stored = await db.fetch(_STORED_OF[period], endpoint_id, since, before, limit)
    starts = {row["start"] for row in stored}  # summed up between the two queries
    return [_rollup(period, row) for row in (*(row for row in fresh if row["start"] not in starts), *stored)][:limit]


async def _unsummed(
    db: Executor, endpoint_id: str, period: Period, since: datetime | None, before: datetime, present: datetime
) -> list[rows.Row]:
    length = LENGTHS[period]
    earliest = start_of(period, present - UNSUMMED[period])
    last = await db.fetchval(_LAST_OF[period], endpoint_id, earliest)
    begin = max(last + length if last else earliest, since or earliest)
    end = start_of(period, before - timedelta(microseconds=1)) + length
    if begin >= end:
        return []
    return list(await db.fetch(_FRESH, endpoint_id, begin, end, period))


def start_of(period: Period, moment: datetime) -> datetime:
    """The beginning of the UTC hour or day that ``moment`` lies in."""
    start = moment.replace(minute=0, second=0, microsecond=0)
    return start if period is Period.HOUR else start.replace(hour=0)


def _rollup(period: Period, row: rows.Row) -> Rollup:
    p50, p95, p99 = row["percentiles"] or (None, None, None)
    return Rollup(
        period=period,
        start=row["start"],
        up=row["up"],
        degraded=row["degraded"],
        down=row["down"],
        unknown=row["unknown"],
        response_time_min=rows.seven_digits(row["response_time_min"]),
        response_time_avg=rows.seven_digits(row["response_time_avg"]),
        response_time_p50=rows.seven_digits(p50),
        response_time_p95=rows.seven_digits(p95),
        response_time_p99=rows.seven_digits(p99),
        response_time_max=rows.seven_digits(row["response_time_max"]),
        loss_percent=rows.seven_digits(row["loss_percent"]),
    )


_DROPPED = """
select what, dropped_before from retention_setting where what in ('results', 'hours')
"""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The UTC days before which single results, and hours, were deleted; ``None`` where none ever were."""

    results: date | None
    hours: date | None


async def dropped(db: Executor) -> Dropped:
    """What retention has deleted so far."""
    days = {row["what"]: row["dropped_before"] for row in await db.fetch(_DROPPED)}
    return Dropped(days.get("results"), days.get("hours"))
