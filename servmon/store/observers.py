"""Who looked: one number for each instance that ever wrote here."""

from __future__ import annotations

from servmon.store.pool import Executor

_NUMBER = """
with known as (
    select number from observer where name = $1
), added as (
    insert into observer (number, name)
    select coalesce(max(number), 0) + 1, $1 from observer where not exists (select from known)
    having not exists (select from known)
    on conflict do nothing
    returning number
)
select number from known union all select number from added
"""


async def number_of(db: Executor, instance: str) -> int:
    """The number in the rows of what ``instance`` finds out; a new instance is given one."""
    while True:  # another new instance may take the number first
        number: int | None = await db.fetchval(_NUMBER, instance)
        if number is not None:
            return number
