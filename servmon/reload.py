"""Reads the configuration again when that is wished, and applies it or says why not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from servmon.errors import StartError
from servmon.settings import Loaded, SettingsError
from servmon.settings.beside import load_beside
from servmon.settings.watch import ConfigWatch
from servmon.standing import Standing
from servmon.store.pool import AWAY

AGAIN_SECONDS = 5.0
NOT_APPLIED = "configuration not applied"


class Reload:
    """Follows the wish to read the file at ``path`` again; a mistake in it leaves everything as it is.

    ``apply`` takes a configuration that can be used, and whether it may remove many endpoints; it raises
    ``StartError`` for what it refuses. ``standing`` hears how it went.
    """

    def __init__(
        self,
        path: Path | None,
        wished: asyncio.Event,
        apply: Callable[[Loaded, bool], Awaitable[None]],
        standing: Standing,
    ) -> None:
        self._path = path
        self._wished = wished
        self._apply = apply
        self._standing = standing
        self._turn = asyncio.Lock()

    async def follow(self) -> None:
        """Reload at each wish, for ever; while Postgres is away the wish is kept."""
        while True:
            await self._wished.wait()
            self._wished.clear()
            try:
                await self.now()
            except StartError:
                pass
            except AWAY:
                await asyncio.sleep(AGAIN_SECONDS)
                self._wished.set()

    async def follow_edits(self, edits: ConfigWatch) -> None:
        """Wish for it after each edit, for ever."""
        while True:
            await edits.changed()
            self._wished.set()

    async def now(self, *, force: bool = False) -> None:
        """Read and apply the configuration; ``force`` lets it remove many endpoints. Raises what stood in the way."""
        async with self._turn:
            try:
                await self._apply(await load_beside(self._path), force)
            except StartError as error:
                self._standing.refuse(NOT_APPLIED, error.lines if isinstance(error, SettingsError) else [str(error)])
                raise
            except AWAY as error:
                self._standing.delay(NOT_APPLIED, [f"Postgres is away: {str(error) or type(error).__name__}"])
                raise
            self._standing.accept()
