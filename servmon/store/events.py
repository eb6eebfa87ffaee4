"""Events: what happened to servmon itself, or to more than one endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from servmon.model import Event, EventKind
from servmon.store import rows
from servmon.store.pool import Executor

_INSERT = """
insert into event (id, kind, severity, message, details, at)
values ($1::text::uuid, $2, $3::text::severity_type, $4, $5::text::jsonb, $6)
on conflict (id) do nothing
"""


_DETAILS_OF = """
select details from event where kind = $1 and at > $2
"""


async def details_of(db: Executor, kind: EventKind, since: datetime) -> list[Mapping[str, Any]]:
    """The details of the events of one kind since then."""
    return [rows.from_json(row["details"]) for row in await db.fetch(_DETAILS_OF, kind.value, since)]


async def insert(db: Executor, event: Event) -> None:
    """Store an event, once."""
    details = rows.to_json(dict(event.details))
    await db.execute(_INSERT, event.id, event.kind.value, event.severity.value, event.message, details, event.at)
