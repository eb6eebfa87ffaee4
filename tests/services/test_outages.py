"""Outages and maintenance windows as Python callers see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from servmon.errors import InvalidInputError, NotFoundError
from servmon.model import MaintenanceMode, Status
from servmon.services.availability import AvailabilityService
from servmon.services.outages import OutageManagementService

NOW = datetime.now(UTC)  # noqa: TID251 - windows are active in real time
WORK = {"endpoint_ids": ["a"], "start_time": NOW - timedelta(hours=1), "end_time": NOW + timedelta(hours=1)}


@pytest.fixture
async def service(connection) -> OutageManagementService:
    for endpoint_id in ("a", "b"):
        await AvailabilityService(connection).create_endpoint({"id": endpoint_id, "url": "tcp://192.0.2.1:1"})
    return OutageManagementService(connection)


async def test_outages_are_picked_by_endpoint_and_by_whether_they_last(service, history):
    closed = await history.outage("a", minutes=50, resolved=True)
    opened = await history.outage("a", minutes=10)
    other = await history.outage("b", minutes=5)
    assert [outage.id for outage in await service.list_outages()] == [other.id, opened.id, closed.id]
    assert [outage.id for outage in await service.list_outages(endpoint_id="a")] == [opened.id, closed.id]
    assert [outage.id for outage in await service.list_outages(active=False)] == [closed.id]
    assert [outage.id for outage in await service.get_active_outages()] == [other.id, opened.id]
    assert [outage.id for outage in await service.get_active_outages(limit=1)] == [other.id]


async def test_resolving_says_whether_the_endpoint_is_still_down(service, history):
    first, second = await history.outage("a"), await history.outage("b")
    await history.check("a", Status.DOWN)
    await history.check("b", Status.DOWN, Status.UP)
    assert (await service.resolve_outage(first.id)).still_down is True
    assert (await service.resolve_outage(second.id)).still_down is False


async def test_notes_can_be_added_to_a_resolved_outage_and_its_end_stays(service, history):
    outage = await history.outage("a", resolved=True)
    after = await service.resolve_outage(outage.id, "a digger")
    assert (after.resolution_notes, after.resolved_at) == ("a digger", outage.resolved_at)
    assert (await service.resolve_outage(outage.id)).resolution_notes == "a digger"


async def test_notes_that_are_no_text_are_refused(service, history):
    outage = await history.outage("a")
    for notes in (7, ["x"], "x" * 10_001, "a\0b"):
        with pytest.raises(InvalidInputError, match="resolution_notes"):
            await service.resolve_outage(outage.id, notes)
    assert (await service.get_outage(outage.id)).resolved is False


async def test_a_window_is_changed_field_by_field(service):
    window = await service.create_maintenance_window({**WORK, "description": "card swap", "created_by": "lea"})
    changed = await service.update_maintenance_window(window.id, {"mode": "pause", "endpoint_ids": ["b"]})
    assert (changed.mode, changed.endpoint_ids) == (MaintenanceMode.PAUSE, ("b",))
    assert (changed.description, changed.created_by, changed.id) == ("card swap", "lea", window.id)
    assert await service.get_maintenance_window(window.id) == changed


async def test_a_window_made_in_python_says_so(service):
    assert (await service.create_maintenance_window(WORK)).created_by == "python"


async def test_only_windows_over_this_moment_are_active(service):
    active = await service.create_maintenance_window(WORK)
    await service.create_maintenance_window({**WORK, "start_time": NOW + timedelta(minutes=30)})
    await service.create_maintenance_window({**WORK, "end_time": NOW - timedelta(minutes=30)})
    assert [window.id for window in await service.get_active_maintenance_windows()] == [active.id]
    assert len(await service.list_maintenance_windows()) == 3


async def test_a_window_over_an_unknown_endpoint_is_refused_and_not_kept(service):
    with pytest.raises(InvalidInputError, match=r"endpoint_ids\.1"):
        await service.create_maintenance_window({**WORK, "endpoint_ids": ["a", "nobody"]})
    assert await service.list_maintenance_windows() == []


async def test_unknown_ids_are_not_found(service):
    for unknown in ("x", "", "00000000-0000-4000-8000-000000000000", "{0}", "a\0b"):
        for asked in (
            service.get_outage(unknown),
            service.resolve_outage(unknown),
            service.get_maintenance_window(unknown),
            service.update_maintenance_window(unknown, {}),
            service.delete_maintenance_window(unknown),
        ):
            with pytest.raises(NotFoundError):
                await asked
