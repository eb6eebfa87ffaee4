"""Endpoints in Postgres: who owns them, what a change of one means, and how a daemon learns of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from servmon.clock import now
from servmon.errors import ConflictError, NotFoundError
from servmon.model import Endpoint, Severity, State, Status
from servmon.store import endpoints, outages, state_changes, statuses
from servmon.store.endpoints import Part
from tests.store.seeds import change, endpoint, insert_outage, result, store

FULL = Endpoint(
    id="api-gateway",
    name="API Gateway",
    url="https://api.example.com/health",
    protocol="HTTPS",
    check_interval=30,
    timeout=2.5,
    retries=1,
    expected_status_code=200,
    expected_response_pattern='"status":"UP"',
    is_active=False,
    retry_interval=5,
    detection_threshold=4,
    recovery_threshold=1,
    severity=Severity.CRITICAL,
    degraded_threshold_ms=250.5,
    depends_on=(("r1", "r2"), ("power",)),
    tags=("edge", "käse"),
    site="pop-north",
    options={"headers": {"X": "y"}, "verify": True},
)


def definition(stored: Endpoint) -> Endpoint:
    """What a person defined, without what the database adds."""
    return replace(stored, key=0, revision=0, created_at=None, updated_at=None, archived_at=None)


async def test_every_field_comes_back_as_it_was_given(db):
    stored = await endpoints.insert(db, FULL)
    assert definition(stored) == FULL
    assert stored.key > 0
    assert stored.revision > 0
    assert stored.created_at == stored.updated_at
    assert abs(now() - stored.created_at) < timedelta(minutes=1)
    assert await endpoints.get(db, FULL.id) == stored


async def test_an_id_is_taken_once(db):
    await endpoints.insert(db, endpoint("a"))
    with pytest.raises(ConflictError, match="the id a"):
        await endpoints.insert(db, endpoint("a"))


async def test_ids_are_checked_by_the_database_too(db):
    for wrong in ("", "-a", "a b", "ä", "a" * 129):
        with pytest.raises(asyncpg.CheckViolationError):
            await endpoints.insert(db, endpoint(wrong))


async def test_an_update_changes_the_time_and_revision_only_when_something_changed(db):
    first = await endpoints.insert(db, endpoint("a"))
    same = await endpoints.update(db, endpoint("a"))
    assert same == first
    changed = await endpoints.update(db, endpoint("a", timeout=9))
    assert (changed.timeout, changed.created_at, changed.key) == (9, first.created_at, first.key)
    assert changed.updated_at > first.updated_at
    assert changed.revision > first.revision


async def test_what_is_not_there_is_not_found(db):
    for ask in (endpoints.get(db, "a"), endpoints.archive(db, "a"), endpoints.update(db, endpoint("a"))):
        with pytest.raises(NotFoundError, match="the id a"):
            await ask


async def test_a_deleted_endpoint_is_gone_and_comes_back_with_its_history(db, database):
    first = await endpoints.insert(db, endpoint("a"))
    await store(database, result(first))
    await endpoints.archive(db, "a")
    with pytest.raises(NotFoundError):
        await endpoints.get(db, "a")
    with pytest.raises(NotFoundError):
        await endpoints.archive(db, "a")
    assert await endpoints.get_page(db, Part(10)) == []
    assert len(await statuses.history(db, "a", limit=10, before=None)) == 1
    revived = await endpoints.insert(db, replace(FULL, id="a"))
    assert definition(revived) == replace(FULL, id="a")
    assert (revived.key, revived.created_at, revived.archived_at) == (first.key, first.created_at, None)
    assert (await statuses.latest(db, "a")).status is Status.UP


async def test_pages_go_by_id_in_byte_order(db):
    for endpoint_id in ("b", "a.1", "B", "a-1", "a_1"):
        await endpoints.insert(db, endpoint(endpoint_id))
    first = await endpoints.get_page(db, Part(2))
    rest = await endpoints.get_page(db, Part(10, first[-1].id))
    assert [one.id for one in first + rest] == ["B", "a-1", "a.1", "a_1", "b"]


async def test_changes_since_a_revision_are_those_and_no_others(db):
    everything = await endpoints.changed_since(db, 0)
    assert (everything.endpoints, everything.complete) == ([], True)
    for endpoint_id in ("a", "b", "c", "off"):
        await endpoints.insert(db, endpoint(endpoint_id, is_active=endpoint_id != "off"))
    before = await endpoints.changed_since(db, 0)
    assert ({one.id for one in before.endpoints}, before.complete) == ({"a", "b", "c", "off"}, True)
    nothing = await endpoints.changed_since(db, before.revision)
    assert (nothing.endpoints, nothing.revision, nothing.complete) == ([], before.revision, False)
    await endpoints.update(db, endpoint("a", timeout=1))
    await endpoints.archive(db, "b")
    changes = await endpoints.changed_since(db, before.revision)
    assert {one.id: one.archived_at is not None for one in changes.endpoints} == {"a": False, "b": True}
    assert not changes.complete


async def test_rows_removed_by_hand_make_the_daemon_read_everything(db):
    for endpoint_id in ("a", "b"):
        await endpoints.insert(db, endpoint(endpoint_id))
    before = await endpoints.changed_since(db, 0)
    await db.execute("delete from service_endpoint where id = 'a'")
    after = await endpoints.changed_since(db, before.revision)
    assert ([one.id for one in after.endpoints], after.complete) == (["b"], True)
    await db.execute("truncate service_endpoint cascade")
    last = await endpoints.changed_since(db, after.revision)
    assert (last.endpoints, last.complete) == ([], True)


async def test_a_revision_from_another_database_makes_the_daemon_read_everything(db):
    await endpoints.insert(db, endpoint("a"))
    changes = await endpoints.changed_since(db, 1_000_000)
    assert ([one.id for one in changes.endpoints], changes.complete) == (["a"], True)


async def test_revisions_become_visible_in_their_order(database, db):
    for endpoint_id in ("a", "b"):
        await endpoints.insert(db, endpoint(endpoint_id))
    before = await endpoints.changed_since(db, 0)
    slow, quick = await asyncpg.connect(database), await asyncpg.connect(database)
    transaction = slow.transaction()
    await transaction.start()
    await endpoints.update(slow, endpoint("a", timeout=1))
    waiting = asyncio.ensure_future(endpoints.update(quick, endpoint("b", timeout=1)))  # noqa: TID251 - a test's own
    await waits_for_a_lock(db, quick)
    meanwhile = await endpoints.changed_since(db, before.revision)
    assert (meanwhile.endpoints, meanwhile.revision) == ([], before.revision)
    await transaction.commit()
    await waiting
    after = await endpoints.changed_since(db, meanwhile.revision)
    assert [one.id for one in sorted(after.endpoints, key=lambda one: one.revision)] == ["a", "b"]
    await slow.close()
    await quick.close()


async def waits_for_a_lock(db, connection) -> None:
    backend = connection.get_server_pid()
    while not await db.fetchval("select cardinality(pg_blocking_pids($1)) > 0", backend):  # noqa: ASYNC110 - the database has no event for it
        await asyncio.sleep(0.01)


async def test_provisioning_adds_changes_and_takes_out_of_use(db):
    source = "config:main"
    done = await endpoints.provision(db, source, [endpoint("a"), endpoint("b"), endpoint("c")])
    assert (done.added, done.changed, done.removed, done.conflicts) == (["a", "b", "c"], [], [], [])
    before = {one.id: one for one in await endpoints.get_page(db, Part(10))}
    assert {one.source for one in before.values()} == {source}

    done = await endpoints.provision(db, source, [endpoint("a"), endpoint("b", timeout=1)])
    assert (done.added, done.changed, done.removed, done.conflicts) == ([], ["b"], ["c"], [])
    after = {one.id: one for one in await endpoints.get_page(db, Part(10))}
    assert after["a"] == before["a"]
    assert (after["b"].timeout, after["c"].is_active) == (1, False)

    again = await endpoints.provision(db, source, [endpoint("a"), endpoint("b", timeout=1)])
    assert (again.added, again.changed, again.removed) == ([], [], [])
    back = await endpoints.provision(db, source, [endpoint("a"), endpoint("b", timeout=1), endpoint("c")])
    assert (back.changed, (await endpoints.get(db, "c")).is_active) == (["c"], True)


async def test_provisioning_leaves_what_others_own_alone(db):
    mine = await endpoints.insert(db, endpoint("mine"))
    await endpoints.provision(db, "config:other", [endpoint("theirs")])
    await endpoints.insert(db, endpoint("deleted"))
    await endpoints.archive(db, "deleted")
    wanted = [endpoint("mine", timeout=1), endpoint("theirs", timeout=1), endpoint("deleted", timeout=1)]
    done = await endpoints.provision(db, "config:main", wanted)
    assert (done.added, done.conflicts) == (["deleted"], ["mine", "theirs"])
    assert await endpoints.get(db, "mine") == mine
    assert (await endpoints.get(db, "theirs")).timeout == 5
    assert (await endpoints.get(db, "deleted")).source == "config:main"


@pytest.mark.alone
async def test_thousands_of_endpoints_are_provisioned_in_a_moment(db):
    wanted = [endpoint(f"endpoint-{number:05}", options={"headers": {"X": "y"}}) for number in range(12_000)]
    started = time.perf_counter()
    assert len((await endpoints.provision(db, "config:main", wanted)).added) == 12_000
    added_after = time.perf_counter() - started
    revision = (await endpoints.changed_since(db, 0)).revision
    assert (await endpoints.provision(db, "config:main", wanted)).changed == []
    assert (await endpoints.changed_since(db, revision)).endpoints == []
    assert added_after < 4  # measured: about a second on an idle machine


@pytest.mark.parametrize(
    ("wanted", "notes", "reason"),
    [
        ("archived_at = now()", "Closed because the endpoint was deleted", "endpoint deleted"),
        ("is_active = false", "Closed because the endpoint was deactivated", "endpoint deactivated"),
        ("url = 'tcp://b:1'", "Closed because its url changed from tcp://a:1 to tcp://b:1", "url changed"),
        ("protocol = 'UDP'", "Closed because its protocol changed from TCP to UDP", "protocol changed"),
    ],
)
async def test_an_outage_ends_with_the_question_it_is_about(db, wanted, notes, reason):
    for endpoint_id in ("a", "other"):
        await insert_outage(db, await endpoints.insert(db, endpoint(endpoint_id)))
    await db.execute(f"update service_endpoint set {wanted} where id = 'a'")
    assert [one.endpoint_id for one in await outages.open_outages(db)] == ["other"]
    (closed,) = await outages.get_page(db, active=False, endpoint_id=None, before=None, limit=10)
    assert (closed.endpoint_id, closed.resolution_notes, closed.revision) == ("a", notes, 2)
    assert closed.resolved_at >= closed.start_time
    (recorded,) = await state_changes.of_endpoint(db, "a", 10)
    assert (recorded.old, recorded.new, recorded.reason) == (State.DOWN, State.UNKNOWN, reason)
    assert (recorded.outage_id, recorded.at) == (closed.id, closed.resolved_at)
    assert await db.fetchval("select count(*) from state_change where processed_at is null") == 1


async def test_other_changes_leave_an_outage_open(db):
    await insert_outage(db, await endpoints.insert(db, endpoint("a")))
    await endpoints.update(db, endpoint("a", name="new name", timeout=1, severity=Severity.CRITICAL))
    assert len(await outages.open_outages(db)) == 1
    assert await state_changes.of_endpoint(db, "a", 10) == []


async def test_an_outage_declared_while_its_endpoint_is_deleted_is_closed_all_the_same(db, database):
    watched = await endpoints.insert(db, endpoint("a"))
    deleting = await asyncpg.connect(database)
    transaction = deleting.transaction()
    await transaction.start()
    await endpoints.archive(deleting, "a")
    await insert_outage(db, watched)
    await outages.close_unwatched(db)
    assert len(await outages.open_outages(db)) == 1
    await transaction.commit()
    await deleting.close()
    await outages.close_unwatched(db)
    assert await outages.open_outages(db) == []
    (recorded,) = await state_changes.of_endpoint(db, "a", 10)
    assert recorded.reason == "endpoint deleted"


async def test_the_last_change_of_each_endpoint_is_the_one_recorded_last(db, database):
    await endpoints.provision(db, "api", [endpoint("a"), endpoint("b"), endpoint("never")])
    at = now()
    await store(
        database,
        change("a", State.UP, State.SUSPECTED, at),
        change("a", State.SUSPECTED, State.DOWN, at),
        change("a", State.UNKNOWN, State.UP, at - timedelta(minutes=1)),
        change("b", State.UNKNOWN, State.UP, at),
    )
    last = {one.endpoint_id: one.new for one in await state_changes.last_changes(db)}
    assert last == {"a": State.DOWN, "b": State.UP}
    assert [one.new for one in await state_changes.of_endpoint(db, "a", 2)] == [State.DOWN, State.SUSPECTED]
