"""Do we see? Tells of isolation and of blind endpoints, and takes back what only looked like a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import structlog

from servmon.checks.witnesses import PERIOD, Witnesses
from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.detection import maintenance, outside
from servmon.detection.connectivity import Reach, shown, void_from
from servmon.detection.state import EVIDENCE_LASTS_INTERVALS, EndpointState, new_id
from servmon.metrics import Counters
from servmon.model import AVAILABLE, Event, EventKind, MaintenanceMode, Severity, Status
from servmon.monitor import Monitor, Watched
from servmon.tasks import in_turns

_log = structlog.get_logger(__name__)

BLIND_POLL_SECONDS = 5.0


class Sight:
    """Watches over what the monitor can know. ``tell`` takes events; ``ask_soon`` brings checks forward."""

    def __init__(
        self,
        monitor: Monitor,
        witnesses: Witnesses,
        *,
        tell: Callable[[Event], None],
        ask_soon: Callable[[Iterable[str]], None],
        counters: Counters,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._monitor = monitor
        self._witnesses = witnesses
        self._tell = tell
        self._ask_soon = ask_soon
        self._counters = counters
        self._clock = clock

    def connection_changed(self, changed: Mapping[int, Reach]) -> None:
        """Some address families are isolated from now on, or no longer: see ``detection.connectivity``."""
        isolated = {family: reach for family, reach in changed.items() if reach.isolated}
        self._void_failures(isolated)
        others = any(reach.isolated for family, reach in self._witnesses.reach.items() if family not in changed)
        if isolated and not others:
            self._counters.isolations += 1
            message = "isolated: all witnesses are silent, so what fails is not judged until they answer again"
            self._say(EventKind.ISOLATED, Severity.CRITICAL, message, isolated)
        if isolated or others:
            return
        present = now(self._clock)
        for watched in self._monitor.watched.values():
            watched.watched_at = present  # nobody could see anything meanwhile: patience begins anew
        self._ask_soon([one.plan.endpoint.id for one in self._monitor.watched.values() if _was_doubtful(one.state)])
        message = "connected again: endpoints are checked anew before anything is said of them"
        self._say(EventKind.CONNECTED, Severity.WARNING, message, changed)

    def clock_set_back(self) -> None:
        """The wall clock jumped backwards: what is checked from now on is not older than what was."""
        present = now(self._clock)
        for watched in self._monitor.watched.values():
            watched.state = outside.clock_set_back(watched.state, present)

    async def follow_blindness(self) -> None:
        """Look for endpoints about which nothing is learned, for ever."""
        while True:
            await asyncio.sleep(BLIND_POLL_SECONDS)
            await self.find_blind()

    async def find_blind(self) -> None:
        """Tell of endpoints about which nothing was learned for three intervals, and of those seen again."""
        if self._witnesses.any_isolated:
            return
        present = now(self._clock)
        gone: list[str] = []
        seen: list[str] = []
        async for watched in in_turns(list(self._monitor.watched.values())):
            endpoint_id = watched.plan.endpoint.id
            if (
                watched.blind is self._is_blind(watched, present)
                or self._monitor.watched.get(endpoint_id) is not watched
            ):
                continue
            watched.blind = not watched.blind
            (gone if watched.blind else seen).append(endpoint_id)
            if watched.blind:
                self._lose_sight(watched, present)
        self._say_blind(EventKind.BLIND, Severity.MAJOR, "nothing is known any more of", gone)
        self._say_blind(EventKind.SEEING, Severity.MINOR, "something is known again of", seen)

    def _is_blind(self, watched: Watched, present: datetime) -> bool:
        seen_at = max(watched.state.evidence_at or watched.watched_at, watched.watched_at)
        if present - seen_at <= watched.policy.evidence_lasts:
            return False
        if watched.windows and maintenance.mode_at(watched.windows, present) is MaintenanceMode.PAUSE:
            watched.watched_at = present  # not asked, so not blind; patience begins anew when the window is over
            return False
        return True

    def _lose_sight(self, watched: Watched, present: datetime) -> None:
        last = watched.state.last
        why = last.error_message if last and last.status is Status.UNKNOWN else "no check was made"
        reason = f"no verdict for {EVIDENCE_LASTS_INTERVALS} intervals: {why}"
        self._monitor.take(watched, outside.gone_blind(watched.state, watched.plan.endpoint.id, reason, present))

    def _say_blind(self, kind: EventKind, severity: Severity, what: str, endpoint_ids: list[str]) -> None:
        if endpoint_ids:
            message = f"{what} {len(endpoint_ids)} of {len(self._monitor.watched)} endpoints, such as {endpoint_ids[0]}"
            event = Event(new_id(), kind, severity, message, now(self._clock), {"endpoint_ids": endpoint_ids})
            self._record(event)

    def _void_failures(self, isolated: Mapping[int, Reach]) -> None:
        present = now(self._clock)
        since = [moment for reach in isolated.values() if (moment := void_from(reach, PERIOD))]
        for watched in self._monitor.watched.values() if since else ():
            if not self._witnesses.isolated(watched.plan.prepared.target.host):
                continue
            reason = "we are isolated, so its failures may be ours"
            judged = outside.failures_void(watched.state, min(since), reason, watched.policy, present)
            self._monitor.take(watched, judged)

    def _say(self, kind: EventKind, severity: Severity, message: str, families: Mapping[int, Reach]) -> None:
        details = {f"IPv{family}": shown(reach) for family, reach in families.items()}
        self._record(Event(new_id(), kind, severity, message, now(self._clock), details))

    def _record(self, event: Event) -> None:
        _log.warning(event.message, event_kind=event.kind.value)
        self._tell(event)


def _was_doubtful(state: EndpointState) -> bool:
    """Whether an endpoint's last check failed in some way, so that it is to be asked again."""
    return state.last is not None and state.last.status not in AVAILABLE
