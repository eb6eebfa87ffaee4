"""What the rows say of the endpoints now, where no running daemon's memory can be asked: many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from servmon.clock import now
from servmon.model import CurrentStatus, Endpoint, Outage, StateChange
from servmon.services import windows
from servmon.services.connection import Connection
from servmon.services.live import summary
from servmon.store import outages, state_changes, statuses
from servmon.store.statuses import Standing


async def stored_statuses(connection: Connection, asked: Sequence[Endpoint]) -> dict[str, CurrentStatus]:
    """Of each endpoint, by its id: its newest check, and the state the last recorded change left it in."""
    db, ids = connection.pool, [one.id for one in asked]
    last = await statuses.standings(db, ids)
    changes = await state_changes.last_of(db, ids)
    open_at = {one.endpoint_id: one for one in await outages.open_at(db, ids)}
    active = await windows.active(db, now(connection.clock))
    return {
        one.id: _status(
            one,
            last.get(one.id),
            changes.get(one.id) if one.is_active else None,
            open_at.get(one.id),
            in_maintenance=any(window.covers(one) for window in active),
        )
        for one in asked
    }


def _status(
    endpoint: Endpoint,
    last: Standing | None,
    change: StateChange | None,
    outage: Outage | None,
    *,
    in_maintenance: bool,
) -> CurrentStatus:
    known = CurrentStatus(
        endpoint_id=endpoint.id, in_maintenance=in_maintenance, outage_id=outage.id if outage else None
    )
    if change is not None:
        known = replace(known, state=change.new, since=change.at)
    if last is None:
        return known
    return replace(
        known,
        status=last.status,
        timestamp=last.timestamp,
        response_time=last.response_time,
        error_message=last.error_message,
        failure_kind=last.failure_kind,
        consecutive_failures=last.failures,
    )


async def stored_summary(connection: Connection, at: datetime) -> dict[str, int]:
    """How many active endpoints are in each status at ``at``, by the newest stored check of each."""
    db = connection.pool
    last = await statuses.last_statuses(db)
    in_maintenance = await windows.in_maintenance(db, at, last)
    open_outages = await outages.open_outages(db)
    return summary(list(last.values()), len(in_maintenance), len(open_outages))
