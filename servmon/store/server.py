"""Which server is at the other end: a failover is noticed by its timeline, a new installation by its number."""

from __future__ import annotations

import asyncpg

from servmon.store.pool import Connection

# The first eight digits of the current file's name are the timeline that is being written. On a standby it raises.
_TIMELINE = """
select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
"""

_SYSTEM = """
select system_identifier::text from pg_control_system()
"""


async def identity(connection: Connection) -> str | None:
    """The server and its timeline, such as ``7437…/00000002``; what this user may not read is left out.

    ``None`` for one that cannot be told from others, and for a standby: it takes nothing, and may become another.
    """
    if await connection.fetchval("select pg_is_in_recovery()"):
        return None
    known = [await _read(connection, query) for query in (_SYSTEM, _TIMELINE)]
    return "/".join(part or "?" for part in known) if any(known) else None


async def _read(connection: Connection, query: str) -> str | None:
    try:
        found: str = await connection.fetchval(query)
    except (
        asyncpg.InsufficientPrivilegeError,
        asyncpg.ObjectNotInPrerequisiteStateError,
        asyncpg.UndefinedFunctionError,
        asyncpg.FeatureNotSupportedError,
    ):
        return None
    return found
