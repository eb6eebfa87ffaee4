"""The state machine, case by case; tests/detection/test_machine_model.py proves it against a slow reference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from servmon.detection.machine import step, verification_void
from servmon.detection.machine import verified as verified_by
from servmon.detection.outside import closed_elsewhere
from servmon.detection.restart import Recorded, rebuild
from servmon.detection.state import NEW, EndpointState, Policy
from servmon.detection.verdict import SecondLook
from servmon.model import CheckResult, CheckSource, FailureKind, Severity, State, Status, Transition

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
    state = closed_elsewhere(state, at(31))
    # A check that was under way by then belongs to the outage that is over.
    assert play(("DOWN", 31), state=state, policy=NO_VERIFICATION)[0].failures == 0
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


SLOW_THEN_DOWN = [
    ("UP", 0), ("DEGRADED", 60), ("DEGRADED", 120), ("DEGRADED", 180), ("DOWN", 240), ("UP", 255), ("DEGRADED", 270),
    ("DEGRADED", 330), ("DOWN", 390), ("DOWN", 405), ("DOWN", 420), ("DOWN", 480), ("DEGRADED", 540), ("UP", 600),
    ("UP", 615), ("DEGRADED", 675),
]  # fmt: skip


@pytest.mark.parametrize("stop_after", range(len(SLOW_THEN_DOWN) + 1))
@pytest.mark.parametrize("history", [HISTORY, SLOW_THEN_DOWN], ids=["failing", "slow then down"])
@pytest.mark.parametrize(
    "policy",
    [
        POLICY,
        NO_VERIFICATION,
        Policy(check_interval=60, retry_interval=15, detection_window=5),
        Policy(check_interval=60, retry_interval=15, degraded_outage_after=2),
    ],
    ids=["verified", "unverified", "3 of 5", "degraded too"],
)
def test_a_restart_after_any_check_changes_no_outcome(stop_after, history, policy):
    """The rebuilt state may have forgotten the time of the last good check, nothing that decides."""
    results = [result(status, seconds) for status, seconds in history]
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


WINDOW = Policy(check_interval=60, retry_interval=15, verify=False, detection_window=5)


def test_a_detection_window_declares_on_failures_that_are_not_in_a_row():
    state, transitions = play(("UP", 0), ("DOWN", 60), ("UP", 120), ("DOWN", 180), ("UP", 240), policy=WINDOW)
    assert state.outage is None
    state, transitions = play(("DOWN", 300), policy=WINDOW, state=state)
    assert transitions[-1].outage is not None
    assert transitions[-1].outage.start_time == at(60)


def test_a_failure_that_left_the_detection_window_counts_no_more():
    steps = [("DOWN", 0), *(("UP", 60 * number) for number in range(1, 5)), ("DOWN", 300), ("DOWN", 315)]
    state, _ = play(*steps, policy=WINDOW)
    assert state.outage is None
    state, transitions = play(("DOWN", 330), policy=WINDOW, state=state)
    assert transitions[-1].outage is not None
    assert transitions[-1].outage.start_time == at(300)


SLOW_IS_AN_OUTAGE = Policy(check_interval=60, retry_interval=15, verify=False, degraded_outage_after=3)
SLOW = (("UP", 0), ("DEGRADED", 60), ("DEGRADED", 120), ("DEGRADED", 180))


def test_degraded_checks_open_no_outage_unless_asked_for():
    state, _ = play(*SLOW, *(("DEGRADED", 240 + 60 * number) for number in range(100)))
    assert state.state is State.DEGRADED
    assert state.outage is None


def test_as_many_degraded_checks_as_asked_for_are_an_outage_of_severity_warning():
    state, _ = play(*SLOW[:-1], policy=SLOW_IS_AN_OUTAGE)
    assert state.outage is None
    state, transitions = play(SLOW[-1], policy=SLOW_IS_AN_OUTAGE, state=state)
    assert state.state is State.DEGRADED
    assert transitions[-1].outage is not None
    assert transitions[-1].outage.severity is Severity.WARNING
    assert transitions[-1].outage.start_time == at(60)


def test_a_good_check_between_degraded_ones_starts_their_count_anew():
    state, _ = play(*SLOW[:-1], ("UP", 180), ("DEGRADED", 240), ("DEGRADED", 300), policy=SLOW_IS_AN_OUTAGE)
    assert state.outage is None


def test_down_raises_the_outage_that_degradation_opened_and_only_up_ends_it():
    state, _ = play(*SLOW, policy=SLOW_IS_AN_OUTAGE)
    opened = state.outage
    state, transitions = play(("DOWN", 240), ("DOWN", 255), ("DOWN", 270), policy=SLOW_IS_AN_OUTAGE, state=state)
    raised = transitions[-1].outage
    assert opened is not None
    assert raised is not None
    assert (raised.id, raised.severity, raised.start_time) == (opened.id, Severity.MAJOR, at(60))
    state, _ = play(("DEGRADED", 330), ("DEGRADED", 390), policy=SLOW_IS_AN_OUTAGE, state=state)
    assert state.outage == raised
    state, transitions = play(("UP", 450), ("UP", 465), policy=SLOW_IS_AN_OUTAGE, state=state)
    assert state.outage is None
    assert transitions[-1].outage is not None
    assert transitions[-1].outage.resolved_at == at(450)


def lossy(received: tuple[int, ...]) -> tuple[EndpointState, list[Transition]]:
    """The state after checks of five packets each, so many of which came back."""
    state, transitions = NEW, []
    for number, back in enumerate(received):
        counted = {"packets_sent": 5, "packets_received": back}
        state, caused = step(state, result("UP", 60 * number, details=counted), POLICY)
        transitions += caused
    return state, transitions


def test_a_fifth_of_the_packets_of_five_checks_may_be_lost():
    state, transitions = lossy((5, 5, 5, 5, 5, 4, 4, 4, 4, 4))
    assert state.state is State.UP
    assert len(transitions) == 1


def test_more_than_a_fifth_lost_over_five_checks_is_degraded_until_it_is_over():
    state, transitions = lossy((5, 5, 5, 5, 3, 3, 4, 4))
    assert state.state is State.DEGRADED
    assert transitions[-1].change.reason == "6 of 25 packets lost in the last 5 checks"
    state, _ = lossy((5, 5, 5, 5, 3, 3, 4, 4, 5, 5))
    assert state.state is State.UP
