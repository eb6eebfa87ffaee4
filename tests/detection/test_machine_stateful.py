"""The machine step by step against a slow, obvious reference: checks, verdicts, people and restarts in any order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from servmon.detection import machine, outside
from servmon.detection.restart import Recorded, rebuild
from servmon.detection.state import NEW, Policy
from servmon.detection.verdict import SecondLook
from servmon.model import AVAILABLE, CheckResult, CheckSource, Outage, Severity, State, StateChange, Status
from tests.detection.test_machine_model import INTERVAL, flaps, policies_of_all_kinds

T0 = datetime(2026, 11, 23, tzinfo=UTC)
GAPS = st.sampled_from([1, 15, 60, 179, 180, 181, 1000])


class Level(Enum):
    """How bad what is open is."""

    DEGRADED = Severity.WARNING
    DOWN = Severity.MAJOR


@dataclass
class Reference:
    """What the contract says, with everything that happened in lists."""

    policy: Policy
    # Start, end and severity of every outage.
    outages: list[tuple[datetime, datetime | None, Severity]] = field(default_factory=list)
    evidence: list[CheckResult] = field(default_factory=list)
    flapping: bool = False
    level: Level | None = None
    opened_by_degradation: bool = False
    # Runs: failures, good checks in an outage, degraded checks outside of one.
    bad: list[datetime] = field(default_factory=list)
    good: list[datetime] = field(default_factory=list)
    degraded: list[datetime] = field(default_factory=list)
    # All checks, failed or not, of which a detection window sees the last.
    all: list[tuple[datetime, bool]] = field(default_factory=list)
    began: datetime | None = None
    # Failed attempts, while nothing was down.
    attempts: list[bool] = field(default_factory=list)
    # Failures that a refuted verdict took out of the count.
    uncounted: int = 0
    asked: bool = False

    def check(self, result: CheckResult) -> None:
        if result.source is CheckSource.MANUAL or result.status is Status.UNKNOWN:
            return
        if self.evidence and result.timestamp <= self.evidence[-1].timestamp:
            return
        if self.evidence and result.timestamp - self.evidence[-1].timestamp > timedelta(seconds=3 * INTERVAL):
            self._forget()
        self.evidence.append(result)
        self.flapping = flaps(self.evidence, self.flapping)
        failed = result.status not in AVAILABLE
        if self.level is not Level.DOWN:
            self.attempts.append(failed)
            self.all.append((result.timestamp, failed))
        if failed:
            self._bad(result.timestamp)
        else:
            self._good(result.timestamp, result.status is Status.DEGRADED or sum(self.attempts[-20:]) >= 5)

    def verdict(self, confirms: bool) -> None:
        self.asked = False
        if confirms:
            self._open(Level.DOWN)
            return
        self.uncounted = len(self.bad) - (self.policy.detection_threshold - 1)
        self.all = self._window()
        while sum(failed for _, failed in self.all) >= self.policy.detection_threshold:
            self.all = self.all[1:]

    def close_by_hand(self, at: datetime) -> None:
        self.close(at)
        self.attempts = []

    def close(self, at: datetime) -> None:
        start, _, severity = self.outages[-1]
        self.outages[-1] = (start, max(at, start), severity)
        self.level = None
        self._forget()

    def _good(self, at: datetime, degraded: bool) -> None:
        self.bad, self.began, self.uncounted, self.asked = [], None, 0, False
        if self.level is None:
            self.degraded = [*self.degraded, at] if degraded else []
            if len(self.degraded) >= (self.policy.degraded_outage_after or 1000):
                self._open(Level.DEGRADED)
        elif self.opened_by_degradation and degraded:
            self.good, self.level = [], Level.DEGRADED
        else:
            if self.level is Level.DEGRADED:
                self.degraded = []
            self.good.append(at)
            if len(self.good) >= self.policy.recovery_threshold and not self.flapping:
                self.close(self.good[0])
                self.degraded = [at] if degraded else []

    def _bad(self, at: datetime) -> None:
        self.good, self.degraded = [], []
        if self.level is Level.DOWN:
            return
        self.bad.append(at)
        window = self._window()
        self.began = self.began or next(time for time, failed in window if failed)
        failures = sum(failed for _, failed in window)
        if self.policy.detection_window is None:
            failures = len(self.bad) - self.uncounted
        if self.asked or failures < self.policy.detection_threshold:
            return
        if self.policy.verify:
            self.asked = True
        else:
            self._open(Level.DOWN)

    def _window(self) -> list[tuple[datetime, bool]]:
        return self.all[-(self.policy.detection_window or len(self.bad)) :]

    def _open(self, level: Level) -> None:
        if self.level is None:
            start = self.began if level is Level.DOWN else self.degraded[0]
            self.outages.append((start, None, level.value))
            self.opened_by_degradation = level is Level.DEGRADED
        else:
            self.outages[-1] = (self.outages[-1][0], None, level.value)
        self.level = level
        if level is Level.DOWN:
            self.attempts = []
            self._forget()

    def _forget(self) -> None:
        self.bad, self.good, self.degraded, self.all = [], [], [], []
        self.began, self.uncounted, self.asked = None, 0, False


class MachineAgainstReference(RuleBasedStateMachine):
    """One endpoint's life; what is recorded is all that a restart knows."""

    @initialize(policy=policies_of_all_kinds)
    def begin(self, policy: Policy) -> None:
        self.policy = policy
        self.reference = Reference(policy)
        self.state = NEW
        self.at = T0
        self.results: list[CheckResult] = []
        self.stored: dict[str, Outage] = {}
        self.flapping: list[tuple[datetime, bool]] = []
        self.last_change: StateChange | None = None
        self.ended_at: datetime | None = None

    @rule(status=st.sampled_from(Status), gap=GAPS)
    def check(self, status: Status, gap: int) -> None:
        self.at += timedelta(seconds=gap)
        self._receive(CheckResult("e", 1, status, self.at))

    @rule(gap=GAPS)
    def fail_until_asked(self, gap: int) -> None:
        """The way into an outage, which random checks seldom find."""
        for _ in range(self.policy.detection_threshold):
            self.check(Status.DOWN, min(gap, 180))

    @rule(status=st.sampled_from(Status))
    def manual_check(self, status: Status) -> None:
        self._receive(CheckResult("e", 1, status, self.at + timedelta(seconds=0.5), source=CheckSource.MANUAL))

    @precondition(lambda self: self.state.evidence_at)
    @rule(status=st.sampled_from([Status.UP, Status.DEGRADED, Status.DOWN]), seconds=st.integers(0, 300))
    def late_result(self, status: Status, seconds: int) -> None:
        """What is older than the newest evidence changes nothing, whenever it arrives."""
        late = CheckResult("e", 1, status, self.state.evidence_at - timedelta(seconds=seconds))
        assert machine.step(self.state, late, self.policy) == (self.state, ())

    @precondition(lambda self: self.state.verifying)
    @rule(confirms=st.booleans())
    def verdict(self, confirms: bool) -> None:
        self.at += timedelta(seconds=1)
        look = SecondLook(CheckResult("e", 1, Status.DOWN if confirms else Status.UP, self.at))
        self._take(machine.verified(self.state, look, self.policy))
        self.reference.verdict(confirms)

    @precondition(lambda self: self.state.outage)
    @rule()
    def resolve_by_hand(self) -> None:
        self.at += timedelta(seconds=1)
        outage = self.state.outage
        self.stored[outage.id] = replace(outage, resolved=True, resolved_at=max(self.at, outage.start_time))
        self.last_change = StateChange("by-hand", "e", State.DOWN, State.UNKNOWN, "resolved by hand", self.at)
        self.ended_at = self.at
        self.state = outside.closed_elsewhere(self.state, self.at)
        self.reference.close_by_hand(self.at)

    @rule()
    def restart(self) -> None:
        open_outage = next((outage for outage in self.stored.values() if not outage.resolved), None)
        recorded = Recorded(self.last_change, open_outage, self.flapping, self.ended_at)
        before = self.state
        self.state, caused = rebuild(self.results, self.policy, recorded)
        assert caused == ()
        assert (self.state.state, self.state.since) == (before.state, before.since)
        if before.outage is None:
            assert self.state.first_failure_at == before.first_failure_at

    @invariant()
    def outages_are_those_of_the_reference(self) -> None:
        if hasattr(self, "reference"):
            found = [(outage.start_time, outage.resolved_at, outage.severity) for outage in self.stored.values()]
            assert found == self.reference.outages

    @invariant()
    def a_verdict_is_sought_exactly_when_the_reference_asks_for_one(self) -> None:
        if hasattr(self, "reference"):
            assert self.state.verifying == self.reference.asked

    @invariant()
    def never_two_open_and_none_ends_before_it_starts(self) -> None:
        outages = list(getattr(self, "stored", {}).values())
        assert sum(not outage.resolved for outage in outages) <= 1
        assert all(outage.resolved_at is None or outage.resolved_at >= outage.start_time for outage in outages)
        assert len({outage.start_time for outage in outages}) == len(outages)

    def _receive(self, result: CheckResult) -> None:
        if result.source is CheckSource.SCHEDULE:
            self.results.append(result)
        self._take(machine.step(self.state, result, self.policy))
        self.reference.check(result)

    def _take(self, judged) -> None:
        self.state, transitions = judged
        for transition in transitions:
            change = transition.change
            if "flapping" in change.evidence:
                self.flapping.append((change.at, change.evidence["flapping"]))
                continue
            self.last_change = change
            if change.old is State.DOWN and change.new is not State.DOWN:
                self.ended_at = change.at
            if transition.outage:
                self.stored[transition.outage.id] = transition.outage


TestMachineAgainstReference = pytest.mark.deepable(MachineAgainstReference.TestCase)
