"""How much room records take, and what will become of the disk."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from servmon.store import endpoints
from servmon.store.migrate import migrate
from servmon.store.partitions import ensure_partitions
from servmon.store.settings import CleanupSection
from servmon.store.space import Space, in_words, measure
from tests.store.seeds import endpoint

PRESENT = datetime(2026, 11, 25, tzinfo=UTC)
SPACE = Space(
    place="here",
    postgres="18.6",
    pending_migrations=(),
    bytes=1_000_000_000,
    tables=(),
    endpoints=1000,
    results_a_day=1_440_000,
    bytes_a_result=142.0,
    days_kept=5,
    oldest_day="2026-11-20",
    grown_bytes=7_500_000_000,
    free_bytes=10_000_000_000,
)


async def test_sizes_and_pace_are_those_of_the_database(db, database):
    await endpoints.provision(db, "api", [endpoint(f"e{number}", check_interval=60) for number in range(10)])
    await endpoints.insert(db, endpoint("off", is_active=False))
    await ensure_partitions(db, [date(2026, 3, 1), date(2026, 3, 2), date(2126, 3, 1)])  # one is still to come
    await db.execute(
        "insert into service_status_row (timestamp, endpoint_key, status, observer, attempts)"
        " select '2026-03-01Z'::timestamptz + n * interval '1 s', 1, 'UP', 1, 1 from generate_series(1, 20000) n"
    )
    await db.execute("analyze")
    found = await measure(database, CleanupSection(retention_days=30), 10**12)
    assert (found.endpoints, found.results_a_day) == (10, 14_400)
    assert (found.days_kept, found.oldest_day) == (2, "2026-03-01")
    assert 100 < found.bytes_a_result < 200
    (results,) = (table for table in found.tables if table.name == "service_status_row")
    assert results.rows == 20_000
    assert found.tables[0].name == "service_status_row"  # the largest first
    assert sum(table.bytes for table in found.tables) < found.bytes
    kept = 14_400 * 30 * found.bytes_a_result
    assert found.grown_bytes == pytest.approx(found.bytes - results.bytes + kept, rel=0.3)
    await db.execute(
        "insert into service_status_daily (start, endpoint_key, up, degraded, down, unknown)"
        " values (date_trunc('day', now(), 'UTC') - interval '1 day', 1, 1000, 100, 10, 1)"
    )
    assert (await measure(database, CleanupSection(), None)).results_a_day == 1111


async def test_a_schema_that_is_behind_is_said_and_not_measured(empty_database):
    assert len((await measure(empty_database, CleanupSection(), None)).pending_migrations) > 1
    await migrate(empty_database, upto=2)
    assert (await measure(empty_database, CleanupSection(), None)).pending_migrations[0].startswith("0003_")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, "it grows to about 7.5 GB; 10 GB are free, so the disk suffices"),
        ({"free_bytes": 2_000_000_000}, "but only 2 GB are free: the disk is full about 2026-12-04; keep fewer days"),
        ({"free_bytes": 0}, "but only 0 bytes are free: the disk is full about 2026-11-25"),
        ({"free_bytes": None}, "it grows to about 7.5 GB, by 208 MB a day"),
        ({"bytes": 7_500_000_000}, "it has grown to its full size of about 7.5 GB"),
        ({"results_a_day": 0, "endpoints": 0, "grown_bytes": 1_000_000_000}, "it has grown to its full size"),
    ],
)
def test_the_forecast_is_one_sentence(changed, sentence):
    assert sentence in replace(SPACE, **changed).forecast(PRESENT)


def test_bytes_are_said_as_people_do():
    assert [in_words(number) for number in (0, 999, 1500, 142e6, 1e9, 2.5e13)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "142 MB",
        "1 GB",
        "25 TB",
    ]
