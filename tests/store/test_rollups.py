"""Hours and days of results: exact, once, whatever comes late and whoever sums up."""

from __future__ import annotations

import asyncio
import statistics
from datetime import UTC, date, datetime, timedelta
from random import Random

import pytest

from servmon.model import CheckSource, Status
from servmon.store import endpoints, rollup_worker, rollups, statuses
from servmon.store.partitions import ensure_partitions
from servmon.store.pool import connect
from servmon.store.rollup_worker import sum_up_due
from servmon.store.rollups import Period
from tests.store.seeds import endpoint, result, store

DAY = datetime(2026, 3, 1, tzinfo=UTC)
NOON = DAY + timedelta(hours=12)
HOUR = timedelta(hours=1)
LATER = DAY + timedelta(days=40)
NO_SETTLE = timedelta(0)


@pytest.fixture
async def watched(db):
    return await endpoints.insert(db, endpoint("a", check_interval=60))


async def sum_up(db, at=LATER) -> int:
    """As if what was just stored had been calm for a minute."""
    return await sum_up_due(db, at, settle=NO_SETTLE)


async def history(db, period=Period.HOUR, *, since=None, before=LATER, limit=1000, present=LATER, endpoint_id="a"):
    return await rollups.history(db, endpoint_id, period, limit=limit, since=since, before=before, present=present)


async def test_an_hour_is_what_its_results_amount_to(db, database, watched):
    random = Random(7)
    times = [random.uniform(5, 500) for _ in range(57)]
    stored = [
        result(watched, Status.UP, NOON + number * timedelta(minutes=1), response_time=took)
        for number, took in enumerate(times)
    ]
    stored += [
        result(watched, Status.DOWN, NOON + timedelta(minutes=57)),
        result(watched, Status.DEGRADED, NOON + timedelta(minutes=58), response_time=900.0),
        result(watched, Status.UNKNOWN, NOON + timedelta(minutes=59)),
        result(watched, Status.DOWN, NOON + timedelta(minutes=30, seconds=1), source=CheckSource.MANUAL),
    ]
    await store(database, *stored)
    assert await sum_up(db) == 2
    (hour,) = await history(db)
    assert (hour.start, hour.end) == (NOON, NOON + HOUR)
    assert (hour.up, hour.degraded, hour.down, hour.unknown) == (57, 1, 1, 1)
    times.append(900.0)
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    expected = [min(times), statistics.fmean(times), cuts[49], cuts[94], cuts[98], max(times)]
    found = [
        hour.response_time_min,
        hour.response_time_avg,
        hour.response_time_p50,
        hour.response_time_p95,
        hour.response_time_p99,
        hour.response_time_max,
    ]
    assert found == pytest.approx(expected, rel=1e-6)
    assert hour.loss_percent is None
    (day,) = await history(db, Period.DAY)
    assert (day.start, day.up, day.down, day.response_time_p95) == (DAY, 57, 1, hour.response_time_p95)


async def test_loss_is_of_all_packets_and_odd_details_do_no_harm(db, database, watched):
    packets = [{"packets_sent": 5, "packets_received": 5}, {"packets_sent": 5, "packets_received": 2}]
    odd = [{"packets_sent": "many"}, {"packets_sent": None, "packets_received": [1]}, None]
    await store(
        database,
        *(
            result(watched, timestamp=NOON + timedelta(minutes=number), details=details)
            for number, details in enumerate([*packets, *odd])
        ),
    )
    await sum_up(db)
    (hour,) = await history(db)
    assert (hour.up, hour.loss_percent) == (5, 30.0)


async def test_an_hour_belongs_to_its_utc_hour_and_no_other(db, database, watched):
    edges = [NOON - timedelta(microseconds=1), NOON, NOON + HOUR - timedelta(microseconds=1), NOON + HOUR]
    await store(database, *(result(watched, timestamp=moment) for moment in edges))
    await sum_up(db)
    assert [(hour.start, hour.up) for hour in await history(db)] == [(NOON + HOUR, 1), (NOON, 2), (NOON - HOUR, 1)]


