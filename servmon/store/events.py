"""Events: what happened to servmon itself, or to more than one endpoint."""

from __future__ import annotations

import asyncio
from collections import deque

from servmon.model import Event
from servmon.store import rows
from servmon.store.pool import Executor

_INSERT = """
insert into event (id, kind, severity, message, details, at)
values ($1::text::uuid, $2, $3::text::severity_type, $4, $5::text::jsonb, $6)
on conflict (id) do nothing
"""


async def insert(db: Executor, event: Event) -> None:
    """Store an event, once."""
    details = rows.to_json(dict(event.details))
    await db.execute(_INSERT, event.id, event.kind.value, event.severity.value, event.message, details, event.at)


class EventLog:
    """Takes events at any time and stores them in their order; while Postgres is away they wait."""

    def __init__(self, db: Executor) -> None:
        self._db = db
        self._waiting: deque[Event] = deque()
        self._filled = asyncio.Event()

    @property
    def unstored(self) -> tuple[Event, ...]:
        """What waits to be stored, oldest first."""
        return tuple(self._waiting)

    def put(self, event: Event) -> None:
        """Queue an event to be stored."""
        self._waiting.append(event)
        self._filled.set()

    async def run(self) -> None:
        """Store what is queued, for ever; raises where Postgres is away, and keeps what is not stored."""
        while True:
            await self._filled.wait()
            await self.drain()

    async def drain(self) -> None:
        """Store what is queued now."""
        while self._waiting:
            await insert(self._db, self._waiting[0])
            self._waiting.popleft()
        self._filled.clear()
