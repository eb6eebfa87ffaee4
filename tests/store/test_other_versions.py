"""Every PostgreSQL that this machine has besides the embedded one does all that servmon asks of a database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from servmon.model import CheckSource, State, Status
from servmon.store import endpoints, rollups, statuses
from servmon.store.archive import backup, restore
from servmon.store.migrate import OLDEST_POSTGRES
from servmon.store.partitions import days_present
from servmon.store.pool import open_pool
from servmon.store.retention import keep_once
from servmon.store.rollup_worker import sum_up_due
from servmon.store.rollups import Period
from servmon.store.settings import CleanupSection
from tests.fix_postgres import TEMPLATE, made_from, running_postgres
from tests.store.seeds import change, declared, endpoint, outage, resolved, result, store
from tests.store.test_archive import dump, nobody
from tests.store.test_partitions import StandingClock

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
INSTALLED = [
    folder
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if (folder / "initdb").exists() and int(folder.parent.name) >= OLDEST_POSTGRES
]


@pytest.fixture(scope="module", params=INSTALLED, ids=lambda folder: folder.parent.name)
def other_server(request: pytest.FixtureRequest) -> Iterator[str]:
    with running_postgres(request.param) as dsn:
        yield dsn


async def fill(dsn: str) -> None:
    async with await open_pool(dsn) as db:
        watched = await endpoints.insert(db, endpoint("a", depends_on=(("b",),)))
    opened = outage("a", start_time=AT)
    results = [result(watched, timestamp=AT + n * timedelta(minutes=1), response_time=n + 1.0) for n in range(90)]
    await store(dsn, *results, (None, [declared(opened)]), (None, [resolved(opened)]))
    late = result(watched, Status.DOWN, AT - timedelta(days=2), details={"packets_sent": 5, "packets_received": 0})
    await store(dsn, results[0], late, change("a", State.UP, State.DOWN, AT))


async def test_records_are_kept_summed_up_read_and_let_go(other_server):
    async with made_from(other_server, TEMPLATE) as dsn:
        await fill(dsn)
        async with await open_pool(dsn) as db:
            await statuses.insert_manual(
                db, result(await endpoints.get(db, "a"), timestamp=AT + timedelta(days=1), source=CheckSource.MANUAL), 1
            )
            assert len(await statuses.history(db, "a", limit=100, before=None)) == 92
            await asyncio.gather(*(sum_up_due(db, AT + timedelta(days=9), settle=timedelta(0)) for _ in range(3)))
            while await sum_up_due(db, AT + timedelta(days=9), settle=timedelta(0)):
                pass
            hours = await rollups.history(
                db, "a", Period.HOUR, limit=9, since=None, before=AT + timedelta(days=1), present=AT + timedelta(days=9)
            )
            assert [(hour.start, hour.up, hour.down, hour.loss_percent) for hour in hours] == [
                (AT + timedelta(hours=1), 30, 0, None),
                (AT, 60, 0, None),
                (AT - timedelta(days=2), 0, 1, 100.0),
            ]
            assert hours[1].response_time_p95 == pytest.approx(57.05)
            await keep_once(db, CleanupSection(retention_days=1), StandingClock(AT + timedelta(days=2)))
            assert (await days_present(db))[0] == (AT + timedelta(days=1)).date()


async def test_a_backup_goes_from_one_version_to_the_other_and_back(other_server, database, empty_database, tmp_path):
    await fill(database)
    await backup(database, tmp_path / "there.zip", nobody)
    async with made_from(other_server, "template1") as dsn:
        await restore(dsn, tmp_path / "there.zip", nobody)
        assert await dump(dsn) == await dump(database)
        await backup(dsn, tmp_path / "back.zip", nobody)
    await restore(empty_database, tmp_path / "back.zip", nobody)
    assert await dump(empty_database) == await dump(database)
