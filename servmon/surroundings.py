"""What the telling of an outage depends on around it: windows, and the neighbours at its site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from servmon.clock import SYSTEM_CLOCK, Clock
from servmon.model import Endpoint, State
from servmon.monitor import Monitor

# Counting walks over every endpoint, so it is done at most this often.
COUNT_EVERY_SECONDS = 0.5


class Surroundings:
    """Answers from the monitor's states; counts of a site are at most half a second old."""

    def __init__(self, monitor: Monitor, clock: Clock = SYSTEM_CLOCK) -> None:
        self._monitor = monitor
        self._clock = clock
        self._counted_at = float("-inf")
        self._sizes: Mapping[str, int] = {}
        self._suspected: Mapping[str, int] = {}

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
