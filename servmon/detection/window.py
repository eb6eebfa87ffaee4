"""M of N: what a detection window sees of the checks past, and how that outlives a restart."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from servmon.detection.state import EndpointState, Mark, Policy
from servmon.model import State, StateChange

_KEY = "marks"


def marked(state: EndpointState, at: datetime, policy: Policy, *, failed: bool) -> tuple[Mark, ...]:
    """The checks that the detection window looks at, from its first failure on; none without a window."""
    if policy.detection_window is None:
        return ()
    earlier = state.marks
    if earlier and at - earlier[-1][0] > policy.evidence_lasts:
        earlier = ()
    return _from_first_failure((*earlier, (at, failed))[-policy.detection_window :])


def failures_in(marks: tuple[Mark, ...]) -> int:
    """How many of the checks failed."""
    return sum(failed for _, failed in marks)


def with_failures(marks: tuple[Mark, ...], most: int) -> tuple[Mark, ...]:
    """The newest of the checks among which at most so many failed."""
    while failures_in(marks) > most:
        marks = _from_first_failure(marks[1:])
    return marks


def evidence_of(marks: tuple[Mark, ...], policy: Policy) -> Mapping[str, Any]:
    """Evidence of a change: what the window saw before the check that caused it, which verdicts may have shortened."""
    if policy.detection_window is None:
        return {}
    return {_KEY: [(at.isoformat(), failed) for at, failed in marks]}


def recorded_in(change: StateChange | None) -> tuple[Mark, ...] | None:
    """What the window had seen before the last change; ``None`` where that follows from the results."""
    if change is None:
        return None
    if change.new is State.UNKNOWN:
        return ()
    marks = change.evidence.get(_KEY)
    return None if marks is None else tuple((datetime.fromisoformat(at), failed) for at, failed in marks)


def _from_first_failure(marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    for number, (_, failed) in enumerate(marks):
        if failed:
            return marks[number:]
    return ()
