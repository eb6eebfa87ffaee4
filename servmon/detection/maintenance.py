"""Which maintenance window covers which endpoint at which moment; windows are [start_time, end_time)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from servmon.detection.recurrence import recurrence
from servmon.model import Endpoint, MaintenanceMode, MaintenanceWindow, Occurrence

OccurrencesByEndpoint = Mapping[str, Sequence[Occurrence]]
# The next ones are looked for so far ahead; the second only where the first does not hold enough.
LOOK_AHEAD = (timedelta(days=366), timedelta(days=3660))


@dataclass(frozen=True, slots=True, eq=False)
class Covered:
    """An occurrence of a window with the endpoints that it is over."""

    window: MaintenanceWindow
    occurrence: Occurrence
    endpoint_ids: frozenset[str]


class _Index(defaultdict[str, dict[tuple[str, str], Occurrence]]):
    """The occurrences over what bears a name, each once."""

    def __init__(self) -> None:
        super().__init__(dict)


def occurrences(window: MaintenanceWindow, since: datetime, until: datetime) -> list[Occurrence]:
    """The times at which ``window`` is over its endpoints that touch the period from ``since`` until ``until``."""
    touching = (one for one in _occurrences(window, since, until) if one.start_time < until and one.end_time > since)
    return sorted(touching, key=lambda one: (one.start_time, one.key))


def _occurrences(window: MaintenanceWindow, since: datetime, until: datetime) -> Iterator[Occurrence]:
    for one in window.recorded:
        yield replace(one, mode=window.mode)
    recorded = {one.key for one in window.recorded}
    for one in _by_rule(window, since, until):
        end = min(one.end_time, window.deleted_at) if window.deleted_at else one.end_time
        changed_later = window.rule_from is not None and one.end_time <= window.rule_from
        if one.key not in recorded and not changed_later and one.start_time < end:
            yield replace(one, end_time=end)


def _by_rule(window: MaintenanceWindow, since: datetime, until: datetime) -> Iterator[Occurrence]:
    if window.rrule is None:
        yield Occurrence(window.id, "", window.start_time, window.end_time, window.mode)
        return
    lasts = window.end_time - window.start_time
    found = recurrence(window.rrule, window.start_time, window.timezone, window.exdates)
    for day, start in found.starts(since - lasts, until):
        # The end is so much later in UTC: a night in which the clock is changed is as long as any.
        yield Occurrence(window.id, day.isoformat(), start, start + lasts, window.mode)


def next_occurrences(window: MaintenanceWindow, at: datetime, limit: int) -> list[Occurrence]:
    """The running and the next occurrences from ``at`` on, at most ``limit``."""
    if window.deleted_at is not None:
        return []
    if window.rrule is None:
        return occurrences(window, at, max(at, window.end_time))[:limit]
    found: list[Occurrence] = []
    for ahead in LOOK_AHEAD:
        found = occurrences(window, at, at + ahead)[:limit]
        if len(found) == limit:
            break
    return found


def running(window: MaintenanceWindow, at: datetime) -> Occurrence | None:
    """The occurrence that covers ``at``, if one does."""
    found = occurrences(window, at, at + timedelta.resolution)
    return found[0] if found else None


def by_endpoint(
    windows: Iterable[MaintenanceWindow], endpoints: Iterable[Endpoint], since: datetime, until: datetime
) -> OccurrencesByEndpoint:
    """What touches the period of all ``windows``, for each of the ``endpoints`` that they cover."""
    by_id, by_site, by_tag = _Index(), _Index(), _Index()
    for window in windows:
        found = {(one.window_id, one.key): one for one in occurrences(window, since, until)}
        for index, names in ((by_id, window.endpoint_ids), (by_site, window.sites), (by_tag, window.tags)):
            for name in names if found else ():
                index[name].update(found)
    if not (by_id or by_site or by_tag):
        return {}
    over: dict[str, Sequence[Occurrence]] = {}
    for endpoint in endpoints:
        parts = [by_id.get(endpoint.id), by_site.get(endpoint.site or ""), *map(by_tag.get, endpoint.tags)]
        if any(parts):
            over[endpoint.id] = tuple({key: one for part in parts if part for key, one in part.items()}.values())
    return over


def covered(windows: Iterable[MaintenanceWindow], over: OccurrencesByEndpoint) -> tuple[Covered, ...]:
    """The same as ``by_endpoint`` made it, by occurrence."""
    ids: dict[Occurrence, list[str]] = defaultdict(list)
    for endpoint_id, found in over.items():
        for one in found:
            ids[one].append(endpoint_id)
    known = {window.id: window for window in windows}
    return tuple(Covered(known[one.window_id], one, frozenset(endpoint_ids)) for one, endpoint_ids in ids.items())


def mode_at(windows: Sequence[Occurrence], at: datetime) -> MaintenanceMode | None:
    """What an endpoint's windows ask for at ``at``: ``pause`` beats ``mute``, ``None`` where none is active."""
    modes = {window.mode for window in windows if window.start_time <= at < window.end_time}
    if MaintenanceMode.PAUSE in modes:
        return MaintenanceMode.PAUSE
    return MaintenanceMode.MUTE if modes else None
