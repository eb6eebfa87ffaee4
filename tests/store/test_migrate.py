"""The schema's history: each step once, whoever starts first, and never on a database it does not fit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from servmon.errors import StartError, StoreUnavailableError
from servmon.store.migrate import OLDEST_POSTGRES, _check_server, migrate, migrations_folder, read_migrations
from servmon.store.pool import connect
from servmon.store.postgres_binaries import find_binaries
from servmon.tasks import spawn
from tests.store.seeds import declared, endpoint, outage, result, store

ROOT = Path(__file__).parents[2]
PSQL = find_binaries(None, Path()).folder / "psql"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "0001_first.sql").write_text("create table a (n int); insert into a values (1);")
    (tmp_path / "0002_second.sql").write_text("alter table a add m int default 2;")
    return tmp_path


async def execute(dsn: str, statements: str) -> None:
    connection = await connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def ask(dsn: str, query: str):
    connection = await connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_every_migration_is_applied_once_and_in_order(empty_database, folder):
    assert await migrate(empty_database, folder) == ["0001_first.sql", "0002_second.sql"]
    assert await migrate(empty_database, folder) == []
    assert await ask(empty_database, "select sum(n + m) from a") == 3


async def test_a_later_program_applies_only_what_is_new(empty_database, folder):
    await migrate(empty_database, folder)
    (folder / "0003_third.sql").write_text("update a set m = 5;")
    assert await migrate(empty_database, folder) == ["0003_third.sql"]
    assert await ask(empty_database, "select sum(n + m) from a") == 6


async def test_starters_at_once_apply_each_migration_once(empty_database, folder):
    applied = await asyncio.gather(*(migrate(empty_database, folder) for _ in range(8)))
    assert sorted(name for names in applied for name in names) == ["0001_first.sql", "0002_second.sql"]
    assert await ask(empty_database, "select count(*) from a") == 1


async def test_a_starter_waits_without_blocking_an_index_built_concurrently(empty_database, folder):
    await migrate(empty_database, folder)
    (folder / "0003_slow.sql").write_text("select pg_sleep(0.5);")
    first = spawn(migrate(empty_database, folder), name="starter")
    second = spawn(migrate(empty_database, folder), name="starter")
    connection = await connect(empty_database)
    await connection.execute("create index concurrently a_n on a (n)")
    await connection.close()
    assert sorted(await first + await second) == ["0003_slow.sql"]


async def test_a_migration_that_is_what_an_index_waits_for_lets_go(empty_database, folder):
    await migrate(empty_database, folder)
    await execute(empty_database, "insert into a select n from generate_series(1, 1000) n")
    (folder / "0003_third.sql").write_text("select pg_sleep(0.3); alter table a add k int;")
    reader = await connect(empty_database)
    reading = reader.transaction()
    await reading.start()
    await reader.fetch("select * from a")
    indexing = spawn(execute(empty_database, "create index concurrently a_n on a (n)"), name="index")
    starters = [spawn(migrate(empty_database, folder), name="starter") for _ in range(2)]
    while await ask(empty_database, WAITING) < 2:  # the index for the reader, a starter for the index
        pass
    await reading.rollback()
    await indexing
    assert sorted(await starters[0] + await starters[1]) == ["0003_third.sql"]
    assert await ask(empty_database, "select indisvalid from pg_index where indexrelid = 'a_n'::regclass")
    await reader.close()


async def test_a_table_that_stays_locked_is_said_after_a_while(empty_database, folder, monkeypatch):
    monkeypatch.setattr("servmon.store.migrate.GIVE_UP_SECONDS", 0.0)
    await migrate(empty_database, folder)
    (folder / "0003_third.sql").write_text("alter table a add k int;")
    reader = await connect(empty_database)
    async with reader.transaction():
        await reader.fetch("select * from a")
        with pytest.raises(StoreUnavailableError, match=r"cannot be updated, others work on it: .*lock timeout"):
            await migrate(empty_database, folder)
    await reader.close()


WAITING = """
select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""

