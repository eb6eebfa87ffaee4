"""Events are stored once, in their order, and wait while Postgres is away."""

from __future__ import annotations

import asyncpg
import pytest

from servmon.clock import now
from servmon.detection.state import new_id
from servmon.model import Event, EventKind, Severity
from servmon.store.events import EventLog, insert
from servmon.store.pool import AWAY, open_pool


def event(kind: EventKind = EventKind.ISOLATED, **details) -> Event:
    return Event(new_id(), kind, Severity.CRITICAL, "isolated: all witnesses are silent", now(), details)


async def kinds(db) -> list[str]:
    return [row["kind"] for row in await db.fetch("select kind from event where processed_at is null order by seq")]


async def test_an_event_is_stored_once_and_is_owed(db):
    one = event(witnesses=["192.0.2.1"])
    await insert(db, one)
    await insert(db, one)
    assert await kinds(db) == ["isolated"]


async def test_events_wait_in_their_order_while_postgres_is_away(db, database):
    away = await open_pool(database)
    log = EventLog(away)
    log.put(event())
    log.put(event(EventKind.CONNECTED))
    await away.close()
    with pytest.raises((*AWAY, asyncpg.InterfaceError)):
        await log.drain()
    log._db = db
    await log.drain()
    await log.drain()
    assert await kinds(db) == ["isolated", "connected"]
