"""News that people are owed, what was decided of it, and the alerts that came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from servmon.errors import NotFoundError
from servmon.model import Endpoint, Event, EventKind, Outage, Severity, StateChange
from servmon.store import rows
from servmon.store.pool import Connection, Executor, transaction

# So much news is read in one go; what is more comes the next time.
PAGE = 2000


@dataclass(frozen=True, slots=True)
class Owed:
    """Recorded changes and events nobody has decided on, oldest first, with what they are about.

    ``last`` is the number of the last of the changes, to read on from; ``more`` says that there are others.
    """

    changes: Sequence[StateChange]
    outages: Mapping[str, Outage]
    endpoints: Mapping[str, Endpoint]
    events: Sequence[Event]
    last: int
    more: bool


_CHANGES = """
select * from state_change where processed_at is null and seq > $1 order by seq limit $2
"""

_OUTAGES = """
select * from service_outage where id = any($1::text[]::uuid[])
"""

_ENDPOINTS = """
select * from service_endpoint where id = any($1::text[])
"""

_EVENTS = """
select * from event where processed_at is null order by seq limit $1
"""


async def owed(db: Executor, after: int = 0) -> Owed:
    """What waits for a decision; of the changes those with a number above ``after``."""
    found = await db.fetch(_CHANGES, after, PAGE)
    changes = [rows.state_change(row) for row in found]
    outage_ids = list({_outage_id(change) for change in changes} - {None})
    outages = [rows.outage(row) for row in await db.fetch(_OUTAGES, outage_ids)] if outage_ids else []
    ids = list({change.endpoint_id for change in changes})
    endpoints = [rows.endpoint(row) for row in await db.fetch(_ENDPOINTS, ids)] if ids else []
    return Owed(
        changes=changes,
        outages={outage.id: outage for outage in outages},
        endpoints={endpoint.id: endpoint for endpoint in endpoints},
        events=[_event(row) for row in await db.fetch(_EVENTS, PAGE)],
        last=found[-1]["seq"] if found else after,
        more=len(found) == PAGE,
    )


def _outage_id(change: StateChange) -> str | None:
    # A notice of flapping is about an outage without being a change of it.
    return change.outage_id or change.evidence.get("outage_id")


def _event(row: rows.Row) -> Event:
    return Event(
        id=str(row["id"]),
        kind=EventKind(row["kind"]),
        severity=Severity(row["severity"]),
        message=row["message"],
        at=row["at"],
        details=rows.from_json(row["details"]),
    )


_RECORD_DECISIONS = """
insert into alert_decision (news_id, outage_id, endpoint_id, kind, stage, reason, alert_id, at)
select * from jsonb_to_recordset($1::text::jsonb) as d(
    news_id uuid, outage_id uuid, endpoint_id text, kind text, stage text, reason text, alert_id uuid, at timestamptz)
on conflict (news_id) do update set
    stage = excluded.stage, reason = excluded.reason, alert_id = excluded.alert_id, at = excluded.at
"""

_RECORD_ALERTS = """
insert into alert as stored (id, rule, title, severity, opened_at, reminders, told_at, channels, closed_at, kind,
    reason, said)
select a.id, a.rule, a.title, a.severity, a.opened_at, a.reminders, a.told_at,
    array(select jsonb_array_elements_text(a.channels)), a.closed_at, coalesce(a.kind, 'service_down'),
    coalesce(a.reason, ''), array(select jsonb_array_elements_text(a.said))
from jsonb_to_recordset($1::text::jsonb) as a(
    id uuid, rule text, title text, severity severity_type, opened_at timestamptz, reminders int,
    told_at timestamptz, channels jsonb, closed_at timestamptz, kind text, reason text, said jsonb)
on conflict (id) do update set
    severity = excluded.severity, reminders = excluded.reminders, told_at = excluded.told_at,
    closed_at = excluded.closed_at, channels = excluded.channels, said = excluded.said
"""

_RECORD_MEMBERS = """
insert into alert_outage (alert_id, outage_id, endpoint_id, name, start_time, resolved_at)
select * from jsonb_to_recordset($1::text::jsonb) as m(
    alert_id uuid, outage_id uuid, endpoint_id text, name text, start_time timestamptz, resolved_at timestamptz)
