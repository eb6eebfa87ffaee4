"""Events: what happened to servmon itself, or to more than one endpoint."""

from __future__ import annotations

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
