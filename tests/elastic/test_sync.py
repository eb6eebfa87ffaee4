"""Documents = rows, one each, in the right day's index."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from servmon.clock import now, rfc3339
from servmon.elastic.bulk import encode
from servmon.elastic.cluster import AwayError, Cluster
from servmon.elastic.mapping import MAINTENANCE_INDEX, outage_document, outage_index, status_document
from servmon.elastic.settings import ElasticsearchSection
from servmon.elastic.sync import Sync
from servmon.metrics import Counters
from servmon.store import endpoints, maintenance, outages, statuses
from servmon.store.elastic_cursor import UnsettledError, last_number, settled_mark
from tests.elastic.rig import as_stored
from tests.store.seeds import endpoint, result, store


async def test_everything_there_is_becomes_one_document_each(mirror):
    web, dns = await mirror.watch("web", "dns")
    await mirror.check(web, 90)
    await mirror.check(dns, 1300)
    await mirror.open_outage(web)
    await mirror.open_outage(dns, resolved=True, resolved_at=now())
    await mirror.plan("web", "dns")
    await mirror.pass_time(1)
    await mirror.is_whole()
    assert await mirror.synced() == (1390, 2)
    assert not mirror.troubles
    assert mirror.counters.elasticsearch_documents >= 1393


async def test_a_document_tells_all_that_its_row_does(mirror):
    web = await mirror.watch("web")
    await mirror.check(web, 40)
    await mirror.pass_time(1)
    held = {key: source for documents in (await mirror.held()).values() for key, source in documents.items()}
    for status in await statuses.history(mirror.db, "web", limit=100, before=None):
        assert held[status.id] == as_stored(status_document(status, web))
        assert status.elasticsearch_synced


async def test_nothing_is_sent_twice_and_new_results_wait_for_the_interval(mirror):
    web = await mirror.watch("web")
    await mirror.check(web, 10)
    await mirror.pass_time(1)
    sent = mirror.counters.elasticsearch_documents
    await mirror.check(web, 1)
    await mirror.pass_time(290)
    assert mirror.counters.elasticsearch_documents == sent
    await mirror.pass_time(20)
    assert mirror.counters.elasticsearch_documents == sent + 1
    await mirror.is_whole()


async def test_a_row_that_commits_after_one_with_a_higher_number_is_not_lost(mirror):
    web = await mirror.watch("web")
    await mirror.check(web, 1)
    slow = await asyncpg.connect(mirror.database)
    begun = slow.transaction()
    await begun.start()
    await slow.execute(
        "insert into service_status_row (timestamp, endpoint_key, status, observer, attempts)"
        " values ('2026-11-20T23:30:30Z', $1, 'UP', 1, 1)",
        web.key,
    )
    await mirror.check(web, 1)
    await mirror.pass_time(1)
    assert "open for more than" in mirror.troubles["elasticsearch"]
    await begun.commit()
    await slow.close()
    await mirror.pass_time(300)
    await mirror.is_whole()
    assert await mirror.synced() == (3, 0)


async def test_rows_of_overlapping_transactions_are_never_passed_over(mirror):
    web = await mirror.watch("web")
    await mirror.check(web, 1)
    await mirror.pass_time(1)

    async def write(observer: int) -> None:
        connection = await asyncpg.connect(mirror.database)
        for number in range(40):
            async with connection.transaction():
                for part in range(2):
                    await connection.execute(
                        "insert into service_status_row (timestamp, endpoint_key, status, observer, attempts)"
                        " values ('2026-11-20T12:00:00Z'::timestamptz + $1 * interval '1 second', $2, 'UP', $3, 1)",
                        2 * number + part,
                        web.key,
                        observer,
                    )
        await connection.close()

    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(write(observer)) for observer in range(2, 5)]
        while not all(writer.done() for writer in writers):
            await mirror.pass_time(300)
    await mirror.pass_time(600)
    assert await mirror.synced() == (241, 0)
    await mirror.is_whole()


async def test_a_long_transaction_elsewhere_holds_up_nothing(database, db):
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("create table unrelated (x int)")
        assert await settled_mark(db, patience=0) == 0
    await other.close()


async def test_a_mark_is_told_only_when_every_writer_has_ended(database, db):
    await db.execute("select ensure_status_partition('2026-11-20')")
    writer = await asyncpg.connect(database)
    begun = writer.transaction()
    await begun.start()
    # Its number is given before anything is written: the lock alone tells.
    await writer.execute("lock table service_status_row in row exclusive mode")
    await writer.fetchval("select nextval('service_status_seq')")
    with pytest.raises(UnsettledError):
        await settled_mark(db, patience=0.1)
    waiting = asyncio.ensure_future(settled_mark(db))  # noqa: TID251 - awaited below
    await asyncio.sleep(0)
    await begun.commit()
    assert await waiting == await last_number(db) == 1
    await writer.close()


async def test_no_number_below_the_first_row_is_told(database, db):
    assert await last_number(db) == 0
    web = await endpoints.insert(db, endpoint("web"))
    await store(database, result(web))
    assert await last_number(db) == await db.fetchval("select max(seq) from service_status_row")


async def test_numbers_that_were_never_used_are_stepped_over(mirror):
    web = await mirror.watch("web")
    await mirror.check(web, 1)
    await mirror.db.execute("select setval('service_status_seq', 5000000)")
    await mirror.check(web, 5)
    await mirror.pass_time(1)
    await mirror.is_whole()
    assert mirror.steps < 40


async def test_a_changed_outage_is_there_within_ten_seconds(mirror):
    web = await mirror.watch("web")
    await mirror.pass_time(1)
    opened = await mirror.open_outage(web)
    await mirror.pass_time(10)
    index = outage_index(opened.start_time)
    assert (await mirror.held())[index][opened.id]["resolved"] is False
    await outages.resolve(mirror.db, opened.id, notes="mended", at=now())
    await mirror.pass_time(10)
    there = (await mirror.held())[index][opened.id]
    assert (there["resolved"], there["resolution_notes"], there["revision"]) == (True, "mended", 2)


async def test_an_open_outage_is_said_to_be_open_again_and_again(mirror):
    web = await mirror.watch("web")
    opened = await mirror.open_outage(web, start_time=now() - timedelta(days=3))
    await mirror.pass_time(1)
    index = outage_index(opened.start_time)
    before = (await mirror.held())[index][opened.id]["last_seen_at"]
    await mirror.pass_time(3600)
    after = (await mirror.held())[index][opened.id]
    assert before < after["last_seen_at"]
    assert after["last_seen_at"] >= rfc3339(datetime.fromtimestamp(mirror.clock.at - 301, UTC))
    assert await mirror.db.fetchval("select revision from service_outage") == 1  # the row was left alone
    await mirror.is_whole()


async def test_a_late_word_never_rolls_an_outage_back(mirror):
    web = await mirror.watch("web")
    opened = await mirror.open_outage(web)
    old = await outages.get(mirror.db, opened.id)
    await outages.resolve(mirror.db, opened.id, notes="mended", at=now())
    await mirror.pass_time(1)
    late = outage_document(old, web, seen_at=now())
    items = await mirror.cluster.bulk(encode(late), 1)
    assert items[0]["status"] == 409
    there = (await mirror.held())[outage_index(opened.start_time)][opened.id]
    assert there["resolved"] is True


async def test_a_change_while_it_is_being_sent_is_sent_as_well(mirror):
    """The channels of an outage change without a new revision, so the revision alone could not tell."""
    web = await mirror.watch("web")
    opened = await mirror.open_outage(web)
    await mirror.pass_time(1)
    await mirror.db.execute("update service_outage set synced_revision = 0")

    async def meanwhile(request, _body):
        if request.path == "/_bulk":
            mirror.proxy.fault = None
            await mirror.db.execute(
                "update service_outage set notification_channels = '[\"noc\"]',"
                " synced_revision = least(synced_revision, revision - 1)"
            )

    mirror.proxy.fault = meanwhile
    await mirror.pass_time(10)
    there = (await mirror.held())[outage_index(opened.start_time)][opened.id]
    assert there["notification_channels"] == ["noc"]
    assert await mirror.synced() == (0, 1)


async def test_windows_follow_their_rows_and_deleted_ones_go(mirror):
    await mirror.watch("web", "dns")
    first, second = await mirror.plan("web", "dns"), await mirror.plan("dns")
    await mirror.pass_time(1)
    there = (await mirror.held())[MAINTENANCE_INDEX]
    assert there[first.id]["endpoint_names"] == ["The web", "The dns"]
    await maintenance.update(mirror.db, replace(second, description="fibre"))
    await maintenance.delete(mirror.db, first.id, now())
    await mirror.pass_time(10)
    there = (await mirror.held())[MAINTENANCE_INDEX]
    assert {key: source["description"] for key, source in there.items()} == {second.id: "fibre"}
    await maintenance.delete(mirror.db, second.id, now())
    await mirror.pass_time(10)
    await mirror.is_whole()


async def test_two_that_sync_at_once_make_one_document_of_each_row(mirror):
    web = await mirror.watch("web")
    await mirror.check(web, 2500)
    others = [Sync(await mirror.fresh_reader(), mirror.cluster, counters=Counters()) for _ in range(2)]

    async def drain(sync: Sync) -> None:
        while await sync.statuses():
            pass

    await mirror.pass_time(0)
    async with asyncio.TaskGroup() as group:
        for sync in others:
            group.create_task(drain(sync))
        group.create_task(mirror.pass_time(5))
    await mirror.is_whole()


async def test_a_renamed_endpoint_gives_its_new_name_to_what_follows(mirror):
    web = await mirror.watch("web")
    await mirror.check(web, 1)
    await mirror.pass_time(1)
    await mirror.db.execute("update service_endpoint set name = 'Portal'")
    await mirror.check(web, 1)
    await mirror.pass_time(300)
    names = {source["endpoint_name"] for documents in (await mirror.held()).values() for source in documents.values()}
    assert names == {"The web", "Portal"}


async def test_twins_of_the_common_schema_stand_there_only_if_wanted(mirror):
    web = await mirror.watch("web")
    await mirror.check(web, 2)
    mirror.settings = mirror.settings.model_copy(update={"ecs_fields": True})
    mirror.lanes = mirror.follower.lanes(mirror.settings, mirror.cluster, mirror.reader)
    await mirror.pass_time(1)
    found = [source for documents in (await mirror.held()).values() for source in documents.values()]
    assert {source["service"]["name"] for source in found} == {"The web"}
    assert all(source["@timestamp"] == source["timestamp"] for source in found)


def test_alone_nothing_of_the_client_is_imported():
    """The client takes a second to import; who wants no Elasticsearch does not wait for it."""
    code = "import servmon.daemon, servmon.cli, sys; sys.exit('elasticsearch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_secret_of_the_settings_is_in_no_sentence(caplog):
    settings = ElasticsearchSection(hosts=("http://127.0.0.1:9",), username="u", password="planted-secret")
    async with Cluster(settings) as cluster:
        with pytest.raises(AwayError) as caught:
            await cluster.ask("GET", "/")
    assert "planted-secret" not in f"{caught.value!r} {settings!r} {settings} {caplog.text}"


async def test_syncing_costs_no_room_in_the_database(mirror):
    web = await mirror.watch("web")
    await mirror.check(web, 2000)
    size = (
        "select sum(pg_total_relation_size(oid))::bigint from pg_class"
        " where relname ~ '^(service|elastic)' and relkind = 'r'"
    )
    before = await mirror.db.fetchval(size)
    await mirror.pass_time(1)
    assert await mirror.synced() == (2000, 0)
    assert await mirror.db.fetchval(size) <= 1.1 * before


async def test_an_outage_that_is_being_changed_is_waited_for_by_nobody(mirror):
    web = await mirror.watch("web")
    opened = await mirror.open_outage(web)
    other = await asyncpg.connect(mirror.database)
    begun = other.transaction()
    await begun.start()
    await other.execute("update service_outage set severity = 'CRITICAL', revision = revision + 1")
    await mirror.pass_time(1)
    assert await mirror.synced() == (0, 0)
    await begun.commit()
    await other.close()
    await mirror.pass_time(10)
    assert (await mirror.held())[outage_index(opened.start_time)][opened.id]["severity"] == "CRITICAL"
    assert await mirror.synced() == (0, 1)
