"""What waits in memory to be stored: bounded, and whoever empties it is told when there is something."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

import structlog

from servmon.metrics import Counters
from servmon.model import CheckResult, Event
from servmon.store.entries import Entry, is_lasting

_log = structlog.get_logger(__name__)

FLUSH_SECONDS = 0.25
FULL_BATCH = 500
QUEUE_LIMIT = 200_000


class Backlog:
    """Entries in order; beyond 200,000 the oldest results are dropped and counted, transitions and events never."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._queue: deque[Entry] = deque()
        # What stands before the queue: results were dropped from it, and these have to stay.
        self._rescued: list[Entry] = []
        self._filled = asyncio.Event()
        self._hurry = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue) + len(self._rescued)

    def __iter__(self) -> Iterator[Entry]:
        return chain(self._rescued, self._queue)

    @property
    def is_full(self) -> bool:
        """Whether one more drops the oldest."""
        return len(self._queue) >= QUEUE_LIMIT

    def put(self, entry: Entry) -> None:
        """Add an entry; one with transitions, or the last of a full batch, is in a hurry."""
        queue = self._queue
        if not queue:
            self._filled.set()
        queue.append(entry)
        if entry[1] or len(queue) == FULL_BATCH:
            self._hurry.set()
        if len(queue) > QUEUE_LIMIT:
            self._drop_oldest()

    def hurry(self) -> None:
        """What is here waits for no more company."""
        self._hurry.set()

    async def filled(self) -> None:
        """Return when there is a batch: at the latest 250 ms after its first entry."""
        await self._filled.wait()
        if not self._hurry.is_set():
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    def take(self, limit: int) -> list[Entry]:
        """The oldest entries, about ``limit`` of them, out of here."""
        taken, self._rescued = self._rescued, []
        queue = self._queue
        while queue and len(taken) < limit:
            taken.append(queue.popleft())
        if not queue:
            self._filled.clear()
            self._hurry.clear()
        return taken

    def put_back(self, entries: Sequence[Entry]) -> None:
        """What was taken and neither stored nor kept stands first again, as far as there is room."""
        if not entries:
            return
        self._queue.extendleft(reversed(entries))
        self._filled.set()
        while len(self._queue) > QUEUE_LIMIT:
            self._drop_oldest()

    def count_dropped(self, number: int) -> None:
        """So many results made room for others."""
        if number and not self._counters.results_dropped:
            _log.error("too many results wait for Postgres, the oldest are dropped")
        self._counters.results_dropped += number

    def _drop_oldest(self) -> None:
        entry = self._queue.popleft()
        if is_lasting(entry):
            found, transitions = entry
            self._rescued.append((found if isinstance(found, Event) else None, transitions))
        self.count_dropped(isinstance(entry[0], CheckResult))
