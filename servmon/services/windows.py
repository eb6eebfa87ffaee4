"""How a maintenance window changes, by hand or by its rule, so that what it covered so far stays as it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from servmon.detection.maintenance import next_occurrences, occurrences, running
from servmon.detection.recurrence import recurrence
from servmon.errors import ConflictError, InvalidInputError, Problem
from servmon.model import Endpoint, MaintenanceWindow, Occurrence
from servmon.services.moments import read_moment
from servmon.services.window_fields import lead_words
from servmon.store import endpoints, maintenance
from servmon.store.pool import Executor

LONGEST_EXTENSION_MINUTES = 7 * 24 * 60
_TIMES = ("rrule", "start_time", "end_time", "timezone", "exdates")
# An occurrence of the past whose day the changed rule takes again.
_EARLIER = "*"
_SOON = timedelta(days=2)


def over_at(window: MaintenanceWindow) -> datetime | None:
    """The end of a recurring window's last occurrence; ``None`` where it goes on, or happens once."""
    if window.rrule is None:
        return None
    last = recurrence(window.rrule, window.start_time, window.timezone, window.exdates).last_start()
    return last + (window.end_time - window.start_time) if last else None


def fields_of(window: MaintenanceWindow) -> dict[str, Any]:
    """What a person could have written to get this window."""
    names = ("endpoint_ids", "tags", "sites", *_TIMES, "description", "mode", "notify", "creator_channel")
    return {
        **{name: getattr(window, name) for name in names},
        "notify_before": tuple(map(lead_words, window.notify_before)),
    }


def replaced(before: MaintenanceWindow, wanted: MaintenanceWindow, at: datetime) -> MaintenanceWindow:
    """``before`` with the values of ``wanted`` from ``at`` on: occurrences of its rule that began stay recorded.

    One that runs goes on as the new rule says, or ends now where that has none.
    """
    after = replace(wanted, id=before.id, recorded=before.recorded, rule_from=before.rule_from)
    unchanged = all(getattr(before, name) == getattr(wanted, name) for name in _TIMES)
    if unchanged or (before.rrule is None and wanted.rrule is None):
        return after
    fresh = replace(after, recorded=(), rule_from=at)
    taken = {one.key for one in occurrences(fresh, at, at + _SOON)}
    goes_on = running(fresh, at) is not None
    begun = occurrences(before, _beginning(before), at)
    kept = [one if one.end_time <= at else replace(one, end_time=at) for one in begun]
    return replace(
        fresh,
        recorded=tuple(
            replace(one, key=f"{one.key}{_EARLIER}") if one.key in taken else one
            for one, was in zip(kept, begun, strict=True)
            if was.end_time <= at or not goes_on
        ),
    )


def extended(window: MaintenanceWindow, fields: Mapping[str, Any], at: datetime) -> MaintenanceWindow:
    """The window whose running occurrence (or, where it happens once, whose only one) ends later.

    ``fields`` are ``minutes`` or ``end_time``. Raises ``InvalidInputError``, and ``ConflictError`` where none runs.
    """
    current = running(window, at)
    if current is None and window.rrule is None:
        current = next(iter(next_occurrences(window, at, 1)), None)
    if current is None:
        raise ConflictError("it does not run now, so there is nothing to extend; plan another window instead")
    end = _later_end(fields, current.end_time)
    coming = [one for one in next_occurrences(window, current.end_time, 2) if one.key != current.key]
    if coming and end > coming[0].start_time:
        raise InvalidInputError.of(
            "end_time" if "end_time" in fields else "minutes",
            f"must not reach into the next occurrence, which begins at {coming[0].start_time:%Y-%m-%d %H:%M} UTC",
        )
    return _with_end(window, current, end)


def ended(window: MaintenanceWindow, at: datetime) -> MaintenanceWindow:
    """The window whose running occurrence ends now. Raises ``ConflictError`` where none runs."""
    current = running(window, at)
    if current is None or current.start_time >= at:
        raise ConflictError("it does not run now, so there is nothing to end")
    return _with_end(window, current, at)


async def active(db: Executor, at: datetime) -> list[MaintenanceWindow]:
    """The windows that cover the moment ``at``; a window's end is no longer part of it."""
    found = await maintenance.between(db, at, at + timedelta.resolution)
    return [window for window in found if window.deleted_at is None and running(window, at)]


async def in_maintenance(db: Executor, at: datetime, endpoint_ids: Iterable[str]) -> set[str]:
    """Those of the endpoints that a window is over at ``at``."""
    windows = await active(db, at)
    if not windows:
        return set()
    known: list[Endpoint] = list((await endpoints.changed_since(db, 0)).endpoints)
    return {one.id for one in known if any(window.covers(one) for window in windows)}.intersection(endpoint_ids)


def _beginning(window: MaintenanceWindow) -> datetime:
    return min([window.start_time, *(one.start_time for one in window.recorded)])


def _with_end(window: MaintenanceWindow, current: Occurrence, end: datetime) -> MaintenanceWindow:
    if window.rrule is None and current.key == "":
        return replace(window, end_time=end)
    others = tuple(one for one in window.recorded if one.key != current.key)
    return replace(window, recorded=(*others, replace(current, end_time=end)))


def _later_end(fields: Mapping[str, Any], end: datetime) -> datetime:
    problems = [Problem(name, "unknown field; known are minutes, end_time") for name in fields if name not in _EXTEND]
    given = [name for name in _EXTEND if fields.get(name) is not None]
    if problems or len(given) != 1:
        raise InvalidInputError(problems or [Problem("minutes", "either minutes or end_time has to be given")])
    (name,) = given
    value = fields[name]
    if name == "minutes":
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LONGEST_EXTENSION_MINUTES:
            raise InvalidInputError.of(name, f"must be a whole number from 1 to {LONGEST_EXTENSION_MINUTES}")
        return end + timedelta(minutes=value)
    try:
        later = read_moment(value)
    except ValueError as error:
        raise InvalidInputError.of(name, str(error)) from None
    if not end < later <= end + timedelta(minutes=LONGEST_EXTENSION_MINUTES):
        raise InvalidInputError.of(name, f"must be later than {end:%Y-%m-%d %H:%M:%S} UTC, by at most a week")
    return later


_EXTEND = ("minutes", "end_time")
