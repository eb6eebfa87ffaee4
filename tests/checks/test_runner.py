"""Attempts, deadline, caps and lanes: the real scheduler, runner and monitor on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from servmon.checks import plan
from servmon.checks.scheduler import Due
from servmon.model import CheckSource, FailureKind, Status
from servmon.monitor import Rules
from servmon.probes.base import Answer, Options, ProbeFailed
from tests.virtual import ScriptedProbe, World, endpoint, run_virtual

SILENCE = asyncio.Event  # waiting for a fresh one never ends


async def answers(_endpoint_id: str, _now: float) -> Answer:
    await asyncio.sleep(0.02)
    return Answer(20.0)


async def refuses(_endpoint_id: str, _now: float) -> Answer:
    raise ProbeFailed(FailureKind.REFUSED, "connection refused")


async def is_silent(_endpoint_id: str, _now: float) -> Answer:
    await SILENCE().wait()
    raise AssertionError


def failing_times(times: int):
    calls = 0

    async def script(_endpoint_id: str, _now: float) -> Answer:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise ProbeFailed(FailureKind.REFUSED, "connection refused")
        return Answer(7.0)

    return script


def world_of(script, *endpoints, seconds: float, **more) -> World:
    async def main():
        world = World(script, **more)
        world.watch(endpoints)
        await world.run(seconds)
        return world

    return run_virtual(main)


def test_a_check_that_succeeds_on_its_third_attempt_is_up_with_three_attempts():
    world = world_of(failing_times(2), endpoint("a"), seconds=60)
    (result,) = world.recorder.results
    assert (result.status, result.attempts, result.response_time) == (Status.UP, 3, 7.0)


def test_retries_belong_to_the_first_failing_check_of_a_series():
    world = world_of(refuses, endpoint("a", retries=3), seconds=400, rules=Rules(verification_enabled=False))
    assert [result.attempts for result in world.recorder.results] == [4] + [1] * (len(world.recorder.results) - 1)


def test_the_timestamp_is_the_start_of_the_first_attempt():
    world = world_of(failing_times(2), endpoint("a"), seconds=60)
    due = world.scheduler._slots["a"].due - 60
    assert abs(world.recorder.results[0].timestamp.timestamp() - world.wall(due).timestamp()) < 0.03


def test_silence_ends_at_the_timeout_and_says_so():
    world = world_of(is_silent, endpoint("a", retries=0), seconds=70)
    result = world.recorder.results[0]
    assert result.status is Status.DOWN
    assert result.failure_kind is FailureKind.TIMEOUT
    assert result.error_message == "no answer within 5 s while connecting to a"
    assert result.response_time is None


@pytest.mark.parametrize(("interval", "attempts"), [(60, 4), (20, 3), (10, 2), (5, 1)])
def test_attempts_that_do_not_fit_are_not_made(interval, attempts):
    """0.8 × interval bounds them all: 5 s each, half a second apart, none under 0.2 s."""
    world = world_of(is_silent, endpoint("a", check_interval=interval), seconds=interval + 0.9 * interval)
    assert world.recorder.results[0].attempts == attempts
    assert world.counters.checks_skipped == 0


def test_a_failure_of_ours_is_unknown_and_is_not_tried_again():
    async def out_of_descriptors(_endpoint_id, _now):
        raise OSError(24, "Too many open files")

    world = world_of(out_of_descriptors, endpoint("a"), seconds=60)
    (result,) = world.recorder.results
    assert (result.status, result.failure_kind, result.attempts) == (Status.UNKNOWN, FailureKind.LOCAL, 1)
    assert "Too many open files" in (result.error_message or "")


def test_a_broken_probe_makes_its_endpoint_unknown_and_touches_no_other():
    async def script(endpoint_id, now):
        if endpoint_id == "broken":
            raise ZeroDivisionError
        return await answers(endpoint_id, now)

    world = world_of(script, endpoint("broken"), endpoint("fine"), seconds=600)
    by_id = {result.endpoint_id: result for result in world.recorder.results}
    assert by_id["broken"].status is Status.UNKNOWN
    assert by_id["broken"].failure_kind is FailureKind.PROBE_ERROR
    assert by_id["fine"].status is Status.UP
    assert world.counters.probe_errors == 10


def test_slower_than_its_threshold_is_degraded():
    world = world_of(answers, endpoint("a", degraded_threshold_ms=10), seconds=60)
    (result,) = world.recorder.results
    assert result.status is Status.DEGRADED
    assert result.error_message == "slow: 20 ms, degraded above 10 ms"
    assert result.failure_kind is None


def test_a_check_by_a_person_has_its_retries_and_is_marked_manual():
    async def main():
        world = World(refuses)
        world.watch([endpoint("a", retries=2)])
        result = await world.runner.check_now(endpoint("a", retries=2))
        assert (result.attempts, result.source) == (3, CheckSource.MANUAL)
        assert world.recorder.results == []

    with pytest.MonkeyPatch.context() as patch:
        scripted = ScriptedProbe(refuses)
        real = plan.prepare
        patch.setattr(plan, "prepare", lambda one: plan.Prepared(scripted, real(one).target, real(one).options))
        run_virtual(main)


def test_dead_endpoints_leave_half_of_the_cap_to_the_living():
    async def script(endpoint_id, now):
        dead = endpoint_id.startswith("dead") and now > 1020
        return await (is_silent if dead else answers)(endpoint_id, now)

    dead = [endpoint(f"dead-{number}", check_interval=10, retries=0) for number in range(200)]
    fine = [endpoint(f"fine-{number}", check_interval=10) for number in range(100)]
    world = world_of(script, *dead, *fine, seconds=220, cap=40)
    late = [result for result in world.recorder.results if result.endpoint_id.startswith("fine")]
    # In the one round in which the dead fall silent they still count as healthy; afterwards no slot is lost.
    settled = [result for result in late if result.timestamp > world.wall(1050)]
    assert len(settled) == pytest.approx(100 * 17, abs=100)
    assert all(result.status is Status.UP for result in world.recorder.results if result.endpoint_id.startswith("fine"))
    assert world.counters.checks_skipped > 0
    assert world.lanes.taken == 0  # all places were given back


def test_what_cannot_start_in_time_is_skipped_and_counted_and_never_down():
    async def script(_endpoint_id, _now):
        await asyncio.sleep(4)
        return Answer(4000.0)

    endpoints = [endpoint(f"slow-{number}", check_interval=10) for number in range(100)]
    world = world_of(script, *endpoints, seconds=200, cap=16)
    assert {result.status for result in world.recorder.results} == {Status.UP}
    assert world.counters.checks_skipped > 0
    slots = 100 * 20
    assert len(world.recorder.results) + world.counters.checks_skipped == pytest.approx(slots, abs=120)


# A first attempt without a task


class Beginner(ScriptedProbe):
    """Has ``begin`` too: ``script(told)`` gets whom to tell, and gives what ends the attempt."""

    def __init__(self, begin, check=None):
        super().__init__(check)
        self.tries = 0
        self._begin = begin

    def begin(self, target, _options, context, told):
        self.tries += 1
        context.doing = f"connecting to {target.host}"
        return self._begin(told)


def begun(begin, *, seconds=70, check=None, options=None, **fields) -> tuple[World, Beginner]:
    probe = Beginner(begin, check)

    async def main():
        world = World(check, probe=probe, options=options)
        world.watch([endpoint("a", **fields)])
        await world.run(seconds)
        return world

    return run_virtual(main), probe


def later(conclude, seconds=0.02):
    def begin(told):
        return asyncio.get_running_loop().call_later(seconds, told, conclude).cancel

    return begin


def raising(error):
    def conclude():
        raise error

    return conclude


@pytest.mark.parametrize("how", [later(lambda: Answer(20.0)), lambda told: told(lambda: Answer(20.0)) or asyncio.Event])
def test_one_good_answer_needs_no_task(how):
    tasks = set()

    def begin(told):
        tasks.update(task.get_name() for task in asyncio.all_tasks())
        return how(told)

    world, _ = begun(begin, seconds=190)
    assert [(one.status, one.attempts, one.response_time) for one in world.recorder.results] == [
        (Status.UP, 1, 20.0)
    ] * 3
    assert "check a" not in tasks
    assert len(world.runner) == 0


def test_an_attempt_without_a_task_that_fails_is_the_first_of_all_its_retries():
    world, probe = begun(later(raising(ProbeFailed(FailureKind.REFUSED, "connection refused"))), retries=2)
    result = world.recorder.results[0]
    assert (result.status, result.attempts, result.failure_kind) == (Status.DOWN, 3, FailureKind.REFUSED)
    assert probe.tries >= 3


def test_an_attempt_that_only_a_task_can_make_is_made_by_one():
    world, probe = begun(lambda _told: None, check=answers)
    assert world.recorder.results[0].status is Status.UP
    assert probe.tries


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (ConnectionRefusedError(111, "refused"), FailureKind.REFUSED, Status.DOWN),
        (TimeoutError(), FailureKind.TIMEOUT, Status.DOWN),
        (ZeroDivisionError(), FailureKind.PROBE_ERROR, Status.UNKNOWN),
    ],
)
@pytest.mark.parametrize("at_once", [False, True])
def test_what_goes_wrong_without_a_task_is_told_as_with_one(error, kind, status, at_once):
    begin = (lambda _told: raising(error)()) if at_once else later(raising(error))
    world, _ = begun(begin, retries=0)
    result = world.recorder.results[0]
    assert (result.failure_kind, result.status, result.attempts) == (kind, status, 1)


def test_who_must_not_answer_is_judged_so_without_a_task_too():
    world, _ = begun(later(lambda: Answer(20.0)), retries=0, options=Options(inverted=True))
    assert world.recorder.results[0].failure_kind is FailureKind.CONTENT


def test_a_stop_ends_what_was_begun_and_tells_nobody():
    given_up = []

    world, _ = begun(lambda _told: lambda: given_up.append(True))
    assert given_up == [True]
    assert not world.recorder.results
    assert len(world.runner) == 0


def test_before_a_stop_what_ends_soon_is_waited_for_and_nothing_more_is_begun():
    asked = []

    async def script(endpoint_id: str, _now: float) -> Answer:
        asked.append(endpoint_id)
        await (asyncio.sleep(0.5) if endpoint_id == "quick" else SILENCE().wait())
        return Answer(500.0)

    async def main():
        world = World(script, cap=4)  # of which two are for those who are not known to be up
        world.watch([endpoint("quick"), endpoint("silent"), endpoint("waits")])
        at = world.clock.monotonic()
        for slot in world.scheduler._slots.values():
            world.runner.start(Due(slot, at, at + 60))
        await asyncio.sleep(0.1)
        began = world.clock.monotonic()
        await world.runner.settle(1.0)
        assert 1.0 <= world.clock.monotonic() - began < 1.1
        assert [(one.endpoint_id, one.status) for one in world.recorder.results] == [("quick", Status.UP)]
        assert (asked, len(world.runner)) == (["quick", "silent"], 1)
        await world.runner.stop()
        began = world.clock.monotonic()
        await world.runner.settle(1.0)
        assert world.clock.monotonic() == began  # nothing is under way, so nothing is waited for
        assert len(world.recorder.results) == 1

    run_virtual(main)
