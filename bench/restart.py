"""`python -m bench.restart`: how long a start takes to know how every endpoint stands.

A private Postgres is filled with twenty minutes of results of many endpoints, a twentieth of which are in an outage,
flap or fail just now; then the state is rebuilt from it as a start does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from bench.daemon import scratch
from servmon.checks.doubts import Doubts
from servmon.checks.lanes import Lanes
from servmon.checks.pulse import Pulse
from servmon.checks.runner import Runner
from servmon.checks.scheduler import Scheduler
from servmon.checks.witnesses import Witnesses
from servmon.clock import SYSTEM_CLOCK, now
from servmon.detection.state import EndpointState
from servmon.detection.verdict import SecondLook
from servmon.metrics import Counters, Histogram
from servmon.model import CheckResult, Endpoint, State, Status, Transition
from servmon.monitor import Monitor, Rules
from servmon.probes.network import Network
from servmon.store import endpoints
from servmon.store.batch import write
from servmon.store.embedded import EmbeddedPostgres
from servmon.store.migrate import migrate
from servmon.store.pool import connect, open_pool
from servmon.watchlist import Watchlist

MINUTES = 20
TROUBLED = 20


class _Kept:
    """Stands for the writer while the past is made up."""

    def __init__(self) -> None:
        self.entries: list[tuple[CheckResult | None, tuple[Transition, ...]]] = []

    def put(self, result: CheckResult | None, transitions: tuple[Transition, ...]) -> None:
        self.entries.append((result, tuple(transitions)))


async def _never(_plan: object) -> SecondLook:
    raise AssertionError


def _monitor(writer: object, rules: Rules) -> tuple[Monitor, Scheduler, Runner]:
    counters = Counters()
    pulse, witnesses = Pulse(counters=counters), Witnesses(list, _never)
    monitor = Monitor(rules=rules, writer=writer, look_again=_never, doubts=Doubts(pulse, witnesses), counters=counters)
    scheduler = Scheduler(lambda _due: None, counters=counters, lateness=Histogram(), paused=monitor.is_paused)
    runner = Runner(Network(), monitor, done=scheduler.done, lanes=Lanes(100), counters=counters)
    return monitor, scheduler, runner


def _status(number: int, minute: int) -> Status:
    kind = number % TROUBLED
    if kind == 0:  # in an outage
        return Status.DOWN if minute > MINUTES // 2 else Status.UP
    if kind == 1:  # comes and goes
        return Status.DOWN if minute % 2 else Status.UP
    return Status.DOWN if kind == 2 and minute == MINUTES - 1 else Status.UP  # fails just now


def _past(known: list[Endpoint], began: datetime) -> Iterator[CheckResult]:
    for minute in range(MINUTES):
        for number, one in enumerate(known):
            at = began + timedelta(minutes=minute, seconds=number * 60 / len(known))
            yield CheckResult(one.id, one.key, _status(number, minute), at, 12.5)


async def _fill(dsn: str, number: int) -> None:
    wanted = [Endpoint(f"e{one}", f"e{one}", f"tcp://127.0.0.1:{1000 + one % 60000}", "TCP") for one in range(number)]
    async with await open_pool(dsn) as pool:
        await endpoints.provision(pool, "config:main", wanted)
        known = (await endpoints.changed_since(pool, 0)).endpoints
    kept = _Kept()
    monitor, *_ = _monitor(kept, Rules(verification_enabled=False))
    for one in known:
        monitor.watch(one)
    for result in _past(known, now() - timedelta(minutes=MINUTES)):
        monitor.receive(result)
    connection = await connect(dsn)
    for first in range(0, len(kept.entries), 5000):
        await write(connection, kept.entries[first : first + 5000], observer=1)
    await connection.execute("analyze")
    await connection.close()


async def _rebuild(dsn: str) -> tuple[float, float, list[EndpointState]]:
    async with await open_pool(dsn) as pool:
        monitor, scheduler, runner = _monitor(_Kept(), Rules())
        watchlist = Watchlist(pool, monitor=monitor, scheduler=scheduler, runner=runner)
        gc.collect()
        began = SYSTEM_CLOCK.monotonic()
        known = await watchlist.recollect()
        read = SYSTEM_CLOCK.monotonic()
        watchlist.load(known, _Kept())
        done = SYSTEM_CLOCK.monotonic()
        await monitor.stop()
        return read - began, done - read, [one.state for one in monitor.watched.values()]


async def measure(folder: Path, number: int, repetitions: int) -> None:
    """Fill, rebuild, and print what was found."""
    async with EmbeddedPostgres(folder) as dsn:
        await migrate(dsn)
        await _fill(dsn, number)
        for _ in range(repetitions):
            cpu = time.process_time()
            read, load, states = await _rebuild(dsn)
            used = time.process_time() - cpu
            down = sum(state.outage is not None for state in states)
            suspected = sum(state.state is State.SUSPECTED for state in states)
            print(
                f"{number} endpoints: read {read:.2f} s, rebuilt {load:.2f} s, together {read + load:.2f} s"
                f" ({used:.2f} s of our own CPU); {down} down, {suspected} suspected"
            )


def main() -> None:
    """Measure in a folder of its own."""
    parser = argparse.ArgumentParser(prog="bench.restart", description=__doc__)
    parser.add_argument("--endpoints", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=3)
    asked = parser.parse_args()
    with scratch() as folder:
        asyncio.run(measure(folder, asked.endpoints, asked.repetitions))


if __name__ == "__main__":
    main()
