"""Events are stored once, in their order, and wait while Postgres is away."""

from __future__ import annotations

from servmon.clock import now
from servmon.detection.state import new_id
from servmon.metrics import Counters
from servmon.model import Event, EventKind, Severity
from servmon.store.events import insert
from servmon.store.writer import Writer


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
    writer = Writer("postgresql://nobody@127.0.0.1:1/nowhere", Counters(), observer=1)
    first, second = event(), event(EventKind.CONNECTED)
    writer.put_event(first)
    writer.put_event(second)
    assert not await writer._pass_on(1)
    assert writer.unstored_events() == [first, second]
    writer._delivery._dsn = database
    await writer.drain()
    assert await kinds(db) == ["isolated", "connected"]
    assert writer.unstored_events() == []
