"""Ways to Postgres: single connections and pools, set up alike, whose failures are sentences without secrets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from servmon.errors import ServmonError, StoreUnavailableError
from servmon.store.hosts import hosts_of, says_which

# The driver has no types of its own.
Pool: TypeAlias = Any
Connection: TypeAlias = Any
# What a query runs on: with a pool each query takes the connection that is free, with a connection all take the same.
Executor: TypeAlias = Pool | Connection

CONNECT_SECONDS = 10.0
# No query of a reader takes this long; one that does hangs on a server or network that is gone.
COMMAND_SECONDS = 60.0
# Compiling a plan costs more than it saves for queries that take milliseconds.
_SESSION = {"application_name": "servmon", "timezone": "UTC", "jit": "off"}
# What a pooler takes, too.
_POOLED_SESSION = {"application_name": "servmon", "timezone": "UTC"}
_pooled: set[str] = set()
_FAILURES = (
    OSError,
    TimeoutError,
    ValueError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


# What a query raises while Postgres is away, shuts down, is full or takes no writes just now, or where somebody changes
# its tables at this moment (the driver's own second try met that, too). InternalClientError is the driver's word for a
# session that the server has ended, between its farewell and the connection's end.
AWAY = (
    StoreUnavailableError,
    ConnectionError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
)


# What can never be stored, however often it is tried. The last three are the driver's.
NEVER = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, TypeError, OverflowError)


async def open_pool(dsn: str, *, min_size: int = 1, max_size: int = 8) -> Pool:
    """A pool of at most ``max_size`` connections to ``dsn``, ``min_size`` of them open: with 0 it needs no server yet.

    Also an async context manager that closes it. Whenever it cannot open a connection, now or later, it raises
    ``StoreUnavailableError``.
    """
    return await asyncpg.create_pool(
        dsn, min_size=min_size, max_size=max_size, connect=_connect, command_timeout=COMMAND_SECONDS
    )


async def connect(dsn: str) -> Connection:
    """One connection of its own to ``dsn``, such as ``postgresql://servmon@db.example/servmon``.

    Raises ``StoreUnavailableError``. Queries on it may take as long as they need.
    """
    return await _connect(dsn)


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncIterator[None]:
    """One transaction. The driver's own waits for a rollback even when cancelled, of a server that may be dead."""
    await connection.execute("begin")
    try:
        yield
    except StoreUnavailableError:
        raise
    except (asyncpg.PostgresError, ServmonError, *NEVER):
        await connection.execute("rollback")
        raise
    await connection.execute("commit")


async def rights(dsn: str) -> tuple[int, bool]:
    """The server's major version, and whether this user may create tables. Raises ``StoreUnavailableError``."""
    connection = await _connect(dsn)
    try:
        may_create = await connection.fetchval("select has_schema_privilege(current_schema(), 'create')")
        return connection.get_server_version().major, bool(may_create)
    finally:
        await connection.close()


async def _connect(dsn: str, **options: Any) -> Connection:
    try:
        connection = await _open(dsn, **options)
    except _FAILURES as error:
        raise StoreUnavailableError(f"cannot connect to {place_of(dsn)}: {_reason(error)}") from None
    try:
        # Binary, since COPY takes nothing else.
        await connection.set_type_codec(
            "jsonb", encoder=_to_jsonb, decoder=_from_jsonb, schema="pg_catalog", format="binary"
        )
    except _FAILURES as error:
        connection.terminate()
        raise StoreUnavailableError(f"lost the connection to {place_of(dsn)}: {_reason(error)}") from None
    except asyncio.CancelledError:
        connection.terminate()
        raise
    return connection


async def _open(dsn: str, **options: Any) -> Connection:
    """A connection to the first host of ``dsn`` that will do, each having its share of the time."""
    hosts = hosts_of(dsn)
    if not hosts:
        return await _open_one(dsn, CONNECT_SECONDS, **options)
    if not says_which(dsn):
        options["target_session_attrs"] = "read-write"
    failed: list[Exception] = []
    for host, port in hosts:
        try:
            return await _open_one(dsn, CONNECT_SECONDS / len(hosts), host=host, port=port, **options)
        except _FAILURES as error:
            failed.append(error)
    raise failed[-1]


async def _open_one(dsn: str, seconds: float, **options: Any) -> Connection:
    async with asyncio.timeout(seconds):
        if dsn not in _pooled:
            try:
                connection = await asyncpg.connect(dsn, server_settings=_SESSION, **options)
                if await _is_direct(connection):
                    return connection
            except asyncpg.ProtocolViolationError:
                pass  # a pooler that does not know every setting
            _pooled.add(dsn)
        # Statements cannot be prepared behind a pooler: the next one may reach another session.
        return await asyncpg.connect(dsn, server_settings=_POOLED_SESSION, statement_cache_size=0, **options)


async def _is_direct(connection: Connection) -> bool:
    """Whether the server that answers is the process that works; where not, or not in time, the connection ends."""
    is_direct = False
    try:
        is_direct = bool(connection.get_server_pid() == await connection.fetchval("select pg_backend_pid()"))
    finally:
        if not is_direct:
            connection.terminate()
    return is_direct


def is_pooled(dsn: str) -> bool:
    """Whether a pooler was met on the way to ``dsn``."""
    return dsn in _pooled


def _to_jsonb(value: Any) -> bytes:
    """A ``str`` is JSON already, as ``rows.to_json`` makes it; anything else becomes JSON here."""
    return b"\x01" + (value if isinstance(value, str) else json.dumps(value, allow_nan=False)).encode()


def _from_jsonb(stored: bytes) -> Any:
    return json.loads(stored[1:])  # the first byte is the format's version


def place_of(dsn: str) -> str:
    """Which database ``dsn`` means, for people: its name and host, never the password."""
    unnamed = "the configured database"
    try:
        parts = urlsplit(dsn)
        query = parse_qs(parts.query)
    except ValueError:
        return unnamed
    # Behind an "@" too far right stands a password with an unquoted "/", "?" or "#" in it.
    if parts.scheme not in ("postgresql", "postgres") or "@" in parts.path + parts.query + parts.fragment:
        return unnamed
    host = parts.netloc.rpartition("@")[2] or ",".join(query.get("host", [])) or "this machine"
    database = unquote(parts.path.lstrip("/")) or "".join(query.get("database", query.get("dbname", [])))
    return f"the database {database} on {host}" if database else f"Postgres on {host}"


def _reason(error: BaseException) -> str:
    if isinstance(error, ValueError):
        # The driver's own words may quote parts of the URL.
        return "its URL is not understood; it should look like postgresql://user:password@host:5432/database"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS:.0f} s"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error) or type(error).__name__
