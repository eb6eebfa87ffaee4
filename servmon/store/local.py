"""The file in the data folder that bridges the absence of Postgres: SQLite, touched by one thread of its own.

A slow disk delays no check. What must survive a power cut is committed with ``synchronous = FULL``, single results
with ``NORMAL`` (a power cut may cost the last moments, a crash of the process nothing).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import structlog

from servmon.errors import StoreUnavailableError

T = TypeVar("T")
_log = structlog.get_logger(__name__)

FILE = "spool.sqlite"
_SCHEMA = """
create table if not exists bundle (
    id integer primary key,
    entries integer not null,
    -- 1 where people may be owed what is in it: such a bundle is never dropped.
    lasting integer not null,
    -- Null while it waits for Postgres; afterwards when (seconds since 1970) it got there.
    stored_at real,
    body text not null
);
create index if not exists bundle_waiting on bundle (id, entries, lasting) where stored_at is null;
create index if not exists bundle_stored on bundle (stored_at) where stored_at is not null;
create table if not exists page (
    subject text not null,
    key text not null,
    body text not null,
    primary key (subject, key)
);
"""


class LocalFile:
    """The open file. Its methods raise ``StoreUnavailableError`` where the disk fails or is full."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._file: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` makes of the file, in the thread."""
        return await self._in_thread(lambda: work(self._opened()))

    async def check(self) -> None:
        """Look whether the file can be read; one that cannot is put aside, and a new one begun."""
        await self._in_thread(self._check)

    async def close(self) -> None:
        """Close the file; what is in it stays."""
        await self._in_thread(self._close)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailableError(f"the spool {self.path} cannot be used: {error}") from None

    # In the thread.

    def _opened(self) -> sqlite3.Connection:
        if self._file is None:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            try:
                self._file = self._open("normal")
            except sqlite3.OperationalError:
                # On a full disk there is no room for what several processes share; alone it can still be read.
                self._file = self._open("exclusive")
        return self._file

    def _open(self, locking: str) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self.path.chmod(0o600)
            file.execute(f"pragma locking_mode = {locking}")
            file.execute("pragma journal_mode = wal")
            file.execute("pragma auto_vacuum = incremental")
            file.executescript(_SCHEMA)
        except BaseException:
            file.close()
            raise
        return file

    def _check(self) -> None:
        try:
            self._opened().execute("select count(*) from page").fetchone()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # the disk's fault, not the file's
            self._close()
            aside = self.path.with_suffix(".broken")
            self.path.rename(aside)
            _log.error("the spool cannot be read and is put aside", file=str(aside), problem=str(error))

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def commit(file: sqlite3.Connection, *, durable: bool) -> Iterator[None]:
    """One transaction, which where it is ``durable`` outlives a power cut once it is through."""
    file.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
    file.execute("begin immediate")
    try:
        yield
        file.execute("commit")
    except BaseException:
        if file.in_transaction:
            file.execute("rollback")
        raise
