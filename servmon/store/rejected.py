"""What Postgres can never take: set aside with the reason, so that a person can see what was lost and why."""

from __future__ import annotations

import structlog

from servmon.store.entries import Entry, encode
from servmon.store.pool import Connection
from servmon.store.rows import storable

_log = structlog.get_logger(__name__)

# A poison row may be of any size, and the record is for a person to read.
LONGEST_BODY = 20_000

_INSERT = """
insert into rejected (reason, body) values ($1, $2)
"""


async def set_aside(connection: Connection, entry: Entry, error: Exception) -> None:
    """Record an entry that can never be stored, and why."""
    reason = storable(str(error) or type(error).__name__)
    body = storable(encode([entry]))[:LONGEST_BODY]
    _log.error("could not be stored, set aside in the table rejected", entry=body[:500], error=reason)
    await connection.execute(_INSERT, reason, body)
