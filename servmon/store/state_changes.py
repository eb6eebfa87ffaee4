"""Recorded transitions of the endpoints."""

from __future__ import annotations

from servmon.model import StateChange
from servmon.store import rows
from servmon.store.pool import Executor

_LAST_CHANGES = """
select c.*
from service_endpoint e
cross join lateral (
    select * from state_change where endpoint_id = e.id order by at desc, seq desc limit 1
) c
where e.archived_at is null
"""


async def last_changes(db: Executor) -> list[StateChange]:
    """The newest change of each endpoint that is not deleted."""
    return [rows.state_change(row) for row in await db.fetch(_LAST_CHANGES)]


_OF_ENDPOINT = """
select * from state_change where endpoint_id = $1 order by at desc, seq desc limit $2
"""


async def of_endpoint(db: Executor, endpoint_id: str, limit: int) -> list[StateChange]:
    """At most ``limit`` changes of one endpoint, newest first."""
    return [rows.state_change(row) for row in await db.fetch(_OF_ENDPOINT, endpoint_id, limit)]
