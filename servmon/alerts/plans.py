"""What people hear of planned work: before, at its begin, when it changes or is cancelled, shortly before its end.

Pure: windows, what was told of them so far and a time go in, notices come out. They are about work, not about outages,
so no window and no silence mutes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from servmon.alerts.alert import MessageKind
from servmon.detection.maintenance import occurrences
from servmon.model import MaintenanceMode, MaintenanceWindow, Occurrence

# What is still down so shortly before the end is told to whom the window belongs.
ENDS_SOON = timedelta(minutes=15)
# What ended so long ago is not looked at any more; somebody else sees to it, or servmon was away.
LOOKED_BACK = timedelta(hours=1)
KEPT = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Told:
    """What people know of one occurrence of a window.

    ``lead`` is the shortest lead time, in seconds, at which it was announced; ``warned_end`` the end before which it
    was told what is still down; ``sequence`` counts its changes, as calendars want it; ``settled`` is true once it is
    over or cancelled and nothing more is said.
    """

    window_id: str
    key: str
    start_time: datetime
    end_time: datetime
    description: str = ""
    channels: tuple[str, ...] = ()
    lead: int | None = None
    begun: bool = False
    warned_end: datetime | None = None
    sequence: int = 0
    settled: bool = False

    @property
    def heard(self) -> bool:
        """Whether stakeholders were told anything."""
        return self.lead is not None or self.begun


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to be told of an occurrence; ``was`` is what people knew before, where that is no longer so."""

    kind: MessageKind
    window: MaintenanceWindow
    told: Told
    channels: tuple[str, ...]
    was: Told | None = None


@dataclass(frozen=True, slots=True)
class Present:
    """What notices depend on beside the windows.

    ``down`` are the ids of the endpoints that do not answer in an occurrence that runs, by its window and key;
    ``ended`` those that are over with their grace, and whether something was told as still down; ``default_channels``
    hear what concerns a window that names no channel of its creator.
    """

    at: datetime
    down: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    ended: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    default_channels: tuple[str, ...] = ()


def due(
    windows: Sequence[MaintenanceWindow], told: Sequence[Told], present: Present
) -> tuple[list[Notice], list[Told]]:
    """The notices that are due, and what people know afterwards, of each occurrence of which that has changed."""
    notices: list[Notice] = []
    changed: list[Told] = []
    known = {(one.window_id, one.key): one for one in told}
    for window in windows:
        near = {one.key: one for one in _near(window, present.at)}
        keys = [*near, *(key for window_id, key in known if window_id == window.id and key not in near)]
        for key in keys:
            before = known.get((window.id, key))
            found, after = _of_occurrence(window, near.get(key), before, present)
            notices += [notice for notice in found if notice.channels]
            if after is not None and after != before:
                changed.append(after)
    return notices, changed


def _near(window: MaintenanceWindow, at: datetime) -> list[Occurrence]:
    ahead = timedelta(seconds=max(window.notify_before, default=0))
    return occurrences(window, at - LOOKED_BACK, at + ahead + timedelta.resolution)


def _of_occurrence(
    window: MaintenanceWindow, occurrence: Occurrence | None, before: Told | None, present: Present
) -> tuple[list[Notice], Told | None]:
    if before is not None and before.settled and not _planned_anew(occurrence, present.at):
        return [], before
    if occurrence is None:
        return _gone(window, before, present.at)
    after = before if before is not None and not before.settled else _unheard(window, occurrence, before)
    notices: list[Notice] = []
    for step in (_changed, _announced, _begun, _ends_soon, _over):
        notice, after = step(window, occurrence, after, present)
        notices += [notice] if notice else []
    return notices, after


def _planned_anew(occurrence: Occurrence | None, at: datetime) -> bool:
    """Whether an occurrence that was over or cancelled is to come all the same."""
    return occurrence is not None and occurrence.end_time > at


def _unheard(window: MaintenanceWindow, occurrence: Occurrence, before: Told | None) -> Told:
    return Told(
        window_id=window.id,
        key=occurrence.key,
        start_time=occurrence.start_time,
        end_time=occurrence.end_time,
        description=window.description,
        channels=window.notify,
        # A calendar that knows it as cancelled has to see a later one.
        sequence=before.sequence + 1 if before else 0,
    )


