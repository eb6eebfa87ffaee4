"""Outages read, listed and resolved by hand."""

from __future__ import annotations

from datetime import timedelta

import pytest

from servmon.clock import now
from servmon.errors import NotFoundError
from servmon.model import Severity, State
from servmon.store import endpoints, outages, state_changes
from tests.store.seeds import declared, endpoint, outage, resolved, store

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True)
async def watched(db):
    await endpoints.provision(db, "api", [endpoint("a"), endpoint("b"), endpoint("c")])


async def test_an_outage_comes_back_as_it_was_declared(db, database):
    opened = outage("a", last_good_at=now() - timedelta(hours=1), evidence={"verification": {"status": "DOWN"}})
    await store(database, (None, [declared(opened)]))
    assert await outages.get(db, opened.id) == opened
    assert await outages.open_outages(db) == [opened]
    with pytest.raises(NotFoundError, match=UNKNOWN_ID):
        await outages.get(db, UNKNOWN_ID)


async def test_outages_are_listed_newest_first_page_by_page(db, database):
    start = now() - timedelta(days=1)
    same_time = [outage(name, start_time=start) for name in ("a", "b", "c")]
    await store(database, *((None, [declared(one), resolved(one)]) for one in same_time))
    newest = outage("a")
    await store(database, (None, [declared(newest)]))

    async def page(active=None, endpoint_id=None, before=None, limit=100):
        found = await outages.get_page(db, active=active, endpoint_id=endpoint_id, before=before, limit=limit)
        return [one.id for one in found]

    everything = [newest.id, *sorted((one.id for one in same_time), reverse=True)]
    assert await page() == everything
    assert await page(limit=2) == everything[:2]
    assert await page(before=(start, everything[1])) == everything[2:]
    assert await page(active=True) == [newest.id]
    assert await page(active=False) == everything[1:]
    assert await page(endpoint_id="a") == [newest.id, same_time[0].id]
    assert {one.id for one in await outages.resolved_among(db, everything)} == set(everything[1:])
    assert await outages.resolved_among(db, [newest.id]) == []


async def test_an_outage_resolved_by_hand_owes_its_closing_notice(db, database):
    opened = outage("a")
    await store(database, (None, [declared(opened)]))
    at = now()
    closed = await outages.resolve(db, opened.id, notes="Fixed network connectivity issue", at=at)
    assert (closed.resolved, closed.resolved_at, closed.revision) == (True, at, 2)
    assert closed.resolution_notes == "Fixed network connectivity issue"
    recorded = (await state_changes.of_endpoint(db, "a", 1))[0]
    assert (recorded.old, recorded.new, recorded.reason) == (State.DOWN, State.UNKNOWN, "resolved by hand")
    assert (recorded.at, recorded.outage_id) == (at, opened.id)


async def test_a_second_resolve_only_changes_the_notes(db, database):
    opened = outage("a")
    await store(database, (None, [declared(opened)]))
    first = await outages.resolve(db, opened.id, notes="first", at=now())
    later = now() + timedelta(hours=1)
    assert await outages.resolve(db, opened.id, notes=None, at=later) == first
    assert await outages.resolve(db, opened.id, notes="first", at=later) == first
    second = await outages.resolve(db, opened.id, notes="second", at=later)
    assert (second.resolution_notes, second.resolved_at, second.revision) == ("second", first.resolved_at, 3)
    assert len(await state_changes.of_endpoint(db, "a", 10)) == 2
    with pytest.raises(NotFoundError):
        await outages.resolve(db, UNKNOWN_ID, notes=None, at=later)


async def test_an_outage_never_ends_before_it_began(db, database):
    opened = outage("a")
    await store(database, (None, [declared(opened)]))
    closed = await outages.resolve(db, opened.id, notes=None, at=opened.start_time - timedelta(hours=1))
    assert closed.resolved_at == opened.start_time


async def test_the_summary_counts_by_severity_and_service(db, database):
    nothing = await outages.summary(db)
    assert (nothing.total, nothing.by_service, nothing.mean_time_to_resolve_seconds) == (0, {}, None)
    assert nothing.by_severity == dict.fromkeys(Severity, 0)
    short, long, still = outage("a"), outage("b"), outage("a", severity=Severity.CRITICAL)
    await store(database, (None, [declared(short), resolved(short, timedelta(minutes=2))]))
    await store(database, (None, [declared(long), resolved(long, timedelta(minutes=4))]))
    await store(database, (None, [declared(still)]))
    summary = await outages.summary(db)
    assert (summary.total, summary.active, summary.resolved) == (3, 1, 2)
    assert summary.by_severity == {"CRITICAL": 1, "MAJOR": 2, "MINOR": 0, "WARNING": 0}
    assert summary.by_service == {"a": 2, "b": 1}
    assert summary.mean_time_to_resolve_seconds == pytest.approx(180)
