"""How things look in JSON: the seed's field names, RFC 3339 UTC times, enum values as they are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from aiohttp import web

from servmon.clock import now, rfc3339
from servmon.detection.maintenance import next_occurrences
from servmon.model import CurrentStatus, Endpoint, MaintenanceWindow, Outage, ServiceStatus
from servmon.probes.specification import describe_endpoint
from servmon.services.uptime import UptimeReport
from servmon.services.window_fields import lead_words
from servmon.store.rollups import Rollup

T = TypeVar("T")

# So many are shown with each window.
NEXT_OCCURRENCES = 5


def endpoint_shape(endpoint: Endpoint) -> dict[str, Any]:
    """A service endpoint with its protocol's options beside its fields."""
    return describe_endpoint(endpoint)


def current_status_shape(current: CurrentStatus) -> dict[str, Any]:
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


def status_shape(status: ServiceStatus) -> dict[str, Any]:
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


def rollup_shape(rollup: Rollup) -> dict[str, Any]:
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


def history_shape(entry: ServiceStatus | Rollup) -> dict[str, Any]:
    """One entry of a history, whatever it sums up."""
    return rollup_shape(entry) if isinstance(entry, Rollup) else status_shape(entry)


def moment_of(entry: ServiceStatus | Rollup) -> datetime:
    """The time by which a history is ordered."""
    return entry.start if isinstance(entry, Rollup) else entry.timestamp


def outage_shape(outage: Outage) -> dict[str, Any]:
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
        "evidence": outage.evidence,
        "elasticsearch_synced": outage.elasticsearch_synced,
    }


def window_shape(window: MaintenanceWindow) -> dict[str, Any]:
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


def uptime_shape(report: UptimeReport) -> dict[str, Any]:
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


def page_answer(
    rows: Sequence[T],
    limit: int,
    *,
    shape: Callable[[T], dict[str, Any]],
    cursor: Callable[[T], str],
    more: Mapping[str, Any] | None = None,
) -> web.Response:
    """A list of at most ``limit`` rows; one row more tells that there is a next page. ``more`` is said beside it."""
    shown = rows[:limit]
    next_cursor = cursor(shown[-1]) if len(rows) > limit else None
    return json_answer({"items": [shape(row) for row in shown], "next_cursor": next_cursor, **(more or {})})


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")


# NaN is no JSON: better a failed answer than one no client can read.
_dumps = partial(json.dumps, default=_plain, allow_nan=False, ensure_ascii=False)