def _gone(window: MaintenanceWindow, before: Told | None, at: datetime) -> tuple[list[Notice], Told | None]:
    """The occurrence is not there any more, or so far away that nobody has to hear of it yet."""
    if before is None:
        return [], None
    after = replace(before, settled=True, sequence=before.sequence + 1)
    if not before.heard or before.end_time <= at:
        return [], after
    if (moved := _moved_far(window, before)) is not None:
        after = replace(moved, sequence=after.sequence)
        return [Notice(MessageKind.PLAN_CHANGED, window, after, _readers(window, before), was=before)], after
    return [Notice(MessageKind.PLAN_CANCELLED, window, after, _readers(window, before))], after


def _moved_far(window: MaintenanceWindow, before: Told) -> Told | None:
    """A window that happens once and was put off beyond its lead times: it is another date, not cancelled."""
    if before.key or window.rrule is not None or window.deleted_at is not None:
        return None
    return replace(
        before,
        start_time=window.start_time,
        end_time=window.end_time,
        description=window.description,
        lead=None,
        begun=False,
    )


def _readers(window: MaintenanceWindow, before: Told) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*window.notify, *before.channels)))


Step = tuple[Notice | None, Told]


def _changed(window: MaintenanceWindow, occurrence: Occurrence, before: Told, present: Present) -> Step:
    same = (before.start_time, before.end_time, before.description, before.channels) == (
        occurrence.start_time,
        occurrence.end_time,
        window.description,
        window.notify,
    )
    if same:
        return None, before
    after = replace(
        before,
        start_time=occurrence.start_time,
        end_time=occurrence.end_time,
        description=window.description,
        channels=window.notify,
        begun=before.begun and occurrence.start_time <= present.at,
    )
    only_readers = replace(after, channels=before.channels) == before
    if not before.heard or only_readers or occurrence.end_time <= present.at:
        return None, after
    after = replace(after, sequence=before.sequence + 1)
    return Notice(MessageKind.PLAN_CHANGED, window, after, _readers(window, before), was=before), after


def _announced(window: MaintenanceWindow, occurrence: Occurrence, before: Told, present: Present) -> Step:
    if present.at >= occurrence.start_time:
        return None, before
    left = (occurrence.start_time - present.at).total_seconds()
    reached = [lead for lead in window.notify_before if left <= lead]
    if not reached or (before.lead is not None and min(reached) >= before.lead):
        return None, before
    after = replace(before, lead=min(reached))
    return Notice(MessageKind.PLANNED, window, after, window.notify), after


def _begun(window: MaintenanceWindow, occurrence: Occurrence, before: Told, present: Present) -> Step:
    if before.begun or not occurrence.start_time <= present.at < occurrence.end_time:
        return None, before
    after = replace(before, begun=True)
    return Notice(MessageKind.WINDOW_BEGINS, window, after, window.notify), after


def _ends_soon(window: MaintenanceWindow, occurrence: Occurrence, before: Told, present: Present) -> Step:
    """Who made the window hears what is still down, in time to extend it; in a pause nobody knows what is."""
    warn_at = occurrence.end_time - ENDS_SOON
    down = present.down.get((window.id, occurrence.key))
    in_time = warn_at > occurrence.start_time and warn_at <= present.at < occurrence.end_time
    if not in_time or not down or before.warned_end == occurrence.end_time or window.mode is MaintenanceMode.PAUSE:
        return None, before
    after = replace(before, warned_end=occurrence.end_time)
    channels = (window.creator_channel,) if window.creator_channel else present.default_channels
    return Notice(MessageKind.WINDOW_ENDS_SOON, window, after, channels), after


def _over(window: MaintenanceWindow, occurrence: Occurrence, before: Told, present: Present) -> Step:
    """Where something was told as still down, that message went to the stakeholders as well."""
    still_down = present.ended.get((window.id, occurrence.key))
    if still_down is None or occurrence.end_time > present.at:
        return None, before
    after = replace(before, settled=True)
    tell = before.begun and not still_down
    return Notice(MessageKind.WINDOW_WENT_WELL, window, after, window.notify) if tell else None, after


def forgettable(told: Sequence[Told], at: datetime) -> Iterator[Told]:
    """What nobody will ask for again."""
    return (one for one in told if one.end_time + KEPT < at)
