"""Rows of the database as values of the model, and the reverse."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

import orjson

from servmon.model import (
    Endpoint,
    MaintenanceMode,
    MaintenanceWindow,
    Occurrence,
    Outage,
    Severity,
    State,
    StateChange,
)

Row = Mapping[str, Any]

# What the database alone says of an endpoint, and what people alone say of an outage, is not written with the others.
_ENDPOINT_FIELDS = tuple(
    field.name
    for field in fields(Endpoint)
    if field.name not in {"key", "revision", "created_at", "updated_at", "archived_at"}
)
_OUTAGE_FIELDS = tuple(
    field.name
    for field in fields(Outage)
    if field.name not in {"elasticsearch_synced", "excluded_reason", "false_alarm"}
)

_NUL_IN_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def storable(text: str) -> str:
    """``text`` with what Postgres cannot hold (NUL, half a surrogate pair) replaced."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def to_json(value: Any) -> str:
    """``value`` as JSON that a jsonb column accepts; raises ``ValueError`` for NaN and infinity."""
    try:
        octets = orjson.dumps(value, plain, _AS_IN_PYTHON)
    except orjson.JSONEncodeError:
        return _to_json_slowly(value)
    # Of these it says less than is wanted: NaN is null to it, and Postgres has no NUL.
    return _to_json_slowly(value) if b"null" in octets or b"\\u0000" in octets else octets.decode()


def _to_json_slowly(value: Any) -> str:
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


# Dataclasses and times are left to ``plain``.
_AS_IN_PYTHON = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
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


def seven_digits(value: float | None) -> float | None:
    """What a real column holds of ``value``; the other digits that Python shows are noise."""
    return None if value is None else float(f"{value:.7g}")


def endpoint_fields(endpoint: Endpoint) -> dict[str, Any]:
    """What of an endpoint is written, by column."""
    return {name: getattr(endpoint, name) for name in _ENDPOINT_FIELDS}


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
    return {**{name: getattr(outage, name) for name in _OUTAGE_FIELDS}, "revision": max(outage.revision, 1)}


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
