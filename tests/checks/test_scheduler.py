"""Due times: even, without drift, overlap or burst."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from servmon.checks.scheduler import BURST, Due, Scheduler
from servmon.clock import TICK_SECONDS
from servmon.metrics import Counters, Histogram
from servmon.tasks import spawn
from tests.virtual import VirtualClock, run_virtual


class Rig:
    """A scheduler whose checks take ``seconds``; keeps the time of every start."""

    def __init__(self, *, seconds: float = 0.0, paused=lambda _id: False, pace=lambda _id: None) -> None:
        self.clock = VirtualClock()
        self.counters = Counters()
        self.started: dict[str, list[float]] = defaultdict(list)
        self.dues: list[Due] = []
        self.seconds = seconds
        self.pace = pace
        self.scheduler = Scheduler(
            self.start, counters=self.counters, lateness=Histogram(), paused=paused, clock=self.clock
        )

    def start(self, due: Due) -> None:
        self.started[due.slot.endpoint_id].append(self.clock.monotonic())
        self.dues.append(due)
        asyncio.get_running_loop().call_later(
            self.seconds, lambda: self.scheduler.done(due.slot, self.pace(due.slot.endpoint_id))
        )

    async def run(self, seconds: float) -> None:
        task = spawn(self.scheduler.run(), name="scheduler")
        await asyncio.sleep(seconds)
        task.cancel()


def test_an_endpoint_is_checked_once_an_interval_without_drift():
    async def main():
        rig = Rig(seconds=0.7)
        rig.scheduler.add("a", 10, soon=False)
        await rig.run(10_000)
        times = rig.started["a"]
        assert len(times) == 1000
        phase = times[0] % 10
        assert all(abs(moment % 10 - phase) <= TICK_SECONDS for moment in times)

    run_virtual(main)


def test_load_is_even_over_the_interval():
    async def main():
        rig = Rig()
        for number in range(6000):
            rig.scheduler.add(f"endpoint-{number}", 60, soon=False)
        await rig.run(60 + TICK_SECONDS)
        per_second = Counter(int(times[0]) for times in rig.started.values())
        assert len(rig.started) == 6000
        assert max(per_second.values()) < 160  # 100 on average

    run_virtual(main)


def test_the_phase_survives_a_restart():
    async def main():
        first, second = Rig(), Rig()
        first.scheduler.add("a", 60, soon=False)
        await first.run(120)
        await asyncio.sleep(1234.5)
        second.scheduler = Scheduler(second.start, counters=Counters(), lateness=Histogram(), clock=second.clock)
        second.scheduler.add("a", 60, soon=False)
        await second.run(120)
        assert abs((second.started["a"][0] - first.started["a"][0]) % 60) < 2 * TICK_SECONDS

    run_virtual(main)


def test_a_wall_clock_jump_moves_nothing():
    async def main():
        rig = Rig()
        rig.scheduler.add("a", 60, soon=False)
        await rig.run(200)
        rig.clock.jump = -3600.0
        await rig.run(200)
        rig.clock.jump = 3600.0
        await rig.run(200)
        gaps = {round(later - earlier) for earlier, later in pairwise(rig.started["a"])}
        assert gaps == {60}

    run_virtual(main)


def test_a_new_endpoint_is_checked_within_five_seconds_and_not_again_at_once():
    async def main():
        rig = Rig()
        begin = rig.clock.monotonic()
        for number in range(500):
            rig.scheduler.add(f"endpoint-{number}", 60, soon=True)
        await rig.run(150)
        firsts = [times[0] - begin for times in rig.started.values()]
        assert len(firsts) == 500
        assert max(firsts) <= 5 + TICK_SECONDS
        assert max(Counter(int(first * 10) for first in firsts).values()) < 30  # spread, not at once
        assert min(times[1] - times[0] for times in rig.started.values()) >= 29

    run_virtual(main)


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.45, 0.6, 0.9])
def test_a_first_check_that_a_start_made_late_has_its_time_before_the_next(moment):
    async def main():
        rig = Rig(seconds=0.45)
        await asyncio.sleep(moment)
        for number in range(100):
            rig.scheduler.add(f"endpoint-{number}", 1, soon=True)
        await asyncio.sleep(0.3)  # what a start has to do yet before the schedule begins
        await rig.run(10)
        assert len(rig.started) == 100
        assert rig.counters.checks_skipped == 0

    run_virtual(main)


def test_a_check_that_is_asked_for_again_and_again_comes_no_later():
    async def main():
        rig = Rig()
        rig.scheduler.add("a", 600, soon=False)
        begin = rig.clock.monotonic()
        task = spawn(rig.run(30), name="schedule")
        for _ in range(30):
            rig.scheduler.ask_soon(["a"])
            await asyncio.sleep(0.5)
        await task
        assert rig.started["a"][0] - begin <= 5 + TICK_SECONDS

    run_virtual(main)


def test_a_slow_check_is_never_overlapped_and_the_lost_slots_are_counted():
    async def main():
        rig = Rig(seconds=25)
        rig.scheduler.add("a", 10, soon=False)
        await rig.run(100)
        gaps = [later - earlier for earlier, later in pairwise(rig.started["a"])]
        assert min(gaps) >= 25
        assert rig.counters.checks_skipped == 10 - len(rig.started["a"])

    run_virtual(main)


def test_a_stall_skips_slots_counts_them_and_never_bursts():
    async def main():
        rig = Rig()
        for number in range(1000):
            rig.scheduler.add(f"endpoint-{number}", 10, soon=False)
        task = spawn(rig.scheduler.run(), name="scheduler")
        await asyncio.sleep(50)
        before = sum(len(times) for times in rig.started.values())
        asyncio.get_running_loop().virtual.now += 40  # the process stood still
        stalled_until = rig.clock.monotonic()
        await asyncio.sleep(50)
        task.cancel()
        after = [moment for times in rig.started.values() for moment in times if moment >= stalled_until]
        per_second = Counter(int(moment - stalled_until) for moment in after)
        assert per_second.most_common(1)[0][1] < 400  # the last 2 s of slots may catch up, 40 s may not
        assert before + len(after) + rig.counters.checks_skipped == pytest.approx(14_000, abs=1000)

    run_virtual(main)


def test_after_a_stall_a_long_interval_is_made_up_within_a_minute():
    async def main():
        rig = Rig()
        rig.scheduler.add("hourly", 3600, soon=False)
        due = rig.scheduler._slots["hourly"].due
        task = spawn(rig.scheduler.run(), name="scheduler")
        await asyncio.sleep(due - rig.clock.monotonic() - 5)
        asyncio.get_running_loop().virtual.now += 30
        await asyncio.sleep(100)
        task.cancel()
        assert len(rig.started["hourly"]) == 1
        assert rig.started["hourly"][0] < due + 25 + 61
        assert rig.counters.checks_skipped == 0

    run_virtual(main)


def test_while_suspected_checks_come_at_the_retry_interval_after_each_end():
    async def main():
        rig = Rig(seconds=2, pace=lambda _id: 15)
        rig.scheduler.add("a", 60, soon=False)
        await rig.run(300)
        gaps = [later - earlier for earlier, later in pairwise(rig.started["a"])]
        assert all(17 <= gap <= 17 + 2 * TICK_SECONDS for gap in gaps)

    run_virtual(main)


def test_the_pace_is_never_above_the_interval_and_the_phase_returns_afterwards():
    async def main():
        suspected = True
        rig = Rig(pace=lambda _id: 15 if suspected else None)
        rig.scheduler.add("a", 10, soon=False)
        regular = rig.scheduler._slots["a"].due
        await rig.run(50)
        suspected = False
        await rig.run(50)
        gaps = [later - earlier for earlier, later in pairwise(rig.started["a"])]
        assert max(gaps) <= 15 + TICK_SECONDS
        assert (rig.started["a"][-1] - regular) % 10 <= 2 * TICK_SECONDS

    run_virtual(main)


def test_a_paused_endpoint_is_not_checked_and_not_counted_as_skipped():
    async def main():
        rig = Rig(paused=lambda _id: rig.clock.monotonic() < 1500)
        rig.scheduler.add("a", 10, soon=False)
        await rig.run(1000)
        assert min(rig.started["a"]) >= 1500
        assert rig.counters.checks_skipped == 0

    run_virtual(main)


def test_asked_soon_is_checked_within_five_seconds_even_while_a_check_runs():
    async def main():
        rig = Rig(seconds=1)
        rig.scheduler.add("a", 3600, soon=True)
        await asyncio.sleep(0)
        task = spawn(rig.scheduler.run(), name="scheduler")
        await asyncio.sleep(5.5)
        assert len(rig.started["a"]) == 1
        rig.scheduler.ask_soon(["a", "not there"])
        await asyncio.sleep(6)
        task.cancel()
        assert len(rig.started["a"]) == 2

    run_virtual(main)


def test_changed_while_its_check_runs_it_is_asked_again_right_after_and_no_slot_counts_as_skipped():
    async def main():
        rig = Rig(seconds=7)
        rig.scheduler.add("a", 60, soon=True)
        task = spawn(rig.scheduler.run(), name="scheduler")
        await asyncio.sleep(6)
        rig.scheduler.add("a", 60, soon=True)
        await asyncio.sleep(30)
        task.cancel()
        first, second = rig.started["a"]
        assert 7 <= second - first <= 7 + 5 + TICK_SECONDS
        assert rig.counters.checks_skipped == 0

    run_virtual(main)


def test_a_removed_endpoint_is_not_checked_again():
    async def main():
        rig = Rig()
        rig.scheduler.add("a", 1, soon=True)
        await rig.run(10)
        checked = len(rig.started["a"])
        rig.scheduler.remove("a")
        await rig.run(10)
        assert len(rig.started["a"]) == checked
        assert len(rig.scheduler) == 0

    run_virtual(main)


def test_what_is_due_in_one_tick_starts_in_bursts_with_a_turn_of_the_loop_between():
    async def main():
        rig = Rig()
        turns: list[int] = []

        async def count_turns():
            while True:
                turns.append(len(rig.dues))
                await asyncio.sleep(0)

        for number in range(100):
            rig.scheduler.add(f"endpoint-{number}", 3600, soon=True)
        for slot in rig.scheduler._slots.values():
            rig.scheduler._push(slot, rig.clock.monotonic())
        counter = spawn(count_turns(), name="turns")
        task = spawn(rig.scheduler.run(), name="scheduler")
        while len(rig.dues) < 100:  # noqa: ASYNC110 - counts the turns itself
            await asyncio.sleep(0)
        task.cancel()
        counter.cancel()
        steps = [later - earlier for earlier, later in pairwise(turns)]
        assert max(steps) <= BURST

    run_virtual(main)


def test_a_schedule_that_fails_ends_with_its_failure_and_does_not_stand_still_in_silence():
    async def main():
        rig = Rig()
        rig.scheduler.add("a", 10, soon=False)
        rig.scheduler._start = lambda _due: {}["nobody"]
        with pytest.raises(KeyError, match="nobody"):
            await rig.scheduler.run()

    run_virtual(main)


def test_a_schedule_that_was_stopped_within_a_burst_can_be_run_again():
    async def main():
        rig = Rig()
        names = [f"endpoint-{number}" for number in range(3 * BURST)]
        for name in names:
            rig.scheduler.add(name, 1000, soon=False)
        task = spawn(rig.scheduler.run(), name="scheduler")
        await asyncio.sleep(0)
        rig.scheduler.ask_now(names)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(1)
        assert 0 < len(rig.dues) < len(names)
        await rig.run(1)
        assert set(rig.started) == set(names)

    run_virtual(main)
