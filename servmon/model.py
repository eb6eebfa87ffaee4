"""The words of servmon: what is watched, what a check found, what that means. Frozen values, no I/O.

All times are aware UTC datetimes. Durations are seconds unless the name says ``_ms``.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def _freeze(mapping: dict[str, Any]) -> MappingProxyType[str, Any]:
    return MappingProxyType(mapping)


EMPTY: Mapping[str, Any] = _freeze({})
# Endpoints go from process to process, and what is frozen is not pickled by itself.
copyreg.pickle(MappingProxyType, lambda frozen: (_freeze, (dict(frozen),)))


class Section(BaseModel):
    """Base of every room's settings: unknown keys are errors, values are frozen once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class OrFile:
    """Marks a setting whose text may stand in a file that ``KEY_file`` names."""


class AlertThresholds(Section):
    """From where on something is told that is more than one outage: the same for servmon's own rules and Kibana's."""

    response_time_ms: float = Field(1000, gt=0)
    multiple_services: int = Field(3, ge=2)
    # Seconds.
    long_outage_after: int = Field(3600, ge=60)


class ProtocolType(StrEnum):
    """The protocols every servmon speaks; plug-ins may add others, so an endpoint's protocol is any string."""

    HTTP = "HTTP"
    HTTPS = "HTTPS"
    TCP = "TCP"
    UDP = "UDP"
    DNS = "DNS"
    ICMP = "ICMP"


class Status(StrEnum):
    """What one check found out about the target."""

    UP = "UP"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"
    UNKNOWN = "UNKNOWN"


AVAILABLE = frozenset({Status.UP, Status.DEGRADED})


class State(StrEnum):
    """What the machine holds of an endpoint after all its checks so far."""

    UP = "up"
    DEGRADED = "degraded"
    SUSPECTED = "suspected"
    DOWN = "down"
    UNKNOWN = "unknown"


class Severity(StrEnum):
    """How bad an outage is, worst first."""

    CRITICAL = "CRITICAL"
    MAJOR = "MAJOR"
    MINOR = "MINOR"
    WARNING = "WARNING"


class FailureKind(StrEnum):
    """Why a check failed; a closed list. The last four are ours: we could not ask, so the status is UNKNOWN."""

    TIMEOUT = "timeout"
    REFUSED = "refused"
    RESET = "reset"
    UNREACHABLE = "unreachable"
    DNS = "dns"
    TLS = "tls"
    PROTOCOL = "protocol"
    STATUS = "status"
    PATTERN = "pattern"
    CONTENT = "content"
    LOSS = "loss"
    LOCAL = "local"
    ISOLATED = "isolated"
    LOOP_LAG = "loop_lag"
    PROBE_ERROR = "probe_error"


OUR_FAILURES = frozenset({FailureKind.LOCAL, FailureKind.ISOLATED, FailureKind.LOOP_LAG, FailureKind.PROBE_ERROR})


class CheckSource(StrEnum):
    """Who asked: the schedule, or a person. A manual check is stored and counts for nothing."""

    SCHEDULE = "schedule"
    MANUAL = "manual"


class Role(StrEnum):
    """What the holder of a token may do: look; also act on what is there; also change what servmon is."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what ``needed`` is asked for."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class MaintenanceMode(StrEnum):
    """What a window does: ``mute`` measures but counts no failure, ``pause`` does not check at all."""

    MUTE = "mute"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service endpoint: what is watched, and how.

    ``None`` in an override means: as the settings say. ``options`` are the protocol's own, already validated
    and in plain JSON types; ``key`` is the number the database gave it (0 before it is stored).
    """

    id: str
    name: str
    url: str
    protocol: str
    check_interval: int = 60
    timeout: float = 5
    retries: int = 3
    expected_status_code: int | None = None
    expected_response_pattern: str | None = None
    is_active: bool = True
    retry_interval: int | None = None
    detection_threshold: int | None = None
    detection_window: int | None = None
    recovery_threshold: int | None = None
    degraded_outage_after: int | None = None
    severity: Severity = Severity.MAJOR
    degraded_threshold_ms: float | None = None
    depends_on: tuple[tuple[str, ...], ...] = ()
    tags: tuple[str, ...] = ()
    site: str | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    key: int = 0
    source: str = "api"
    revision: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    archived_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DependencyRule:
    """Parents for every endpoint that all of the given selectors name: ``ids``, ``tags`` and ``sites``.

    Of each group in ``parents`` one has to be up. What is a parent here is no child of the rule.
    """

    parents: tuple[tuple[str, ...], ...]
    ids: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    sites: frozenset[str] = frozenset()

    def selects(self, endpoint: Endpoint) -> bool:
        """Whether ``endpoint`` is a child: every selector that is given names it."""
        return (
            (not self.ids or endpoint.id in self.ids)
            and (not self.tags or not self.tags.isdisjoint(endpoint.tags))
            and (not self.sites or endpoint.site in self.sites)
            and not any(endpoint.id in group for group in self.parents)
        )


# Not frozen, though nobody changes one, as with a check's result.
@dataclass(slots=True, unsafe_hash=True)
class Phases:
    """How the answering attempt spent its time, in milliseconds; ``None`` where a phase did not happen."""

    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    first_byte_ms: float | None = None
    transfer_ms: float | None = None


NO_PHASES = Phases()


