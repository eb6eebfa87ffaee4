"""The state machine of one endpoint: after each check, is it up, suspected, down; did an outage begin or end?

Pure: values and times in, values out. The same results in the same order always give the same outcome, so a
restart rebuilds the state by replaying what is stored.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from servmon.model import (
    AVAILABLE,
    CheckResult,
    CheckSource,
    Outage,
    Severity,
    State,
    StateChange,
    Status,
    Transition,
)

# Counters without any evidence for this many intervals say nothing about the present any more.
EVIDENCE_LASTS_INTERVALS = 3

Transitions = tuple[Transition, ...]
NewId = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Policy:
    """How one endpoint is judged; the endpoint's own overrides over the settings. Intervals are seconds."""

    check_interval: float
    retry_interval: float
    detection_threshold: int = 3
    recovery_threshold: int = 2
    severity: Severity = Severity.MAJOR
    verify: bool = True


@dataclass(frozen=True, slots=True)
class EndpointState:
    """All that is remembered of one endpoint between two checks.

    ``failures`` and ``good`` count consecutive checks; ``good`` only while an outage is open. ``verifying`` is
    true from the threshold until the second look has answered.
    """

    state: State = State.UNKNOWN
    since: datetime | None = None
    last: CheckResult | None = None
    evidence_at: datetime | None = None
    failures: int = 0
    good: int = 0
    first_failure_at: datetime | None = None
    first_good_at: datetime | None = None
    last_good_at: datetime | None = None
    verifying: bool = False
    outage: Outage | None = None

    @property
    def in_series(self) -> bool:
        """Whether failures are being counted, so that a check is one attempt without retries."""
        return self.state is State.SUSPECTED or self.state is State.DOWN

    @property
    def wants_retry_pace(self) -> bool:
        """Whether checks come at ``retry_interval``: while suspected, and from the first good check to recovery."""
        return self.state is State.SUSPECTED or (self.state is State.DOWN and self.good > 0)


NEW = EndpointState()


def new_id() -> str:
    """An id for an outage or a change (uuid4)."""
    return str(uuid.uuid4())


def step(
    before: EndpointState, result: CheckResult, policy: Policy, *, muted: bool = False, ids: NewId = new_id
) -> tuple[EndpointState, Transitions]:
    """The state after one check result, and the transitions it caused, in order.

    ``muted`` says that a maintenance window covers the result: failures are seen but do not count. A manual
    check counts for nothing, an UNKNOWN result neither adds to nor breaks a run, and a result older than the
    newest evidence changes nothing.
    """
    if result.source is CheckSource.MANUAL or (before.evidence_at and result.timestamp <= before.evidence_at):
        return before, ()
    if result.status is Status.UNKNOWN:
        return replace(before, last=result), ()
    state = _without_stale_counters(before, result.timestamp, policy)
    if result.status in AVAILABLE:
        return _good(state, result, policy, ids)
    if muted:
        first_failure_at = state.first_failure_at or result.timestamp
        seen = replace(state, last=result, evidence_at=result.timestamp, first_failure_at=first_failure_at)
        return replace(seen, good=0, first_good_at=None), ()
    return _bad(state, result, policy, ids)


def verified(
    before: EndpointState, second_look: CheckResult, policy: Policy, *, ids: NewId = new_id
) -> tuple[EndpointState, Transitions]:
    """The state after the second look: the outage is declared, or refuted so that the next DOWN asks again.

    A second look that nobody waits for any more (a good check came meanwhile) changes nothing.
    """
    if not before.verifying:
        return before, ()
    if second_look.status is Status.DOWN:
        return _declare(before, policy, second_look.timestamp, ids, second_look)
    state = verification_void(before, policy)
    found = "answered" if second_look.status in AVAILABLE else "could not be made"
    reason = f"verification {found}: {second_look.error_message or 'all expectations met'}"
    change = _change(before, before.state, reason, second_look, ids, evidence=_evidence(second_look))
    return state, (Transition(change),)


def verification_void(before: EndpointState, policy: Policy) -> EndpointState:
    """The state after a second look that may not count: the next DOWN asks for another."""
    return replace(before, verifying=False, failures=min(before.failures, policy.detection_threshold - 1))


def closed_elsewhere(before: EndpointState) -> EndpointState:
    """The state after somebody else resolved the open outage (a person, or a change of the endpoint): runs restart."""
    return EndpointState(last=before.last, evidence_at=before.evidence_at, last_good_at=before.last_good_at)


def rebuild(
    results: Iterable[CheckResult],
    policy: Policy,
    *,
    last_change: StateChange | None,
    open_outage: Outage | None,
    muted: Callable[[datetime], bool] = lambda _at: False,
    ids: NewId = new_id,
) -> tuple[EndpointState, Transitions]:
    """The state after a restart: the stored results, oldest first, replayed on top of the last recorded change."""
    state = NEW
    since = None
    if open_outage is not None:
        since = open_outage.start_time
        state = EndpointState(
            state=State.DOWN,
            since=open_outage.declared_at,
            outage=open_outage,
            first_failure_at=open_outage.start_time,
            last_good_at=open_outage.last_good_at,
        )
    elif last_change is not None and last_change.new is not State.DOWN:
        since = last_change.at
        state = EndpointState(state=last_change.new, since=last_change.at)
    caused: list[Transition] = []
    for result in results:
        if since is not None and result.timestamp < since:
            state = replace(state, last=result, last_good_at=_last_good(state, result))
            continue
        state, transitions = step(state, result, policy, muted=muted(result.timestamp), ids=ids)
        caused.extend(transitions)
    return state, tuple(caused)


