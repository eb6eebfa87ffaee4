"""WHEN each endpoint is due: even load by hashed phase, no drift, no overlap, no burst.

An endpoint's regular due times are ``phase + n × interval`` with phase = crc32(id)/2³² × interval, anchored to
the epoch once at start and monotonic from there, so the phase survives restarts, edits and clock jumps. What is
due within one tick starts together, because each wake-up of the process costs more than starting a check.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from servmon.clock import SYSTEM_CLOCK, TICK_SECONDS, TIMER_SLACK_SECONDS, Clock
from servmon.metrics import Counters, Histogram

BURST = 16
# A new or changed endpoint is first checked within this time, spread so that 10,000 of them are no burst.
FIRST_CHECK_WITHIN_SECONDS = 5.0
# Later than this, the slot is lost: running it would bunch everything that a stall made late.
LATE_SECONDS = 2.0
# An endpoint with a long interval does not wait a whole one for a slot that a stall swallowed.
MAKE_UP_WITHIN_SECONDS = 60.0


@dataclass(slots=True, eq=False)
class Slot:
    """One endpoint's place in the schedule. Times are monotonic seconds.

    ``due`` is when the next check starts and ``tick`` the one in which that is, ``busy`` that a check is waiting or
    under way, ``soon`` that one out of turn was asked for and has not begun.
    """

    endpoint_id: str
    interval: float
    fraction: float
    due: float = math.inf
    tick: int = -1
    busy: bool = False
    soon: bool = False
    removed: bool = False


class Due(NamedTuple):
    """A check that should start now: when it was due, and the next due moment, which it may not reach."""

    slot: Slot
    at: float
    next_at: float


class Scheduler:
    """Knows when each endpoint is due and starts what is due in one tick, in bursts of 16.

    ``start`` takes each due check and must not block; whoever runs the check calls ``done`` when it ended.
    ``paused`` says whether an endpoint is not to be checked at all just now.
    """

    def __init__(
        self,
        start: Callable[[Due], None],
        *,
        counters: Counters,
        lateness: Histogram,
        paused: Callable[[str], bool] = lambda _endpoint_id: False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._start = start
        self._paused = paused
        self._clock = clock
        self._counters = counters
        self.lateness = lateness
        self.loop_lag = 0.0
        self._slots: dict[str, Slot] = {}
        # By tick, numbered by its end, what is due in it; and these numbers as a heap. To order the checks themselves
        # would mean to look at a dozen of them for each. What was moved since stays, and is passed over.
        self._due_in: dict[int, list[Slot]] = {}
        self._ticks: list[int] = []
        self._epoch = clock.monotonic() - clock.wall()
        # While ``run`` runs: what ends it, what calls the schedule next, and whether that comes without a wait.
        self._failure: asyncio.Future[None] | None = None
        self._call: asyncio.Handle | None = None
        self._awake = False

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def overdue_seconds(self) -> float:
        """How long the next check has been due; more than a moment means that the schedule stands still."""
        return max(0.0, self._clock.monotonic() - self._ticks[0] * TICK_SECONDS) if self._ticks else 0.0

    def add(self, endpoint_id: str, interval: float, *, soon: bool, within: float = math.inf) -> None:
        """Schedule an endpoint, or change its interval. ``soon``: first check within min(interval, 5 s).

        Otherwise it is at its next regular time, or after ``within`` seconds where that is sooner.
        """
        slot = self._slots.get(endpoint_id)
        if slot is None:
            slot = Slot(endpoint_id, interval, zlib.crc32(endpoint_id.encode()) / 2**32)
            self._slots[endpoint_id] = slot
        slot.interval = interval
        if soon:
            self._push_soon(slot)
        else:
            present = self._clock.monotonic()
            self._push(slot, min(self._regular_after(slot, present), present + max(within, 0.0)))

    def remove(self, endpoint_id: str) -> None:
        """Forget an endpoint; a check of it that is under way ends by itself."""
        if slot := self._slots.pop(endpoint_id, None):
            slot.removed = True

    def ask_soon(self, endpoint_ids: Iterable[str]) -> None:
        """Bring the next check of these forward to within min(interval, 5 s), spread; asked again, no later."""
        for endpoint_id in endpoint_ids:
            if slot := self._slots.get(endpoint_id):
                self._push_soon(slot, at_the_latest=slot.due)

    def ask_now(self, endpoint_ids: Iterable[str]) -> None:
        """Check these at once, or where a check is under way right after it."""
        for endpoint_id in endpoint_ids:
            if slot := self._slots.get(endpoint_id):
                slot.soon = True
                self._push_now(slot)

    def done(self, slot: Slot, pace: float | None) -> None:
        """A check ended. ``pace`` is the seconds to the next one while suspected or recovering, else ``None``."""
        slot.busy = False
        if slot.removed:
            return
        if slot.soon:  # it was asked for while this check was under way, which may have missed what changed
            self._push_now(slot)
        elif pace is not None:
            self._push(slot, self._clock.monotonic() + min(pace, slot.interval))

    async def run(self) -> None:
        """Start checks as they fall due, for ever."""
        # Callbacks of the loop, not a task that wakes up: that would be some more of them in every tick.
        self._failure = asyncio.get_running_loop().create_future()
        self._call_soon()
        try:
            await self._failure
        finally:
            if self._call is not None:
                self._call.cancel()
            self._failure, self._call, self._awake = None, None, False

    def _tick(self, tick: int) -> None:
        """The end of ``tick``, which timers of whole milliseconds reach a little early."""
        now, end = self._clock.monotonic(), tick * TICK_SECONDS
        if now < end - TIMER_SLACK_SECONDS:
            tick = math.floor(now / TICK_SECONDS)
        else:
            self.loop_lag = max(0.0, now - end)
        self._start_due(tick)

    def _start_due(self, tick: int) -> None:
        """Start what is due by the end of ``tick``, or by now, then wait for the next one in which something is."""
        self._awake = True
        started = 0
        try:
            while self._ticks and self._ticks[0] <= max((now := self._clock.monotonic()) / TICK_SECONDS, tick):
                slots = self._due_in[self._ticks[0]]
                if not slots:
                    del self._due_in[heapq.heappop(self._ticks)]
                    continue
                slot = slots.pop()
                if slot.removed or slot.tick != self._ticks[0]:
                    continue  # it was moved since
                if self._begin(slot, now):
                    started += 1
                    if started == BURST:
                        self._call = asyncio.get_running_loop().call_soon(self._start_due, tick)
                        return
            self._sleep()
        except BaseException as error:  # noqa: BLE001 - ``run`` raises it
            if self._failure is not None and not self._failure.done():
                self._failure.set_exception(error)

    def _sleep(self) -> None:
        self._awake = False
        self._call = None
        if self._ticks:
            tick = self._ticks[0]
            delay = max(0.0, tick * TICK_SECONDS - self._clock.monotonic())
            self._call = asyncio.get_running_loop().call_later(delay, self._tick, tick)

    def _call_soon(self) -> None:
        """What is due first is another check now; who is awake sees that by itself."""
        if self._awake or self._failure is None:
            return
        self._awake = True
        if self._call is not None:
            self._call.cancel()
        self._call = asyncio.get_running_loop().call_soon(self._start_due, -1)

    def _begin(self, slot: Slot, now: float) -> bool:
        due, late = slot.due, max(0.0, now - slot.due)
        # What was asked for out of turn keeps half an interval to the next turn from when it begins, late or not.
        next_at = self._regular_after(slot, (now if slot.soon else max(due, now - LATE_SECONDS)) + slot.interval / 2)
        if late > LATE_SECONDS:
            return self._make_up(slot, now)
        self._push(slot, next_at)
        if self._paused(slot.endpoint_id):
            return False
        if slot.busy:
            if slot.soon:
                return False
            self._counters.checks_skipped += 1
            return False
        slot.busy, slot.soon = True, False
        self.lateness.observe(late)
        self._start(Due(slot, due, next_at))
        return True

    def _make_up(self, slot: Slot, now: float) -> bool:
        """Place a slot that a stall swallowed: soon where the interval is long, else it is skipped and counted."""
        regular = self._regular_after(slot, now)
        make_up = now + slot.fraction * MAKE_UP_WITHIN_SECONDS
        if make_up >= regular:
            self._counters.checks_skipped += 1 + int((now - slot.due) / slot.interval)
        self._push(slot, min(make_up, regular))
        return False

    def _regular_after(self, slot: Slot, after: float) -> float:
        origin = self._epoch + slot.fraction * slot.interval
        return origin + (math.floor((after - origin) / slot.interval) + 1) * slot.interval

    def _push_soon(self, slot: Slot, at_the_latest: float = math.inf) -> None:
        slot.soon = True
        spread = slot.fraction * min(slot.interval, FIRST_CHECK_WITHIN_SECONDS)
        self._push(slot, min(self._clock.monotonic() + spread, at_the_latest))

    def _push_now(self, slot: Slot) -> None:
        now = self._clock.monotonic()
        self._put(slot, now, math.floor(now / TICK_SECONDS))

    def _push(self, slot: Slot, due: float) -> None:
        self._put(slot, due, math.ceil(due / TICK_SECONDS))

    def _put(self, slot: Slot, due: float, tick: int) -> None:
        slot.due, slot.tick = due, tick
        slots = self._due_in.get(tick)
        if slots is not None:
            slots.append(slot)
            return
        self._due_in[tick] = [slot]
        heapq.heappush(self._ticks, tick)
        if self._ticks[0] == tick:
            self._call_soon()
