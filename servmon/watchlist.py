"""Keeps what is watched in step with Postgres: at start, after every change there, and at the end of a window."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial

import structlog

from servmon.checks.runner import Runner
from servmon.checks.scheduler import Scheduler
from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.detection import maintenance, restart
from servmon.model import CheckResult, CurrentStatus, Endpoint, MaintenanceWindow, Occurrence
from servmon.monitor import Monitor, Writer, as_stored
from servmon.store import endpoints, outages, state_changes, statuses
from servmon.store import maintenance as stored_windows
from servmon.store.feed import ChangeFeed
from servmon.store.pool import Executor

_log = structlog.get_logger(__name__)

# Windows that ended this long ago still mute the results that are replayed after a restart.
REMEMBER_ENDED_WINDOWS = timedelta(hours=1)
# So far ahead windows are known while Postgres is away.
KNOWN_AHEAD = timedelta(days=8)
EXPANDED_ANEW = timedelta(hours=1)
WINDOW_POLL_SECONDS = 1.0
CHANGES_A_TURN = 100


class Watchlist:
    """The endpoints and windows in Postgres, brought to monitor, scheduler and runner."""

    def __init__(
        self,
        db: Executor,
        *,
        monitor: Monitor,
        scheduler: Scheduler,
        runner: Runner,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._db = db
        self._monitor = monitor
        self._scheduler = scheduler
        self._runner = runner
        self._clock = clock
        self._revision = 0
        self._windows: list[MaintenanceWindow] = []
        self._over: maintenance.OccurrencesByEndpoint = {}
        self._expanded_at: datetime | None = None
        self._refreshing = asyncio.Lock()

    async def load(self, writer: Writer) -> None:
        """Rebuild every endpoint's state from what is stored, then put it into the schedule."""
        changes = await endpoints.changed_since(self._db, 0)
        self._revision = changes.revision
        self._expand(await self._read_windows(), [one for one in changes.endpoints if _is_watched(one)])
        last_changes = {change.endpoint_id: change for change in await state_changes.last_changes(self._db)}
        flapping = await state_changes.flapping(self._db)
        ended = await state_changes.outages_ended(self._db)
        open_outages = {outage.endpoint_id: outage for outage in await outages.open_outages(self._db)}
        results: dict[str, list[CheckResult]] = defaultdict(list)
        for result in await statuses.recent_results(self._db):
            results[result.endpoint_id].append(result)
        for endpoint in changes.endpoints:
            if not _is_watched(endpoint):
                continue
            self._monitor.watch(endpoint)
            watched = self._monitor.watched[endpoint.id]
            watched.windows = self._over.get(endpoint.id, ())
            watched.state, transitions = restart.rebuild(
                results.get(endpoint.id, ()),
                watched.policy,
                restart.Recorded(
                    last_change=last_changes.get(endpoint.id),
                    open_outage=open_outages.get(endpoint.id),
                    flapping=flapping.get(endpoint.id, ()),
                    outage_ended_at=ended.get(endpoint.id),
                ),
                muted=partial(_is_muted, watched.windows),
            )
            if transitions:
                writer.put(None, transitions)
            self._scheduler.add(endpoint.id, endpoint.check_interval, soon=watched.state.last is None)
        self._monitor.resume()

    async def refresh(self) -> None:
        """Read what changed in Postgres since the last time, and act on it."""
        async with self._refreshing:
            changes = await endpoints.changed_since(self._db, self._revision)
            self._revision = changes.revision
            if changes.complete:
                for gone in self._monitor.watched.keys() - {endpoint.id for endpoint in changes.endpoints}:
                    self._forget(gone)
            for number, endpoint in enumerate(changes.endpoints, 1):
                self._take(endpoint)
                if number % CHANGES_A_TURN == 0:
                    await asyncio.sleep(0)  # thousands of changed endpoints delay no check
            self._take_windows(await self._read_windows(), changed=bool(changes.endpoints))
            open_ids = self._monitor.open_outage_ids()
            for closed in await outages.resolved_among(self._db, list(open_ids)) if open_ids else ():
                self._monitor.outage_closed(open_ids[closed.id], closed.id)

    async def follow(self, feed: ChangeFeed) -> None:
        """Refresh whenever anything changed, for ever."""
        while True:
            await feed.wait()
            await self.refresh()

    async def follow_window_ends(self) -> None:
        """Ask endpoints again at once when a window over them ends, for ever."""
        seen_until = now(self._clock)
        while True:
            await asyncio.sleep(WINDOW_POLL_SECONDS)
            until = now(self._clock)
            if ended := [
                endpoint_id
                for endpoint_id, windows in self._over.items()
                if any(seen_until < window.end_time <= until for window in windows)
            ]:
                self._scheduler.ask_soon(ended)
            seen_until = until

    # The live view that services and API see.

    def current(self, endpoint_id: str) -> CurrentStatus | None:
        """What is known of an endpoint now, or ``None`` if it is not watched."""
        return self._monitor.current(endpoint_id)

    def statuses(self) -> Iterator[CurrentStatus]:
        """What is known of every active endpoint now."""
        return self._monitor.statuses()

    def last_results(self) -> Iterator[tuple[Endpoint, CheckResult]]:
        """Every active endpoint that was checked, with its last check."""
        return self._monitor.last_results()

    async def check(self, endpoint: Endpoint) -> CheckResult:
        """A person's check, made now over the daemon's own network."""
        return await self._runner.check_now(endpoint)

    def _take(self, endpoint: Endpoint) -> None:
        if not _is_watched(endpoint):
            self._forget(endpoint.id)
            return
        known = self._monitor.plan(endpoint.id)
        if known and as_stored(known.endpoint) == as_stored(endpoint):
            return
        self._monitor.watch(endpoint)
        self._scheduler.add(endpoint.id, endpoint.check_interval, soon=True)
        _log.info("endpoint changed" if known else "endpoint added", endpoint=endpoint.id)

    def _forget(self, endpoint_id: str) -> None:
        if self._monitor.plan(endpoint_id):
            self._monitor.forget(endpoint_id)
            self._scheduler.remove(endpoint_id)
            _log.info("endpoint no longer watched", endpoint=endpoint_id)

    async def _read_windows(self) -> list[MaintenanceWindow]:
        present = now(self._clock)
        return await stored_windows.between(self._db, present - REMEMBER_ENDED_WINDOWS, present + KNOWN_AHEAD)

    def _take_windows(self, windows: list[MaintenanceWindow], *, changed: bool) -> None:
        """Bring windows, or those of changed endpoints, to the monitor; ask again where one ended before its time."""
        present = now(self._clock)
        fresh = self._expanded_at is not None and present - self._expanded_at < EXPANDED_ANEW
        if fresh and not changed and windows == self._windows:
            return
        before = self._over
        self._expand(windows, [watched.plan.endpoint for watched in self._monitor.watched.values()])
        self._monitor.set_windows(self._over)
        self._scheduler.ask_soon(
            endpoint_id
            for endpoint_id, earlier in before.items()
            if maintenance.mode_at(earlier, present)
            and not maintenance.mode_at(self._over.get(endpoint_id, ()), present)
        )

    def _expand(self, windows: list[MaintenanceWindow], endpoints: Iterable[Endpoint]) -> None:
        present = now(self._clock)
        self._windows, self._expanded_at = windows, present
        self._over = maintenance.by_endpoint(
            windows, endpoints, present - REMEMBER_ENDED_WINDOWS, present + KNOWN_AHEAD
        )


def _is_muted(windows: Sequence[Occurrence], at: datetime) -> bool:
    return maintenance.mode_at(windows, at) is not None


def _is_watched(endpoint: Endpoint) -> bool:
    return endpoint.is_active and endpoint.archived_at is None
