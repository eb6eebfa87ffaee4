"""A restart while a maintenance window runs: what failed in it has failed since its first failure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from servmon.detection.machine import step
from servmon.detection.restart import Recorded, rebuild
from servmon.detection.state import Policy
from servmon.model import CheckResult, State, StateChange, Status

START = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
POLICY = Policy(check_interval=60, retry_interval=15, verify=False)
UP_BEFORE = StateChange("c", "a", State.UNKNOWN, State.UP, "answers", START - 60 * MINUTE)


def result(minute: float, status: Status = Status.DOWN) -> CheckResult:
    return CheckResult("a", 1, status, START + minute * MINUTE)


def test_an_outage_after_a_restart_in_a_window_began_with_its_first_failure():
    """Four hours of failures in the window; only the last twenty results are kept for a start."""
    kept = [result(minute) for minute in range(220, 240)]
    recorded = Recorded(last_change=UP_BEFORE, failing_since=START + 3 * MINUTE)
    state, caused = rebuild(kept, POLICY, recorded, muted=lambda _at: True)
    assert (state.state, caused) == (State.UP, ())
    for minute in (240, 240.25, 240.5):
        state, transitions = step(state, result(minute), POLICY)
    assert transitions[-1].outage.start_time == START + 3 * MINUTE
    assert transitions[-1].outage.declared_at == START + 240.5 * MINUTE


def test_what_is_up_again_has_no_first_failure():
    kept = [result(238), result(239, Status.UP)]
    recorded = Recorded(last_change=UP_BEFORE, failing_since=START + 3 * MINUTE)
    state, _ = rebuild(kept, POLICY, recorded, muted=lambda _at: True)
    assert state.first_failure_at is None
