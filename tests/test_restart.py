"""A restart in every state: what a new run makes of a real Postgres, on virtual time, against a run without a stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

import pytest

from servmon.checks.plan import Plan
from servmon.clock import SYSTEM_CLOCK, now
from servmon.model import CheckResult, Endpoint, FailureKind, Outage, Severity, State, Status, Transition
from servmon.monitor import Rules
from servmon.probes.base import Answer, ProbeFailed
from servmon.store import endpoints
from servmon.store.batch import write
from servmon.store.pool import connect, open_pool
from servmon.store.recollection import Recollection, from_postgres
from servmon.watchlist import KNOWN_AHEAD, REMEMBER_ENDED_WINDOWS, Watchlist
from tests.virtual import START, Recorder, World, endpoint, run_virtual

# All trouble is over by then, and every outage resolved.
END = 5400.0
# kill -9 loses what waited for its batch.
UNSTORED_SECONDS = 0.25


class Kept(Recorder):
    """Keeps what was put together, in its order, with the moment."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[float, CheckResult | None, tuple[Transition, ...]]] = []

    def put(self, result, transitions) -> None:
        super().put(result, transitions)
        self.entries.append((asyncio.get_running_loop().time(), result, tuple(transitions)))


def watched() -> list[Endpoint]:
    child = {"depends_on": (("router",),)}
    return [
        endpoint("dead"),
        endpoint("refuses", retries=0),
        endpoint("router"),
        endpoint("before", **child),
        endpoint("follows", **child),
        endpoint("stays", **child),
        endpoint("flaps", timeout=2, retries=0),
        endpoint("window", detection_window=5, retries=0),
        endpoint("slow", degraded_outage_after=3),
        endpoint("sometimes", retries=3),
        endpoint("refuted", retries=0),
        endpoint("fine"),
    ]


async def script(name: str, at: float) -> Answer:
    """What the network does; times are those of the loop.

    The first attempt of each check of "sometimes" falls into a half second that fails, the next one does not.
    """
    silent = {
        "dead": 2000 <= at < 4000,
        "router": 2000 <= at < 3000,
        "follows": 2000 <= at < 3010,
        "before": 1999 <= at < 3000,
        "stays": 2000 <= at < 3700,
        "flaps": 1800 <= at < 3600 and int((at - 1800) / 90) % 2 == 0,
    }
    if silent.get(name, False):
        await asyncio.Event().wait()
    refuses = {
        "refuses": 2010 <= at < 3500,
        "window": 2000 <= at < 3500 and int(at / 60) % 3 != 0,
        "refuted": 2000 <= at < 2400,
        "sometimes": 2000 <= at < 3000 and int(at * 2) % 2 == 1,
    }
    if refuses.get(name, False):
        raise ProbeFailed(FailureKind.REFUSED, "connection refused")
    await asyncio.sleep(0.02)
    return Answer(20.0, degraded="slow: 900 ms" if name == "slow" and 2000 <= at < 3000 else None)


def outside(work: Callable[[], Any]) -> Any:
    """Do real I/O in a loop of its own while virtual time stands still."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


class Found(NamedTuple):
    """An outage; times are those of the loop."""

    cause: str | None
    severity: Severity
    start: float | None
    declared: float | None
    over: float | None


@dataclass
class Life:
    """What one or more runs made of the same network; times are those of the loop."""

    entries: list[tuple[float, CheckResult | None, tuple[Transition, ...]]]
    jump: float
    stopped_at: float | None = None

    def moment(self, at: datetime | None) -> float | None:
        return None if at is None else round(at.timestamp() - self.jump - (START - 1000.0), 2)

    @property
    def outages(self) -> dict[str, list[Found]]:
        """Each endpoint's outages, in order."""
        last = {one.outage.id: one.outage for _, _, caused in self.entries for one in caused if one.outage}
        found: dict[str, list[Found]] = {}
        for one in last.values():
            times = map(self.moment, (one.start_time, one.declared_at, one.resolved_at))
            found.setdefault(one.endpoint_id, []).append(Found(one.caused_by, one.severity, *times))
        return found

    @property
    def steps(self) -> dict[str, list[tuple[State, State]]]:
        """Each endpoint's recorded transitions, in order; notes on an outage that goes on are none."""
        steps: dict[str, list[tuple[State, State]]] = {}
        for _, _, caused in self.entries:
            for one in caused:
                if one.change.old is one.change.new is State.DOWN:
                    continue
                steps.setdefault(one.change.endpoint_id, []).append((one.change.old, one.change.new))
        return steps


def a_world(jump: float) -> World:
    async def look(plan: Plan) -> CheckResult:
        await asyncio.sleep(2)
        if plan.endpoint.id == "refuted":
            return CheckResult("refuted", plan.endpoint.key, Status.UP, now(world.clock))
        return await world._ask_once_more(plan)

    world = World(script, rules=Rules(), second_look=look)
    world.clock.jump = jump
    world.recorder = world.monitor._writer = Kept()
    return world


def first_moment(holds: Callable[[World], bool]) -> float:
    """When it first is so that ``holds``: the same in every run."""

    async def main() -> float:
        world = a_world(0)
        world.watch(watched())
        await world.run(END - 1000, lambda: holds(world))
        return world.clock.monotonic()

    moment: float = run_virtual(main)
    assert moment < END - 300, "it never comes to that"
    return moment


