"""What servmon has to know at a start without Postgres, on the local disk: small texts by subject and key."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from servmon.store.local import LocalFile, commit
from servmon.store.plain import dump

_READ = """
select subject, key, body from page where subject in (select value from json_each(?)) order by rowid
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

_FORGET = """
delete from page where subject not in ('server', ?)
"""

# By subject and key; None takes a page out.
Pages = Mapping[str, Mapping[str, str | None]]


class Notebook:
    """Pages in the local file. Every method raises ``StoreUnavailableError`` where the disk fails."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file

    async def read(self, *subjects: str) -> dict[str, dict[str, str]]:
        """Every page on ``subjects`` by its key, in the order in which they were first written."""
        return await self._file.run(lambda file: _read(file, subjects))

    async def write(self, pages: Pages) -> None:
        """Put pages in their place, in one transaction."""
        await self._file.run(lambda file: _write(file, pages, replaced=()))

    async def replace(self, pages: Pages) -> None:
        """As ``write``; of these subjects no other page is left."""
        await self._file.run(lambda file: _write(file, pages, replaced=pages))

    async def forget(self, *, all_but: str) -> None:
        """Take every page out but those on one subject."""
        await self._file.run(lambda file: file.execute(_FORGET, (all_but,)).fetchall())


def put_pages(file: sqlite3.Connection, pages: Pages) -> None:
    """Put pages in their place, within a transaction of the caller's."""
    for subject, bodies in pages.items():
        file.executemany(_DROP, [(subject, key) for key, body in bodies.items() if body is None])
        file.executemany(_PUT, [(subject, key, body) for key, body in bodies.items() if body is not None])


def _read(file: sqlite3.Connection, subjects: Iterable[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {subject: {} for subject in subjects}
    for subject, key, body in file.execute(_READ, (dump(list(found)),)):
        found[subject][key] = body
    return found


def _write(file: sqlite3.Connection, pages: Pages, replaced: Iterable[str]) -> None:
    with commit(file, durable=True):
        file.executemany(_CLEAR, [(subject,) for subject in replaced])
        put_pages(file, pages)
