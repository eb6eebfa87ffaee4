"""Maintenance windows and the endpoints they cover."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from servmon.errors import InvalidInputError, NotFoundError
from servmon.model import MaintenanceMode, MaintenanceWindow, Occurrence
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
        maintenance.delete(db, missing.id, START),
    ):
        with pytest.raises(NotFoundError, match=missing.id):
            await ask


async def test_a_deleted_window_is_found_no_more_and_ends_what_it_covers(db):
    stored = await maintenance.insert(db, window("a"))
    await maintenance.delete(db, stored.id, START + HOUR)
    assert await maintenance.get_page(db, before=None, limit=10) == []
    for ask in (
        maintenance.get(db, stored.id),
        maintenance.update(db, stored),
        maintenance.delete(db, stored.id, START + HOUR),
    ):
        with pytest.raises(NotFoundError):
            await ask
    (kept,) = await maintenance.over_endpoint(db, "a", START, START + 2 * HOUR)
    assert kept.deleted_at == START + HOUR
    assert await maintenance.between(db, START + HOUR, START + 2 * HOUR) == []


async def test_windows_are_listed_latest_start_first(db):
    stored = [await maintenance.insert(db, window("a", hours=hours)) for hours in (0, 5, 5, 9)]
    newest_first = sorted(stored, key=lambda one: (one.start_time, one.id), reverse=True)
    first = await maintenance.get_page(db, before=None, limit=2)
    rest = await maintenance.get_page(db, before=(first[-1].start_time, first[-1].id), limit=10)
    assert first + rest == newest_first


async def test_windows_of_a_period_are_those_that_touch_it(db):
    stored = await maintenance.insert(db, window("a"))
    later, instant = stored.end_time + HOUR, timedelta(microseconds=1)
    for since, until, found in (
        (START - HOUR, START, []),
        (START - HOUR, START + instant, [stored]),
        (stored.end_time - instant, later, [stored]),
        (stored.end_time, later, []),
    ):
        assert await maintenance.between(db, since, until) == found
        assert await maintenance.over_endpoint(db, "a", since, until) == found
        assert await maintenance.over_endpoint(db, "b", since, until) == []


async def test_windows_are_found_by_tag_and_site_and_recurring_ones_until_they_are_over(db):
    await endpoints.provision(db, "api", [endpoint("edge", tags=("core",), site="pop-north")])
    by_tag = await maintenance.insert(db, window(tags=("core", "x"), rrule="FREQ=DAILY"))
    by_site = await maintenance.insert(db, window(sites=("pop-north",), rrule="FREQ=DAILY;COUNT=3"), START + 50 * HOUR)
    late = START + 49 * HOUR
    assert {one.id for one in await maintenance.over_endpoint(db, "edge", late, late + HOUR)} == {by_tag.id, by_site.id}
    assert await maintenance.over_endpoint(db, "a", late, late + HOUR) == []
    assert [one.id for one in await maintenance.between(db, START + 50 * HOUR, START + 99 * HOUR)] == [by_tag.id]


async def test_recorded_occurrences_are_kept_as_they_are_given(db):
    stored = await maintenance.insert(db, window("a", rrule="FREQ=DAILY"))
    keys = ("2026-11-23", "2026-11-24")
    both = tuple(Occurrence(stored.id, key, START + n * HOUR, START + (n + 1) * HOUR) for n, key in enumerate(keys))
    changed = await maintenance.update(db, replace(stored, recorded=both))
    assert changed.recorded == both
    moved = (replace(both[1], end_time=START + 9 * HOUR),)
    await maintenance.update(db, replace(stored, recorded=moved))
    assert (await maintenance.get(db, stored.id)).recorded == moved


async def test_a_deleted_endpoint_stays_in_its_windows(db):
    stored = await maintenance.insert(db, window("a", "b"))
    await endpoints.archive(db, "a")
    assert (await maintenance.get(db, stored.id)).endpoint_ids == ("a", "b")
