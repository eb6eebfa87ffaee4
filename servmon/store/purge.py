"""Removes an endpoint with all that was found out about it."""

from __future__ import annotations

from servmon.errors import ConflictError, NotFoundError
from servmon.store.pool import Pool, transaction

# Locked, so that nobody revives it meanwhile.
_FIND = """
select key from service_endpoint where id = $1 and archived_at is not null for update
"""

_OWED = """
select exists (select from state_change where endpoint_id = $1 and processed_at is null)
"""

# By key, in the order in which they may go; a result that is stored just now has no endpoint to be shown with, and
# goes with its day.
_BY_KEY = (
    "delete from service_status_row where endpoint_key = $1",
    "delete from service_status_hourly where endpoint_key = $1",
    "delete from service_status_daily where endpoint_key = $1",
)
_BY_ID = (
    "delete from state_change where endpoint_id = $1",
    # Acknowledgements and what people said go with their outages.
    "delete from service_outage where endpoint_id = $1",
    "delete from service_endpoint where id = $1",
)


async def purge(db: Pool, endpoint_id: str) -> None:
    """Remove a deleted endpoint: results, hours, days, state changes, outages with what was said of them, and itself.

    Raises ``NotFoundError`` where there is no deleted one of the id, and ``ConflictError`` while something that
    happened to it is still to be told.
    """
    async with db.acquire() as one, transaction(one):
        key = await one.fetchval(_FIND, endpoint_id)
        if key is None:
            raise NotFoundError(f"there is no deleted service endpoint with the id {endpoint_id}")
        if await one.fetchval(_OWED, endpoint_id):
            raise ConflictError(
                f"{endpoint_id} is deleted, but the end of its outage is still to be told; purge it again in a moment"
            )
        for statement in _BY_KEY:
            await one.execute(statement, key)
        for statement in _BY_ID:
            await one.execute(statement, endpoint_id)
