"""The one join: takes each check result through detection, storage and the live view."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import structlog

from servmon import log
from servmon.checks.attempts import Plan
from servmon.checks.doubts import Doubts
from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.detection import machine, maintenance
from servmon.detection.state import NEW, EndpointState, Policy
from servmon.detection.verdict import Method, SecondLook
from servmon.metrics import Counters
from servmon.model import (
    CheckResult,
    CurrentStatus,
    Endpoint,
    FailureKind,
    MaintenanceMode,
    Occurrence,
    State,
    Status,
    Transition,
)
from servmon.store.rows import status_id
from servmon.tasks import cancel, spawn

_log = structlog.get_logger(__name__)

# After so long of being late ourselves, an outage is declared without a second look that could be trusted.
LONGEST_DOUBT_SECONDS = 60.0


class Writer(Protocol):
    """Where results and what they caused are stored; never blocks."""

    def put(self, result: CheckResult | None, transitions: Sequence[Transition]) -> None:
        """Queue a result and its transitions to be stored together."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings every endpoint is judged by, where it does not override them. Intervals are seconds."""

    retry_interval: int = 15
    detection_threshold: int = 3
    recovery_threshold: int = 2
    verification_enabled: bool = True

    def policy(self, endpoint: Endpoint) -> Policy:
        """How ``endpoint`` is judged; its ``retry_interval`` is never above its interval."""
        return Policy(
            check_interval=endpoint.check_interval,
            retry_interval=min(endpoint.retry_interval or self.retry_interval, endpoint.check_interval),
            detection_threshold=endpoint.detection_threshold or self.detection_threshold,
            recovery_threshold=endpoint.recovery_threshold or self.recovery_threshold,
            severity=endpoint.severity,
            verify=self.verification_enabled,
            detection_window=self._window(endpoint),
            degraded_outage_after=endpoint.degraded_outage_after,
            degraded_loss_percent=endpoint.options.get("degraded_loss_percent", 20),
        )

    def _window(self, endpoint: Endpoint) -> int | None:
        if endpoint.detection_window is None:
            return None
        return max(endpoint.detection_window, endpoint.detection_threshold or self.detection_threshold)


@dataclass(slots=True)
class Watched:
    """One endpoint under watch: how it is asked, how it is judged, and what is known of it.

    ``blind`` says that nothing was learned of it for so long that it was told.
    """

    plan: Plan
    policy: Policy
    watched_at: datetime
    state: EndpointState = NEW
    windows: Sequence[Occurrence] = ()
    blind: bool = False


