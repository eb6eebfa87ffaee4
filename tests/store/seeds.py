"""Values to fill a database with."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from servmon.clock import now
from servmon.metrics import Counters
from servmon.model import CheckResult, Endpoint, Outage, Severity, State, StateChange, Status, Transition
from servmon.store.entries import Entry
from servmon.store.writer import Writer


def endpoint(endpoint_id: str, **fields: Any) -> Endpoint:
    return replace(Endpoint(endpoint_id, endpoint_id, f"tcp://{endpoint_id}:1", "TCP"), **fields)


def result(of: Endpoint, status: Status = Status.UP, timestamp: datetime | None = None, **fields: Any) -> CheckResult:
    return CheckResult(of.id, of.key, status, timestamp or _later(), **fields)


_LAST = [now()]


def _later() -> datetime:
    """Now, but never twice the same: results are made faster than the clock counts."""
    _LAST[0] = max(now(), _LAST[0] + timedelta(microseconds=1))
    return _LAST[0]


def outage(endpoint_id: str, *, severity: Severity = Severity.MAJOR, **fields: Any) -> Outage:
    start = fields.pop("start_time", now() - timedelta(minutes=10))
    declared = {"declared_at": start + timedelta(seconds=40), "revision": 1}
    return Outage(str(uuid4()), endpoint_id, severity, "connection refused", start_time=start, **declared | fields)


def state_change(endpoint_id: str, old: State, new: State, at: datetime, **fields: Any) -> StateChange:
    return StateChange(str(uuid4()), endpoint_id, old, new, "tested", at, **fields)


def change(endpoint_id: str, old: State, new: State, at: datetime) -> Entry:
    return None, [Transition(state_change(endpoint_id, old, new, at))]


def declared(opened: Outage) -> Transition:
    return Transition(
        state_change(opened.endpoint_id, State.SUSPECTED, State.DOWN, opened.declared_at, outage_id=opened.id), opened
    )


def resolved(opened: Outage, after: timedelta = timedelta(minutes=5)) -> Transition:
    at = opened.start_time + after
    over = replace(opened, resolved=True, resolved_at=at, revision=opened.revision + 1)
    return Transition(state_change(opened.endpoint_id, State.DOWN, State.UP, at, outage_id=opened.id), over)


async def store(database: str, *entries: CheckResult | Entry) -> None:
    """Store what a daemon would have found out."""
    writer = Writer(database, Counters(), observer=1)
    for entry in entries:
        writer.put(*((entry, ()) if isinstance(entry, CheckResult) else entry))
    await writer.drain()
    assert writer.queued == 0


async def insert_outage(db: Any, of: Endpoint, **fields: Any) -> Outage:
    """An outage that is simply there, without the transition that led to it."""
    made = outage(of.id, **fields)
    await db.execute(
        "insert into service_outage"
        " (id, endpoint_id, severity, description, start_time, declared_at, resolved, resolved_at)"
        " values ($1::text::uuid, $2, 'MAJOR', $3, $4, $5, $6, $7)",
        made.id,
        made.endpoint_id,
        made.description,
        made.start_time,
        made.declared_at,
        made.resolved,
        made.resolved_at,
    )
    return made
