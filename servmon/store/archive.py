"""A whole database in one file, and back: a ZIP with the rows of each table as COPY writes them, and what they are.

The text of COPY is the same for every PostgreSQL, so a backup of version 18 restores into 14 and the reverse. Tables
are found in the catalogue: a new one is in the backup without a word here.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import asyncpg

from servmon import __version__
from servmon.clock import now, rfc3339
from servmon.errors import ConflictError, InvalidInputError, StoreUnavailableError
from servmon.store.migrate import Migration, applied_to, migrate, migrations_folder, pending, read_migrations
from servmon.store.pool import AWAY, Connection, connect, place_of, transaction

FORMAT = 1
CONTENTS = "servmon.json"
FASTEST_COMPRESSION = 1
CHUNK_BYTES = 1024 * 1024

# What it is told: bytes done, bytes in all (both about), and what is at hand.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that holds rows; ``bound`` is which of its ``parent``'s, where it is a partition."""

    name: str
    parent: str | None
    bound: str | None
    columns: Sequence[str]
    rows: int = 0

    @property
    def file(self) -> str:
        """Where its rows lie in the archive."""
        return f"tables/{self.name}.copy"

    @property
    def root(self) -> str:
        """The table that it is, or is a part of."""
        return self.parent or self.name


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds: ``migrations`` are those that its tables were made by, by number, name and checksum."""

    made_at: str
    servmon: str
    postgres: str
    migrations: Sequence[tuple[int, str, str]]
    tables: Sequence[Table]
    sequences: dict[str, int]

    @property
    def rows(self) -> int:
        """How many rows there are in all tables."""
        return sum(table.rows for table in self.tables)


_TABLES = """
select c.relname as name, p.relname as parent, pg_get_expr(c.relpartbound, c.oid) as bound,
    pg_relation_size(c.oid) as bytes, (
        select array_agg(attname order by attnum) from pg_attribute
        where attrelid = c.oid and attnum > 0 and not attisdropped and attgenerated = ''
    ) as columns
from pg_class c
left join pg_inherits i on i.inhrelid = c.oid
left join pg_class p on p.oid = i.inhparent
where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r' and c.relpersistence = 'p'
and c.relname <> 'schema_migration'
and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
order by c.relname
"""

_SEQUENCES = """
select sequencename as name, last_value from pg_sequences
where schemaname = current_schema() and last_value is not null
"""

_MIGRATIONS = """
select number, name, checksum from schema_migration order by number
"""

_REFERENCES = """
select distinct c.conrelid::regclass::text as table, c.confrelid::regclass::text as needs
from pg_constraint c where c.contype = 'f' and c.connamespace = current_schema()::regnamespace
"""

_OTHERS = """
select count(*) from pg_stat_activity
where datname = current_database() and application_name = 'servmon' and pid <> pg_backend_pid()
"""

_HOLDS_RECORDS = """
select exists (select from service_endpoint) or exists (select from service_outage)
    or exists (select from service_status_row)
"""

_FAILURES = (*AWAY, asyncpg.PostgresError)
_DAMAGES = (BadZipFile, zlib.error, EOFError)


async def backup(dsn: str, file: Path, progress: Progress) -> Contents:
    """Write all that the database holds, as of one moment, into ``file``; servmon may go on meanwhile.

    Only a complete backup ever has that name. Raises ``StoreUnavailableError`` and ``OSError``.
    """
    connection = await connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            with (
                _written_whole(file) as out,
                ZipFile(out, "w", ZIP_DEFLATED, compresslevel=FASTEST_COMPRESSION) as zipped,
            ):
                contents = await _write(connection, zipped, progress)
                zipped.writestr(CONTENTS, json.dumps({"format": FORMAT, **asdict(contents)}, indent=1))
            return contents
    except _FAILURES as error:
        raise StoreUnavailableError(f"{place_of(dsn)} could not be read to the end: {error}") from error
    finally:
        connection.terminate()


async def _write(connection: Connection, zipped: ZipFile, progress: Progress) -> Contents:
    found = await connection.fetch(_TABLES)
    meter = _Meter(sum(row["bytes"] for row in found), progress)
    tables = []
    for row in found:
        table = Table(row["name"], row["parent"], row["bound"], tuple(row["columns"]))
        tables.append(replace(table, rows=await _copy_out(connection, zipped, table, meter)))
        meter.finish(row["bytes"], table.name)
    return Contents(
        made_at=rfc3339(now()),
        servmon=__version__,
        postgres=await connection.fetchval("select current_setting('server_version')"),
        migrations=[tuple(row) for row in await connection.fetch(_MIGRATIONS)],
        tables=tables,
        sequences={row["name"]: row["last_value"] for row in await connection.fetch(_SEQUENCES)},
    )


class _Meter:
    """Says how far things are: what is finished, and of what is at hand at least what went by so far."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._finished = 0
        self._passed = 0

    def passing(self, number: int, what: str) -> None:
        self._passed += number
        self._progress(min(self._finished + self._passed, self._total), self._total, what)

    def finish(self, number: int, what: str) -> None:
        self._finished += number
        self._passed = 0
        self._progress(self._finished, self._total, what)


async def _copy_out(connection: Connection, zipped: ZipFile, table: Table, meter: _Meter) -> int:
    columns = ", ".join(map(_quoted, table.columns))
    with zipped.open(table.file, "w", force_zip64=True) as rows:

        async def write(chunk: bytes) -> None:
            rows.write(chunk)
            meter.passing(len(chunk), table.name)

        query = f"select {columns} from only {_quoted(table.name)}"  # noqa: S608 - names from the catalogue, quoted
        done: str = await connection.copy_from_query(query, output=write)
    return int(done.rpartition(" ")[2])


