"""What an endpoint's checks found over any period: single results, or the hours or days they amount to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from servmon.errors import InvalidInputError, Problem
from servmon.model import ServiceStatus
from servmon.services.moments import read_moment_or_day
from servmon.store import rollups, statuses
from servmon.store.pool import Executor
from servmon.store.rollups import Dropped, Period, Rollup

# What of a longer period nobody looks at one by one.
LONGEST_IN_RESULTS = timedelta(days=2)
LONGEST_IN_HOURS = timedelta(days=62)
_UTC = ZoneInfo("UTC")


class Resolution(StrEnum):
    """How finely a history is told."""

    RAW = "raw"
    HOUR = "hour"
    DAY = "day"


AUTO = "auto"


@dataclass(frozen=True, slots=True)
class History:
    """Some of a history, newest first, all of one ``resolution``: ``ServiceStatus`` for raw, else ``Rollup``."""

    resolution: Resolution
    rows: Sequence[ServiceStatus | Rollup]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which part of a history is asked for: from ``since`` until ``until``; no resolution: what fits the length."""

    since: datetime | None = None
    until: datetime | None = None
    resolution: Resolution | None = None


def read_asked(fields: dict[str, Any]) -> Asked:
    """What ``since``, ``until`` (times, or days in UTC) and ``resolution`` (raw, hour, day, auto) ask for.

    Raises ``InvalidInputError`` naming every wrong field.
    """
    problems: list[Problem] = []

    def moment(name: str) -> datetime | None:
        try:
            return None if fields.get(name) is None else read_moment_or_day(fields[name], _UTC)
        except ValueError as error:
            problems.append(Problem(name, str(error)))
            return None

    since, until = moment("since"), moment("until")
    if since and until and not since < until:
        problems.append(Problem("since", "must be before until"))
    wanted = fields.get("resolution") or AUTO
    if wanted not in (AUTO, *Resolution):
        problems.append(Problem("resolution", "must be one of auto, raw, hour, day"))
    if problems:
        raise InvalidInputError(problems)
    return Asked(since, until, None if wanted == AUTO else Resolution(wanted))


def choose(asked: Asked, dropped: Dropped, present: datetime) -> Resolution:
    """The finest resolution that is kept for the whole period and has no more entries than a chart shows."""
    if asked.resolution is not None:
        return asked.resolution
    if asked.since is None:
        return Resolution.RAW
    length = min(asked.until or present, present) - asked.since
    if length <= LONGEST_IN_RESULTS and _is_kept(asked.since, dropped.results):
        return Resolution.RAW
    if length <= LONGEST_IN_HOURS and _is_kept(asked.since, dropped.hours):
        return Resolution.HOUR
    return Resolution.DAY


def _is_kept(since: datetime, dropped_before: date | None) -> bool:
    return dropped_before is None or since >= datetime.combine(dropped_before, datetime.min.time(), UTC)


async def read(
    db: Executor, endpoint_id: str, asked: Asked, *, limit: int, before: datetime | None, present: datetime
) -> History:
    """At most ``limit`` entries of the history of an endpoint, all from before ``before``."""
    resolution = choose(asked, await rollups.dropped(db), present)
    if resolution is Resolution.RAW:
        found = await statuses.history(
            db, endpoint_id, limit=limit, before=before, since=asked.since, until=asked.until
        )
        return History(resolution, found)
    period = Period(resolution)
    ends = [moment for moment in (asked.until, before) if moment is not None]
    summed = await rollups.history(
        db,
        endpoint_id,
        period,
        limit=limit,
        since=asked.since and rollups.start_of(period, asked.since),
        before=min(ends, default=present),
        present=present,
    )
    return History(resolution, summed)
