"""Which stored results Elasticsearch has: a cursor over their numbers, and the pages of rows behind it.

Rows become visible out of the order of their numbers, since transactions overlap. The cursor therefore never passes
a number below which a transaction may still be writing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

import asyncpg

from servmon.errors import ServmonError, StoreUnavailableError
from servmon.model import Endpoint, ServiceStatus
from servmon.store import rows, status_rows
from servmon.store.pool import Connection, Executor, connect, transaction

POLL_SECONDS = 0.05
# Our own transactions take milliseconds.
PATIENCE_SECONDS = 2.0


class UnsettledError(ServmonError):
    """Somebody may still write rows below every number that could be told."""


async def open_reader(dsn: str) -> Connection:
    """A connection to feed Elasticsearch from. Raises ``StoreUnavailableError``, also where the schema is older."""
    connection = await connect(dsn)
    try:
        table = await connection.fetchval("select to_regclass('elasticsearch_dead_letter')")
    except BaseException:
        connection.terminate()
        raise
    if table is None:
        connection.terminate()
        raise StoreUnavailableError("the schema is older than this servmon: run `servmon db migrate`")
    return connection


_CURSOR = """
select seq from elasticsearch_cursor
"""


async def cursor(db: Executor) -> int:
    """The number up to which Elasticsearch has every row, but for its dead letters."""
    return int(await db.fetchval(_CURSOR))


_ADVANCE = """
update elasticsearch_cursor set seq = $1 where seq < $1
"""


async def advance(db: Executor, seq: int) -> None:
    """Elasticsearch has every row up to ``seq``; whoever knows less changes nothing."""
    await db.execute(_ADVANCE, seq)


_LAST_NUMBER = """
select case when is_called then last_value else last_value - 1 end from service_status_seq
"""


async def last_number(db: Executor) -> int:
    """The last number that was given to a row, visible or not."""
    return int(await db.fetchval(_LAST_NUMBER))


# Whoever writes rows holds this lock before the first of them has a number, until what it wrote is visible or gone.
# Unlike a snapshot's horizon it does not wait for long transactions that have nothing to do with results.
_WRITERS = """
select virtualtransaction from pg_locks
where locktype = 'relation' and relation = 'service_status_row'::regclass and mode = 'RowExclusiveLock' and granted
and database = (select oid from pg_database where datname = current_database())
"""


async def settled_mark(db: Executor, *, patience: float = PATIENCE_SECONDS) -> int:
    """A number below which no row will appear any more: every transaction that may write one has ended.

    Raises ``UnsettledError`` where one of them takes longer than ``patience`` seconds.
    """
    mark = await last_number(db)
    writers = await _writers(db)
    waited = 0.0
    while writers:
        if waited >= patience:
            raise UnsettledError(
                f"a transaction that writes results is open for more than {patience:g} s: what it writes may belong"
                " before what is there, so that waits"
            )
        await asyncio.sleep(POLL_SECONDS)
        waited += POLL_SECONDS
        writers &= await _writers(db)
    return mark


async def _writers(db: Executor) -> set[str]:
    return {row["virtualtransaction"] for row in await db.fetch(_WRITERS)}


class Numbered(NamedTuple):
    """A stored result, the number of its row, and the endpoint it is about."""

    seq: int
    status: ServiceStatus
    endpoint: Endpoint


# Young partitions have no statistics, and without them the planner takes so coarse an index for useless.
_BY_NUMBER = """
set local enable_seqscan = off
"""
_PAGE = """
select r.*, e.endpoint_id, o.name as observer_name, true as elasticsearch_synced
from (
    select * from service_status_row where seq > $1 and seq <= $2 order by seq limit $3
) r
left join lateral (select id as endpoint_id from service_endpoint where key = r.endpoint_key) e on true
left join observer o on o.number = r.observer
order by r.seq
"""


async def page(db: Connection, subjects: Subjects, after: int, until: int, limit: int) -> tuple[list[Numbered], int]:
    """At most ``limit`` rows with numbers after ``after`` up to ``until``, and the number up to which that is all.

    The difference of the numbers bounds what is read.
    """
    async with transaction(db):
        await db.execute(_BY_NUMBER)
        found = await db.fetch(_PAGE, after, until, limit)
    end = until if len(found) < limit else found[-1]["seq"]
    return await _numbered(db, subjects, found), end


_DAY_PAGE = """
select r.*, e.endpoint_id, o.name as observer_name, true as elasticsearch_synced
from (
    select * from service_status_row
    where timestamp >= $1 and timestamp < $2 and (endpoint_key, observer, timestamp) > ($3, $4, $5)
    order by endpoint_key, observer, timestamp
    limit $6
) r
left join lateral (select id as endpoint_id from service_endpoint where key = r.endpoint_key) e on true
left join observer o on o.number = r.observer
order by r.endpoint_key, r.observer, r.timestamp
"""


@dataclass(slots=True)
class Place:
    """How far a reading of one day has come, in the order of the rows' own index."""

    since: datetime
    until: datetime
    endpoint_key: int = 0
    observer: int = -1
    timestamp: datetime | None = None
    at_end: bool = False


