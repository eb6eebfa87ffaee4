"""Runs the checks that fall due: caps and lanes before, the judge's view of the endpoint, the result afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Protocol

from servmon.checks.attempts import Attempts, ask_by_hand, pause_before_retry
from servmon.checks.every_address import Outcome
from servmon.checks.lanes import Lane, Lanes
from servmon.checks.plan import Plan
from servmon.checks.scheduler import Due, Slot
from servmon.checks.settings import DEADLINE_SHARE
from servmon.clock import SYSTEM_CLOCK, Clock
from servmon.metrics import Counters
from servmon.model import CheckResult, Endpoint, FailureKind, Status
from servmon.probes.base import Answer
from servmon.probes.network import Network
from servmon.tasks import cancel

# What came to nothing because we were late is asked again soon, spread so that it is no burst.
ASK_AGAIN_WITHIN_SECONDS = 5.0
SETTLED_LOOK_SECONDS = 0.02


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
        self._under_way: dict[Slot, _Check] = {}
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

    async def settle(self, within: float) -> None:
        """Let the checks under way end, for at most so many seconds; none that waits for its place is started."""
        self._stopped = True
        until = self._clock.monotonic() + within
        # Looked at, since a check that ends should not have to see whether somebody waits for that.
        while self._under_way and self._clock.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(SETTLED_LOOK_SECONDS)

    async def stop(self) -> None:
        """Abandon the checks under way; they have no result, and none that waits for its place is started."""
        self._stopped = True
        checks = tuple(self._under_way.values())
        for check in checks:
            check.attempts.give_up()
        await cancel(*(check.task for check in checks if check.task is not None))
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
        started_at = self._clock.monotonic()
        deadline = max(due.at + DEADLINE_SHARE * (due.next_at - due.at), started_at + _fair_seconds(due, plan))
        attempts = Attempts(plan, self._network, deadline=deadline, clock=self._clock)
        check = _Check(due.slot, plan, attempts, started_at, self.lanes, lane)
        self._under_way[due.slot] = check
        if not attempts.begin(partial(self._heard, check)):
            self._go_on(check)

    def _heard(self, check: _Check, first: Outcome) -> None:
        """A check has made its first attempt without a task; only where that was good is it all there is to do."""
        if isinstance(first, Answer):
            self._end(check, check.attempts.result(first))
        else:
            self._go_on(check, first)

    def _go_on(self, check: _Check, first: Outcome | None = None) -> None:
        # A callback at the task's end would be one more for the loop to call; a check takes itself off the list.
        name = f"check {check.plan.endpoint.id}"
        check.task = asyncio.get_running_loop().create_task(self._run(check, first), name=name)

    async def _run(self, check: _Check, first: Outcome | None) -> None:
        endpoint, result = check.plan.endpoint, None
        try:
            retries = 0 if self._judge.in_series(endpoint.id) else endpoint.retries
            result = await check.attempts.make(retries, check.pause, first)
        finally:
            self._end(check, result)

    def _end(self, check: _Check, result: CheckResult | None) -> None:
        ask_again = None
        try:
            if result is not None:
                ask_again = self._take(check, result)
        finally:
            check.leave()
            del self._under_way[check.slot]
            pace = self._judge.pace(check.plan.endpoint.id) if ask_again is None else ask_again
            self._done(check.slot, pace)

    def _take(self, check: _Check, result: CheckResult) -> float | None:
        """Count and deliver a result; where it came to nothing the seconds until it is to be asked again."""
        self._count(result)
        if self._judge.plan(result.endpoint_id) is not check.plan:
            return None  # it answered a question that nobody asks any more
        check.leave()
        if result.status is not Status.UP and self._judge.is_void(check.started_at):
            self._counters.results_void += 1
            return check.slot.fraction * ASK_AGAIN_WITHIN_SECONDS
        self._deliver(result)
        return None

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


class _Check:
    """One check under way, and its place in a lane: held during attempts, given back in the pause between them."""

    __slots__ = ("_lane", "_lanes", "attempts", "plan", "slot", "started_at", "task")

    def __init__(
        self, slot: Slot, plan: Plan, attempts: Attempts, started_at: float, lanes: Lanes, lane: Lane | None
    ) -> None:
        self.slot = slot
        self.plan = plan
        self.attempts = attempts
        self.started_at = started_at
        self.task: asyncio.Task[None] | None = None
        self._lanes = lanes
        self._lane = lane

    def leave(self) -> None:
        """Give the place back, if it has one."""
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
            async with asyncio.timeout(self.attempts.left()):
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
