"""What fails and has no outage yet fails since the same moment after a restart, however little is kept for one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from servmon.detection.machine import step, verified
from servmon.detection.restart import Recorded, begun_by, rebuild
from servmon.detection.state import NEW, EndpointState, Policy
from servmon.detection.verdict import SecondLook
from servmon.model import CheckResult, State, StateChange, Status

START = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
POLICY = Policy(check_interval=60, retry_interval=15, detection_threshold=3)
PATIENT = replace(POLICY, detection_threshold=200)
SOME_ALIVE = {"addresses": {"192.0.2.1": None, "192.0.2.2": "refused"}}


class Life:
    """What an endpoint went through, and what is stored of it."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.state: EndpointState = NEW
        self.results: list[CheckResult] = []
        self.change: StateChange | None = None

    def check(self, *statuses: Status) -> Life:
        for status in statuses:
            self.results.append(CheckResult("a", 1, status, START + len(self.results) * timedelta(seconds=15)))
            self._take(step(self.state, self.results[-1], self.policy))
        return self

    def look_again(self, status: Status, **found) -> Life:
        assert self.state.verifying
        look = CheckResult("a", 1, status, self.results[-1].timestamp + timedelta(seconds=5), **found)
        self._take(verified(self.state, SecondLook(look), self.policy))
        return self

    def _take(self, judged) -> None:
        self.state, transitions = judged
        self.change = transitions[-1].change if transitions else self.change

    def restarted(self, kept: int, failing_since: datetime | None = None) -> EndpointState:
        """The state rebuilt from the newest ``kept`` results."""
        recorded = Recorded(last_change=self.change, failing_since=failing_since)
        state, transitions = rebuild(self.results[-kept:], self.policy, recorded)
        assert transitions == ()
        return state


def fails(times: int) -> list[Status]:
    return [Status.DOWN] * times


@pytest.mark.parametrize("kept", [1, 40, 80, 200])
def test_it_is_its_first_failure_where_only_later_ones_are_kept(kept):
    life = Life(PATIENT).check(Status.UP, *fails(100))
    begun = begun_by(life.change, life.results[-kept:])
    assert begun == (None if kept == 200 else life.change.at)
    after = life.restarted(kept, failing_since=begun)  # as Postgres finds where no check was missed
    assert (after.state, after.since) == (State.SUSPECTED, START + timedelta(seconds=15))
    assert after.first_failure_at == life.state.first_failure_at == after.since


def test_where_servmon_was_away_for_long_failures_before_that_are_no_part_of_it():
    life = Life(POLICY).check(Status.UP, Status.DOWN)
    life.results.clear()  # too old to be kept
    after = life.restarted(1)
    assert (after.state, after.first_failure_at) == (State.SUSPECTED, None)
    for minute in (0, 15, 30):
        late = CheckResult("a", 1, Status.DOWN, START + timedelta(days=3, seconds=minute))
        after, _ = step(after, late, replace(POLICY, verify=False))
    assert after.outage.start_time == START + timedelta(days=3)


@pytest.mark.parametrize("kept", [(), (Status.UP,), (Status.DOWN, Status.UP)])
def test_what_does_not_fail_has_no_run_to_look_for(kept):
    life = Life(POLICY).check(Status.DOWN)
    assert begun_by(life.change, Life(POLICY).check(*kept).results) is None


def test_what_was_up_before_the_results_that_are_kept_has_no_run_to_look_for():
    """As in a window, in which failures make no change: years of good checks are not looked through."""
    life = Life(POLICY).check(Status.UP)
    failed = CheckResult("a", 1, Status.DOWN, START + timedelta(days=30))
    assert begun_by(life.change, [failed]) is None


def test_a_refuted_verdict_changes_nothing_about_it():
    life = Life(POLICY).check(Status.UP, *fails(3)).look_again(Status.UP).check(Status.DOWN).look_again(Status.UP)
    after = life.restarted(2)
    shown = (State.SUSPECTED, START + timedelta(seconds=15), START + timedelta(seconds=15), 2)
    assert (after.state, after.since, after.first_failure_at, after.failures) == shown
    assert (life.state.state, life.state.since, life.state.first_failure_at, life.state.failures) == shown


def test_where_some_addresses_answer_the_run_goes_on_and_the_next_failure_asks_again():
    life = Life(POLICY).check(Status.UP, *fails(3)).look_again(Status.DEGRADED, details=SOME_ALIVE)
    after = life.restarted(4)
    assert (after.state, after.since) == (State.DEGRADED, life.state.since)
    assert after.first_failure_at == life.state.first_failure_at == START + timedelta(seconds=15)
    for state in (life.state, after):
        failed, transitions = step(state, CheckResult("a", 1, Status.DOWN, START + timedelta(seconds=75)), POLICY)
        assert (failed.verifying, transitions) == (True, ())


def test_a_verdict_that_was_recorded_before_it_told_since_when_is_read_too():
    life = Life(POLICY).check(Status.UP, *fails(3)).look_again(Status.UP)
    run = {name: value for name, value in life.change.evidence["run"].items() if name not in ("since", "reduced")}
    life.change = replace(life.change, evidence={"run": run})
    assert life.restarted(4).first_failure_at == START + timedelta(seconds=15)
