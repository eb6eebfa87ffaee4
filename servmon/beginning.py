"""The start: from what Postgres holds, or while it is away from what was noted, until it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from servmon.database import remember_database
from servmon.errors import StoreUnavailableError
from servmon.provisioning import Provisioning
from servmon.store import observers
from servmon.store.known import Known
from servmon.store.migrate import migrate
from servmon.store.pool import AWAY, Pool
from servmon.store.recollection import Recollection
from servmon.store.writer import Writer
from servmon.watchlist import Watchlist

_log = structlog.get_logger(__name__)

# A server that lets a start wait longer counts as away, where servmon knows enough to do without it.
PATIENCE_SECONDS = 20.0
RETRY_SECONDS = 2.0


class Beginning:
    """Brings Postgres and the parts of servmon together. ``observed_as`` hears this instance's number in the rows."""

    def __init__(
        self,
        dsn: str,
        db: Pool,
        *,
        provisioning: Provisioning,
        writer: Writer,
        watchlist: Watchlist,
        known: Known,
        observed_as: Callable[[int], None],
    ) -> None:
        self._dsn = dsn
        self._db = db
        self._provisioning = provisioning
        self._writer = writer
        self._watchlist = watchlist
        self._known = known
        self._observed_as = observed_as
        self.waits = False

    async def begin(self) -> None:
        """Know what is to be watched and how it stands. Raises ``StoreUnavailableError`` where nothing is known."""
        is_noted = await self._is_noted()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if is_noted else None):
                await self._meet()
                await self._writer.replay()
                known = await self._watchlist.recollect()
        except AWAY as error:
            if not is_noted:
                raise
            known = await self._recall()
            self.waits = True
            _log.warning(
                "Postgres is away: starting from what is known", endpoints=len(known.endpoints), problem=str(error)
            )
        self._watchlist.load(known, self._writer)

    async def follow(self) -> None:
        """After a start without Postgres: once it comes, bring it and what is watched up to date."""
        while self.waits:
            try:
                await self._meet()
                await self._watchlist.refresh()
            except AWAY:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self.waits = False
                _log.info("Postgres is here: what is watched is as it says")
        await asyncio.Event().wait()

    async def _is_noted(self) -> bool:
        """Whether a start without Postgres would know anything."""
        try:
            await self._writer.open()
            return await self._known.are_there()
        except StoreUnavailableError as error:
            _log.error("what was noted for a start without Postgres cannot be read", problem=str(error))
            return False

    async def hand_over(self) -> None:
        """Bring what an earlier run left in the spool to Postgres; another daemon goes on from there."""
        await self._writer.open()
        await self._writer.replay()

    async def _recall(self) -> Recollection:
        if number := await self._known.observer():
            self._observed_as(number)
        return await self._known.recollect()

    async def _meet(self) -> None:
        await migrate(self._dsn)
        number = await observers.number_of(self._db, self._provisioning.settings.servmon.instance)
        self._observed_as(number)
        with suppress(StoreUnavailableError):
            await self._known.note_observer(number)
        remember_database(self._provisioning.settings)
        await self._provisioning.begin()
        await self._provisioning.keep()
