"""Who changed what over the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from servmon.store import rows
from servmon.store.pool import Executor


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change. ``before`` and ``after`` are what it was made to, where that can be told; never a secret."""

    at: datetime
    who: str
    prefix: str
    address: str
    action: str
    target: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    request_id: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which changes; ``None`` in a field lets any pass."""

    who: str | None = None
    action: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None


_INSERT = """
insert into audit (at, who, prefix, address, action, target, before, after, request_id)
values ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8::text::jsonb, $9)
"""


async def insert(db: Executor, entry: AuditEntry) -> None:
    """Store one change."""
    await db.execute(
        _INSERT,
        entry.at,
        entry.who,
        entry.prefix,
        entry.address,
        entry.action,
        entry.target,
        None if entry.before is None else rows.to_json(entry.before),
        None if entry.after is None else rows.to_json(entry.after),
        entry.request_id,
    )


_PAGE = """
select * from audit
where number < coalesce($1, 9223372036854775807)
and ($2::text is null or who = $2) and ($3::text is null or action = $3) and ($4::text is null or target = $4)
and ($5::timestamptz is null or at >= $5) and ($6::timestamptz is null or at < $6)
order by number desc limit $7
"""


async def get_page(db: Executor, wanted: AuditFilter, *, before: int | None, limit: int) -> list[rows.Row]:
    """At most ``limit`` changes, newest first, all older than the one with the number ``before``."""
    filters = (wanted.who, wanted.action, wanted.target, wanted.since, wanted.until)
    return list(await db.fetch(_PAGE, before, *filters, limit))
