"""Checks that go on while something happens to Postgres, and what has to hold when it is over.

The scheduler's part is played by a loop that counts what it puts; writer, spool, alerts and Postgres are the real ones.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from servmon.alerts import alerting as telling
from servmon.clock import now
from servmon.model import Endpoint, Outage, Status
from servmon.store import bridge, own_connection, pool
from servmon.store import writer as writing
from servmon.tasks import cancel, spawn
from tests.alerts.test_ledger import Life, Receiver
from tests.store.seeds import declared, outage, resolved, result

ONLY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")


@pytest.fixture
def impatience(monkeypatch):
    """Spans that are seconds in life are tenths here."""
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(writing, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(bridge, "PATIENCE_SECONDS", 1.0)
    for module in (writing, bridge):
        monkeypatch.setattr(module, "LONGEST_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(own_connection, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(telling, "ROUND_SECONDS", 0.1)
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 1.0)


@dataclass
class World:
    """Checks that go on all the time, and what they are stored and told with."""

    life: Life
    watched: Endpoint
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

    @property
    def dropped(self) -> int:
        """How many results were given up, of those that were put."""
        return self.life.writer._counters.results_dropped

    async def told(self, *kinds: str) -> None:
        await until(lambda: self.life.receiver.kinds == list(kinds))


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - sockets and threads ring no bell here
        await asyncio.sleep(0.01)


@asynccontextmanager
async def world(folder: Path, dsn: str, watched: Endpoint) -> AsyncIterator[World]:
    life = Life(folder, dsn, Receiver())
    await life.writer.open()
    made = World(life, watched)
    tasks = [
        spawn(life.writer.run(), name="writer"),
        spawn(life.alerting.run(), name="alerts"),
        spawn(made.check(), name="checks"),
    ]
    try:
        yield made
    finally:
        await cancel(*tasks)
        await life.kill()


async def outlast(
    made: World,
    begin: Callable[[], Awaitable[None]],
    end: Callable[[], Awaitable[Any]],
    dsn: Callable[[], str],
    *,
    lossy: bool = False,
) -> None:
    """An outage is told while the fault lasts; afterwards everything is stored once, and the recovery told."""
    await begin()
    opened = made.declare()
    await made.told("down")
    await asyncio.sleep(0.3)
    await end()
    made.resolve(opened)
    await made.told("down", "recovered")
    assert made.dropped == 0 or lossy
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
            late = made.checks - made.dropped - found["rows"]
            if tuple(found)[1:] == (2, 2, 1, 2) and late <= 100 + made.life.writer.queued:
                break
        await asyncio.sleep(0.02)
    # No check is put any more: now it has to be exact.
    checks = next(task for task in asyncio.all_tasks() if task.get_name() == "checks")
    await cancel(checks)
    await until(lambda: made.life.writer.queued == 0)
    assert await connection.fetchval("select count(*) from service_status_row") == made.checks - made.dropped
    assert await connection.fetchval("select id from service_outage") == asyncpg.pgproto.pgproto.UUID(opened.id)
    assert await connection.fetchval("select count(*) from rejected") == 0
    await connection.close()
    assert len({one.id for one in made.life.receiver.got}) == 2


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


class SmallDisk:
    """A file system of its own that a test may fill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    async def fill(self) -> None:
        with suppress(OSError), self._filler.open("ab", buffering=0) as filler:
            while True:
                filler.write(b"\1" * 4096)

    async def free(self) -> None:
        self._filler.unlink()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0711", "tmpfs", str(folder)], check=True)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