@contextmanager
def _written_whole(file: Path) -> Any:
    """A file that takes its name only when all of it is on disk. It holds secrets, so nobody else may read it."""
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with os.fdopen(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w+b") as out:
            os.fchmod(out.fileno(), 0o600)
            yield out
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read_contents(file: Path) -> Contents:
    """What ``file`` holds; raises ``InvalidInputError`` where it is no complete backup, and ``OSError``."""
    try:
        with ZipFile(file) as zipped:
            found = json.loads(zipped.read(CONTENTS))
        if found["format"] != FORMAT:
            raise InvalidInputError.of("", f"{file} was made by a newer servmon ({found['servmon']}); install that one")
        return Contents(
            made_at=found["made_at"],
            servmon=found["servmon"],
            postgres=found["postgres"],
            migrations=[(number, name, checksum) for number, name, checksum in found["migrations"]],
            tables=[Table(**{**table, "columns": tuple(table["columns"])}) for table in found["tables"]],
            sequences=found["sequences"],
        )
    except (*_DAMAGES, KeyError, ValueError, TypeError) as error:
        raise InvalidInputError.of("", f"{file} is no complete backup made by servmon: {error}") from None


async def restore(dsn: str, file: Path, progress: Progress) -> Contents:
    """Fill the empty database ``dsn`` with what ``file`` holds, all or nothing, and bring its schema up to date.

    Raises ``InvalidInputError`` for a file that is no whole backup, ``ConflictError`` for a database that holds records
    or that a servmon works on, ``StartError`` where the file is of a newer servmon, ``StoreUnavailableError`` and
    ``OSError``.
    """
    contents = read_contents(file)
    made_by = {number: Migration(number, name, "", checksum) for number, name, checksum in contents.migrations}
    pending(read_migrations(migrations_folder()), made_by, str(file))
    await _check_empty(dsn, made_by)
    await migrate(dsn, upto=max(made_by))
    connection = await connect(dsn)
    try:
        async with transaction(connection):
            await _fill(connection, file, contents, progress)
    except _DAMAGES as error:
        raise InvalidInputError.of("", f"{file} is damaged: {error}; nothing was restored") from None
    except _FAILURES as error:
        raise StoreUnavailableError(f"{place_of(dsn)} did not take it, and stays empty: {error}") from error
    finally:
        connection.terminate()
    await migrate(dsn)
    return contents


async def _check_empty(dsn: str, made_by: dict[int, Migration]) -> None:
    connection = await connect(dsn)
    try:
        known = await applied_to(connection)
        if known and (max(known) > max(made_by) or await connection.fetchval(_HOLDS_RECORDS)):
            raise ConflictError(f"{place_of(dsn)} holds records of a servmon already; restore into an empty database")
        if await connection.fetchval(_OTHERS):
            raise ConflictError(f"a servmon works on {place_of(dsn)}; stop it first")
    except asyncpg.PostgresError as error:
        raise StoreUnavailableError(f"{place_of(dsn)} cannot be looked at: {error}") from error
    finally:
        connection.terminate()


async def _fill(connection: Connection, file: Path, contents: Contents, progress: Progress) -> None:
    roots = list(dict.fromkeys(table.root for table in contents.tables))
    for root in roots:  # what they do was done already when the rows were made
        await connection.execute(f"alter table {_quoted(root)} disable trigger user")
    await connection.execute(f"truncate {', '.join(map(_quoted, roots))}")  # what migrations put there is in the backup
    with ZipFile(file) as zipped:
        sizes = {table.name: zipped.getinfo(table.file).file_size for table in contents.tables}
        meter = _Meter(sum(sizes.values()), progress)
        for table in _parents_first(contents.tables, await connection.fetch(_REFERENCES)):
            await _make_partition(connection, table)
            with zipped.open(table.file) as rows:
                await _copy_in(connection, table, _chunks(rows, meter, table.name))
            meter.finish(sizes[table.name], table.name)
    for name, value in contents.sequences.items():
        await connection.execute("select setval(quote_ident($1)::regclass, $2)", name, value)
    for root in roots:
        await connection.execute(f"alter table {_quoted(root)} enable trigger user")


def _parents_first(tables: Sequence[Table], references: Sequence[Any]) -> list[Table]:
    """The tables in an order in which each comes after those it refers to."""
    needs: dict[str, set[str]] = {}
    for row in references:
        needs.setdefault(row["table"], set()).add(row["needs"])
    ordered: dict[str, Table] = {}

    def add(table: Table) -> None:
        for other in tables:
            if other.root in needs.get(table.root, ()) and other.name not in ordered and other.root != table.root:
                add(other)
        ordered[table.name] = table

    for table in tables:
        if table.name not in ordered:
            add(table)
    return list(ordered.values())


async def _make_partition(connection: Connection, table: Table) -> None:
    if table.parent and not await connection.fetchval("select to_regclass(quote_ident($1)) is not null", table.name):
        await connection.execute(
            f"create table {_quoted(table.name)} partition of {_quoted(table.parent)} {table.bound}"
        )


async def _copy_in(connection: Connection, table: Table, rows: AsyncIterator[bytes]) -> None:
    done = await connection.copy_to_table(table.name, source=rows, columns=table.columns)
    copied = int(done.rpartition(" ")[2])
    if copied != table.rows:
        raise BadZipFile(f"{table.name} has {copied} rows instead of {table.rows}")


async def _chunks(rows: IO[bytes], meter: _Meter, what: str) -> AsyncIterator[bytes]:
    while chunk := rows.read(CHUNK_BYTES):
        yield chunk
        meter.passing(len(chunk), what)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
