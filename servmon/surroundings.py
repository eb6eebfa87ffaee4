"""What the telling of an outage depends on around it: windows, neighbours at its site, and what it depends on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.detection.dependencies import Groups, children_by_parent, dependants, root_cause
from servmon.model import Endpoint, State, Status
from servmon.monitor import Monitor, Watched

# Counting walks over every endpoint, so it is done at most this often.
COUNT_EVERY_SECONDS = 0.5
# A child waits for the verdict on its parent, but not for ever.
LONGEST_SUSPICION = timedelta(seconds=90)
# After a parent came back, its children have so many of their intervals to follow.
GRACE_INTERVALS = 2


class Surroundings:
    """Answers from the monitor's states; counts of a site are at most half a second old."""

    def __init__(self, monitor: Monitor, clock: Clock = SYSTEM_CLOCK) -> None:
        self._monitor = monitor
        self._clock = clock
        self._counted_at = float("-inf")
        self._sizes: Mapping[str, int] = {}
        self._suspected: Mapping[str, int] = {}
        self._children: Mapping[str, list[str]] = {}
        # When each parent was last seen out (monotonic seconds), for the grace after its recovery.
        self._seen_out: dict[str, float] = {}

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint as it is watched, or ``None``."""
        plan = self._monitor.plan(endpoint_id)
        return plan.endpoint if plan else None

    def in_maintenance(self, endpoint_id: str) -> bool:
        """Whether a window is over the endpoint now."""
        current = self._monitor.current(endpoint_id)
        return current is not None and current.in_maintenance

    def neighbour_suspected(self, endpoint: Endpoint) -> bool:
        """Whether another endpoint of the same site is suspected just now."""
        if endpoint.site is None:
            return False
        self._count()
        watched = self._monitor.watched.get(endpoint.id)
        itself = watched is not None and watched.state.state is State.SUSPECTED
        return self._suspected.get(endpoint.site, 0) > itself

    def site_size(self, site: str) -> int:
        """How many endpoints are watched at a site."""
        self._count()
        return self._sizes.get(site, 0)

    def cause(self, endpoint: Endpoint) -> str | None:
        """In words, what an endpoint depends on and what is out, or was until two of its intervals ago."""
        if not endpoint.depends_on:
            return None
        grace = GRACE_INTERVALS * endpoint.check_interval
        root = root_cause(endpoint.id, self._groups, lambda parent: self._is_out(parent, grace))
        if root is None:
            return None
        watched = self._monitor.watched[root]
        name, outage = watched.plan.endpoint.name, watched.state.outage
        if outage is not None:
            return f"{name} is down (outage {outage.id}), and it depends on that"
        if watched.state.state is State.SUSPECTED:
            return f"{name} is suspected, and it depends on that"
        return f"{name}, which it depends on, is in maintenance or has just come back"

    def dependants(self, endpoint_id: str) -> list[str]:
        """The ids of everything that depends on an endpoint, nearest first."""
        self._count()
        return dependants(endpoint_id, self._children)

    def _groups(self, endpoint_id: str) -> Groups:
        plan = self._monitor.plan(endpoint_id)
        return plan.endpoint.depends_on if plan else ()

    def _is_out(self, parent: str, grace: float) -> bool:
        """Whether a parent does not answer; one that nobody watches counts as well, so that people are told."""
        watched = self._monitor.watched.get(parent)
        if watched is None:
            return False
        present = self._clock.monotonic()
        if self._does_not_answer(watched):
            self._seen_out[parent] = present
            return True
        return present - self._seen_out.get(parent, float("-inf")) < grace

    def _does_not_answer(self, watched: Watched) -> bool:
        state = watched.state
        if state.state is State.SUSPECTED:
            since = state.since or now(self._clock)
            return now(self._clock) - since <= LONGEST_SUSPICION
        muted_and_dead = state.last is not None and state.last.status is Status.DOWN and bool(watched.windows)
        return state.state is State.DOWN or (muted_and_dead and self.in_maintenance(watched.plan.endpoint.id))

    def _count(self) -> None:
        present = self._clock.monotonic()
        if present - self._counted_at < COUNT_EVERY_SECONDS:
            return
        self._counted_at = present
        at_sites = [
            (watched.plan.endpoint.site, watched.state.state)
            for watched in self._monitor.watched.values()
            if watched.plan.endpoint.site is not None
        ]
        self._sizes = Counter(site for site, _ in at_sites)
        self._suspected = Counter(site for site, state in at_sites if state is State.SUSPECTED)
        self._children = children_by_parent(
            (watched.plan.endpoint.id, watched.plan.endpoint.depends_on) for watched in self._monitor.watched.values()
        )
