"""Room for the results of the days to come, and an end for those of the days gone by."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest

from servmon.clock import now
from servmon.errors import StoreUnavailableError
from servmon.store import endpoints, partitions, retention
from servmon.store.partitions import days_present, drop, ensure_partitions
from servmon.store.retention import Retention, keep_once, keep_records, settle
from servmon.store.settings import CleanupSection
from servmon.tasks import cancel, spawn
from tests.fix_servers import patience
from tests.store.seeds import endpoint, result, store

DAY = date(2030, 1, 31)
WANTED = "select wanted_days from (select pg_sleep(0.01)) p, retention_setting where what = 'results'"
START = datetime(2030, 6, 15, 23, 59, tzinfo=UTC)


class StandingClock:
    """Shows what it is set to."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def wall(self) -> float:
        return self.at.timestamp()

    def monotonic(self) -> float:
        return (self.at - START).total_seconds()


def days_of(first: date, number: int) -> list[date]:
    return [first + timedelta(days=n) for n in range(number)]


async def test_a_day_holds_what_lies_in_it_by_utc(db):
    await ensure_partitions(db, [DAY, DAY + timedelta(days=1)])
    bounds = await db.fetch(
        "select relname, pg_get_expr(relpartbound, oid) as bound from pg_class"
        " where relname like 'service\\_status\\_row\\_2030%' and relkind = 'r' order by relname"
    )
    assert [tuple(row) for row in bounds] == [
        ("service_status_row_20300131", "FOR VALUES FROM ('2030-01-31 00:00:00+00') TO ('2030-02-01 00:00:00+00')"),
        ("service_status_row_20300201", "FOR VALUES FROM ('2030-02-01 00:00:00+00') TO ('2030-02-02 00:00:00+00')"),
    ]


async def test_any_number_of_daemons_make_the_same_days_at_once(db):
    days = days_of(DAY, 4)
    await asyncio.gather(*(ensure_partitions(db, days) for _ in range(8)))
    assert await days_present(db) == days


async def test_a_day_is_dropped_with_its_results_and_no_others(db, database):
    await ensure_partitions(db, days_of(DAY, 3))
    stored = await endpoints.insert(db, endpoint("a"))
    moments = [datetime(2030, 1, 31, 23, 59, 59, tzinfo=UTC), datetime(2030, 2, 1, tzinfo=UTC)]
    await store(database, *(result(stored, timestamp=moment) for moment in moments))
    await drop(db, [DAY])
    assert await days_present(db) == days_of(date(2030, 2, 1), 2)
    assert [row["timestamp"] for row in await db.fetch("select timestamp from service_status")] == moments[1:]


async def test_a_table_that_is_not_a_day_is_left_alone(db):
    await db.execute(
        "create table service_status_row_archive partition of service_status_row for values from ('1990-01-01')"
        " to ('1991-01-01')"
    )
    await keep_once(db, CleanupSection(retention_days=1), StandingClock(START))
    assert await db.fetchval("select to_regclass('service_status_row_archive')") is not None


async def test_a_reader_delays_the_drop_and_the_drop_delays_nobody_for_long(db, database):
    await ensure_partitions(db, days_of(DAY, 2))
    stored = await endpoints.insert(db, endpoint("a"))
    async with db.acquire() as reader:
        reading = reader.transaction()
        await reading.start()
        await reader.fetch("select * from service_status_row")
        dropping = spawn(drop(db, [DAY]), name="dropping")
        async with patience():  # whoever had to wait for the drop would wait for the reader
            for hour in range(10):
                await store(database, result(stored, timestamp=datetime(2030, 2, 1, hour, tzinfo=UTC)))
        assert not dropping.done()
        await reading.rollback()
    await dropping
    assert await days_present(db) == [DAY + timedelta(days=1)]
    assert await db.fetchval("select count(*) from service_status_row") == 10


async def test_a_day_that_stays_in_use_is_given_up_for_now(db, monkeypatch):
    monkeypatch.setattr(partitions, "TRIES", 2)
    await ensure_partitions(db, [DAY])
    async with db.acquire() as reader, reader.transaction():
        await reader.fetch("select * from service_status_row")
        with pytest.raises(StoreUnavailableError, match="cannot drop the partition of 2030-01-31"):
            await drop(db, [DAY])
    assert await days_present(db) == [DAY]


