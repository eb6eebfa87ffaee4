"""Outages, maintenance windows and dead letters that Elasticsearch has to hear of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from servmon.model import Endpoint, MaintenanceWindow, Outage
from servmon.store import rows
from servmon.store.elastic_cursor import DayCount, Subjects
from servmon.store.pool import Executor


class DueOutage(NamedTuple):
    """An outage, its endpoint, and a mark of the very row that was read: any change gives it another."""

    outage: Outage
    endpoint: Endpoint
    mark: str


_OUTAGES = """
select o.*, o.xmin::text as mark, e.key as endpoint_key
from service_outage o join service_endpoint e on e.id = o.endpoint_id
"""

# One that was refused as it stands is not offered again before it changes or its dead letter is gone.
_DUE = (
    _OUTAGES
    + """
where o.synced_revision < o.revision and not exists (
    select from elasticsearch_dead_letter d
    where d.kind = 'outage' and d.document_id = o.id::text and d.version >= o.revision)
order by o.start_time, o.id
limit $1
"""
)


async def outages_due(db: Executor, subjects: Subjects, limit: int) -> list[DueOutage]:
    """At most ``limit`` outages that changed since Elasticsearch heard of them, oldest first."""
    return await _due_outages(db, subjects, await db.fetch(_DUE, limit))


_OPEN = (
    _OUTAGES
    + """
where not o.resolved and ($1::timestamptz is null or (o.start_time, o.id) > ($1, $2::text::uuid))
order by o.start_time, o.id
limit $3
"""
)


async def open_outages(db: Executor, subjects: Subjects, after: Outage | None, limit: int) -> list[DueOutage]:
    """At most ``limit`` open outages in the order of their beginning, those behind ``after``."""
    found = await db.fetch(_OPEN, after and after.start_time, after and after.id, limit)
    return await _due_outages(db, subjects, found)


_SINCE = (
    _OUTAGES
    + """
where (o.start_time >= $1 or not o.resolved or o.resolved_at >= $1)
and ($2::timestamptz is null or (o.start_time, o.id) > ($2, $3::text::uuid))
order by o.start_time, o.id
limit $4
"""
)


async def outages_since(
    db: Executor, subjects: Subjects, since: datetime, after: Outage | None, limit: int
) -> list[DueOutage]:
    """At most ``limit`` outages that lasted at ``since`` or began later, in the order of their beginning."""
    found = await db.fetch(_SINCE, since, after and after.start_time, after and after.id, limit)
    return await _due_outages(db, subjects, found)


async def _due_outages(db: Executor, subjects: Subjects, found: Sequence[rows.Row]) -> list[DueOutage]:
    known = await subjects.of(db, {row["endpoint_key"] for row in found})
    return [DueOutage(rows.outage(row), known[row["endpoint_key"]], row["mark"]) for row in found]


# Only where the row is the one that was read: who changed it meanwhile wants it sent once more. So does whoever is
# changing it just now, and nobody has to wait for us.
_SYNCED = """
with free as (
    select o.id from service_outage o
    join unnest($1::text[]::uuid[], $2::text[]) as sent(id, mark) on o.id = sent.id and o.xmin::text = sent.mark
    for update of o skip locked
)
update service_outage o set synced_revision = o.revision from free where o.id = free.id
"""


async def outages_synced(db: Executor, sent: Iterable[DueOutage]) -> None:
    """Elasticsearch has these outages as they were read."""
    pairs = [(due.outage.id, due.mark) for due in sent if not due.outage.elasticsearch_synced]
    if pairs:
        await db.execute(_SYNCED, [outage_id for outage_id, _ in pairs], [mark for _, mark in pairs])


_WINDOWS_DUE = """
with changed as (
    select w.*, (extract(epoch from w.updated_at) * 1000000)::bigint as version
    from maintenance_window w
    left join elasticsearch_window s on s.window_id = w.id
    where w.deleted_at is null
    and ($1 or s.version is distinct from (extract(epoch from w.updated_at) * 1000000)::bigint)
)
select c.*, coalesce(l.endpoint_ids, '{}') as endpoint_ids, coalesce(l.names, '{}') as names, null as recorded
from changed c
cross join lateral (
    select array_agg(m.endpoint_id order by m.position, m.endpoint_id) as endpoint_ids,
        array_agg(e.name order by m.position, m.endpoint_id) as names
    from maintenance_window_endpoint m join service_endpoint e on e.id = m.endpoint_id
    where m.window_id = c.id
) l
where ($2::text is null or c.id > $2::text::uuid) and not exists (
    select from elasticsearch_dead_letter d
    where d.kind = 'maintenance' and d.document_id = c.id::text and d.version >= c.version)
