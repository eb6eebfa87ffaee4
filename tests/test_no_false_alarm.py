"""What must never become an outage, and what must: the real scheduler, runner, monitor and machine on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from servmon.model import CheckResult, CheckSource, EventKind, FailureKind, Severity, State, Status
from servmon.monitor import Rules
from servmon.probes.base import Answer, ProbeFailed
from tests.virtual import World, endpoint, run_virtual

Script = Callable[[str, float], Awaitable[Answer]]


async def answers(_endpoint_id: str, _now: float) -> Answer:
    await asyncio.sleep(0.02)
    return Answer(20.0)


async def is_silent(_endpoint_id: str, _now: float) -> Answer:
    await asyncio.Event().wait()
    raise AssertionError


def dead(when: Callable[[str, float], bool]) -> Script:
    async def script(endpoint_id: str, now: float) -> Answer:
        return await (is_silent if when(endpoint_id, now) else answers)(endpoint_id, now)

    return script


def witness(answers_at: Callable[[float], bool]) -> Callable[[str], Awaitable[bool]]:
    async def ask(_address: str) -> bool:
        if answers_at(asyncio.get_running_loop().time()):
            return True
        await asyncio.sleep(2)
        return False

    return ask


def world_of(script: Script, *endpoints, seconds: float, during=None, **more) -> World:
    async def main():
        world = World(script, **more)
        world.watch(endpoints)
        disturbance = asyncio.ensure_future(during(world)) if during else None  # noqa: TID251 - of the test's own
        await world.run(seconds)
        if disturbance:
            await disturbance
        return world

    return run_virtual(main)


def five_hundred(**fields):
    return [endpoint(f"e-{number}", **fields) for number in range(500)]


def stall(seconds: float):
    """The process stands still, as a blocked loop or SIGSTOP makes it: time passes and nothing runs."""

    async def happen(world: World) -> None:
        await asyncio.sleep(100)
        asyncio.get_running_loop().virtual.now += seconds  # type: ignore[attr-defined]

    return happen


async def takes_seconds(_endpoint_id: str, _now: float) -> Answer:
    await asyncio.sleep(3)
    return Answer(3000.0)


@pytest.mark.parametrize("seconds", [5, 40], ids=["loop stalled 5 s", "process stopped 40 s"])
def test_a_stall_with_500_checks_in_flight_declares_nothing_and_keeps_every_phase(seconds):
    # All answers are on their way for 3 s, with 4 s of patience: the stall makes every check in flight look too slow.
    endpoints = five_hundred(check_interval=10, timeout=4, retries=0)
    rules = Rules(detection_threshold=1, verification_enabled=False)
    world = world_of(takes_seconds, *endpoints, seconds=300, during=stall(seconds), rules=rules)
    assert world.recorder.outages == {}
    assert {result.status for result in world.recorder.results} == {Status.UP}
    assert world.counters.results_void > 50
    late = [result for result in world.recorder.results if result.timestamp > world.wall(1180)]
    assert late
    for result in late:
        slot = world.scheduler._slots[result.endpoint_id]
        off = (result.timestamp.timestamp() - slot.fraction * slot.interval) % slot.interval
        assert min(off, slot.interval - off) < 0.05


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_jump_of_the_wall_clock_declares_nothing_and_checks_go_on_counting(seconds):
    async def jump(world: World) -> None:
        await asyncio.sleep(1000)
        world.clock.jump = seconds

    script = dead(lambda endpoint_id, now: endpoint_id == "dead" and now > 2500)
    world = world_of(script, endpoint("dead"), endpoint("fine"), seconds=2000, during=jump)
    (outage,) = world.recorder.outages.values()
    assert outage.endpoint_id == "dead"
    assert (outage.declared_at - world.wall(2500 + seconds)).total_seconds() < 131.5


def test_our_own_cable_pulled_declares_nothing_and_is_one_event():
    script = dead(lambda _endpoint_id, now: 2000 <= now < 3000)
    world = world_of(
        script,
        *five_hundred(),
        seconds=3000,
        witness_answers=witness(lambda now: not 2000 <= now < 3000),
    )
    assert world.recorder.outages == {}
    assert [event.kind for event in world.events] == [EventKind.ISOLATED, EventKind.CONNECTED]
    assert world.events[0].severity is Severity.CRITICAL
    cut = [one for one in world.recorder.results if world.wall(2010) < one.timestamp < world.wall(2970)]
    assert {one.failure_kind for one in cut} == {FailureKind.ISOLATED}
    assert {one.status for one in cut} == {Status.UNKNOWN}
    assert {watched.state.state for watched in world.monitor.watched.values()} == {State.UP}


def test_on_return_everybody_is_asked_again_within_seconds():
    script = dead(lambda _endpoint_id, now: 2000 <= now < 3001)
    world = world_of(
        script,
        *five_hundred(check_interval=600),
        seconds=3000,
        witness_answers=witness(lambda now: not 2000 <= now < 3001),
    )
    back = [event.at for event in world.events if event.kind is EventKind.CONNECTED]
    doubtful = {one.endpoint_id for one in world.recorder.results if one.failure_kind is FailureKind.ISOLATED}
    again = {
        one.endpoint_id
        for one in world.recorder.results
        if one.status is Status.UP and timedelta(seconds=-30) < one.timestamp - back[0] <= timedelta(seconds=6)
    }
    assert doubtful
    assert doubtful <= again


def test_with_a_threshold_of_one_the_witnesses_are_asked_before_anything_is_declared():
    async def refused_at_once(_endpoint_id: str, now: float) -> Answer:
        if 2000 <= now < 2600:
            raise ProbeFailed(FailureKind.UNREACHABLE, "network unreachable")
        return Answer(1.0)

    world = world_of(
        refused_at_once,
        *five_hundred(retries=0),
        seconds=2500,
        rules=Rules(detection_threshold=1),
        witness_answers=witness(lambda now: not 2000 <= now < 2600),
    )
    assert world.recorder.outages == {}


def test_upstream_cut_while_the_gateway_answers_is_an_outage_of_each():
    script = dead(lambda _endpoint_id, now: now >= 2000)
    endpoints = [endpoint(f"e-{number}", site="pop") for number in range(30)]
    world = world_of(script, *endpoints, seconds=1400, witness_answers=witness(lambda _now: True))
    assert len(world.recorder.outages) == 30
    assert world.events == []


def test_an_outage_open_when_we_become_isolated_stays_open_and_ends_by_itself():
    script = dead(lambda endpoint_id, now: (endpoint_id == "dead" and 1500 <= now < 3500) or 2000 <= now < 3000)
    world = world_of(
        script,
        endpoint("dead"),
        endpoint("fine"),
        seconds=3500,
        witness_answers=witness(lambda now: not 2000 <= now < 3000),
    )
    (outage,) = world.recorder.outages.values()
    assert outage.endpoint_id == "dead"
    assert world.wall(3500) <= outage.resolved_at <= world.wall(3560)


def test_a_witness_that_never_answered_does_not_count():
    script = dead(lambda _endpoint_id, now: now >= 2000)
    world = world_of(script, endpoint("a"), seconds=1400, witness_answers=witness(lambda _now: False))
    assert len(world.recorder.outages) == 1


def test_a_slow_resolver_of_ours_is_no_outage_but_blindness_is_said():
    async def cannot_resolve(_endpoint_id: str, now: float) -> Answer:
        if 2000 <= now < 3000:
            raise ProbeFailed(FailureKind.LOCAL, "our own name resolution failed")
        return Answer(1.0)

    world = world_of(cannot_resolve, endpoint("a"), endpoint("b"), seconds=2500)
    assert world.recorder.outages == {}
    assert {event.kind for event in world.events} == {EventKind.BLIND, EventKind.SEEING}
    said = [name for event in world.events if event.kind is EventKind.BLIND for name in event.details["endpoint_ids"]]
    assert sorted(said) == ["a", "b"]
    assert ("up", "unknown") in [(change.old.value, change.new.value) for change in world.recorder.changes]
    assert {watched.state.state for watched in world.monitor.watched.values()} == {State.UP}


def test_an_endpoint_that_goes_up_and_down_every_90_s_is_one_outage_and_two_notices():
    script = dead(lambda _endpoint_id, now: 2000 <= now < 9200 and int((now - 2000) / 90) % 2 == 0)
    world = world_of(script, endpoint("a", timeout=2, retries=0), seconds=10_000)
    notices = [change for change in world.recorder.changes if "flapping" in change.evidence]
    assert [change.evidence["flapping"] for change in notices] == [True, False]
    flapped = [one for one in world.recorder.outages.values() if one.declared_at > notices[0].at]
    assert len(flapped) <= 1
    assert all(outage.resolved for outage in world.recorder.outages.values())


def test_an_endpoint_that_needs_its_retries_too_often_is_intermittent():
    asked = 0

    async def every_second_attempt(_endpoint_id: str, _now: float) -> Answer:
        nonlocal asked
        asked += 1
        if asked > 20 and asked % 2:
            raise ProbeFailed(FailureKind.RESET, "connection reset")
        return Answer(1.0)

    world = world_of(every_second_attempt, endpoint("a"), seconds=3000)
    assert {one.status for one in world.recorder.results} == {Status.UP}
    assert world.monitor.watched["a"].state.state is State.DEGRADED
    assert "of the last 20 attempts failed" in world.recorder.changes[-1].reason
    assert not world.recorder.outages


def test_the_machine_failing_for_one_endpoint_makes_it_unknown_and_touches_no_other():
    world = world_with_a_broken_machine()
    kinds = {one.endpoint_id: (one.status, one.failure_kind) for one in world.recorder.results}
    assert kinds["broken"] == (Status.UNKNOWN, FailureKind.PROBE_ERROR)
    assert kinds["fine"] == (Status.UP, None)
    assert world.counters.probe_errors == len([one for one in world.recorder.results if one.endpoint_id == "broken"])


def world_with_a_broken_machine() -> World:
    async def main():
        world = World(answers)
        world.watch([endpoint("broken"), endpoint("fine")])
        state = world.monitor.watched["broken"].state
        world.monitor.watched["broken"].state = type(state)(evidence_at="not a time")  # type: ignore[arg-type]
        await world.run(300)
        return world

    return run_virtual(main)


def test_a_manual_check_clicked_three_times_on_a_dead_endpoint_is_no_outage():
    async def main():
        world = World(is_silent, rules=Rules(detection_threshold=3))
        world.watch([endpoint("a", check_interval=3600, timeout=1, retries=0)])
        for second in range(3):
            manual = CheckResult("a", 0, Status.DOWN, world.wall(1001.0 + second), source=CheckSource.MANUAL)
            world.monitor.receive(manual)
        return world

    world = run_virtual(main)
    assert world.monitor.watched["a"].state.failures == 0
    assert world.recorder.changes == []


def test_a_manual_resolve_while_it_is_still_down_is_a_new_outage_only_after_as_many_failures_again():
    resolved_at = 3000.0

    async def resolve(world: World) -> None:
        await asyncio.sleep(resolved_at - 1000)
        outage = world.monitor.watched["dead"].state.outage
        assert outage is not None
        world.monitor.outage_closed("dead", outage.id, world.wall(resolved_at))

    script = dead(lambda _endpoint_id, now: 2000 <= now < 5000)
    world = world_of(script, endpoint("dead"), seconds=5000, during=resolve)
    first, second = world.recorder.outages.values()
    assert first.start_time < world.wall(resolved_at) <= second.start_time
    since = [
        one.timestamp
        for one in world.recorder.results
        if one.status is Status.DOWN and world.wall(resolved_at) <= one.timestamp < second.declared_at
    ]
    assert second.start_time == since[0]
    assert len(since) == 3
    assert second.resolved


def test_while_we_lag_for_a_minute_an_outage_is_declared_as_unverified():
    async def lag(world: World) -> None:
        await asyncio.sleep(1000)
        for _ in range(60):
            await asyncio.sleep(1.5)
            asyncio.get_running_loop().virtual.now += 3  # type: ignore[attr-defined]

    async def refuses(_endpoint_id: str, now: float) -> Answer:
        if now > 1990:
            raise ProbeFailed(FailureKind.REFUSED, "connection refused")
        return Answer(1.0)

    async def slow_look(plan):
        await asyncio.sleep(4)
        current = asyncio.get_running_loop().time()
        return CheckResult(
            plan.endpoint.id, 0, Status.DOWN, worlds[0].wall(current), error_message="connection refused"
        )

    worlds: list[World] = []

    async def main():
        world = World(refuses, second_look=slow_look)
        worlds.append(world)
        world.watch([endpoint("a", check_interval=10, timeout=2, retries=0)])
        disturbance = asyncio.ensure_future(lag(world))  # noqa: TID251 - of the test's own
        await world.run(1400)
        await disturbance
        return world

    world = run_virtual(main)
    (outage,) = world.recorder.outages.values()
    assert outage.evidence["verification"]["method"] == "unverified"
    assert "unverified" in outage.description
