"""Notices of planned work through the stored outbox: once each, over restarts and lost connections."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest

from servmon.alerts import planning
from servmon.alerts.alert import MessageKind
from servmon.alerts.planning import Planning
from servmon.alerts.window_ends import ending_id
from servmon.detection.maintenance import by_endpoint, covered
from servmon.model import MaintenanceWindow
from servmon.store import endpoints, maintenance, plans
from tests.store.seeds import endpoint

START = datetime(2026, 11, 29, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Facts:
    """The windows of the database over two endpoints, of which some do not answer."""

    def __init__(self) -> None:
        self.near: tuple = ()
        self.silent: set[str] = set()

    def covered(self) -> tuple:
        return self.near

    def does_not_answer(self, endpoint_id: str) -> bool:
        return endpoint_id in self.silent


class Office:
    """A servmon that only tells of planned work; ``restart`` makes another one on the same database."""

    def __init__(self, db) -> None:
        self.db = db
        self.now = START
        self.facts = Facts()
        self.sent: list = []
        self.restart()

    def restart(self) -> None:
        self.ended: dict[str, bool] = {}
        alerting = SimpleNamespace(restored=asyncio.Event(), send=self.send)
        dispatcher = SimpleNamespace(
            window_ends=SimpleNamespace(told=self.ended), settings=SimpleNamespace(notification_channels=("noc",))
        )
        clock = SimpleNamespace(wall=lambda: self.now.timestamp())  # noqa: PLW0108 - it moves on
        self.planning = Planning(self.db, alerting, dispatcher, self.facts, clock)

    async def send(self, stored) -> None:
        self.sent += stored

    async def at(self, hours: float) -> list[MessageKind]:
        """The kinds of the messages that are handed over in a round so many hours after the start."""
        self.now = START + hours * HOUR
        windows = await maintenance.between(self.db, self.now - HOUR, self.now + HOUR)
        over = by_endpoint(windows, [endpoint("a"), endpoint("b")], self.now - HOUR, self.now + HOUR)
        self.facts.near = covered(windows, over)
        self.sent.clear()
        await self.planning.round()
        return [one.kind for one in self.sent]

    async def stored(self) -> list[str]:
        return [row["kind"] for row in await self.db.fetch("select kind from notification order by seq")]


@pytest.fixture
async def office(db):
    await endpoints.provision(db, "api", [endpoint("a"), endpoint("b")])
    return Office(db)


async def plan(db, **fields) -> MaintenanceWindow:
    times = (START, START + 2 * HOUR)
    window = MaintenanceWindow(str(uuid4()), "New firmware", *times, ("a", "b"), notify=("noc",), **fields)
    return await maintenance.insert(db, window)


async def test_each_notice_is_stored_and_sent_once_over_any_restart(db, office):
    await plan(db, notify_before=(3600,))
    expected = {-2: [], -1: [MessageKind.PLANNED], 0: [MessageKind.WINDOW_BEGINS], 1: []}
    for hours, kinds in expected.items():
        assert await office.at(hours) == kinds
        assert await office.at(hours) == []
        office.restart()
        assert await office.at(hours) == []
    assert await office.stored() == ["planned", "maintenance begins"]


async def test_the_end_names_what_does_not_answer_shortly_before_and_is_told_after_the_grace(db, office):
    await plan(db)
    assert await office.at(0) == [MessageKind.WINDOW_BEGINS]
    office.facts.silent = {"a"}
    assert await office.at(1.8) == [MessageKind.WINDOW_ENDS_SOON]
    assert office.sent[0].content["down"] == ["a"]
    office.restart()
    assert await office.at(1.9) == []
    office.facts.silent = set()
    assert await office.at(2.01) == []
    office.ended[ending_id(office.facts.near[0])] = False
    assert await office.at(2.1) == [MessageKind.WINDOW_WENT_WELL]
    assert office.sent[0].subject == "MAINTENANCE OVER: New firmware (everything is back)"
    office.restart()
    office.ended[ending_id(office.facts.near[0])] = False
    assert await office.at(2.2) == []
    assert await office.at(72) == []
    assert await db.fetchval("select count(*) from maintenance_notice") == 0


async def test_a_cancelled_window_is_told_also_where_servmon_was_away_when_it_was_deleted(db, office):
    window = await plan(db, notify_before=(86_400,))
    assert await office.at(-24) == [MessageKind.PLANNED]
    await maintenance.delete(db, window.id, START - 23 * HOUR)
    office.restart()
    assert await office.at(-10) == [MessageKind.PLAN_CANCELLED]
    assert office.sent[0].content["calendar"]["cancelled"] is True
    assert await office.at(-9) == []


@pytest.mark.parametrize("stored", [True, False])
async def test_a_connection_lost_at_the_commit_loses_and_repeats_no_notice(db, office, monkeypatch, stored):
    await plan(db, notify_before=(3600,))
    record = plans.record

    async def lost(*args):
        if stored:
            await record(*args)
        raise ConnectionError

    monkeypatch.setattr(planning.plans, "record", lost)
    with pytest.raises(ConnectionError):
        await office.at(-1)
    monkeypatch.setattr(planning.plans, "record", record)
    assert await office.at(-0.99) == [MessageKind.PLANNED]
    assert await office.at(-0.98) == []
    assert await office.stored() == ["planned"]


async def test_it_waits_until_what_is_owed_from_before_was_taken_up(office):
    waiting = asyncio.ensure_future(office.planning.follow())  # noqa: TID251 - cancelled below
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
