"""The one timer for all time limits."""

from __future__ import annotations

import asyncio

import pytest

from servmon.clock import TICK_SECONDS
from servmon.probes.deadlines import Deadlines
from tests.virtual import VirtualClock, run_virtual


class Waiter:
    """Somebody who waits, and says when that was over."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.ended_at: list[float] = []

    def end(self) -> None:
        self.ended_at.append(asyncio.get_running_loop().time())


def virtually(main):
    async def run():
        deadlines = Deadlines(VirtualClock())
        await main(deadlines)
        deadlines.close()

    run_virtual(run)


def test_each_wait_ends_on_time_or_a_tick_later():
    async def main(deadlines):
        began_at = asyncio.get_running_loop().time()
        waiters = {seconds: Waiter() for seconds in (0.0, 0.001, 0.0249, 0.3, 0.31, 7.77, 3600.0)}
        for seconds, waiter in sorted(waiters.items(), reverse=True):
            deadlines.add(seconds, waiter, Waiter.end)
        await asyncio.sleep(4000)
        for seconds, waiter in waiters.items():
            (ended_at,) = waiter.ended_at
            assert 0 <= ended_at - began_at - seconds <= TICK_SECONDS + 1e-6

    virtually(main)


def test_who_waits_no_more_is_not_called_and_nothing_is_kept_of_him():
    async def main(deadlines):
        gone, there, later = Waiter(), Waiter(), Waiter()
        deadlines.add(1, gone, Waiter.end).pop(gone)
        deadlines.add(1, there, Waiter.end)
        await asyncio.sleep(2)
        deadlines.add(1, later, Waiter.end)
        await asyncio.sleep(2)
        assert [len(waiter.ended_at) for waiter in (gone, there, later)] == [0, 1, 1]
        assert not deadlines._ticks

    virtually(main)


def test_an_earlier_end_comes_before_what_the_loop_was_to_wake_up_for():
    async def main(deadlines):
        order = []
        deadlines.add(60, "late", order.append)
        deadlines.add(1, "soon", order.append)
        await asyncio.sleep(2)
        assert order == ["soon"]
        await asyncio.sleep(60)
        assert order == ["soon", "late"]

    virtually(main)


def test_one_end_may_be_that_of_another_and_the_start_of_a_third():
    async def main(deadlines):
        order = []

        def end(who):
            order.append(who)
            if who == "first":
                waiting.pop("second")
                deadlines.add(1, "third", end)

        waiting = deadlines.add(1, "first", end)
        assert deadlines.add(1, "second", end) is waiting
        await asyncio.sleep(5)
        assert order == ["first", "third"]

    virtually(main)


def test_an_end_that_fails_holds_up_no_other():
    async def main(deadlines):
        failures = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context["exception"]))
        order = []

        def end(who):
            if who == "fails":
                raise ZeroDivisionError
            order.append(who)

        for who in ("before", "fails", "after"):
            deadlines.add(1, who, end)
        deadlines.add(2, "later", end)
        await asyncio.sleep(5)
        assert order == ["before", "after", "later"]
        assert [type(error) for error in failures] == [ZeroDivisionError]

    virtually(main)


@pytest.mark.parametrize("stall", [0.5, 30.0])
def test_after_a_stall_all_that_is_over_ends_at_once(stall):
    class Stalled(VirtualClock):
        ahead = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead

    async def main():
        clock = Stalled()
        deadlines = Deadlines(clock)
        waiters = [Waiter() for _ in range(10)]
        for number, waiter in enumerate(waiters):
            deadlines.add(0.1 * number, waiter, Waiter.end)
        clock.ahead = stall
        await asyncio.sleep(0.001)
        assert sum(len(waiter.ended_at) for waiter in waiters) == min(10, int(stall / 0.1) + 1)

    run_virtual(main)


def test_closed_it_calls_nobody():
    async def main():
        deadlines, waiter = Deadlines(VirtualClock()), Waiter()
        deadlines.add(1, waiter, Waiter.end)
        deadlines.close()
        await asyncio.sleep(5)
        assert waiter.ended_at == []

    run_virtual(main)


def test_ten_thousand_waits_take_one_timer_of_the_loop():
    async def main(deadlines):
        loop, asked = asyncio.get_running_loop(), []
        real = loop.call_at
        loop.call_at = lambda when, *arguments, **named: asked.append(when) or real(when, *arguments, **named)
        for number in range(10_000):
            waiter = Waiter()
            deadlines.add(5 + number / 10_000, waiter, Waiter.end).pop(waiter)
        assert len(asked) == 1

    virtually(main)
