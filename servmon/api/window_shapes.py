"""How maintenance windows look in JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from typing_extensions import TypedDict

from servmon.clock import now
from servmon.detection.maintenance import next_occurrences
from servmon.model import MaintenanceMode, MaintenanceWindow
from servmon.services.window_fields import lead_words

# So many are shown with each window.
NEXT_OCCURRENCES = 5


class OccurrenceShape(TypedDict):
    """One time at which a window holds."""

    start_time: datetime
    end_time: datetime


class WindowShape(TypedDict):
    """A planned piece of work, [start_time, end_time)."""

    id: str
    description: str
    start_time: datetime
    end_time: datetime
    endpoint_ids: Sequence[str]
    tags: Sequence[str]
    sites: Sequence[str]
    mode: MaintenanceMode
    rrule: str | None
    timezone: str | None
    exdates: list[str]
    next_occurrences: list[OccurrenceShape]
    notify: Sequence[str]
    notify_before: list[str]
    creator_channel: str | None
    created_by: str
    created_at: datetime | None
    updated_at: datetime | None


def window_shape(window: MaintenanceWindow) -> WindowShape:
    """One maintenance window, with the running and the next occurrences."""
    return {
        "id": window.id,
        "description": window.description,
        "start_time": window.start_time,
        "end_time": window.end_time,
        "endpoint_ids": window.endpoint_ids,
        "tags": window.tags,
        "sites": window.sites,
        "mode": window.mode,
        "rrule": window.rrule,
        "timezone": window.timezone,
        "exdates": [day.isoformat() for day in window.exdates],
        "next_occurrences": [
            {"start_time": one.start_time, "end_time": one.end_time}
            for one in next_occurrences(window, now(), NEXT_OCCURRENCES)
        ],
        "notify": window.notify,
        "notify_before": [lead_words(seconds) for seconds in window.notify_before],
        "creator_channel": window.creator_channel,
        "created_by": window.created_by,
        "created_at": window.created_at,
        "updated_at": window.updated_at,
    }
