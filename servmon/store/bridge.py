"""The way over the disk: what people may be owed always takes it, everything else while Postgres is away."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import StoreUnavailableError
from servmon.model import Event, Transition
from servmon.store.delivery import AWAY_NOW, Delivery
from servmon.store.entries import Entry, events_in, transitions_in
from servmon.store.spool import Spool, Spooled

_log = structlog.get_logger(__name__)

# After a wait for Postgres, large batches catch up fast; beyond this they only take longer to repeat.
LARGEST_BATCH = 5000
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 2.0
# What waited on disk comes in large batches, for which a busy server may need longer.
PATIENCE_SECONDS = 30.0
# How often what Postgres took is put on disk.
REMEMBER_EVERY_SECONDS = 2.0


class Bridge:
    """Keeps entries on disk and brings them to Postgres, oldest first.

    ``said`` hears each time whether Postgres took something (``None``), or why not.
    """

    def __init__(self, spool: Spool, delivery: Delivery, said: Callable[[BaseException | None], None]) -> None:
        self._spool = spool
        self._delivery = delivery
        self._said = said
        self._filled = asyncio.Event()
        self._turn = asyncio.Lock()
        # Which server is met is noted by one at a time; each other one counts.
        self._meeting = asyncio.Lock()
        self.servers_met = 0
        # What Postgres took since it was last put on disk for five minutes.
        self._taken: list[Entry] = []
        self._remember_at = -math.inf
        # What waits on disk and people may be owed, by id.
        self.transitions: dict[str, Transition] = {}
        self.events: dict[str, Event] = {}

    @property
    def count(self) -> int:
        """How many entries wait."""
        return self._spool.count

    async def open(self) -> None:
        """Take up what an earlier run left on disk."""
        self._note(await self._spool.open())
        if self.count:
            _log.info("results of an earlier run wait on disk", results=self.count)
            self._filled.set()

    async def lately(self) -> list[Entry]:
        """The transitions and events of the last minutes, whether or not Postgres has them."""
        try:
            return await self._spool.lasting()
        except StoreUnavailableError:
            return []

    async def keep(self, entries: Sequence[Entry]) -> int:
        """Put ``entries`` on disk, from where they go to Postgres; returns how many single results made room.

        Raises ``StoreUnavailableError`` where the disk does not take them.
        """
        dropped = await self._spool.put(entries)
        self._note(entries)
        self._filled.set()
        return dropped

    async def remember(self, entries: Sequence[Entry], met: int) -> None:
        """Postgres took ``entries`` straight: keep them for as long as it may lose them again.

        ``met`` is the number of the server that took them; where another one has been met since, they wait for it.
        The disk is asked every two seconds, since each time costs as much as storing. What it has not yet is in
        Postgres, and here: it would take the end of both at once to lose it.
        """
        async with self._meeting:
            if met != self.servers_met:
                with suppress(StoreUnavailableError):
                    await self.keep(entries)
                return
            self._taken += entries
            if SYSTEM_CLOCK.monotonic() >= self._remember_at:
                await self._remember_taken()

    async def _remember_taken(self) -> None:
        if taken := self._taken:
            self._taken = []
            self._remember_at = SYSTEM_CLOCK.monotonic() + REMEMBER_EVERY_SECONDS
            with suppress(StoreUnavailableError):  # the disk is for the worst case, and that did not happen
                await self._spool.remember(taken)

    async def meet(self, server: str | None) -> int:
        """Say which server is connected now; returns its number. What another one took lately waits again."""
        async with self._meeting:
            if server is not None:
                await self._remember_taken()
            with suppress(StoreUnavailableError):
                before = await self._spool.meet(server) if server is not None else None
                if before is not None and before != server:
                    self.servers_met += 1
                    self._filled.set()
                    _log.warning(
                        "another server is met: it is given the last minutes too",
                        before=before,
                        now=server,
                        results=self.count,
                    )
            return self.servers_met

    async def run(self) -> None:
        """Bring what waits to Postgres whenever it takes it, for ever."""
        wait = FIRST_RETRY_SECONDS
        while True:
            await self._filled.wait()
            if await self.cross(PATIENCE_SECONDS):
                wait = FIRST_RETRY_SECONDS
            else:
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_RETRY_SECONDS)

    async def cross(self, patience: float) -> bool:
        """Whether Postgres took the oldest batch on disk, or there was none."""
        async with self._turn:
            try:
                waiting = await self._spool.oldest(LARGEST_BATCH)
            except StoreUnavailableError:
                return False  # the disk's fault: what is in memory goes to Postgres all the same
            if not waiting.entries:
                self._filled.clear()
                return True
            try:
                await self._delivery.take(deque([waiting.entries]), patience)
            except AWAY_NOW as error:
                self._said(error)
                return False
            self._said(None)
            return await self._stored(waiting)

    async def _stored(self, waiting: Spooled) -> bool:
        if self._delivery.met != self.servers_met:
            self._delivery.hang_up()
            return True  # it went to a server that is no longer the one, and waits for that
        try:
            await self._spool.stored(waiting.numbers)
        except StoreUnavailableError:
            return False  # stored once more another time, which changes nothing
        self._forget(waiting.entries)
        return True

    async def close(self) -> None:
        """End the connection; the file stays open, it is the caller's."""
        async with self._meeting:
            await self._remember_taken()
        await self._delivery.close()

    def _note(self, entries: Sequence[Entry]) -> None:
        self.transitions.update((one.change.id, one) for one in transitions_in(entries))
        self.events.update((one.id, one) for one in events_in(entries))

    def _forget(self, entries: Sequence[Entry]) -> None:
        for transition in transitions_in(entries):
            self.transitions.pop(transition.change.id, None)
        for event in events_in(entries):
            self.events.pop(event.id, None)
