"""Makes a mirror whole again from Postgres: what waits, or everything since a day, beside a live sync or without."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import TypeVar

from servmon.elastic.cluster import Cluster, ElasticError
from servmon.elastic.lanes import Pause
from servmon.elastic.setup import prepare
from servmon.elastic.sync import PAGE, Sync
from servmon.model import Outage
from servmon.store import elastic_cursor
from servmon.store.elastic_cursor import Place, UnsettledError
from servmon.store.partitions import days_present
from servmon.store.pool import Connection

T = TypeVar("T")

# So often something is tried before it is given up: some five minutes.
TRIES = 10
# Told of each step: what is sent, how many of them, and how many of those have arrived.
Progress = Callable[[str, int, int], None]


class Rebuild:
    """One run over ``cluster``. Whatever breaks it off, what arrived stays, and a second run goes over the rest."""

    def __init__(
        self,
        db: Connection,
        cluster: Cluster,
        sync: Sync,
        *,
        progress: Progress,
        say: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._db = db
        self._cluster = cluster
        self._sync = sync
        self._progress = progress
        self._say = say
        self._sleep = sleep

    async def resync(self) -> None:
        """Send all that waits, now, and offer once more what was refused. Raises ``ElasticError``."""
        await self._patiently(partial(prepare, self._cluster))
        await self._patiently(self._sync.offer_dead_letters)
        total = await elastic_cursor.last_number(self._db) - await elastic_cursor.cursor(self._db)
        while left := await self._patiently(self._sync.statuses):
            self._progress("results", total, max(total - left, 0))
        self._progress("results", total, total)
        while await self._patiently(self._sync.outages):
            pass
        await self._patiently(self._sync.refresh_open)
        await self._patiently(self._sync.windows)

    async def since(self, first: date, oldest: date = date.min) -> None:
        """Send everything of the day ``first`` and later, whether it was sent before or not; of ``oldest`` at least.

        Raises ``ElasticError``.
        """
        await self._patiently(partial(prepare, self._cluster))
        await self._sync.subjects.renew(self._db)
        for day in await days_present(self._db):
            if day >= max(first, oldest):
                await self._day(day)
        await self._outages(datetime.combine(first, time(), UTC))
        number = await self._patiently(partial(self._sync.windows, all_of_them=True))
        self._progress("maintenance windows", number, number)

    async def _day(self, day: date) -> None:
        begin = datetime.combine(day, time(), UTC)
        end = begin + timedelta(days=1)
        total = (await elastic_cursor.count_day(self._db, begin, end, 0)).stored
        if not total:
            return
        place, done = Place(begin, end), 0
        while not place.at_end:
            page = await elastic_cursor.day_page(self._db, self._sync.subjects, place, PAGE)
            documents = self._sync.status_documents(page)
            await self._patiently(partial(self._sync.deliver, documents))
            done += len(page)
            self._progress(f"results of {day}", max(total, done), done)

    async def _outages(self, since: datetime) -> None:
        last: Outage | None = None
        done = 0
        while page := await self._patiently(partial(self._sync.outages_since, since, last)):
            done, last = done + len(page), page[-1].outage
            self._progress("outages", done, done)

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        pause = Pause()
        for left in reversed(range(TRIES)):
            try:
                return await work()
            except (ElasticError, UnsettledError) as error:
                if not left:
                    raise
                self._say(f"{error}; trying again")
            await self._sleep(pause.next())
        raise AssertionError  # the last try has raised or returned