@cache
def undisturbed() -> Life:
    async def main() -> Life:
        world = a_world(0)
        world.watch(watched())
        await world.run(END - 1000)
        return Life(world.recorder.entries, 0)

    return run_virtual(main)


def interrupted(database: str, stop_at: float, *, killed: bool = False, pause: float = 2.0) -> Life:
    """The life of a servmon that stops at that moment, orderly or killed, and goes on ``pause`` seconds later."""
    # The database knows the real time; whole minutes keep every phase.
    jump = 60.0 * round((SYSTEM_CLOCK.wall() - (START - 1000.0 + stop_at)) / 60)

    async def main() -> Life:
        world = a_world(jump)
        world.watch(outside(lambda: provisioned(database)))
        await world.run(stop_at - 1000)
        kept = [
            entry for entry in world.recorder.entries if entry[2] or not killed or entry[0] < stop_at - UNSTORED_SECONDS
        ]
        await asyncio.sleep(pause)
        second = a_world(jump)
        present = now(second.clock)
        known = outside(lambda: stored_and_read(database, kept, present))
        watchlist = Watchlist(
            None, monitor=second.monitor, scheduler=second.scheduler, runner=second.runner, clock=second.clock
        )
        watchlist.load(known, second.recorder)
        second.causes.restore()
        await second.run(END - second.clock.monotonic())
        return Life(kept + second.recorder.entries, jump, stop_at)

    return run_virtual(main)


async def provisioned(database: str) -> list[Endpoint]:
    async with await open_pool(database) as pool:
        return [await endpoints.insert(pool, one) for one in watched()]


async def stored_and_read(database: str, entries, at: datetime) -> Recollection:
    # Not through the writer, whose patience ends when the machine is busy with other tests.
    connection = await connect(database)
    await write(connection, [(result, caused) for _, result, caused in entries], observer=1)
    await connection.close()
    async with await open_pool(database) as pool:
        return await from_postgres(pool, at - REMEMBER_ENDED_WINDOWS, at + KNOWN_AHEAD)


def state(world: World, name: str):
    return world.monitor.watched[name].state


def caused(world: World, name: str) -> Outage | None:
    outage = state(world, name).outage
    return outage if outage and outage.caused_by else None


STATES: dict[str, Callable[[World], bool]] = {
    "up": lambda world: world.clock.monotonic() >= 1900,
    "suspected": lambda world: state(world, "dead").failures == 2,
    "verifying": lambda world: state(world, "dead").verifying,
    "refuted once": lambda world: any("run" in change.evidence for change in world.recorder.changes),
    "down": lambda world: state(world, "dead").outage is not None,
    "recovering": lambda world: state(world, "dead").good == 1,
    "waiting for its parent": lambda world: (
        state(world, "before").verifying and world.clock.monotonic() > 2000 and state(world, "router").in_series
    ),
    "cut off by its parent": lambda world: caused(world, "stays") is not None,
    "in grace after its parent": lambda world: "cause" in (state(world, "stays").outage or OUTAGE).evidence,
    "on its own after its parent": lambda world: any(
        change.endpoint_id == "stays" and change.evidence.get("caused_by", 0) is None
        for change in world.recorder.changes
    ),
    "flapping": lambda world: state(world, "flaps").recent.flapping,
    "counting M of N": lambda world: len(state(world, "window").marks) == 2,
    "M of N down": lambda world: state(world, "window").outage is not None,
    "degraded": lambda world: state(world, "slow").degraded == 2,
    "degraded outage": lambda world: state(world, "slow").outage is not None,
    "intermittent": lambda world: (
        state(world, "sometimes").state is State.DEGRADED and state(world, "sometimes").outage is None
    ),
}
OUTAGE = Outage("", "", Severity.MAJOR, "", datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC))


# What a check takes at most whose target is silent, and where the next one begins: at most so late after a start.
ONE_CHECK = 21.5 + 15
INTERVAL = 60


@pytest.mark.parametrize("kind", STATES)
def test_an_orderly_restart_in_any_state_loses_and_repeats_nothing_and_delays_no_more_than_the_check_under_way(
    database, kind
):
    life = interrupted(database, first_moment(STATES[kind]))
    assert life.steps == undisturbed().steps
    assert_no_later(life, ONE_CHECK)


@pytest.mark.parametrize("kind", STATES)
def test_after_kill_9_in_any_state_everything_is_found_at_most_one_check_later(database, kind):
    assert_no_later(interrupted(database, first_moment(STATES[kind]), killed=True), INTERVAL)


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stop_at", range(1990, 4210, 20))
def test_killed_at_any_moment_everything_is_found_at_most_one_check_later(database, stop_at):
    assert_no_later(interrupted(database, stop_at + 0.37, killed=True), INTERVAL)


def assert_no_later(life: Life, seconds: float) -> None:
    without = undisturbed().outages
    assert life.outages.keys() == without.keys()
    for name, outages in life.outages.items():
        assert [one[:2] for one in outages] == [one[:2] for one in without[name]], name
        for found, expected in zip(outages, without[name], strict=True):
            for at, at_best in zip(found[2:], expected[2:], strict=True):
                assert at_best - seconds <= at <= at_best + seconds, (name, found, expected)