async def test_a_drop_leaves_the_connection_as_it_was(db):
    async with db.acquire() as connection:
        await ensure_partitions(connection, [DAY])
        await drop(connection, [DAY])
        assert await connection.fetchval("show lock_timeout") == "0"


async def test_a_day_is_dropped_in_a_moment_whatever_it_holds(db):
    await ensure_partitions(db, [DAY])
    await db.execute(
        "insert into service_status_row (timestamp, endpoint_key, status, observer, attempts)"
        " select '2030-01-31 00:00+00'::timestamptz + n * interval '0.4 s', 1, 'UP', 1, 1"
        " from generate_series(1, 200000) n"
    )
    before = await db.fetchval("select pg_current_wal_insert_lsn()")
    await drop(db, [DAY])
    # To delete the rows one by one writes 11 MB, to forget the table some hundred kB at most.
    assert await db.fetchval("select pg_current_wal_insert_lsn() - $1", before) < 3_000_000


async def test_today_and_the_next_three_days_have_room_and_what_is_too_old_goes(db):
    clock = StandingClock(START)
    today = START.date()
    await ensure_partitions(db, days_of(today - timedelta(days=9), 9))
    await keep_once(db, CleanupSection(retention_days=7), clock)
    assert await days_present(db) == days_of(today - timedelta(days=7), 7 + 4)


async def test_fewer_days_hold_only_after_24_hours_and_that_is_said(db, capsys):
    clock = StandingClock(START)
    today = START.date()
    await ensure_partitions(db, days_of(today - timedelta(days=30), 30))

    async def oldest_kept(days: int) -> date:
        await keep_once(db, CleanupSection(retention_days=days), clock)
        return (await days_present(db))[0]

    assert await oldest_kept(30) == today - timedelta(days=30)
    assert await oldest_kept(7) == today - timedelta(days=30)
    said = capsys.readouterr().out
    assert "fewer days of results" in said
    assert "unless retention_days is raised" in said
    assert "2030-06-16T23:59:00.000000Z" in said
    clock.at += timedelta(hours=23)
    assert await oldest_kept(7) == today - timedelta(days=29)  # as 30 days ask for: a day has begun
    assert "go in 24 h" not in capsys.readouterr().out
    clock.at += timedelta(hours=1)
    assert await oldest_kept(7) == clock.at.date() - timedelta(days=7)


def test_a_slip_that_is_taken_back_deletes_nothing():
    at_first = settle(None, 30, START)
    assert at_first == Retention(30, 30, START)
    slip = settle(at_first, 3, START + timedelta(hours=1))
    assert slip == Retention(3, 30, START + timedelta(hours=1))
    assert settle(slip, 3, START + timedelta(hours=20)) == slip
    back = settle(slip, 30, START + timedelta(hours=21))
    assert back.effective == 30
    assert settle(back, 3, START + timedelta(days=9)).effective == 30


def test_another_lower_number_waits_its_own_24_hours():
    slip = settle(Retention(30, 30, START), 3, START)
    again = settle(slip, 10, START + timedelta(hours=23))
    assert settle(again, 10, START + timedelta(hours=25)).effective == 30
    assert settle(again, 10, START + timedelta(hours=47)).effective == 10


def test_more_days_hold_at_once():
    assert settle(Retention(7, 7, START), 30, START) == Retention(30, 30, START)


async def test_a_setting_that_changes_while_it_runs_is_noticed(db, monkeypatch):
    monkeypatch.setattr(retention, "LOOK_SECONDS", 0.01)
    wanted = [30]
    follower = spawn(keep_records(db, lambda: CleanupSection(retention_days=wanted[0])), name="retention")
    async with patience():
        for days in (30, 7, 40):
            wanted[0] = days
            while await db.fetchval(WANTED) != days:
                pass
    await cancel(follower)
    assert await db.fetchval("select effective_days from retention_setting where what = 'results'") == 40
    assert now().date() in await days_present(db)
