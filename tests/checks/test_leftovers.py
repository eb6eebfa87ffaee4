"""No check leaves anything behind, neither for good nor for the collector of garbage, however it ends.

The same checks are made round after round with the collector switched off; after each as many objects are there as
after the one before. A daemon that left some at each check would grow until a collection, and stand still for it.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

from servmon.checks import attempts
from servmon.checks.lanes import Lanes
from servmon.checks.plan import Plan
from servmon.checks.runner import Runner
from servmon.checks.scheduler import Due, Slot
from servmon.checks.verification import Verifier
from servmon.clock import SYSTEM_CLOCK
from servmon.metrics import Counters
from servmon.model import CheckResult, FailureKind, Status
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from tests.fix_servers import settled
from tests.fix_targets import Case, Targets, cases

PROTOCOLS = ("HTTP", "HTTPS", "TCP", "UDP", "DNS", "ICMP", "EXEC")
# So often each case is asked in a round. Of one object that is left by each check of one case so many are left.
EACH = 9
FEW = EACH - 1
TIMEOUT_SECONDS = 0.25
# A program is to have ended by then, where it ends.
PROGRAM_SECONDS = 1.5


class Judge:
    """Watches ``plans``, judges nothing, and keeps the last result of each."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.plans = {one.endpoint.id: one for one in plans}
        self.last: dict[str, CheckResult] = {}

    plan = property(lambda self: self.plans.get)

    def is_healthy(self, _endpoint_id):
        return True

    def in_series(self, _endpoint_id):
        return False

    def pace(self, _endpoint_id):
        return None

    def is_void(self, _started_at):
        return False

    def receive(self, result):
        self.last[result.endpoint_id] = result

    def judgement_failed(self, _result, error):
        raise error


@contextmanager
def without_collector() -> Iterator[None]:
    """What is there at the beginning is not counted, and nothing is collected until the end."""
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def objects(collected: bool) -> Counter[str]:
    """What this process holds beyond what was frozen, by type."""
    if collected:
        gc.collect()
    return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())


async def asks(runner: Runner, judge: Judge) -> None:
    """Ask every endpoint so many times, all at once, and wait for the results."""
    slots = [Slot(endpoint_id, 60.0, 0.5) for endpoint_id in judge.plans for _ in range(EACH)]
    now = SYSTEM_CLOCK.monotonic()
    for slot in slots:
        runner.start(Due(slot, now, now + 60))
    del slots
    await settled(lambda: not len(runner))


def plans_of(found: Sequence[Case], retries: int, seconds: float = TIMEOUT_SECONDS) -> list[Plan]:
    common = {"timeout": seconds, "retries": retries}
    tables = [{"id": f"e{n}", **common, **fields} for n, (_, fields, _) in enumerate(found)]
    return [Plan.of(parse_endpoint(table, EndpointDefaults(), source="config:main")) for table in tables]


async def nothing_is_left(ask: Callable[[], Awaitable[None]], *, collected: bool = False) -> None:
    """Each time that ``ask`` makes its checks as much is there afterwards as the time before.

    ``collected`` lets the collector take what only it finds.
    """
    objects(collected)  # counting has caches, too
    with without_collector():
        await ask()  # what is kept for good is made
        await ask()
        before = objects(collected)
        await ask()
        for _ in range(40):  # what is about to end may do so
            if (objects(collected) - before).total() <= FEW:
                break
            await asyncio.sleep(0.05)
        more = objects(collected) - before
    assert more.total() <= FEW, f"{EACH} checks each have left {more.most_common(12)}"


def on_the_daemons_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_checks_leave_nothing_behind(protocol, targets: Targets, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(targets.ca_file))
    monkeypatch.setattr(attempts, "RETRY_PAUSE_SECONDS", 0.01)
    found = cases(targets)[protocol]
    judge = Judge(plans_of(found, 0, PROGRAM_SECONDS) if protocol == "EXEC" else plans_of(found, 1))

    async def main() -> None:
        async with Network(nameservers=[targets.nameserver]) as network:
            runner = Runner(network, judge, done=lambda *_: None, lanes=Lanes(5000), counters=Counters())
            await nothing_is_left(lambda: asks(runner, judge))

    on_the_daemons_loop(main)
    kinds = {name: (judge.last[f"e{n}"].failure_kind, kind) for n, (name, _, kind) in enumerate(found)}
    # Where the machine is busy, time may be up before a case has come to its end.
    assert {name: both for name, both in kinds.items() if both[0] not in (both[1], FailureKind.TIMEOUT)} == {}


def test_second_looks_leave_nothing_behind(targets: Targets, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(targets.ca_file))
    ends = ("refused", "reset", "silent", "no name", "stranger")
    plans = plans_of([one for found in cases(targets).values() for one in found if one[0] in ends], 0)

    async def main() -> None:
        async with Network(nameservers=[targets.nameserver]) as network:
            verifier = Verifier(counters=Counters(), fresh_network=network.fresh)
            await nothing_is_left(lambda: _all(map(verifier.look_again, plans)), collected=True)

    on_the_daemons_loop(main)


async def _all(looks) -> None:
    await asyncio.gather(*looks)


def test_checks_of_a_black_hole_leave_nothing_behind(netns):
    urls = ("http://10.7.0.9/", "https://10.7.0.9/", "tcp://10.7.0.9:25", "udp://10.7.0.9:9", "dns://10.7.0.9/a.test")
    silent: list[Case] = [(url, {"url": url}, None) for url in urls]
    silent += [
        ("dialogue", {"url": "tcp://10.7.0.9:25", "preset": "smtp"}, None),
        ("DNS over TCP", {"url": "dns://10.7.0.9/a.test", "transport": "tcp"}, None),
        ("ICMP", {"url": "icmp://10.7.0.9", "packets": 2, "packet_interval_ms": 10}, None),
    ]
    judge = Judge(plans_of(silent, 0))

    async def main() -> None:
        async with Network() as network:
            runner = Runner(network, judge, done=lambda *_: None, lanes=Lanes(5000), counters=Counters())
            await nothing_is_left(lambda: asks(runner, judge))

    netns.run_async(main, uvloop.new_event_loop)
    assert {one.status for one in judge.last.values()} == {Status.DOWN}
