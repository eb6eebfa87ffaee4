"""How single checks, the hours and days they amount to, and availability look in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, NotRequired

from typing_extensions import TypedDict

from servmon.model import CheckSource, FailureKind, ServiceStatus, Status
from servmon.services.history import Resolution
from servmon.services.uptime import UptimeReport
from servmon.store.rollups import Rollup


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
