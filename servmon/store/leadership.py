"""Which of several daemons of an instance checks: it holds an advisory lock, and a row says who it is and lives."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zlib import crc32

import structlog

from servmon.clock import now
from servmon.errors import DeposedError
from servmon.store.pool import AWAY, Connection, connect

_log = structlog.get_logger(__name__)

SEEN_EVERY_SECONDS = 5.0
# Who asked for so long in vain counts as gone, together with a lock that nobody lets go of.
SILENT_SECONDS = 20
# Who lost Postgres for a moment comes back first, before a standby that found the lock free.
GRACE_SECONDS = 12
PATIENCE_SECONDS = 5.0
# Any number will do, as long as every servmon takes the same one; the other key is the instance's.
_LOCK_CLASS = 0x5E724D
_MAX_INT = 2**31 - 1

_TRY = """
select pg_try_advisory_lock($1, $2)
"""

_LET_GO = """
select pg_advisory_unlock($1, $2)
"""

_SAY = """
insert into leader as l (instance, holder, name, backend_pid) values ($1, $2, $3, pg_backend_pid())
on conflict (instance) do update set
    since = case when l.holder = excluded.holder then l.since else now() end,
    holder = excluded.holder, name = excluded.name, backend_pid = excluded.backend_pid, seen_at = now()
"""

_SEEN = """
update leader set seen_at = now() where instance = $1 and holder = $2 returning true
"""

_WHO = """
select holder, name, since, extract(epoch from now() - seen_at) as silent_seconds from leader where instance = $1
"""

_GONE = """
delete from leader where instance = $1 and holder = $2
"""

# The lock of one that was not seen for long: its machine is gone, or it hangs.
_END_SILENT = """
select pg_terminate_backend(l.pid)
from pg_locks l
join leader r on r.backend_pid = l.pid and r.instance = $3 and r.seen_at < now() - make_interval(secs => $4)
where l.locktype = 'advisory' and l.classid = $1 and l.objid = $2 and l.granted
"""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, since when; ``is_self`` where that is this data folder's daemon before its restart."""

    name: str
    since: datetime
    is_self: bool


class Leadership:
    """One daemon's part in it. ``holder`` is its data folder's id, ``name`` how people know it."""

    def __init__(self, dsn: str, instance: str, holder: str, name: str) -> None:
        self._dsn = dsn
        self._instance = instance
        self._holder = holder
        self._name = name
        self._keys = (_LOCK_CLASS, crc32(instance.encode()) & _MAX_INT)
        self._connection: Connection = None

    async def take(self) -> Leader | None:
        """Lead from now on, and return ``None``; or who does instead. Raises what ``AWAY`` lists."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS + 10):
                return await self._take()
        except BaseException:
            self._hang_up()
            raise

    async def hold(self) -> None:
        """Say again and again that this daemon leads, for ever; while Postgres is away it simply goes on.

        Raises ``DeposedError`` where another one has taken over meanwhile.
        """
        while True:
            await asyncio.sleep(SEEN_EVERY_SECONDS)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    if self._connection is not None and await self._connection.fetchval(_SEEN, *self._self):
                        continue
                leader = await self.take()
            except AWAY:
                self._hang_up()
                continue
            if leader is not None and not leader.is_self:
                self._hang_up()
                raise DeposedError(f"{leader.name} has taken over while Postgres was out of reach here; standing by")

    async def let_go(self) -> None:
        """Let another one lead at once."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            async with asyncio.timeout(1):
                await connection.execute(_GONE, *self._self)
                await connection.execute(_LET_GO, *self._keys)
        except AWAY:
            pass
        finally:
            connection.terminate()

    @property
    def _self(self) -> tuple[str, str]:
        return self._instance, self._holder

    async def _take(self) -> Leader | None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn)
        db = self._connection
        who = await db.fetchrow(_WHO, self._instance)
        if not await db.fetchval(_TRY, *self._keys):
            if who is not None and who["silent_seconds"] > SILENT_SECONDS:
                await db.execute(_END_SILENT, *self._keys, self._instance, float(SILENT_SECONDS))
            return self._leader(who)
        if who is not None and who["holder"] != self._holder and who["silent_seconds"] < GRACE_SECONDS:
            await db.execute(_LET_GO, *self._keys)
            return self._leader(who)
        await db.execute(_SAY, *self._self, self._name)
        return None

    def _leader(self, who: Any) -> Leader:
        if who is None:  # it has the lock, and its row a moment later
            return Leader("another servmon", now(), is_self=False)
        return Leader(who["name"], who["since"], is_self=who["holder"] == self._holder)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
