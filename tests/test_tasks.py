"""Work on thousands of things gives way to checks."""

from __future__ import annotations

import asyncio

from servmon.tasks import TURN_SECONDS, in_turns, spawn


class Turns:
    """How many turns the loop made since ``follow`` began."""

    def __init__(self) -> None:
        self.number = 0

    async def follow(self) -> None:
        while True:
            self.number += 1
            await asyncio.sleep(0)


class SlowClock:
    """Three things done are more than may be done in one turn."""

    def __init__(self) -> None:
        self.at = 0.0

    def wall(self) -> float:
        return self.at

    def monotonic(self) -> float:
        self.at += 0.4 * TURN_SECONDS
        return self.at


async def test_the_loop_turns_before_work_on_many_things_has_taken_long():
    turns = Turns()
    others = spawn(turns.follow(), name="others")
    done = [number async for number in in_turns(range(300), SlowClock())]
    others.cancel()
    assert done == list(range(300))
    assert 90 <= turns.number <= 110


async def test_what_is_done_at_once_costs_no_turn():
    class FrozenClock(SlowClock):
        def monotonic(self) -> float:
            return 5.0

    turns = Turns()
    others = spawn(turns.follow(), name="others")
    assert [number async for number in in_turns(range(10), FrozenClock())] == list(range(10))
    others.cancel()
    assert turns.number == 0
