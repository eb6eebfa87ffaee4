"""Recorded transitions of the endpoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from servmon.model import StateChange
from servmon.store import rows
from servmon.store.pool import Executor

_LAST_CHANGES = """
select c.*
from service_endpoint e
cross join lateral (
    select * from state_change
    where endpoint_id = e.id and not evidence ? 'flapping'
    order by at desc, seq desc limit 1
) c
where e.archived_at is null
"""


async def last_changes(db: Executor) -> list[StateChange]:
    """The newest change of each endpoint that is not deleted; notices of flapping are none."""
    return [rows.state_change(row) for row in await db.fetch(_LAST_CHANGES)]


_LAST_OF = """
select c.*
from unnest($1::text[]) asked(id)
cross join lateral (
    select * from state_change
    where endpoint_id = asked.id and old_state <> new_state
    order by at desc, seq desc limit 1
) c
"""


async def last_of(db: Executor, endpoint_ids: Sequence[str]) -> dict[str, StateChange]:
    """The last time each of these endpoints came from one state into another; without those that never did."""
    found = map(rows.state_change, await db.fetch(_LAST_OF, endpoint_ids) if endpoint_ids else ())
    return {one.endpoint_id: one for one in found}


_FLAPPING = """
select e.id, c.at, (c.evidence -> 'flapping')::boolean as flapping
from service_endpoint e
cross join lateral (
    select at, seq, evidence from state_change
    where endpoint_id = e.id and evidence ? 'flapping'
    order by at desc, seq desc limit 10
) c
where e.archived_at is null
order by c.at, c.seq
"""


async def flapping(db: Executor) -> dict[str, list[tuple[datetime, bool]]]:
    """When each endpoint was said to flap, or to do so no more: its last ten notices, oldest first."""
    notices: defaultdict[str, list[tuple[datetime, bool]]] = defaultdict(list)
    for row in await db.fetch(_FLAPPING):
        notices[row["id"]].append((row["at"], row["flapping"]))
    return dict(notices)


_OUTAGES_ENDED = """
select e.id, c.at
from service_endpoint e
cross join lateral (
    select at from state_change
    where endpoint_id = e.id and at > now() - interval '1 day' and old_state = 'down' and new_state <> 'down'
    order by at desc limit 1
) c
where e.archived_at is null
"""


async def outages_ended(db: Executor) -> dict[str, datetime]:
    """When the last outage of each endpoint ended, for those of the last day."""
    return {row["id"]: row["at"] for row in await db.fetch(_OUTAGES_ENDED)}


_OF_ENDPOINT = """
select * from state_change
where endpoint_id = $1
and ($3::timestamptz is null or (at, seq) < ($3, (select seq from state_change where id = $4::text::uuid)))
order by at desc, seq desc
limit $2
"""


async def of_endpoint(
    db: Executor, endpoint_id: str, limit: int, before: tuple[datetime, str] | None = None
) -> list[StateChange]:
    """At most ``limit`` changes of one endpoint, newest first, all older than the one with time and id ``before``."""
    at, change_id = before or (None, None)
    return [rows.state_change(row) for row in await db.fetch(_OF_ENDPOINT, endpoint_id, limit, at, change_id)]
