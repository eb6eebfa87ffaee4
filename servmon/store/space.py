"""How much room the records take, how fast they grow, and when they will have outgrown the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from servmon.clock import now
from servmon.store import partitions
from servmon.store.migrate import applied_to, migrations_folder, pending, read_migrations
from servmon.store.pool import Connection, connect, place_of
from servmon.store.settings import CleanupSection

# As measured, index included; of results those that are there tell better.
BYTES_A_RESULT = 145
BYTES_AN_HOUR = 150

_TABLES = """
select coalesce(p.relname, c.relname)::text as name, sum(pg_total_relation_size(c.oid))::bigint as bytes,
    sum(greatest(c.reltuples, 0))::bigint as rows,
    sum(pg_total_relation_size(c.oid)) filter (where c.reltuples > 0)::bigint as counted_bytes
from pg_class c
left join pg_inherits i on i.inhrelid = c.oid
left join pg_class p on p.oid = i.inhparent
where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'
group by 1
order by 2 desc
"""

_SIZE = """
select pg_database_size(current_database())
"""

_STORED_YESTERDAY = """
select sum(up + degraded + down + unknown)::bigint from service_status_daily
where start = date_trunc('day', now(), 'UTC') - interval '1 day'
"""

_EXPECTED = """
select count(*) as endpoints, coalesce(sum(86400.0 / check_interval), 0)::double precision as a_day
from service_endpoint where is_active and archived_at is null
"""


@dataclass(frozen=True, slots=True)
class TableSize:
    """``rows`` is what the server's statistics say; ``bytes`` with indexes."""

    name: str
    bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Space:
    """``results_a_day`` are those of yesterday, or where none are counted what the endpoints' intervals make.

    ``days_kept`` counts the partitions of single results; ``grown_bytes`` is the size when everything is kept as long
    as ``[cleanup]`` says, ``free_bytes`` what its disk has free, where that is this machine's.
    """

    place: str
    postgres: str
    pending_migrations: Sequence[str]
    bytes: int
    tables: Sequence[TableSize]
    endpoints: int
    results_a_day: int
    bytes_a_result: float
    days_kept: int
    oldest_day: str | None
    grown_bytes: int
    free_bytes: int | None

    @property
    def bytes_a_day(self) -> float:
        """How much single results and hours of one day take."""
        return self.results_a_day * self.bytes_a_result + self.endpoints * 24 * BYTES_AN_HOUR

    def forecast(self, present: datetime) -> str:
        """What will become of the disk, in a sentence."""
        more = self.grown_bytes - self.bytes
        if more <= 0:
            return f"it has grown to its full size of about {in_words(self.grown_bytes)}"
        grown = f"it grows to about {in_words(self.grown_bytes)}"
        if self.free_bytes is None:
            return f"{grown}, by {in_words(self.bytes_a_day)} a day"
        if more < self.free_bytes:
            return f"{grown}; {in_words(self.free_bytes)} are free, so the disk suffices"
        full_at = present + timedelta(days=min(self.free_bytes / max(self.bytes_a_day, 1), 36_500))
        return (
            f"{grown}, but only {in_words(self.free_bytes)} are free: the disk is full about {full_at:%Y-%m-%d}; keep"
            " fewer days, check less often, or give it more room"
        )


async def measure(dsn: str, cleanup: CleanupSection, free_bytes: int | None) -> Space:
    """Look at a database that servmon's migrations have made; raises as ``connect`` and ``migrate`` do."""
    connection = await connect(dsn)
    try:
        applied = await applied_to(connection)
        missing = [one.name for one in pending(read_migrations(migrations_folder()), applied, place_of(dsn))]
        version = await connection.fetchval("select current_setting('server_version')")
        if missing:
            return Space(place_of(dsn), version, missing, 0, (), 0, 0, 0.0, 0, None, 0, free_bytes)
        return await _measured(connection, place_of(dsn), version, cleanup, free_bytes)
    finally:
        connection.terminate()


async def _measured(
    connection: Connection, place: str, version: str, cleanup: CleanupSection, free_bytes: int | None
) -> Space:
    tables = await connection.fetch(_TABLES)
    size = await connection.fetchval(_SIZE)
    expected = await connection.fetchrow(_EXPECTED)
    a_day = await connection.fetchval(_STORED_YESTERDAY) or round(expected["a_day"])
    today = now().date()  # those to come have partitions already
    days = [day for day in await partitions.days_present(connection) if day <= today]
    of = {row["name"]: row for row in tables}
    results = of.get(partitions.RESULTS.table)
    a_result = results["counted_bytes"] / results["rows"] if results and results["rows"] else BYTES_A_RESULT
    return Space(
        place=place,
        postgres=version,
        pending_migrations=(),
        bytes=size,
        tables=[TableSize(row["name"], row["bytes"], row["rows"]) for row in tables],
        endpoints=expected["endpoints"],
        results_a_day=a_day,
        bytes_a_result=a_result,
        days_kept=len(days),
        oldest_day=str(days[0]) if days else None,
        grown_bytes=_grown(size, of, a_day * a_result * cleanup.retention_days, expected["endpoints"], cleanup),
        free_bytes=free_bytes,
    )


def _grown(
    size: int, tables: Mapping[str, Mapping[str, int]], results: float, endpoints: int, cleanup: CleanupSection
) -> int:
    present = sum(tables[of.table]["bytes"] for of in (partitions.RESULTS, partitions.HOURS) if of.table in tables)
    return round(size - present + results + endpoints * 24 * cleanup.hourly_days * BYTES_AN_HOUR)


def in_words(number: float) -> str:
    """A number of bytes as people say it: ``1.5 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