OLD_RESULT = """
insert into service_status_row (timestamp, endpoint_key, status, observer, attempts)
select '2026-03-01Z'::timestamptz + n * interval '1 s', 1, 'UP', 1, 1 from generate_series({first}, {last}) n
"""


async def test_two_daemons_and_a_psql_migrate_and_write_at_once(empty_database):
    """From an old schema in use: an older daemon writes on, psql builds an index, two new ones start and write."""
    await migrate(empty_database, upto=2)
    await execute(
        empty_database,
        "insert into service_endpoint (id, name, url, protocol) values ('a', 'a', 'tcp://a:1', 'TCP');"
        " select ensure_status_partition('2026-03-01')",
    )

    async def old_daemon() -> None:
        for first in range(0, 2000, 100):
            await execute(empty_database, OLD_RESULT.format(first=first, last=first + 99))

    psql = await asyncio.create_subprocess_exec(
        *(str(PSQL), "-X", "-q", "-v", "ON_ERROR_STOP=1", empty_database),
        *("-c", "create index concurrently by_hand_1 on service_outage (severity)"),
        *("-c", "create index concurrently by_hand_2 on state_change (reason)"),
        *("-c", "select ensure_status_partition('2026-03-02')"),
        stderr=asyncio.subprocess.PIPE,
    )
    applied = await asyncio.gather(migrate(empty_database), migrate(empty_database), old_daemon())
    _, said = await psql.communicate()
    assert (psql.returncode, said) == (0, b"")
    missing = [one.name for one in read_migrations(migrations_folder())][2:]
    assert sorted(applied[0] + applied[1]) == missing
    watched = replace(endpoint("a"), key=1)
    opened = outage("a")
    results = [
        result(watched, timestamp=datetime(2026, 3, 2, tzinfo=UTC) + n * timedelta(seconds=1)) for n in range(900)
    ]
    transition = (None, [declared(opened)])
    await asyncio.gather(*(store(empty_database, *results, transition) for _ in range(2)))
    assert await ask(empty_database, "select count(*) from service_status_row") == 2900
    assert await ask(empty_database, "select count(*) from service_outage") == 1
    assert await ask(empty_database, "select count(*) from state_change") == 1
    assert await ask(empty_database, "select count(*) from pg_index where not indisvalid") == 0


async def test_a_migration_that_fails_leaves_nothing_of_itself(empty_database, folder):
    (folder / "0003_broken.sql").write_text("create table half (n int); create tabel oops;")
    with pytest.raises(StartError, match=r"0003_broken\.sql could not be applied .* stays as it was: syntax error"):
        await migrate(empty_database, folder)
    assert await ask(empty_database, "select to_regclass('half')") is None
    assert await ask(empty_database, "select max(number) from schema_migration") == 2


async def test_an_account_that_may_not_make_tables_is_told_so(empty_database, folder):
    connection = await connect(empty_database)
    name = empty_database.rpartition("/test_")[2].partition("?")[0]
    await connection.execute(f"create role guest_{name} login")
    try:
        with pytest.raises(StartError, match="cannot be updated: permission denied for schema public"):
            await migrate(empty_database.replace("servmon@", f"guest_{name}@"), folder)
    finally:
        await connection.execute(f"drop role guest_{name}")
        await connection.close()


async def test_a_newer_database_is_refused(empty_database, folder):
    await migrate(empty_database, folder)
    (folder / "0002_second.sql").unlink()
    with pytest.raises(StartError, match=r"made by a newer servmon: it has the migration 0002_second\.sql"):
        await migrate(empty_database, folder)


async def test_a_migration_changed_afterwards_is_refused(empty_database, folder):
    await migrate(empty_database, folder)
    (folder / "0001_first.sql").write_text("create table a (n bigint);")
    with pytest.raises(StartError, match=r"0001_first\.sql is not the one that was applied"):
        await migrate(empty_database, folder)


