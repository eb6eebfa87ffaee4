"""The machine against a slow, obvious reference that looks at the whole history each time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servmon.detection.machine import step, verified
from servmon.detection.restart import Recorded, rebuild
from servmon.detection.state import NEW, EndpointState, Policy
from servmon.detection.verdict import SecondLook
from servmon.model import AVAILABLE, CheckResult, Outage, State, Status

T0 = datetime(2026, 11, 23, tzinfo=UTC)
INTERVAL = 60

checks = st.lists(
    st.tuples(st.sampled_from(Status), st.sampled_from([1, 15, 60, 179, 180, 181, 1000]), st.booleans()), max_size=60
)
policies = st.builds(
    Policy,
    check_interval=st.just(INTERVAL),
    retry_interval=st.just(15),
    detection_threshold=st.integers(1, 5),
    recovery_threshold=st.integers(1, 4),
    verify=st.booleans(),
)
# The reference knows failures in a row alone; that a restart changes nothing must hold for the other ways too.
policies_of_all_kinds = st.builds(
    replace,
    policies,
    detection_window=st.sampled_from([None, 5, 8]),
    degraded_outage_after=st.sampled_from([None, 1, 2, 3]),
)


def results_of(history) -> list[tuple[CheckResult, bool]]:
    """Results with, for each, whether a verification asked for after it would confirm."""
    at, results = T0, []
    for status, gap, confirms in history:
        at += timedelta(seconds=gap)
        results.append((CheckResult("e", 1, status, at), confirms))
    return results


def reference(results: list[tuple[CheckResult, bool]], policy: Policy) -> list[tuple[datetime, datetime | None]]:
    """(start, end) of every outage, by the words of the contract and nothing clever."""
    outages: list[tuple[datetime, datetime | None]] = []
    bad: list[datetime] = []
    good: list[datetime] = []
    uncounted = 0
    last: datetime | None = None
    evidence: list[CheckResult] = []
    flapping = False
    for result, confirms in results:
        if result.status is Status.UNKNOWN:
            continue
        if last and result.timestamp - last > timedelta(seconds=3 * INTERVAL):
            bad, good, uncounted = [], [], 0
        last = result.timestamp
        evidence.append(result)
        flapping = flaps(evidence, flapping)
        is_open = bool(outages) and outages[-1][1] is None
        if result.status in AVAILABLE:
            bad, uncounted = [], 0
            good = [*good, result.timestamp] if is_open else []
            if is_open and len(good) >= policy.recovery_threshold and not flapping:
                outages[-1] = (outages[-1][0], good[0])
                good = []
            continue
        good = []
        bad.append(result.timestamp)
        if is_open or len(bad) - uncounted < policy.detection_threshold:
            continue
        if policy.verify and not confirms:
            uncounted = len(bad) - (policy.detection_threshold - 1)
            continue
        outages.append((bad[0], None))
        bad, uncounted = [], 0
    return outages


def flaps(evidence: list[CheckResult], before: bool) -> bool:
    """More than 30 % of the twenty intervals past saw a change, or 25 % since it began."""
    now = evidence[-1].timestamp
    flips = [
        late.timestamp
        for early, late in pairwise(evidence)
        if (early.status in AVAILABLE) is not (late.status in AVAILABLE)
        and now - late.timestamp < timedelta(seconds=20 * INTERVAL)
    ]
    return len(flips) / 20 > 0.30 or (before and len(flips) / 20 >= 0.25)


def machine(results: list[tuple[CheckResult, bool]], policy: Policy, restart_after: int | None = None):
    state, stored, last_change, flapping, ended_at = NEW, {}, None, [], None
    for number, (result, confirms) in enumerate(results):
        if number == restart_after:
            open_outage = next((outage for outage in stored.values() if not outage.resolved), None)
            past = [past_result for past_result, _ in results[:number]]
            state, caused = rebuild(past, policy, Recorded(last_change, open_outage, flapping, ended_at))
            assert caused == ()
        state, transitions = step(state, result, policy)
        if state.verifying:
            status = Status.DOWN if confirms else Status.UP
            state, more = verified(state, SecondLook(CheckResult("e", 1, status, result.timestamp)), policy)
            transitions += more
        for transition in transitions:
            change = transition.change
            if "flapping" in change.evidence:
                flapping.append((change.at, change.evidence["flapping"]))
                continue
            last_change = change
            if change.old is State.DOWN:
                ended_at = change.at
            if transition.outage:
                stored[transition.outage.id] = transition.outage
        assert sum(not outage.resolved for outage in stored.values()) <= 1
    return list(stored.values())


def spans(outages: list[Outage]) -> list[tuple[datetime, datetime | None]]:
    return [(outage.start_time, outage.resolved_at) for outage in outages]


@pytest.mark.deepable
@given(checks, policies)
def test_outages_are_those_of_the_reference(history, policy):
    results = results_of(history)
    assert spans(machine(results, policy)) == reference(results, policy)


@pytest.mark.deepable
@given(checks, policies)
def test_unknown_results_never_count(history, policy):
    results = results_of(history)
    asked = [(result, confirms) for result, confirms in results if result.status is not Status.UNKNOWN]
    assert spans(machine(results, policy)) == spans(machine(asked, policy))


@pytest.mark.deepable
@given(checks, policies)
def test_outages_start_before_they_end_and_do_not_overlap(history, policy):
    outages = machine(results_of(history), policy)
    ends = T0
    for outage in outages:
        assert outage.start_time > ends or outage is outages[0]
        assert outage.resolved_at is None or outage.resolved_at > outage.start_time
        ends = outage.resolved_at or ends


@pytest.mark.deepable
@given(checks, policies_of_all_kinds, st.integers(0, 60))
def test_a_restart_anywhere_changes_no_outcome_where_no_verification_was_refuted(history, policy, restart_after):
    results = [(result, True) for result, _ in results_of(history)]
    assert spans(machine(results, policy, restart_after)) == spans(machine(results, policy))


attempts_and_packets = st.tuples(
    st.sampled_from([Status.UP] * 6 + list(Status)),
    st.sampled_from([1, 1, 1, 2]),
    st.sampled_from([None, {"address": "192.0.2.1"}, *({"packets_sent": n, "packets_received": n} for n in (1, 5))])
    | st.sampled_from([{"packets_sent": 5, "packets_received": got} for got in (0, 3, 4)]),
)


@pytest.mark.deepable
@given(
    st.lists(st.tuples(attempts_and_packets, st.sampled_from([1, 1, 5, 6])), max_size=20),
    policies_of_all_kinds,
    st.sampled_from([0, 10, 20]),
)
def test_the_short_way_for_what_is_simply_up_leads_where_the_long_one_does(history, policy, loss_percent):
    policy = replace(policy, degraded_loss_percent=loss_percent)
    short = long = NEW
    repeated = chain.from_iterable([one] * times for one, times in history)
    for number, (status, attempts, details) in enumerate(repeated):
        at = T0 + number * timedelta(seconds=INTERVAL)
        result = CheckResult("e", 1, status, at, attempts=attempts, details=details)
        short, told = step(short, result, policy, ids=str)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(EndpointState, "is_steady", False)
            long, told_the_long_way = step(long, result, policy, ids=str)
        assert (short, told) == (long, told_the_long_way)
