"""Rows of single checks, by far the most there are, as values of the model, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from servmon.model import (
    NO_PHASES,
    CheckResult,
    CheckSource,
    FailureKind,
    Phases,
    ServiceStatus,
    Status,
)
from servmon.store.rows import Row, from_json, seven_digits, storable, to_json

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
