"""Rows of the database as values of the model, and the reverse."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from servmon.model import (
    NO_PHASES,
    CheckResult,
    CheckSource,
    Endpoint,
    FailureKind,
    MaintenanceMode,
    MaintenanceWindow,
    Occurrence,
    Outage,
    Phases,
    ServiceStatus,
    Severity,
    State,
    StateChange,
    Status,
)

Row = Mapping[str, Any]
StatusRecord = tuple[Any, ...]

# The numbers of the tables failure_kind and service_status_row.source. New kinds go to the end of their enum.
FAILURE_KIND_NUMBERS: Mapping[FailureKind | None, int | None] = {
    None: None,
    **{kind: number for number, kind in enumerate(FailureKind, start=1)},
}
FAILURE_KINDS: Mapping[int | None, FailureKind | None] = {number: kind for kind, number in FAILURE_KIND_NUMBERS.items()}
SOURCE_NUMBERS: Mapping[CheckSource, int] = {CheckSource.SCHEDULE: 0, CheckSource.MANUAL: 1}
SOURCES: Mapping[int, CheckSource] = {number: source for source, number in SOURCE_NUMBERS.items()}

# What of a status row is written, in the order of status_record.
STATUS_COLUMNS = (
    "timestamp",
    "endpoint_key",
    "status",
    "response_time",
    "dns_ms",
    "connect_ms",
    "tls_ms",
    "first_byte_ms",
    "transfer_ms",
    "observer",
    "attempts",
    "source",
    "failure_kind",
    "error_message",
    "details",
)

# A look-up costs a third of a call of the enum, and a start reads a hundred thousand results.
STATUSES: Mapping[str, Status] = {status.value: status for status in Status}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NUL_IN_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def storable(text: str) -> str:
    """``text`` with what Postgres cannot hold (NUL, half a surrogate pair) replaced."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def to_json(value: Any) -> str:
    """``value`` as JSON that a jsonb column accepts; raises ``ValueError`` for NaN and infinity."""
    text = _ENCODER.encode(value)
    if "\\u0000" in text:
        text = _NUL_IN_JSON.sub("\\1\N{REPLACEMENT CHARACTER}", text)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def plain(value: Any) -> Any:
    """What JSON makes of a value that it does not know by itself: mappings, dataclasses (field by field) and times."""
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value):
        return columns(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


# Made once: each call of ``json.dumps`` would make another, for as long as the encoding takes.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=plain)


def columns(value: Any) -> dict[str, Any]:
    """A dataclass whose fields are named as the columns that hold them."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def from_json(value: Any) -> Any:
    """What a json column held, whether or not the connection decodes JSON itself."""
    if value == "[]":  # by far the most lists there are
        return []
    return json.loads(value) if isinstance(value, str) else value


def status_record(result: CheckResult, observer: int) -> StatusRecord:
    """One status row, as ``STATUS_COLUMNS`` lists it."""
    phases = result.phases
    return (
        result.timestamp,
        result.endpoint_key,
        result.status,
        result.response_time,
        phases.dns_ms,
        phases.connect_ms,
        phases.tls_ms,
        phases.first_byte_ms,
        phases.transfer_ms,
        observer,
        result.attempts,
        SOURCE_NUMBERS[result.source],
        FAILURE_KIND_NUMBERS[result.failure_kind],
        None if result.error_message is None else storable(result.error_message),
        None if result.details is None else to_json(result.details),
    )


def check_result(row: Row) -> CheckResult:
    """A stored check as the state machine takes it."""
    return CheckResult(
        endpoint_id=row["endpoint_id"],
        endpoint_key=row["endpoint_key"],
        status=STATUSES[row["status"]],
        timestamp=row["timestamp"],
        response_time=seven_digits(row["response_time"]),
        attempts=row["attempts"],
        failure_kind=FAILURE_KINDS[row["failure_kind"]],
        error_message=row["error_message"],
        source=SOURCES[row["source"]],
        details=from_json(row["details"]),
    )


def service_status(row: Row) -> ServiceStatus:
    """A stored check as the seed names it."""
    return ServiceStatus(
        id=status_id(row["endpoint_key"], row["observer"], row["timestamp"]),
        endpoint_id=row["endpoint_id"],
        status=STATUSES[row["status"]],
        timestamp=row["timestamp"],
        response_time=seven_digits(row["response_time"]),
        attempts=row["attempts"],
        failure_kind=FAILURE_KINDS[row["failure_kind"]],
        error_message=row["error_message"],
        source=SOURCES[row["source"]],
        observer=row["observer_name"],
        phases=_phases(row),
        details=from_json(row["details"]),
        elasticsearch_synced=row["elasticsearch_synced"],
    )


def status_id(endpoint_key: int, observer: int, timestamp: datetime) -> str:
    """The id of a stored check: ``{endpoint_key}-{observer}-{timestamp in µs}``."""
    # Not timestamp() * 1e6: a float's last microsecond is not exact.
    return f"{endpoint_key}-{observer}-{(timestamp - _EPOCH) // _MICROSECOND}"


def _phases(row: Row) -> Phases:
    phases = Phases(
        dns_ms=seven_digits(row["dns_ms"]),
        connect_ms=seven_digits(row["connect_ms"]),
        tls_ms=seven_digits(row["tls_ms"]),
        first_byte_ms=seven_digits(row["first_byte_ms"]),
        transfer_ms=seven_digits(row["transfer_ms"]),
    )
    return NO_PHASES if phases == NO_PHASES else phases


def seven_digits(value: float | None) -> float | None:
    """What a real column holds of ``value``; the other digits that Python shows are noise."""
    return None if value is None else float(f"{value:.7g}")


def endpoint_fields(endpoint: Endpoint) -> dict[str, Any]:
    """What of an endpoint is written, by column."""
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "url": endpoint.url,
        "protocol": endpoint.protocol,
        "check_interval": endpoint.check_interval,
        "timeout": endpoint.timeout,
        "retries": endpoint.retries,
        "expected_status_code": endpoint.expected_status_code,
        "expected_response_pattern": endpoint.expected_response_pattern,
        "is_active": endpoint.is_active,
        "retry_interval": endpoint.retry_interval,
        "detection_threshold": endpoint.detection_threshold,
        "detection_window": endpoint.detection_window,
        "degraded_outage_after": endpoint.degraded_outage_after,
        "recovery_threshold": endpoint.recovery_threshold,
        "severity": endpoint.severity,
        "degraded_threshold_ms": endpoint.degraded_threshold_ms,
        "depends_on": endpoint.depends_on,
        "tags": endpoint.tags,
        "site": endpoint.site,
        "options": endpoint.options,
        "source": endpoint.source,
    }


def endpoint(row: Row) -> Endpoint:
    """A row of ``service_endpoint``."""
    return Endpoint(
        id=row["id"],
        name=row["name"],
        url=row["url"],
        protocol=row["protocol"],
        check_interval=row["check_interval"],
        timeout=row["timeout"],
        retries=row["retries"],
        expected_status_code=row["expected_status_code"],
        expected_response_pattern=row["expected_response_pattern"],
        is_active=row["is_active"],
        retry_interval=row["retry_interval"],
        detection_threshold=row["detection_threshold"],
        detection_window=row["detection_window"],
        degraded_outage_after=row["degraded_outage_after"],
        recovery_threshold=row["recovery_threshold"],
        severity=Severity(row["severity"]),
        degraded_threshold_ms=row["degraded_threshold_ms"],
        depends_on=_groups(from_json(row["depends_on"])),
        tags=tuple(row["tags"]),
        site=row["site"],
        options=from_json(row["options"]),
        key=row["key"],
        source=row["source"],
        revision=row["revision"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        archived_at=row["archived_at"],
    )


def _groups(depends_on: list[Any]) -> tuple[tuple[str, ...], ...]:
    # A name that stands alone is a group of its own, as in the configuration file.
    return tuple((group,) if isinstance(group, str) else tuple(group) for group in depends_on)


def outage_fields(outage: Outage) -> dict[str, Any]:
    """What of an outage is written, by column."""
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
        "evidence": outage.evidence,
        "caused_by": outage.caused_by,
        "revision": max(outage.revision, 1),
    }


def outage(row: Row) -> Outage:
    """A row of ``service_outage``."""
    return Outage(
        id=str(row["id"]),
        endpoint_id=row["endpoint_id"],
        severity=Severity(row["severity"]),
        description=row["description"],
        start_time=row["start_time"],
        declared_at=row["declared_at"],
        last_good_at=row["last_good_at"],
        resolved=row["resolved"],
        resolved_at=row["resolved_at"],
        resolution_notes=row["resolution_notes"],
        notification_channels=tuple(from_json(row["notification_channels"])),
        evidence=from_json(row["evidence"]),
        revision=row["revision"],
        elasticsearch_synced=row["elasticsearch_synced"],
        caused_by=row["caused_by"],
        excluded_reason=row["excluded_reason"],
        false_alarm=row["false_alarm"],
    )


def state_change_fields(change: StateChange) -> dict[str, Any]:
    """What of a state change is written, by column."""
    return {
        "id": change.id,
        "endpoint_id": change.endpoint_id,
        "old_state": change.old,
        "new_state": change.new,
        "reason": change.reason,
        "evidence": change.evidence,
        "at": change.at,
        "outage_id": change.outage_id,
    }


def state_change(row: Row) -> StateChange:
    """A row of ``state_change``."""
    return StateChange(
        id=str(row["id"]),
        endpoint_id=row["endpoint_id"],
        old=State(row["old_state"]),
        new=State(row["new_state"]),
        reason=row["reason"],
        at=row["at"],
        outage_id=None if row["outage_id"] is None else str(row["outage_id"]),
        evidence=from_json(row["evidence"]),
    )


def maintenance_window(row: Row) -> MaintenanceWindow:
    """A row of ``maintenance_window`` with its ``endpoint_ids`` and ``recorded`` occurrences."""
    return MaintenanceWindow(
        id=str(row["id"]),
        description=row["description"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        endpoint_ids=tuple(row["endpoint_ids"]),
        mode=MaintenanceMode(row["mode"]),
        created_by=row["created_by"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        tags=tuple(row["tags"]),
        sites=tuple(row["sites"]),
        rrule=row["rrule"],
        timezone=row["timezone"],
        exdates=tuple(row["exdates"]),
        notify=tuple(row["notify"]),
        notify_before=tuple(row["notify_before"]),
        creator_channel=row["creator_channel"],
        rule_from=row["rule_from"],
        deleted_at=row["deleted_at"],
        recorded=tuple(map(_occurrence, from_json(row["recorded"]) or ())),
    )


def _occurrence(row: Row) -> Occurrence:
    start, end = (datetime.fromisoformat(row[name]) for name in ("start_time", "end_time"))
    return Occurrence(str(row["window_id"]), row["key"], start, end)
