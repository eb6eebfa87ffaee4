"""How things look in JSON: the seed's field names, RFC 3339 UTC times, enum values as they are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any, Generic, NotRequired, TypeVar

from aiohttp import web
from pydantic import ConfigDict

# pydantic reads no other TypedDict before Python 3.12.
from typing_extensions import TypedDict

from servmon.clock import now, rfc3339
from servmon.detection.maintenance import next_occurrences
from servmon.model import (
    CheckSource,
    CurrentStatus,
    Endpoint,
    FailureKind,
    MaintenanceMode,
    MaintenanceWindow,
    Outage,
    ServiceStatus,
    Severity,
    State,
    Status,
)
from servmon.probes.specification import describe_endpoint
from servmon.services.history import Resolution
from servmon.services.uptime import UptimeReport
from servmon.services.window_fields import lead_words
from servmon.store.rollups import Rollup

T = TypeVar("T")
S = TypeVar("S")

# So many are shown with each window.
NEXT_OCCURRENCES = 5


class Page(TypedDict, Generic[T]):
    """One part of a list; ``next_cursor`` is null in the last one."""

    items: list[T]
    next_cursor: str | None


class EndpointShape(TypedDict):
    """A service endpoint. The options of its protocol stand beside these fields; secret ones read ``***``.

    ``revived`` is true where the id was that of a deleted endpoint, whose history came back with it.
    """

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    id: str
    name: str
    url: str
    protocol: str
    check_interval: int
    timeout: float
    retries: int
    expected_status_code: int | None
    expected_response_pattern: str | None
    is_active: bool
    retry_interval: int | None
    detection_threshold: int | None
    detection_window: int | None
    recovery_threshold: int | None
    degraded_outage_after: int | None
    severity: Severity
    degraded_threshold_ms: float | None
    depends_on: list[list[str]]
    tags: list[str]
    site: str | None
    key: int
    source: str
    revision: int
    created_at: datetime | None
    updated_at: datetime | None
    archived_at: datetime | None
    revived: NotRequired[bool]


class CurrentStatusShape(TypedDict):
    """``status`` is the last check's, ``state`` the machine's."""

    endpoint_id: str
    status: Status
    state: State
    since: datetime | None
    timestamp: datetime | None
    response_time: float | None
    error_message: str | None
    failure_kind: FailureKind | None
    consecutive_failures: int
    in_maintenance: bool
    outage_id: str | None


class StatusShape(TypedDict):
    """One stored check; times in it are milliseconds."""

    id: str
    endpoint_id: str
    status: Status
    response_time: float | None
    timestamp: datetime
    attempts: int
    failure_kind: FailureKind | None
    error_message: str | None
    source: CheckSource
    observer: str
    phases: dict[str, float | None]
    details: Mapping[str, Any] | None
    elasticsearch_synced: bool


class RollupShape(TypedDict):
    """One hour or day: how many checks ended how, and how many milliseconds they took."""

    start: datetime
    end: datetime
    checks: dict[str, int]
    response_time: dict[str, float | None]
    loss_percent: float | None


class HistoryPage(TypedDict):
    """Single checks, or the hours or days they amount to; ``resolution`` says which, where a period was asked for."""

    items: list[StatusShape | RollupShape]
    next_cursor: str | None
    resolution: NotRequired[Resolution]


class OutageShape(TypedDict):
    """One endpoint's time from its first failure to its recovery."""

    id: str
    endpoint_id: str
    severity: Severity
    description: str
    start_time: datetime
    declared_at: datetime
    last_good_at: datetime | None
    resolved: bool
    resolved_at: datetime | None
    resolution_notes: str | None
    caused_by: str | None
    excluded_reason: str | None
    false_alarm: bool
    notification_channels: Sequence[str]
    evidence: Mapping[str, Any]
    elasticsearch_synced: bool


class ResolvedShape(OutageShape):
    """An outage that a person closed."""

    still_down: bool


class OutageSummaryShape(TypedDict):
    """Counts of all outages; the mean is over the resolved ones, null where there are none."""

    total: int
    active: int
    resolved: int
    by_severity: dict[str, int]
    by_service: dict[str, int]
    mean_time_to_resolve_seconds: float | None


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


class SpanShape(TypedDict):
    """A stretch of time that was not simply up."""

    start: datetime
    end: datetime
    kind: str
    outage_id: str | None


class UptimeShape(TypedDict):
    """How a period went; percentages are null where nothing was observed."""

    endpoint_id: str
    since: datetime
    until: datetime
    timezone: str
    availability: float | None
    check_success: float | None
    up_seconds: float
    outage_seconds: float
    unobserved_seconds: float
    maintenance_seconds: float
    spans: list[SpanShape]


