"""The days of ``service_status_row``: one partition for each UTC day, made ahead, dropped whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import date, datetime

import asyncpg
import structlog

from servmon.errors import StoreUnavailableError
from servmon.store.pool import Executor

_log = structlog.get_logger(__name__)

PREFIX = "service_status_row_"
TRIES = 20
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 5.0
# Somebody else holds the table or made the same day just now: gone a moment later.
_BUSY = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.DuplicateTableError,
    asyncpg.UniqueViolationError,
)

# Whoever comes after us waits as long as we do, the writer of results too: better to try again later.
# Several statements in one query are one transaction, so the limit ends with it.
_ENSURE = """
set local lock_timeout = '200ms'; select ensure_status_partition('{day}')
"""

_DROP = """
set local lock_timeout = '200ms'; drop table if exists service_status_row_{day:%Y%m%d}
"""

_NAMES = """
select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'service_status_row'::regclass
order by c.relname
"""


async def ensure_partitions(db: Executor, days: Iterable[date]) -> None:
    """Make the partitions of those UTC ``days`` that have none. Any number of daemons may do so at once."""
    for day in days:
        await _insist(db, _ENSURE.format(day=day), f"make the partition of {day}")


async def drop_older_than(db: Executor, day: date) -> list[date]:
    """Drop every partition of a day before ``day``, with all its rows; returns those days.

    Takes milliseconds each, whatever they hold. Raises ``StoreUnavailableError`` where one stays in use.
    """
    old = [present for present in await days_present(db) if present < day]
    for each in old:
        await _insist(db, _DROP.format(day=each), f"drop the partition of {each}")
        _log.info("results deleted", day=str(each))
    return old


async def days_present(db: Executor) -> list[date]:
    """The UTC days that have a partition, oldest first."""
    names = [row["relname"] for row in await db.fetch(_NAMES)]
    return [day for name in names if (day := _day_of(name))]


def _day_of(name: str) -> date | None:
    digits = name.removeprefix(PREFIX)
    # Whatever else a person attached there is theirs.
    if not (name.startswith(PREFIX) and len(digits) == 8 and digits.isdecimal()):
        return None
    try:
        return datetime.strptime(f"{digits}+0000", "%Y%m%d%z").date()
    except ValueError:
        return None


async def _insist(db: Executor, change: str, what: str) -> None:
    """Run ``change`` again and again while others are in its way."""
    pause = FIRST_RETRY_SECONDS
    for _ in range(TRIES):
        try:
            await db.execute(change)
        except _BUSY:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)
        else:
            return
    raise StoreUnavailableError(f"cannot {what}: others keep service_status_row locked")
