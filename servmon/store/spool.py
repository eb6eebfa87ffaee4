"""Keeps on the local disk what Postgres does not take: results, transitions and events, in their order.

What Postgres took stays for five minutes more: a failover to a replica may lose its last commits, and then it waits
once again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from servmon.clock import SYSTEM_CLOCK, Clock
from servmon.store.entries import Entry, decode, encode, is_lasting, transitions_in
from servmon.store.local import LocalFile, commit
from servmon.store.notebook import put_pages
from servmon.store.notes import pages_of
from servmon.store.plain import dump

T = TypeVar("T")

KEPT_SECONDS = 300.0
FORGET_EVERY_SECONDS = 10.0
# Single results stand together, so that they cost little; but not too many, since they are dropped together.
BUNDLE = 500
# A start without Postgres reads no more than that.
NEWEST = 200_000
# So much is freed at once where the file is full: a little at a time would mean doing it at every write.
FREED_AT_ONCE = 5000

_APPEND = """
insert into bundle (entries, lasting, stored_at, body) values (?, ?, ?, ?)
"""

_COUNT = """
select coalesce(sum(entries), 0) from bundle where stored_at is null
"""

_LASTING = """
select body from bundle where stored_at is null and lasting = 1 order by id
"""

_LATELY = """
select body from bundle where lasting = 1 order by id
"""

_OLDEST = """
select id, entries, body from bundle where stored_at is null order by id
"""

_OLDEST_STORED = """
select id, entries from bundle where stored_at is not null order by stored_at, id
"""

_OLDEST_SINGLES = """
select id, entries from bundle where stored_at is null and lasting = 0 order by id
"""

_STORED = """
update bundle set stored_at = ? where stored_at is null and id in (select value from json_each(?))
"""

_FORGET = """
delete from bundle where stored_at < ?
"""

_WAIT_AGAIN = """
update bundle set stored_at = null where stored_at is not null
"""

_SERVER = """
select body from page where subject = 'server' and key = 'met'
"""

_MEET = """
insert into page (subject, key, body) values ('server', 'met', ?)
on conflict (subject, key) do update set body = excluded.body
"""

_NEWEST = """
select body from bundle order by id desc
"""


@dataclass(frozen=True, slots=True)
class Spooled:
    """The oldest waiting entries, and the numbers of their bundles, to say by once they are stored."""

    entries: list[Entry]
    numbers: list[int]


class Spool:
    """A queue on disk of at most ``max_bytes``; where it is full the oldest single results go, others never.

    Every method raises ``StoreUnavailableError`` where the disk fails or is full; what was to be kept is then not.
    """

    def __init__(self, file: LocalFile, max_bytes: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._clock = clock
        self._forget_at = 0.0
        # How many entries wait, and those that came last; set in the thread, both at once.
        self._held: tuple[int, Sequence[Entry]] = (0, ())
        # Those that are on their way here.
        self._coming: Sequence[Entry] | None = None

    @property
    def count(self) -> int:
        """How many entries wait. What is being ``put`` counts once that is over: until then, who puts it has it."""
        waiting, newest = self._held
        return waiting - len(newest) if newest is self._coming else waiting

    async def open(self) -> list[Entry]:
        """Take up what an earlier run left; returns the transitions and events that wait."""
        await self._file.check()
        return await self._change(_take_up)

    async def put(self, entries: Sequence[Entry]) -> int:
        """Append ``entries`` to what waits, in one transaction; returns how many single results made room for it."""
        durable = any(map(is_lasting, entries))
        self._coming = entries
        try:
            return await self._change(lambda file: self._append(file, entries, durable=durable), entries)
        finally:
            self._coming = None

    async def oldest(self, limit: int) -> Spooled:
        """The oldest waiting entries, about ``limit`` of them; they wait until they are ``stored``."""
        return await self._file.run(lambda file: _oldest(file, limit))

    async def stored(self, numbers: Sequence[int]) -> None:
        """Postgres has the bundles with these numbers. Others before them may have come to wait again meanwhile."""
        await self._change(lambda file: self._stored(file, numbers))

    async def remember(self, entries: Sequence[Entry]) -> None:
        """Keep for a while what Postgres took without its having waited here."""
        await self._file.run(lambda file: self._remember(file, entries))

    async def meet(self, server: str) -> str | None:
        """Note which server is connected; returns the one before, ``None`` where that is not known.

        Another one may have lost what it was given lately, so all of that waits once more.
        """
        return await self._change(lambda file: _meet(file, server))

    async def newest(self, limit: int = NEWEST) -> list[Entry]:
        """The newest entries, oldest first, about ``limit`` of them: whether they wait or were stored lately."""
        return await self._file.run(lambda file: _newest(file, limit))

    async def lasting(self) -> list[Entry]:
        """The transitions and events that wait or were stored lately, in their order."""
        return await self._file.run(lambda file: [one for (body,) in file.execute(_LATELY) for one in decode(body)])

    async def _change(self, work: Callable[[sqlite3.Connection], T], coming: Sequence[Entry] | None = None) -> T:
        """What ``work`` makes of the file, with what waits counted anew, and with it what is ``coming`` by that.

        In the thread: the disk may have taken what it says it has not, and who asks may be gone before it answers.
        """

        def counted(file: sqlite3.Connection) -> T:
            newest = self._held[1]
            try:
                made = work(file)
                newest = newest if coming is None else coming
            finally:
                self._held = (file.execute(_COUNT).fetchone()[0], newest)
            return made

        return await self._file.run(counted)

    # In the thread.

    def _append(self, file: sqlite3.Connection, entries: Sequence[Entry], *, durable: bool) -> int:
        bundles = [(number, lasting, None, body) for number, lasting, body in _bundles(entries)]
        pages = pages_of(transitions_in(entries))
        with commit(file, durable=durable):
            dropped: int = self._make_room(file)
            file.executemany(_APPEND, bundles)
            put_pages(file, pages)
        return dropped

    def _remember(self, file: sqlite3.Connection, entries: Sequence[Entry]) -> None:
        at = self._clock.wall()
        with commit(file, durable=False):
            self._forget(file, at)
            if self._has_room(file):
                file.executemany(_APPEND, [(number, lasting, at, body) for number, lasting, body in _bundles(entries)])

    def _stored(self, file: sqlite3.Connection, numbers: Sequence[int]) -> None:
        at = self._clock.wall()
        with commit(file, durable=False):
            file.execute(_STORED, (at, dump(list(numbers))))
            self._forget(file, at)
        if not file.execute(_COUNT).fetchone()[0]:
            file.execute("pragma wal_checkpoint(truncate)")

    def _forget(self, file: sqlite3.Connection, at: float) -> None:
        if at >= self._forget_at:
            file.execute(_FORGET, (at - KEPT_SECONDS,))
            self._forget_at = at + FORGET_EVERY_SECONDS

    def _has_room(self, file: sqlite3.Connection) -> bool:
        pages, size, free = (
            file.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "page_size", "freelist_count")
        )
        return bool((pages - free) * size < self._max_bytes)

    def _make_room(self, file: sqlite3.Connection) -> int:
        """Free room where there is none: first what Postgres has, then the oldest single results that wait."""
        if self._has_room(file) or _delete(file, _OLDEST_STORED):
            return 0
        return _delete(file, _OLDEST_SINGLES)


def _bundles(entries: Sequence[Entry]) -> list[tuple[int, int, str]]:
    """``entries`` in their order: how many are in a bundle, whether it is lasting, and its text."""
    bundles: list[list[Entry]] = []
    for entry in entries:
        last = bundles[-1] if bundles else []
        if last and len(last) < BUNDLE and is_lasting(last[0]) == is_lasting(entry):
            last.append(entry)
        else:
            bundles.append([entry])
    return [(len(bundle), int(is_lasting(bundle[0])), encode(bundle)) for bundle in bundles]


def _take_up(file: sqlite3.Connection) -> list[Entry]:
    return [entry for (body,) in file.execute(_LASTING) for entry in decode(body)]


def _oldest(file: sqlite3.Connection, limit: int) -> Spooled:
    entries: list[Entry] = []
    numbers: list[int] = []
    for number, _, body in file.execute(_OLDEST):
        entries += decode(body)
        numbers.append(number)
        if len(entries) >= limit:
            break
    return Spooled(entries, numbers)


def _newest(file: sqlite3.Connection, limit: int) -> list[Entry]:
    bundles: list[list[Entry]] = []
    number = 0
    for (body,) in file.execute(_NEWEST):
        bundles.append(decode(body))
        number += len(bundles[-1])
        if number >= limit:
            break
    return [entry for bundle in reversed(bundles) for entry in bundle]


def _meet(file: sqlite3.Connection, server: str) -> str | None:
    known: tuple[str] | None = file.execute(_SERVER).fetchone()
    if known == (server,):
        return server
    with commit(file, durable=True):
        file.execute(_MEET, (server,))
        file.execute(_WAIT_AGAIN)
    return known[0] if known else None


def _delete(file: sqlite3.Connection, candidates: str) -> int:
    """Delete the first of ``candidates``, some 5,000 entries; returns how many."""
    deleted = 0
    gone: list[tuple[int]] = []
    for number, entries in file.execute(candidates):
        gone.append((number,))
        deleted += entries
        if deleted >= FREED_AT_ONCE:
            break
    file.executemany("delete from bundle where id = ?", gone)
    return deleted