def endpoint_shape(endpoint: Endpoint) -> EndpointShape:
    """A service endpoint with its protocol's options beside its fields."""
    described: Any = describe_endpoint(endpoint)
    shape: EndpointShape = described
    return shape


def current_status_shape(current: CurrentStatus) -> CurrentStatusShape:
    """What is known of an endpoint now."""
    return {
        "endpoint_id": current.endpoint_id,
        "status": current.status,
        "state": current.state,
        "since": current.since,
        "timestamp": current.timestamp,
        "response_time": current.response_time,
        "error_message": current.error_message,
        "failure_kind": current.failure_kind,
        "consecutive_failures": current.consecutive_failures,
        "in_maintenance": current.in_maintenance,
        "outage_id": current.outage_id,
    }


def status_shape(status: ServiceStatus) -> StatusShape:
    """One stored check."""
    return {
        "id": status.id,
        "endpoint_id": status.endpoint_id,
        "status": status.status,
        "response_time": status.response_time,
        "timestamp": status.timestamp,
        "attempts": status.attempts,
        "failure_kind": status.failure_kind,
        "error_message": status.error_message,
        "source": status.source,
        "observer": status.observer,
        "phases": asdict(status.phases),
        "details": status.details,
        "elasticsearch_synced": status.elasticsearch_synced,
    }


def rollup_shape(rollup: Rollup) -> RollupShape:
    """One hour or day: how many checks ended how, and how long they took."""
    return {
        "start": rollup.start,
        "end": rollup.end,
        "checks": {"up": rollup.up, "degraded": rollup.degraded, "down": rollup.down, "unknown": rollup.unknown},
        "response_time": {
            "min": rollup.response_time_min,
            "avg": rollup.response_time_avg,
            "p50": rollup.response_time_p50,
            "p95": rollup.response_time_p95,
            "p99": rollup.response_time_p99,
            "max": rollup.response_time_max,
        },
        "loss_percent": rollup.loss_percent,
    }


def history_shape(entry: ServiceStatus | Rollup) -> StatusShape | RollupShape:
    """One entry of a history, whatever it sums up."""
    return rollup_shape(entry) if isinstance(entry, Rollup) else status_shape(entry)


def moment_of(entry: ServiceStatus | Rollup) -> datetime:
    """The time by which a history is ordered."""
    return entry.start if isinstance(entry, Rollup) else entry.timestamp


def outage_shape(outage: Outage) -> OutageShape:
    """One outage."""
    return {
        "id": outage.id,
        "endpoint_id": outage.endpoint_id,
        "severity": outage.severity,
        "description": outage.description,
        "start_time": outage.start_time,
        "declared_at": outage.declared_at,
        "last_good_at": outage.last_good_at,
        "resolved": outage.resolved,
        "resolved_at": outage.resolved_at,
        "resolution_notes": outage.resolution_notes,
        "notification_channels": outage.notification_channels,
        "caused_by": outage.caused_by,
        "excluded_reason": outage.excluded_reason,
        "false_alarm": outage.false_alarm,
        "evidence": outage.evidence,
        "elasticsearch_synced": outage.elasticsearch_synced,
    }


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


def uptime_shape(report: UptimeReport) -> UptimeShape:
    """How a period went: percentages, seconds, and every stretch that was not simply up."""
    uptime = report.uptime
    return {
        "endpoint_id": report.endpoint_id,
        "since": uptime.period.start,
        "until": uptime.period.end,
        "timezone": report.zone.key,
        "availability": uptime.availability,
        "check_success": report.check_success,
        "up_seconds": uptime.up_seconds,
        "outage_seconds": uptime.outage_seconds,
        "unobserved_seconds": uptime.unobserved_seconds,
        "maintenance_seconds": uptime.maintenance_seconds,
        "spans": [
            {"start": one.span.start, "end": one.span.end, "kind": one.kind, "outage_id": one.outage_id}
            for one in uptime.stretches
        ],
    }


def json_answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """``value`` as a JSON response."""
    return web.json_response(value, status=status, headers=headers, dumps=_dumps)


def page(rows: Sequence[T], limit: int, *, shape: Callable[[T], S], cursor: Callable[[T], str]) -> Page[S]:
    """A list of at most ``limit`` rows; one row more tells that there is a next page."""
    shown = rows[:limit]
    more = len(rows) > limit
    return {"items": [shape(row) for row in shown], "next_cursor": cursor(shown[-1]) if more else None}


def plain(value: Any) -> Any:
    """``value`` in JSON's own types."""
    return json.loads(_dumps(value))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")


# NaN is no JSON: better a failed answer than one no client can read.
_dumps = partial(json.dumps, default=_plain, allow_nan=False, ensure_ascii=False)
