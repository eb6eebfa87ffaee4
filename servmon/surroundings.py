"""What the telling of an outage depends on around it: windows, neighbours at its site, and what it depends on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from servmon.causes import Causes
from servmon.clock import SYSTEM_CLOCK, Clock
from servmon.detection.maintenance import Covered
from servmon.detection.state import EndpointState
from servmon.model import Endpoint, Outage, State, Status
from servmon.monitor import Monitor
from servmon.watched import Watched

# Counting walks over every endpoint, so it is done at most this often.
COUNT_EVERY_SECONDS = 0.5
# A parent that came and went so often lately is why its children do.
UNSTEADY_FLIPS = 3
NEVER = datetime.min.replace(tzinfo=UTC)


class Surroundings:
    """Answers from the monitor's states; counts of a site are at most half a second old."""

    def __init__(self, monitor: Monitor, causes: Causes, clock: Clock = SYSTEM_CLOCK) -> None:
        self._monitor = monitor
        self._causes = causes
        self._clock = clock
        self._counted_at = float("-inf")
        self._at_sites: defaultdict[str, list[Watched]] = defaultdict(list)
        self._suspected: Mapping[str, int] = {}

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint as it is watched, or ``None``."""
        plan = self._monitor.plan(endpoint_id)
        return plan.endpoint if plan else None

    def endpoints(self) -> Iterator[Endpoint]:
        """Every endpoint under watch."""
        return (watched.plan.endpoint for watched in self._monitor.watched.values())

    def open_outages(self) -> Iterator[tuple[Endpoint, Outage]]:
        """Every open outage, with its endpoint."""
        for watched in self._monitor.watched.values():
            if watched.state.outage is not None:
                yield watched.plan.endpoint, watched.state.outage

    def in_maintenance(self, endpoint_id: str) -> bool:
        """Whether a window is over the endpoint now."""
        current = self._monitor.current(endpoint_id)
        return current is not None and current.in_maintenance

    def covered(self) -> Sequence[Covered]:
        """The occurrences of windows that are near, with those that ended within the last hour."""
        return self._monitor.covered

    def open_outage(self, endpoint_id: str) -> Outage | None:
        """The open outage of an endpoint, if it has one."""
        watched = self._monitor.watched.get(endpoint_id)
        return watched.state.outage if watched else None

    def does_not_answer(self, endpoint_id: str) -> bool:
        """Whether an endpoint's last check failed, whatever is made of that."""
        watched = self._monitor.watched.get(endpoint_id)
        return watched is not None and watched.state.last is not None and watched.state.last.status is Status.DOWN

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
        return len(self._at_sites.get(site, ()))

    def takes_down(self, endpoint_id: str) -> tuple[str, ...]:
        """The ids of what an endpoint's failure cuts off, nearest first."""
        return self._causes.impact(endpoint_id).takes_down

    def failing_at(self, site: str, around: datetime, within: timedelta) -> int:
        """How many endpoints of a site fail, suspected ones included, and began to at that time."""
        self._count()
        return sum(
            watched.state.in_series and abs(_failing_since(watched.state) - around) <= within
            for watched in self._at_sites.get(site, ())
        )

    def unsteady_parent(self, endpoint: Endpoint) -> str | None:
        """The name of what makes an endpoint go up and down, where that is something it depends on."""
        parent = self._monitor.graph.root_cause(endpoint.id, self._is_unsteady)
        return self._monitor.watched[parent].plan.endpoint.name if parent else None

    def _is_unsteady(self, parent: str) -> bool:
        watched = self._monitor.watched.get(parent)
        if watched is None:
            return False
        recent = watched.state.recent
        return recent.flapping or len(recent.flips) >= UNSTEADY_FLIPS or self._causes.is_out(parent)

    def _count(self) -> None:
        present = self._clock.monotonic()
        if present - self._counted_at < COUNT_EVERY_SECONDS:
            return
        self._counted_at = present
        self._at_sites = defaultdict(list)
        for watched in self._monitor.watched.values():
            if watched.plan.endpoint.site is not None:
                self._at_sites[watched.plan.endpoint.site].append(watched)
        self._suspected = {
            site: sum(watched.state.state is State.SUSPECTED for watched in there)
            for site, there in self._at_sites.items()
        }


def _failing_since(state: EndpointState) -> datetime:
    outage = state.outage
    return (outage.start_time if outage else state.first_failure_at) or NEVER
