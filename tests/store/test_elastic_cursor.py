from __future__ import annotations

import re

from servmon.store import elastic_cursor, endpoints, statuses
from servmon.store.elastic_cursor import Subjects, open_reader, page, summarize
from tests.store.seeds import endpoint, result, store
from tests.store.test_schema import MANY_ROWS, explain

ROWS = 100_000


async def test_a_page_is_found_by_its_numbers_without_reading_the_table(db, database):
    """The partition is young: it has no statistics, and autovacuum has not been there."""
    await db.execute("select ensure_status_partition('2026-03-01')")
    await db.execute(MANY_ROWS, ROWS)
    reader = await open_reader(database)
    await summarize(reader)
    await reader.execute("set enable_seqscan = off")  # as page() does
    plan = await explain(reader, elastic_cursor._PAGE, 50_000, 51_000, 1000)
    assert "Bitmap Index Scan on service_status_row_20260301_seq_idx" in plan
    assert "Seq Scan on service_status_row" not in plan
    read = sum(int(number) for number in re.findall(r"Rows Removed by Index Recheck: (\d+)", plan))
    assert read < ROWS / 4
    found, end = await page(reader, Subjects(), 50_000, 51_000, 1000)
    assert (found, end) == ([], 51_000)  # of endpoints that nobody knows
    await reader.close()


async def test_partitions_that_are_made_later_have_the_index_too(db):
    await db.execute("select ensure_status_partition('2026-03-02')")
    names = [row["name"] for row in await db.fetch(elastic_cursor._INDEXES)]
    assert "service_status_row_20260302_seq_idx" in names


async def test_pages_follow_each_other_without_gap_or_overlap(db, database):
    watched = await endpoints.insert(db, endpoint("web"))
    await store(database, *(result(watched, attempts=number) for number in range(1, 26)))
    reader, subjects, cursor, seen = await open_reader(database), Subjects(), 0, []
    until = await elastic_cursor.last_number(reader)
    while cursor < until:
        found, cursor = await page(reader, subjects, cursor, until, 10)
        seen += [row.status.attempts for row in found]
    assert seen == list(range(1, 26))
    await reader.close()


async def test_the_cursor_never_goes_back(db):
    await elastic_cursor.advance(db, 10)
    await elastic_cursor.advance(db, 5)
    assert await elastic_cursor.cursor(db) == 10


async def test_what_elasticsearch_refused_is_not_told_to_be_synced(db, database):
    watched = await endpoints.insert(db, endpoint("web"))
    await store(database, result(watched), result(watched))
    await elastic_cursor.advance(db, await elastic_cursor.last_number(db))
    await db.execute(
        "insert into elasticsearch_dead_letter (kind, document_id, version, index_name, document, reason)"
        " select 'status', id, (select min(seq) from service_status_row), 'i', '{}', 'no' from service_status limit 1"
    )
    told = await statuses.history(db, "web", limit=10, before=None)
    assert [row.elasticsearch_synced for row in told] == [True, False]
    assert await db.fetchval("select count(*) from service_status where elasticsearch_synced") == 1
