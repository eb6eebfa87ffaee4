"""Maintenance windows and the endpoints they cover."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from servmon.errors import InvalidInputError, NotFoundError
from servmon.model import MaintenanceMode, MaintenanceWindow
from servmon.store import endpoints, maintenance
from tests.store.seeds import endpoint

START = datetime(2026, 11, 23, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)


def window(*endpoint_ids: str, hours: float = 0, **fields) -> MaintenanceWindow:
    start = START + hours * HOUR
    return MaintenanceWindow(str(uuid4()), "new firmware", start, start + 2 * HOUR, endpoint_ids, **fields)


@pytest.fixture(autouse=True)
async def watched(db):
    await endpoints.provision(db, "api", [endpoint(name) for name in ("a", "b", "c", "deleted")])
    await endpoints.archive(db, "deleted")


async def test_a_window_comes_back_as_it_was_planned(db):
    planned = window("c", "a", mode=MaintenanceMode.PAUSE, created_by="admin")
    stored = await maintenance.insert(db, planned)
    assert replace(stored, created_at=None, updated_at=None) == planned
    assert stored.created_at == stored.updated_at
    assert await maintenance.get(db, planned.id) == stored


async def test_endpoints_that_do_not_exist_are_named_by_their_places(db):
    for store in (maintenance.insert, maintenance.update):
        with pytest.raises(InvalidInputError) as caught:
            await store(db, window("a", "nobody", "b", "deleted"))
        assert [problem.field for problem in caught.value.problems] == ["endpoint_ids.1", "endpoint_ids.3"]
    assert await maintenance.get_page(db, before=None, limit=10) == []


async def test_an_update_replaces_everything_or_nothing(db):
    stored = await maintenance.insert(db, window("a", "b"))
    wanted = replace(stored, description="cancelled", end_time=stored.end_time + HOUR, endpoint_ids=("c", "b"))
    changed = await maintenance.update(db, wanted)
    assert replace(changed, updated_at=None) == replace(wanted, updated_at=None)
    assert changed.updated_at > stored.updated_at
    assert await maintenance.get(db, stored.id) == changed
    with pytest.raises(InvalidInputError):
        await maintenance.update(db, replace(wanted, description="again", endpoint_ids=("nobody",)))
    assert await maintenance.get(db, stored.id) == changed


async def test_a_window_that_is_not_there_is_not_found(db):
    missing = window("a")
    for ask in (
        maintenance.get(db, missing.id),
        maintenance.update(db, missing),
        maintenance.delete(db, missing.id),
    ):
        with pytest.raises(NotFoundError, match=missing.id):
            await ask


async def test_a_removed_window_is_gone(db):
    stored = await maintenance.insert(db, window("a"))
    await maintenance.delete(db, stored.id)
    assert await maintenance.get_page(db, before=None, limit=10) == []
    assert await db.fetchval("select count(*) from maintenance_window_endpoint") == 0


async def test_windows_are_listed_latest_start_first(db):
    stored = [await maintenance.insert(db, window("a", hours=hours)) for hours in (0, 5, 5, 9)]
    newest_first = sorted(stored, key=lambda one: (one.start_time, one.id), reverse=True)
    first = await maintenance.get_page(db, before=None, limit=2)
    rest = await maintenance.get_page(db, before=(first[-1].start_time, first[-1].id), limit=10)
    assert first + rest == newest_first


async def test_a_window_covers_its_start_and_not_its_end(db):
    stored = await maintenance.insert(db, window("a"))
    moments = {
        START - HOUR: ([], [stored]),
        START: ([stored], [stored]),
        stored.end_time - timedelta(microseconds=1): ([stored], [stored]),
        stored.end_time: ([], []),
    }
    for moment, expected in moments.items():
        assert (await maintenance.active(db, moment), await maintenance.not_ended(db, moment)) == expected


async def test_a_deleted_endpoint_stays_in_its_windows(db):
    stored = await maintenance.insert(db, window("a", "b"))
    await endpoints.archive(db, "a")
    assert (await maintenance.get(db, stored.id)).endpoint_ids == ("a", "b")
