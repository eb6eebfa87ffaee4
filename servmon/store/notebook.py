"""What servmon has to know at a start without Postgres, on the local disk: small texts by subject and key."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from servmon.store.local import LocalFile, commit

_READ = """
select key, body from page where subject = ? order by rowid
"""

_PUT = """
insert into page (subject, key, body) values (?, ?, ?)
on conflict (subject, key) do update set body = excluded.body
"""

_DROP = """
delete from page where subject = ? and key = ?
"""

_CLEAR = """
delete from page where subject = ?
"""

Pages = Mapping[str, str | None]


class Notebook:
    """Pages in the local file. Every method raises ``StoreUnavailableError`` where the disk fails."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file

    async def read(self, subject: str) -> dict[str, str]:
        """Every page on ``subject`` by its key, in the order in which they were first written."""
        return await self._file.run(lambda file: dict(file.execute(_READ, (subject,)).fetchall()))

    async def write(self, pages: Mapping[str, Pages]) -> None:
        """Put pages in their place, by subject and key, in one transaction; ``None`` takes one out."""
        await self._file.run(lambda file: _write(file, pages, replaced=()))

    async def replace(self, pages: Mapping[str, Pages]) -> None:
        """As ``write``; of these subjects no other page is left."""
        await self._file.run(lambda file: _write(file, pages, replaced=pages))


def _write(file: sqlite3.Connection, pages: Mapping[str, Pages], replaced: Iterable[str]) -> None:
    with commit(file, durable=True):
        for subject in replaced:
            file.execute(_CLEAR, (subject,))
        for subject, bodies in pages.items():
            gone = [(subject, key) for key, body in bodies.items() if body is None]
            file.executemany(_DROP, gone)
            file.executemany(_PUT, [(subject, key, body) for key, body in bodies.items() if body is not None])
