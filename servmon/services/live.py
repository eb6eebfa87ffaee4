"""What is known of the endpoints now: from a running daemon's memory, or from what is stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from servmon.clock import now
from servmon.detection.dependencies import Graph
from servmon.model import CheckResult, CheckSource, CurrentStatus, Endpoint, Outage, ServiceStatus, State, Status
from servmon.services import windows
from servmon.services.connection import Connection
from servmon.store import outages, state_changes, statuses
from servmon.store.pool import AWAY

# Far enough back for any threshold people set; a longer run of failures is shown as this many.
COUNTED_FAILURES = 100


class LiveView(Protocol):
    """The running daemon's memory, which knows more than the rows it has written so far."""

    def current(self, endpoint_id: str) -> CurrentStatus | None:
        """What is known of an endpoint now, or ``None`` if it is not watched."""
        ...

    def statuses(self) -> Iterable[CurrentStatus]:
        """What is known of every active endpoint now."""
        ...

    def ids_with(self, status: Status) -> list[str]:
        """The ids of the active endpoints whose last check ended so, UNKNOWN where there was none."""
        ...

    def last_statuses(self) -> list[Status]:
        """The status of every active endpoint's last check."""
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


async def stored_status(connection: Connection, endpoint: Endpoint) -> CurrentStatus:
    """What the rows say of ``endpoint``: its newest check, and the state the last recorded change left it in."""
    db = connection.pool
    last = await statuses.latest(db, endpoint.id)
    changes = await state_changes.of_endpoint(db, endpoint.id, 1)
    open_outages = await outages.get_page(db, active=True, endpoint_id=endpoint.id, before=None, limit=1)
    active = await windows.active(db, now(connection.clock))
    return CurrentStatus(
        endpoint_id=endpoint.id,
        status=last.status if last else Status.UNKNOWN,
        state=changes[0].new if changes and endpoint.is_active else State.UNKNOWN,
        since=changes[0].at if changes and endpoint.is_active else None,
        timestamp=last.timestamp if last else None,
        response_time=last.response_time if last else None,
        error_message=last.error_message if last else None,
        failure_kind=last.failure_kind if last else None,
        consecutive_failures=await _failures_in_a_row(connection, endpoint.id),
        in_maintenance=any(window.covers(endpoint) for window in active),
        outage_id=open_outages[0].id if open_outages else None,
    )


async def stored_summary(connection: Connection, at: datetime) -> dict[str, int]:
    """How many active endpoints are in each status at ``at``, by the newest stored check of each."""
    db = connection.pool
    last = await statuses.last_statuses(db)
    in_maintenance = await windows.in_maintenance(db, at, last)
    open_outages = await outages.open_outages(db)
    return _summary(list(last.values()), len(in_maintenance), len(open_outages))


def live_summary(view: LiveView) -> dict[str, int]:
    """How many active endpoints are in each status, as the running daemon knows them."""
    return _summary(view.last_statuses(), view.in_maintenance(), sum(1 for _ in view.open_outages()))


def _summary(last: list[Status], in_maintenance: int, active_outages: int) -> dict[str, int]:
    return {
        "total": len(last),
        "up": last.count(Status.UP),
        "down": last.count(Status.DOWN),
        "degraded": last.count(Status.DEGRADED),
        "unknown": last.count(Status.UNKNOWN),
        "in_maintenance": in_maintenance,
        "active_outages": active_outages,
    }


async def _failures_in_a_row(connection: Connection, endpoint_id: str) -> int:
    count = 0
    for row in await statuses.history(connection.pool, endpoint_id, limit=COUNTED_FAILURES, before=None):
        if _counts(row):
            if row.status is not Status.DOWN:
                break
            count += 1
    return count


def _counts(row: ServiceStatus) -> bool:
    # A manual check counts for nothing, and UNKNOWN neither adds to nor breaks a run.
    return row.source is CheckSource.SCHEDULE and row.status is not Status.UNKNOWN
