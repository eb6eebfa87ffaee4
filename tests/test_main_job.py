"""The main job at the seed's defaults, on virtual time: one endpoint dies and comes back."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from servmon.detection import maintenance
from servmon.model import CheckResult, MaintenanceMode, MaintenanceWindow, State, Status
from servmon.monitor import Rules
from servmon.probes.base import Answer
from tests.virtual import World, endpoint, run_virtual

INTERVAL, TIMEOUT, RETRIES, THRESHOLD, RETRY_INTERVAL = 60, 5, 3, 3, 15
FIRST_CHECK = (1 + RETRIES) * TIMEOUT + RETRIES * 0.5
# The published formula: wait for the next check, its attempts, the rest of the threshold, verification.
DETECTION_DELAY = INTERVAL + FIRST_CHECK + (THRESHOLD - 1) * (RETRY_INTERVAL + TIMEOUT) + (TIMEOUT + 5)


def silent_between(start: float, end: float):
    async def script(_endpoint_id: str, now: float) -> Answer:
        if start <= now < end:
            await asyncio.Event().wait()
        await asyncio.sleep(0.02)
        return Answer(20.0)

    return script


def outage_of(name: str, **rules) -> tuple[World, float]:
    async def main():
        world = World(silent_between(2000, 4000), rules=Rules(**rules))
        world.watch([endpoint(name)])
        await world.run(5000)
        return world

    return run_virtual(main), 2000


@pytest.mark.parametrize("name", [f"endpoint-{number}" for number in range(12)])
def test_an_outage_is_declared_within_the_published_formula_whatever_the_phase(name):
    world, died = outage_of(name)
    (outage,) = world.recorder.outages.values()
    delay = (outage.declared_at - world.wall(died)).total_seconds()
    assert 0 < delay <= DETECTION_DELAY


def test_its_start_is_the_first_failure_and_its_end_the_first_good_check():
    world, died = outage_of("a")
    (outage,) = world.recorder.outages.values()
    down = [result for result in world.recorder.results if result.status is Status.DOWN]
    assert outage.start_time == down[0].timestamp
    good = next(result for result in world.recorder.results if result.timestamp > down[-1].timestamp)
    assert outage.resolved_at == good.timestamp
    assert outage.start_time - world.wall(died) <= timedelta(seconds=INTERVAL)


def test_every_transition_is_recorded_once_and_in_order():
    world, _ = outage_of("a")
    states = [(change.old, change.new) for change in world.recorder.changes]
    assert states == [
        (State.UNKNOWN, State.UP),
        (State.UP, State.SUSPECTED),
        (State.SUSPECTED, State.DOWN),
        (State.DOWN, State.UP),
    ]


def test_a_single_lost_answer_is_no_outage_and_costs_one_more_attempt():
    asked = 0

    async def script(_endpoint_id: str, _now: float) -> Answer:
        nonlocal asked
        asked += 1
        if asked == 5:
            await asyncio.Event().wait()
        return Answer(20.0)

    async def main():
        world = World(script)
        world.watch([endpoint("a")])
        await world.run(1200)
        return world

    world = run_virtual(main)
    assert {result.status for result in world.recorder.results} == {Status.UP}
    assert [result.attempts for result in world.recorder.results].count(2) == 1
    assert not world.recorder.outages


def test_a_verification_that_succeeds_declares_nothing_and_is_counted():
    async def refute(plan):
        return CheckResult(plan.endpoint.id, 0, Status.UP, world_now())

    def world_now():
        return current.wall(asyncio.get_running_loop().time())

    async def main():
        nonlocal current
        current = World(silent_between(2000, 2100), second_look=refute)
        current.watch([endpoint("a")])
        await current.run(3000)

    current: World
    current = None  # type: ignore[assignment]
    run_virtual(main)
    assert not current.recorder.outages
    assert current.counters.verifications_refuted >= 1


def test_in_a_mute_window_nothing_is_declared_and_everything_is_measured():
    world = with_window(MaintenanceMode.MUTE)
    assert not world.recorder.outages
    assert any(result.status is Status.DOWN for result in world.recorder.results)


def test_in_a_pause_window_nothing_is_checked():
    world = with_window(MaintenanceMode.PAUSE)
    start, end = world.wall(1900), world.wall(4100)
    assert not [result for result in world.recorder.results if start <= result.timestamp < end]
    assert [result for result in world.recorder.results if result.timestamp >= end]


def with_window(mode: MaintenanceMode) -> World:
    async def main():
        world = World(silent_between(2000, 4000))
        world.watch([endpoint("a")])
        window = MaintenanceWindow("w", "card swap", world.wall(1900), world.wall(4100), ("a",), mode)
        world.monitor.set_windows(maintenance.by_endpoint([window], [endpoint("a")], world.wall(0), world.wall(9000)))
        await world.run(5000)
        return world

    return run_virtual(main)


def test_half_of_twelve_thousand_endpoints_falling_silent_delays_no_healthy_one():
    """Six of the twelve thousand stand for themselves in `make test-deep`; here 1,200 under a tenth of the cap."""
    world = half_falls_silent(1200, cap=500, seconds=600)
    assert world.counters.checks_skipped == 0


@pytest.mark.deep
@pytest.mark.timeout(600)
def test_half_of_all_twelve_thousand_falling_silent_at_the_defaults():
    world = half_falls_silent(12_000, cap=5000, seconds=900)
    assert world.counters.checks_skipped == 0
    assert world.counters.outages_declared == 6000


def half_falls_silent(number: int, *, cap: int, seconds: float) -> World:
    """Checks that the healthy half's lateness stays within 1 s at p99."""

    async def script(endpoint_id: str, now: float) -> Answer:
        if now >= 1200 and endpoint_id.startswith("dead"):
            await asyncio.Event().wait()
        return Answer(1.0)

    async def main():
        world = World(script, cap=cap)
        names = [f"dead-{n}" for n in range(number // 2)] + [f"fine-{n}" for n in range(number // 2)]
        world.watch(endpoint(name) for name in names)
        await world.run(seconds)
        return world

    world = run_virtual(main)
    late = healthy_lateness(world)
    assert late[int(len(late) * 0.99)] <= 1.0
    assert all(result.status is Status.UP for result in world.recorder.results if result.endpoint_id[:4] == "fine")
    return world


def healthy_lateness(world: World) -> list[float]:
    """How far each healthy check began from its own phase, in seconds, sorted."""
    phases: dict[str, float] = {}
    late: list[float] = []
    for result in world.recorder.results:
        if result.endpoint_id.startswith("fine"):
            slot = world.scheduler._slots[result.endpoint_id]
            phases.setdefault(result.endpoint_id, slot.fraction * slot.interval)
            late.append((result.timestamp.timestamp() - phases[result.endpoint_id]) % slot.interval)
    return sorted(late)