async def test_a_table_of_that_name_that_is_somebody_elses_is_left_alone(empty_database, folder):
    connection = await connect(empty_database)
    await connection.execute("create table schema_migration (version text)")
    await connection.close()
    with pytest.raises(StartError, match="not servmon's"):
        await migrate(empty_database, folder)


async def test_an_old_postgres_is_refused(empty_database):
    class Old:
        """No Postgres that old can be installed here; it would answer so."""

        async def fetchrow(self, _query):
            return {"major": 13, "version": "13.16", "encoding": "UTF8"}

    with pytest.raises(StartError, match=rf"runs PostgreSQL 13\.16; servmon needs PostgreSQL {OLDEST_POSTGRES}"):
        await _check_server(Old(), "the database x on y")


async def test_another_encoding_is_refused(postgres_server, folder):
    connection = await connect(postgres_server)
    name = "test_latin"
    try:
        await connection.execute(f"create database {name} encoding 'LATIN1' template template0 locale 'C'")
        with pytest.raises(StartError, match="the encoding LATIN1; servmon needs"):
            await migrate(postgres_server.replace("/servmon?", f"/{name}?"), folder)
        await connection.execute(f"drop database {name} with (force)")
    finally:
        await connection.close()


async def test_a_read_only_database_is_asked_again_later(empty_database, folder):
    connection = await connect(empty_database)
    name = empty_database.rpartition("/test_")[2].partition("?")[0]
    await connection.execute(f"alter database test_{name} set default_transaction_read_only = on")
    await connection.close()
    with pytest.raises(StoreUnavailableError, match="read-only"):
        await migrate(empty_database, folder)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("0001_again.sql", "the same number as 0001_again.sql"), ("3-third.sql", "not named like a migration")],
)
def test_a_wrong_name_is_refused(folder, name, problem):
    (folder / name).write_text("select 1;")
    with pytest.raises(StartError, match=problem):
        read_migrations(folder)


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("postgresql://me:sesame@127.0.0.1:1/things", "the database things on 127.0.0.1:1: .*[Cc]onnect"),
        ("postgresql://me:sesame@/things?host=/nowhere", "the database things on /nowhere: .*"),
        ("postgresql://me:ses/ame@127.0.0.1:1/things", "the configured database: "),
        ("postgresql://me:ses#ame@127.0.0.1:1/sesame", "the configured database: "),
        ("sesame", "the configured database: "),
        ("postgresql://me@127.0.0.1:sesame/x", "its URL is not understood"),
    ],
)
async def test_a_database_that_cannot_be_reached_is_named_without_the_password(dsn, place):
    with pytest.raises(StoreUnavailableError, match=place) as caught:
        await migrate(dsn)
    words = str(caught.value).replace("127.0.0.1:sesame", "")
    assert "ses" not in words
    assert "ame" not in words.replace("name", "")


async def test_a_missing_database_is_said(postgres_server):
    with pytest.raises(StoreUnavailableError, match=r'the database nope on .*: database "nope" does not exist'):
        await migrate(postgres_server.replace("/servmon?", "/nope?"))


async def test_connections_speak_utc_and_json(db):
    row = await db.fetchrow(
        "select current_setting('timezone'), current_setting('application_name'), '{\"a\": [1]}'::jsonb,"
        " $1::jsonb -> 'b', jsonb_typeof($2::jsonb)",
        {"b": None},
        "[1]",
    )
    assert tuple(row) == ("UTC", "servmon", {"a": [1]}, None, "array")


def test_the_source_tree_has_its_migrations():
    assert migrations_folder() == ROOT / "sql"
    assert read_migrations(migrations_folder())[0].number == 1


def test_the_wheel_has_its_migrations(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom servmon.store.migrate import *\nprint(migrations_folder())"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", script, str(tmp_path / "installed")], check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(tmp_path / "installed" / "servmon" / "sql")
    ours = [migration.checksum for migration in read_migrations(ROOT / "sql")]
    assert [migration.checksum for migration in read_migrations(Path(found.stdout.strip()))] == ours
