"""Silences and acknowledgements: a person's word that something need not be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from servmon.errors import ConflictError, NotFoundError
from servmon.store import rows
from servmon.store.pool import Executor

_NOT_ENDED = """
select * from silence where ends_at > $1 order by ends_at, id
"""


async def not_ended(db: Executor, at: datetime) -> list[rows.Row]:
    """The silences that are not over at that time, the one that ends first before the others."""
    return list(await db.fetch(_NOT_ENDED, at))


_INSERT = """
insert into silence (id, matchers, reason, starts_at, ends_at, created_by)
values ($1::text::uuid, $2::text::jsonb, $3, $4, $5, $6)
returning *
"""


async def insert(
    db: Executor,
    silence_id: str,
    matchers: Mapping[str, Sequence[str]],
    reason: str,
    starts_at: datetime,
    ends_at: datetime,
    created_by: str,
) -> rows.Row:
    """Store a silence."""
    row: rows.Row = await db.fetchrow(
        _INSERT, silence_id, rows.to_json(matchers), reason, starts_at, ends_at, created_by
    )
    return row


_END = """
update silence set ends_at = greatest($2, starts_at + interval '1 microsecond')
where id = $1::text::uuid and ends_at > $2
returning id
"""


async def end(db: Executor, silence_id: str, at: datetime) -> None:
    """End a silence now. Raises ``NotFoundError`` where there is none that could end."""
    if await db.fetchval(_END, silence_id, at) is None:
        raise NotFoundError(f"there is no silence in force with the id {silence_id}")


# An acknowledgement may end or be another's later; in the timeline each stays.
_SAID = """
said as (
    insert into outage_remark (id, outage_id, kind, text, said_by, said_at)
    select gen_random_uuid(), outage_id, 'acknowledged', note, acknowledged_by, acknowledged_at from seen
)
"""
_ACKNOWLEDGE = f"""
with seen as (
    insert into acknowledgement (outage_id, acknowledged_by, acknowledged_at, note)
    select id, $2, $3, $4 from service_outage where id = $1::text::uuid and not resolved
    on conflict (outage_id) do update set
        acknowledged_by = excluded.acknowledged_by, acknowledged_at = excluded.acknowledged_at, note = excluded.note
    returning *
), {_SAID}
select * from seen
"""  # noqa: S608 - made of the constant above

_EXISTS = """
select resolved from service_outage where id = $1::text::uuid
"""


async def acknowledge(db: Executor, outage_id: str, by: str, at: datetime, note: str) -> rows.Row:
    """Note that somebody sees to an open outage. Raises ``NotFoundError``, ``ConflictError`` where it is over."""
    row: rows.Row | None = await db.fetchrow(_ACKNOWLEDGE, outage_id, by, at, note)
    if row is not None:
        return row
    if await db.fetchval(_EXISTS, outage_id) is None:
        raise NotFoundError(f"there is no outage with the id {outage_id}")
    raise ConflictError("the outage is over: there is nothing to see to")


_GET_ACKNOWLEDGEMENT = """
select * from acknowledgement where outage_id = $1::text::uuid
"""


async def acknowledgement(db: Executor, outage_id: str) -> rows.Row | None:
    """Who sees to an outage, if anybody does."""
    row: rows.Row | None = await db.fetchrow(_GET_ACKNOWLEDGEMENT, outage_id)
    return row


_GET_ACKNOWLEDGEMENTS = """
select * from acknowledgement where outage_id = any($1::text[]::uuid[])
"""


async def acknowledgements(db: Executor, outage_ids: Sequence[str]) -> list[rows.Row]:
    """Who sees to which of these outages."""
    return list(await db.fetch(_GET_ACKNOWLEDGEMENTS, outage_ids))


_ACKNOWLEDGED = """
select a.outage_id from acknowledgement a
join service_outage o on o.id = a.outage_id
where not o.resolved
"""


async def acknowledged(db: Executor) -> list[str]:
    """The ids of the open outages that somebody sees to."""
    return [str(row["outage_id"]) for row in await db.fetch(_ACKNOWLEDGED)]


_UNACKNOWLEDGE = """
with over as (
    delete from acknowledgement where outage_id = any($1::text[]::uuid[]) returning outage_id
)
insert into outage_remark (id, outage_id, kind, text, said_by, said_at)
select gen_random_uuid(), outage_id, 'unacknowledged', $4, $2, $3 from over
"""


async def unacknowledge(db: Executor, outage_ids: Sequence[str], by: str, at: datetime, why: str = "") -> None:
    """Nobody sees to these outages any more, as ``by`` says."""
    await db.execute(_UNACKNOWLEDGE, list(outage_ids), by, at, why)


_OF_LINK = """
select o.id, e.name, o.severity::text, o.description, o.start_time, o.resolved_at, a.acknowledged_by, a.acknowledged_at
from service_outage o
join service_endpoint e on e.id = o.endpoint_id
left join acknowledgement a on a.outage_id = o.id
where o.id = $1::text::uuid or o.id in (select outage_id from alert_outage where alert_id = $2::text::uuid)
order by o.resolved_at is not null, o.start_time, o.id
limit 10000
"""


async def outages_of_link(db: Executor, outage_id: str | None, alert_id: str | None) -> list[rows.Row]:
    """An outage, or all of an alert, with who sees to each; what is down first."""
    return list(await db.fetch(_OF_LINK, outage_id, alert_id))


_ACKNOWLEDGE_UNSEEN = f"""
with seen as (
    insert into acknowledgement (outage_id, acknowledged_by, acknowledged_at, note)
    select o.id, $3, $4, '' from service_outage o
    where not o.resolved
        and (o.id = $1::text::uuid or o.id in (select outage_id from alert_outage where alert_id = $2::text::uuid))
    on conflict (outage_id) do nothing
    returning *
), {_SAID}
select outage_id from seen
"""  # noqa: S608 - made of the constant above


async def acknowledge_unseen(
    db: Executor, outage_id: str | None, alert_id: str | None, by: str, at: datetime
) -> list[str]:
    """Note that somebody sees to an open outage, or all of an alert; those somebody sees to already stay his.

    The ids of the others are returned.
    """
    found = await db.fetch(_ACKNOWLEDGE_UNSEEN, outage_id, alert_id, by, at)
    return [str(row["outage_id"]) for row in found]
