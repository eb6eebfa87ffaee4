"""What the schema itself promises, whoever writes to it."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from servmon.clock import now
from servmon.model import FailureKind
from servmon.store import endpoints, status_rows, statuses
from tests.store.seeds import endpoint, insert_outage, outage, result, store

SEED_COLUMNS = ["id", "endpoint_id", "status", "response_time", "timestamp", "error_message", "elasticsearch_synced"]
PLAIN_ROWS = 100_000
MANY_ROWS = """
insert into service_status_row (timestamp, endpoint_key, status, response_time, dns_ms, connect_ms, tls_ms,
    first_byte_ms, transfer_ms, observer, attempts)
select '2026-03-01'::timestamptz + number / 1000 * interval '1 second', number % 1000, 'UP', 1, 2, 3, 4, 5, 6, 1, 1
from generate_series(1, $1::int) number
"""


async def test_the_numbers_of_failure_kinds_are_the_same_in_program_and_database(db):
    stored = {row["number"]: row["name"] for row in await db.fetch("select number, name from failure_kind")}
    assert stored == {number: kind.value for kind, number in status_rows.FAILURE_KIND_NUMBERS.items() if kind}
    assert len(stored) == len(FailureKind)


async def test_the_view_has_the_seeds_columns(db, database):
    watched = await endpoints.insert(db, endpoint("a"))
    found = result(watched, response_time=12.5, failure_kind=FailureKind.TLS, error_message="certificate expired")
    await store(database, found)
    row = await db.fetchrow("select * from service_status")
    assert list(row.keys())[:7] == SEED_COLUMNS
    assert dict(row) | {
        "id": status_rows.status_id(watched.key, 1, found.timestamp),
        "endpoint_id": "a",
        "response_time": 12.5,
        "failure_kind": "tls",
        "source": "schedule",
        "observer": "main",
        "attempts": 1,
        "elasticsearch_synced": False,
    } == dict(row)
    await db.execute("update elasticsearch_cursor set seq = (select max(seq) from service_status_row)")
    assert await db.fetchval("select elasticsearch_synced from service_status")


@pytest.mark.parametrize("microseconds", [0, 1, 999_999, 123_456])
async def test_a_status_has_the_same_id_in_program_and_database(db, database, microseconds):
    watched = await endpoints.insert(db, endpoint("a"))
    at = now().replace(microsecond=microseconds)
    await store(database, result(watched, timestamp=at))
    assert await db.fetchval("select id from service_status") == status_rows.status_id(watched.key, 1, at)


async def test_a_plain_row_takes_at_most_145_bytes_with_its_index(db):
    await db.execute("select ensure_status_partition('2026-03-01')")
    await db.execute(MANY_ROWS, PLAIN_ROWS)
    total = await db.fetchval("select pg_total_relation_size('service_status_row_20260301')")
    assert total / PLAIN_ROWS <= 145


async def test_history_is_one_index_scan_of_the_partitions_it_needs(db):
    watched = await endpoints.insert(db, endpoint("a"))
    today = datetime(2026, 3, 10, tzinfo=UTC)
    for day in range(10):
        await db.execute("select ensure_status_partition($1)", (today - timedelta(days=day)).date())
    for day in range(3):
        await store_many(db, watched.key, today - timedelta(days=day))
    await db.execute("analyze service_status_row")
    plan = await explain(db, statuses._HISTORY, "a", today - timedelta(hours=1), today - timedelta(days=2), None, 100)
    assert "Index Scan Backward using service_status_row_20260309" in plan
    assert "Seq Scan on service_status_row" not in plan
    assert plan.count("Sort Key") == 1  # that of the outer hundred; the rows come out of the index in order
    assert "20260301" not in plan
    assert "20260310" not in plan or "Subplans Removed" in plan


async def store_many(db, key: int, day: datetime) -> None:
    records = [
        (day + timedelta(seconds=10 * number), other, "UP", 1, 1) for number in range(500) for other in (key, key + 1)
    ]
    columns = ["timestamp", "endpoint_key", "status", "observer", "attempts"]
    async with db.acquire() as connection:
        await connection.copy_records_to_table("service_status_row", records=records, columns=columns)


async def explain(db, query: str, *arguments) -> str:
    return "\n".join(row[0] for row in await db.fetch("explain (analyze, timing off) " + query, *arguments))


async def test_the_newest_rows_of_an_endpoint_are_read_without_touching_older_days(db):
    watched = await endpoints.insert(db, endpoint("a"))
    today = datetime(2026, 3, 10, tzinfo=UTC)
    for day in range(5):
        await db.execute("select ensure_status_partition($1)", (today - timedelta(days=day)).date())
        await store_many(db, watched.key, today - timedelta(days=day))
    await db.execute("analyze service_status_row")
    plan = await explain(db, statuses._HISTORY, "a", None, None, None, 100)
    assert plan.count("(never executed)") >= 4


async def test_a_day_has_one_partition_whoever_asks_for_it_at_once(database):
    connections = [await asyncpg.connect(database) for _ in range(4)]
    days = [date(2026, 3, 1), date(2026, 3, 2)]
    await asyncio.gather(
        *(
            connection.execute("select ensure_status_partition(day) from unnest($1::date[]) day", days)
            for connection in connections
        )
    )
    names = await connections[0].fetch(
        "select inhrelid::regclass::text as name from pg_inherits"
        " where inhparent = 'service_status_row'::regclass order by 1"
    )
    assert [row["name"] for row in names][:2] == ["service_status_row_20260301", "service_status_row_20260302"]
    for connection in connections:
        await connection.close()


async def test_a_partition_is_a_utc_day_whatever_the_session_thinks(database):
    connection = await asyncpg.connect(database, server_settings={"timezone": "Pacific/Auckland"})
    await connection.execute("select ensure_status_partition('2026-03-01')")
    await connection.execute(
        "insert into service_status_row (timestamp, endpoint_key, status, observer, attempts)"
        " values ('2026-03-01 00:00:00Z', 1, 'UP', 1, 1), ('2026-03-01 23:59:59.999999Z', 1, 'UP', 1, 1)"
    )
    assert await connection.fetchval("select count(*) from service_status_row_20260301") == 2
    with pytest.raises(asyncpg.CheckViolationError, match="no partition"):
        await connection.execute(
            "insert into service_status_row (timestamp, endpoint_key, status, observer, attempts)"
            " values ('2026-03-02 00:00:00Z', 1, 'UP', 1, 1)"
        )
    await connection.close()


async def test_an_endpoint_has_at_most_one_open_outage(db):
    watched = await endpoints.insert(db, endpoint("a"))
    await insert_outage(db, watched)
    with pytest.raises(asyncpg.UniqueViolationError, match="service_outage_one_open"):
        await insert_outage(db, watched)


async def test_an_outage_is_resolved_with_a_time_that_makes_sense(db):
    await insert_outage(db, await endpoints.insert(db, endpoint("a")))
    for wrong in (
        "resolved = true",
        "resolved_at = now()",
        "resolved = true, resolved_at = start_time - interval '1 s'",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await db.execute(f"update service_outage set {wrong}")


async def test_an_outage_is_synced_while_no_newer_revision_exists(db):
    made = await insert_outage(db, await endpoints.insert(db, endpoint("a")))
    assert not await db.fetchval("select elasticsearch_synced from service_outage")
    await db.execute("update service_outage set synced_revision = revision")
    assert await db.fetchval("select elasticsearch_synced from service_outage")
    await db.execute("select close_outage($1::text::uuid, now(), 'notes', 'why')", made.id)
    assert not await db.fetchval("select elasticsearch_synced from service_outage")


@pytest.fixture
async def notices(database):
    """The notices that daemons hear, as they come."""
    heard: list[str] = []
    connection = await asyncpg.connect(database)
    await connection.add_listener("servmon_changes", lambda _connection, _pid, _channel, payload: heard.append(payload))
    yield heard
    await connection.close()


async def test_ten_thousand_changed_rows_are_one_notice(db, notices):
    await endpoints.provision(db, "api", [endpoint(f"endpoint-{number}") for number in range(10_000)])
    await heard(notices, 1)
    revision = (await endpoints.changed_since(db, 0)).revision
    await db.execute("update service_endpoint set timeout = 1")
    await heard(notices, 2)
    changes = await endpoints.changed_since(db, revision)
    assert (len(changes.endpoints), {one.revision for one in changes.endpoints}) == (10_000, {changes.revision})


async def test_a_change_by_anyone_is_heard(db, notices):
    watched = await endpoints.insert(db, endpoint("a"))
    made = await insert_outage(db, watched)
    await heard(notices, 1)
    await db.execute("select close_outage($1::text::uuid, now(), 'notes', 'why')", made.id)
    await heard(notices, 2)
    await db.execute("insert into maintenance_window values (gen_random_uuid(), '', now(), now() + interval '1 h')")
    await heard(notices, 3)
    await db.execute("insert into maintenance_window_endpoint select id, 'a' from maintenance_window")
    await heard(notices, 4)
    await db.execute("truncate maintenance_window cascade")
    await heard(notices, 5)


async def heard(notices: list[str], number: int) -> None:
    while len(notices) < number:  # noqa: ASYNC110 - bounded by the test's timeout
        await asyncio.sleep(0.01)
    assert notices == [""] * number


async def test_what_is_stored_is_never_older_than_the_outage_it_ends(db):
    ahead = outage("a", start_time=now() + timedelta(hours=1))
    watched = await endpoints.insert(db, endpoint("a"))
    made = await insert_outage(db, watched, start_time=ahead.start_time)
    await endpoints.archive(db, "a")
    assert await db.fetchval("select resolved_at from service_outage") == made.start_time
