"""Whose doing an outage is: waits for parents in doubt, and follows the children of those that are out.

What was found stands with each outage (``caused_by``, and since when its cause answers again), so a restart knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import cache

from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.detection import maintenance, outside
from servmon.detection.dependencies import GRACE_INTERVALS, Impact, Standing, standing
from servmon.model import Outage, Status
from servmon.monitor import Monitor
from servmon.watched import Watched

# Thousands of children may wait, or be cut off for hours: looking at each has to be cheap and seldom.
WAIT_SECONDS = 1.0
FOLLOW_SECONDS = 2.0
# Hundreds of children that fail together ask their parent once.
ASKED_ONCE_WITHIN = timedelta(seconds=1)


class Causes:
    """Answers from the monitor's states. ``ask_now`` brings checks forward to this moment."""

    def __init__(
        self, monitor: Monitor, *, ask_now: Callable[[Iterable[str]], None], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._monitor = monitor
        self._ask_now = ask_now
        self._clock = clock
        self._asked_at: dict[str, datetime] = {}
        # The endpoints whose outage is another one's doing.
        self._cut_off: set[str] = set()

    def restore(self) -> None:
        """After the states were rebuilt: take up the outages that are another one's doing."""
        for endpoint_id, watched in self._monitor.watched.items():
            if watched.state.outage and watched.state.outage.caused_by:
                self._cut_off.add(endpoint_id)

    def ask_parents(self, endpoint_id: str) -> datetime:
        """Have everything above an endpoint asked at once; from what time on an answer to that counts.

        Who fails already is asked often enough as it is.
        """
        present = now(self._clock)
        asked: list[str] = []
        waiting = [endpoint_id]
        while waiting:
            for parent in self._monitor.graph.parents(waiting.pop()):
                if self._is_to_be_asked(parent, present):
                    self._asked_at[parent] = present
                    asked.append(parent)
                    waiting.append(parent)
        if asked:
            self._ask_now(asked)
        return present - ASKED_ONCE_WITHIN

    async def find(self, watched: Watched, asked_at: datetime) -> str | None:
        """The root of what cuts an endpoint off, once that is known: waits for parents that are in doubt.

        ``None`` where nothing does, and where the endpoint answers meanwhile.
        """
        endpoint_id = watched.plan.endpoint.id
        while watched.state.verifying:
            graph = self._monitor.graph
            root = graph.root_cause(endpoint_id, lambda parent: self._standing(parent, asked_at) is Standing.OUT)
            if root is not None:
                self._cut_off.add(endpoint_id)
                return root
            if not graph.undecided(endpoint_id, lambda parent: self._standing(parent, asked_at)):
                return None
            await asyncio.sleep(WAIT_SECONDS)
        return None

    def is_out(self, endpoint_id: str) -> bool:
        """Whether an endpoint takes down what depends on it."""
        return self._standing(endpoint_id) is Standing.OUT

    def impact(self, endpoint_id: str) -> Impact:
        """What an endpoint's failure means for those that depend on it, as things stand."""
        return self._monitor.graph.impact(endpoint_id, self.is_out)

    async def follow(self) -> None:
        """See to the children of what is out, and of what came back, for ever."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            self.look_again()

    def look_again(self) -> None:
        """Find out whose doing the outages of children are by now."""
        present = now(self._clock)
        standing_of = cache(self._standing)  # all of them have few parents
        for endpoint_id in tuple(self._cut_off):
            watched = self._monitor.watched.get(endpoint_id)
            if watched is None or not self._look_again_at(watched, standing_of, present):
                self._cut_off.discard(endpoint_id)

    def _look_again_at(self, watched: Watched, standing_of: Callable[[str], Standing], present: datetime) -> bool:
        """Whether the endpoint is to be followed any further."""
        outage = watched.state.outage
        if outage is None or outage.caused_by is None:
            return watched.state.verifying  # the verdict is just being reached
        graph, endpoint_id = self._monitor.graph, watched.plan.endpoint.id
        root = graph.root_cause(endpoint_id, lambda parent: standing_of(parent) is Standing.OUT)
        back_at = _back_at(outage)
        if root is not None:
            if root != outage.caused_by or back_at is not None:
                self._blame(watched, root, f"cut off by {root}", present)
        elif not graph.undecided(endpoint_id, standing_of):
            self._follow_recovery(watched, outage, back_at, present)
        return True

    def _follow_recovery(self, watched: Watched, outage: Outage, back_at: datetime | None, present: datetime) -> None:
        """The cause is over: the endpoint has two of its intervals to follow, then its outage is its own."""
        grace = GRACE_INTERVALS * watched.plan.endpoint.check_interval
        if back_at is None:
            over = "answers again" if outage.caused_by in self._monitor.watched else "is no longer watched"
            reason = f"{outage.caused_by} {over}; this one has {grace} s to follow"
            self._blame(watched, outage.caused_by, reason, present, back_at=present)
            self._monitor.ask_soon([watched.plan.endpoint.id])
        elif present - back_at >= timedelta(seconds=grace) and _fails_since(watched, back_at):
            reason = f"still down {grace} s after {outage.caused_by} was over: a failure of its own"
            self._blame(watched, None, reason, present)

    def _blame(
        self, watched: Watched, cause: str | None, reason: str, present: datetime, back_at: datetime | None = None
    ) -> None:
        self._monitor.take(watched, outside.blame(watched.state, cause, reason, present, back_at=back_at))

    def _is_to_be_asked(self, parent: str, present: datetime) -> bool:
        watched = self._monitor.watched.get(parent)
        if watched is None or watched.state.in_series:
            return False
        asked_at = self._asked_at.get(parent)
        return asked_at is None or abs(present - asked_at) > ASKED_ONCE_WITHIN

    def _standing(self, parent: str, asked_at: datetime | None = None) -> Standing:
        watched = self._monitor.watched.get(parent)
        if watched is None or self._monitor.is_paused(parent):
            return Standing.UP
        present = now(self._clock)
        muted = bool(watched.windows) and maintenance.mode_at(watched.windows, present) is not None
        return standing(watched.state, present, asked_at=asked_at, muted=muted)


def _back_at(outage: Outage) -> datetime | None:
    """Since when the cause of an outage answers again, where it does."""
    at = outage.evidence.get("cause", {}).get("back_at")
    return datetime.fromisoformat(at) if at else None


def _fails_since(watched: Watched, back_at: datetime) -> bool:
    last = watched.state.last
    return last is not None and last.status is Status.DOWN and last.timestamp > back_at
