"""Which maintenance window covers which endpoint at which moment; windows are [start_time, end_time)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from servmon.model import MaintenanceMode, MaintenanceWindow

WindowsByEndpoint = Mapping[str, Sequence[MaintenanceWindow]]


def by_endpoint(windows: Iterable[MaintenanceWindow]) -> WindowsByEndpoint:
    """The windows of each endpoint that has any."""
    index: dict[str, list[MaintenanceWindow]] = defaultdict(list)
    for window in windows:
        for endpoint_id in window.endpoint_ids:
            index[endpoint_id].append(window)
    return dict(index)


def mode_at(windows: Sequence[MaintenanceWindow], at: datetime) -> MaintenanceMode | None:
    """What an endpoint's windows ask for at ``at``: ``pause`` beats ``mute``, ``None`` where none is active."""
    modes = {window.mode for window in windows if window.start_time <= at < window.end_time}
    if MaintenanceMode.PAUSE in modes:
        return MaintenanceMode.PAUSE
    return MaintenanceMode.MUTE if modes else None


def ended_between(windows: Iterable[MaintenanceWindow], after: datetime, until: datetime) -> set[str]:
    """The endpoints of all windows whose end lies in (after, until]: these are asked again at once."""
    return {
        endpoint_id for window in windows if after < window.end_time <= until for endpoint_id in window.endpoint_ids
    }