async def test_the_running_hour_waits_and_so_does_the_running_day(db, database, watched):
    await store(database, result(watched, timestamp=NOON))
    assert await sum_up(db, NOON + HOUR - timedelta(seconds=1)) == 0
    assert await sum_up(db, NOON + HOUR + timedelta(seconds=1)) == 1
    assert await db.fetchval("select count(*) from service_status_daily") == 0
    assert await sum_up(db, DAY + timedelta(days=1, seconds=1)) == 1
    assert await db.fetchval("select count(*) from rollup_due") == 0
    assert await sum_up(db) == 0


async def test_what_just_arrived_is_given_a_minute_to_be_followed_by_more(db, database, watched):
    await store(database, result(watched, timestamp=NOON))
    assert await sum_up_due(db, LATER) == 0
    await db.execute("update rollup_due set marked_at = marked_at - interval '61 s'")
    await store(database, result(watched, timestamp=NOON + timedelta(minutes=1)))
    assert await sum_up_due(db, LATER) == 0
    await db.execute("update rollup_due set marked_at = marked_at - interval '15 min' where id = 1")
    assert await sum_up_due(db, LATER) == 1  # though more keeps coming


async def test_what_comes_days_later_is_counted_in_its_hour_and_day(db, database, watched):
    await store(database, *(result(watched, timestamp=NOON + number * timedelta(minutes=1)) for number in range(3)))
    await sum_up(db)
    late = [result(watched, Status.DOWN, NOON + timedelta(minutes=10)), result(watched, timestamp=NOON - 5 * HOUR)]
    again = result(watched, timestamp=NOON)  # as a replay brings it: it is there already
    await store(database, *late, again)
    assert await sum_up(db) == 3
    assert [(hour.start, hour.up, hour.down) for hour in await history(db)] == [(NOON, 3, 1), (NOON - 5 * HOUR, 1, 0)]
    assert [(day.up, day.down) for day in await history(db, Period.DAY)] == [(4, 1)]


async def test_a_result_that_is_committed_while_its_hour_is_summed_up_is_not_forgotten(db, database, watched):
    await store(database, result(watched, timestamp=NOON))
    slow = await connect(database)
    writing = slow.transaction()
    await writing.start()
    await slow.execute(
        "insert into service_status_row (timestamp, endpoint_key, status, observer, attempts)"
        " values ($1, $2, 'DOWN', 1, 1)",
        NOON + timedelta(minutes=1),
        watched.key,
    )
    await rollup_worker.mark(slow, [NOON + timedelta(minutes=1)])
    assert await sum_up(db) == 2
    assert [(hour.up, hour.down) for hour in await history(db)] == [(1, 0)]
    await writing.commit()
    await slow.close()
    assert await sum_up(db) == 2
    assert [(hour.up, hour.down) for hour in await history(db)] == [(1, 1)]


async def test_a_crash_half_way_is_made_good_by_the_next_round(db, database, watched, monkeypatch):
    others = [await endpoints.insert(db, endpoint(name)) for name in "bcd"]
    await store(database, *(result(one, timestamp=NOON) for one in [watched, *others]))
    monkeypatch.setattr(rollup_worker, "FEWEST_ENDPOINTS_AT_ONCE", 1)
    monkeypatch.setattr(rollup_worker, "RESULTS_AT_ONCE", 1)
    sleeps = iter([None, None])

    async def die(_seconds):
        next(sleeps)

    with monkeypatch.context() as broken:
        broken.setattr(rollup_worker.asyncio, "sleep", die)
        with pytest.raises(RuntimeError):
            await sum_up(db)
    assert 0 < await db.fetchval("select count(*) from service_status_hourly") < 4
    assert await sum_up(db) == 2
    assert await db.fetchval("select count(*) from service_status_hourly") == 4
    assert await db.fetchval("select sum(up) from service_status_hourly") == 4
    assert await db.fetchval("select sum(up) from service_status_daily") == 4


