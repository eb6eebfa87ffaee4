"""The one join: takes each check result through detection, storage and the live view."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

import structlog

from servmon import log
from servmon.checks.doubts import Doubts
from servmon.checks.plan import Plan
from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.detection import machine, maintenance, outside
from servmon.detection.dependencies import Graph
from servmon.detection.state import NEW, EndpointState
from servmon.detection.verdict import SecondLook
from servmon.metrics import Counters
from servmon.model import (
    CheckResult,
    CurrentStatus,
    Endpoint,
    FailureKind,
    MaintenanceMode,
    State,
    Status,
    StatusFilter,
    Transition,
)
from servmon.store.status_rows import status_id
from servmon.tasks import in_turns
from servmon.verdicts import Verdicts
from servmon.watched import Rules, Watched

_log = structlog.get_logger(__name__)

__all__ = ["Monitor", "Rules", "Watched", "Writer", "as_stored"]


class Writer(Protocol):
    """Where results and what they caused are stored; never blocks."""

    def put(self, result: CheckResult | None, transitions: Sequence[Transition]) -> None:
        """Queue a result and its transitions to be stored together."""
        ...


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
        self._pulse = doubts.pulse
        self._witnesses = doubts.witnesses
        self._plan_of = plan_of
        self._counters = counters
        # Brings checks forward; the scheduler's, once there is one.
        self.ask_soon: Callable[[Iterable[str]], None] = lambda _endpoint_ids: None
        # Tells whoever listens just now; what is owed to people is read from what is stored.
        self.publish: Callable[[Sequence[Transition]], None] = lambda _transitions: None
        self._clock = clock
        self._graph: Graph | None = None
        self.covered: Sequence[maintenance.Covered] = ()
        self.verdicts = Verdicts(
            look_again,
            doubts,
            take=self.take,
            is_watched=lambda watched: self.watched.get(watched.plan.endpoint.id) is watched,
            clock=clock,
        )

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
        self._writer.put(_news(before.last, result), transitions)
        if transitions:
            self._announce(transitions, self._check_id(result))
        if log.shows_checks():
            self._show(result)
        if watched.state.verifying and not before.verifying:
            self.verdicts.seek(watched)

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
        self.watched[endpoint.id] = watched = Watched(
            plan=self._plan_of(endpoint),
            policy=self._rules.policy(endpoint),
            groups=self._rules.groups(endpoint),
            watched_at=now(self._clock),
            state=state or NEW,
            windows=known.windows if known else (),
        )
        self._graph = None
        if watched.state.verifying:  # the verdict that was sought is not this one's any more
            self.verdicts.seek(watched)

    def forget(self, endpoint_id: str) -> None:
        """Watch ``endpoint_id`` no longer."""
        self.watched.pop(endpoint_id, None)

    async def change_rules(self, rules: Rules) -> None:
        """Judge every endpoint by new settings; what is counted so far stays."""
        if rules == self._rules:
            return
        self._rules = rules
        async for watched in in_turns(list(self.watched.values())):
            watched.policy = rules.policy(watched.plan.endpoint)
            watched.groups = rules.groups(watched.plan.endpoint)
        self._graph = None

    @property
    def graph(self) -> Graph:
        """Who depends on whom, of all that are watched."""
        if self._graph is None:
            depending = ((endpoint_id, watched.groups) for endpoint_id, watched in self.watched.items())
            self._graph = Graph({endpoint_id: groups for endpoint_id, groups in depending if groups})
        return self._graph

    def set_windows(
        self, windows: maintenance.OccurrencesByEndpoint, covered: Sequence[maintenance.Covered] = ()
    ) -> None:
        """Replace the maintenance windows of all endpoints; ``covered`` are the same by occurrence."""
        self.covered = covered
        for endpoint_id, watched in self.watched.items():
            watched.windows = windows.get(endpoint_id, ())

    def open_outage_ids(self) -> dict[str, str]:
        """The endpoint of each open outage, by the outage's id."""
        outages = ((endpoint_id, watched.state.outage) for endpoint_id, watched in self.watched.items())
        return {outage.id: endpoint_id for endpoint_id, outage in outages if outage}

    def outage_closed(self, endpoint_id: str, outage_id: str, at: datetime) -> None:
        """Somebody else resolved the outage in Postgres at that time: a person, or a change of the endpoint."""
        watched = self.watched.get(endpoint_id)
        if watched and watched.state.outage and watched.state.outage.id == outage_id:
            watched.state = outside.closed_elsewhere(watched.state, at)
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

    def last_statuses(self) -> list[Status]:
        """The status of every active endpoint's last check."""
        return [watched.status for watched in self.watched.values()]

    def ids_with(self, wanted: StatusFilter) -> list[str]:
        """The ids of the active endpoints that are so now."""
        present = now(self._clock)
        return [endpoint_id for endpoint_id, watched in self.watched.items() if watched.fits(wanted, present)]

    def in_maintenance(self) -> int:
        """How many active endpoints are in a window now."""
        present = now(self._clock)
        return sum(watched.is_covered(present) for watched in self.watched.values())

    async def stop(self) -> None:
        """Give up verifications under way; after a restart they are made again."""
        await self.verdicts.stop()

    def resume(self) -> None:
        """After the states were rebuilt: make the verifications that were under way."""
        for watched in self.watched.values():
            if watched.state.verifying:
                self.verdicts.seek(watched)

    def _current(self, watched: Watched) -> CurrentStatus:
        state, last = watched.state, watched.state.last
        return CurrentStatus(
            endpoint_id=watched.plan.endpoint.id,
            status=watched.status,
            state=state.state,
            since=state.since,
            timestamp=last.timestamp if last else None,
            response_time=last.response_time if last else None,
            error_message=last.error_message if last else None,
            failure_kind=last.failure_kind if last else None,
            consecutive_failures=state.failures,
            in_maintenance=watched.is_covered(now(self._clock)),
            outage_id=state.outage.id if state.outage else None,
        )

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
        self.publish(transitions)
        for transition in transitions:
            change, outage = transition.change, transition.outage
            by = {"check": check_id} if check_id else {}
            _log.info(
                "state changed", endpoint=change.endpoint_id, old=change.old, new=change.new, reason=change.reason, **by
            )
            if change.new is State.SUSPECTED:
                self.verdicts.ask_parents(change.endpoint_id)
            if outage is None:
                self._counters.verifications_refuted += "verification" in change.evidence
            elif outage.resolved:
                self._counters.outages_resolved += 1
                _log.info("outage resolved", endpoint=outage.endpoint_id, outage=outage.id)
            elif change.old is not State.DOWN:
                self._counters.outages_declared += 1
                _log.warning(
                    "outage declared", endpoint=outage.endpoint_id, outage=outage.id, description=outage.description
                )


def _news(last: CheckResult | None, result: CheckResult) -> CheckResult:
    """``result`` as it is stored: a certificate is told when it, or the days it has left, are not as they last were."""
    details = result.details
    if details is None or "certificate" not in details or last is None or last.details is None:
        return result
    if last.details.get("certificate") != details["certificate"]:
        return result
    return replace(result, details={name: value for name, value in details.items() if name != "certificate"})


def _as_isolated(result: CheckResult) -> CheckResult:
    message = f"we are isolated: all witnesses are silent; {result.error_message or 'it failed'}"
    return replace(result, status=Status.UNKNOWN, failure_kind=FailureKind.ISOLATED, error_message=message)


def _asks_the_same(one: Endpoint, other: Endpoint) -> bool:
    return (one.url, one.protocol) == (other.url, other.protocol)


def as_stored(endpoint: Endpoint) -> Endpoint:
    """``endpoint`` without what the database alone changes, to tell whether anything else did."""
    return replace(endpoint, revision=0, updated_at=None)
