"""The state machine, case by case; tests/detection/test_machine_model.py proves it against a slow reference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from servmon.detection.machine import closed_elsewhere, step, verification_void
from servmon.detection.machine import verified as verified_by
from servmon.detection.restart import Recorded, rebuild
from servmon.detection.state import NEW, EndpointState, Policy
from servmon.detection.verdict import SecondLook
from servmon.model import CheckResult, CheckSource, FailureKind, State, Status, Transition

T0 = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
POLICY = Policy(check_interval=60, retry_interval=15)
NO_VERIFICATION = Policy(check_interval=60, retry_interval=15, verify=False)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def result(status: Status | str, seconds: float, **more) -> CheckResult:
    status = Status(status)
    kind = FailureKind.REFUSED if status is Status.DOWN else None
    message = "connection refused" if status is Status.DOWN else None
    fields = {"failure_kind": kind, "error_message": message, "response_time": 5.0} | more
    return CheckResult("web", 1, status, at(seconds), **fields)


def play(*steps: tuple[str, float], policy: Policy = POLICY, state: EndpointState = NEW, muted: bool = False):
    transitions: list[Transition] = []
    for status, seconds in steps:
        state, caused = step(state, result(status, seconds), policy, muted=muted)
        transitions += caused
    return state, transitions


def verified(state: EndpointState, second_look: CheckResult, policy: Policy, **more):
    return verified_by(state, SecondLook(second_look), policy, **more)


def kinds(transitions: list[Transition]) -> list[tuple[str, str]]:
    return [(transition.change.old.value, transition.change.new.value) for transition in transitions]


def test_the_first_good_check_makes_an_unknown_endpoint_up():
    state, transitions = play(("UP", 0))
    assert state.state is State.UP
    assert state.since == at(0)
    assert kinds(transitions) == [("unknown", "up")]


def test_more_good_checks_change_nothing():
    state, transitions = play(("UP", 0), ("UP", 60), ("UP", 120))
    assert state.since == at(0)
    assert len(transitions) == 1


def test_the_first_failure_makes_it_suspected_and_a_good_check_ends_that():
    state, transitions = play(("UP", 0), ("DOWN", 60), ("UP", 75))
    assert kinds(transitions)[1:] == [("up", "suspected"), ("suspected", "up")]
    assert state.failures == 0
    assert state.first_failure_at is None


def test_the_threshold_asks_for_verification_and_declares_nothing_by_itself():
    state, transitions = play(("UP", 0), ("DOWN", 60), ("DOWN", 75), ("DOWN", 90))
    assert state.verifying
    assert state.outage is None
    assert state.failures == 3
    assert kinds(transitions)[1:] == [("up", "suspected")]


def test_a_confirmed_verification_declares_one_outage_from_the_first_failure():
    state, _ = play(("UP", 0), ("DOWN", 60), ("DOWN", 75), ("DOWN", 90))
    state, (transition,) = verified(state, result("DOWN", 92), POLICY)
    assert transition.outage is not None
    assert transition.outage.start_time == at(60)
    assert transition.outage.last_good_at == at(0)
    assert transition.outage.declared_at == at(92)
    assert "connection refused" in transition.outage.description
    assert "02:01:00" in transition.outage.description
    assert transition.change.outage_id == transition.outage.id
    assert state.state is State.DOWN
    assert not state.verifying


@pytest.mark.parametrize("second", ["UP", "DEGRADED"])
def test_a_refuted_verification_is_recorded_and_the_next_failure_asks_again(second):
    state, _ = play(("UP", 0), ("DOWN", 60), ("DOWN", 75), ("DOWN", 90))
    state, (transition,) = verified(state, result(second, 92), POLICY)
    assert state.state is State.SUSPECTED
    assert transition.outage is None
    assert "answered" in transition.change.reason
    state, _ = play(("DOWN", 105), state=state)
    assert state.verifying


def test_a_verification_that_could_not_be_made_declares_nothing():
    state, _ = play(("DOWN", 60), ("DOWN", 75), ("DOWN", 90))
    state, (transition,) = verified(state, result("UNKNOWN", 92), POLICY)
    assert state.outage is None
    assert "could not be made" in transition.change.reason


def test_a_verdict_that_comes_after_a_good_check_changes_nothing():
    state, _ = play(("DOWN", 60), ("DOWN", 75), ("DOWN", 90), ("UP", 91))
    assert verified(state, result("DOWN", 92), POLICY) == (state, ())


def test_without_verification_the_threshold_declares():
    state, transitions = play(("DOWN", 0), ("DOWN", 15), ("DOWN", 30), policy=NO_VERIFICATION)
    assert state.outage is not None
    assert kinds(transitions) == [("unknown", "suspected"), ("suspected", "down")]


def test_a_threshold_of_one_declares_at_once():
    policy = Policy(check_interval=60, retry_interval=15, detection_threshold=1, verify=False)
    _, transitions = play(("UP", 0), ("DOWN", 60), policy=policy)
    assert kinds(transitions) == [("unknown", "up"), ("up", "suspected"), ("suspected", "down")]


def test_recovery_needs_its_threshold_and_dates_back_to_the_first_good_check():
    state, _ = play(("DOWN", 0), ("DOWN", 15), ("DOWN", 30), policy=NO_VERIFICATION)
    state, none = play(("UP", 60), state=state)
    assert none == []
    assert state.wants_retry_pace
    state, (transition,) = play(("UP", 75), state=state)
    assert transition.outage is not None
    assert transition.outage.resolved
    assert transition.outage.resolved_at == at(60)
    assert transition.outage.revision == 2
    assert kinds([transition]) == [("down", "up")]


def test_a_failure_between_good_checks_restarts_the_recovery():
    state, _ = play(("DOWN", 0), ("DOWN", 15), ("DOWN", 30), policy=NO_VERIFICATION)
    state, none = play(("UP", 60), ("DOWN", 75), ("UP", 90), state=state)
    assert none == []
    assert state.outage is not None
    state, (transition,) = play(("UP", 105), state=state)
    assert transition.outage is not None
    assert transition.outage.resolved_at == at(90)


def test_degraded_is_good_for_recovery_and_breaks_a_run_of_failures():
    state, _ = play(("DOWN", 0), ("DOWN", 15), ("DEGRADED", 30), policy=NO_VERIFICATION)
    assert state.state is State.DEGRADED
    assert state.failures == 0
    state, _ = play(("DOWN", 45), ("DOWN", 60), ("DOWN", 75), state=state, policy=NO_VERIFICATION)
    state, (transition,) = play(("DEGRADED", 90), ("DEGRADED", 105), state=state)
    assert transition.outage is not None
    assert transition.outage.resolved
    assert state.state is State.DEGRADED


def test_unknown_neither_adds_to_nor_breaks_a_run():
    state, _ = play(("DOWN", 0), ("UNKNOWN", 15), ("DOWN", 30), ("UNKNOWN", 45))
    assert state.failures == 2
    assert state.last is not None
    assert state.last.status is Status.UNKNOWN
    state, _ = play(("DOWN", 60), state=state)
    assert state.verifying


def test_unknown_does_not_break_a_recovery():
    state, _ = play(("DOWN", 0), ("DOWN", 15), ("DOWN", 30), policy=NO_VERIFICATION)
    _, (transition,) = play(("UP", 60), ("UNKNOWN", 75), ("UP", 90), state=state)
    assert transition.outage is not None
    assert transition.outage.resolved_at == at(60)


def test_counters_expire_after_three_intervals_without_evidence():
    state, _ = play(("DOWN", 0), ("DOWN", 15))
    state, _ = play(("DOWN", 15 + 181), state=state)
    assert state.failures == 1
    assert state.first_failure_at == at(196)


def test_an_open_outage_survives_any_silence():
    state, _ = play(("DOWN", 0), ("DOWN", 15), ("DOWN", 30), policy=NO_VERIFICATION)
    state, _ = play(("DOWN", 100_000), state=state)
    assert state.outage is not None
    assert state.outage.start_time == at(0)


def test_a_manual_check_counts_for_nothing():
    state, _ = play(("DOWN", 0), ("DOWN", 15))
    assert step(state, result("DOWN", 20, source=CheckSource.MANUAL), POLICY) == (state, ())
    assert step(state, result("UP", 20, source=CheckSource.MANUAL), POLICY) == (state, ())


def test_a_late_result_changes_nothing():
    state, _ = play(("UP", 60))
    assert step(state, result("DOWN", 30), POLICY) == (state, ())


def test_in_a_window_failures_do_not_count_but_the_first_is_remembered():
    state, _ = play(("UP", 0))
    state, transitions = play(("DOWN", 60), ("DOWN", 75), ("DOWN", 90), ("DOWN", 105), state=state, muted=True)
    assert transitions == []
    assert state.state is State.UP
    state, transitions = play(("DOWN", 120), ("DOWN", 135), ("DOWN", 150), state=state, policy=NO_VERIFICATION)
    assert transitions[-1].outage is not None
    assert transitions[-1].outage.start_time == at(60)


def test_in_a_window_an_open_outage_may_recover():
    state, _ = play(("DOWN", 0), ("DOWN", 15), ("DOWN", 30), policy=NO_VERIFICATION)
    state, transitions = play(("UP", 60), ("UP", 75), state=state, muted=True)
    assert state.state is State.UP
    assert transitions[-1].outage is not None


def test_a_void_verification_leaves_the_run_one_short():
    state, _ = play(("DOWN", 0), ("DOWN", 15), ("DOWN", 30))
    state = verification_void(state, POLICY)
    assert not state.verifying
    state, _ = play(("DOWN", 45), state=state)
    assert state.verifying


def test_after_a_manual_resolve_a_new_outage_needs_the_whole_threshold():
    state, _ = play(("DOWN", 0), ("DOWN", 15), ("DOWN", 30), policy=NO_VERIFICATION)
    state = closed_elsewhere(state)
    state, transitions = play(("DOWN", 60), ("DOWN", 75), state=state, policy=NO_VERIFICATION)
    assert all(transition.outage is None for transition in transitions)
    _, transitions = play(("DOWN", 90), state=state, policy=NO_VERIFICATION)
    assert transitions[-1].outage is not None
    assert transitions[-1].outage.start_time == at(60)


def numbered_ids():
    numbers = count()
    return lambda: f"id-{next(numbers)}"


HISTORY = [
    ("UP", 0), ("DOWN", 60), ("DOWN", 75), ("UP", 90), ("DEGRADED", 150), ("DOWN", 210), ("DOWN", 225),
    ("UNKNOWN", 240), ("DOWN", 255), ("DOWN", 270), ("UP", 330), ("DOWN", 345), ("UP", 405), ("UP", 420), ("DOWN", 480),
]  # fmt: skip


@pytest.mark.parametrize("stop_after", range(len(HISTORY) + 1))
@pytest.mark.parametrize("policy", [POLICY, NO_VERIFICATION], ids=["verified", "unverified"])
def test_a_restart_after_any_check_changes_no_outcome(stop_after, policy):
    """The rebuilt state may have forgotten the time of the last good check, nothing that decides."""
    results = [result(status, seconds) for status, seconds in HISTORY]
    state, changes, outage = NEW, [], None
    for one in results[:stop_after]:
        state, transitions = step(state, one, policy, ids=numbered_ids())
        if state.verifying:
            state, more = verified(state, one, policy, ids=numbered_ids())
            transitions += more
        for transition in transitions:
            changes.append(transition.change)
            outage = transition.outage or outage
    open_outage = outage if outage and not outage.resolved else None
    notices = [change for change in changes if "flapping" in change.evidence]
    real = [change for change in changes if change not in notices]
    recorded = Recorded(
        last_change=real[-1] if real else None,
        open_outage=open_outage,
        flapping=[(change.at, change.evidence["flapping"]) for change in notices],
        outage_ended_at=max((change.at for change in changes if change.old is State.DOWN), default=None),
    )
    rebuilt, caused = rebuild(results[:stop_after], policy, recorded)
    assert caused == ()
    decisive = ("state", "failures", "good", "first_failure_at", "first_good_at", "verifying", "outage", "recent")
    assert {name: getattr(rebuilt, name) for name in decisive} == {name: getattr(state, name) for name in decisive}
