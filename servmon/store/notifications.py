"""The outbox: messages that are owed, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from servmon.store import rows
from servmon.store.pool import Executor

_OWED = """
select * from notification where sent_at is null and given_up_at is null order by seq
"""


async def owed(db: Executor) -> list[rows.Row]:
    """Every message that is neither sent nor given up, oldest first."""
    return list(await db.fetch(_OWED))


_MARK = """
update notification n
set attempts = m.attempts, last_error = m.last_error, sent_at = m.sent_at, given_up_at = m.given_up_at,
    served = m.served, lost = m.lost
from jsonb_to_recordset($1::text::jsonb) as m(
    id uuid, attempts int, last_error text, sent_at timestamptz, given_up_at timestamptz, served text[],
    lost text)
-- What has found its end keeps it: after a crash an older mark may come once more.
where n.id = m.id and n.sent_at is null and n.given_up_at is null
"""


async def mark(db: Executor, marks: Sequence[Any]) -> None:
    """Note what became of messages: ``id, attempts, last_error, sent_at, given_up_at, served, lost`` of each."""
    await db.execute(_MARK, rows.to_json(list(marks)))


_OF_OUTAGE = """
select n.* from notification n
join alert_outage m on m.alert_id = n.alert_id
where m.outage_id = $1::text::uuid
order by n.seq
"""


async def of_outage(db: Executor, outage_id: str) -> list[rows.Row]:
    """The messages on an outage, oldest first."""
    return list(await db.fetch(_OF_OUTAGE, outage_id))


_OF_ALERT = """
select * from notification where alert_id = $1::text::uuid order by seq
"""


async def of_alert(db: Executor, alert_id: str) -> list[rows.Row]:
    """The messages of an alert, oldest first."""
    return list(await db.fetch(_OF_ALERT, alert_id))


_TOLD_AROUND = """
select content ->> 'instead_of' as id from notification where content ? 'instead_of' and created_at > $1
"""


async def told_around(db: Executor, since: datetime) -> list[str]:
    """The ids of messages that have a copy for a fallback, made since then."""
    return [row["id"] for row in await db.fetch(_TOLD_AROUND, since)]


_MADE_SINCE = """
select channel, kind, severity::text, subject, created_at, sent_at, given_up_at, last_error
from notification where created_at >= $1 order by created_at, seq
"""


async def made_since(db: Executor, since: datetime) -> list[rows.Row]:
    """The messages made since then, oldest first, with what became of each."""
    return list(await db.fetch(_MADE_SINCE, since))
