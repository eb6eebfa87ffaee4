"""Keeps on the local disk what Postgres does not take: results and transitions, in their order, over any restart.

One SQLite file in WAL mode, touched by one thread of its own, so that a slow disk delays no check. Single results are
committed with ``synchronous = NORMAL`` (a power cut may cost the last moments), changes with ``FULL``.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from servmon.errors import StoreUnavailableError
from servmon.model import (
    CheckResult,
    CheckSource,
    FailureKind,
    Outage,
    Phases,
    Severity,
    State,
    StateChange,
    Status,
    Transition,
)
from servmon.store import rows

T = TypeVar("T")
_log = structlog.get_logger(__name__)
Entry = tuple[CheckResult | None, Sequence[Transition]]

FILE = "spool.sqlite"
_SCHEMA = """
create table if not exists entry (
    id integer primary key,
    -- 1 where it holds a transition: such an entry is never dropped.
    changes integer not null,
    body text not null
)
"""
# So many are dropped at once where the file is full: a little at a time would mean doing it at every write.
DROPPED_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Spooled:
    """The oldest entries, and the number of the last of them, to drop them by once they are stored."""

    entries: list[Entry]
    last: int


class Spool:
    """A queue on disk of at most ``max_bytes``; where it is full the oldest single results go, transitions never.

    Every method raises ``StoreUnavailableError`` where the disk fails or is full; what was to be kept is then not.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._path = folder / FILE
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._file: sqlite3.Connection | None = None
        self.count = 0

    async def open(self) -> None:
        """Take up what an earlier run left; a file that cannot be read is put aside, and a new one begun."""
        self.count = await self._in_thread(self._take_up)

    async def close(self) -> None:
        """Close the file; what is in it stays."""
        await self._in_thread(self._close)
        self._thread.shutdown(wait=False)

    async def put(self, entries: Sequence[Entry]) -> int:
        """Append ``entries`` in one transaction; returns how many single results were dropped to make room."""
        dropped, self.count = await self._in_thread(lambda: self._append(entries))
        return dropped

    async def oldest(self, limit: int) -> Spooled:
        """The oldest entries, at most ``limit``; they stay until they are dropped."""
        return await self._in_thread(lambda: self._read(limit))

    async def drop(self, last: int) -> None:
        """Forget every entry up to the one with this number: it is stored elsewhere."""
        self.count = await self._in_thread(lambda: self._forget(last))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailableError(f"the spool {self._path} cannot be used: {error}") from None

    # In the thread.

    def _opened(self) -> sqlite3.Connection:
        if self._file is None:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            file = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._path.chmod(0o600)
            file.execute("pragma journal_mode = wal")
            file.execute("pragma auto_vacuum = incremental")
            file.execute(_SCHEMA)
            self._file = file
        return self._file

    def _take_up(self) -> int:
        try:
            return self._count()
        except sqlite3.DatabaseError as error:
            self._close()
            aside = self._path.with_suffix(".broken")
            self._path.rename(aside)
            _log.error("the spool cannot be read and is put aside", file=str(aside), problem=str(error))
            return 0

    def _count(self) -> int:
        if self._file is None and not self._path.exists():
            return 0
        number: int = self._opened().execute("select count(*) from entry").fetchone()[0]
        return number

    def _append(self, entries: Sequence[Entry]) -> tuple[int, int]:
        file = self._opened()
        changes = any(transitions for _, transitions in entries)
        file.execute(f"pragma synchronous = {'full' if changes else 'normal'}")
        bodies = [(int(bool(entry[1])), encode(entry)) for entry in entries]
        file.execute("begin")
        try:
            dropped = self._make_room(file)
            file.executemany("insert into entry (changes, body) values (?, ?)", bodies)
            file.execute("commit")
        except BaseException:
            file.execute("rollback")
            raise
        return dropped, self._count()

    def _make_room(self, file: sqlite3.Connection) -> int:
        pages, size, free = (
            file.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "page_size", "freelist_count")
        )
        if (pages - free) * size < self._max_bytes:
            return 0
        oldest = "select id from entry where changes = 0 order by id limit ?"
        return file.execute(f"delete from entry where id in ({oldest})", (DROPPED_AT_ONCE,)).rowcount  # noqa: S608

    def _read(self, limit: int) -> Spooled:
        found = self._opened().execute("select id, body from entry order by id limit ?", (limit,)).fetchall()
        return Spooled([decode(body) for _, body in found], found[-1][0] if found else 0)

    def _forget(self, last: int) -> int:
        file = self._opened()
        file.execute("delete from entry where id <= ?", (last,))
        left = self._count()
        if not left:
            file.execute("pragma incremental_vacuum")
            file.execute("pragma wal_checkpoint(truncate)")
        return left

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def encode(entry: Entry) -> str:
    """An entry as JSON."""
    result, transitions = entry
    return json.dumps(
        [result, [[one.change, one.outage] for one in transitions]], default=rows.plain, ensure_ascii=True
    )


def decode(body: str) -> Entry:
    """What ``encode`` was given."""
    result, transitions = json.loads(body)
    return (
        _result(result) if result else None,
        tuple(Transition(_change(change), _outage(outage) if outage else None) for change, outage in transitions),
    )


def _result(found: dict[str, Any]) -> CheckResult:
    kind = found["failure_kind"]
    return CheckResult(
        **{
            **found,
            "status": Status(found["status"]),
            "timestamp": datetime.fromisoformat(found["timestamp"]),
            "failure_kind": FailureKind(kind) if kind else None,
            "source": CheckSource(found["source"]),
            "phases": Phases(**found["phases"]),
        }
    )


def _change(found: dict[str, Any]) -> StateChange:
    moment = datetime.fromisoformat(found["at"])
    return StateChange(**{**found, "old": State(found["old"]), "new": State(found["new"]), "at": moment})


def _outage(found: dict[str, Any]) -> Outage:
    times = {name: _moment(found[name]) for name in ("start_time", "declared_at", "last_good_at", "resolved_at")}
    channels = tuple(found["notification_channels"])
    return Outage(**{**found, **times, "severity": Severity(found["severity"]), "notification_channels": channels})


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
