"""What Postgres does not take waits on disk: in order, over any end of the process, and is stored once."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servmon.clock import SYSTEM_CLOCK, now
from servmon.detection.state import new_id
from servmon.errors import StoreUnavailableError
from servmon.metrics import Counters
from servmon.model import (
    CheckResult,
    CheckSource,
    Event,
    EventKind,
    FailureKind,
    Phases,
    Severity,
    State,
    Status,
)
from servmon.store import delivery, endpoints, outages
from servmon.store import spool as spooling
from servmon.store import writer as writing
from servmon.store.bridge import Bridge
from servmon.store.delivery import Delivery
from servmon.store.entries import decode, encode
from servmon.store.local import FILE, LocalFile
from servmon.store.spool import Spool
from servmon.store.writer import Writer
from servmon.tasks import cancel, spawn
from tests.store.seeds import change, declared, endpoint, outage, resolved, result

NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
MIB = 1024 * 1024


class HandClock:
    """Wall time that passes when the test says so."""

    def __init__(self) -> None:
        self.at = now().timestamp()

    def wall(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
async def watched(db):
    return await endpoints.insert(db, endpoint("a"))


@pytest.fixture
async def spool(tmp_path):
    async with spool_in(tmp_path) as opened:
        yield opened


@asynccontextmanager
async def spool_in(folder, max_bytes: int = 100 * MIB, clock=SYSTEM_CLOCK):
    """A spool as one run of servmon has it."""
    file = LocalFile(folder)
    spool = Spool(file, max_bytes, clock)
    await spool.open()
    yield spool
    await file.close()


def writer_to(dsn: str, spool: Spool) -> Writer:
    return Writer(dsn, Counters(), observer=1, spool=spool)


def results(of, number: int) -> list[CheckResult]:
    at = now()
    return [result(of, timestamp=at + timedelta(microseconds=count)) for count in range(number)]


async def until(holds) -> None:
    while not holds():  # noqa: ASYNC110 - another thread and a server ring no bell here
        await asyncio.sleep(0.01)


async def replay(database: str, spool: Spool) -> None:
    writer = writer_to(database, spool)
    try:
        await writer.open()
        await writer.replay()
    finally:
        await writer.drain()


def an_event() -> Event:
    return Event(new_id(), EventKind.ISOLATED, Severity.CRITICAL, "isolated", now(), {"witnesses": ["192.0.2.1"]})


async def stored(db) -> int:
    return await db.fetchval("select count(*) from service_status_row")


texts = st.text(max_size=20)
milliseconds = st.none() | st.floats(0, 1e6)
some_results = st.builds(
    CheckResult,
    endpoint_id=texts,
    endpoint_key=st.integers(1, 2**31 - 1),
    status=st.sampled_from(Status),
    timestamp=st.just(now()),
    response_time=milliseconds,
    attempts=st.integers(1, 20),
    failure_kind=st.none() | st.sampled_from(FailureKind),
    error_message=st.none() | texts,
    source=st.sampled_from(CheckSource),
    phases=st.builds(Phases, dns_ms=milliseconds, transfer_ms=milliseconds),
    details=st.none() | st.dictionaries(texts, st.integers() | texts | st.lists(texts, max_size=3), max_size=3),
)


@given(some_results)
def test_a_result_comes_back_as_it_was(one):
    assert decode(encode([(one, ())])) == [(one, ())]


def test_a_transition_comes_back_as_it_was():
    opened = outage("a", evidence={"verification": {"method": "second look", "explanations": ["host answers ping"]}})
    entry = (result(endpoint("a"), Status.DOWN), (declared(opened), resolved(opened)))
    assert decode(encode([entry])) == [entry]


async def test_what_is_put_while_something_is_noted_as_stored_is_counted(spool):
    watched = endpoint("a")
    await spool.put([(result(watched), ()) for _ in range(3)])
    read = await spool.oldest(10)
    await asyncio.gather(spool.put([(result(watched), ()) for _ in range(5)]), spool.stored(read.numbers))
    assert spool.count == 5


async def test_what_the_disk_took_is_counted_although_nobody_heard_of_it(spool, monkeypatch):
    real = spool._file._in_thread

    async def unheard(work):
        await real(work)
        raise StoreUnavailableError("the disk says no")

    monkeypatch.setattr(spool._file, "_in_thread", unheard)
    with pytest.raises(StoreUnavailableError):
        await spool.put([(result(endpoint("a")), ()) for _ in range(3)])
    monkeypatch.undo()
    assert spool.count == 3
    await spool.stored((await spool.oldest(10)).numbers)
    assert spool.count == 0


async def test_entries_wait_in_their_order_over_a_restart(tmp_path):
    every = [(one, ()) for one in results(endpoint("a"), 1500)]
    every[700] = (every[700][0], tuple(change("a", State.UP, State.SUSPECTED, now())[1]))
    async with spool_in(tmp_path) as spool:
        await spool.put(every[:1000])
        await spool.put(every[1000:])
    async with spool_in(tmp_path) as again:
        assert again.count == 1500
        first = await again.oldest(600)
        assert first.entries == every[:700]
        await again.stored(first.numbers)
        assert (again.count, (await again.oldest(5000)).entries) == (800, every[700:])


async def test_a_full_spool_drops_the_oldest_single_results_and_nothing_that_people_may_be_owed(tmp_path):
    async with spool_in(tmp_path, MIB) as small:
        owed = [change("a", State.UP, State.SUSPECTED, now()), (an_event(), ())]
        dropped = await small.put(owed)
        for _ in range(6):
            dropped += await small.put([(one, ()) for one in results(endpoint("a"), 5000)])
        assert dropped >= 5000
        assert small.count == 30_002 - dropped
        assert [len(entry[1]) for entry in (await small.oldest(2)).entries[:2]] == [1, 0]
        assert (tmp_path / FILE).stat().st_size < 8 * MIB


async def test_room_is_made_first_by_what_postgres_has(tmp_path):
    async with spool_in(tmp_path, MIB) as small:
        await small.put([(one, ()) for one in results(endpoint("a"), 9000)])
        await small.stored((await small.oldest(9000)).numbers)
        assert await small.put([(one, ()) for one in results(endpoint("a"), 100)]) == 0
        assert small.count == 100


async def test_what_postgres_took_stays_for_five_minutes(tmp_path):
    clock = HandClock()
    async with spool_in(tmp_path, clock=clock) as spool:
        await spool.put([change("a", State.UP, State.SUSPECTED, now())])
        await spool.stored((await spool.oldest(1)).numbers)
        await spool.remember([(one, ()) for one in results(endpoint("a"), 3)])
        clock.at += 299
        await spool.remember([(one, ()) for one in results(endpoint("a"), 2)])
        assert (spool.count, len(await spool.newest())) == (0, 6)
        clock.at += 11
        await spool.remember([])
        assert len(await spool.newest()) == 2


async def test_another_server_gets_what_the_one_before_took_lately(tmp_path):
    async with spool_in(tmp_path) as spool:
        assert await spool.meet("1/00000001") is None
        await spool.remember([(one, ()) for one in results(endpoint("a"), 3)])
        assert await spool.meet("1/00000001") == "1/00000001"
        assert spool.count == 0
        assert await spool.meet("1/00000002") == "1/00000001"
        assert spool.count == 3
    async with spool_in(tmp_path) as again:
        assert await again.meet("1/00000002") == "1/00000002"
        assert again.count == 3


async def test_the_disk_is_asked_seldom_and_another_server_gets_what_it_has_not_yet_too(tmp_path):
    async with spool_in(tmp_path) as spool:
        bridge = Bridge(spool, Delivery(NOWHERE, Counters(), lambda: 1, asyncio.Event().wait), lambda _error: None)
        await bridge.meet("1/00000001")
        for one in results(endpoint("a"), 3):
            await bridge.remember([(one, ())], bridge.servers_met)
        assert len(await spool.newest()) == 1
        await bridge.meet("1/00000002")
        assert (bridge.servers_met, spool.count) == (1, 3)
        (late,) = results(endpoint("a"), 1)
        await bridge.remember([(late, ())], 0)  # the server before took it, and may have lost it
        assert spool.count == 4


async def test_what_postgres_took_is_on_disk_after_a_stop(tmp_path):
    async with spool_in(tmp_path) as spool:
        bridge = Bridge(spool, Delivery(NOWHERE, Counters(), lambda: 1, asyncio.Event().wait), lambda _error: None)
        for one in results(endpoint("a"), 3):
            await bridge.remember([(one, ())], bridge.servers_met)
        await bridge.close()
        assert (spool.count, len(await spool.newest())) == (0, 3)


async def test_what_waits_again_while_others_are_stored_is_not_taken_for_stored(tmp_path):
    """Another server is met while a batch that was read before goes to it."""
    async with spool_in(tmp_path) as spool:
        await spool.meet("1/00000001")
        await spool.remember([(one, ()) for one in results(endpoint("a"), 3)])
        await spool.put([(one, ()) for one in results(endpoint("a"), 2)])
        read = await spool.oldest(100)
        await spool.meet("1/00000002")
        await spool.stored(read.numbers)
        assert spool.count == 3
        assert len((await spool.oldest(100)).entries) == 3


async def test_it_is_only_for_its_owner(spool, tmp_path):
    await spool.put([(result(endpoint("a")), ())])
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_a_broken_file_is_put_aside_and_a_new_one_begun(tmp_path):
    (tmp_path / FILE).write_bytes(b"this is no database" * 1000)
    async with spool_in(tmp_path) as opened:
        assert opened.count == 0
        await opened.put([(result(endpoint("a")), ())])
        assert opened.count == 1
    assert (tmp_path / "spool.broken").exists()


async def test_a_disk_that_fails_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    file = LocalFile(tmp_path / "file")
    with pytest.raises(StoreUnavailableError, match="cannot be used"):
        await Spool(file, MIB).put([(result(endpoint("a")), ())])
    await file.close()


# The writer over it


async def test_while_postgres_is_away_results_are_on_disk_within_a_moment(spool, watched, db, monkeypatch):
    writer = writer_to(NOWHERE, spool)
    task = spawn(writer.run(), name="writer")
    for one in results(watched, 700):
        writer.put(one, ())
    await until(lambda: spool.count == 700)
    writer.put(*change("a", State.UP, State.SUSPECTED, now()))
    await until(lambda: spool.count == writer.queued == 701)
    assert len(writer.unstored()) == 1
    await cancel(task)
    assert await stored(db) == 0


async def test_what_is_on_its_way_to_the_disk_is_counted_once(spool, watched, db, monkeypatch):
    on_disk, answered = asyncio.Event(), asyncio.Event()
    real = spool._change

    async def answers_late(*arguments):
        made = await real(*arguments)
        on_disk.set()
        await answered.wait()
        return made

    monkeypatch.setattr(spool, "_change", answers_late)
    writer = writer_to(NOWHERE, spool)
    writer.put(*change("a", State.UP, State.SUSPECTED, now()))
    passing = spawn(writer._pass_on(5), name="pass on")
    await on_disk.wait()
    assert (spool._held[0], writer.queued) == (1, 1)
    answered.set()
    assert await passing
    assert (writer.spooled, writer.queued) == (1, 1)


async def test_what_a_slow_postgres_makes_wait_on_disk_too_is_counted_once(spool, watched, db, database):
    writer = writer_to(database, spool)
    lock = await asyncpg.connect(database)
    await lock.execute("begin; lock table service_status_row in access exclusive mode")
    for one in results(watched, 10):
        writer.put(one, ())
    passing = spawn(writer._pass_on(60), name="pass on")
    await until(lambda: spool.count == 10)
    assert (sum(map(len, writer._parts)), writer.queued) == (10, 10)
    await cancel(passing)  # a stop: the disk has them, so they need not wait in memory as well
    assert (len(writer._backlog), writer.queued) == (0, 10)
    await lock.close()
    await writer.drain()
    assert (await stored(db), writer.queued) == (10, 0)


async def test_once_postgres_is_back_everything_is_stored_once_and_the_spool_is_empty(
    spool, watched, db, database, monkeypatch
):
    real = delivery.connect
    reachable = asyncio.Event()

    async def connect(dsn):
        if not reachable.is_set():
            raise ConnectionRefusedError("nobody listens")
        return await real(dsn)

    monkeypatch.setattr(delivery, "connect", connect)
    writer = writer_to(database, spool)
    task = spawn(writer.run(), name="writer")
    every = results(watched, 12_000)
    for one in every[:9000]:
        writer.put(one, ())
    opened = outage("a")
    writer.put(None, [declared(opened)])
    await until(lambda: spool.count == 9001)
    reachable.set()
    for one in every[9000:]:
        writer.put(one, ())
    writer.put(None, [resolved(opened)])
    await until(lambda: writer.queued == 0 and not writer.unstored())
    await cancel(task)
    await writer.drain()
    assert await stored(db) == 12_000
    assert (await outages.get(db, opened.id)).resolved
    changes = await db.fetch("select new_state from state_change order by seq")
    assert [row["new_state"] for row in changes] == ["down", "up"]
    assert not writer.is_away


async def test_a_stop_does_not_store_again_and_again_what_the_disk_cannot_let_go_of(
    spool, watched, db, database, monkeypatch
):
    def broken(*_arguments):
        raise sqlite3.OperationalError("disk I/O error")

    await spool.put([(one, ()) for one in results(watched, 3)])
    tries = 0
    real = spooling.Spool.oldest

    async def oldest(self, limit):
        nonlocal tries
        tries += 1
        return await real(self, limit)

    monkeypatch.setattr(spooling.Spool, "oldest", oldest)
    monkeypatch.setattr(spooling.Spool, "_stored", broken)
    monkeypatch.setattr(writing, "DRAIN_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(writing, "FIRST_RETRY_SECONDS", 0.2)
    writer = writer_to(database, spool)
    await writer.drain()
    assert tries <= 2
    assert (await stored(db), writer.spooled) == (3, 3)  # the next start stores them once more, which changes nothing


async def test_a_stop_while_postgres_is_away_loses_nothing(tmp_path, watched, db, database):
    opened = outage("a")
    async with spool_in(tmp_path) as first:
        writer = writer_to(NOWHERE, first)
        for one in results(watched, 300):
            writer.put(one, ())
        writer.put(None, [declared(opened)])
        await writer.drain()
    async with spool_in(tmp_path) as second:
        await replay(database, second)
    assert await stored(db) == 300
    assert await outages.open_outages(db) == [opened]


async def test_a_crash_between_storing_and_forgetting_stores_nothing_twice(spool, watched, db, database, monkeypatch):
    await spool.put([(one, ()) for one in results(watched, 50)])
    await spool.put([(None, [declared(outage("a"))])])

    async def crashes(_self, _last):
        raise OSError("as good as a crash")

    stored_before = Spool.stored
    monkeypatch.setattr(Spool, "stored", crashes)
    with pytest.raises(OSError, match="as good as a crash"):
        await replay(database, spool)
    monkeypatch.setattr(Spool, "stored", stored_before)
    assert await stored(db) == 50
    await replay(database, spool)
    assert (await stored(db), spool.count) == (50, 0)
    assert await db.fetchval("select count(*) from service_outage") == 1
    assert await db.fetchval("select count(*) from state_change") == 1


async def test_what_can_never_be_stored_does_not_block_the_spool(spool, watched, db, database):
    every = results(watched, 9)
    poison = result(endpoint("a", key=2**40))
    await spool.put([*((one, ()) for one in every[:4]), (poison, ()), *((one, ()) for one in every[4:])])
    await replay(database, spool)
    assert (await stored(db), spool.count) == (9, 0)


async def test_with_the_spools_disk_full_too_the_newest_results_wait_in_memory(
    spool, watched, db, database, monkeypatch
):
    def full(*_arguments, **_named):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(spooling.Spool, "_append", full)
    monkeypatch.setattr(writing, "FLUSH_SECONDS", 0.01)
    monkeypatch.setattr("servmon.store.backlog.FLUSH_SECONDS", 0.01)
    reachable = asyncio.Event()
    real = delivery.connect

    async def connect(dsn):
        if not reachable.is_set():
            raise ConnectionRefusedError("nobody listens")
        return await real(dsn)

    monkeypatch.setattr(delivery, "connect", connect)
    writer = writer_to(database, spool)
    task = spawn(writer.run(), name="writer")
    monkeypatch.setattr("servmon.store.backlog.QUEUE_LIMIT", 30)
    opened = outage("a")
    writer.put(None, [declared(opened)])
    every = results(watched, 60)
    for one in every[:20]:
        writer.put(one, ())
    await until(lambda: writer._spool_fails)
    for one in every[20:]:
        writer.put(one, ())
        await asyncio.sleep(0.002)  # it tries the disk again meanwhile
    assert writer.queued <= 31  # memory stays bounded, and the transition is not what goes
    reachable.set()
    await until(lambda: writer.queued == 0)
    await cancel(task)
    await writer.drain()
    assert await stored(db) == 60 - writer._counters.results_dropped == 30
    assert await outages.open_outages(db) == [opened]