async def day_page(db: Executor, subjects: Subjects, place: Place, limit: int) -> list[Numbered]:
    """The next rows of a day, at most ``limit``; moves ``place`` past them."""
    at = place.timestamp or place.since
    found = await db.fetch(_DAY_PAGE, place.since, place.until, place.endpoint_key, place.observer, at, limit)
    place.at_end = len(found) < limit
    if found:
        last = found[-1]
        place.endpoint_key, place.observer, place.timestamp = last["endpoint_key"], last["observer"], last["timestamp"]
    return await _numbered(db, subjects, found)


async def _numbered(db: Executor, subjects: Subjects, found: Sequence[rows.Row]) -> list[Numbered]:
    known = await subjects.of(db, {row["endpoint_key"] for row in found})
    # An endpoint is never removed from its table but by somebody's own hand; then nobody knows what its rows tell.
    told = [row for row in found if row["endpoint_key"] in known]
    return [Numbered(row["seq"], status_rows.service_status(row), known[row["endpoint_key"]]) for row in told]


_SUBJECTS = """
select key, id, name, url, protocol, tags, site from service_endpoint where key = any($1::int[])
"""
_REVISION = """
select revision from change_revision
"""


class Subjects:
    """The endpoints that documents are about, as far as documents tell of them; each is read once per change."""

    def __init__(self) -> None:
        self._known: dict[int, Endpoint] = {}
        self._revision = -1

    async def renew(self, db: Executor) -> None:
        """Forget what may have changed since."""
        revision = await db.fetchval(_REVISION)
        if revision != self._revision:
            self._known.clear()
            self._revision = revision

    async def of(self, db: Executor, keys: Iterable[int]) -> dict[int, Endpoint]:
        """At least the endpoints of ``keys``, by key; deleted ones as well."""
        missing = [key for key in keys if key not in self._known]
        if missing:
            for row in await db.fetch(_SUBJECTS, missing):
                self._known[row["key"]] = _subject(row)
        return self._known


def _subject(row: rows.Row) -> Endpoint:
    return Endpoint(
        id=row["id"],
        name=row["name"],
        url=row["url"],
        protocol=row["protocol"],
        tags=tuple(row["tags"]),
        site=row["site"],
        key=row["key"],
    )


_INDEXES = """
select i.inhrelid::regclass::text as name
from pg_inherits i
where i.inhparent = 'service_status_row_seq'::regclass
order by 1 desc
"""
# Several statements in one query are one transaction, so the limit ends with it. It is below deadlock_timeout: an
# autovacuum at work has done the same already, and is not to be cancelled.
_SUMMARIZE = """
set local lock_timeout = '100ms'; select brin_summarize_new_values('{name}'::regclass)
"""
_IN_THE_WAY = (asyncpg.LockNotAvailableError, asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError)


async def summarize(db: Executor) -> None:
    """Note which pages hold which numbers where nobody did yet; autovacuum, which should, comes late and may be off."""
    for row in await db.fetch(_INDEXES):
        try:
            await db.execute(_SUMMARIZE.format(name=row["name"]))
        except _IN_THE_WAY:
            continue


_DAYS = """
select (timestamp at time zone 'UTC')::date as day, count(*) as stored, count(*) filter (where seq <= $3) as synced
from service_status_row where timestamp >= $1 and timestamp < $2
group by 1
"""


class DayCount(NamedTuple):
    """How many rows of a UTC day are stored, and how many of them Elasticsearch should have."""

    day: date
    stored: int
    synced: int


async def count_day(db: Executor, since: datetime, until: datetime, mark: int) -> DayCount:
    """Count the rows of the day from ``since`` until ``until``; those up to the number ``mark`` are synced."""
    row = await db.fetchrow(_DAYS, since, until, mark)
    return DayCount(row["day"], row["stored"], row["synced"]) if row else DayCount(since.date(), 0, 0)
