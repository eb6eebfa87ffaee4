"""Brings batches to Postgres over a connection of its own, and finds the row that can never be stored."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from servmon.errors import StoreUnavailableError
from servmon.metrics import Counters
from servmon.store.batch import halves, write
from servmon.store.entries import Entry, results_in
from servmon.store.pool import NEVER, connect
from servmon.store.rejected import set_aside
from servmon.store.server import identity

# Postgres is away, or refuses for now: full, read-only, shutting down, not migrated. The batch is kept.
AWAY_NOW = (
    OSError,
    StoreUnavailableError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# A batch in parts: more than one where a row that can never be stored is looked for.
Parts = deque[list[Entry]]


class Delivery:
    """One way to Postgres. ``observer`` gives this daemon's number in the rows.

    ``connected`` hears, before anything is stored over a new connection, which server is at its other end, and gives
    that server's number, which is then ``met``.
    """

    def __init__(
        self,
        dsn: str,
        counters: Counters,
        observer: Callable[[], int],
        connected: Callable[[str | None], Awaitable[int]],
    ) -> None:
        self._dsn = dsn
        self._counters = counters
        self._observer = observer
        self._connected = connected
        self._connection: Any = None
        self.met = 0

    async def take(self, parts: Parts, patience: float) -> None:
        """Store ``parts`` and empty it, within ``patience`` seconds.

        Raises one of ``AWAY_NOW`` where Postgres does not take it now; what is not stored is then still in ``parts``.
        """
        try:
            async with asyncio.timeout(patience):
                while parts:
                    await self._store_part(await self._open(), parts)
        except AWAY_NOW:
            self._counters.store_errors += 1
            self.hang_up()
            raise
        except asyncio.CancelledError:
            self.hang_up()  # in the middle of a statement: of no use any more
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # The driver's own way to say that the connection went away under it; nobody asked us to end.
                self._counters.store_errors += 1
                raise StoreUnavailableError("the connection was lost") from None
            raise

    def hang_up(self) -> None:
        """Drop the connection without a word; the next batch opens another."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """End the connection in good order, if the server answers within a second."""
        if self._connection is not None and not self._connection.is_closed():
            try:
                await self._connection.close(timeout=1)
            except (*AWAY_NOW, TimeoutError):
                self._connection.terminate()
        self._connection = None

    async def _open(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn)
            self.met = await self._connected(await identity(self._connection))
        return self._connection

    async def _store_part(self, connection: Any, parts: Parts) -> None:
        part = parts[0]
        try:
            await write(connection, part, self._observer())
        except NEVER as error:  # one row of the part can never be stored; the others can
            smaller = halves(part)
            if not smaller:
                await set_aside(connection, part[0], error)
                self._counters.rows_rejected += 1
            parts.popleft()
            parts.extendleft(reversed(smaller))
        else:
            parts.popleft()
            self._counters.batches_stored += 1
            self._counters.rows_stored += len(results_in(part))
