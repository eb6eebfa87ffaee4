"""What the next shift has to know beside what was told: outages, planned work, silences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from servmon.cli.base import shown
from servmon.cli.when import lasted
from servmon.clock import rfc3339

if TYPE_CHECKING:
    from servmon.model import MaintenanceWindow, Occurrence, Outage
    from servmon.store.pool import Executor
    from servmon.store.rows import Row

# The next shift wants to know what is planned for it, too.
AHEAD = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Shift:
    """What went on since ``since``, and what is planned for the day after ``until``, the time of the report."""

    since: datetime
    until: datetime
    outages: list[Outage]
    work: list[tuple[Occurrence, MaintenanceWindow]]
    silences: list[Row]


async def shift_since(db: Executor, since: datetime, until: datetime) -> Shift:
    """Everything the report says of outages, windows and silences."""
    from servmon.detection.maintenance import occurrences
    from servmon.store import maintenance, outages, silences

    windows = await maintenance.between(db, since, until + AHEAD)
    work = [(one, window) for window in windows for one in occurrences(window, since, until + AHEAD)]
    work.sort(key=lambda found: found[0].start_time)
    return Shift(since, until, await outages.during(db, since), work, await silences.not_ended(db, until))


def lines(shift: Shift) -> Iterator[str]:
    """The shift in words: outages that are open, those that are over, planned work, silences."""
    opened = [one for one in shift.outages if not one.resolved]
    closed = [one for one in shift.outages if one.resolved]
    began = sum(one.start_time >= shift.since for one in shift.outages)
    yield f"outages: {began} began, {len(closed)} ended, {len(opened)} open"
    yield from (f"  open  {_outage(one, shift.until)}" for one in opened)
    yield from (f"  over  {_outage(one, shift.until)}" for one in closed)
    for one, window in shift.work:
        when = "over" if one.end_time <= shift.until else "now" if one.start_time <= shift.until else "coming"
        times = f"{one.start_time:%m-%d %H:%M} to {one.end_time:%m-%d %H:%M}"
        yield f"  planned work, {when}: {times}: {shown(_whom(window))}: {shown(window.description)}"
    for row in shift.silences:
        matchers = ", ".join(f"{kind} {', '.join(names)}" for kind, names in row["matchers"].items() if names)
        ends = f"{row['ends_at']:%m-%d %H:%M}"
        yield f"  silent until {ends}: {shown(matchers)}: {shown(row['reason'])} ({shown(row['created_by'])})"


def as_json(shift: Shift) -> dict[str, Any]:
    """The same for a program."""
    return {
        "outages": [
            {
                "id": one.id,
                "endpoint_id": one.endpoint_id,
                "severity": one.severity,
                "start_time": rfc3339(one.start_time),
                "resolved_at": rfc3339(one.resolved_at) if one.resolved_at else None,
                "caused_by": one.caused_by,
                "description": one.description,
            }
            for one in shift.outages
        ],
        "maintenance": [
            {
                "id": window.id,
                "start_time": rfc3339(one.start_time),
                "end_time": rfc3339(one.end_time),
                "description": window.description,
            }
            for one, window in shift.work
        ],
        "silences": [
            {"id": str(row["id"]), "ends_at": rfc3339(row["ends_at"]), "reason": row["reason"], **row["matchers"]}
            for row in shift.silences
        ],
    }


def _outage(one: Outage, until: datetime) -> str:
    how_long = lasted(rfc3339(one.start_time), rfc3339(one.resolved_at or until))
    cause = f", behind {one.caused_by}" if one.caused_by else ""
    told = f"{one.endpoint_id} since {one.start_time:%m-%d %H:%M}, {how_long}{cause}: {one.description}"
    return shown(f"{one.severity}  {told}")


def _whom(window: MaintenanceWindow) -> str:
    sites, tags = (f"site {one}" for one in window.sites), (f"tag {one}" for one in window.tags)
    return ", ".join((*window.endpoint_ids, *sites, *tags))
