"""What may be written in a maintenance window, and what is wrong with it if it may not."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, TypeVar
from uuid import uuid4

from servmon.detection import recurrence
from servmon.errors import InvalidInputError, Problem
from servmon.model import MaintenanceMode, MaintenanceWindow
from servmon.services.identity import is_endpoint_id
from servmon.services.moments import read_moment, read_zone

T = TypeVar("T")

READ_ONLY = frozenset({"id", "created_at", "updated_at", "next_occurrences"})
_FIELDS = (
    "endpoint_ids",
    "tags",
    "sites",
    "start_time",
    "end_time",
    "rrule",
    "timezone",
    "exdates",
    "description",
    "created_by",
    "mode",
    "notify",
    "notify_before",
    "creator_channel",
)
_LONGEST = {"description": 2000, "created_by": 200, "rrule": 500, "creator_channel": 100}
_LONGEST_NAME = 200
_MOST_NAMES = 1000
_LEAD = re.compile(r"([0-9]{1,6})([mhd])")
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_LONGEST_LEAD = 60 * 86_400

_TIME: Mapping[str, Any] = {"type": "string", "format": "date-time"}


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """As ``schema``, or null, which is the same as missing."""
    return {"anyOf": [dict(schema), {"type": "null"}]}


_NAMES = _or_null({"type": "array", "items": {"type": "string"}, "maxItems": _MOST_NAMES})
_TEXTS = _or_null({"type": "array", "items": {"type": "string"}})
# For the documentation of the API; what is checked stands below.
WINDOW_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "description": "A planned piece of work, [start_time, end_time), on endpoints, tags or sites: at least one.",
    "properties": {
        "endpoint_ids": _TEXTS,
        **dict.fromkeys(("tags", "sites", "notify"), _NAMES),
        **dict.fromkeys(("start_time", "end_time"), _TIME),
        **{name: _or_null({"type": "string", "maxLength": longest}) for name, longest in _LONGEST.items()},
        "timezone": {**_or_null({"type": "string"}), "description": "An IANA name; a rule's local times are in it."},
        "exdates": {**_TEXTS, "description": "Days on which the rule is off."},
        "mode": {"enum": [*map(str, MaintenanceMode), None]},
        "notify_before": {**_TEXTS, "description": "Such as 24h or 30m."},
    },
    "required": ["start_time", "end_time"],
    "examples": [
        {
            "endpoint_ids": ["api-gateway"],
            "description": "Scheduled maintenance for the API gateway",
            "start_time": "2036-11-29T02:00:00+01:00",
            "end_time": "2036-11-29T04:00:00+01:00",
            "mode": "mute",
        }
    ],
}
EXTENSION_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "description": "How much later what runs now ends: one of the two.",
    "properties": {"minutes": _or_null({"type": "integer", "minimum": 1}), "end_time": _or_null(_TIME)},
}


def parse_window(
    fields: Mapping[str, Any], *, default_creator: str, channels: Collection[str] | None = None
) -> MaintenanceWindow:
    """A window with a new id from the ``fields`` a person wrote; read-only ones are ignored.

    ``start_time``, ``end_time`` and one of ``endpoint_ids``, ``tags`` and ``sites`` are required. ``channels`` are
    the names of those that exist, where that is known. Raises ``InvalidInputError`` naming every wrong field; whether
    the endpoints exist, the store says.
    """
    return _Reading(fields, channels).window(default_creator)


def lead_words(seconds: int) -> str:
    """A lead time as people write it: ``24h``, ``90m``."""
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds // 60}m"


class _Reading:
    def __init__(self, fields: Mapping[str, Any], channels: Collection[str] | None) -> None:
        self.fields = {name: value for name, value in fields.items() if name not in READ_ONLY}
        self.channels = channels
        self.problems = [
            Problem(str(name), f"unknown field; known are {', '.join(_FIELDS)}")
            for name in self.fields
            if name not in _FIELDS
        ]

    def window(self, default_creator: str) -> MaintenanceWindow:
        endpoint_ids, tags, sites = self._whom()
        start, end = self._moment("start_time"), self._moment("end_time")
        if start is not None and end is not None and end <= start:
            self._wrong("end_time", "must be after start_time")
        timezone, exdates = self._timezone(), self._list("exdates", self._day)
        rule = self._text("rrule", "") or None
        if rule is None and exdates:
            self._wrong("exdates", "needs a rule in rrule")
        rule = self._rule(rule, start, end, timezone, exdates)
        description = self._text("description", "")
        created_by = self._text("created_by", default_creator)
        notify, creator_channel = self._list("notify", self._channel), self._creator_channel()
        notify_before = tuple(sorted(set(self._list("notify_before", self._lead)), reverse=True))
        mode = self._mode()
        if notify_before and not notify and not self.problems:
            self._wrong("notify_before", "needs channels in notify, which are told")
        if self.problems or start is None or end is None:
            raise InvalidInputError(self.problems)
        return MaintenanceWindow(
            id=str(uuid4()),
            description=description,
            start_time=start,
            end_time=end,
            endpoint_ids=endpoint_ids,
            mode=mode,
            created_by=created_by,
            tags=tags,
            sites=sites,
            rrule=rule,
            timezone=timezone,
            exdates=tuple(sorted(exdates)),
            notify=notify,
            notify_before=notify_before,
            creator_channel=creator_channel,
        )

    def _whom(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """The ids, tags and sites it is for; at least one of them has to be there."""
        tags, sites = self._list("tags", self._name), self._list("sites", self._name)
        given = self.fields.get("endpoint_ids")
        if (given is None or given in ([], ())) and (self.fields.get("tags") or self.fields.get("sites")):
            return (), tags, sites
        if isinstance(given, str) or not isinstance(given, Sequence) or not given:
            self._wrong("endpoint_ids", "must be a list of at least one endpoint id, unless there are tags or sites")
            return (), tags, sites
        return self._list("endpoint_ids", self._endpoint_id), tags, sites

    def _list(self, name: str, read: Callable[[str, object], T | None]) -> tuple[T, ...]:
        """What ``read`` makes of each entry, each once; it gets the place and the value."""
        given = self.fields.get(name)
        if given is None:
            return ()
        if isinstance(given, str) or not isinstance(given, Sequence):
            self._wrong(name, "must be a list")
            return ()
        if len(given) > _MOST_NAMES and name != "endpoint_ids":
            self._wrong(name, f"must have at most {_MOST_NAMES} entries")
            return ()
        found = [read(f"{name}.{place}", value) for place, value in enumerate(given)]
        return tuple(dict.fromkeys(one for one in found if one is not None))

    def _endpoint_id(self, place: str, value: object) -> str | None:
        if is_endpoint_id(value):
            return value
        self._wrong(place, "must be the id of a service endpoint")
        return None

    def _name(self, place: str, value: object) -> str | None:
        if isinstance(value, str) and value and len(value) <= _LONGEST_NAME and "\0" not in value:
            return value
        self._wrong(place, f"must be text of 1 to {_LONGEST_NAME} characters")
        return None

    def _channel(self, place: str, value: object) -> str | None:
        name = self._name(place, value)
        if name is not None and self.channels is not None and name not in self.channels:
            known = f"there are {', '.join(sorted(self.channels))}" if self.channels else "there is none at all"
            self._wrong(place, f"there is no channel {name!r}; {known}")
        return name

    def _creator_channel(self) -> str | None:
        value = self.fields.get("creator_channel")
        return None if value is None else self._channel("creator_channel", value)

    def _lead(self, place: str, value: object) -> int | None:
        match = _LEAD.fullmatch(value) if isinstance(value, str) else None
        seconds = int(match[1]) * _UNITS[match[2]] if match else 0
        if 0 < seconds <= _LONGEST_LEAD:
            return seconds
        self._wrong(place, "must be a time such as 24h, 30m or 2d, at most 60d")
        return None

    def _day(self, place: str, value: object) -> date | None:
        if isinstance(value, date) and not isinstance(value, datetime):
            return value
        try:
            return date.fromisoformat(value if isinstance(value, str) else "")
        except ValueError:
            self._wrong(place, "must be a day such as 2026-12-24, on which the window begins by its own time zone")
            return None

    def _timezone(self) -> str:
        try:
            return read_zone(self.fields.get("timezone")).key
        except ValueError as error:
            self._wrong("timezone", str(error))
            return "UTC"

    def _rule(
        self, rule: str | None, start: datetime | None, end: datetime | None, zone: str, exdates: tuple[date, ...]
    ) -> str | None:
        if rule is None or start is None or end is None or self.problems:
            return rule
        rule = rule.strip().upper().removeprefix("RRULE:")
        try:
            found = recurrence.recurrence(rule, start, zone, exdates)
            recurrence.check(found, end - start)
        except ValueError as error:
            self._wrong("rrule", str(error))
            return rule
        for number, day in enumerate(exdates):
            if not found.occurs_on(day):
                self._wrong(f"exdates.{number}", f"there is no occurrence on {day} that could be left out")
        return rule

    def _moment(self, name: str) -> datetime | None:
        if self.fields.get(name) is None:
            self._wrong(name, "is required, a time in RFC 3339 such as 2026-11-23T15:43:49Z")
            return None
        try:
            return read_moment(self.fields[name])
        except ValueError as error:
            self._wrong(name, str(error))
            return None

    def _text(self, name: str, default: str) -> str:
        value = self.fields.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or "\0" in value:
            self._wrong(name, "must be text")
            return default
        if len(value) > _LONGEST[name]:
            self._wrong(name, f"must have at most {_LONGEST[name]} characters")
        return value

    def _mode(self) -> MaintenanceMode:
        value = self.fields.get("mode")
        if value is None:
            return MaintenanceMode.MUTE
        if not isinstance(value, str) or value not in set(MaintenanceMode):
            self._wrong("mode", 'must be "mute" (measured, failures do not count) or "pause" (not checked)')
            return MaintenanceMode.MUTE
        return MaintenanceMode(value)

    def _wrong(self, name: str, message: str) -> None:
        self.problems.append(Problem(name, message))
