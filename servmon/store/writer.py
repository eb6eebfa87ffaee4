"""Stores what the checks found and what it meant: in batches, off the path of the checks, nothing twice.

The only way of check results into Postgres. A connection of its own, so that no reader ever waits for it or makes
it wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import asyncpg
import structlog

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import StoreUnavailableError
from servmon.metrics import Counters
from servmon.model import CheckResult, Transition
from servmon.store.batch import halves, write
from servmon.store.pool import NEVER, connect
from servmon.store.spool import Entry, Spool
from servmon.tasks import cancel, spawn

_log = structlog.get_logger(__name__)

FLUSH_SECONDS = 0.25
FULL_BATCH = 500
# After a wait for Postgres, larger batches catch up faster; beyond this they only take longer to repeat.
LARGEST_BATCH = 5000
QUEUE_LIMIT = 200_000
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 5.0
# A server that does not answer for so long is given up with its connection, and asked again on another one.
PATIENCE_SECONDS = 5.0
# What waited on disk comes in large batches, for which a busy server may need longer.
REPLAY_PATIENCE_SECONDS = 30.0
# At the stop the process has to end soon; while Postgres takes batches it gets all the time it needs.
DRAIN_PATIENCE_SECONDS = 3.0

# Postgres is away, or refuses for now: full, read-only, shutting down, not migrated. The batch is kept.
_AWAY = (
    OSError,
    StoreUnavailableError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class Writer:
    """Takes results and transitions at any time and stores them soon, each with its transitions in one transaction.

    ``observer`` is this daemon's number in the rows. While Postgres is away everything goes to ``spool`` and from
    there to Postgres, oldest first, once it is back. Without a spool, or where its disk fails, all waits in memory:
    beyond 200,000 waiting results the oldest are dropped and counted, transitions never.
    """

    def __init__(self, dsn: str, counters: Counters, observer: int, spool: Spool | None = None) -> None:
        self._dsn = dsn
        self._counters = counters
        self._observer = observer
        self._spool = spool
        # The transitions in the spool, for those who need to know what Postgres does not.
        self._spooled: list[Transition] = []
        self._queue: deque[Entry] = deque()
        self._rescued: list[Entry] = []
        # What is being stored, in parts: more than one where a row that can never be stored is looked for.
        self._parts: deque[list[Entry]] = deque()
        self._filled = asyncio.Event()
        self._hurry = asyncio.Event()
        self._turn = asyncio.Lock()
        self._connection: Any = None
        self._runs = False
        self._away = False
        self._spool_fails = False

    @property
    def is_away(self) -> bool:
        """Whether Postgres did not take the last batch."""
        return self._away

    @property
    def accepts(self) -> bool:
        """Whether results still find room; otherwise the oldest are being dropped."""
        return len(self._queue) < QUEUE_LIMIT

    @property
    def queued(self) -> int:
        """How many results and separate transitions are not stored yet."""
        spooled = self._spool.count if self._spool else 0
        return len(self._queue) + len(self._rescued) + sum(map(len, self._parts)) + spooled

    def unstored(self) -> list[Transition]:
        """The transitions that wait to be stored, oldest first."""
        entries = chain(chain.from_iterable(self._parts), self._rescued, self._queue)
        return [*self._spooled, *(transition for _, transitions in entries for transition in transitions)]

    def put(self, result: CheckResult | None, transitions: Sequence[Transition]) -> None:
        """Queue a result and its transitions to be stored together; a transition is stored at once."""
        if result is None and not transitions:
            return
        queue = self._queue
        if not queue:
            self._filled.set()
        queue.append((result, transitions))
        if transitions or len(queue) == FULL_BATCH:
            self._hurry.set()
        if len(queue) > QUEUE_LIMIT:
            self._drop_oldest()

    async def run(self) -> None:
        """Store what is queued, at the latest every 250 ms or 500 results, for ever; afterwards ``drain`` the rest."""
        self._runs = True
        wait = FIRST_RETRY_SECONDS
        try:
            while True:
                await self._wait_for_a_batch()
                if not self._is_behind and await self._store_batch(PATIENCE_SECONDS):
                    wait = FIRST_RETRY_SECONDS
                elif self._spool is not None:
                    await self._bridge()
                else:
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, LONGEST_RETRY_SECONDS)
        finally:
            self._runs = False

    async def replay(self) -> None:
        """Store what an earlier run left in the spool; returns once Postgres has all of it."""
        if self._spool is None:
            return
        await self._spool.open()
        if self._spool.count:
            _log.info("results of an earlier run are stored", results=self._spool.count)
            await self._replay()

    async def drain(self) -> None:
        """Bring all that is queued to Postgres, or else to the spool, and return.

        Without a spool, what Postgres does not take for some seconds is given up, loudly.
        """
        give_up_at = SYSTEM_CLOCK.monotonic() + DRAIN_PATIENCE_SECONDS
        try:
            while self._in_memory:
                if not self._is_behind and await self._store_batch(DRAIN_PATIENCE_SECONDS):
                    give_up_at = SYSTEM_CLOCK.monotonic() + DRAIN_PATIENCE_SECONDS
                elif await self._keep():
                    _log.warning("results wait on disk for the next start", results=self.queued)
                elif SYSTEM_CLOCK.monotonic() >= give_up_at:
                    _log.error("results not stored: Postgres is away", results=self.queued)
                    return
                else:
                    await asyncio.sleep(FIRST_RETRY_SECONDS)
        finally:
            if not self._runs:
                await self._close()

    @property
    def _in_memory(self) -> bool:
        return bool(self._queue or self._rescued or self._parts)

    @property
    def _is_behind(self) -> bool:
        """Whether something older than what is in memory waits on disk."""
        return self._spool is not None and self._spool.count > 0

    async def _bridge(self) -> None:
        """While Postgres is away: what arrives goes to disk within 250 ms, and from there to Postgres when it can."""
        replay = spawn(self._replay(), name="replay of the spool")
        try:
            while not replay.done():
                if not await self._keep():
                    await asyncio.sleep(FLUSH_SECONDS)
                await self._wait_for_more(replay)
            # The spool itself may fail: what is in memory goes to Postgres all the same.
            with suppress(StoreUnavailableError):
                await replay
        finally:
            await cancel(replay)
        # Only here nothing is on its way to the disk: what came after the last look of the replay is still there.
        if not self._is_behind:
            self._spooled.clear()

    async def _wait_for_more(self, replay: asyncio.Task[None]) -> None:
        more = spawn(self._filled.wait(), name="more results")
        await asyncio.wait({more, replay}, return_when=asyncio.FIRST_COMPLETED)
        await cancel(more)
        if not replay.done() and not self._hurry.is_set():
            await asyncio.wait({replay}, timeout=FLUSH_SECONDS)

    async def _keep(self) -> bool:
        """Whether everything in memory is on disk now; where the disk fails it stays in memory."""
        if self._spool is None:
            return False
        async with self._turn:
            self._take_batch(limit=QUEUE_LIMIT)
            entries = [entry for part in self._parts for entry in part]
            try:
                dropped = await self._spool.put(entries) if entries else 0
            except StoreUnavailableError as error:
                if not self._spool_fails:
                    _log.error("the spool takes nothing, results wait in memory", problem=str(error))
                self._spool_fails = True
                self._take_back(entries)
                return False
            self._spool_fails = False
            self._parts.clear()
            self._spooled.extend(transition for _, transitions in entries for transition in transitions)
            self._count_dropped(dropped)
            return True

    def _take_back(self, entries: Sequence[Entry]) -> None:
        """Keep in memory what the disk did not take, as far as there is room."""
        self._parts.clear()
        self._queue.extendleft(reversed(entries))
        self._filled.set()
        while len(self._queue) > QUEUE_LIMIT:
            self._drop_oldest()

    async def _replay(self) -> None:
        """Store the spool's entries, oldest first, until it is empty."""
        assert self._spool is not None  # noqa: S101 - only called where there is one
        wait = FIRST_RETRY_SECONDS
        while (spooled := await self._spool.oldest(LARGEST_BATCH)).entries:
            parts = deque([spooled.entries])
            while not await self._store_parts(parts, REPLAY_PATIENCE_SECONDS):
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_RETRY_SECONDS)
            wait = FIRST_RETRY_SECONDS
            await self._spool.drop(spooled.last)

    async def _wait_for_a_batch(self) -> None:
        if self._parts or self._rescued or self._is_behind:
            return
        await self._filled.wait()
        if not self._hurry.is_set():
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def _store_batch(self, patience: float) -> bool:
        """Whether Postgres took the next batch; if it did not, the batch stays where it is."""
        async with self._turn:
            if not self._parts:
                self._take_batch(limit=LARGEST_BATCH)
            return await self._store_parts(self._parts, patience)

    async def _store_parts(self, parts: deque[list[Entry]], patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                while parts:
                    await self._store_part(await self._connected(), parts)
        except _AWAY as error:
            self._counters.store_errors += 1
            self._hang_up()
            if not self._away:
                _log.warning("results wait for Postgres", error=str(error) or type(error).__name__)
            self._away = True
            return False
        except asyncio.CancelledError:
            self._hang_up()  # in the middle of a statement: of no use any more
            raise
        if self._away:
            _log.info("Postgres takes results again", results=self.queued)
        self._away = False
        return True

    def _take_batch(self, limit: int) -> None:
        batch, self._rescued = self._rescued, []
        queue = self._queue
        while queue and len(batch) < limit:
            batch.append(queue.popleft())
        if batch:
            self._parts.append(batch)
        if not queue:
            self._filled.clear()
            self._hurry.clear()

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn)
        return self._connection

    async def _store_part(self, connection: Any, parts: deque[list[Entry]]) -> None:
        part = parts[0]
        try:
            await write(connection, part, self._observer)
        except NEVER as error:  # one row of the part can never be stored; the others can
            parts.popleft()
            smaller = halves(part)
            if not smaller:
                self._counters.store_errors += 1
                _log.error("could not be stored, dropped", entry=repr(part), error=str(error))
            parts.extendleft(reversed(smaller))
        else:
            parts.popleft()
            self._counters.batches_stored += 1
            self._counters.rows_stored += sum(result is not None for result, _ in part)

    def _drop_oldest(self) -> None:
        result, transitions = self._queue.popleft()
        if transitions:
            self._rescued.append((None, transitions))
        self._count_dropped(result is not None)

    def _count_dropped(self, number: int) -> None:
        if number and not self._counters.results_dropped:
            _log.error("too many results wait for Postgres, the oldest are dropped")
        self._counters.results_dropped += number

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _close(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            try:
                await self._connection.close(timeout=1)
            except (*_AWAY, TimeoutError):
                self._connection.terminate()
        self._connection = None
