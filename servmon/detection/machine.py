"""The state machine of one endpoint: after each check, is it up, suspected, down; did an outage begin or end?

Pure: values and times in, values out. The same results in the same order always give the same outcome, so a
restart rebuilds the state by replaying what is stored (``detection/restart.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from servmon.detection.recent import observe, without_complaints, without_failures_since
from servmon.detection.state import EndpointState, Mark, NewId, Policy, Transitions, new_id
from servmon.detection.verdict import NOT_VERIFIED, Method, SecondLook, describe, evidence
from servmon.model import AVAILABLE, CheckResult, CheckSource, Outage, Severity, State, StateChange, Status, Transition

# Counters without any evidence for this many intervals say nothing about the present any more.
EVIDENCE_LASTS_INTERVALS = 3

# Why an outage ended that nobody had to close.
RECOVERED = "recovered"
_BY_DEGRADATION = {"opened_by": "degraded"}


def step(
    before: EndpointState,
    result: CheckResult,
    policy: Policy,
    *,
    muted: bool = False,
    told_flapping: bool | None = None,
    ids: NewId = new_id,
) -> tuple[EndpointState, Transitions]:
    """The state after one check result, and the transitions it caused, in order.

    ``muted`` says that a maintenance window covers the result: failures are seen but do not count. A manual
    check counts for nothing, an UNKNOWN result neither adds to nor breaks a run, and a result older than the
    newest evidence changes nothing. ``told_flapping`` is whether it flapped by the notices, where they are known.
    """
    if result.source is CheckSource.MANUAL or (before.evidence_at and result.timestamp <= before.evidence_at):
        return before, ()
    if result.status is Status.UNKNOWN:
        return replace(before, last=result), ()
    simply_up = result.status is Status.UP and result.attempts == 1 and result.details is None
    if simply_up and before.is_steady and not told_flapping:
        # Nearly every check of nearly every endpoint: nothing is counted, so nothing but the times moves on.
        at = result.timestamp
        return EndpointState(State.UP, before.since, result, at, last_good_at=at, recent=before.recent), ()
    state = _without_stale_counters(before, result.timestamp, policy)
    if muted:
        return _good(state, result, policy, ids) if result.status in AVAILABLE else (_seen(state, result), ())
    recent = observe(state.recent, result, policy.check_interval, is_down=state.state is State.DOWN)
    if told_flapping is not None and told_flapping is not recent.flapping:
        recent = replace(recent, flapping=told_flapping)
    if recent is state.recent:  # nearly always
        return (_good if result.status in AVAILABLE else _bad)(state, result, policy, ids)
    flapped = () if told_flapping is not None else _flapping_notice(state, recent.flapping, result, ids)
    state = replace(state, recent=recent)
    after, transitions = (_good if result.status in AVAILABLE else _bad)(state, result, policy, ids)
    return after, flapped + transitions


def verified(
    before: EndpointState,
    look: SecondLook,
    policy: Policy,
    *,
    at: datetime | None = None,
    cause: str | None = None,
    ids: NewId = new_id,
) -> tuple[EndpointState, Transitions]:
    """The state after the second look: the outage is declared, or refuted so that the next DOWN asks again.

    A second look that nobody waits for any more (a good check came meanwhile) changes nothing. One that found other
    addresses of the name alive makes the endpoint DEGRADED. ``at`` is the moment of the verdict (that of the look where
    it is left out), ``cause`` the endpoint that cuts this one off.
    """
    if not before.verifying:
        return before, ()
    result = look.result
    if result.status is Status.DOWN:
        shown = None if look.method is Method.OFF else look
        return _declare(before, policy, at or result.timestamp, ids, shown, cause)
    state = verification_void(before, policy)
    if result.status is Status.DEGRADED and result.details and "addresses" in result.details:
        return _reduced(state, look, ids)
    found = "answered" if result.status in AVAILABLE else "could not be made"
    reason = f"verification {found}: {result.error_message or 'all expectations met'}"
    run = {
        "failures": state.failures,
        "first_failure_at": _iso(state.first_failure_at),
        "evidence_at": _iso(state.evidence_at),
    }
    change = _change(before, before.state, reason, result, ids, evidence={**evidence(look), "run": run})
    return state, (Transition(change),)


def verification_void(before: EndpointState, policy: Policy) -> EndpointState:
    """The state after a second look that may not count: the next DOWN asks for another."""
    keep = policy.detection_threshold - 1
    marks = before.marks
    while sum(failed for _, failed in marks) > keep:
        marks = _from_first_failure(marks[1:])
    return replace(before, verifying=False, failures=min(before.failures, keep), marks=marks)


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
    change = _change(before, before.before_suspected, reason, replace(before.last, timestamp=at), ids)
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
    shown = {"caused_by": cause, "back_at": _iso(back_at)}
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
        last=before.last,
        evidence_at=max(before.evidence_at or at, at),
        last_good_at=before.last_good_at,
        recent=before.recent,
    )


def opened_by_degradation(outage: Outage) -> bool:
    """Whether degraded checks opened the outage: then only UP ends it."""
    return outage.evidence.get("opened_by") == "degraded"


def _without_stale_counters(state: EndpointState, at: datetime, policy: Policy) -> EndpointState:
    """Counters expire after three intervals without evidence; an open outage stays open."""
    if state.evidence_at is None or (state.first_failure_at is None and not state.good):
        return state
    if at - state.evidence_at <= _evidence_lasts(policy):
        return state
    first_failure_at = state.first_failure_at if state.outage else None
    return replace(state, failures=0, good=0, first_failure_at=first_failure_at, first_good_at=None, verifying=False)


def _evidence_lasts(policy: Policy) -> timedelta:
    return timedelta(seconds=EVIDENCE_LASTS_INTERVALS * policy.check_interval)


def _seen(state: EndpointState, result: CheckResult) -> EndpointState:
    """A failure in a window: it counts for nothing, but its time is an outage's true start."""
    first_failure_at = state.first_failure_at or result.timestamp
    seen = replace(state, last=result, evidence_at=result.timestamp, first_failure_at=first_failure_at)
    return replace(seen, good=0, first_good_at=None)


