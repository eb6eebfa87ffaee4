"""Keeps what is watched in step with Postgres: at start, after every change there, and at the end of a window."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import structlog

from servmon.checks.runner import Runner
from servmon.checks.scheduler import Scheduler
from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.detection import maintenance, restart
from servmon.detection.dependencies import Graph
from servmon.detection.state import EVIDENCE_LASTS_INTERVALS
from servmon.errors import StoreUnavailableError
from servmon.model import (
    CheckResult,
    CurrentStatus,
    Endpoint,
    MaintenanceWindow,
    Occurrence,
    Outage,
    Status,
    StatusFilter,
    Suspect,
)
from servmon.monitor import Monitor, Writer, as_stored
from servmon.store import endpoints, notes, outages, statuses
from servmon.store import maintenance as stored_windows
from servmon.store.notebook import Notebook
from servmon.store.notes import pages_of_all
from servmon.store.pool import Executor
from servmon.store.recollection import Recollection, from_postgres
from servmon.tasks import in_turns
from servmon.watched import Watched

_log = structlog.get_logger(__name__)

# Windows that ended this long ago still mute the results that are replayed after a restart.
REMEMBER_ENDED_WINDOWS = timedelta(hours=1)
# So far ahead windows are known while Postgres is away.
KNOWN_AHEAD = timedelta(days=8)
EXPANDED_ANEW = timedelta(hours=1)
WINDOW_POLL_SECONDS = 1.0


class Watchlist:
    """The endpoints and windows in Postgres, brought to monitor, scheduler and runner."""

    def __init__(
        self,
        db: Executor,
        *,
        monitor: Monitor,
        scheduler: Scheduler,
        runner: Runner,
        notebook: Notebook | None = None,
        is_away: Callable[[], bool] = lambda: False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._db = db
        self._notebook = notebook
        self._is_away = is_away
        self._monitor = monitor
        self._scheduler = scheduler
        self._runner = runner
        self._clock = clock
        self._revision = 0
        self._windows: list[MaintenanceWindow] = []
        self._over: maintenance.OccurrencesByEndpoint = {}
        self._expanded_at: datetime | None = None
        self._refreshing = asyncio.Lock()

    async def recollect(self) -> Recollection:
        """What is stored of all that is watched; it is noted, too, for a start without Postgres."""
        present = now(self._clock)
        known = await from_postgres(self._db, present - REMEMBER_ENDED_WINDOWS, present + KNOWN_AHEAD)
        self._expand(list(known.windows), known.endpoints)
        failing = await statuses.failing_since(self._db, self._failing_for_long(known), EVIDENCE_LASTS_INTERVALS)
        known = replace(known, failing_since=failing)
        await self._note(lambda notebook: notebook.replace(pages_of_all(known)))
        return known

    def load(self, known: Recollection, writer: Writer) -> None:
        """Rebuild every endpoint's state from what is ``known``, then put it into the schedule."""
        present = now(self._clock)
        self._revision = known.revision
        self._expand(list(known.windows), known.endpoints)
        for endpoint in known.endpoints:
            self._monitor.watch(endpoint)
            watched = self._monitor.watched[endpoint.id]
            watched.windows = self._over.get(endpoint.id, ())
            watched.state, transitions = restart.rebuild(
                known.results.get(endpoint.id, ()),
                watched.policy,
                restart.Recorded(
                    last_change=known.last_changes.get(endpoint.id),
                    open_outage=known.open_outages.get(endpoint.id),
                    flapping=known.flapping.get(endpoint.id, ()),
                    outage_ended_at=known.outages_ended.get(endpoint.id),
                    failing_since=known.failing_since.get(endpoint.id),
                ),
                muted=partial(_is_muted, watched.windows) if watched.windows else _never,
            )
            if transitions:
                writer.put(None, transitions)
            self._schedule(watched, present)
        self._monitor.set_windows(self._over, maintenance.covered(self._windows, self._over))
        self._monitor.resume()

    def _schedule(self, watched: Watched, present: datetime) -> None:
        """Go on where the last run stopped: who was asked often still is, and a turn that was missed is made up."""
        endpoint, last = watched.plan.endpoint, watched.state.last
        if last is None or (present - last.timestamp).total_seconds() > endpoint.check_interval:
            self._scheduler.add(endpoint.id, endpoint.check_interval, soon=True)
            return
        pace = self._monitor.pace(endpoint.id)
        within = math.inf if pace is None else pace - (present - last.timestamp).total_seconds()
        self._scheduler.add(endpoint.id, endpoint.check_interval, soon=False, within=within)

    async def refresh(self) -> None:
        """Read what changed in Postgres since the last time, and act on it."""
        async with self._refreshing:
            changes = await endpoints.changed_since(self._db, self._revision)
            self._revision = changes.revision
            if changes.complete:
                for gone in self._monitor.watched.keys() - {endpoint.id for endpoint in changes.endpoints}:
                    self._forget(gone)
            async for endpoint in in_turns(changes.endpoints):
                self._take(endpoint)
            windows = await self._read_windows()
            news = bool(changes.endpoints) or windows != self._windows
            self._take_windows(windows, changed=bool(changes.endpoints))
            open_ids = self._monitor.open_outage_ids()
            closed = await outages.resolved_among(self._db, list(open_ids)) if open_ids else []
            for outage in closed:
                self._monitor.outage_closed(open_ids[outage.id], outage.id, outage.resolved_at or now(self._clock))
            if news or closed:
                await self._note_changes(changes, windows, closed)

    async def _note_changes(
        self, changes: endpoints.Changes, windows: Sequence[MaintenanceWindow], closed: Sequence[Outage]
    ) -> None:
        # Not in a thread: it would have the interpreter, and each step of each check would wait for it.
        watched = {notes.ENDPOINT: {one.id: notes.endpoint_body(one) async for one in in_turns(changes.endpoints)}}
        pages = {notes.WINDOW: notes.window_bodies(windows)}
        if changes.complete:
            await self._note(lambda notebook: notebook.replace({**watched, **pages}))
        else:
            await self._note(lambda notebook: notebook.write(watched))
            await self._note(lambda notebook: notebook.replace(pages))
        await self._note(lambda notebook: notebook.write({notes.OUTAGE: {one.endpoint_id: None for one in closed}}))

    async def _note(self, work: Callable[[Notebook], Awaitable[None]]) -> None:
        """Note for a start without Postgres; where the disk fails, such a start knows less."""
        if self._notebook is not None:
            with suppress(StoreUnavailableError):
                await work(self._notebook)

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

    def last_statuses(self) -> list[Status]:
        """The status of every active endpoint's last check."""
        return self._monitor.last_statuses()

    def ids_with(self, wanted: StatusFilter) -> list[str]:
        """The ids of the active endpoints that are so now."""
        return self._monitor.ids_with(wanted)

    def suspects(self) -> Iterator[Suspect]:
        """Every active endpoint that fails and has no outage yet; who is watched may change between two of them."""
        present = now(self._clock)
        found = (watched.suspect(present) for watched in list(self._monitor.watched.values()))
        return (one for one in found if one is not None)

    def in_maintenance(self) -> int:
        """How many active endpoints are in a window now."""
        return self._monitor.in_maintenance()

    @property
    def is_away(self) -> bool:
        """Whether Postgres took nothing of late."""
        return self._is_away()

    def endpoints(self) -> Iterator[Endpoint]:
        """Every active endpoint."""
        return (watched.plan.endpoint for watched in self._monitor.watched.values())

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """The active endpoint of this id, as it was when it was last read."""
        plan = self._monitor.plan(endpoint_id)
        return plan.endpoint if plan else None

    def open_outages(self) -> Iterator[Outage]:
        """Every open outage, in no order."""
        return (watched.state.outage for watched in self._monitor.watched.values() if watched.state.outage)

    @property
    def graph(self) -> Graph:
        """What depends on what, of all active endpoints."""
        return self._monitor.graph

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
        self._monitor.set_windows(self._over, maintenance.covered(windows, self._over))
        self._scheduler.ask_soon(
            endpoint_id
            for endpoint_id, earlier in before.items()
            if maintenance.mode_at(earlier, present)
            and not maintenance.mode_at(self._over.get(endpoint_id, ()), present)
        )

    def _failing_for_long(self, known: Recollection) -> dict[str, datetime]:
        """From when on to look for the first failure of those that fail, where what was recollected may lack it."""
        asked = {
            endpoint_id: begun
            for endpoint_id, change in known.last_changes.items()
            if (begun := restart.begun_by(change, known.results.get(endpoint_id, ())))
        }
        for endpoint_id, windows in self._over.items():
            if (results := known.results.get(endpoint_id)) and results[-1].status is Status.DOWN:
                # In a window failures make no change.
                begins = [window.start_time for window in windows]
                asked[endpoint_id] = min([asked.get(endpoint_id, results[-1].timestamp), *begins])
        return asked

    def _expand(self, windows: list[MaintenanceWindow], endpoints: Iterable[Endpoint]) -> None:
        present = now(self._clock)
        self._windows, self._expanded_at = windows, present
        self._over = maintenance.by_endpoint(
            windows, endpoints, present - REMEMBER_ENDED_WINDOWS, present + KNOWN_AHEAD
        )


def _never(_at: datetime) -> bool:
    return False


def _is_muted(windows: Sequence[Occurrence], at: datetime) -> bool:
    return maintenance.mode_at(windows, at) is not None


def _is_watched(endpoint: Endpoint) -> bool:
    return endpoint.is_active and endpoint.archived_at is None
