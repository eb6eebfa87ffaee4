"""Whether something stands between: a pooler that hands out sessions by the transaction breaks LISTEN and locks."""

from __future__ import annotations

import asyncio

import structlog

from servmon.store.pool import connect, is_pooled

_log = structlog.get_logger(__name__)

TRIES = 3
LOOK_SECONDS = 10.0
TROUBLE = (
    "[database] url leads through a pooler in transaction mode: changes are noticed only every 10 s, and the lock of"
    " the leading daemon does not hold"
)
REMEDY = "set [database] listen_url to the server itself"
TOLD = f"{TROUBLE}; {REMEDY}"


async def tell_of_pooler(dsn: str, troubles: dict[str, str]) -> None:
    """Once a pooler is met on the way to ``dsn``, tell of it where it breaks what servmon does; runs for ever."""
    while not is_pooled(dsn):  # noqa: ASYNC110 - connections come and go and ring no bell
        await asyncio.sleep(LOOK_SECONDS)
    if await shares_sessions(dsn):
        _log.warning(TOLD)
        troubles["database"] = TOLD
    await asyncio.Event().wait()


async def is_between(dsn: str) -> bool:
    """Whether a pooler that hands out sessions by the transaction was met on the way to ``dsn``."""
    return is_pooled(dsn) and await shares_sessions(dsn)


async def shares_sessions(dsn: str) -> bool:
    """Whether two clients at once are given the same session of the server. Raises ``StoreUnavailableError``."""
    one, other = await connect(dsn), await connect(dsn)
    try:
        for _ in range(TRIES):
            # One pid twice: while both are connected only a pooler by the transaction (or statement) does that.
            if await one.fetchval("select pg_backend_pid()") == await other.fetchval("select pg_backend_pid()"):
                return True
    finally:
        one.terminate()
        other.terminate()
    return False
