"""Brings the schema up to date: the numbered files of ``sql/``, each once, each in a transaction of its own."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import structlog

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import StartError, StoreUnavailableError
from servmon.store.pool import Connection, connect, place_of

_log = structlog.get_logger(__name__)

OLDEST_POSTGRES = 14
POLL_SECONDS = 0.1
# Any number will do, as long as every servmon takes the same one.
_LOCK_KEY = 0x5E72_4D6F_6E01
GIVE_UP_SECONDS = 120.0


class _AnotherServmonError(Exception):
    """Somebody else holds the lock just now."""


# Somebody uses a table that is to be changed, or changes it.
_BUSY = (_AnotherServmonError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
# The server went away or has no room; what is wrong is neither the schema nor the configuration.
_AWAY = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
)
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

_SERVER = """
select current_setting('server_version_num')::int / 10000 as major, current_setting('server_version') as version,
       current_setting('server_encoding') as encoding
"""

_KNOWN = """
select to_regclass('schema_migration') is not null
"""

_CREATE = """
create table if not exists schema_migration (
    number int primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now()
)
"""

_APPLIED = """
select number, name, checksum from schema_migration order by number
"""

# For the transaction alone: the next starter goes on as soon as it ends, however it ends.
_TRY_LOCK = """
select pg_try_advisory_xact_lock($1)
"""

# Who waits for a table's lock makes all wait who come after, and may be what its holder waits for, as CREATE INDEX
# CONCURRENTLY does: better to let go and try again, sooner than Postgres looks for deadlocks (1 s).
_PATIENCE = """
set local lock_timeout = '500ms'
"""

_REMEMBER = """
insert into schema_migration (number, name, checksum) values ($1, $2, $3)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of ``sql/``: its number, name, text and SHA-256."""

    number: int
    name: str
    text: str
    checksum: str


def migrations_folder() -> Path:
    """Where the migrations lie: inside the installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "sql", package.parent / "sql"):
        if folder.is_dir():
            return folder
    raise StartError(f"the folder sql with the database's schema is missing beside {package}; install servmon again")


def read_migrations(folder: Path) -> list[Migration]:
    """The migrations in ``folder``, by number. Raises ``StartError`` for a wrong name or a number taken twice."""
    found: dict[int, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        named = _FILE_NAME.fullmatch(path.name)
        if not named:
            raise StartError(f"{path} is not named like a migration; right would be 0002_some_words.sql")
        number, content = int(named[1]), path.read_bytes()
        if number in found:
            raise StartError(f"{path} has the same number as {found[number].name}; every migration needs its own")
        found[number] = Migration(number, path.name, content.decode(), hashlib.sha256(content).hexdigest())
    return list(found.values())


async def migrate(dsn: str, folder: Path | None = None, *, upto: int | None = None) -> list[str]:
    """Apply to ``dsn`` what it lacks of the migrations in ``folder`` (by default servmon's own); returns their names.

    Those with a number above ``upto`` are left for later.

    Safe with several starters at once. Raises ``StartError`` where the database is not one that this program can
    use (too old a Postgres, a newer schema, a migration that was changed afterwards or fails), and
    ``StoreUnavailableError`` where it cannot be reached.
    """
    migrations = read_migrations(folder or migrations_folder())
    wanted = [migration for migration in migrations if upto is None or migration.number <= upto]
    connection = await connect(dsn)
    try:
        await _check_server(connection, place_of(dsn))
        return await _apply_all(connection, wanted, place_of(dsn))
    except _AWAY as error:
        raise StoreUnavailableError(f"the schema of {place_of(dsn)} cannot be updated just now: {error}") from error
    except asyncpg.PostgresError as error:
        raise StartError(f"the schema of {place_of(dsn)} cannot be updated: {error}") from error
    finally:
        connection.terminate()  # nothing is under way any more, and a dead server is not waited for


async def _check_server(connection: Connection, place: str) -> None:
    server = await connection.fetchrow(_SERVER)
    if server["major"] < OLDEST_POSTGRES:
        raise StartError(
            f"{place} runs PostgreSQL {server['version']}; servmon needs PostgreSQL {OLDEST_POSTGRES} or newer"
        )
    if server["encoding"] != "UTF8":
        raise StartError(
            f"{place} has the encoding {server['encoding']}; servmon needs one made with: create database … encoding"
            " 'UTF8' template template0"
        )


async def _apply_all(connection: Connection, migrations: Sequence[Migration], place: str) -> list[str]:
    # Nothing to do is the usual case, and needs neither the lock nor the right to write.
    if not pending(migrations, await applied_to(connection), place):
        return []
    names: list[str] = []
    waiting = False
    give_up_at = SYSTEM_CLOCK.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            async with connection.transaction(isolation="read_committed"):
                name = await _apply_next(connection, migrations, place)
        except _BUSY as error:
            if SYSTEM_CLOCK.monotonic() > give_up_at:
                raise StoreUnavailableError(f"{place} cannot be updated, others work on it: {error}") from error
            if not waiting:
                _log.info("others work on the schema, waiting for them", reason=str(error))
            waiting = True
            await asyncio.sleep(POLL_SECONDS)
            continue
        if name is None:
            return names
        names.append(name)


async def _apply_next(connection: Connection, migrations: Sequence[Migration], place: str) -> str | None:
    """Apply the first of the missing ``migrations`` in the transaction at hand; ``None`` where none is missing."""
    # A lock that blocks would, together with somebody's CREATE INDEX CONCURRENTLY, wait for ever.
    if not await connection.fetchval(_TRY_LOCK, _LOCK_KEY):
        raise _AnotherServmonError("another servmon is updating the schema")
    await connection.execute(_PATIENCE)
    # Also makes this session see a table that another one made a moment ago.
    await connection.execute(_CREATE)
    missing = pending(migrations, await applied_to(connection), place)
    if not missing:
        return None
    await _apply(connection, missing[0], place)
    return missing[0].name


async def applied_to(connection: Connection) -> Mapping[int, Migration]:
    """What was applied so far, without the texts; raises ``StartError`` for a table that is not servmon's."""
    if not await connection.fetchval(_KNOWN):
        return {}
    try:
        rows = await connection.fetch(_APPLIED)
    except asyncpg.UndefinedColumnError:
        raise StartError(
            "the database has a table schema_migration that is not servmon's; use one of its own"
        ) from None
    return {row["number"]: Migration(row["number"], row["name"], "", row["checksum"]) for row in rows}


def pending(migrations: Sequence[Migration], applied: Mapping[int, Migration], place: str) -> list[Migration]:
    """What is still to be applied; raises ``StartError`` where what was applied is not what this program knows."""
    ours = {migration.number: migration for migration in migrations}
    for number, there in applied.items():
        if number not in ours:
            raise StartError(
                f"{place} was made by a newer servmon: it has the migration {there.name}, which this one does not"
                " know; install that version of servmon or a newer one"
            )
        if there.checksum != ours[number].checksum:
            raise StartError(
                f"the migration {ours[number].name} is not the one that was applied to {place}: its checksum differs;"
                " put the original file back and write a new migration for the change"
            )
    return [migration for migration in migrations if migration.number not in applied]


async def _apply(connection: Connection, migration: Migration, place: str) -> None:
    try:
        await connection.execute(migration.text)
        await connection.execute(_REMEMBER, migration.number, migration.name, migration.checksum)
    except (*_AWAY, *_BUSY):
        raise
    except asyncpg.PostgresError as error:
        raise StartError(
            f"the migration {migration.name} could not be applied to {place}, which stays as it was: {error}"
        ) from error
    _log.info("migration applied", name=migration.name)
