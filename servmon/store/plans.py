"""What people were told of planned work, stored together with the messages that tell it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from servmon.model import MaintenanceWindow
from servmon.store import rows
from servmon.store.alerts import RECORD_NOTIFICATIONS
from servmon.store.maintenance import IN_PERIOD, WINDOWS
from servmon.store.pool import Connection, Executor, transaction

_TO_TELL = f"""
{WINDOWS}
where {IN_PERIOD} or w.id in (select window_id from maintenance_notice where not (told ->> 'settled')::boolean)
order by w.start_time, w.id
"""  # noqa: S608 - made of constants


async def windows_to_tell(db: Executor, since: datetime, until: datetime) -> list[MaintenanceWindow]:
    """The windows that may have an occurrence in the period, and all of which people know something that may change."""
    return [rows.maintenance_window(row) for row in await db.fetch(_TO_TELL, since, until)]


_TOLD = """
select told from maintenance_notice
"""


async def told(db: Executor) -> list[dict[str, Any]]:
    """What people know of occurrences, each as it was stored."""
    return [rows.from_json(row["told"]) for row in await db.fetch(_TOLD)]


_KEEP = """
insert into maintenance_notice (window_id, key, told)
select (t ->> 'window_id')::uuid, t ->> 'key', t from jsonb_array_elements($1::text::jsonb) t
on conflict (window_id, key) do update set told = excluded.told
"""

_FORGET = """
delete from maintenance_notice where (window_id, key) in (select * from unnest($1::text[]::uuid[], $2::text[]))
"""


async def record(
    connection: Connection, notifications: Sequence[Any], kept: Sequence[Any], forgotten: Iterable[tuple[str, str]]
) -> None:
    """Store messages and what people know with them in one transaction; ``forgotten`` are window ids and keys."""
    gone = list(forgotten)
    async with transaction(connection):
        if notifications:
            await connection.execute(RECORD_NOTIFICATIONS, rows.to_json(list(notifications)))
        if kept:
            await connection.execute(_KEEP, rows.to_json(list(kept)))
        if gone:
            await connection.execute(_FORGET, [window_id for window_id, _ in gone], [key for _, key in gone])


_STORED = """
select id from notification where id = any($1::text[]::uuid[])
"""


async def stored(db: Executor, notification_ids: Sequence[str]) -> set[str]:
    """Those of the messages that are stored."""
    return {str(row["id"]) for row in await db.fetch(_STORED, list(notification_ids))}
