"""When each of many waits is over: one timer of the loop for all of them.

Every check has a time limit and hardly one reaches it, yet a timer of the loop's own costs as much as a good part of
the check. Here ends are rounded up to the ticks in which checks start; what ends in one tick stands together (a timing
wheel: Varghese and Lauck, 1987), and the loop wakes up for the first of them alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from servmon.clock import SYSTEM_CLOCK, TICK_SECONDS, Clock

T = TypeVar("T")

# Those whose waiting ends in one tick, and what is then called with each. Who waits no more takes itself out.
Waiting: TypeAlias = dict[Any, Callable[[Any], None]]


class Deadlines:
    """Calls when a wait is over: never early, and late by a tick at most, which is 25 ms."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._ticks: dict[int, Waiting] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_tick = 0

    def add(self, seconds: float, who: T, end: Callable[[T], None]) -> Waiting:
        """Have ``end(who)`` called in ``seconds``, unless ``who`` is out of what is returned by then."""
        tick = math.ceil((self._clock.monotonic() + seconds) / TICK_SECONDS)
        waiting = self._ticks.get(tick)
        if waiting is None:
            waiting = self._ticks[tick] = {}
            self._wake_by(tick)
        waiting[who] = end
        return waiting

    def close(self) -> None:
        """Call nobody any more."""
        self._ticks.clear()
        self._stop_timer()

    def _wake_by(self, tick: int) -> None:
        if self._timer is None or tick < self._timer_tick:
            self._stop_timer()
            self._timer_tick = tick
            delay = max(0.0, tick * TICK_SECONDS - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._end_due)

    def _end_due(self) -> None:
        # The loop's timers ring a little early; what they were set for is due all the same.
        due = max(self._timer_tick, math.floor(self._clock.monotonic() / TICK_SECONDS))
        self._timer = None
        try:
            for tick in sorted(tick for tick in self._ticks if tick <= due):
                waiting = self._ticks[tick]
                for who in tuple(waiting):
                    end = waiting.pop(who, None)
                    if end is not None:  # else another's end was its end, too
                        end(who)
        finally:
            self._ticks = {tick: waiting for tick, waiting in self._ticks.items() if waiting}
            if self._ticks:
                self._wake_by(min(self._ticks))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
