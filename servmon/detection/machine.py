"""The state machine of one endpoint: after each check, is it up, suspected, down; did an outage begin or end?

Pure: values and times in, values out. The same results in the same order always give the same outcome, so a
restart rebuilds the state by replaying what is stored (``detection/restart.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from servmon.detection import window
from servmon.detection.changes import RECOVERED, change_of, iso
from servmon.detection.recent import observe, without_complaints
from servmon.detection.state import EndpointState, NewId, Policy, Transitions, new_id
from servmon.detection.verdict import NOT_VERIFIED, Method, SecondLook, describe, evidence
from servmon.model import AVAILABLE, CheckResult, CheckSource, Outage, Severity, State, StateChange, Status, Transition

_BY_DEGRADATION = {"opened_by": "degraded"}
# In evidence, for a restart: when an outage that degradation opened became one of being down.
RAISED_AT = "raised_at"


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
    simply_up = result.status is Status.UP and result.attempts == 1 and not told_flapping
    if simply_up and before.is_steady and before.recent.is_unmoved_by(result):
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
        return _reduced(state, look, policy, ids)
    found = "answered" if result.status in AVAILABLE else "could not be made"
    reason = f"verification {found}: {result.error_message or 'all expectations met'}"
    change = change_of(before, before.state, reason, result, ids, evidence=_left_by(look, state, policy))
    return state, (Transition(change),)


def _left_by(look: SecondLook, state: EndpointState, policy: Policy) -> Mapping[str, Any]:
    """Evidence of a verdict that declared nothing, with what only it changed: a restart reads that from no result."""
    run = {
        "failures": state.failures,
        "first_failure_at": iso(state.first_failure_at),
        "evidence_at": iso(state.evidence_at),
        "since": iso(state.since),
        "reduced": state.reduced,
    }
    return {**evidence(look), **window.evidence_of(state.marks, policy), "run": run}


def verification_void(before: EndpointState, policy: Policy) -> EndpointState:
    """The state after a second look that may not count: the next DOWN asks for another."""
    keep = policy.detection_threshold - 1
    marks = window.with_failures(before.marks, keep)
    return replace(before, verifying=False, failures=min(before.failures, keep), marks=marks)


def opened_by_degradation(outage: Outage) -> bool:
    """Whether degraded checks opened the outage: then only UP ends it."""
    return outage.evidence.get("opened_by") == "degraded"


def _without_stale_counters(state: EndpointState, at: datetime, policy: Policy) -> EndpointState:
    """Counters expire after three intervals without evidence; an open outage stays open."""
    if state.evidence_at is None or (state.first_failure_at is None and not state.good and not state.degraded):
        return state
    if at - state.evidence_at <= policy.evidence_lasts:
        return state
    # Degraded checks that count no more are not what an outage would begin with either.
    since = at if state.degraded and state.outage is None else state.since
    first_failure_at = state.first_failure_at if state.outage else None
    fresh = replace(state, failures=0, good=0, degraded=0, first_good_at=None, verifying=False)
    return replace(fresh, since=since, first_failure_at=first_failure_at)


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
        marks=window.marked(state, at, policy, failed=False) if state.marks else (),
        degraded=state.degraded + 1 if degraded else 0,
    )
    transitions: Transitions = ()
    if target is not state.state:
        answers = "answers" if state.state is State.UNKNOWN else "answers again"
        reason = result.error_message or complaint or answers
        seen = window.evidence_of(state.marks, policy)
        transitions = (Transition(change_of(state, target, reason, result, ids, evidence=seen)),)
    if policy.degraded_outage_after is None or after.degraded < policy.degraded_outage_after:
        return after, transitions
    recorded = {**_BY_DEGRADATION, **window.evidence_of(state.marks, policy)}
    opened, outage = _declare_degraded(after, result, result.error_message or complaint or "degraded", recorded, ids)
    return opened, transitions + outage


def _recovering(
    state: EndpointState, outage: Outage, result: CheckResult, target: State, policy: Policy, ids: NewId
) -> tuple[EndpointState, Transitions]:
    at = result.timestamp
    first_failure_at = state.first_failure_at if state.state is State.DOWN else None
    seen = replace(state, last=result, evidence_at=at, last_good_at=at, first_failure_at=first_failure_at)
    seen = replace(seen, failures=0, degraded=0, verifying=False)
    if state.state is not State.DOWN:
        seen = replace(seen, marks=window.marked(state, at, policy, failed=False))
    transitions: Transitions = ()
    if opened_by_degradation(outage) and (target is State.DEGRADED or state.state is State.SUSPECTED):
        seen, transitions = _degraded_again(seen, result, window.evidence_of(state.marks, policy), ids)
        if target is State.DEGRADED:
            return seen, transitions
    good = seen.good + 1
    first_good_at = seen.first_good_at or at
    if good < policy.recovery_threshold or state.recent.flapping:
        return replace(seen, good=good, first_good_at=first_good_at), transitions
    resolved = replace(outage, resolved=True, resolved_at=first_good_at, revision=outage.revision + 1)
    recorded = window.evidence_of((), policy)
    change = change_of(seen, target, RECOVERED, result, ids, outage_id=resolved.id, evidence=recorded)
    after = EndpointState(
        state=target,
        since=at,
        last=result,
        evidence_at=at,
        last_good_at=at,
        recent=state.recent,
        degraded=int(target is State.DEGRADED),
    )
    return after, (*transitions, Transition(change, resolved))


def _degraded_again(
    state: EndpointState, result: CheckResult, recorded: Mapping[str, Any], ids: NewId
) -> tuple[EndpointState, Transitions]:
    """Better than down, and not well or not for long: an outage that degradation opened stays open."""
    seen = replace(state, good=0, first_good_at=None, first_failure_at=None)
    if state.state is State.DEGRADED:
        return seen, ()
    reason, outage_id = result.error_message or "answers again", state.outage.id if state.outage else None
    change = change_of(state, State.DEGRADED, reason, result, ids, outage_id=outage_id, evidence=recorded)
    return replace(seen, state=State.DEGRADED, since=result.timestamp), (Transition(change),)


def _bad(state: EndpointState, result: CheckResult, policy: Policy, ids: NewId) -> tuple[EndpointState, Transitions]:
    at = result.timestamp
    marks = () if state.state is State.DOWN else window.marked(state, at, policy, failed=True)
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
        seen = window.evidence_of(state.marks, policy)
        transitions = (Transition(change_of(state, State.SUSPECTED, reason, result, ids, evidence=seen)),)
        counted = replace(counted, state=State.SUSPECTED, since=at, before_suspected=state.state)
    failures = window.failures_in(marks) if marks else counted.failures
    if failures < policy.detection_threshold or counted.verifying:
        return counted, transitions
    if policy.verify or policy.has_parents:
        return replace(counted, verifying=True), transitions
    declared, outage = _declare(counted, policy, at, ids)
    return declared, transitions + outage


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
            evidence={**found, **_BY_DEGRADATION, RAISED_AT: at.isoformat()},
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
    after = replace(after, marks=())
    reason = f"{state.failures} failed checks" + (f", {look.method.value}" if look else "")
    recorded = outage.evidence
    if cause is not None:
        reason, recorded = f"{reason}, cut off by {cause}", {**recorded, "caused_by": cause}
    change = StateChange(
        ids(), outage.endpoint_id, state.state, State.DOWN, reason, at, outage_id=outage.id, evidence=recorded
    )
    return after, (Transition(change, outage),)


def _declare_degraded(
    state: EndpointState, result: CheckResult, complaint: str, recorded: Mapping[str, Any], ids: NewId
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
    change = change_of(state, State.DEGRADED, reason, result, ids, outage_id=outage.id, evidence=recorded)
    return replace(state, outage=outage), (Transition(change, outage),)


def _reduced(state: EndpointState, look: SecondLook, policy: Policy, ids: NewId) -> tuple[EndpointState, Transitions]:
    if state.reduced:
        return state, ()
    result = look.result
    reason = result.error_message or "some addresses do not answer"
    after = replace(state, state=State.DEGRADED, since=result.timestamp, reduced=True)
    change = change_of(state, State.DEGRADED, reason, result, ids, evidence=_left_by(look, after, policy))
    return after, (Transition(change),)


def _flapping_notice(state: EndpointState, flapping: bool, result: CheckResult, ids: NewId) -> Transitions:
    if flapping is state.recent.flapping:
        return ()
    reason = "flapping: it keeps going up and down" if flapping else "flapping ended"
    shown = {"flapping": flapping, "outage_id": state.outage.id if state.outage else None}
    return (Transition(change_of(state, state.state, reason, result, ids, evidence=shown)),)