on conflict (alert_id, outage_id) do update set resolved_at = excluded.resolved_at
"""

RECORD_NOTIFICATIONS = """
insert into notification (id, alert_id, channel, kind, severity, subject, body, content, created_at)
select id, alert_id, channel, kind, severity, subject, body, content, created_at
from rows from (jsonb_to_recordset($1::text::jsonb) as (
    id uuid, alert_id uuid, channel text, kind text, severity severity_type, subject text, body text, content jsonb,
    created_at timestamptz
)) with ordinality
order by ordinality
on conflict (id) do nothing
"""

# The channels actually used stand with the outage; Elasticsearch has to hear of it.
_NAME_CHANNELS = """
update service_outage o
set notification_channels = c.channels, synced_revision = least(o.synced_revision, o.revision - 1)
from (
    select m.outage_id, jsonb_agg(distinct n.channel) as channels
    from alert_outage m join notification n on n.alert_id = m.alert_id
    where m.alert_id = any($1::text[]::uuid[])
        or m.alert_id in (select alert_id from alert_decision where news_id = any($2::text[]::uuid[]))
    group by m.outage_id
) c
where c.outage_id = o.id and o.notification_channels <> c.channels
"""

_PROCESSED = """
with changes as (
    update state_change set processed_at = $2 where id = any($1::text[]::uuid[]) and processed_at is null
)
update event set processed_at = $2 where id = any($1::text[]::uuid[]) and processed_at is null
"""


@dataclass(frozen=True, slots=True)
class Record:
    """What one round decided: mappings, or dataclasses whose fields are named as the columns.

    ``processed`` are the ids of the changes and events that are settled, ``told`` of the alerts with new messages.
    """

    decisions: Sequence[Any]
    alerts: Sequence[Any]
    members: Sequence[Any]
    notifications: Sequence[Any]
    told: Sequence[str]
    processed: Sequence[str]
    at: datetime

    def only_settled(self) -> Record:
        """The same without anything but what is settled."""
        return Record((), (), (), (), (), self.processed, self.at)


async def record(connection: Connection, told: Record) -> None:
    """Store a round in one transaction; a second time changes nothing."""
    parts = (
        (_RECORD_DECISIONS, told.decisions),
        (_RECORD_ALERTS, told.alerts),
        (_RECORD_MEMBERS, told.members),
        (RECORD_NOTIFICATIONS, told.notifications),
    )
    async with transaction(connection):
        for statement, fields in parts:
            if fields:
                await connection.execute(statement, rows.to_json(list(fields)))
        if told.processed:
            await connection.execute(_PROCESSED, list(told.processed), told.at)
        if told.told or told.processed:
            # Also of news decided on while Postgres was away: only with its change, above, its outage is there.
            await connection.execute(_NAME_CHANNELS, list(told.told), list(told.processed))


_OPEN_ALERTS = """
select a.*, coalesce(jsonb_agg(to_jsonb(m) || jsonb_build_object('description', coalesce(o.description, '')))
    filter (where m.outage_id is not null), '[]') as members
from alert a
left join alert_outage m on m.alert_id = a.id
left join service_outage o on o.id = m.outage_id
where a.closed_at is null
group by a.id
order by a.opened_at
"""


async def open_alerts(db: Executor) -> list[rows.Row]:
    """The alerts that are not over, oldest first, each with its ``members`` in JSON."""
    return list(await db.fetch(_OPEN_ALERTS))


_OPENED_SINCE = """
select id from alert where rule = $1 and opened_at > $2
"""


async def opened_since(db: Executor, rule: str, since: datetime) -> list[str]:
    """The ids of the alerts by a rule that were opened since then."""
    return [str(row["id"]) for row in await db.fetch(_OPENED_SINCE, rule, since)]


_PAGE = """
select a.*, count(m.outage_id)::int as outages from alert a
left join alert_outage m on m.alert_id = a.id
where ($1::boolean is null or (a.closed_at is null) = $1)
and ($2::timestamptz is null or (a.opened_at, a.id) < ($2, $3::text::uuid))
group by a.id
order by a.opened_at desc, a.id desc
limit $4
"""


async def get_page(
    db: Executor, *, active: bool | None, before: tuple[datetime, str] | None, limit: int
) -> list[rows.Row]:
    """At most ``limit`` alerts, newest first, all older than the one opened at the time and with the id ``before``."""
    opened_at, alert_id = before or (None, None)
    return list(await db.fetch(_PAGE, active, opened_at, alert_id, limit))


_GET = """
select a.*, count(m.outage_id)::int as outages from alert a
left join alert_outage m on m.alert_id = a.id
where a.id = $1::text::uuid
group by a.id
"""

_MEMBERS = """
select * from alert_outage where alert_id = $1::text::uuid order by start_time, outage_id
"""

_DECISIONS = """
select d.* from alert_decision d where d.alert_id = $1::text::uuid order by d.at
"""


async def get(db: Executor, alert_id: str) -> tuple[rows.Row, list[rows.Row], list[rows.Row]]:
    """An alert, its outages, and what was decided of the news in it. Raises ``NotFoundError``."""
    row = await db.fetchrow(_GET, alert_id)
    if row is None:
        raise NotFoundError(f"there is no alert with the id {alert_id}")
    return row, list(await db.fetch(_MEMBERS, alert_id)), list(await db.fetch(_DECISIONS, alert_id))


# What is about the whole alert, such as a step of its escalation, is about each of its outages.
_EXPLAIN = """
select * from alert_decision where outage_id = $1::text::uuid
union all
select d.* from alert_decision d
where d.outage_id is null and d.alert_id in (select alert_id from alert_outage where outage_id = $1::text::uuid)
order by at
"""


async def decisions_on(db: Executor, outage_id: str) -> list[rows.Row]:
    """What was decided of each piece of news on an outage, oldest first."""
    return list(await db.fetch(_EXPLAIN, outage_id))


_KEPT_BACK_SINCE = """
select stage, reason, count(*) as number from alert_decision
where at >= $1 and stage <> 'sent' group by 1, 2 order by 3 desc, 1, 2
"""


async def kept_back_since(db: Executor, since: datetime) -> list[rows.Row]:
    """How many pieces of news were not told since then, by ``stage`` and ``reason``, most first."""
    return list(await db.fetch(_KEPT_BACK_SINCE, since))
