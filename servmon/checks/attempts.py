"""One check: its attempts under one deadline, each exception turned into a finding."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

import structlog

from servmon.checks.every_address import ask_every_address
from servmon.checks.inverted import inverted
from servmon.checks.settings import RETRY_PAUSE_SECONDS
from servmon.clock import SYSTEM_CLOCK, Clock, utc
from servmon.errors import InvalidInputError
from servmon.model import NO_PHASES, OUR_FAILURES, CheckResult, CheckSource, Endpoint, FailureKind, Phases, Status
from servmon.probes.base import Answer, Options, ProbeFailed, Target, failure_from
from servmon.probes.network import Network, ProbeContext
from servmon.probes.route import ANY_ROUTE, ConnectingOptions
from servmon.probes.specification import Prepared, prepare
from servmon.probes.time_limit import TimeLimit

# Less than this is no fair chance for any target.
SHORTEST_ATTEMPT_SECONDS = 0.2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """An endpoint and its probe, ready to be asked; made once when the endpoint is loaded.

    ``address`` stands in for a look-up of its host.
    """

    endpoint: Endpoint
    prepared: Prepared
    address: str | None = None

    @classmethod
    def of(cls, endpoint: Endpoint) -> Plan:
        """The plan of ``endpoint``; one that can't be asked (its plug-in is gone, say) is UNKNOWN at every check."""
        try:
            return cls(endpoint, prepare(endpoint))
        except InvalidInputError as error:
            _log.error("endpoint cannot be checked", endpoint=endpoint.id, problem=str(error))
            return cls(endpoint, Prepared(_Unaskable(str(error)), Target(endpoint.url, ""), Options()))


class _Unaskable:
    """Stands in for the probe of an endpoint whose stored definition is not valid any more."""

    protocol: ClassVar[str] = ""
    default_port: ClassVar[int | None] = None
    options: ClassVar[type[Options]] = Options
    takes_socket: ClassVar[bool] = False

    def __init__(self, problem: str) -> None:
        self._problem = problem

    async def check(self, _target: Target, _options: Options, _context: ProbeContext) -> Answer:
        raise ProbeFailed(FailureKind.PROBE_ERROR, self._problem)


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
    pause: Callable[[], Awaitable[None]] = pause_before_retry,
    clock: Clock = SYSTEM_CLOCK,
) -> CheckResult:
    """Ask an endpoint once, with up to ``retries`` more attempts to the same address if it fails.

    ``deadline`` (monotonic seconds) bounds all attempts together. Never raises: what goes wrong is the result.
    """
    options = plan.prepared.options
    connecting = options if isinstance(options, ConnectingOptions) else None
    context = ProbeContext(network, deadline, ANY_ROUTE if connecting is None else connecting.route)
    every_address = connecting is not None and connecting.addresses == "all" and plan.address is None
    if plan.address is not None:
        context.pin(plan.prepared.target.host, plan.address)
    started_at = clock.wall()
    attempts = 0
    while True:
        attempts += 1
        outcome = await (_attempt_all(plan, context, clock) if every_address else _attempt(plan, context, clock))
        if options.inverted:
            outcome = inverted(outcome)
        if isinstance(outcome, Answer) or outcome.kind in OUR_FAILURES or attempts > retries:
            break
        if deadline - clock.monotonic() < RETRY_PAUSE_SECONDS + SHORTEST_ATTEMPT_SECONDS:
            break
        await pause()
        if deadline - clock.monotonic() < SHORTEST_ATTEMPT_SECONDS:
            break
    return _result(plan.endpoint, outcome, started_at, attempts, source)


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


async def _attempt_all(plan: Plan, context: ProbeContext, clock: Clock) -> Answer | ProbeFailed:
    context.attempt_seconds = min(plan.endpoint.timeout, context.deadline - clock.monotonic())
    return await ask_every_address(plan.prepared.target.host, context, lambda one: _attempt(plan, one, clock))


async def _attempt(plan: Plan, context: ProbeContext, clock: Clock) -> Answer | ProbeFailed:
    prepared = plan.prepared
    seconds = min(plan.endpoint.timeout, context.deadline - clock.monotonic())
    context.attempt_seconds = seconds
    context.doing = "starting"
    try:
        with TimeLimit(seconds) as context.attempt:
            return await prepared.probe.check(prepared.target, prepared.options, context)
    except ProbeFailed as error:
        failed = error
    except TimeoutError:
        failed = ProbeFailed(FailureKind.TIMEOUT, f"no answer within {seconds:.3g} s while {context.doing}")
    except OSError as error:
        failed = failure_from(error, context.doing)
    except Exception as error:  # noqa: BLE001 - one of the five places that may
        # One endpoint's machinery failing must touch no other endpoint.
        _log.exception("probe failed", endpoint=plan.endpoint.id, doing=context.doing)
        failed = ProbeFailed(FailureKind.PROBE_ERROR, f"the probe itself failed: {type(error).__name__}")
    return _about(failed, context)


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


def _result(
    endpoint: Endpoint, outcome: Answer | ProbeFailed, started_at: float, attempts: int, source: CheckSource
) -> CheckResult:
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
