"""What waits to be stored, and how it reads on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from servmon.model import (
    NO_PHASES,
    CheckResult,
    CheckSource,
    Event,
    FailureKind,
    Phases,
    Status,
    Transition,
)
from servmon.store.plain import dump, of_kind

# A result with the transitions it caused, transitions alone, or an event. Each is stored whole or not at all.
Entry: TypeAlias = tuple[CheckResult | Event | None, Sequence[Transition]]


def is_lasting(entry: Entry) -> bool:
    """Whether the entry is more than a single result: what people may be owed is never dropped."""
    return bool(entry[1]) or isinstance(entry[0], Event)


def transitions_in(entries: Sequence[Entry]) -> Iterator[Transition]:
    """The transitions of ``entries``, in their order."""
    return (transition for _, transitions in entries for transition in transitions)


def results_in(entries: Sequence[Entry]) -> list[CheckResult]:
    """The check results among ``entries``, in their order."""
    return [found for found, _ in entries if isinstance(found, CheckResult)]


def events_in(entries: Sequence[Entry]) -> list[Event]:
    """The events among ``entries``, in their order."""
    return [found for found, _ in entries if isinstance(found, Event)]


def encode(entries: Sequence[Entry]) -> str:
    """Entries as JSON. Their results are lists of values, since there are many of them."""
    plain = [[_listed(found), list(transitions)] if transitions else [_listed(found)] for found, transitions in entries]
    return dump(plain)


def decode(body: str) -> list[Entry]:
    """What ``encode`` was given."""
    return [(_found(found), _transitions(*transitions)) for found, *transitions in json.loads(body)]


def _listed(found: CheckResult | Event | None) -> Any:
    if not isinstance(found, CheckResult):
        return found
    phases = found.phases
    return [
        found.endpoint_id,
        found.endpoint_key,
        found.status,
        found.timestamp,
        found.response_time,
        found.attempts,
        found.failure_kind,
        found.error_message,
        found.source,
        None
        if phases is NO_PHASES
        else [phases.dns_ms, phases.connect_ms, phases.tls_ms, phases.first_byte_ms, phases.transfer_ms],
        found.details,
    ]


def _found(found: Any) -> CheckResult | Event | None:
    if found is None:
        return None
    if isinstance(found, dict):
        return of_kind(Event, found)
    endpoint_id, key, status, timestamp, response_time, attempts, kind, message, source, phases, details = found
    return CheckResult(
        endpoint_id=endpoint_id,
        endpoint_key=key,
        status=Status(status),
        timestamp=datetime.fromisoformat(timestamp),
        response_time=response_time,
        attempts=attempts,
        failure_kind=FailureKind(kind) if kind else None,
        error_message=message,
        source=CheckSource(source),
        phases=Phases(*phases) if phases else NO_PHASES,
        details=details,
    )


def _transitions(found: Sequence[Any] = ()) -> tuple[Transition, ...]:
    return tuple(of_kind(Transition, one) for one in found)
