"""The days of ``service_status_row`` and the months of its hours: a partition each, made ahead, dropped whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import asyncpg
import structlog

from servmon.errors import StoreUnavailableError
from servmon.store.pool import Executor

_log = structlog.get_logger(__name__)

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
set local lock_timeout = '200ms'; drop table if exists {table}_{day:{form}}
"""

_NAMES = """
select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = $1::text::regclass
order by c.relname
"""


@dataclass(frozen=True, slots=True)
class Partitioned:
    """A table cut by time; a partition's name ends with its first day in the ``form`` of strftime."""

    table: str
    form: str
    what: str
    longest: timedelta

    def end_of(self, day: date) -> date:
        """The first day that the partition of ``day`` no longer holds."""
        following = day + self.longest
        return following if self.longest.days == 1 else following.replace(day=1)


RESULTS = Partitioned("service_status_row", "%Y%m%d", "results", timedelta(days=1))
HOURS = Partitioned("service_status_hourly", "%Y%m", "hours", timedelta(days=31))


async def ensure_partitions(db: Executor, days: Iterable[date]) -> None:
    """Make the partitions of those UTC ``days`` that have none. Any number of daemons may do so at once."""
    for day in days:
        await insist(db, _ENSURE.format(day=day), f"make the partition of {day}")


async def drop(db: Executor, days: Iterable[date], of: Partitioned = RESULTS) -> None:
    """Drop the partitions that begin at ``days``, with all their rows.

    Takes milliseconds each, whatever they hold. Raises ``StoreUnavailableError`` where one stays in use.
    """
    for day in days:
        await insist(db, _DROP.format(table=of.table, day=day, form=of.form), f"drop the partition of {day}")
        _log.info(f"{of.what} deleted", since=str(day))


async def days_present(db: Executor, of: Partitioned = RESULTS) -> list[date]:
    """The UTC days that have a partition, or that one begins at, oldest first."""
    names = [row["relname"] for row in await db.fetch(_NAMES, of.table)]
    return [day for name in names if (day := _day_of(name, of))]


def _day_of(name: str, of: Partitioned) -> date | None:
    digits = name.removeprefix(f"{of.table}_")
    # Whatever else a person attached there is theirs.
    if digits == name or not digits.isdecimal():
        return None
    try:
        day = datetime.strptime(f"{digits}+0000", f"{of.form}%z").date()
    except ValueError:
        return None
    return day if f"{day:{of.form}}" == digits else None


async def insist(db: Executor, change: str, what: str) -> None:
    """Run ``change`` again and again while others are in its way; ``what`` it is, for people.

    Raises ``StoreUnavailableError`` where they stay there.
    """
    pause = FIRST_RETRY_SECONDS
    for _ in range(TRIES):
        try:
            await db.execute(change)
        except _BUSY:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)
        else:
            return
    raise StoreUnavailableError(f"cannot {what}: others keep its table locked")
