"""One check: its attempts under one deadline, each exception turned into a finding."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from servmon.checks.every_address import Outcome, ask_every_address
from servmon.checks.inverted import inverted
from servmon.checks.plan import Plan
from servmon.checks.settings import RETRY_PAUSE_SECONDS
from servmon.clock import SYSTEM_CLOCK, Clock, utc
from servmon.model import NO_PHASES, OUR_FAILURES, CheckResult, CheckSource, Endpoint, FailureKind, Phases, Status
from servmon.probes.base import Answer, Conclude, GiveUp, ProbeFailed, failure_from
from servmon.probes.network import Network, ProbeContext
from servmon.probes.time_limit import TimeLimit

# Less than this is no fair chance for any target.
SHORTEST_ATTEMPT_SECONDS = 0.2

_log = structlog.get_logger(__name__)


async def pause_before_retry() -> None:
    """Wait between two attempts of one check."""
    await asyncio.sleep(RETRY_PAUSE_SECONDS)


async def ask(
    plan: Plan,
    network: Network,
    *,
    deadline: float,
    retries: int,
    source: CheckSource = CheckSource.SCHEDULE,
    clock: Clock = SYSTEM_CLOCK,
) -> CheckResult:
    """Ask an endpoint once, with up to ``retries`` more attempts; see ``Attempts``."""
    return await Attempts(plan, network, deadline=deadline, source=source, clock=clock).make(retries)


async def ask_by_hand(endpoint: Endpoint, network: Network, *, clock: Clock = SYSTEM_CLOCK) -> CheckResult:
    """A person's check, outside any schedule, with all its retries; whoever asked stores it."""
    seconds = (1 + endpoint.retries) * (endpoint.timeout + RETRY_PAUSE_SECONDS)
    return await ask(
        Plan.of(endpoint),
        network,
        deadline=clock.monotonic() + seconds,
        retries=endpoint.retries,
        source=CheckSource.MANUAL,
        clock=clock,
    )


