"""Maintenance windows end to end on virtual time: the real scheduler, monitor, watchlist, dispatcher and planning."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from servmon.alerts.planning import Planning
from servmon.alerts.plans import Told
from servmon.clock import now
from servmon.model import Endpoint, MaintenanceWindow, Status
from servmon.surroundings import Surroundings
from servmon.tasks import cancel, spawn
from servmon.watchlist import Watchlist
from tests.test_dependencies import Telling, dead
from tests.virtual import START, World, endpoint, run_virtual

WINDOW_ID = "33333333-3333-4333-8333-333333333333"


class Works(Telling):
    """A world in which work is planned; the windows are those that Postgres would hold."""

    def __init__(self, script) -> None:
        super().__init__(script)
        self.windows: list[MaintenanceWindow] = []
        self.plans: dict[tuple[str, str], Told] = {}
        world = self.world
        self.watchlist = Watchlist(
            None, monitor=world.monitor, scheduler=world.scheduler, runner=world.runner, clock=world.clock
        )
        facts = Surroundings(world.monitor, world.causes, world.clock)
        self.planning = Planning(None, SimpleNamespace(), self.dispatcher, facts, world.clock)

    def window(self, start: float, end: float, *endpoint_ids: str, **fields: Any) -> MaintenanceWindow:
        wall = self.world.wall
        return MaintenanceWindow(WINDOW_ID, "New firmware", wall(start), wall(end), endpoint_ids, **fields)

    def plan(self, *windows: MaintenanceWindow) -> None:
        """What a refresh makes of the windows as they are now stored."""
        self.windows = list(windows)
        self.watchlist._take_windows(self.windows, changed=True)

    async def run(self, seconds: float) -> None:
        tasks = [spawn(self.watchlist.follow_window_ends(), name="ends"), spawn(self._plan_rounds(), name="plans")]
        await super().run(seconds)
        await cancel(*tasks)

    async def _plan_rounds(self) -> None:
        while True:
            await asyncio.sleep(5)
            at = now(self.world.clock)
            messages, changed = self.planning.look(self.windows, list(self.plans.values()), at)
            self.plans |= {(one.window_id, one.key): one for one in changed}
            moment = self.world.clock.monotonic()
            self.told += [(moment, one.kind, one.subject.split(" (")[0]) for one in messages]


def works(script, seconds: float, endpoints: list[Endpoint], disturb: Callable[[Works], Awaitable[None]]) -> Works:
    async def main() -> Works:
        rig = Works(script)
        rig.world.watch(endpoints)
        task = spawn(disturb(rig), name="disturbance")
        await rig.run(seconds)
        await task
        return rig

    return run_virtual(main)


def moments(rig: Works) -> list[tuple[int, str]]:
    """When which subjects were told, in whole minutes."""
    return [(round(moment / 60), subject) for moment, _, subject in rig.told]


def test_window_on_the_router_only_overrun_by_10_min_with_3_children_dead():
    """The window ends at 6000; the router is back at 6600, three of its children are not."""
    children = [f"c{number}" for number in range(20)]
    outlast = [(name, 2100, 12_000) for name in ("c3", "c7", "c11")]

    async def disturb(rig: Works) -> None:
        rig.plan(rig.window(2000, 6000, "router"))

    rig = works(
        dead(("*", 2100, 6600), ("router", 2100, 6600), *outlast),
        9000,
        [endpoint("router"), *(endpoint(name, depends_on=(("router",),), site="pop-north") for name in children)],
        disturb,
    )
    assert rig.subjects == [
        "MAINTENANCE ENDS SOON: New firmware",
        "MAINTENANCE OVER: New firmware: 1 of 1 still down",
        "UP: New firmware: 1 of 1",
        "DOWN: 3 of 20 endpoints at pop-north",
    ]
    reminder, over, up, three = (moment for moment, _, _ in rig.told)
    assert 5100 <= reminder <= 5110
    assert 6300 <= over <= 6302
    assert up < three < 6600 + 60 + 15 + 2 * 60 + 60
    router = next(one for one in rig.world.recorder.outages.values() if one.endpoint_id == "router")
    assert rig.world.wall(2100) <= router.start_time <= rig.world.wall(2160)
    assert router.declared_at >= rig.world.wall(6000)


@pytest.mark.parametrize("how", ["ended", "deleted", "changed"])
def test_window_ended_early_while_down_counts_from_then_with_the_true_first_failure(how):
    async def disturb(rig: Works) -> None:
        whole = rig.window(2000, 20_000, "a")
        rig.plan(whole)
        await asyncio.sleep(3000)
        assert not rig.world.recorder.outages
        at = now(rig.world.clock)
        others = rig.window(2000, 20_000, "b")
        rig.plan(
            {"ended": replace(whole, end_time=at), "deleted": replace(whole, deleted_at=at), "changed": others}[how]
        )

    rig = works(dead(("a", 2500, 6000)), 8000, [endpoint("a"), endpoint("b")], disturb)
    (outage,) = rig.world.recorder.outages.values()
    assert rig.world.wall(2500) <= outage.start_time <= rig.world.wall(2560)
    assert rig.world.wall(4000) <= outage.declared_at <= rig.world.wall(4080)
    head = "DOWN: a" if how == "changed" else "MAINTENANCE OVER: New firmware: 1 of 1 still down"
    assert rig.subjects[0] == head
    assert len(rig.subjects) == 2


def test_a_window_extended_while_running_covers_what_is_down_until_its_new_end():
    async def disturb(rig: Works) -> None:
        rig.plan(rig.window(2000, 4000, "a"))
        await asyncio.sleep(2900)
        rig.plan(rig.window(2000, 5000, "a"))

    rig = works(dead(("a", 2500, 4500)), 7000, [endpoint("a")], disturb)
    assert not rig.world.recorder.outages
    # Fifteen minutes before each of its ends its creator heard of it.
    assert rig.subjects == ["MAINTENANCE ENDS SOON: New firmware"] * 2


def test_an_outage_told_before_a_window_is_not_reminded_of_in_it_and_its_recovery_is_told_at_once():
    async def disturb(rig: Works) -> None:
        rig.dispatcher.settings = rig.dispatcher.settings.model_copy(update={"reminder_after": 600})
        await asyncio.sleep(600)
        rig.plan(rig.window(1600, 9000, "a"))

    rig = works(dead(("a", 1200, 5000)), 9000, [endpoint("a")], disturb)
    assert rig.subjects == ["DOWN: a", "UP: a"]
    assert rig.told[1][0] <= 5000 + 60 + 15 + 2


def test_what_comes_back_in_the_grace_is_no_news():
    async def disturb(rig: Works) -> None:
        rig.plan(rig.window(2000, 4000, "a", notify=("noc",)))

    rig = works(dead(("a", 2500, 4100)), 6000, [endpoint("a")], disturb)
    assert rig.subjects == [
        "MAINTENANCE BEGINS: New firmware",
        "MAINTENANCE ENDS SOON: New firmware",
        "MAINTENANCE OVER: New firmware",
    ]
    (outage,) = rig.world.recorder.outages.values()
    assert outage.resolved


# At 02:00 to 04:00 by the clocks of the place (in New York from 01:00): which time that is in UTC, over both changes.
NIGHTS = [
    ("Europe/Berlin", "2026-03-28T02:00+01:00", "2026-03-29T01:00", "2026-03-29T03:00"),
    ("Europe/Berlin", "2026-10-24T02:00+02:00", "2026-10-25T00:00", "2026-10-25T02:00"),
    ("America/New_York", "2026-03-07T02:00-05:00", "2026-03-08T07:00", "2026-03-08T09:00"),
    ("America/New_York", "2026-10-31T01:00-04:00", "2026-11-01T05:00", "2026-11-01T07:00"),
    ("Australia/Lord_Howe", "2026-10-03T02:00+10:30", "2026-10-03T15:30", "2026-10-03T17:30"),
    ("Australia/Lord_Howe", "2026-04-04T01:30+11:00", "2026-04-04T14:30", "2026-04-04T16:30"),
]


@pytest.mark.parametrize(("zone", "first", "begins", "ends"), NIGHTS)
def test_dst_night_windows_mute_two_hours_that_begin_by_the_clock_of_the_place(zone, first, begins, ends):
    """Dead from an hour before the window to an hour after it."""
    start, end = (datetime.fromisoformat(f"{text}+00:00") for text in (begins, ends))
    earlier, length = datetime.fromisoformat(first), end - start
    # Virtual time begins half an hour before the window: it is dead from 60 s on.
    jump = start.timestamp() - START - 1800

    async def main() -> World:
        rig = Works(dead(("a", 1060, 20_000)))
        rig.world.clock.jump = jump
        rig.world.watch([endpoint("a")])
        rig.plan(
            replace(
                rig.window(0, 0, "a"), rrule="FREQ=DAILY", timezone=zone, start_time=earlier, end_time=earlier + length
            )
        )
        before = len(rig.world.recorder.outages)
        await rig.run(1800 + length.total_seconds() + 600)
        assert before == 0
        return rig.world

    world = run_virtual(main)
    (outage,) = world.recorder.outages.values()
    assert outage.declared_at < start  # it fell before the window, and stays open through it
    muted = [one for one in world.monitor.watched["a"].windows if one.start_time <= start < one.end_time]
    assert [(one.start_time, one.end_time) for one in muted] == [(start, end)]


def test_a_night_left_out_by_exdate_is_a_night_like_any():
    async def disturb(rig: Works) -> None:
        at = rig.world.wall(2000)
        rig.plan(rig.window(2000, 4000, "a", rrule="FREQ=DAILY", exdates=(at.date(),)))

    rig = works(dead(("a", 2500, 3500)), 5000, [endpoint("a")], disturb)
    assert rig.subjects == ["DOWN: a", "UP: a"]
    assert any(one.status is Status.DOWN for one in rig.world.recorder.results)
