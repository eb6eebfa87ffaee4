"""Runs the checks that fall due: caps and lanes before, the judge's view of the endpoint, the result afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Protocol

from servmon.checks.attempts import Plan, ask, ask_by_hand, pause_before_retry
from servmon.checks.lanes import Lane, Lanes
from servmon.checks.scheduler import Due, Slot
from servmon.checks.settings import DEADLINE_SHARE
from servmon.clock import SYSTEM_CLOCK, Clock
from servmon.metrics import Counters
from servmon.model import CheckResult, Endpoint, FailureKind, Status
from servmon.probes.network import Network
from servmon.tasks import cancel

# What came to nothing because we were late is asked again soon, spread so that it is no burst.
ASK_AGAIN_WITHIN_SECONDS = 5.0


class Judge(Protocol):
    """What the runner must know of an endpoint, and where results go."""

    def plan(self, endpoint_id: str) -> Plan | None:
        """What to ask, or ``None`` if nobody watches the endpoint any more."""
        ...

    def is_healthy(self, endpoint_id: str) -> bool:
        """Whether the endpoint is UP, so that it does not queue behind those that are not."""
        ...

    def in_series(self, endpoint_id: str) -> bool:
        """Whether it is failing already: then a check is one attempt."""
        ...

    def pace(self, endpoint_id: str) -> float | None:
        """Seconds to the next check where that is sooner than the schedule, else ``None``."""
        ...

    def is_void(self, started_at: float) -> bool:
        """Whether a failure since ``started_at`` (monotonic seconds) may be our own."""
        ...

    def receive(self, result: CheckResult) -> None:
        """Take the result of a scheduled check."""
        ...

    def judgement_failed(self, result: CheckResult, error: Exception) -> None:
        """Take a result whose ``receive`` raised ``error``, and say so."""
        ...


class Runner:
    """Turns what is due into check results.

    ``done`` tells the scheduler that an endpoint's check ended, and the pace of the next one.
    """

    def __init__(
        self,
        network: Network,
        judge: Judge,
        *,
        done: Callable[[Slot, float | None], None],
        lanes: Lanes,
        counters: Counters,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.lanes = lanes
        self._network = network
        self._judge = judge
        self._done = done
        self._counters = counters
        self._clock = clock
        self._under_way: dict[Slot, asyncio.Task[None]] = {}
        self._stopped = False

    def __len__(self) -> int:
        return len(self._under_way)

    def start(self, due: Due) -> None:
        """Start a due check, or let it wait for a place in its lane."""
        plan = self._judge.plan(due.slot.endpoint_id)
        if plan is None:
            self._done(due.slot, None)
            return
        if not plan.prepared.probe.takes_socket:
            self._begin(due, plan, None)
            return
        healthy = self._judge.is_healthy(plan.endpoint.id)
        lane = self.lanes.healthy if healthy else self.lanes.ailing
        if self.lanes.enter(lane, partial(self._start_waiting, due, plan, lane)):
            self._begin(due, plan, lane)

    async def check_now(self, endpoint: Endpoint) -> CheckResult:
        """A person's check, made now over the daemon's own network."""
        return await ask_by_hand(endpoint, self._network, clock=self._clock)

    async def stop(self) -> None:
        """Abandon the checks under way; they have no result, and none that waits for its place is started."""
        self._stopped = True
        await cancel(*self._under_way.values())
        self._under_way.clear()  # those that had not begun

    def _start_waiting(self, due: Due, plan: Plan, lane: Lane) -> bool:
        if self._stopped:
            return False
        # Cut short by our own queue, a check would look like the target's failure.
        if due.slot.removed or self._clock.monotonic() + _fair_seconds(due, plan) > due.next_at:
            self._counters.checks_skipped += 1
            self._done(due.slot, None)
            return False
        self._begin(due, plan, lane)
        return True

    def _begin(self, due: Due, plan: Plan, lane: Lane | None) -> None:
        # A callback at the task's end would be one more for the loop to call; a check takes itself off the list.
        run = self._run(due, plan, lane)
        self._under_way[due.slot] = asyncio.get_running_loop().create_task(run, name=f"check {plan.endpoint.id}")

    async def _run(self, due: Due, plan: Plan, lane: Lane | None) -> None:
        endpoint_id = plan.endpoint.id
        started_at = self._clock.monotonic()
        fair_end = started_at + _fair_seconds(due, plan)
        deadline = max(due.at + DEADLINE_SHARE * (due.next_at - due.at), fair_end)
        place = _Place(self.lanes, lane, deadline, self._clock)
        ask_again = None
        try:
            result = await ask(
                plan,
                self._network,
                deadline=deadline,
                retries=0 if self._judge.in_series(endpoint_id) else plan.endpoint.retries,
                pause=place.pause,
                clock=self._clock,
            )
            self._count(result)
            if self._judge.plan(endpoint_id) is plan:  # else it answered a question that nobody asks any more
                place.leave()
                if result.status is not Status.UP and self._judge.is_void(started_at):
                    self._counters.results_void += 1
                    ask_again = due.slot.fraction * ASK_AGAIN_WITHIN_SECONDS
                else:
                    self._deliver(result)
        finally:
            place.leave()
            del self._under_way[due.slot]
            self._done(due.slot, self._judge.pace(endpoint_id) if ask_again is None else ask_again)

    def _deliver(self, result: CheckResult) -> None:
        try:
            self._judge.receive(result)
        except Exception as error:  # noqa: BLE001 - part of one check, one of the five places that may
            # One endpoint's judgement failing must touch no other endpoint.
            self._counters.probe_errors += 1
            self._judge.judgement_failed(result, error)

    def _count(self, result: CheckResult) -> None:
        counters = self._counters
        counters.checks += 1
        counters.attempts += result.attempts
        if result.status is Status.DOWN:
            counters.checks_failed += 1
        elif result.failure_kind is FailureKind.PROBE_ERROR:
            counters.probe_errors += 1


class _Place:
    """A check's place in a lane: held during attempts, given back in the pause between them."""

    def __init__(self, lanes: Lanes, lane: Lane | None, deadline: float, clock: Clock) -> None:
        self._lanes = lanes
        self._lane = lane
        self._deadline = deadline
        self._clock = clock

    def leave(self) -> None:
        if self._lane is not None:
            self._lanes.leave(self._lane)
            self._lane = None

    async def pause(self) -> None:
        """Between attempts no socket is held; the next attempt queues with the ailing, whatever it was before."""
        had_place = self._lane is not None
        self.leave()
        await pause_before_retry()
        if had_place and await self._enter_ailing():
            self._lane = self._lanes.ailing

    async def _enter_ailing(self) -> bool:
        free = asyncio.get_running_loop().create_future()
        if self._lanes.enter(self._lanes.ailing, partial(_take, free)):
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._deadline - self._clock.monotonic()):
                await free
        return free.done() and not free.cancelled()


def _fair_seconds(due: Due, plan: Plan) -> float:
    """What one attempt gets when its check starts on time."""
    return min(plan.endpoint.timeout, DEADLINE_SHARE * (due.next_at - due.at))


def _take(free: asyncio.Future[None]) -> bool:
    if free.done():
        return False
    free.set_result(None)
    return True
