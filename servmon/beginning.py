"""The start: from what Postgres holds, or while it is away from what was noted, until it comes."""

from __future__ import annotations

import asyncio

import structlog

from servmon.database import remember_database
from servmon.errors import StoreUnavailableError
from servmon.provisioning import Provisioning
from servmon.store.migrate import migrate
from servmon.store.notebook import Notebook
from servmon.store.notes import ENDPOINT, SUBJECTS, recollected
from servmon.store.pool import AWAY
from servmon.store.spool import Spool
from servmon.store.writer import Writer
from servmon.watchlist import Watchlist

_log = structlog.get_logger(__name__)

# A server that lets a start wait longer counts as away, where servmon knows enough to do without it.
PATIENCE_SECONDS = 20.0
RETRY_SECONDS = 2.0


class Beginning:
    """Brings Postgres and the parts of servmon together."""

    def __init__(
        self,
        dsn: str,
        *,
        provisioning: Provisioning,
        writer: Writer,
        watchlist: Watchlist,
        spool: Spool,
        notebook: Notebook,
    ) -> None:
        self._dsn = dsn
        self._provisioning = provisioning
        self._writer = writer
        self._watchlist = watchlist
        self._spool = spool
        self._notebook = notebook
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
            known = recollected(await self._notebook.read(*SUBJECTS), await self._spool.newest())
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
            return bool((await self._notebook.read(ENDPOINT))[ENDPOINT])
        except StoreUnavailableError as error:
            _log.error("what was noted for a start without Postgres cannot be read", problem=str(error))
            return False

    async def _meet(self) -> None:
        await migrate(self._dsn)
        remember_database(self._provisioning.settings)
        await self._provisioning.begin()
        await self._provisioning.keep()