def _last_good(state: EndpointState, result: CheckResult) -> datetime | None:
    return result.timestamp if result.status in AVAILABLE else state.last_good_at


def _without_stale_counters(state: EndpointState, at: datetime, policy: Policy) -> EndpointState:
    """Counters expire after three intervals without evidence; an open outage stays open."""
    if state.evidence_at is None or (state.first_failure_at is None and not state.good):
        return state
    if at - state.evidence_at <= timedelta(seconds=EVIDENCE_LASTS_INTERVALS * policy.check_interval):
        return state
    first_failure_at = state.first_failure_at if state.outage else None
    return replace(state, failures=0, good=0, first_failure_at=first_failure_at, first_good_at=None, verifying=False)


def _good(state: EndpointState, result: CheckResult, policy: Policy, ids: NewId) -> tuple[EndpointState, Transitions]:
    if state.outage is not None:
        return _recovering(state, result, policy, ids)
    target = State.DEGRADED if result.status is Status.DEGRADED else State.UP
    at = result.timestamp
    after = EndpointState(
        state=target,
        since=at if target is not state.state else state.since,
        last=result,
        evidence_at=at,
        last_good_at=at,
    )
    if target is state.state:
        return after, ()
    reason = result.error_message or ("answers" if state.state is State.UNKNOWN else "answers again")
    return after, (Transition(_change(state, target, reason, result, ids)),)


def _recovering(
    state: EndpointState, result: CheckResult, policy: Policy, ids: NewId
) -> tuple[EndpointState, Transitions]:
    at = result.timestamp
    first_good_at = state.first_good_at or at
    good = state.good + 1
    if state.outage is None or good < policy.recovery_threshold:
        counted = replace(state, last=result, evidence_at=at, last_good_at=at, failures=0)
        return replace(counted, good=good, first_good_at=first_good_at), ()
    target = State.DEGRADED if result.status is Status.DEGRADED else State.UP
    resolved = replace(state.outage, resolved=True, resolved_at=first_good_at, revision=state.outage.revision + 1)
    change = _change(state, target, "recovered", result, ids, outage_id=resolved.id)
    after = EndpointState(state=target, since=at, last=result, evidence_at=at, last_good_at=at)
    return after, (Transition(change, resolved),)


def _bad(state: EndpointState, result: CheckResult, policy: Policy, ids: NewId) -> tuple[EndpointState, Transitions]:
    at = result.timestamp
    counted = replace(
        state,
        last=result,
        evidence_at=at,
        failures=state.failures + 1,
        good=0,
        first_failure_at=state.first_failure_at or at,
        first_good_at=None,
    )
    if state.outage is not None:
        return counted, ()
    transitions: Transitions = ()
    if state.state is not State.SUSPECTED:
        reason = result.error_message or "failed"
        transitions = (Transition(_change(state, State.SUSPECTED, reason, result, ids)),)
        counted = replace(counted, state=State.SUSPECTED, since=at)
    if counted.failures < policy.detection_threshold or counted.verifying:
        return counted, transitions
    if policy.verify:
        return replace(counted, verifying=True), transitions
    declared, outage = _declare(counted, policy, at, ids)
    return declared, transitions + outage


def _declare(
    state: EndpointState, policy: Policy, at: datetime, ids: NewId, second_look: CheckResult | None = None
) -> tuple[EndpointState, Transitions]:
    shown = second_look or state.last
    outage = Outage(
        id=ids(),
        endpoint_id=shown.endpoint_id if shown else "",
        severity=policy.severity,
        description=_describe(state, shown),
        start_time=state.first_failure_at or at,
        declared_at=at,
        last_good_at=state.last_good_at,
        evidence=_evidence(second_look) if second_look else {"verification": "off"},
        revision=1,
    )
    after = replace(state, state=State.DOWN, since=at, verifying=False, outage=outage)
    reason = f"{state.failures} failed checks" + (" and a failed verification" if second_look else "")
    change = StateChange(
        id=ids(),
        endpoint_id=outage.endpoint_id,
        old=state.state,
        new=State.DOWN,
        reason=reason,
        at=at,
        outage_id=outage.id,
        evidence=outage.evidence,
    )
    return after, (Transition(change, outage),)


def _describe(state: EndpointState, shown: CheckResult | None) -> str:
    what = (shown and shown.error_message) or (state.last and state.last.error_message) or "does not answer"
    since = f"since {state.first_failure_at:%Y-%m-%d %H:%M:%S} UTC" if state.first_failure_at else ""
    good = f"last good {state.last_good_at:%Y-%m-%d %H:%M:%S} UTC" if state.last_good_at else "never seen up"
    return ", ".join(part for part in (what, since, good) if part)


def _evidence(second_look: CheckResult) -> dict[str, object]:
    return {
        "verification": {
            "status": second_look.status.value,
            "failure_kind": second_look.failure_kind.value if second_look.failure_kind else None,
            "error_message": second_look.error_message,
            "response_time": second_look.response_time,
            "at": second_look.timestamp.isoformat(),
        }
    }


def _change(
    before: EndpointState,
    new: State,
    reason: str,
    result: CheckResult,
    ids: NewId,
    *,
    outage_id: str | None = None,
    evidence: dict[str, object] | None = None,
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
