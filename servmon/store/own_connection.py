"""A connection for one who must not wait for the pool, nor for a server that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from servmon.store.pool import Connection, connect

T = TypeVar("T")

# A Postgres that takes longer counts as away.
PATIENCE_SECONDS = 5.0


class OwnConnection:
    """Opened when it is first needed, and anew after anything went wrong."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Connection = None

    async def ask(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do ``work``. Raises what ``AWAY`` lists where Postgres does not take it within some seconds."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self._dsn)
                return await work(self._connection)
        except BaseException:
            self.hang_up()
            raise

    def hang_up(self) -> None:
        """Drop the connection without a word."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