def _good(state: EndpointState, result: CheckResult, policy: Policy, ids: NewId) -> tuple[EndpointState, Transitions]:
    complaint = state.recent.complaint(policy.degraded_loss_percent)
    degraded = complaint is not None or result.status is Status.DEGRADED
    target = State.DEGRADED if degraded else State.UP
    if state.outage is not None:
        return _recovering(state, state.outage, result, target, policy, ids)
    at = result.timestamp
    after = EndpointState(
        state=target,
        since=at if target is not state.state else state.since,
        last=result,
        evidence_at=at,
        last_good_at=at,
        recent=state.recent,
        marks=marked(state, at, policy, failed=False) if state.marks else (),
        degraded=state.degraded + 1 if degraded else 0,
    )
    transitions: Transitions = ()
    if target is not state.state:
        answers = "answers" if state.state is State.UNKNOWN else "answers again"
        reason = result.error_message or complaint or answers
        transitions = (Transition(_change(state, target, reason, result, ids)),)
    if policy.degraded_outage_after is None or after.degraded < policy.degraded_outage_after:
        return after, transitions
    opened, outage = _declare_degraded(after, result, result.error_message or complaint or "degraded", ids)
    return opened, transitions + outage


def _recovering(
    state: EndpointState, outage: Outage, result: CheckResult, target: State, policy: Policy, ids: NewId
) -> tuple[EndpointState, Transitions]:
    at = result.timestamp
    seen = replace(
        state, last=result, evidence_at=at, last_good_at=at, failures=0, first_failure_at=None, verifying=False
    )
    if opened_by_degradation(outage) and (target is State.DEGRADED or state.state is State.SUSPECTED):
        return _degraded_again(state, seen, result, ids)
    first_good_at = state.first_good_at or at
    good = state.good + 1
    if good < policy.recovery_threshold or state.recent.flapping:
        first_failure_at = state.first_failure_at
        return replace(seen, good=good, first_good_at=first_good_at, first_failure_at=first_failure_at), ()
    resolved = replace(outage, resolved=True, resolved_at=first_good_at, revision=outage.revision + 1)
    change = _change(state, target, RECOVERED, result, ids, outage_id=resolved.id)
    after = EndpointState(
        state=target,
        since=at,
        last=result,
        evidence_at=at,
        last_good_at=at,
        recent=state.recent,
        degraded=int(target is State.DEGRADED),
    )
    return after, (Transition(change, resolved),)


def _degraded_again(
    state: EndpointState, seen: EndpointState, result: CheckResult, ids: NewId
) -> tuple[EndpointState, Transitions]:
    """Better than down, not well: an outage that degradation opened stays open."""
    seen = replace(seen, good=0, first_good_at=None)
    if state.state is State.DEGRADED:
        return seen, ()
    reason = result.error_message or "answers again"
    change = _change(state, State.DEGRADED, reason, result, ids, outage_id=state.outage.id if state.outage else None)
    return replace(seen, state=State.DEGRADED, since=result.timestamp), (Transition(change),)


