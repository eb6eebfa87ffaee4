"""What a start without Postgres knows: the notes, and the newest of the spool."""

from __future__ import annotations

from servmon.store.notebook import Notebook
from servmon.store.notes import ENDPOINT, SUBJECTS, recollected
from servmon.store.recollection import Recollection
from servmon.store.spool import Spool

# What concerns this daemon itself.
SELF, OBSERVER = "self", "observer"


class Known:
    """Reads them. Every method raises ``StoreUnavailableError`` where the disk fails."""

    def __init__(self, notebook: Notebook, spool: Spool) -> None:
        self._notebook = notebook
        self._spool = spool

    async def are_there(self) -> bool:
        """Whether anything is known that could be watched."""
        return bool((await self._notebook.read(ENDPOINT))[ENDPOINT])

    async def recollect(self) -> Recollection:
        """All that is watched, and how it stood."""
        return recollected(await self._notebook.read(*SUBJECTS), await self._spool.newest())

    async def observer(self) -> int | None:
        """The number under which this daemon stores what it finds out, if that was ever noted."""
        noted = (await self._notebook.read(SELF))[SELF].get(OBSERVER)
        return int(noted) if noted else None

    async def note_observer(self, number: int) -> None:
        """Note the number under which this daemon stores what it finds out."""
        await self._notebook.write({SELF: {OBSERVER: str(number)}})
