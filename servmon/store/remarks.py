"""What people say of outages, and all that is known of one in the order it happened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from servmon.errors import NotFoundError
from servmon.model import Outage
from servmon.store import rows
from servmon.store.pool import Executor


@dataclass(frozen=True, slots=True)
class Remark:
    """Something said of an outage: ``kind`` is note, excluded, included, acknowledged or unacknowledged."""

    id: str
    outage_id: str
    kind: str
    text: str
    said_by: str
    said_at: datetime


_NOTE = """
insert into outage_remark (id, outage_id, kind, text, said_by, said_at)
select $1::text::uuid, id, $3, $4, $5, $6 from service_outage where id = $2::text::uuid
returning id
"""


async def add(db: Executor, remark: Remark) -> None:
    """Store a remark. Raises ``NotFoundError``."""
    values = (remark.id, remark.outage_id, remark.kind, remark.text, remark.said_by, remark.said_at)
    if await db.fetchval(_NOTE, *values) is None:
        raise NotFoundError(f"there is no outage with the id {remark.outage_id}")


_COUNT_OR_NOT = f"""
with said as ({_NOTE})
update service_outage
set excluded_reason = case when $3 = 'excluded' then $4 end, false_alarm = $3 = 'excluded' and $7,
    revision = revision + 1
where id = $2::text::uuid
returning *
"""  # noqa: S608 - made of the constant above


async def count_or_not(db: Executor, remark: Remark, *, false_alarm: bool) -> Outage:
    """Let an outage count against availability, or not, as ``remark`` says. Raises ``NotFoundError``."""
    values = (remark.id, remark.outage_id, remark.kind, remark.text, remark.said_by, remark.said_at)
    row = await db.fetchrow(_COUNT_OR_NOT, *values, false_alarm)
    if row is None:
        raise NotFoundError(f"there is no outage with the id {remark.outage_id}")
    return rows.outage(row)


_TIMELINE = """
select at, 'state_change' as kind, old_state || ' → ' || new_state || ': ' || reason as text, null as by
from state_change where outage_id = $1::text::uuid
union all
select said_at, kind, text, said_by from outage_remark where outage_id = $1::text::uuid
union all
select n.sent_at, 'told', n.channel || ': ' || n.subject, null
from notification n join alert_outage m on m.alert_id = n.alert_id
where m.outage_id = $1::text::uuid and n.sent_at is not null
order by at, kind
limit 1000
"""


async def timeline(db: Executor, outage_id: str) -> list[rows.Row]:
    """``at, kind, text, by`` of all that happened with an outage and was said of it, oldest first."""
    return list(await db.fetch(_TIMELINE, outage_id))
