"""How outages look in JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from typing_extensions import TypedDict

from servmon.model import Outage, Severity


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
