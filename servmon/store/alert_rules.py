"""Alert rules that people made over the API, each as it was given."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from servmon.errors import ConflictError, NotFoundError
from servmon.store import rows
from servmon.store.pool import Executor

_ALL = """
select * from alert_rule order by position
"""


async def get_all(db: Executor) -> list[dict[str, Any]]:
    """Every rule, in the order in which they are asked."""
    return [{**row, "rule": rows.from_json(row["rule"])} for row in await db.fetch(_ALL)]


_INSERT = """
insert into alert_rule (name, rule, created_at, created_by, updated_at)
values ($1, $2::text::jsonb, $3, $4, $3)
on conflict (name) do nothing
returning name
"""


async def insert(db: Executor, name: str, rule: Mapping[str, Any], at: datetime, created_by: str) -> None:
    """Store a rule. Raises ``ConflictError`` where the name is taken."""
    if await db.fetchval(_INSERT, name, rows.to_json(rule), at, created_by) is None:
        raise ConflictError(f"there is a rule called {name} already")


_UPDATE = """
update alert_rule set rule = $2::text::jsonb, updated_at = $3 where name = $1 returning name
"""


async def update(db: Executor, name: str, rule: Mapping[str, Any], at: datetime) -> None:
    """Store a rule anew, in its place. Raises ``NotFoundError``."""
    if await db.fetchval(_UPDATE, name, rows.to_json(rule), at) is None:
        raise NotFoundError(f"there is no rule called {name}")


_DELETE = """
delete from alert_rule where name = $1 returning name
"""


async def delete(db: Executor, name: str) -> None:
    """Delete a rule. Raises ``NotFoundError``."""
    if await db.fetchval(_DELETE, name) is None:
        raise NotFoundError(f"there is no rule called {name}")
