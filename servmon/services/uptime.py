"""How available an endpoint was over a period, for API, reports and Python callers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from servmon.detection.maintenance import occurrences
from servmon.detection.spans import Span
from servmon.detection.state import EVIDENCE_LASTS_INTERVALS
from servmon.detection.uptime import Uptime, uptime
from servmon.errors import InvalidInputError, Problem
from servmon.model import Endpoint
from servmon.services.moments import read_moment_or_day, read_zone
from servmon.store import maintenance
from servmon.store import uptime as stored
from servmon.store.pool import Executor

DEFAULT_PERIOD = timedelta(days=30)
LONGEST_PERIOD = timedelta(days=3660)


@dataclass(frozen=True, slots=True)
class UptimeReport:
    """An endpoint's uptime; ``check_success`` is another figure, the percentage of kept checks that were good."""

    endpoint_id: str
    uptime: Uptime
    zone: ZoneInfo
    check_success: float | None


async def report(db: Executor, endpoint: Endpoint, period: Span, zone: ZoneInfo) -> UptimeReport:
    """How available ``endpoint`` was in ``period``; as for blindness, a verdict stands for three of its intervals."""
    since, until = period
    patience = timedelta(seconds=EVIDENCE_LASTS_INTERVALS * endpoint.check_interval)
    seen = await stored.seen_between(db, endpoint.id, since, until, patience)
    outages = await stored.outages_between(db, endpoint.id, since, until)
    windows = await maintenance.over_endpoint(db, endpoint.id, since, until)
    computed = uptime(
        period,
        [(outage_id, Span(start, end)) for outage_id, start, end in outages],
        [Span(one.start_time, one.end_time) for window in windows for one in occurrences(window, since, until)],
        [Span(*gap) for gap in seen.gaps],
    )
    counted = seen.good + seen.bad
    return UptimeReport(endpoint.id, computed, zone, 100 * seen.good / counted if counted else None)


def read_period(since: object, until: object, timezone: object, present: datetime) -> tuple[Span, ZoneInfo]:
    """The period that a person wrote, and its time zone (UTC unless given).

    Each end is a time as ``read_moment`` takes it, or a day, which stands for its first moment in the time zone.
    Without ``until`` it ends now, without ``since`` it is 30 days long; what is still to come is cut off. Raises
    ``InvalidInputError`` naming every wrong field.
    """
    problems: list[Problem] = []
    try:
        zone = read_zone(timezone)
    except ValueError as error:
        raise InvalidInputError.of("timezone", str(error)) from None

    def moment(name: str, value: object, default: datetime) -> datetime:
        try:
            return default if value is None else read_moment_or_day(value, zone)
        except ValueError as error:
            problems.append(Problem(name, str(error)))
            return default

    end = min(moment("until", until, present), present)
    start = moment("since", since, end - DEFAULT_PERIOD)
    if not problems and not start < end:
        problems.append(Problem("since", "must be before until, and before now"))
    elif not problems and end - start > LONGEST_PERIOD:
        problems.append(Problem("since", f"must be at most {LONGEST_PERIOD.days} days before until"))
    if problems:
        raise InvalidInputError(problems)
    return Span(start, end), zone