class Monitor:
    """Holds the state of every active endpoint and decides what each result means.

    ``look_again`` makes the verifying second look at an endpoint; ``doubts`` say whether a failure may be
    our own.
    """

    def __init__(
        self,
        *,
        rules: Rules,
        writer: Writer,
        look_again: Callable[[Plan], Awaitable[SecondLook]],
        doubts: Doubts,
        counters: Counters,
        clock: Clock = SYSTEM_CLOCK,
        plan_of: Callable[[Endpoint], Plan] = Plan.of,
    ) -> None:
        self.watched: dict[str, Watched] = {}
        # This daemon's number in what it stores.
        self.observer = 1
        self._rules = rules
        self._writer = writer
        self._look_again = look_again
        self._pulse = doubts.pulse
        self._witnesses = doubts.witnesses
        self._plan_of = plan_of
        self._counters = counters
        # Brings checks forward; the scheduler's, once there is one.
        self.ask_soon: Callable[[Iterable[str]], None] = lambda _endpoint_ids: None
        self._clock = clock
        self._verifications: set[asyncio.Task[None]] = set()

    def receive(self, result: CheckResult) -> None:
        """Take one check result through detection, storage and the live view, in this order."""
        watched = self.watched.get(result.endpoint_id)
        if watched is None:
            return
        if result.status is Status.DOWN and self._witnesses.isolated(watched.plan.prepared.target.host):
            result = _as_isolated(result)
        before = watched.state
        muted = bool(watched.windows) and maintenance.mode_at(watched.windows, result.timestamp) is not None
        watched.state, transitions = machine.step(before, result, watched.policy, muted=muted)
        self._writer.put(result, transitions)
        if transitions:
            self._announce(transitions, self._check_id(result))
        if log.shows_checks():
            self._show(result)
        if watched.state.verifying and not before.verifying:
            self._verify(watched)

    def judgement_failed(self, result: CheckResult, error: Exception) -> None:
        """Store a result that could not be judged as UNKNOWN; what is known of its endpoint stays as it is."""
        _log.error("result could not be judged", check=self._check_id(result), exc_info=error)
        watched = self.watched.get(result.endpoint_id)
        if watched is None:
            return
        unknown = replace(
            result,
            status=Status.UNKNOWN,
            failure_kind=FailureKind.PROBE_ERROR,
            error_message=f"the result could not be judged: {type(error).__name__}",
        )
        watched.state = replace(watched.state, last=unknown)
        self._writer.put(unknown, ())

    # What the runner asks of each endpoint before and after a check.

    def is_void(self, started_at: float) -> bool:
        """Whether a failure since ``started_at`` (monotonic seconds) may be our own lateness, or began in isolation."""
        return self._pulse.faltered_since(started_at) or self._witnesses.returned_since(started_at)

    def plan(self, endpoint_id: str) -> Plan | None:
        """What to ask ``endpoint_id``, or ``None`` if nobody watches it any more."""
        watched = self.watched.get(endpoint_id)
        return watched.plan if watched else None

    def is_healthy(self, endpoint_id: str) -> bool:
        """Whether the endpoint is UP."""
        watched = self.watched.get(endpoint_id)
        return watched is not None and watched.state.state is State.UP

    def in_series(self, endpoint_id: str) -> bool:
        """Whether failures are being counted: then a check is one attempt."""
        watched = self.watched.get(endpoint_id)
        return watched is not None and watched.state.in_series

    def pace(self, endpoint_id: str) -> float | None:
        """Seconds to the next check while suspected or recovering, else ``None``."""
        watched = self.watched.get(endpoint_id)
        return watched.policy.retry_interval if watched and watched.state.wants_retry_pace else None

    def is_paused(self, endpoint_id: str) -> bool:
        """Whether a window says not to check the endpoint at all just now."""
        watched = self.watched.get(endpoint_id)
        if watched is None or not watched.windows:
            return False
        return maintenance.mode_at(watched.windows, now(self._clock)) is MaintenanceMode.PAUSE

    # What is watched, and what others changed about it.

    def watch(self, endpoint: Endpoint, state: EndpointState | None = None) -> None:
        """Watch ``endpoint`` from now on, or as it has become.

        Its state is ``state`` if given, else what it was; a changed url or protocol is another question, so its
        runs start anew.
        """
        known = self.watched.get(endpoint.id)
        if state is None and known is not None and _asks_the_same(known.plan.endpoint, endpoint):
            state = known.state
        self.watched[endpoint.id] = Watched(
            plan=self._plan_of(endpoint),
            policy=self._rules.policy(endpoint),
            watched_at=now(self._clock),
            state=state or NEW,
            windows=known.windows if known else (),
        )

    def forget(self, endpoint_id: str) -> None:
        """Watch ``endpoint_id`` no longer."""
        self.watched.pop(endpoint_id, None)

    def change_rules(self, rules: Rules) -> None:
        """Judge every endpoint by new settings; what is counted so far stays."""
        self._rules = rules
        for watched in self.watched.values():
            watched.policy = rules.policy(watched.plan.endpoint)

    def set_windows(self, windows: maintenance.OccurrencesByEndpoint) -> None:
        """Replace the maintenance windows of all endpoints."""
        for endpoint_id, watched in self.watched.items():
            watched.windows = windows.get(endpoint_id, ())

    def open_outage_ids(self) -> dict[str, str]:
        """The endpoint of each open outage, by the outage's id."""
        outages = ((endpoint_id, watched.state.outage) for endpoint_id, watched in self.watched.items())
        return {outage.id: endpoint_id for endpoint_id, outage in outages if outage}

    def outage_closed(self, endpoint_id: str, outage_id: str) -> None:
        """Somebody else resolved the outage in Postgres: a person, or a change of the endpoint."""
        watched = self.watched.get(endpoint_id)
        if watched and watched.state.outage and watched.state.outage.id == outage_id:
            watched.state = machine.closed_elsewhere(watched.state)
            _log.info("outage closed", endpoint=endpoint_id, outage=outage_id)

    def take(self, watched: Watched, judged: tuple[EndpointState, Sequence[Transition]]) -> None:
        """Hold what a judgement beyond any check made of an endpoint, and store the transitions."""
        watched.state, transitions = judged
        self._writer.put(None, transitions)
        self._announce(transitions)

    # The live view.

    def current(self, endpoint_id: str) -> CurrentStatus | None:
        """What is known of an endpoint now, or ``None`` if it is not watched."""
        watched = self.watched.get(endpoint_id)
        return self._current(watched) if watched else None

    def statuses(self) -> Iterator[CurrentStatus]:
        """What is known of every active endpoint now."""
        return map(self._current, self.watched.values())

    def last_results(self) -> Iterator[tuple[Endpoint, CheckResult]]:
        """Every active endpoint that was checked, with its last check."""
        for watched in self.watched.values():
            if watched.state.last is not None:
                yield watched.plan.endpoint, watched.state.last

    async def stop(self) -> None:
        """Give up verifications under way; after a restart they are made again."""
        await cancel(*self._verifications)

    def resume(self) -> None:
        """After the states were rebuilt: make the verifications that were under way."""
        for watched in self.watched.values():
            if watched.state.verifying:
                self._verify(watched)

    def _current(self, watched: Watched) -> CurrentStatus:
        state, last = watched.state, watched.state.last
        in_maintenance = bool(watched.windows) and maintenance.mode_at(watched.windows, now(self._clock)) is not None
        return CurrentStatus(
            endpoint_id=watched.plan.endpoint.id,
            status=last.status if last else Status.UNKNOWN,
            state=state.state,
            since=state.since,
            timestamp=last.timestamp if last else None,
            response_time=last.response_time if last else None,
            error_message=last.error_message if last else None,
            failure_kind=last.failure_kind if last else None,
            consecutive_failures=state.failures,
            in_maintenance=in_maintenance,
            outage_id=state.outage.id if state.outage else None,
        )

    def _verify(self, watched: Watched) -> None:
        task = spawn(self._verified(watched), name=f"verify {watched.plan.endpoint.id}")
        self._verifications.add(task)
        task.add_done_callback(self._verifications.discard)

    async def _verified(self, watched: Watched) -> None:
        began_at = self._clock.monotonic()
        try:
            look = await self._look_again(watched.plan)
            if look.result.status is Status.DOWN:
                await self._witnesses.confirm()
            self._conclude(watched, look, began_at)
        finally:
            if watched.state.verifying:  # whatever went wrong, the next failure asks again
                watched.state = machine.verification_void(watched.state, watched.policy)

    def _conclude(self, watched: Watched, look: SecondLook, began_at: float) -> None:
        if self.watched.get(watched.plan.endpoint.id) is not watched:
            return  # changed or gone meanwhile: its runs start anew
        if self._witnesses.isolated(watched.plan.prepared.target.host) or self._witnesses.returned_since(began_at):
            return
        if maintenance.mode_at(watched.windows, now(self._clock)) is not None:
            return
        if look.result.status is not Status.UP and self._pulse.faltered_since(began_at):
            if self._pulse.lagging_seconds() < LONGEST_DOUBT_SECONDS:
                return
            look = replace(look, method=Method.UNVERIFIED)
        self.take(watched, machine.verified(watched.state, look, watched.policy))

    def _check_id(self, result: CheckResult) -> str:
        """The id that the API will tell of this check."""
        return status_id(result.endpoint_key, self.observer, result.timestamp)

    def _show(self, result: CheckResult) -> None:
        _log.debug(
            "checked",
            check=self._check_id(result),
            endpoint=result.endpoint_id,
            status=result.status,
            response_time_ms=result.response_time,
            problem=result.error_message,
        )

    def _announce(self, transitions: Sequence[Transition], check_id: str | None = None) -> None:
        for transition in transitions:
            change, outage = transition.change, transition.outage
            by = {"check": check_id} if check_id else {}
            _log.info(
                "state changed", endpoint=change.endpoint_id, old=change.old, new=change.new, reason=change.reason, **by
            )
            if change.new is State.SUSPECTED:
                self._ask_parents(change.endpoint_id)
            if outage is None:
                self._counters.verifications_refuted += "verification" in change.evidence
            elif outage.resolved:
                self._counters.outages_resolved += 1
                _log.info("outage resolved", endpoint=outage.endpoint_id, outage=outage.id)
            else:
                self._counters.outages_declared += 1
                _log.warning(
                    "outage declared", endpoint=outage.endpoint_id, outage=outage.id, description=outage.description
                )

    def _ask_parents(self, endpoint_id: str) -> None:
        """Whether it is the endpoint or what it depends on has to be known by the time it would be told."""
        plan = self.plan(endpoint_id)
        if plan is not None and plan.endpoint.depends_on:
            self.ask_soon([parent for group in plan.endpoint.depends_on for parent in group])


def _as_isolated(result: CheckResult) -> CheckResult:
    message = f"we are isolated: all witnesses are silent; {result.error_message or 'it failed'}"
    return replace(result, status=Status.UNKNOWN, failure_kind=FailureKind.ISOLATED, error_message=message)


def _asks_the_same(one: Endpoint, other: Endpoint) -> bool:
    return (one.url, one.protocol) == (other.url, other.protocol)


def as_stored(endpoint: Endpoint) -> Endpoint:
    """``endpoint`` without what the database alone changes, to tell whether anything else did."""
    return replace(endpoint, revision=0, updated_at=None)
