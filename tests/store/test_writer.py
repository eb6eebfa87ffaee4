"""The writer stores everything once, whatever happens to Postgres."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from servmon.clock import now
from servmon.errors import StoreUnavailableError
from servmon.metrics import Counters
from servmon.model import State, Status
from servmon.store import batch, delivery, endpoints, outages, state_changes, statuses
from servmon.store import writer as writing
from servmon.store.writer import Writer
from servmon.tasks import cancel, spawn
from tests.store.seeds import change, declared, endpoint, outage, resolved, result, store


@pytest.fixture
async def watched(db):
    return await endpoints.insert(db, endpoint("a"))


@asynccontextmanager
async def running(writer: Writer):
    task = spawn(writer.run(), name="writer")
    yield task
    await cancel(task)
    await writer.drain()


async def stored(db) -> int:
    return await db.fetchval("select count(*) from service_status_row")


async def until(condition) -> None:
    while not await condition():  # noqa: ASYNC110 - the database has no event for it
        await asyncio.sleep(0.01)


def a_writer(database) -> Writer:
    return Writer(database, Counters(), observer=1)


def results(of, number: int, **fields):
    at = now()
    return [result(of, timestamp=at - timedelta(microseconds=count), **fields) for count in range(number)]


async def test_single_results_are_stored_together_after_a_moment(db, database, watched):
    writer = a_writer(database)
    async with running(writer):
        for one in results(watched, 20):
            writer.put(one, ())
        assert writer.queued == 20
        await until(lambda: has(db, 20))
    assert (writer._counters.rows_stored, writer._counters.batches_stored, writer.queued) == (20, 1, 0)


async def has(db, number: int) -> bool:
    return await stored(db) == number


async def test_a_full_batch_is_stored_at_once(db, database, watched, monkeypatch):
    monkeypatch.setattr("servmon.store.backlog.FLUSH_SECONDS", 3600)
    writer = a_writer(database)
    async with running(writer):
        for one in results(watched, 500):
            writer.put(one, ())
        await until(lambda: has(db, 500))


async def test_a_transition_is_stored_at_once_with_what_waits(db, database, watched, monkeypatch):
    monkeypatch.setattr("servmon.store.backlog.FLUSH_SECONDS", 3600)
    writer, opened = a_writer(database), outage("a")
    async with running(writer):
        for one in results(watched, 3):
            writer.put(one, ())
        await asyncio.sleep(0)
        writer.put(None, [declared(opened)])
        await until(lambda: has(db, 3))
    assert await outages.open_outages(db) == [opened]
    (recorded,) = await state_changes.of_endpoint(db, "a", 10)
    assert (recorded.new, recorded.outage_id) == (State.DOWN, opened.id)
    assert writer._counters.batches_stored == 1


async def test_an_outage_and_its_end_in_one_batch_are_one_resolved_outage(db, database, watched):
    writer, opened = a_writer(database), outage("a")
    writer.put(result(watched, Status.DOWN), [declared(opened)])
    writer.put(result(watched, Status.UP), [resolved(opened)])
    again = outage("a", start_time=now())
    writer.put(result(watched, Status.DOWN), [declared(again)])
    await writer.drain()
    assert await outages.get(db, opened.id) == resolved(opened).outage
    assert await outages.open_outages(db) == [again]
    assert [one.new for one in await state_changes.of_endpoint(db, "a", 10)] == [State.DOWN, State.UP, State.DOWN]


async def test_a_new_outage_takes_the_place_of_one_just_resolved(db, database, watched):
    writer, opened = a_writer(database), outage("a")
    writer.put(None, [declared(opened)])
    await writer.drain()
    again = outage("a", start_time=now())
    writer.put(None, [resolved(opened)])
    writer.put(None, [declared(again)])
    await writer.drain()
    assert await outages.open_outages(db) == [again]


async def test_what_a_person_resolved_stays_as_they_left_it(db, database, watched):
    writer, opened = a_writer(database), outage("a")
    writer.put(None, [declared(opened)])
    await writer.drain()
    by_hand = await outages.resolve(db, opened.id, notes="fixed", at=now())
    writer.put(None, [resolved(opened)])
    await writer.drain()
    assert await outages.get(db, opened.id) == by_hand


async def test_a_recovery_is_stored_whatever_was_noted_on_the_outage_meanwhile(db, database, watched):
    writer, opened = a_writer(database), outage("a")
    writer.put(None, [declared(opened)])
    await writer.drain()
    await db.execute("update service_outage set revision = 7, notification_channels = '[\"email\"]'")
    writer.put(None, [resolved(opened)])
    await writer.drain()
    after = await outages.get(db, opened.id)
    assert (after.resolved, after.revision, after.notification_channels) == (True, 8, ("email",))


@pytest.mark.parametrize("together", [True, False])
async def test_an_open_outage_that_nobody_follows_gives_way_to_a_new_one(db, database, watched, together):
    writer, forgotten, opened = a_writer(database), outage("a"), outage("a", start_time=now())
    writer.put(None, [declared(forgotten)])
    if not together:
        await writer.drain()
    writer.put(None, [declared(opened)])
    await writer.drain()
    assert await outages.open_outages(db) == [opened]
    closed = await outages.get(db, forgotten.id)
    assert (closed.resolved_at, closed.resolution_notes) == (opened.start_time, batch.SUPERSEDED)


async def test_an_outage_of_an_endpoint_deleted_meanwhile_does_not_stay_open(db, database, watched):
    await endpoints.archive(db, "a")
    writer = a_writer(database)
    writer.put(result(watched, Status.DOWN), [declared(outage("a"))])
    await writer.drain()
    assert await outages.open_outages(db) == []
    assert (await state_changes.of_endpoint(db, "a", 1))[0].reason == "endpoint deleted"


async def test_rows_that_are_there_already_are_not_stored_twice(db, database, watched):
    known, new = results(watched, 10), results(watched, 5, status=Status.DOWN)
    for some in (known, known + new, known):
        writer = a_writer(database)
        for one in some:
            writer.put(one, ())
        await writer.drain()
        assert writer.queued == 0
    assert await stored(db) == 15


async def test_a_batch_stored_twice_leaves_one_of_each(db, database, watched):
    opened = outage("a")
    entries = [(result(watched, Status.DOWN), [declared(opened)]), (result(watched), [resolved(opened)])]
    for _ in range(2):
        writer = a_writer(database)
        for entry in entries:
            writer.put(*entry)
        await writer.drain()
    assert await stored(db) == 2
    assert len(await state_changes.of_endpoint(db, "a", 10)) == 2
    assert (await outages.get(db, opened.id)).revision == 2


async def test_a_day_without_a_place_for_its_rows_gets_one(db, database, watched):
    days = [now() - timedelta(days=number) for number in (0, 40, 41)]
    writer = a_writer(database)
    for _ in range(2):  # the second time the rows are there already, and one day more is missing
        for day in days:
            writer.put(result(watched, timestamp=day), ())
        await writer.drain()
        days.append(days[-1] - timedelta(days=1))
    assert await stored(db) == 4


async def test_a_cut_connection_loses_and_doubles_nothing(db, database, watched):
    writer = a_writer(database)
    every = results(watched, 4000)
    async with running(writer):
        for number, one in enumerate(every):
            writer.put(one, [declared(outage("a"))] if number == 2000 else ())
            if number % 400 == 0:
                await cut(db)
            if number % 40 == 0:
                await asyncio.sleep(0.001)
    assert await stored(db) == 4000
    assert len(await outages.open_outages(db)) == 1


async def test_a_connection_cut_within_a_transaction_loses_and_doubles_nothing(db, database, watched):
    writer = a_writer(database)
    lock = await asyncpg.connect(database)
    await lock.execute("begin; lock table state_change in access exclusive mode")
    for one in results(watched, 10):
        writer.put(one, ())
    writer.put(*change("a", State.UP, State.DOWN, now()))
    async with running(writer):
        await until(lambda: blocked(db))
        await db.execute("select pg_terminate_backend(pid) from pg_locks where not granted")
        await until(lambda: has_failed(writer, 1))
        await lock.close()
        await until(lambda: has(db, 10))
    assert len(await state_changes.of_endpoint(db, "a", 10)) == 1
    assert (writer._counters.store_errors, writer._counters.rows_stored) == (1, 10)


async def cut(db) -> None:
    await db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and (query like 'COPY%' or query in ('begin', 'commit'))"
    )


async def test_a_connection_lost_after_the_commit_doubles_nothing(db, database, watched, monkeypatch):
    writer = a_writer(database)
    writer.put(result(watched, Status.DOWN), [declared(outage("a"))])
    real = batch._store_transitions

    async def commits_and_dies(connection, transitions):
        await real(connection, transitions)
        await connection.execute("commit")
        connection.terminate()

    monkeypatch.setattr(batch, "_store_transitions", commits_and_dies)
    assert not await writer._pass_on(5)
    assert (writer.queued, await stored(db)) == (1, 1)
    monkeypatch.setattr(batch, "_store_transitions", real)
    await writer.drain()
    assert (writer.queued, await stored(db)) == (0, 1)
    assert len(await state_changes.of_endpoint(db, "a", 10)) == 1


async def test_a_stop_in_the_middle_of_a_batch_loses_and_doubles_nothing(db, database, watched):
    writer = a_writer(database)
    lock = await asyncpg.connect(database)
    await lock.execute("begin; lock table state_change in access exclusive mode")
    for one in results(watched, 10):
        writer.put(one, ())
    writer.put(*change("a", State.UP, State.DOWN, now()))
    async with running(writer) as task:
        await until(lambda: blocked(db))
        await cancel(task)
        await lock.close()
    assert (await stored(db), len(await state_changes.of_endpoint(db, "a", 10))) == (10, 1)


async def blocked(db) -> bool:
    return await db.fetchval("select exists (select from pg_locks where not granted)")


async def test_what_can_never_be_stored_holds_up_nothing_else(db, database, watched):
    writer, opened = a_writer(database), outage("a")
    every = results(watched, 20)
    every[3] = replace(every[3], attempts=1_000_000)
    every[11] = replace(every[11], details={"loss": float("nan")})
    every[17] = replace(every[17], attempts=None)
    for number, one in enumerate(every):
        writer.put(one, [declared(opened)] if number == 11 else ())
    writer.put(*change("a", State.UP, State.DOWN, now()))
    writer.put(None, [declared(outage("nobody"))])
    await writer.drain()
    assert (writer.queued, await stored(db)) == (0, 17)
    assert await outages.open_outages(db) == [opened]
    assert (writer._counters.rows_rejected, writer._counters.store_errors) == (4, 0)
    reasons = await db.fetch("select reason, body from rejected order by id")
    assert reasons[0]["reason"] == "value out of int16 range"
    assert "1000000" in reasons[0]["body"]
    assert "nobody" in reasons[3]["body"]


async def test_without_postgres_the_writer_waits_and_then_stores_all(db, database, watched, monkeypatch):
    writer = a_writer(database)
    real = delivery.connect

    async def unreachable(_dsn):
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(delivery, "connect", unreachable)
    async with running(writer):
        for one in results(watched, 600):
            writer.put(one, ())
        await until(lambda: has_failed(writer, 2))
        assert writer.queued == 600
        monkeypatch.setattr(delivery, "connect", real)
        await until(lambda: has(db, 600))


async def has_failed(writer: Writer, times: int) -> bool:
    return writer._counters.store_errors >= times


async def test_a_read_only_database_only_delays(db, database, watched):
    name = await db.fetchval("select current_database()")
    await db.execute(f"alter database {name} set default_transaction_read_only = on")
    writer = a_writer(database)
    async with running(writer):
        writer.put(result(watched), ())
        await until(lambda: has_failed(writer, 1))
        await db.execute(f"set default_transaction_read_only = off; alter database {name} reset all")
        await until(lambda: has(db, 1))


async def test_a_server_that_never_answers_is_given_up(db, database, watched, monkeypatch):
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.2)
    writer = a_writer(database)
    lock = await asyncpg.connect(database)
    await lock.execute("begin; lock table service_status_row in access exclusive mode")
    async with running(writer):
        writer.put(result(watched), ())
        await until(lambda: has_failed(writer, 1))
        monkeypatch.undo()  # a busy server may need longer for what it does take
        await lock.close()
        await until(lambda: has(db, 1))


async def test_a_stop_without_postgres_does_not_take_for_ever(database, watched, monkeypatch):
    monkeypatch.setattr(writing, "DRAIN_PATIENCE_SECONDS", 0.2)
    writer = Writer("postgresql://nobody@127.0.0.1:1/nowhere", Counters(), observer=1)
    writer.put(result(watched), ())
    await writer.drain()
    assert writer.queued == 1


async def test_a_full_queue_drops_old_results_and_no_transition(db, database, watched, monkeypatch):
    monkeypatch.setattr("servmon.store.backlog.QUEUE_LIMIT", 10)
    writer, opened = a_writer(database), outage("a")
    every = results(watched, 30)
    for number, one in enumerate(every):
        writer.put(one, [declared(opened)] if number == 5 else ())
    assert writer._counters.results_dropped == 20
    await writer.drain()
    rows = await statuses.history(db, "a", limit=100, before=None)
    assert {row.timestamp for row in rows} == {one.timestamp for one in every[20:]}
    assert await outages.open_outages(db) == [opened]


async def test_without_a_spool_a_batch_may_take_its_time(db, database, monkeypatch):
    monkeypatch.setattr("servmon.store.writer.FLUSH_SECONDS", 0)
    watched = await endpoints.insert(db, endpoint("a"))
    await store(database, *(result(watched) for _ in range(50)))
    assert await db.fetchval("select count(*) from service_status_row") == 50


async def test_each_reason_why_postgres_takes_nothing_is_said_once(database, watched, monkeypatch, capsys):
    writer = Writer(database, Counters(), observer=1)
    reasons = iter(["connection refused", "connection refused", "the password is wrong", "connection refused"])
    real = delivery.connect

    async def connect(dsn):
        if (reason := next(reasons, None)) is not None:
            raise StoreUnavailableError(reason)
        return await real(dsn)

    monkeypatch.setattr(delivery, "connect", connect)
    writer.put(None, [declared(outage("a"))])
    await writer.drain()
    said = capsys.readouterr().out
    assert [said.count(one) for one in ("connection refused", "the password is wrong", "takes results again")] == [
        1,
        1,
        1,
    ]
