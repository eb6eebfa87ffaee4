"""Tells a daemon at once that somebody changed what it works from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import structlog

from servmon.errors import StoreUnavailableError
from servmon.store.pool import Connection, connect

_log = structlog.get_logger(__name__)

CHANNEL = "servmon_changes"
# Whoever waits looks for itself this often, so that a notice lost on the way costs seconds, not hours.
LONGEST_WAIT_SECONDS = 10.0
PROBE_SECONDS = 2.0
FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 5.0


class ChangeFeed:
    """Listens for changes in the database ``dsn``, on a connection of its own that it opens again when it is lost."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Connection = None
        self._woken = asyncio.Event()
        self._pause = FIRST_RETRY_SECONDS
        self._lost = False

    async def wait(self) -> None:
        """Return after a change, after every connect (changes may have been missed), and after 10 s at the latest."""
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                await self._change_or_connect()
                return
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            self.close()  # nobody waits any more
            raise
        await self._probe()

    async def follow(self, *refreshes: Callable[[], Awaitable[object]]) -> None:
        """Call each of them whenever ``wait`` returns, for ever, and none later because another one takes long.

        What one of them raises ends it.
        """
        bells = [asyncio.Event() for _ in refreshes]
        try:
            async with asyncio.TaskGroup() as group:
                for bell, refresh in zip(bells, refreshes, strict=True):
                    group.create_task(_whenever(bell, refresh))
                while True:
                    await self.wait()
                    for bell in bells:
                        bell.set()
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    def close(self) -> None:
        """Give the connection up; a later ``wait`` opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _change_or_connect(self) -> None:
        while self._connection is not None:
            await self._woken.wait()
            self._woken.clear()
            if not self._connection.is_closed():
                return
            self._say_lost("the connection was closed")
        while not await self._connect():
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, LONGEST_RETRY_SECONDS)

    async def _connect(self) -> bool:
        try:
            connection = await connect(self._dsn)
            try:
                connection.add_termination_listener(self._wake)
                await connection.add_listener(CHANNEL, self._wake)
            except BaseException:
                connection.terminate()
                raise
        except (StoreUnavailableError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._say_lost(str(error))
            return False
        self._connection = connection
        self._pause = FIRST_RETRY_SECONDS
        self._woken.clear()
        if self._lost:
            _log.info("hears of changes at once again")
        self._lost = False
        return True

    async def _probe(self) -> None:
        """A connection that the network lost in silence would never be missed otherwise."""
        if self._connection is None:
            return
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._connection.execute("select")
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._say_lost(str(error) or "no answer")
        except asyncio.CancelledError:
            self.close()
            raise

    def _say_lost(self, why: str) -> None:
        self.close()
        if not self._lost:
            _log.warning("hears of changes only every 10 s until Postgres is back", problem=why)
        self._lost = True

    def _wake(self, *_: object) -> None:
        self._woken.set()


async def _whenever(bell: asyncio.Event, work: Callable[[], Awaitable[object]]) -> None:
    while True:
        await bell.wait()
        bell.clear()
        await work()
