"""Whatever happens to Postgres, every check is in it exactly once in the end, and people are told meanwhile.

The scheduler's part is played by a loop that counts what it puts; writer, spool, alerts and Postgres are the real ones.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from servmon.alerts import alerting as telling
from servmon.clock import now
from servmon.model import Endpoint, Outage, Status
from servmon.store import bridge, endpoints, pool
from servmon.store import writer as writing
from servmon.store.embedded import EmbeddedPostgres
from servmon.store.migrate import migrate
from servmon.tasks import cancel, spawn
from tests.alerts.test_ledger import Life, Receiver
from tests.fix_proxy import PostgresProxy
from tests.store.seeds import declared, endpoint, outage, resolved, result

pytestmark = pytest.mark.timeout(60)

COPY, COMMIT = b"service_status_row", b"commit"


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    """Spans that are seconds in life are tenths here."""
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(writing, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(bridge, "PATIENCE_SECONDS", 1.0)
    for module in (writing, bridge):
        monkeypatch.setattr(module, "LONGEST_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(telling, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(telling, "ROUND_SECONDS", 0.1)
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 1.0)


@dataclass
class World:
    """Checks that go on all the time, and what they are stored and told with."""

    life: Life
    watched: Endpoint
    proxy: PostgresProxy
    began_at: datetime = field(default_factory=now)
    checks: int = 0

    async def check(self) -> None:
        """Ten checks every ten milliseconds, for ever."""
        while True:
            for _ in range(10):
                self.life.writer.put(self._result(Status.UP), ())
            await asyncio.sleep(0.01)

    def declare(self) -> Outage:
        opened = outage(self.watched.id, start_time=now() - timedelta(seconds=40))
        self.life.writer.put(self._result(Status.DOWN), [declared(opened)])
        return opened

    def resolve(self, opened: Outage) -> None:
        self.life.writer.put(self._result(Status.UP), [resolved(opened, timedelta(seconds=50))])

    def _result(self, status: Status):
        self.checks += 1
        return result(self.watched, status, timestamp=self.began_at + timedelta(milliseconds=self.checks))

    async def told(self, *kinds: str) -> None:
        await until(lambda: self.life.receiver.kinds == list(kinds))


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - sockets and threads ring no bell here
        await asyncio.sleep(0.01)


@asynccontextmanager
async def world(folder: Path, proxy: PostgresProxy, watched: Endpoint) -> AsyncIterator[World]:
    life = Life(folder, proxy.dsn, Receiver())
    await life.writer.open()
    made = World(life, watched, proxy)
    tasks = [
        spawn(life.writer.run(), name="writer"),
        spawn(life.alerting.run(), name="alerts"),
        spawn(made.check(), name="checks"),
    ]
    yield made
    await cancel(*tasks)
    await life.kill()


async def outlast(made: World, begin: Callable[[], Awaitable[None]], end: Callable[[], Awaitable[None]], dsn) -> None:
    """An outage is told while the fault lasts; afterwards everything is stored once, and the recovery told."""
    await begin()
    opened = made.declare()
    await made.told("down")
    await asyncio.sleep(0.3)
    await end()
    made.resolve(opened)
    await made.told("down", "recovered")
    await everything_is_stored_once(made, dsn, opened)


async def everything_is_stored_once(made: World, dsn: Callable[[], str], opened: Outage) -> None:
    connection = None
    while True:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = connection or await asyncpg.connect(dsn())
            found = await connection.fetchrow(
                "select (select count(*) from service_status_row) as rows,"
                " (select count(*) from state_change where processed_at is not null) as settled,"
                " (select count(*) from state_change) as changes,"
                " (select count(*) from service_outage where resolved) as outages,"
                " (select count(*) from notification where sent_at is not null) as sent"
            )
            late = made.checks - found["rows"]
            if tuple(found)[1:] == (2, 2, 1, 2) and late <= 100 + made.life.writer.queued:
                break
        await asyncio.sleep(0.02)
    # No check is put any more: now it has to be exact.
    checks = next(task for task in asyncio.all_tasks() if task.get_name() == "checks")
    await cancel(checks)
    await until(lambda: made.life.writer.queued == 0)
    assert await connection.fetchval("select count(*) from service_status_row") == made.checks
    assert await connection.fetchval("select id from service_outage") == asyncpg.pgproto.pgproto.UUID(opened.id)
    assert await connection.fetchval("select count(*) from rejected") == 0
    await connection.close()
    assert made.life.writer._counters.results_dropped == 0
    assert len({one.id for one in made.life.receiver.got}) == 2


class Faults:
    """What a test can do to the way to Postgres: each begins at once or at a moment of the conversation."""

    def __init__(self, proxy: PostgresProxy, db) -> None:
        self.proxy = proxy
        self.db = db

    async def cut(self) -> None:
        self.proxy.set("cut")

    async def cut_in_the_middle_of_a_batch(self) -> None:
        await self._at(COPY, "cut", after=True)

    async def cut_between_copy_and_commit(self) -> None:
        await self._at(COMMIT, "cut", after=False)

    async def cut_after_commit(self) -> None:
        await self._at(COMMIT, "cut", after=True)

    async def commit_is_heard_and_its_answer_lost(self) -> None:
        await self._at(COMMIT, "deaf", after=True)

    async def stalled(self) -> None:
        self.proxy.set("stalled")

    async def stalled_in_the_middle_of_a_batch(self) -> None:
        await self._at(COPY, "stalled", after=True)

    async def deaf(self) -> None:
        self.proxy.set("deaf")

    async def read_only(self) -> None:
        name = urlsplit(self.proxy.dsn).path[1:]
        await self.db.execute(f"alter database {name} set default_transaction_read_only = on")
        self.proxy.set("cut")
        self.proxy.set("open")

    async def _at(self, said: bytes, mode: str, *, after: bool) -> None:
        happened = asyncio.Event()
        self.proxy.when(said, lambda: (self.proxy.set(mode), happened.set()), after=after)
        await happened.wait()

    async def heal(self) -> None:
        name = urlsplit(self.proxy.dsn).path[1:]
        await self.db.execute(f"set default_transaction_read_only = off; alter database {name} reset all")
        self.proxy.set("cut")
        self.proxy.set("open")


QUICK = ["cut_between_copy_and_commit", "commit_is_heard_and_its_answer_lost", "stalled", "read_only"]
MORE = ["cut", "cut_in_the_middle_of_a_batch", "cut_after_commit", "stalled_in_the_middle_of_a_batch", "deaf"]


@pytest.mark.parametrize("fault", [*QUICK, *(pytest.param(one, marks=pytest.mark.deep) for one in MORE)])
async def test_a_fault_costs_nothing(fault, tmp_path, db, database, pg_proxy):
    faults = Faults(pg_proxy, db)
    async with world(tmp_path, pg_proxy, await endpoints.insert(db, endpoint("a"))) as made:
        await asyncio.sleep(0.2)
        await outlast(made, getattr(faults, fault), faults.heal, lambda: database)


async def test_cut_at_the_start_and_again_during_the_replay(tmp_path, db, database, pg_proxy):
    faults = Faults(pg_proxy, db)
    pg_proxy.set("cut")
    async with world(tmp_path, pg_proxy, await endpoints.insert(db, endpoint("a"))) as made:

        async def again() -> None:
            await until(lambda: made.life.writer.queued >= 500)
            pg_proxy.set("open")
            await faults.cut_between_copy_and_commit()

        await outlast(made, again, faults.heal, lambda: database)


@pytest.mark.deep
@pytest.mark.parametrize("mode", ["cut", "stalled", "deaf"])
async def test_one_fault_after_another(mode, tmp_path, db, database, pg_proxy):
    """The connection breaks again and again, at ever another moment."""
    faults = Faults(pg_proxy, db)
    async with world(tmp_path, pg_proxy, await endpoints.insert(db, endpoint("a"))) as made:

        async def often() -> None:
            for number in range(30):
                await asyncio.sleep(0.013 * number % 0.17)
                pg_proxy.set(mode)
                await asyncio.sleep(0.05)
                pg_proxy.set("open")
            pg_proxy.set("cut")

        await outlast(made, often, faults.heal, lambda: database)


# Servers of their own


class Server:
    """A Postgres of the test's own, which it may stop, kill and copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.embedded = EmbeddedPostgres(folder)

    async def start(self) -> str:
        return await self.embedded.start()

    async def stop(self) -> None:
        await self.embedded.stop()

    async def kill(self) -> None:
        pid = int((self.folder / "postgres" / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        os.kill(pid, signal.SIGQUIT)
        await self.embedded.stop()


@pytest.fixture
def folders():
    """Makes folders with short paths that another account can reach."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="svm-", dir="/tmp")))
        made[-1].chmod(0o711)
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


async def watched_on(dsn: str) -> Endpoint:
    await migrate(dsn)
    connection = await pool.connect(dsn)
    try:
        return await endpoints.insert(connection, endpoint("a"))
    finally:
        await connection.close()


@pytest.mark.deep
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_that_is_restarted(end, tmp_path, folders):
    server = Server(folders())
    proxy = PostgresProxy(await server.start())
    await proxy.start()
    try:
        async with world(tmp_path, proxy, await watched_on(proxy.target)) as made:
            await asyncio.sleep(0.3)
            await outlast(made, getattr(server, end), server.start, lambda: proxy.target)
    finally:
        await proxy.stop()
        await server.stop()


@pytest.mark.deep
@pytest.mark.timeout(180)
async def test_a_failover_to_a_replica_that_is_seconds_behind(tmp_path, folders):
    primary, folder = Server(folders()), folders()
    proxy = PostgresProxy(await primary.start())
    await proxy.start()
    watched = await watched_on(proxy.target)
    await primary.stop()
    await asyncio.to_thread(shutil.rmtree, folder)
    await asyncio.to_thread(subprocess.run, ["cp", "-a", str(primary.folder), str(folder)], check=True)
    (folder / "postgres" / "standby.signal").touch()
    await primary.start()
    replica = Server(folder)

    async def fail_over() -> None:
        await primary.kill()

    async def promote() -> None:
        proxy.target = await replica.start()
        connection = await asyncpg.connect(proxy.target)
        await connection.execute("select pg_promote()")
        await connection.close()

    try:
        async with world(tmp_path, proxy, watched) as made:
            await asyncio.sleep(10)  # what the replica lacks
            assert await _rows(proxy.target) > 1000
            await outlast(made, fail_over, promote, lambda: proxy.target)
            assert made.life.writer.servers_met == 1
    finally:
        await proxy.stop()
        await replica.stop()


async def _rows(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval("select count(*) from service_status_row")
    finally:
        await connection.close()
