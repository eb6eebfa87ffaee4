"""What is known of the endpoints now: from a running daemon's memory, or from what is stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from servmon.detection.dependencies import Graph
from servmon.model import CheckResult, CurrentStatus, Endpoint, Outage, Status, StatusFilter, Suspect
from servmon.store.pool import AWAY


class LiveView(Protocol):
    """The running daemon's memory, which knows more than the rows it has written so far."""

    def current(self, endpoint_id: str) -> CurrentStatus | None:
        """What is known of an endpoint now, or ``None`` if it is not watched."""
        ...

    def statuses(self) -> Iterable[CurrentStatus]:
        """What is known of every active endpoint now."""
        ...

    def ids_with(self, wanted: StatusFilter) -> list[str]:
        """The ids of the active endpoints that are so now."""
        ...

    def last_statuses(self) -> list[Status]:
        """The status of every active endpoint's last check."""
        ...

    def suspects(self) -> Iterator[Suspect]:
        """Every active endpoint that fails and has no outage yet, but for those in a window; in no order."""
        ...

    def in_maintenance(self) -> int:
        """How many active endpoints are in a window now."""
        ...

    def last_results(self) -> Iterable[tuple[Endpoint, CheckResult]]:
        """Every active endpoint that was checked, with its last check."""
        ...

    @property
    def graph(self) -> Graph:
        """What depends on what, of all active endpoints."""
        ...

    @property
    def is_away(self) -> bool:
        """Whether Postgres took nothing of late, so that only this memory knows."""
        ...

    def endpoints(self) -> Iterable[Endpoint]:
        """Every active endpoint."""
        ...

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """The active endpoint of this id, as it was when it was last read."""
        ...

    def open_outages(self) -> Iterable[Outage]:
        """Every open outage, in no order."""
        ...

    async def check(self, endpoint: Endpoint) -> CheckResult:
        """Check an endpoint now, outside the schedule; the caller stores the result."""
        ...

    async def refresh(self) -> None:
        """Read what changed in Postgres now, so that an answer and the daemon agree."""
        ...


async def refresh(view: LiveView | None) -> None:
    """After a write: bring the daemon's memory, if there is one, up to date before the answer goes out."""
    if view is not None:
        # What is written is written: the daemon's own feed catches up when Postgres is back.
        with contextlib.suppress(*AWAY):
            await view.refresh()


def live_summary(view: LiveView) -> dict[str, int]:
    """How many active endpoints are in each status, as the running daemon knows them."""
    return summary(view.last_statuses(), view.in_maintenance(), sum(1 for _ in view.open_outages()))


def summary(last: list[Status], in_maintenance: int, active_outages: int) -> dict[str, int]:
    """How many there are of each status, beside how many are in a window and out."""
    return {
        "total": len(last),
        "up": last.count(Status.UP),
        "down": last.count(Status.DOWN),
        "degraded": last.count(Status.DEGRADED),
        "unknown": last.count(Status.UNKNOWN),
        "in_maintenance": in_maintenance,
        "active_outages": active_outages,
    }
