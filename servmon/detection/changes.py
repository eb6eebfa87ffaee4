"""The record of a change of state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from servmon.detection.state import EndpointState, NewId
from servmon.model import CheckResult, State, StateChange

# Why an outage ended that nobody had to close.
RECOVERED = "recovered"


def change_of(
    before: EndpointState,
    new: State,
    reason: str,
    result: CheckResult,
    ids: NewId,
    *,
    outage_id: str | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> StateChange:
    """The change of an endpoint's state that a check caused."""
    return StateChange(
        id=ids(),
        endpoint_id=result.endpoint_id,
        old=before.state,
        new=new,
        reason=reason,
        at=result.timestamp,
        outage_id=outage_id,
        evidence=evidence or {},
    )


def iso(at: datetime | None) -> str | None:
    """A moment as evidence keeps it."""
    return at.isoformat() if at else None