def _bad(state: EndpointState, result: CheckResult, policy: Policy, ids: NewId) -> tuple[EndpointState, Transitions]:
    at = result.timestamp
    marks = marked(state, at, policy, failed=True)
    counted = replace(
        state,
        last=result,
        evidence_at=at,
        failures=state.failures + 1,
        good=0,
        degraded=0,
        first_failure_at=state.first_failure_at or (marks[0][0] if marks else at),
        first_good_at=None,
        marks=marks,
    )
    if state.state is State.DOWN:
        return counted, ()
    transitions: Transitions = ()
    if state.state is not State.SUSPECTED and not state.reduced:
        reason = result.error_message or "failed"
        transitions = (Transition(_change(state, State.SUSPECTED, reason, result, ids)),)
        counted = replace(counted, state=State.SUSPECTED, since=at, before_suspected=state.state)
    failures = sum(failed for _, failed in marks) if marks else counted.failures
    if failures < policy.detection_threshold or counted.verifying:
        return counted, transitions
    if policy.verify or policy.has_parents:
        return replace(counted, verifying=True), transitions
    declared, outage = _declare(counted, policy, at, ids)
    return declared, transitions + outage


def marked(state: EndpointState, at: datetime, policy: Policy, *, failed: bool) -> tuple[Mark, ...]:
    """The checks that the detection window looks at, from its first failure on; none without a window."""
    if policy.detection_window is None:
        return ()
    earlier = state.marks
    if earlier and at - earlier[-1][0] > _evidence_lasts(policy):
        earlier = ()
    return _from_first_failure((*earlier, (at, failed))[-policy.detection_window :])


def _from_first_failure(marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    for number, (_, failed) in enumerate(marks):
        if failed:
            return marks[number:]
    return ()


def _declare(
    state: EndpointState,
    policy: Policy,
    at: datetime,
    ids: NewId,
    look: SecondLook | None = None,
    cause: str | None = None,
) -> tuple[EndpointState, Transitions]:
    """Open an outage, or raise the one that degradation opened to the endpoint's severity."""
    found: Mapping[str, Any] = evidence(look) if look else NOT_VERIFIED
    shown = look.result if look else state.last
    description = describe(state, look)
    if state.outage is not None:
        outage = replace(
            state.outage,
            severity=policy.severity,
            description=description,
            evidence={**found, **_BY_DEGRADATION},
            revision=state.outage.revision + 1,
            caused_by=cause,
        )
    else:
        outage = Outage(
            id=ids(),
            endpoint_id=shown.endpoint_id if shown else "",
            severity=policy.severity,
            description=description,
            start_time=state.first_failure_at or at,
            declared_at=at,
            last_good_at=state.last_good_at,
            evidence=found,
            revision=1,
            caused_by=cause,
        )
    recent = without_complaints(state.recent)
    after = replace(state, state=State.DOWN, since=at, verifying=False, outage=outage, recent=recent, reduced=False)
    reason = f"{state.failures} failed checks" + (f", {look.method.value}" if look else "")
    recorded = outage.evidence
    if cause is not None:
        reason, recorded = f"{reason}, cut off by {cause}", {**recorded, "caused_by": cause}
    change = StateChange(
        ids(), outage.endpoint_id, state.state, State.DOWN, reason, at, outage_id=outage.id, evidence=recorded
    )
    return after, (Transition(change, outage),)


def _declare_degraded(
    state: EndpointState, result: CheckResult, complaint: str, ids: NewId
) -> tuple[EndpointState, Transitions]:
    at = result.timestamp
    outage = Outage(
        id=ids(),
        endpoint_id=result.endpoint_id,
        severity=Severity.WARNING,
        description=f"{complaint}, degraded since {state.since or at:%Y-%m-%d %H:%M:%S} UTC",
        start_time=state.since or at,
        declared_at=at,
        last_good_at=state.last_good_at,
        evidence=_BY_DEGRADATION,
        revision=1,
    )
    reason = f"{state.degraded} degraded checks"
    change = _change(state, State.DEGRADED, reason, result, ids, outage_id=outage.id, evidence=_BY_DEGRADATION)
    return replace(state, outage=outage), (Transition(change, outage),)


def _reduced(state: EndpointState, look: SecondLook, ids: NewId) -> tuple[EndpointState, Transitions]:
    if state.reduced:
        return state, ()
    result = look.result
    reason = result.error_message or "some addresses do not answer"
    change = _change(state, State.DEGRADED, reason, result, ids, evidence=evidence(look))
    return replace(state, state=State.DEGRADED, since=result.timestamp, reduced=True), (Transition(change),)


def _flapping_notice(state: EndpointState, flapping: bool, result: CheckResult, ids: NewId) -> Transitions:
    if flapping is state.recent.flapping:
        return ()
    reason = "flapping: it keeps going up and down" if flapping else "flapping ended"
    shown = {"flapping": flapping, "outage_id": state.outage.id if state.outage else None}
    return (Transition(_change(state, state.state, reason, result, ids, evidence=shown)),)


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _change(
    before: EndpointState,
    new: State,
    reason: str,
    result: CheckResult,
    ids: NewId,
    *,
    outage_id: str | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> StateChange:
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
