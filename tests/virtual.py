"""Virtual time: an event loop whose clock jumps to the next timer, so that a day of checks takes seconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar

from servmon.causes import Causes
from servmon.checks.attempts import ask
from servmon.checks.doubts import Doubts
from servmon.checks.lanes import Lanes
from servmon.checks.plan import Plan
from servmon.checks.pulse import Pulse
from servmon.checks.runner import Runner
from servmon.checks.scheduler import Scheduler
from servmon.checks.witnesses import Witnesses
from servmon.clock import utc
from servmon.detection.verdict import SecondLook
from servmon.metrics import Counters, Histogram
from servmon.model import CheckResult, Endpoint, Event, Outage, StateChange, Transition
from servmon.monitor import Monitor, Rules
from servmon.probes.base import Answer, Options, Target
from servmon.probes.network import Network
from servmon.probes.specification import Prepared
from servmon.sight import Sight
from servmon.tasks import cancel, spawn

START = 1_780_000_000.0


class VirtualSelector(selectors.DefaultSelector):
    """Real file descriptors first; where none is ready, waiting costs no time: the loop's clock jumps instead.

    What was sent over a real socket may be under way for so many seconds of ``grace``: a busy kernel delivers it later.
    """

    def __init__(self, grace: float) -> None:
        super().__init__()
        self.now = 1000.0
        self._grace = grace

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0) or (super().select(self._grace) if self._grace and timeout != 0 else [])
        if not ready:
            assert timeout is not None, "the virtual loop waits for nothing: every task is stuck"
            self.now += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, grace: float = 0.0) -> None:
        self.virtual = VirtualSelector(grace)
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.now


class VirtualClock:
    """Monotonic time is the loop's; wall time runs along with it and can be made to jump."""

    def __init__(self) -> None:
        self.jump = 0.0

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return START - 1000.0 + self.monotonic() + self.jump


def run_virtual(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


class ScriptedProbe:
    """Asks a Python function instead of a network: ``script(endpoint_id, now)`` answers, raises or never returns."""

    protocol: ClassVar[str] = "TCP"
    default_port: ClassVar[int | None] = None
    options: ClassVar[type[Options]] = Options
    takes_socket: ClassVar[bool] = True

    def __init__(self, script: Callable[[str, float], Awaitable[Answer]]) -> None:
        self.script = script

    async def check(self, target: Target, _options: Options, context: Any) -> Answer:
        context.doing = f"connecting to {target.host}"
        return await self.script(target.host, asyncio.get_running_loop().time())


class Recorder:
    """Takes the writer's place and keeps what it was given."""

    def __init__(self) -> None:
        self.results: list[CheckResult] = []
        self.changes: list[StateChange] = []
        self.outages: dict[str, Outage] = {}

    def only_outages(self) -> Recorder:
        """One that keeps no results, for months of them."""
        return _OutagesOnly()

    def put(self, result: CheckResult | None, transitions: Sequence[Transition]) -> None:
        if result is not None:
            self.results.append(result)
        for transition in transitions:
            self.changes.append(transition.change)
            if transition.outage:
                self.outages[transition.outage.id] = transition.outage


class _OutagesOnly(Recorder):
    def put(self, _result: CheckResult | None, transitions: Sequence[Transition]) -> None:
        for transition in transitions:
            if transition.outage:
                self.outages[transition.outage.id] = transition.outage


class World:
    """The real scheduler, runner, verifier's place and monitor over a scripted network, on virtual time."""

    def __init__(
        self,
        script: Callable[[str, float], Awaitable[Answer]],
        *,
        rules: Rules | None = None,
        cap: int = 5000,
        second_look: Callable[[Plan], Awaitable[CheckResult]] | None = None,
        witness_answers: Callable[[str], Awaitable[bool]] | None = None,
        probe: ScriptedProbe | None = None,
        options: Options | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.counters = Counters()
        self.events: list[Event] = []
        self.pulse = Pulse(
            counters=self.counters,
            clock=self.clock,
            set_back=lambda: self.sight.clock_set_back(),  # noqa: PLW0108 - comes last
        )
        self.witnesses = Witnesses(
            lambda: ["10.0.0.1"] if witness_answers else [],
            witness_answers or _nobody_answers,
            changed=lambda changed: self.sight.connection_changed(changed),  # noqa: PLW0108 - comes last
            clock=self.clock,
        )
        self._second_look = second_look or self._ask_once_more
        self.recorder = Recorder()
        self.late: list[tuple[str, float]] = []
        self.network = Network(clock=self.clock)
        asked = Prepared(probe or ScriptedProbe(script), Target("", ""), options or Options())
        self.monitor = Monitor(
            rules=rules or Rules(),
            writer=self.recorder,
            look_again=self._look_again,
            doubts=Doubts(self.pulse, self.witnesses),
            counters=self.counters,
            clock=self.clock,
            plan_of=lambda one: Plan(one, replace(asked, target=Target(one.url, one.id))),
        )
        self.lanes = Lanes(cap)
        self.runner = Runner(
            self.network,
            self.monitor,
            done=lambda slot, pace: self.scheduler.done(slot, pace),  # noqa: PLW0108 - the scheduler comes next
            lanes=self.lanes,
            counters=self.counters,
            clock=self.clock,
        )
        self.scheduler = Scheduler(
            self.runner.start,
            counters=self.counters,
            lateness=Histogram(),
            paused=self.monitor.is_paused,
            clock=self.clock,
        )
        self.monitor.ask_soon = self.scheduler.ask_soon
        self.causes = Causes(self.monitor, ask_now=self.scheduler.ask_now, clock=self.clock)
        self.monitor.verdicts.ancestry = self.causes
        self.sight = Sight(
            self.monitor,
            self.witnesses,
            tell=self.events.append,
            ask_soon=self.scheduler.ask_soon,
            counters=self.counters,
            clock=self.clock,
        )

    async def _look_again(self, plan: Plan) -> SecondLook:
        return SecondLook(await self._second_look(plan))

    async def _ask_once_more(self, plan: Plan) -> CheckResult:
        deadline = self.clock.monotonic() + plan.endpoint.timeout + 5
        return await ask(plan, self.network, deadline=deadline, retries=0, clock=self.clock)

    def watch(self, endpoints: Iterable[Endpoint], *, soon: bool = False) -> None:
        for endpoint in endpoints:
            self.monitor.watch(endpoint)
            self.scheduler.add(endpoint.id, endpoint.check_interval, soon=soon)

    async def run(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """For so many seconds, or until something holds, which is looked at every 50 ms."""
        started = [
            spawn(self.scheduler.run(), name="scheduler"),
            spawn(self.pulse.run(), name="pulse"),
            spawn(self.witnesses.run(), name="witnesses"),
            spawn(self.sight.follow_blindness(), name="blind endpoints"),
            spawn(self.causes.follow(), name="causes"),
        ]
        end = self.clock.monotonic() + seconds
        while until is not None and self.clock.monotonic() < end and not until():  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.05)
        await asyncio.sleep(0 if until is not None else seconds)
        await cancel(*started)
        await self.runner.stop()
        await self.monitor.stop()
        await self.witnesses.stop()

    def wall(self, monotonic: float) -> datetime:
        return utc(START - 1000.0 + monotonic)


def endpoint(endpoint_id: str, **fields: Any) -> Endpoint:
    return Endpoint(
        **{"id": endpoint_id, "name": endpoint_id, "url": f"tcp://{endpoint_id}:1", "protocol": "TCP"} | fields
    )


async def _nobody_answers(_address: str) -> bool:
    return False
