"""The configuration that runs: its endpoints are brought into Postgres, and what was applied is kept."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from servmon import log
from servmon.clock import now
from servmon.errors import StartError
from servmon.settings import Loaded, Settings
from servmon.settings.effective import secrets_in
from servmon.settings.kept import keep
from servmon.standing import Standing
from servmon.store import endpoints
from servmon.store.pool import AWAY, Pool

_log = structlog.get_logger(__name__)

# A reload that removes at least so many endpoints, and more than this share, waits until somebody confirms it.
FEWEST_GUARDED = 10
GUARDED_SHARE = 0.1
# After a change of so many, what Postgres knows of its tables is too far from what they hold.
MANY = 500


class Provisioning:
    """Holds the configuration that runs, and brings another one in its place."""

    def __init__(self, loaded: Loaded, pool: Pool, standing: Standing) -> None:
        self._run(loaded)
        self._pool = pool
        self.standing = standing

    @property
    def settings(self) -> Settings:
        """The settings that run."""
        return self.loaded.settings

    async def begin(self) -> None:
        """Bring the endpoints of the configuration into Postgres; the file's values win.

        A file that lost many of its endpoints while servmon was not running takes none out: somebody has to say so.
        """
        lost = await self._would_remove_many(self.loaded)
        await self._provision(self.loaded, remove=not lost)
        if self.loaded.broken:
            self.say_broken()
        elif lost:
            remedy = "; they stay until: servmon config apply --force"
            self.standing.refuse("endpoints missing in the file are not removed", [lost], remedy=remedy)
        else:
            self.standing.accept()

    def say_broken(self) -> None:
        """Say that the file cannot be used, where that is so, with or without Postgres."""
        if self.loaded.broken:
            self.standing.refuse("configuration broken, the last good one runs", self.loaded.broken)

    async def change(self, loaded: Loaded, *, force: bool) -> None:
        """Let ``loaded`` run from now on. Raises ``StartError`` where it would remove many and ``force`` is not set."""
        if not force and (lost := await self._would_remove_many(loaded)):
            raise StartError(f"{lost}; if that is meant: servmon config apply --force")
        await self._provision(loaded, remove=True)
        self._run(loaded)

    async def keep(self) -> None:
        """Keep what was applied, for a start with a broken file; a full disk must not stop the monitoring."""
        if self.loaded.broken:
            return
        try:
            await asyncio.to_thread(keep, self.loaded.texts, self.settings.servmon.data_dir, now())
        except OSError as error:
            _log.error("the configuration could not be kept", problem=str(error))

    def _run(self, loaded: Loaded) -> None:
        self.loaded = loaded
        log.hide("configuration", secrets_in(loaded.settings))

    async def _provision(self, loaded: Loaded, *, remove: bool) -> None:
        done = await endpoints.provision(self._pool, loaded.source, loaded.wanted(), remove=remove)
        for endpoint_id in done.conflicts:
            _log.error("endpoint left alone: its id belongs to another source", endpoint=endpoint_id)
        if done.added or done.changed or done.removed:
            _log.info(
                "endpoints provisioned", added=len(done.added), changed=len(done.changed), removed=len(done.removed)
            )
        if len(done.added) + len(done.changed) + len(done.removed) >= MANY:
            with suppress(*AWAY):  # what is stored is stored, and Postgres will count by itself
                await endpoints.count_anew(self._pool)

    async def _would_remove_many(self, loaded: Loaded) -> str | None:
        """A sentence where more endpoints would go than a person is likely to take out at once."""
        gone, active = await endpoints.missing(self._pool, loaded.source, loaded.wanted())
        if len(gone) < FEWEST_GUARDED or len(gone) <= GUARDED_SHARE * active:
            return None
        return f"it would remove {len(gone)} of {active} endpoints, such as {', '.join(gone[:3])}"