order by c.id
limit $3
"""


class DueWindow(NamedTuple):
    """A maintenance window, the names of its endpoints, and its last change in microseconds."""

    window: MaintenanceWindow
    names: list[str]
    version: int


async def windows_due(db: Executor, after: str | None, limit: int, *, all_of_them: bool = False) -> list[DueWindow]:
    """At most ``limit`` windows behind the id ``after``: those changed since Elasticsearch heard of them, or all."""
    found = await db.fetch(_WINDOWS_DUE, all_of_them, after, limit)
    return [DueWindow(rows.maintenance_window(row), list(row["names"]), row["version"]) for row in found]


_WINDOWS_SYNCED = """
insert into elasticsearch_window as known (window_id, version)
select * from unnest($1::text[]::uuid[], $2::bigint[])
on conflict (window_id) do update set version = excluded.version where known.version < excluded.version
"""


async def windows_synced(db: Executor, sent: Iterable[DueWindow]) -> None:
    """Elasticsearch has these windows as they were read."""
    pairs = [(due.window.id, due.version) for due in sent]
    if pairs:
        await db.execute(_WINDOWS_SYNCED, [window for window, _ in pairs], [version for _, version in pairs])


_GONE = """
select window_id::text as id from elasticsearch_window s
where not exists (select from maintenance_window w where w.id = s.window_id and w.deleted_at is null)
order by 1 limit $1
"""
_FORGET_WINDOWS = """
delete from elasticsearch_window s where s.window_id = any($1::text[]::uuid[])
and not exists (select from maintenance_window w where w.id = s.window_id and w.deleted_at is null)
"""


async def windows_gone(db: Executor, limit: int) -> list[str]:
    """Ids of windows that Elasticsearch holds and that were deleted here, at most ``limit``."""
    return [row["id"] for row in await db.fetch(_GONE, limit)]


async def forget_windows(db: Executor, ids: Sequence[str]) -> None:
    """Elasticsearch holds these windows no longer."""
    await db.execute(_FORGET_WINDOWS, ids)


class DeadLetter(NamedTuple):
    """A document that Elasticsearch refused for what it is, and why."""

    kind: str
    document_id: str
    version: int
    index_name: str
    document: Mapping[str, Any]
    reason: str
    attempts: int
    last_at: datetime | None = None


_BURY = """
insert into elasticsearch_dead_letter as known (kind, document_id, version, index_name, document, reason)
select kind, document_id, version, index_name, document, reason from jsonb_to_recordset($1::text::jsonb) as d(
    kind text, document_id text, version bigint, index_name text, document jsonb, reason text)
on conflict (kind, document_id) do update set
    version = excluded.version, index_name = excluded.index_name, document = excluded.document,
    reason = excluded.reason, attempts = known.attempts + 1, last_at = now()
where known.version <= excluded.version
"""


async def bury(db: Executor, letters: Iterable[DeadLetter]) -> None:
    """Keep what was refused, with the reason; refused again it counts once more."""
    found = [letter._asdict() for letter in letters]
    if found:
        await db.execute(_BURY, rows.to_json(found))


_RAISE = """
delete from elasticsearch_dead_letter d using unnest($1::text[], $2::text[]) as sent(kind, id)
where d.kind = sent.kind and d.document_id = sent.id
"""


async def delivered(db: Executor, documents: Iterable[tuple[str, str]]) -> None:
    """What is known by kind and id has arrived after all."""
    pairs = list(documents)
    await db.execute(_RAISE, [kind for kind, _ in pairs], [document_id for _, document_id in pairs])


_OFFER_AGAIN = """
delete from elasticsearch_dead_letter where kind <> 'status'
"""


async def offer_again(db: Executor) -> None:
    """Outages and windows that were refused are due again as they stand now; statuses are sent from their letters."""
    await db.execute(_OFFER_AGAIN)


_LETTERS = """
select * from elasticsearch_dead_letter
where ($1::text is null or kind = $1) and ($2::text is null or document_id > $2)
order by document_id
limit $3
"""


async def dead_letters(db: Executor, kind: str | None, after: str | None, limit: int) -> list[DeadLetter]:
    """At most ``limit`` dead letters of a kind in the order of their ids, those behind ``after``."""
    found = await db.fetch(_LETTERS, kind, after, limit)
    return [
        DeadLetter(
            kind=row["kind"],
            document_id=row["document_id"],
            version=row["version"],
            index_name=row["index_name"],
            document=rows.from_json(row["document"]),
            reason=row["reason"],
            attempts=row["attempts"],
            last_at=row["last_at"],
        )
        for row in found
    ]


_COUNT_LETTERS = """
select count(*) as number, (array_agg(reason order by last_at desc))[1] as newest from elasticsearch_dead_letter
"""


async def count_letters(db: Executor) -> tuple[int, str | None]:
    """How many dead letters there are, and why the newest is one."""
    row = await db.fetchrow(_COUNT_LETTERS)
    return row["number"], row["newest"]


_LETTERS_BY_INDEX = """
select index_name, count(*) as number from elasticsearch_dead_letter group by index_name
"""


async def count_letters_by_index(db: Executor) -> dict[str, int]:
    """How many documents each index refuses."""
    return {row["index_name"]: row["number"] for row in await db.fetch(_LETTERS_BY_INDEX)}


_COUNT_OUTAGES = """
select (start_time at time zone 'UTC')::date as day, count(*) as stored,
    count(*) filter (where synced_revision > 0) as synced
from service_outage group by 1
"""


async def count_outages(db: Executor) -> list[DayCount]:
    """The outages of each day on which some began; an outage that Elasticsearch knows of at all counts as synced."""
    return [DayCount(row["day"], row["stored"], row["synced"]) for row in await db.fetch(_COUNT_OUTAGES)]


_COUNT_WINDOWS = """
select count(*) as stored, count(s.window_id) as synced
from maintenance_window w left join elasticsearch_window s on s.window_id = w.id
where w.deleted_at is null
"""


async def count_windows(db: Executor) -> tuple[int, int]:
    """How many maintenance windows there are, and how many of them Elasticsearch knows."""
    row = await db.fetchrow(_COUNT_WINDOWS)
    return row["stored"], row["synced"]
