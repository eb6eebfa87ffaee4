"""A backup holds everything, restores all or nothing, and says what is wrong with a bad one."""

from __future__ import annotations

import json
import stat
import zipfile
from datetime import timedelta
from uuid import uuid4

import pytest

from servmon.clock import now
from servmon.errors import ConflictError, InvalidInputError, StartError, StoreUnavailableError
from servmon.model import FailureKind, State, Status
from servmon.store import archive, endpoints, partitions, rollup_worker
from servmon.store.archive import backup, restore
from servmon.store.migrate import migrate
from servmon.store.pool import connect, open_pool
from tests.store.seeds import change, declared, endpoint, outage, result, store

ALL_TABLES = """
select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' order by 1
"""


def nobody(_done: int, _total: int, _what: str) -> None:
    pass


async def dump(dsn: str) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    async with await open_pool(dsn) as db:
        names = [row["relname"] for row in await db.fetch(ALL_TABLES)]
        return {
            name: sorted(row[0] for row in await db.fetch(f'select t::text from "{name}" t'))
            for name in names
            if name != "schema_migration"
        }


@pytest.fixture
async def full(db, database):
    """A database with something in most tables."""
    watched = await endpoints.insert(db, endpoint("a", name='tab\t "quote" \\N käse\n'))
    await endpoints.insert(db, endpoint("b", depends_on=(("a",),)))
    at = now() - timedelta(days=3)
    opened = outage("a", start_time=at)
    await store(
        database,
        *(result(watched, timestamp=at + timedelta(hours=hour), response_time=1.5) for hour in range(60)),
        result(
            watched,
            Status.DOWN,
            at + timedelta(seconds=1),
            failure_kind=FailureKind.TLS,
            error_message="line\nfeed \\. \t",
            details={"a": "ä"},
        ),
        (None, [declared(opened)]),
        change("b", State.UP, State.DOWN, at),
    )
    await rollup_worker.sum_up_due(db, now(), settle=timedelta(0))
    await db.execute(
        "insert into alert (id, rule, title, severity, opened_at, told_at, channels)"
        " values ($1, 'r', 't', 'MAJOR', now(), now(), '{noc}')",
        uuid4(),
    )
    await db.execute("insert into alert_outage select id, $1, 'a', 'a', now() from alert", uuid4())
    return database