async def test_workers_at_once_neither_lose_nor_double_nor_fail(db, database, watched):
    days = [DAY + timedelta(days=number) for number in range(2)]
    await ensure_partitions(db, [day.date() for day in days])
    others = [watched, *[await endpoints.insert(db, endpoint(name)) for name in ("b", "c")]]
    moments = [day + number * timedelta(minutes=7) for day in days for number in range(205)]

    async def write() -> None:
        for begin in range(0, len(moments), 40):
            chosen = moments[begin : begin + 40]
            await store(database, *(result(one, timestamp=moment) for moment in chosen for one in others))

    async def work() -> None:
        for _ in range(12):
            await sum_up(db)

    await asyncio.gather(write(), work(), work(), work())
    while await db.fetchval("select count(*) from rollup_due"):
        await sum_up(db)
    for table in ("service_status_hourly", "service_status_daily"):
        counted = await db.fetch(f"select endpoint_key, sum(up) as up from {table} group by 1")
        assert {row["endpoint_key"]: row["up"] for row in counted} == {one.key: len(moments) for one in others}


async def test_of_deleted_days_nothing_is_summed_up_again(db, database, watched):
    await store(database, *(result(watched, timestamp=NOON + number * timedelta(minutes=1)) for number in range(3)))
    await sum_up(db)
    await db.execute("insert into retention_setting values (30, 30, now(), 'results', '2026-03-02')")
    await db.execute("drop table service_status_row_20260301")
    await store(database, result(watched, timestamp=NOON + timedelta(minutes=30)))
    await sum_up(db)
    assert [hour.up for hour in await history(db)] == [3]
    assert [day.up for day in await history(db, Period.DAY)] == [3]
    assert await db.fetchval("select count(*) from rollup_due") == 0


async def test_what_runs_and_what_waits_is_read_from_the_results(db, database, watched):
    present = NOON + timedelta(minutes=30)
    moments = [NOON - 3 * HOUR, NOON - 2 * HOUR, NOON - HOUR, NOON, NOON + timedelta(minutes=29)]
    await store(database, *(result(watched, timestamp=moment) for moment in moments))
    await sum_up(db, NOON - 2 * HOUR)
    assert await db.fetchval("select count(*) from service_status_hourly") == 1
    found = await history(db, present=present, before=present)
    assert [(hour.start, hour.up) for hour in found] == [
        (NOON, 2),
        (NOON - HOUR, 1),
        (NOON - 2 * HOUR, 1),
        (NOON - 3 * HOUR, 1),
    ]
    bounded = await history(db, present=present, since=NOON - 2 * HOUR, before=NOON, limit=1)
    assert [hour.start for hour in bounded] == [NOON - HOUR]
    assert [day.up for day in await history(db, Period.DAY, present=present, before=present)] == [5]
    assert await history(db, endpoint_id="nobody") == []


async def test_hours_lie_in_their_month_whoever_makes_it(db, database, watched):
    edge = datetime(2026, 3, 31, 23, 59, tzinfo=UTC)
    await store(database, *(result(watched, timestamp=edge + number * timedelta(minutes=1)) for number in range(2)))
    await sum_up(db)
    for month, starts in (("202603", [edge.replace(minute=0)]), ("202604", [datetime(2026, 4, 1, tzinfo=UTC)])):
        found = await db.fetch(f"select start from service_status_hourly_{month}")
        assert [row["start"] for row in found] == starts
    months = [date(2027, month, 15) for month in (1, 2, 3)]
    connections = [await connect(database) for _ in range(4)]
    await asyncio.gather(
        *(
            connection.execute("select ensure_hourly_partition(day) from unnest($1::date[]) day", months)
            for connection in connections
        )
    )
    for connection in connections:
        await connection.close()


async def test_a_manual_check_leaves_nothing_to_sum_up(db, watched):
    await statuses.insert_manual(db, result(watched, timestamp=NOON, source=CheckSource.MANUAL), 1)
    assert await db.fetchval("select count(*) from rollup_due") == 0
