"""Whether the mirror is whole: rows and documents counted day by day, and where they differ."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from servmon.elastic import mapping
from servmon.elastic.cluster import Cluster
from servmon.elastic.mapping import Kind
from servmon.elastic.setup import OURS
from servmon.store import elastic_cursor, elastic_due
from servmon.store.partitions import days_present
from servmon.store.pool import Connection

# What stands for the day of an index that has none.
NO_DAY = date.min


@dataclass(frozen=True, slots=True)
class Compared:
    """One index: how many rows there are, how many of them should be there by now, and how many are.

    ``there`` is ``None`` where the index does not exist. ``dropped`` says that retention has been there.
    """

    kind: Kind
    index: str
    stored: int
    synced: int
    there: int | None
    dropped: bool = False

    @property
    def difference(self) -> str | None:
        """What is wrong, in words; what is still on its way is not."""
        there = self.there or 0
        if self.dropped or (self.stored == 0 and self.kind is Kind.STATUS):
            return None  # the results of that day are kept in one place only
        if there < self.synced:
            return f"{self.synced - there} missing"
        if there > self.stored:
            return f"{there - self.stored} too many"
        return None


async def compare(db: Connection, cluster: Cluster, today: date, retention_days: int = 0) -> AsyncIterator[Compared]:
    """Every index that there is or should be, oldest first. ``db`` is an ``elastic_cursor.open_reader``.

    Counts exactly, so it takes as long as reading the rows does. Raises ``ElasticError``.
    """
    there = await _documents(cluster)
    refused = await elastic_due.count_letters_by_index(db)
    mark = await elastic_cursor.cursor(db)
    oldest = today - timedelta(days=retention_days) if retention_days else date.min
    outages = {one.day: one for one in await elastic_due.count_outages(db)}
    results = set(await days_present(db))
    days = results | outages.keys() | {day for name in there if (day := mapping.day_of(name))}
    for day in sorted(days):
        begin = datetime.combine(day, time(), UTC)
        if day in results or mapping.status_index(begin) in there:
            rows = await elastic_cursor.count_day(db, begin, begin + timedelta(days=1), mark)
            yield _compared(Kind.STATUS, rows, there, refused, oldest)
        if day in outages or mapping.outage_index(begin) in there:
            rows = outages.get(day, elastic_cursor.DayCount(day, 0, 0))
            yield _compared(Kind.OUTAGE, rows, there, refused, oldest)
    stored, synced = await elastic_due.count_windows(db)
    if stored or mapping.MAINTENANCE_INDEX in there:
        index = mapping.MAINTENANCE_INDEX
        yield Compared(Kind.MAINTENANCE, index, stored, synced, there.get(index))


def _compared(
    kind: Kind,
    rows: elastic_cursor.DayCount,
    there: Mapping[str, int],
    refused: Mapping[str, int],
    oldest: date,
) -> Compared:
    begin = datetime.combine(rows.day, time(), UTC)
    index = mapping.status_index(begin) if kind is Kind.STATUS else mapping.outage_index(begin)
    synced = rows.synced - (refused.get(index, 0) if kind is Kind.STATUS else 0)
    dropped = rows.day < oldest and index not in there
    return Compared(kind, index, rows.stored, synced, there.get(index), dropped=dropped)


async def _documents(cluster: Cluster) -> dict[str, int]:
    """How many documents each index of our names holds."""
    found = await cluster.ask("GET", f"/{OURS}/_mapping?filter_path=*.mappings._meta", missing={})
    named = [index for index in found if mapping.day_of(index) or index == mapping.MAINTENANCE_INDEX]
    return {index: await _count(cluster, index) for index in named}


async def _count(cluster: Cluster, index: str) -> int:
    await cluster.ask("POST", f"/{index}/_refresh", missing={})
    answer = await cluster.ask("GET", f"/{index}/_count", missing={"count": 0})
    return int(answer["count"])
