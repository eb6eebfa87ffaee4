"""Who may use the API, as digests: a token itself is stored nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from servmon.errors import ConflictError, NotFoundError
from servmon.store import rows
from servmon.store.pool import Executor


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token about to be stored: ``digest`` stands for it, ``prefix`` is what may be shown of it."""

    id: str
    name: str
    prefix: str
    digest: bytes
    role: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None


_ALL = """
select * from access_token order by created_at, id
"""


async def get_all(db: Executor) -> list[rows.Row]:
    """Every token there was, in the order they were made."""
    return list(await db.fetch(_ALL))


_INSERT = """
insert into access_token (id, name, prefix, digest, role, created_at, created_by, expires_at)
values ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8)
on conflict (name) where revoked_at is null do nothing
returning *
"""


async def insert(db: Executor, new: NewToken) -> rows.Row:
    """Store a token. Raises ``ConflictError`` where a valid one bears the name."""
    row: rows.Row | None = await db.fetchrow(
        _INSERT, new.id, new.name, new.prefix, new.digest, new.role, new.created_at, new.created_by, new.expires_at
    )
    if row is None:
        raise ConflictError(f"there is already a token with the name {new.name}; revoke it first, or take another name")
    return row


_REVOKE = """
update access_token set revoked_at = $2 where id = $1::text::uuid and revoked_at is null returning *
"""


async def revoke(db: Executor, token_id: str, at: datetime) -> rows.Row:
    """Let a token count no longer. Raises ``NotFoundError`` where there is none that counts."""
    row: rows.Row | None = await db.fetchrow(_REVOKE, token_id, at)
    if row is None:
        raise NotFoundError(f"there is no valid token with the id {token_id}")
    return row