# Not frozen, though nobody changes one: freezing costs as much as all else of making it.
@dataclass(slots=True, unsafe_hash=True)
class CheckResult:
    """The outcome of one check (1..n attempts).

    ``timestamp`` is the start of the first attempt; ``response_time`` is the answering attempt's, in
    milliseconds, ``None`` without an answer.
    """

    endpoint_id: str
    endpoint_key: int
    status: Status
    timestamp: datetime
    response_time: float | None = None
    attempts: int = 1
    failure_kind: FailureKind | None = None
    error_message: str | None = None
    source: CheckSource = CheckSource.SCHEDULE
    phases: Phases = NO_PHASES
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StateChange:
    """A recorded transition of one endpoint; unprocessed, it is what people are still owed."""

    id: str
    endpoint_id: str
    old: State
    new: State
    reason: str
    at: datetime
    outage_id: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


class EventKind(StrEnum):
    """What can happen that is about more than one endpoint."""

    ISOLATED = "isolated"
    CONNECTED = "connected"
    BLIND = "blind"
    SEEING = "seeing"
    CONFIGURATION_REFUSED = "configuration refused"
    CONFIGURATION_APPLIED = "configuration applied"
    CERTIFICATE_EXPIRES = "certificate expires"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to servmon itself; unprocessed, it is what people are still owed."""

    id: str
    kind: EventKind
    severity: Severity
    message: str
    at: datetime
    details: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True)
class Outage:
    """One endpoint's time from its first failure to its recovery.

    ``caused_by`` is the endpoint whose failure cuts this one off, as far as that is known. One with an
    ``excluded_reason`` does not count against availability; a ``false_alarm`` was none.
    """

    id: str
    endpoint_id: str
    severity: Severity
    description: str
    start_time: datetime
    declared_at: datetime
    last_good_at: datetime | None = None
    resolved: bool = False
    resolved_at: datetime | None = None
    resolution_notes: str | None = None
    notification_channels: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    revision: int = 0
    elasticsearch_synced: bool = False
    caused_by: str | None = None
    excluded_reason: str | None = None
    false_alarm: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """A state change with the outage it opened, raised or resolved, as that outage stands afterwards."""

    change: StateChange
    outage: Outage | None = None


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time at which a window is over its endpoints, [start_time, end_time).

    ``key`` tells the occurrences of a recurring window apart: the local day on which each begins. That of a window
    which happens once is empty.
    """

    window_id: str
    key: str
    start_time: datetime
    end_time: datetime
    mode: MaintenanceMode = MaintenanceMode.MUTE


@dataclass(frozen=True, slots=True)
class MaintenanceWindow:
    """A planned piece of work on endpoints, on what bears a tag, or on whole sites.

    It happens once, [start_time, end_time), or by the RFC 5545 rule ``rrule`` in ``timezone``: then the times are
    those of the first occurrence, and ``exdates`` are the local days that are left out. ``recorded`` are occurrences
    that are not as the rule says: moved ends, and those from before the rule was changed at ``rule_from``.
    ``notify`` are channels that are told of it, first ``notify_before`` seconds ahead; ``creator_channel`` hears what
    is still down shortly before the end. A window deleted at ``deleted_at`` counts until then.
    """

    id: str
    description: str
    start_time: datetime
    end_time: datetime
    endpoint_ids: tuple[str, ...] = ()
    mode: MaintenanceMode = MaintenanceMode.MUTE
    created_by: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    tags: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    rrule: str | None = None
    timezone: str = "UTC"
    exdates: tuple[date, ...] = ()
    notify: tuple[str, ...] = ()
    notify_before: tuple[int, ...] = ()
    creator_channel: str | None = None
    rule_from: datetime | None = None
    deleted_at: datetime | None = None
    recorded: tuple[Occurrence, ...] = ()

    def covers(self, endpoint: Endpoint) -> bool:
        """Whether ``endpoint`` is among those it is meant for, by id, tag or site."""
        return (
            endpoint.id in self.endpoint_ids
            or (endpoint.site is not None and endpoint.site in self.sites)
            or not set(self.tags).isdisjoint(endpoint.tags)
        )


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One stored check result, as the seed names it."""

    id: str
    endpoint_id: str
    status: Status
    timestamp: datetime
    response_time: float | None
    attempts: int
    failure_kind: FailureKind | None
    error_message: str | None
    source: CheckSource
    observer: str
    phases: Phases = NO_PHASES
    details: Mapping[str, Any] | None = None
    elasticsearch_synced: bool = False


@dataclass(frozen=True, slots=True)
class CurrentStatus:
    """What is known of one endpoint now: the last check's status beside the machine's state."""

    endpoint_id: str
    status: Status = Status.UNKNOWN
    state: State = State.UNKNOWN
    since: datetime | None = None
    timestamp: datetime | None = None
    response_time: float | None = None
    error_message: str | None = None
    failure_kind: FailureKind | None = None
    consecutive_failures: int = 0
    in_maintenance: bool = False
    outage_id: str | None = None


@dataclass(frozen=True, slots=True)
class StatusFilter:
    """Which endpoints, by how they are now: the last check's status, the machine's state, a window over it or none."""

    status: Status | None = None
    state: State | None = None
    in_maintenance: bool | None = None


@dataclass(frozen=True, slots=True)
class Suspect:
    """An endpoint that fails and has no outage yet, since its first failure.

    After ``failures_needed`` more (``None``: that is not known here) it is asked over a fresh path; while that, or what
    it depends on, is waited for it is ``verifying``. The reason is that of its last check.
    """

    endpoint_id: str
    since: datetime
    failures: int
    failures_needed: int | None
    verifying: bool = False
    failure_kind: FailureKind | None = None
    error_message: str | None = None


# The seed's names for two of them.
ServiceEndpoint = Endpoint
ServiceOutage = Outage