class Attempts:
    """The attempts of one check, all to the same address. ``deadline`` (monotonic seconds) bounds them together.

    Never raises: what goes wrong is the outcome.
    """

    __slots__ = ("_clock", "_context", "_give_up", "_made", "_plan", "_source", "_started_at", "_told")

    def __init__(
        self,
        plan: Plan,
        network: Network,
        *,
        deadline: float,
        source: CheckSource = CheckSource.SCHEDULE,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._plan = plan
        self._clock = clock
        self._source = source
        self._context = ProbeContext(network, deadline, plan.route)
        if plan.address is not None:
            self._context.pin(plan.prepared.target.host, plan.address)
        self._started_at = clock.wall()
        self._made = 0
        self._told: Callable[[Outcome], None] = _tell_nobody
        self._give_up: GiveUp | None = None

    def begin(self, told: Callable[[Outcome], None]) -> bool:
        """Make an attempt without a task, where that can be: ``told`` hears what came of it, maybe at once."""
        begin, prepared, context = self._plan.begin, self._plan.prepared, self._context
        if begin is None:
            return False
        self._told = told
        self._set_out(context)
        try:
            give_up = begin(prepared.target, prepared.options, context, self._conclude)
        except Exception as error:  # noqa: BLE001 - part of one check, one of the five places that may
            self._tell(self._failed(error, context))
            return True
        if give_up is None:
            self._told = _tell_nobody
        elif self._told is not _tell_nobody:  # else it has ended already
            self._give_up = give_up
        return give_up is not None

    def give_up(self) -> None:
        """End the attempt that was begun, if one was: nobody will be told."""
        self._told = _tell_nobody
        if self._give_up is not None:
            self._give_up()

    async def make(
        self, retries: int, pause: Callable[[], Awaitable[None]] = pause_before_retry, first: Outcome | None = None
    ) -> CheckResult:
        """Make the attempts, after the ``first`` if that was begun, up to ``retries`` of them where it failed."""
        outcome = first if first is not None else await self._attempt()
        while not self._is_final(outcome, retries):
            await pause()
            if self.left() < SHORTEST_ATTEMPT_SECONDS:
                break
            outcome = await self._attempt()
        return self.result(outcome)

    def result(self, outcome: Outcome) -> CheckResult:
        """The result of the check whose last attempt had this ``outcome``."""
        return _result(self._plan.endpoint, outcome, self._started_at, self._made, self._source)

    def left(self) -> float:
        """Seconds until the deadline."""
        return self._context.deadline - self._clock.monotonic()

    def _conclude(self, conclude: Conclude) -> None:
        outcome: Outcome
        try:
            outcome = conclude()
        except Exception as error:  # noqa: BLE001 - part of one check, one of the five places that may
            outcome = self._failed(error, self._context)
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        # Who is told holds us as well: without this each check would wait for the collector of garbage.
        told, self._told, self._give_up = self._told, _tell_nobody, None
        self._made += 1
        told(self._turned(outcome))

    def _is_final(self, outcome: Outcome, retries: int) -> bool:
        if isinstance(outcome, Answer) or outcome.kind in OUR_FAILURES or self._made > retries:
            return True
        return self.left() < RETRY_PAUSE_SECONDS + SHORTEST_ATTEMPT_SECONDS

    async def _attempt(self) -> Outcome:
        if self._plan.begin is not None:
            ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            if self.begin(lambda outcome: None if ended.done() else ended.set_result(outcome)):
                try:
                    return await ended
                finally:
                    self.give_up()
        self._made += 1
        return self._turned(await (self._ask_all() if self._plan.every_address else self._ask(self._context)))

    async def _ask_all(self) -> Outcome:
        self._set_out(self._context)
        return await ask_every_address(self._plan.prepared.target.host, self._context, self._ask)

    async def _ask(self, context: ProbeContext) -> Outcome:
        prepared = self._plan.prepared
        self._set_out(context)
        try:
            with TimeLimit(context.attempt_seconds, context.network.deadlines) as context.attempt:
                return await prepared.probe.check(prepared.target, prepared.options, context)
        except Exception as error:  # noqa: BLE001 - one of the five places that may
            return self._failed(error, context)

    def _set_out(self, context: ProbeContext) -> None:
        context.attempt_seconds = min(self._plan.endpoint.timeout, context.deadline - self._clock.monotonic())
        context.doing = "starting"

    def _turned(self, outcome: Outcome) -> Outcome:
        return inverted(outcome) if self._plan.prepared.options.inverted else outcome

    def _failed(self, error: Exception, context: ProbeContext) -> ProbeFailed:
        """What an attempt found that ended with ``error``. One endpoint's machinery failing must touch no other's."""
        if isinstance(error, ProbeFailed):
            failed = error
        elif isinstance(error, TimeoutError):
            words = f"no answer within {context.attempt_seconds:.3g} s while {context.doing}"
            failed = ProbeFailed(FailureKind.TIMEOUT, words)
        elif isinstance(error, OSError):
            failed = failure_from(error, context.doing)
        else:
            _log.error("probe failed", endpoint=self._plan.endpoint.id, doing=context.doing, exc_info=error)
            failed = ProbeFailed(FailureKind.PROBE_ERROR, f"the probe itself failed: {type(error).__name__}")
        _let_go(error)
        return _about(failed, context)


def _tell_nobody(_outcome: Outcome) -> None:
    """Takes the place of who does not wait any more."""


def _let_go(error: BaseException | None) -> None:
    """Part an error, and those it came from, from where they were raised: it is a finding from here on.

    What stands there may hold it, as a future does, and would be held by it until the collector of garbage comes.
    """
    while error is not None:
        earlier = error.__context__
        error.__traceback__ = error.__context__ = error.__cause__ = None
        error = earlier


def _about(failed: ProbeFailed, context: ProbeContext) -> ProbeFailed:
    """The failure with whom it is about, which is worth knowing above all where nothing came."""
    if failed.details is None and context.address is not None:
        failed.details = {"address": context.address}
    if failed.phases is NO_PHASES and context.so_far is not None:
        failed.phases = context.so_far()
    elif failed.phases is NO_PHASES and context.dns_ms is not None:
        failed.phases = Phases(dns_ms=context.dns_ms)
    context.so_far = None
    return failed


def _result(endpoint: Endpoint, outcome: Outcome, started_at: float, attempts: int, source: CheckSource) -> CheckResult:
    if isinstance(outcome, ProbeFailed):
        return CheckResult(
            endpoint_id=endpoint.id,
            endpoint_key=endpoint.key,
            status=Status.UNKNOWN if outcome.kind in OUR_FAILURES else Status.DOWN,
            timestamp=utc(started_at),
            response_time=outcome.response_ms,
            attempts=attempts,
            failure_kind=outcome.kind,
            error_message=outcome.message,
            source=source,
            phases=outcome.phases,
            details=outcome.details,
        )
    degraded = outcome.degraded or _slow(endpoint, outcome.response_ms)
    return CheckResult(
        endpoint_id=endpoint.id,
        endpoint_key=endpoint.key,
        status=Status.DEGRADED if degraded else Status.UP,
        timestamp=utc(started_at),
        response_time=outcome.response_ms,
        attempts=attempts,
        error_message=degraded,
        source=source,
        phases=outcome.phases,
        details=outcome.details,
    )


def _slow(endpoint: Endpoint, response_ms: float | None) -> str | None:
    threshold = endpoint.degraded_threshold_ms
    if threshold is None or response_ms is None or response_ms <= threshold:
        return None
    return f"slow: {response_ms:.0f} ms, degraded above {threshold:g} ms"
