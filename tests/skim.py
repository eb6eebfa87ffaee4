"""A month in seconds: the pure machine over an endpoint's checks, leaving out those of which nothing can come.

What scheduler, runner and monitor do with one endpoint that shares nothing with others is written down here once more,
check by check: due times by phase and pace, ticks, attempts with their pauses, the second look. While an endpoint is UP
and nothing is remembered against it, checks are skipped to the next that falls into trouble. ``test_month`` proves that
this and the real parts declare the same outages.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

from servmon.checks.settings import RETRY_PAUSE_SECONDS
from servmon.clock import TICK_SECONDS
from servmon.detection import machine
from servmon.detection.state import NEW, EndpointState, Policy
from servmon.detection.verdict import SecondLook
from servmon.model import CheckResult, Endpoint, FailureKind, Outage, State, Status
from servmon.monitor import Rules
from tests.month import ANSWER_MS, BEGAN, Month, Path
from tests.virtual import START, endpoint

ORIGIN = datetime.fromtimestamp(START - BEGAN, UTC)


def skim(month: Month, threshold: int) -> list[Outage]:
    """The outages that are declared in a month."""
    rules = Rules(detection_threshold=threshold)
    return [
        outage
        for name in month.names
        for outage in Skimmed(endpoint(name), rules, month.path(name), BEGAN + month.seconds).outages()
    ]


class Skimmed:
    """One endpoint, by itself. Times are monotonic seconds."""

    def __init__(self, watched: Endpoint, rules: Rules, path: Path, until: float) -> None:
        self.endpoint = watched
        self.policy: Policy = rules.policy(watched)
        self.path = path
        self.until = until
        self.state: EndpointState = NEW
        interval = watched.check_interval
        self._phase = BEGAN - START + zlib.crc32(watched.id.encode()) / 2**32 * interval
        self._trouble_ends = [end for _, end in path.trouble]
        self._ids = partial(next, iter(map(f"{watched.id} {{}}".format, range(10**9))))

    def outages(self) -> Iterator[Outage]:
        """Each that is declared, as it was then."""
        due = self._regular_after(BEGAN)
        while (due := self._next_in_trouble(due)) < self.until:
            started = math.ceil(round(due / TICK_SECONDS, 6)) * TICK_SECONDS
            ended, result = self._check(started)
            if ended >= self.until:
                return
            yield from self._judged(*machine.step(self.state, result, self.policy, ids=self._ids))
            following = self._regular_after(due + self.endpoint.check_interval / 2)
            if self.state.wants_retry_pace:
                following = ended + min(self.policy.retry_interval, self.endpoint.check_interval)
            if self.state.verifying:
                ended, found = self._ask(ended)
                if ended >= self.until:
                    return
                judged = machine.verified(
                    self.state, SecondLook(found), self.policy, at=ORIGIN + timedelta(seconds=ended), ids=self._ids
                )
                yield from self._judged(*judged)
            due = following

    def _judged(self, state: EndpointState, transitions) -> Iterator[Outage]:
        self.state = state
        for transition in transitions:
            if transition.outage is not None and not transition.outage.resolved:
                yield transition.outage

    def _next_in_trouble(self, due: float) -> float:
        """``due``, or where nothing can come of that check, the next one that begins in trouble."""
        while self._is_calm():
            number = bisect_right(self._trouble_ends, due)
            if number == len(self._trouble_ends):
                return math.inf
            start = self.path.trouble[number][0]
            if start <= due:
                return due
            # Somewhat early: a check starts up to a tick after it is due.
            due = self._regular_after(max(start - TICK_SECONDS, due - 1e-6))
            if due >= start - TICK_SECONDS and due < self._trouble_ends[number]:
                return due
        return due

    def _is_calm(self) -> bool:
        return self.state.state is State.UP and self.state.recent.is_calm

    def _check(self, started: float) -> tuple[float, CheckResult]:
        attempts = 1 if self.state.in_series else 1 + self.endpoint.retries
        at = started
        for number in range(1, attempts + 1):
            at, result = self._ask(at, began=started, attempts=number)
            if result.status is Status.UP or number == attempts:
                break
            at += RETRY_PAUSE_SECONDS
        return at, result

    def _ask(self, at: float, *, began: float | None = None, attempts: int = 1) -> tuple[float, CheckResult]:
        after = self.path.answers_after(at, self.endpoint.timeout)
        timestamp = ORIGIN + timedelta(seconds=at if began is None else began)
        if after is None:
            down = CheckResult(
                self.endpoint.id, 0, Status.DOWN, timestamp, None, attempts, FailureKind.TIMEOUT, "silent"
            )
            return at + self.endpoint.timeout, down
        return at + after, CheckResult(self.endpoint.id, 0, Status.UP, timestamp, 1000 * after + ANSWER_MS, attempts)

    def _regular_after(self, after: float) -> float:
        interval = self.endpoint.check_interval
        return self._phase + (math.floor((after - self._phase) / interval) + 1) * interval
