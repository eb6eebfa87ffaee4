"""What else changes an endpoint's state than its checks and verdicts: our own health, other endpoints, people.

Pure, like the machine.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from servmon.detection import window
from servmon.detection.changes import change_of, iso
from servmon.detection.machine import verification_void
from servmon.detection.recent import without_complaints, without_failures_since
from servmon.detection.state import EndpointState, NewId, Policy, Transitions, new_id
from servmon.model import State, StateChange, Transition


def failures_void(
    before: EndpointState, since: datetime, reason: str, policy: Policy, at: datetime, *, ids: NewId = new_id
) -> tuple[EndpointState, Transitions]:
    """The state where failures from ``since`` on were ours: a run that began then never was.

    One that began earlier stays, but another failure is needed to verify it. Open outages stay as they are.
    """
    if not before.failures or before.state is State.DOWN:
        return before, ()
    if before.first_failure_at is None or before.first_failure_at < since:
        return verification_void(before, policy), ()
    recent = without_failures_since(before.recent, since)
    after = replace(before, verifying=False, failures=0, first_failure_at=None, marks=(), recent=recent)
    if before.state is not State.SUSPECTED or before.last is None:
        return after, ()
    last, seen = replace(before.last, timestamp=at), window.evidence_of((), policy)
    change = change_of(before, before.before_suspected, reason, last, ids, evidence=seen)
    return replace(after, state=before.before_suspected, since=at), (Transition(change),)


def blame(
    before: EndpointState,
    cause: str | None,
    reason: str,
    at: datetime,
    *,
    back_at: datetime | None = None,
    ids: NewId = new_id,
) -> tuple[EndpointState, Transitions]:
    """The state where an open outage turns out to be another endpoint's doing, or its own (``None``).

    ``back_at`` is when the cause answered again, from which on the endpoint has some time to follow.
    """
    if before.outage is None:
        return before, ()
    shown = {"caused_by": cause, "back_at": iso(back_at)}
    evidence = {**before.outage.evidence, "cause": shown}
    outage = replace(before.outage, caused_by=cause, evidence=evidence, revision=before.outage.revision + 1)
    change = StateChange(
        ids(), outage.endpoint_id, before.state, before.state, reason, at, outage_id=outage.id, evidence=shown
    )
    return replace(before, outage=outage), (Transition(change, outage),)


def gone_blind(
    before: EndpointState, endpoint_id: str, reason: str, at: datetime, *, ids: NewId = new_id
) -> tuple[EndpointState, Transitions]:
    """The state of an endpoint about which nothing is known any more; an open outage stays open."""
    if before.state is State.UNKNOWN or before.outage is not None:
        return before, ()
    change = StateChange(ids(), endpoint_id, before.state, State.UNKNOWN, reason, at)
    after = replace(before, state=State.UNKNOWN, since=at, failures=0, first_failure_at=None, marks=(), verifying=False)
    return after, (Transition(change),)


def clock_set_back(before: EndpointState, to: datetime) -> EndpointState:
    """The state after the wall clock jumped to ``to``: what comes next is not older than what was."""
    if before.evidence_at is None or before.evidence_at < to:
        return before
    return replace(before, evidence_at=to)


def closed_elsewhere(before: EndpointState, at: datetime) -> EndpointState:
    """The state after somebody else resolved the open outage (a person, or a change of the endpoint): runs restart.

    A check that was under way at that time belongs to the outage that is over.
    """
    return EndpointState(
        since=at,
        last=before.last,
        evidence_at=max(before.evidence_at or at, at),
        last_good_at=before.last_good_at,
        recent=without_complaints(before.recent),
    )