async def test_what_was_backed_up_comes_back_to_the_row(full, empty_database, tmp_path):
    file = tmp_path / "servmon.zip"
    seen: list[tuple[int, int]] = []
    contents = await backup(full, file, lambda done, total, _what: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["servmon.zip"]
    seen.clear()
    assert (await restore(empty_database, file, lambda done, total, _what: seen.append((done, total)))) == contents
    assert seen[-1][0] == seen[-1][1] > 0
    before, after = await dump(full), await dump(empty_database)
    assert after == before
    assert contents.rows == sum(map(len, before.values()))
    assert sum(len(rows) for name, rows in before.items() if name.startswith("service_status_row_")) == 61


async def test_a_restored_database_goes_on_where_the_other_ended(full, empty_database, tmp_path):
    await backup(full, tmp_path / "b.zip", nobody)
    await restore(empty_database, tmp_path / "b.zip", nobody)
    async with await open_pool(empty_database) as db:
        last = await db.fetchval("select max(seq) from service_status_row")
        new = await endpoints.insert(db, endpoint("new"))
        assert new.key > (await endpoints.get(db, "b")).key
        await store(empty_database, result(new), change("new", State.UP, State.DOWN, now()))
        assert await db.fetchval("select max(seq) from service_status_row") > last
        await endpoints.archive(db, "a")  # its triggers work: the outage is closed
        assert await db.fetchval("select resolved from service_outage")
        await partitions.ensure_partitions(db, [now().date() + timedelta(days=1)])
        bad = await db.fetch("select tgname from pg_trigger where tgenabled <> 'O' and not tgisinternal")
        assert not bad


async def test_a_backup_is_of_one_moment_while_others_write(full, empty_database, tmp_path, monkeypatch):
    real = archive._copy_out

    async def with_a_writer(connection, zipped, table, meter):
        if table.name == "alert":  # the first one in their order
            other = await connect(full)
            await other.execute("update service_endpoint set timeout = 9")
            await other.close()
        return await real(connection, zipped, table, meter)

    monkeypatch.setattr(archive, "_copy_out", with_a_writer)
    await backup(full, tmp_path / "b.zip", nobody)
    await restore(empty_database, tmp_path / "b.zip", nobody)
    async with await open_pool(empty_database) as db:
        assert (await endpoints.get(db, "a")).timeout == 5


async def test_an_older_backup_is_brought_up_to_date(empty_database, postgres_server, tmp_path):
    await migrate(empty_database, upto=2)
    async with await open_pool(empty_database) as db:
        await db.execute("select ensure_status_partition('2026-03-01')")
        await db.execute("insert into service_endpoint (id, name, url, protocol) values ('a', 'a', 'tcp://a:1', 'TCP')")
    await backup(empty_database, tmp_path / "old.zip", nobody)
    other = await connect(empty_database)
    await other.execute("drop schema public cascade; create schema public")
    await other.close()
    await restore(empty_database, tmp_path / "old.zip", nobody)
    async with await open_pool(empty_database) as db:
        assert (await endpoints.get(db, "a")).name == "a"
        assert await db.fetchval("select count(*) from rollup_due") == 24  # a later migration saw the restored day
        assert await migrate(empty_database) == []


async def test_a_database_with_records_is_left_alone(full, tmp_path):
    await backup(full, tmp_path / "b.zip", nobody)
    before = await dump(full)
    with pytest.raises(ConflictError, match=r"holds records of a servmon already; restore into an empty database"):
        await restore(full, tmp_path / "b.zip", nobody)
    assert await dump(full) == before


async def test_a_running_servmon_is_noticed(db, database, full, empty_database, tmp_path):
    await backup(full, tmp_path / "b.zip", nobody)
    running = await connect(empty_database)
    with pytest.raises(ConflictError, match="a servmon works on the database test_"):
        await restore(empty_database, tmp_path / "b.zip", nobody)
    await running.close()


async def test_a_new_database_that_only_has_its_schema_is_empty_enough(full, empty_database, tmp_path):
    await backup(full, tmp_path / "b.zip", nobody)
    await migrate(empty_database)
    await restore(empty_database, tmp_path / "b.zip", nobody)
    assert await dump(empty_database) == await dump(full)


def rewrite(file, name, change):
    """The same archive with the content of one member changed."""
    with zipfile.ZipFile(file) as old:
        members = {member: old.read(member) for member in old.namelist()}
    members[name] = change(members[name])
    with zipfile.ZipFile(file, "w") as new:
        for member, content in members.items():
            new.writestr(member, content)


async def refused(dsn, file, error, sentence):
    with pytest.raises(error, match=sentence):
        await restore(dsn, file, nobody)
    async with await open_pool(dsn) as db:
        if await db.fetchval("select to_regclass('service_endpoint') is not null"):
            assert await db.fetchval("select count(*) from service_endpoint") == 0


async def test_a_bad_backup_restores_nothing_and_says_why(full, empty_database, tmp_path):
    file = tmp_path / "b.zip"
    await backup(full, file, nobody)
    whole = file.read_bytes()
    for broken in (b"", b"no zip at all", whole[: len(whole) // 2], whole[:-1]):
        file.write_bytes(broken)
        await refused(empty_database, file, InvalidInputError, r"b\.zip is no complete backup made by servmon")
    file.write_bytes(whole)
    rewrite(file, "tables/service_endpoint.copy", lambda rows: rows.split(b"\n")[0] + b"\n")
    await refused(empty_database, file, InvalidInputError, "is damaged: service_endpoint has 1 rows instead of 2")
    file.write_bytes(whole)
    rewrite(file, "tables/service_endpoint.copy", lambda rows: rows.replace(b"TCP", b"TCP\tmore"))
    await refused(empty_database, file, StoreUnavailableError, "did not take it, and stays empty")
    middle = whole.index(b"tables/service_status_row_") + 100
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :])
    await refused(empty_database, file, InvalidInputError, "damaged|no complete backup")
    file.write_bytes(whole)
    await restore(empty_database, file, nobody)


async def test_a_backup_of_a_newer_servmon_is_refused(full, empty_database, tmp_path):
    file = tmp_path / "b.zip"

    def newer(contents):
        found = json.loads(contents)
        found["migrations"].append([9999, "9999_future.sql", "x"])
        return json.dumps(found)

    await backup(full, file, nobody)
    rewrite(file, archive.CONTENTS, newer)
    with pytest.raises(StartError, match=r"b\.zip was made by a newer servmon: it has the migration 9999_future\.sql"):
        await restore(empty_database, file, nobody)


async def test_a_backup_that_fails_leaves_no_file(full, tmp_path, monkeypatch):
    async def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "_copy_out", full_disk)
    with pytest.raises(OSError, match="No space left"):
        await backup(full, tmp_path / "b.zip", nobody)
    assert list(tmp_path.iterdir()) == []
