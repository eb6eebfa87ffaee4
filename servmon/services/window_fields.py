"""What may be written in a maintenance window, and what is wrong with it if it may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from servmon.errors import InvalidInputError, Problem
from servmon.model import MaintenanceMode, MaintenanceWindow
from servmon.services.identity import is_endpoint_id
from servmon.services.moments import read_moment

READ_ONLY = frozenset({"id", "created_at", "updated_at"})
_FIELDS = ("endpoint_ids", "start_time", "end_time", "description", "created_by", "mode")
_LONGEST = {"description": 2000, "created_by": 200}


def parse_window(fields: Mapping[str, Any], *, default_creator: str) -> MaintenanceWindow:
    """A window with a new id from the ``fields`` a person wrote; read-only ones are ignored.

    ``endpoint_ids``, ``start_time`` and ``end_time`` are required. Raises ``InvalidInputError`` naming every wrong
    field; whether the endpoints exist, the store says.
    """
    return _Reading(fields).window(default_creator)


class _Reading:
    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = {name: value for name, value in fields.items() if name not in READ_ONLY}
        self.problems = [
            Problem(str(name), f"unknown field; known are {', '.join(_FIELDS)}")
            for name in self.fields
            if name not in _FIELDS
        ]

    def window(self, default_creator: str) -> MaintenanceWindow:
        endpoint_ids = self._endpoint_ids()
        start, end = self._moment("start_time"), self._moment("end_time")
        if start is not None and end is not None and end <= start:
            self._wrong("end_time", "must be after start_time")
        description = self._text("description", "")
        created_by = self._text("created_by", default_creator)
        mode = self._mode()
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
        )

    def _endpoint_ids(self) -> tuple[str, ...]:
        given = self.fields.get("endpoint_ids")
        if isinstance(given, str) or not isinstance(given, Sequence) or not given:
            self._wrong("endpoint_ids", "must be a list of at least one endpoint id")
            return ()
        for position, endpoint_id in enumerate(given):
            if not is_endpoint_id(endpoint_id):
                self._wrong(f"endpoint_ids.{position}", "must be the id of a service endpoint")
        return tuple(dict.fromkeys(map(str, given)))

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
