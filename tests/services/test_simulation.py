"""What other settings would have declared, held against what was."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from servmon.detection.state import Policy
from servmon.errors import InvalidInputError
from servmon.model import CheckResult, CheckSource, Outage, Severity, Status
from servmon.probes.base import Answer
from servmon.services.simulation import read_options, simulate, tried
from servmon.watched import Rules
from tests.virtual import World, endpoint, run_virtual

START = datetime(2026, 11, 1, tzinfo=UTC)
POLICY = Policy(check_interval=60, retry_interval=15)


def results(pattern: str, *, seconds: float = 60) -> list[CheckResult]:
    """One check a minute: ``.`` is good, ``x`` failed, ``?`` unknown, ``m`` a failed one by hand."""
    words = {".": Status.UP, "x": Status.DOWN, "?": Status.UNKNOWN, "m": Status.DOWN}
    return [
        CheckResult(
            "a",
            0,
            words[char],
            START + timedelta(seconds=seconds * number),
            source=CheckSource.MANUAL if char == "m" else CheckSource.SCHEDULE,
        )
        for number, char in enumerate(pattern)
    ]


def real(began: int, declared: int, ended: int | None) -> Outage:
    """A real outage, in minutes."""
    at = [START + timedelta(minutes=minute) for minute in (began, declared)]
    over = START + timedelta(minutes=ended) if ended is not None else None
    return Outage(f"o{began}", "a", Severity.MAJOR, "", *at, resolved=over is not None, resolved_at=over)


def test_a_higher_threshold_declares_later_and_misses_short_ones():
    checks = results("....xxxx........xxxxxxxxxxx....")
    outages = [real(4, 6, 8), real(16, 18, 27)]
    as_it_is = simulate(checks, POLICY, outages)
    assert [one.later_seconds for one in as_it_is.declared] == [0, 0]
    assert (as_it_is.false, as_it_is.missed) == ((), ())
    patient = simulate(checks, tried(POLICY, {"detection_threshold": 5}), outages)
    assert [(one.real.id, one.later_seconds) for one in patient.declared] == [("o16", 120)]
    assert [one.id for one in patient.missed] == ["o4"]


def test_a_lower_threshold_declares_earlier_and_what_never_was():
    checks = results("....xx?x....m.xxxxxxx....")
    found = simulate(checks, tried(POLICY, {"detection_threshold": 2}), [real(14, 16, 21)])
    assert [(one.real and one.real.id, one.later_seconds) for one in found.declared] == [(None, None), ("o14", -60)]
    assert len(found.false) == 1
    assert found.checks == len(checks) - 1


def test_a_second_look_that_is_not_on_record_is_taken_to_agree_with_the_next_check():
    found = simulate(results("....xxx...."), POLICY, [])
    assert found.declared == ()
    assert (found.second_looks, found.looks_not_on_record) == (1, 1)
    certain = simulate(results("....xxx...."), POLICY, [real(4, 6, 7)])
    assert len(certain.declared) == 1
    assert certain.looks_not_on_record == 0
    without = simulate(results("....xxx...."), tried(POLICY, {"verification_enabled": False}), [])
    assert len(without.false) == 1


def test_in_a_window_nothing_is_declared():
    found = simulate(results("....xxxxxx....."), POLICY, [], muted=lambda at: at < START + timedelta(minutes=10))
    assert found.declared == ()


def test_a_period_without_results_has_no_outages():
    found = simulate([], POLICY, [])
    assert (found.checks, found.first, found.declared, found.missed) == (0, None, (), ())


def test_the_settings_in_force_declare_what_the_real_parts_declared():
    """Results of the real scheduler and monitor, replayed."""

    async def script(_name: str, now: float) -> Answer:
        if (now // 900) % 3 == 2 or (now % 1300) < 30:
            await asyncio.Event().wait()
        return Answer(20.0)

    async def main() -> World:
        world = World(script)
        world.watch([endpoint("a")])
        await world.run(20_000)
        return world

    world = run_virtual(main)
    outages = list(world.recorder.outages.values())
    assert len(outages) >= 5
    policy = Rules().policy(endpoint("a"))
    found = simulate(world.recorder.results, policy, outages)
    assert [one.real.id for one in found.declared] == [one.id for one in outages]
    assert [one.outage.start_time for one in found.declared] == [one.start_time for one in outages]
    assert all(-10 <= one.later_seconds <= 0 for one in found.declared)
    assert (found.false, found.missed) == ((), ())
    impatient = simulate(world.recorder.results, replace(policy, detection_threshold=1), outages)
    assert len(impatient.declared) >= len(outages)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["detection_threshold=0"], ["detection_threshold"]),
        (["detection_threshold=x", "recovery_threshold=1.5"], ["detection_threshold", "recovery_threshold"]),
        (["timeout=5", "threshold"], ["timeout", "threshold"]),
    ],
)
def test_what_cannot_be_tried_is_said(words, wrong):
    with pytest.raises(InvalidInputError) as caught:
        read_options(words)
    assert [problem.field for problem in caught.value.problems] == wrong


def test_a_window_is_never_shorter_than_its_threshold():
    options = read_options(["detection_threshold=5", "detection_window=3", "verification_enabled=false"])
    policy = tried(POLICY, options)
    assert (policy.detection_threshold, policy.detection_window, policy.verify) == (5, 5, False)
