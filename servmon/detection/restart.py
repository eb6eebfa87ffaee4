"""After a restart: the state of an endpoint, rebuilt from what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from servmon.detection import window
from servmon.detection.machine import RAISED_AT, opened_by_degradation, step
from servmon.detection.recent import observe
from servmon.detection.state import NEW, EndpointState, NewId, Policy, Transitions, new_id
from servmon.model import AVAILABLE, CheckResult, Outage, State, StateChange, Status, Transition


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is recorded of an endpoint beside its results.

    ``flapping`` are the notices of flapping with their times, oldest first; ``last_change`` is the last change that was
    none. What came before ``outage_ended_at`` was that outage's own, and is no sign of intermittence. ``failing_since``
    is when it began to fail, where the results kept for a start do not tell: in a window, or for long.
    """

    last_change: StateChange | None = None
    open_outage: Outage | None = None
    flapping: Sequence[tuple[datetime, bool]] = ()
    outage_ended_at: datetime | None = None
    failing_since: datetime | None = None


def rebuild(
    results: Iterable[CheckResult],
    policy: Policy,
    recorded: Recorded,
    *,
    muted: Callable[[datetime], bool] = lambda _at: False,
    ids: NewId = new_id,
) -> tuple[EndpointState, Transitions]:
    """The stored results, oldest first, replayed on top of the last recorded change."""
    state, since = _base(recorded.last_change, recorded.open_outage)
    ended_at = recorded.outage_ended_at
    judged_at = _judged_at(recorded.open_outage) if state.state is State.DOWN else None
    run_began_at, marks = state.first_failure_at, window.recorded_in(recorded.last_change)
    state = replace(state, marks=marks or ())
    caused: list[Transition] = []
    for result in results:
        flapping = _flapped(recorded.flapping, result.timestamp)
        if since is not None and result.timestamp < since:
            is_down = state.state is State.DOWN or (ended_at is not None and result.timestamp < ended_at)
            state = _remember(state, result, policy, is_down=is_down, muted=muted(result.timestamp))
            if marks is not None:
                state = replace(state, marks=marks)
            if flapping is not state.recent.flapping:
                state = replace(state, recent=replace(state.recent, flapping=flapping))
            continue
        if judged_at is not None and result.timestamp < judged_at and result.status in AVAILABLE:
            # Between the failures that declared it: it broke their row, and is no recovery.
            state = _remember(state, result, policy, is_down=True, muted=muted(result.timestamp))
            state = replace(state, failures=0, first_failure_at=run_began_at)
            continue
        is_muted = muted(result.timestamp)
        state, transitions = step(state, result, policy, muted=is_muted, told_flapping=flapping, ids=ids)
        caused.extend(transitions)
    if recorded.failing_since is not None and state.outage is None and state.first_failure_at is not None:
        # Its outage, once the window is over and there is one, began with the first failure.
        state = replace(state, first_failure_at=min(state.first_failure_at, recorded.failing_since))
    return state, tuple(caused)


def _flapped(notices: Sequence[tuple[datetime, bool]], at: datetime) -> bool:
    """Whether it flapped at ``at``, as people were told."""
    return next((flapping for told_at, flapping in reversed(notices) if told_at <= at), False)


def _base(last_change: StateChange | None, open_outage: Outage | None) -> tuple[EndpointState, datetime | None]:
    """The state to replay upon, and the time from which results count."""
    if open_outage is not None:
        return _in_outage(open_outage, last_change)
    if last_change is None or last_change.new is State.DOWN:
        return NEW, None
    state = EndpointState(state=last_change.new, since=last_change.at, before_suspected=last_change.old)
    if last_change.old is State.DOWN and last_change.new is State.DEGRADED:
        return _already_judged(state, degraded=1)
    if "run" in last_change.evidence:
        return _judged(state, last_change)
    return state, last_change.at


def begun_by(change: StateChange, kept: Sequence[CheckResult]) -> datetime | None:
    """When the run of failures after ``change`` may have begun, where what is ``kept`` for a start does not reach back.

    It is ``None`` where the results show it, or there is no such run.
    """
    run = change.evidence.get("run", {})
    if not (run or change.new is State.SUSPECTED):
        return None
    if not kept or kept[-1].status is not Status.DOWN or kept[0].timestamp <= change.at:
        return None
    return _moment(run.get("first_failure_at")) or change.at


def _judged(state: EndpointState, change: StateChange) -> tuple[EndpointState, datetime]:
    """The state after a verdict that declared nothing, with the run that it left."""
    run = change.evidence["run"]
    evidence_at = _moment(run.get("evidence_at")) or change.at
    judged = replace(
        state,
        since=_moment(run.get("since")) or change.at,
        failures=run["failures"],
        first_failure_at=_moment(run["first_failure_at"]),
        evidence_at=evidence_at,
        reduced=run.get("reduced", False),
        before_suspected=State.UP,
    )
    return judged, evidence_at + timedelta.resolution


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _judged_at(outage: Outage | None) -> datetime | None:
    """When the question was asked that declared an outage; the verdict may have waited for that on its parents."""
    if outage is None:
        return None
    look = outage.evidence.get("verification")
    return _moment(look["at"] if isinstance(look, Mapping) else outage.evidence.get(RAISED_AT)) or outage.declared_at


def _in_outage(outage: Outage, last_change: StateChange | None) -> tuple[EndpointState, datetime]:
    by_degradation = opened_by_degradation(outage)
    state = EndpointState(
        state=State.DOWN,
        since=outage.declared_at,
        outage=outage,
        first_failure_at=None if by_degradation else outage.start_time,
        last_good_at=outage.last_good_at,
    )
    if last_change is None or not by_degradation:
        return state, outage.start_time
    state = replace(state, state=last_change.new, since=_changed_at(last_change, outage))
    if "run" in last_change.evidence:
        return _judged(state, last_change)
    return state, outage.start_time if last_change.new is State.DOWN else last_change.at


def _changed_at(last_change: StateChange, outage: Outage) -> datetime:
    """When what degradation opened came into its state; its last change may only note something about the outage."""
    if last_change.old is not last_change.new:
        return last_change.at
    if last_change.new is State.DOWN:
        return _moment(outage.evidence.get(RAISED_AT)) or last_change.at
    return outage.start_time


def _already_judged(state: EndpointState, degraded: int = 0) -> tuple[EndpointState, datetime]:
    """The state whose last change ended a run: the check that caused it does not count once more."""
    assert state.since is not None  # noqa: S101 - it has just changed
    return replace(state, evidence_at=state.since, degraded=degraded), state.since + timedelta.resolution


def _remember(
    state: EndpointState, result: CheckResult, policy: Policy, *, is_down: bool, muted: bool
) -> EndpointState:
    """A result that was judged before the last recorded change: seen, but not judged again."""
    if result.status is Status.UNKNOWN:
        return replace(state, last=result)
    last_good_at = result.timestamp if result.status in AVAILABLE else state.last_good_at
    if muted:
        return replace(state, last=result, last_good_at=last_good_at)
    recent = observe(state.recent, result, policy.check_interval, is_down=is_down)
    marks = () if is_down else window.marked(state, result.timestamp, policy, failed=result.status not in AVAILABLE)
    return replace(state, last=result, last_good_at=last_good_at, recent=recent, marks=marks)
