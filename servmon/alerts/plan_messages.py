"""The words of notices about planned work. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from servmon.alerts.alert import MessageKind, Notification
from servmon.alerts.calendar import event_of
from servmon.alerts.content import NAMED
from servmon.alerts.lines import SUBJECT_LIMIT, lasted, one_line
from servmon.alerts.plans import Notice, Told
from servmon.clock import rfc3339
from servmon.model import MaintenanceMode, Severity

_HEADS: Mapping[MessageKind, str] = {
    MessageKind.PLANNED: "PLANNED",
    MessageKind.PLAN_CHANGED: "CHANGED",
    MessageKind.PLAN_CANCELLED: "CANCELLED",
    MessageKind.WINDOW_BEGINS: "MAINTENANCE BEGINS",
    MessageKind.WINDOW_ENDS_SOON: "MAINTENANCE ENDS SOON",
    MessageKind.WINDOW_WENT_WELL: "MAINTENANCE OVER",
}
_NAMED_SELECTORS = 20


def compose(notice: Notice, now: datetime, covered: int | None, down: Sequence[str]) -> Iterator[Notification]:
    """A message for each of the notice's channels.

    ``covered`` is how many endpoints the window is over, where that is known by now; ``down`` are the ids of those that
    do not answer.
    """
    body = "\n".join(_lines(notice, now, covered, down)) + "\n"
    for channel in notice.channels:
        yield Notification(
            id=_id(notice, channel),
            alert_id=_thread(notice.told),
            channel=channel,
            kind=notice.kind,
            severity=Severity.WARNING,
            subject=one_line(
                f"{_HEADS[notice.kind]}: {_name(notice)} ({_remark(notice, now, covered, down)})", SUBJECT_LIMIT
            ),
            body=body,
            created_at=now,
            content=_content(notice, covered, down, body),
        )


def _thread(told: Told) -> str:
    """What the messages of one occurrence have in common, as those of one alert have."""
    return str(uuid5(UUID(told.window_id), f"plan {told.key}"))


def _id(notice: Notice, channel: str) -> str:
    """The same for the same notice, so that a second try after a lost connection is no second message."""
    told = notice.told
    what = (notice.kind.value, told.key, told.sequence, told.lead, told.start_time, told.end_time, channel)
    return str(uuid5(UUID(told.window_id), " ".join(map(str, what))))


def _name(notice: Notice) -> str:
    return one_line(notice.told.description or "planned work", 120)


def _remark(notice: Notice, now: datetime, covered: int | None, down: Sequence[str]) -> str:
    told, zone = notice.told, notice.window.timezone
    match notice.kind:
        case MessageKind.WINDOW_ENDS_SOON:
            return f"{len(down)} of {covered} do not answer, it ends at {_moment(told.end_time, zone)}"
        case MessageKind.WINDOW_WENT_WELL:
            return f"{len(down)} of {covered} do not answer" if down else "everything is back"
        case MessageKind.WINDOW_BEGINS:
            return f"until {_moment(told.end_time, zone)}"
        case MessageKind.PLANNED:
            return f"{_moment(told.start_time, zone)}, in {lasted(told.start_time - now)}"
        case _:
            return _moment(told.start_time, zone)


def _lines(notice: Notice, now: datetime, covered: int | None, down: Sequence[str]) -> Iterator[str]:
    told, window = notice.told, notice.window
    yield f"{_name(notice)}: {_period(told, window.timezone)}."
    if notice.was is not None:
        yield f"Before it was {_period(notice.was, window.timezone)}" + (
            f", {one_line(notice.was.description)}." if notice.was.description != told.description else "."
        )
    if notice.kind is MessageKind.PLAN_CANCELLED:
        yield "It does not take place."
    if notice.kind is MessageKind.WINDOW_ENDS_SOON:
        yield f"{len(down)} of {covered} endpoints do not answer, {lasted(told.end_time - now)} before its end:"
        yield from _named(down)
        yield "If it takes longer, extend it, or they will be alerted on:"
        yield f'POST /maintenance/{window.id}/extend {{"minutes": 30}}'
    elif down:
        yield f"{len(down)} of {covered} endpoints do not answer:"
        yield from _named(down)
    yield ""
    yield from _about(notice, covered)


def _named(ids: Sequence[str]) -> Iterator[str]:
    yield from (f"- {one_line(endpoint_id)}" for endpoint_id in ids[:NAMED])
    if len(ids) > NAMED:
        yield f"- … and {len(ids) - NAMED} more"


def _about(notice: Notice, covered: int | None) -> Iterator[str]:
    window = notice.window
    if covered is not None:
        yield f"Endpoints: {covered}"
    selectors = (("Endpoints", window.endpoint_ids), ("Tags", window.tags), ("Sites", window.sites))
    for label, names in selectors:
        if names:
            more = f" and {len(names) - _NAMED_SELECTORS} more" if len(names) > _NAMED_SELECTORS else ""
            yield one_line(f"{label}: {', '.join(names[:_NAMED_SELECTORS])}{more}")
    if window.mode is MaintenanceMode.PAUSE:
        yield "Nothing is checked meanwhile."
    if window.rrule:
        yield one_line(f"It recurs: {window.rrule}")
    if window.created_by:
        yield one_line(f"Planned by: {window.created_by}")


def _period(told: Told, zone: str) -> str:
    start, end = (at.astimezone(ZoneInfo(zone)) for at in (told.start_time, told.end_time))
    until = f"{end:%H:%M}" if start.date() == end.date() else f"{end:%Y-%m-%d %H:%M}"
    local = f"{start:%Y-%m-%d %H:%M} to {until} {zone}"
    if zone == "UTC":
        return local
    return f"{local} ({told.start_time:%Y-%m-%d %H:%M} to {told.end_time:%H:%M} UTC)"


def _moment(at: datetime, zone: str) -> str:
    return f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M} {zone}"


def _content(notice: Notice, covered: int | None, down: Sequence[str], body: str) -> dict[str, Any]:
    """The same for machines. Keys are only ever added."""
    told = notice.told
    content: dict[str, Any] = {
        "kind": notice.kind.value,
        "title": _name(notice),
        "window_id": told.window_id,
        "start_time": rfc3339(told.start_time),
        "end_time": rfc3339(told.end_time),
        "endpoint_count": covered,
        "down": list(down[:1000]),
    }
    if notice.kind in (MessageKind.PLANNED, MessageKind.PLAN_CHANGED, MessageKind.PLAN_CANCELLED):
        content["calendar"] = event_of(
            f"{told.window_id}{told.key and '-'}{told.key}@servmon",
            told.sequence,
            told.start_time,
            told.end_time,
            f"Maintenance: {_name(notice)}",
            body,
            cancelled=notice.kind is MessageKind.PLAN_CANCELLED,
        )
    return content
