"""The machine step by step against a slow, obvious reference: checks, verdicts, people and restarts in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from servmon.detection import machine
from servmon.detection.restart import Recorded, rebuild
from servmon.detection.state import NEW, Policy
from servmon.detection.verdict import SecondLook
from servmon.model import AVAILABLE, CheckResult, CheckSource, Outage, State, StateChange, Status
from tests.detection.test_machine_model import INTERVAL, flaps, policies

T0 = datetime(2026, 11, 23, tzinfo=UTC)
GAPS = st.sampled_from([1, 15, 60, 179, 180, 181, 1000])


@dataclass
class Reference:
    """What the contract says, with everything that happened in lists."""

    policy: Policy
    outages: list[tuple[datetime, datetime | None]] = field(default_factory=list)
    bad: list[datetime] = field(default_factory=list)
    good: list[datetime] = field(default_factory=list)
    evidence: list[CheckResult] = field(default_factory=list)
    # Failures that a refuted verdict took out of the count.
    uncounted: int = 0
    asked: bool = False
    flapping: bool = False

    @property
    def is_open(self) -> bool:
        return bool(self.outages) and self.outages[-1][1] is None

    def check(self, result: CheckResult) -> None:
        if result.source is CheckSource.MANUAL or result.status is Status.UNKNOWN:
            return
        if self.evidence and result.timestamp <= self.evidence[-1].timestamp:
            return
        if self.evidence and result.timestamp - self.evidence[-1].timestamp > timedelta(seconds=3 * INTERVAL):
            self._forget()
        self.evidence.append(result)
        self.flapping = flaps(self.evidence, self.flapping)
        if result.status in AVAILABLE:
            self._good(result.timestamp)
        else:
            self._bad(result.timestamp)

    def verdict(self, confirms: bool) -> None:
        self.asked = False
        if confirms:
            self._open()
        else:
            self.uncounted = len(self.bad) - (self.policy.detection_threshold - 1)

    def close(self, at: datetime) -> None:
        self.outages[-1] = (self.outages[-1][0], max(at, self.outages[-1][0]))
        self._forget()

    def _good(self, at: datetime) -> None:
        self.bad, self.uncounted, self.asked = [], 0, False
        if not self.is_open:
            return
        self.good.append(at)
        if len(self.good) >= self.policy.recovery_threshold and not self.flapping:
            self.outages[-1] = (self.outages[-1][0], self.good[0])
            self.good = []

    def _bad(self, at: datetime) -> None:
        self.good = []
        self.bad.append(at)
        if self.is_open or self.asked or len(self.bad) - self.uncounted < self.policy.detection_threshold:
            return
        if self.policy.verify:
            self.asked = True
        else:
            self._open()

    def _open(self) -> None:
        self.outages.append((self.bad[0], None))
        self._forget()

    def _forget(self) -> None:
        self.bad, self.good, self.uncounted, self.asked = [], [], 0, False


class MachineAgainstReference(RuleBasedStateMachine):
    """One endpoint's life; what is recorded is all that a restart knows."""

    @initialize(policy=policies)
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
        self.stored[outage.id] = machine.replace(outage, resolved=True, resolved_at=max(self.at, outage.start_time))
        self.last_change = StateChange("by-hand", "e", State.DOWN, State.UNKNOWN, "resolved by hand", self.at)
        self.ended_at = self.at
        self.state = machine.closed_elsewhere(self.state, self.at)
        self.reference.close(self.at)

    @rule()
    def restart(self) -> None:
        open_outage = next((outage for outage in self.stored.values() if not outage.resolved), None)
        recorded = Recorded(self.last_change, open_outage, self.flapping, self.ended_at)
        self.state, caused = rebuild(self.results, self.policy, recorded)
        assert caused == ()

    @invariant()
    def outages_are_those_of_the_reference(self) -> None:
        if hasattr(self, "reference"):
            found = [(outage.start_time, outage.resolved_at) for outage in self.stored.values()]
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
