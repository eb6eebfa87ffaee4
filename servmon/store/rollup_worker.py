"""Sums single results up: of each endpoint its hours and its UTC days, exactly once, late results included.

Whoever stores results notes their hours in ``rollup_due``, in the same transaction (``batch.write``). An hour is summed
up once it is over and calm, always anew and from all of its results, so any number of workers may do so any number of
times. A note is taken away only after that; one that came meanwhile stays, and so does everything after a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.store.partitions import insist
from servmon.store.pool import Connection, Pool, transaction
from servmon.store.rollups import FIGURES, LENGTHS, PACKETS, TABLES, Period

ROUND_SECONDS = 60.0
# Results of the last checks of an hour are stored a moment after its end.
SETTLE = timedelta(seconds=60)
# What is replayed for minutes is summed up when it pauses, and now and then meanwhile.
PATIENCE = timedelta(minutes=15)
# How many results one statement sums up, about: it takes some tenths of a second of one core.
RESULTS_AT_ONCE = 200_000
FEWEST_ENDPOINTS_AT_ONCE = 10
# Between two statements others have their turn: what is summed up is hours old in any case.
PAUSE_SECONDS = 0.05
_LOCK_KEY = 0x5E72_4D6F_6E02

# For each endpoint and observer one scan of the index, in the one partition that holds the period ("offset 0" keeps the
# planner from anything else). Of days whose results were deleted nothing is summed up again.
_SUM_UP = """
insert into {table} as known (
    start, endpoint_key, up, degraded, down, unknown, response_time_min, response_time_avg, response_time_p50,
    response_time_p95, response_time_p99, response_time_max, loss_percent)
select $1, e.key, up, degraded, down, unknown, response_time_min, response_time_avg, percentiles[1],
    percentiles[2], percentiles[3], response_time_max, loss_percent
from unnest($3::int[]) e(key)
cross join lateral (
    select {figures}
    from observer o
    cross join lateral (
        select status, response_time, {packets}
        from service_status_row
        where endpoint_key = e.key and observer = o.number and timestamp >= $1 and timestamp < $2 and source = 0
        offset 0
    ) s
    having count(*) > 0
) figures
where not exists (
    select from retention_setting where what = 'results' and $1 < dropped_before::timestamp at time zone 'UTC'
)
on conflict (endpoint_key, start) do update set
    up = excluded.up, degraded = excluded.degraded, down = excluded.down, unknown = excluded.unknown,
    response_time_min = excluded.response_time_min, response_time_avg = excluded.response_time_avg,
    response_time_p50 = excluded.response_time_p50, response_time_p95 = excluded.response_time_p95,
    response_time_p99 = excluded.response_time_p99, response_time_max = excluded.response_time_max,
    loss_percent = excluded.loss_percent
"""

_SUM_UP_PERIOD = {
    period: _SUM_UP.format(table=table, figures=FIGURES, packets=PACKETS) for period, table in TABLES.items()
}

# A day waits for all of its hours.
_DUE = """
select start, array_agg(id) as ids
from rollup_due d
where period = $1 and start <= $2 and not (
    $1 = 'day' and exists (
        select from rollup_due h
        where h.period = 'hour' and h.start >= d.start and h.start < d.start + interval '1 day'
    )
)
group by start
having max(marked_at) < now() - $3::interval or min(marked_at) < now() - $4::interval
order by start
"""

_DONE = """
delete from rollup_due where id = any($1::bigint[])
"""

_MARK_DAY = """
insert into rollup_due (period, start) values ('day', date_trunc('day', $1::timestamptz, 'UTC'))
"""

_KEYS = """
select key from service_endpoint where key > $1 order by key limit $2
"""

_ENSURE_MONTH = """
set local lock_timeout = '200ms'; select ensure_hourly_partition('{day}')
"""

# Of one moment's sessions only one may pass; it sees what all before it have committed.
_TRY_LOCK = """
select pg_try_advisory_xact_lock($1)
"""

_RESULTS_OF_AN_ENDPOINT = """
select 3600 / greatest(min(check_interval), 1) from service_endpoint where is_active and archived_at is null
"""


@dataclass(frozen=True, slots=True)
class Due:
    """An hour or a day to be summed up, and the notes that say so."""

    period: Period
    start: datetime
    ids: Sequence[int]

    @property
    def end(self) -> datetime:
        """Its first moment no longer."""
        return self.start + LENGTHS[self.period]


async def follow(pool: Pool, clock: Clock = SYSTEM_CLOCK) -> None:
    """Sum up what is due, once a minute, for ever."""
    while True:
        await sum_up_due(pool, now(clock))
        await asyncio.sleep(ROUND_SECONDS)


async def sum_up_due(pool: Pool, at: datetime, *, settle: timedelta = SETTLE) -> int:
    """Sum up the hours and days that were over at ``at`` and are calm; returns how many of them.

    Where another one is at it, what is left is theirs.
    """
    done = 0
    for period in Period:  # hours first: days wait for them
        async with pool.acquire() as connection:
            for due in await _due(connection, period, at, settle):
                if not await _sum_up(connection, due):
                    return done
                done += 1
    return done


async def _due(connection: Connection, period: Period, at: datetime, settle: timedelta) -> list[Due]:
    over_since = at - LENGTHS[period] - settle
    found = await connection.fetch(_DUE, period, over_since, settle, PATIENCE)
    return [Due(period, row["start"], row["ids"]) for row in found]


async def _sum_up(connection: Connection, due: Due) -> bool:
    """Whether all endpoints' results of ``due`` are summed up now; not where another one is at it."""
    if due.period is Period.HOUR:
        await insist(
            connection, _ENSURE_MONTH.format(day=due.start.date()), f"make room for the hours of {due.start:%Y-%m}"
        )
    at_once = await _endpoints_at_once(connection, due.period)
    last = 0
    while keys := [row["key"] for row in await connection.fetch(_KEYS, last, at_once)]:
        async with transaction(connection):
            if not await connection.fetchval(_TRY_LOCK, _LOCK_KEY):
                return False
            await connection.execute(_SUM_UP_PERIOD[due.period], due.start, due.end, keys)
        last = keys[-1]
        await asyncio.sleep(PAUSE_SECONDS)
    async with transaction(connection):
        if due.period is Period.HOUR:
            await connection.execute(_MARK_DAY, due.start)
        await connection.execute(_DONE, due.ids)
    return True


async def _endpoints_at_once(connection: Connection, period: Period) -> int:
    a_hour = await connection.fetchval(_RESULTS_OF_AN_ENDPOINT) or 60
    hours = LENGTHS[period] // LENGTHS[Period.HOUR]
    return max(FEWEST_ENDPOINTS_AT_ONCE, RESULTS_AT_ONCE // (a_hour * hours))


_MARK = """
insert into rollup_due (period, start) select 'hour', unnest($1::timestamptz[])
"""


async def mark(connection: Connection, moments: Sequence[datetime]) -> None:
    """Note, in the transaction that stores them, that there are results of these UTC ``moments``."""
    # Nearly always all of one hour; looking at each would cost more than storing the note.
    hours = {_hour_of(min(moments)), _hour_of(max(moments))}
    if len(hours) > 1:
        hours = {_hour_of(moment) for moment in moments}
    await connection.execute(_MARK, list(hours))


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
