"""Stores what the checks found and what it meant: in batches, off the path of the checks, nothing twice.

The only way of check results into Postgres. Single results go there straight; what people may be owed goes by way of
the disk, so that it outlives the process before anything leaves it; while Postgres is away everything waits there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

import structlog

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import StoreUnavailableError
from servmon.metrics import Counters
from servmon.model import CheckResult, Event, Transition
from servmon.store.backlog import FLUSH_SECONDS, QUEUE_LIMIT, Backlog
from servmon.store.bridge import Bridge
from servmon.store.delivery import AWAY_NOW, Delivery, Parts
from servmon.store.entries import Entry, events_in, is_lasting, transitions_in
from servmon.store.spool import Spool
from servmon.tasks import cancel, spawn

_log = structlog.get_logger(__name__)

# After a wait for Postgres, larger batches catch up faster; beyond this they only take longer to repeat.
LARGEST_BATCH = 5000
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 2.0
# A server that does not answer for so long is given up with its connection, and asked again on another one.
PATIENCE_SECONDS = 5.0
# At the stop the process has to end soon; while Postgres takes batches it gets all the time it needs.
DRAIN_PATIENCE_SECONDS = 3.0
# So many different reasons are said of one absence.
REASONS = 10


class Writer:
    """Takes results, transitions and events at any time and stores them soon, each with what belongs to it.

    ``observer`` is this daemon's number in the rows. Without a ``spool``, or where its disk fails, all waits in
    memory: beyond 200,000 waiting results the oldest are dropped and counted, transitions and events never.
    """

    def __init__(self, dsn: str, counters: Counters, observer: int, spool: Spool | None = None) -> None:
        self.observer = observer
        self._counters = counters
        self._delivery = self._way(dsn)
        self._bridge = Bridge(spool, self._way(dsn), self._note) if spool else None
        self._backlog = Backlog(counters)
        # What is being stored, and whether all of that is on disk by now as well.
        self._parts: Parts = deque()
        self._on_disk = False
        # What came while that took its time, on its way to the disk.
        self._arrived: list[Entry] = []
        self._turn = asyncio.Lock()
        self._runs = False
        self._away = False
        self._reasons: set[str] = set()
        self._spool_fails = False

    @property
    def is_away(self) -> bool:
        """Whether Postgres did not take the last batch."""
        return self._away

    @property
    def accepts(self) -> bool:
        """Whether Postgres or the spool takes results. What waits in memory alone would be lost with the process."""
        bridged = not self._away or (self._bridge is not None and not self._spool_fails)
        return bridged and not self._backlog.is_full

    @property
    def queued(self) -> int:
        """How many results, separate transitions and events are not stored yet."""
        stored_now = 0 if self._on_disk else sum(map(len, self._parts))
        return len(self._backlog) + len(self._arrived) + stored_now + self.spooled

    @property
    def spooled(self) -> int:
        """How many of them wait on disk."""
        return self._bridge.count if self._bridge else 0

    @property
    def servers_met(self) -> int:
        """How often another server stood in for the one before, and may lack what that had of the last minutes."""
        return self._bridge.servers_met if self._bridge else 0

    def unstored(self) -> list[Transition]:
        """The transitions that wait to be stored, oldest first."""
        waiting = dict(self._bridge.transitions) if self._bridge else {}
        waiting.update((one.change.id, one) for one in transitions_in(list(self._entries())))
        return list(waiting.values())

    def unstored_events(self) -> list[Event]:
        """The events that wait to be stored, oldest first."""
        waiting = dict(self._bridge.events) if self._bridge else {}
        waiting.update((one.id, one) for one in events_in(list(self._entries())))
        return list(waiting.values())

    async def lately(self) -> tuple[list[Transition], list[Event]]:
        """The transitions and events of the last minutes, whether or not Postgres has them."""
        entries = await self._bridge.lately() if self._bridge else []
        return list(transitions_in(entries)), events_in(entries)

    def put(self, result: CheckResult | Event | None, transitions: Sequence[Transition]) -> None:
        """Queue a result and its transitions to be stored together; a transition is stored at once."""
        if result is not None or transitions:
            self._backlog.put((result, transitions))

    def put_event(self, event: Event) -> None:
        """Queue an event, which is stored at once."""
        self.put(event, ())
        self._backlog.hurry()

    async def run(self) -> None:
        """Store what is queued, at the latest every 250 ms or 500 results, for ever; afterwards ``drain`` the rest."""
        self._runs = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_queue(), name="results")
                if self._bridge is not None:
                    group.create_task(self._bridge.run(), name="spool")
        finally:
            self._runs = False

    async def open(self) -> None:
        """Take up what an earlier run left in the spool."""
        if self._bridge is not None:
            await self._bridge.open()

    async def replay(self) -> None:
        """Bring all that is in the spool to Postgres. Raises ``StoreUnavailableError`` where it does not take it."""
        owed = self.queued
        while waiting := self.spooled:
            if self._bridge is None or not await self._bridge.cross(DRAIN_PATIENCE_SECONDS):
                raise StoreUnavailableError(f"{self.queued} results of an earlier run wait for Postgres")
            await self._pause_without_progress(waiting)
        if owed:
            _log.info("results of an earlier run are stored", results=owed)

    async def drain(self) -> None:
        """Bring all that is queued to Postgres, or else to the spool, and return.

        Without a spool, what Postgres does not take for some seconds is given up, loudly.
        """
        give_up_at = SYSTEM_CLOCK.monotonic() + DRAIN_PATIENCE_SECONDS
        try:
            while self._backlog:
                if await self._pass_on(DRAIN_PATIENCE_SECONDS):
                    give_up_at = SYSTEM_CLOCK.monotonic() + DRAIN_PATIENCE_SECONDS
                elif SYSTEM_CLOCK.monotonic() >= give_up_at:
                    _log.error("results not stored: Postgres is away", results=self.queued)
                    return
                elif not self._has_disk:
                    await asyncio.sleep(FIRST_RETRY_SECONDS)
            await self._cross_until(SYSTEM_CLOCK.monotonic() + DRAIN_PATIENCE_SECONDS)
        finally:
            if not self._runs:
                await self._close()

    async def _cross_until(self, end: float) -> None:
        bridge = self._bridge
        while bridge and (waiting := bridge.count) and not self._away and SYSTEM_CLOCK.monotonic() < end:
            await bridge.cross(DRAIN_PATIENCE_SECONDS)
            await self._pause_without_progress(waiting)
        if bridge and bridge.count:
            _log.warning("results wait on disk for the next start", results=bridge.count)

    async def _pause_without_progress(self, waiting: int) -> None:
        """The disk failed, or another server is met: at once, the next try would end alike."""
        if self.spooled >= waiting:
            await asyncio.sleep(FIRST_RETRY_SECONDS)

    async def _follow_queue(self) -> None:
        wait = FIRST_RETRY_SECONDS
        while True:
            await self._backlog.filled()
            if await self._pass_on(PATIENCE_SECONDS):
                wait = FIRST_RETRY_SECONDS
            elif not self._has_disk:
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_RETRY_SECONDS)

    @property
    def _has_disk(self) -> bool:
        return self._bridge is not None and not self._spool_fails

    async def _pass_on(self, patience: float) -> bool:
        """Whether what was queued is on disk or in Postgres; what is neither stays in the queue."""
        async with self._turn:
            try:
                batch = await self._to_disk(self._take_batch())
                return not batch or await self._store(batch, patience)
            finally:
                self._queue_arrived_again()
                left = [] if self._on_disk else list(chain.from_iterable(self._parts))
                self._parts.clear()
                self._on_disk = False
                self._backlog.put_back(left)

    async def _to_disk(self, batch: list[Entry]) -> list[Entry]:
        """Put on disk what has to go by way of it; returns what goes to Postgres straight."""
        by_disk = batch if self._away else [entry for entry in batch if is_lasting(entry)]
        if not by_disk:
            return batch
        # Decided now: Postgres may come and go while the disk is written.
        straight = [] if self._away else [entry for entry in batch if not is_lasting(entry)]
        if not await self._keep(by_disk):
            return batch
        self._parts = deque([straight] if straight else [])
        return straight

    async def _keep(self, entries: Sequence[Entry]) -> bool:
        if self._bridge is None:
            return False
        try:
            self._backlog.count_dropped(await self._bridge.keep(entries))
        except StoreUnavailableError as error:
            if not self._spool_fails:
                _log.error("the spool takes nothing, results wait in memory", problem=str(error))
            self._spool_fails = True
            return False
        self._spool_fails = False
        return True

    async def _store(self, batch: list[Entry], patience: float) -> bool:
        storing = spawn(self._try(patience), name="store a batch")
        try:
            await self._keep_meanwhile(storing, batch)
        finally:
            await cancel(storing)
        failed = storing.result()
        self._note(failed)
        if failed is None and self._bridge is not None and not self._on_disk:
            await self._bridge.remember(batch, self._delivery.met)
            if self._delivery.met != self._bridge.servers_met:
                self._delivery.hang_up()  # the next batch goes to the server that is now the one
        return failed is None or self._on_disk

    async def _try(self, patience: float) -> BaseException | None:
        try:
            await self._delivery.take(self._parts, patience)
        except AWAY_NOW as error:
            return error
        return None

    async def _keep_meanwhile(self, storing: asyncio.Task[BaseException | None], batch: list[Entry]) -> None:
        """Put ``batch`` on disk too where Postgres takes its time: a kill must not cost what waits for it."""
        patience = FLUSH_SECONDS if self._bridge is not None else None  # without a disk there is only Postgres
        while not (await asyncio.wait({storing}, timeout=patience))[0]:
            self._arrived = self._backlog.take(QUEUE_LIMIT)
            if await self._keep(self._arrived if self._on_disk else [*batch, *self._arrived]):
                self._on_disk = True
                self._arrived = []
            else:
                self._queue_arrived_again()

    def _queue_arrived_again(self) -> None:
        arrived, self._arrived = self._arrived, []
        self._backlog.put_back(arrived)

    def _take_batch(self) -> list[Entry]:
        batch = self._backlog.take(QUEUE_LIMIT if self._away and self._has_disk else LARGEST_BATCH)
        self._parts = deque([batch] if batch else [])
        return batch

    def _entries(self) -> Iterator[Entry]:
        return chain(chain.from_iterable(self._parts), self._arrived, self._backlog)

    def _way(self, dsn: str) -> Delivery:
        return Delivery(dsn, self._counters, lambda: self.observer, self._meet)

    async def _meet(self, server: str | None) -> int:
        return await self._bridge.meet(server) if self._bridge else 0

    def _note(self, failed: BaseException | None) -> None:
        """Say why Postgres takes nothing, each reason once until it does again: it may be another one by then."""
        self._away = failed is not None
        if failed is None:
            if self._reasons:
                _log.info("Postgres takes results again", results=self.queued)
                self._reasons.clear()
        elif (reason := str(failed) or type(failed).__name__) not in self._reasons and len(self._reasons) < REASONS:
            _log.warning("results wait for Postgres", error=reason)
            self._reasons.add(reason)

    async def _close(self) -> None:
        await self._delivery.close()
        if self._bridge is not None:
            await self._bridge.close()
