"""What Elasticsearch holds: the indices, their templates with typed fields, and a document for each row.

A document is made of its row and its endpoint alone: made again it has the same index, id and content, but for an
open outage's ``last_seen_at``. The one field of the tables that none bears is ``elasticsearch_synced``: that it is
there says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from servmon.clock import rfc3339
from servmon.model import Endpoint, MaintenanceWindow, Outage, ServiceStatus

OWNER = "servmon"
# Raised with every change below; templates in the cluster that are older are replaced.
VERSION = 1
# Above Elastic's own (100), below what an administrator may put over ours.
PRIORITY = 200

STATUS_PREFIX = "isp-service-status-"
OUTAGE_PREFIX = "isp-service-outage-"
MAINTENANCE_INDEX = "isp-maintenance-window"


class Kind(StrEnum):
    """The kinds of rows that have documents."""

    STATUS = "status"
    OUTAGE = "outage"
    MAINTENANCE = "maintenance"


@dataclass(frozen=True, slots=True)
class Document:
    """One row as it is sent. ``version`` is a status row's ``seq``, an outage's revision, a window's last change in µs.

    A status row never changes, so its document is only ever created; of the others the higher version wins.
    """

    kind: Kind
    index: str
    id: str
    version: int
    source: Mapping[str, Any]


def status_index(moment: datetime) -> str:
    """The index of a check that started at ``moment``: one for each UTC day."""
    return f"{STATUS_PREFIX}{moment.astimezone(UTC):%Y.%m.%d}"


def outage_index(start_time: datetime) -> str:
    """The index of an outage: that of the UTC day on which it began, for as long as it lasts."""
    return f"{OUTAGE_PREFIX}{start_time.astimezone(UTC):%Y.%m.%d}"


def day_of(index: str) -> date | None:
    """The UTC day of one of our daily indices; ``None`` for every other name."""
    for prefix in (STATUS_PREFIX, OUTAGE_PREFIX):
        if index.startswith(prefix):
            try:
                day = datetime.strptime(f"{index.removeprefix(prefix)}+0000", "%Y.%m.%d%z").date()
            except ValueError:
                return None
            # strptime also takes 2026.1.2, which is no name of ours.
            return day if index == f"{prefix}{day:%Y.%m.%d}" else None
    return None


# Fields. What is longer than ignore_above is kept in the document but cannot be searched or counted by.
_KEYWORD = {"type": "keyword", "ignore_above": 1024}
_TEXT = {"type": "text", "fields": {"keyword": _KEYWORD}}
_DATE = {"type": "date"}
_MILLISECONDS = {"type": "float"}
_BOOLEAN = {"type": "boolean"}
_INTEGER = {"type": "integer"}
_LONG = {"type": "long"}
_NOT_INDEXED = {"type": "object", "enabled": False}

_ENDPOINT_FIELDS: Mapping[str, Any] = {
    "endpoint_id": _KEYWORD,
    "endpoint_name": _KEYWORD,
    "endpoint_url": _KEYWORD,
    "protocol": _KEYWORD,
    "tags": _KEYWORD,
    "site": _KEYWORD,
}
_STATUS_FIELDS: Mapping[str, Any] = {
    "id": _KEYWORD,
    "status": _KEYWORD,
    "response_time": _MILLISECONDS,
    "timestamp": _DATE,
    "error_message": _TEXT,
    "failure_kind": _KEYWORD,
    "attempts": _INTEGER,
    "source": _KEYWORD,
    "observer": _KEYWORD,
    "dns_ms": _MILLISECONDS,
    "connect_ms": _MILLISECONDS,
    "tls_ms": _MILLISECONDS,
    "first_byte_ms": _MILLISECONDS,
    "transfer_ms": _MILLISECONDS,
    "details": _NOT_INDEXED,
}
_OUTAGE_FIELDS: Mapping[str, Any] = {
    "id": _KEYWORD,
    "severity": _KEYWORD,
    "description": _TEXT,
    "start_time": _DATE,
    "declared_at": _DATE,
    "last_good_at": _DATE,
    # The end of an outage that is over; of an open one when servmon last saw that it is: the time to filter by.
    "last_seen_at": _DATE,
    "resolved": _BOOLEAN,
    "resolved_at": _DATE,
    "resolution_notes": _TEXT,
    "duration_seconds": {"type": "double"},
    "notification_channels": _KEYWORD,
    "failure_kind": _KEYWORD,
    # The endpoint whose failure cut this one off.
    "caused_by": _KEYWORD,
    "revision": _LONG,
    "evidence": _NOT_INDEXED,
}
_MAINTENANCE_FIELDS: Mapping[str, Any] = {
    "id": _KEYWORD,
    "description": _TEXT,
    "start_time": _DATE,
    "end_time": _DATE,
    "mode": _KEYWORD,
    "created_by": _KEYWORD,
    "created_at": _DATE,
    "updated_at": _DATE,
    "endpoint_ids": _KEYWORD,
    "endpoint_names": _KEYWORD,
    # What it covers beside the endpoints that it names, and how it recurs; the times are those of the first time.
    "tags": _KEYWORD,
    "sites": _KEYWORD,
    "rrule": _KEYWORD,
    "timezone": _KEYWORD,
}
# Twins under the names of the Elastic Common Schema, for dashboards that people have already.
_ECS_FIELDS: Mapping[str, Any] = {
    "@timestamp": _DATE,
    "service": {"properties": {"name": _KEYWORD}},
    "event": {"properties": {"duration": _LONG}},
    "url": {"properties": {"full": _KEYWORD}},
    "error": {"properties": {"message": {"type": "text"}}},
}

FIELDS: Mapping[Kind, Mapping[str, Any]] = {
    Kind.STATUS: _STATUS_FIELDS,
    Kind.OUTAGE: _OUTAGE_FIELDS,
    Kind.MAINTENANCE: _MAINTENANCE_FIELDS,
}
# How the names of an index of each kind begin.
PREFIXES: Mapping[Kind, str] = {
    Kind.STATUS: STATUS_PREFIX,
    Kind.OUTAGE: OUTAGE_PREFIX,
    Kind.MAINTENANCE: MAINTENANCE_INDEX,
}
META: Mapping[str, Any] = {"owner": OWNER, "version": VERSION}
COMPONENT_TEMPLATE = "servmon-endpoint"
INDEX_TEMPLATES: Mapping[Kind, str] = {kind: f"servmon-{kind}" for kind in Kind}


def component_template() -> dict[str, Any]:
    """What all indices share: their settings, and the fields of the endpoint."""
    return {
        "_meta": META,
        "template": {
            "settings": {"index": {"number_of_shards": "1", "auto_expand_replicas": "0-1"}},
            "mappings": {"dynamic": False, "properties": {**_ENDPOINT_FIELDS, **_ECS_FIELDS}},
        },
    }


def index_templates() -> dict[str, dict[str, Any]]:
    """The template of each kind of index, by its name."""
    patterns = {kind: prefix if kind is Kind.MAINTENANCE else f"{prefix}*" for kind, prefix in PREFIXES.items()}
    return {INDEX_TEMPLATES[kind]: _index_template(patterns[kind], FIELDS[kind]) for kind in Kind}


def _index_template(pattern: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "index_patterns": [pattern],
        "priority": PRIORITY,
        "composed_of": [COMPONENT_TEMPLATE],
        "_meta": META,
        # The index bears the owner as well: only such are ever deleted.
        "template": {"mappings": {"dynamic": False, "_meta": META, "properties": fields}},
    }


def status_document(status: ServiceStatus, endpoint: Endpoint, *, seq: int = 0, ecs: bool = False) -> Document:
    """The document of one stored check."""
    source = {
        "id": status.id,
        **_of_endpoint(endpoint),
        "status": status.status,
        "response_time": status.response_time,
        "timestamp": rfc3339(status.timestamp),
        "error_message": status.error_message,
        "failure_kind": status.failure_kind,
        "attempts": status.attempts,
        "source": status.source,
        "observer": status.observer,
        "dns_ms": status.phases.dns_ms,
        "connect_ms": status.phases.connect_ms,
        "tls_ms": status.phases.tls_ms,
        "first_byte_ms": status.phases.first_byte_ms,
        "transfer_ms": status.phases.transfer_ms,
        "details": status.details,
    }
    if ecs:
        nanoseconds = None if status.response_time is None else round(status.response_time * 1_000_000)
        source |= _ecs(endpoint, status.timestamp, nanoseconds)
        source["error"] = {"message": status.error_message} if status.error_message else None
    return Document(Kind.STATUS, status_index(status.timestamp), status.id, seq, _known(source))


def outage_document(outage: Outage, endpoint: Endpoint, *, seen_at: datetime, ecs: bool = False) -> Document:
    """The document of an outage; ``seen_at`` is when it was last seen to be open, if it is."""
    last_seen_at = outage.resolved_at or max(seen_at, outage.start_time)
    seconds = (last_seen_at - outage.start_time).total_seconds()
    source = {
        "id": outage.id,
        **_of_endpoint(endpoint),
        "severity": outage.severity,
        "description": outage.description,
        "start_time": rfc3339(outage.start_time),
        "declared_at": rfc3339(outage.declared_at),
        "last_good_at": outage.last_good_at and rfc3339(outage.last_good_at),
        "last_seen_at": rfc3339(last_seen_at),
        "resolved": outage.resolved,
        "resolved_at": outage.resolved_at and rfc3339(outage.resolved_at),
        "resolution_notes": outage.resolution_notes,
        "duration_seconds": seconds,
        "notification_channels": outage.notification_channels,
        "failure_kind": _failure_kind(outage),
        "caused_by": outage.caused_by,
        "revision": outage.revision,
        "evidence": outage.evidence or None,
    }
    if ecs:
        source |= _ecs(endpoint, outage.start_time, round(seconds * 1_000_000_000))
    return Document(Kind.OUTAGE, outage_index(outage.start_time), outage.id, outage.revision, _known(source))


def maintenance_document(window: MaintenanceWindow, names: Iterable[str], *, version: int) -> Document:
    """The document of a maintenance window; ``names`` are those of its endpoints, ``version`` its last change."""
    source = {
        "id": window.id,
        "description": window.description,
        "start_time": rfc3339(window.start_time),
        "end_time": rfc3339(window.end_time),
        "mode": window.mode,
        "created_by": window.created_by,
        "created_at": window.created_at and rfc3339(window.created_at),
        "updated_at": window.updated_at and rfc3339(window.updated_at),
        "endpoint_ids": window.endpoint_ids,
        "endpoint_names": tuple(names),
        "tags": window.tags,
        "sites": window.sites,
        "rrule": window.rrule,
        "timezone": window.timezone if window.rrule else None,
    }
    return Document(Kind.MAINTENANCE, MAINTENANCE_INDEX, window.id, version, _known(source))


def _of_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "endpoint_id": endpoint.id,
        "endpoint_name": endpoint.name,
        "endpoint_url": endpoint.url,
        "protocol": endpoint.protocol,
        "tags": endpoint.tags,
        "site": endpoint.site,
    }


def _ecs(endpoint: Endpoint, at: datetime, nanoseconds: int | None) -> dict[str, Any]:
    return {
        "@timestamp": rfc3339(at),
        "service": {"name": endpoint.name},
        "url": {"full": endpoint.url},
        "event": None if nanoseconds is None else {"duration": nanoseconds},
    }


def _failure_kind(outage: Outage) -> str | None:
    """What the second look failed of, where one was taken."""
    verification = outage.evidence.get("verification")
    return verification.get("failure_kind") if isinstance(verification, Mapping) else None


def _known(source: dict[str, Any]) -> dict[str, Any]:
    """What is null, and lists of nothing, would only fill the index."""
    return {name: value for name, value in source.items() if value is not None and value != ()}
