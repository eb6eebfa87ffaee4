"""Whatever happens to Postgres itself, every check is in it once in the end, and people are told meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from servmon.errors import StoreUnavailableError
from servmon.model import Endpoint
from servmon.store import embedded, endpoints, pool
from servmon.store.embedded import EmbeddedPostgres
from servmon.store.local import FILE, LocalFile
from servmon.store.migrate import migrate
from servmon.store.notebook import Notebook
from servmon.tasks import cancel, spawn
from tests.fix_faults import ONLY_ROOT, outlast, small_disk, until, world
from tests.fix_postgres import TEMPLATE, with_database
from tests.fix_proxy import PostgresProxy
from tests.store.seeds import endpoint

pytestmark = pytest.mark.usefixtures("impatience")


class Server:
    """A Postgres of the test's own, which it may stop, kill and copy; made by copying ``cluster``."""

    def __init__(self, folder: Path, cluster: Path | None = None) -> None:
        self.folder = folder
        if cluster is not None:
            copy(cluster, folder / "postgres")
        self.embedded = EmbeddedPostgres(folder)

    async def start(self) -> str:
        return await self.embedded.start()

    async def stop(self) -> None:
        await self.embedded.stop()

    async def kill(self) -> None:
        pid = int((self.folder / "postgres" / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        os.kill(pid, signal.SIGQUIT)
        await self.embedded.stop()


def copy(folder: Path, to: Path) -> None:
    subprocess.run(["cp", "-a", "--no-target-directory", str(folder), str(to)], check=True)


@asynccontextmanager
async def proxy_before(dsn: str) -> AsyncIterator[PostgresProxy]:
    proxy = PostgresProxy(dsn)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


async def watched_on(dsn: str) -> Endpoint:
    await migrate(dsn)
    connection = await pool.connect(dsn)
    try:
        return await endpoints.insert(connection, endpoint("a"))
    finally:
        await connection.close()


async def said(dsn: str, command: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(command)
    finally:
        await connection.close()


@pytest.mark.deep
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_that_is_restarted(end, tmp_path, folders, prepared_cluster):
    server = Server(folders(), prepared_cluster)
    try:
        own = await server.start()
        async with proxy_before(own) as proxy, world(tmp_path, proxy.dsn, await watched_on(own)) as made:
            await asyncio.sleep(0.3)
            await outlast(made, getattr(server, end), server.start, lambda: own)
    finally:
        await server.stop()


@pytest.mark.deep
@pytest.mark.timeout(180)
async def test_a_failover_to_a_replica_that_is_seconds_behind(tmp_path, folders, prepared_cluster):
    primary = Server(folders(), prepared_cluster)
    watched = await watched_on(await primary.start())
    await primary.stop()
    replica = Server(folders(), primary.folder / "postgres")
    (replica.folder / "postgres" / "standby.signal").touch()

    async def promote() -> None:
        proxy.target = await replica.start()
        await said(proxy.target, "select pg_promote()")

    try:
        async with proxy_before(await primary.start()) as proxy, world(tmp_path, proxy.dsn, watched) as made:
            await asyncio.sleep(10)  # what the replica lacks
            assert await _rows(proxy.target) > 1000
            await outlast(made, primary.kill, promote, lambda: proxy.target)
            assert made.life.writer.servers_met == 1
    finally:
        await primary.stop()
        await replica.stop()


async def _rows(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval("select count(*) from service_status_row")
    finally:
        await connection.close()


# A password that changes


@pytest.mark.parametrize("mended", ["changed back", "told by the file"])
async def test_a_password_that_is_changed(mended, tmp_path, folders, prepared_cluster):
    server = Server(folders(), prepared_cluster)
    _ask_for_a_password(server.folder / "postgres" / "pg_hba.conf")
    known = tmp_path / "pgpass"
    _know(known, "old")
    try:
        own = await server.start()
        await said(own, "create role watcher login superuser password 'old'")
        watched = await watched_on(own)

        async def change() -> None:
            await said(own, "alter role watcher password 'new'")
            await said(own, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'watcher'")
            await until(lambda: made.life.writer.is_away)

        async def mend() -> None:
            if mended == "changed back":
                await said(own, "alter role watcher password 'old'")
            else:
                _know(known, "new")

        async with proxy_before(own) as proxy:
            dsn = f"postgresql://watcher@127.0.0.1:{proxy.port}/servmon?passfile={known}"
            async with world(tmp_path, dsn, watched) as made:
                await outlast(made, change, mend, lambda: own)
    finally:
        await server.stop()


def _ask_for_a_password(rules: Path) -> None:
    rules.write_text(f"local all watcher scram-sha-256\n{rules.read_text(encoding='utf-8')}", encoding="utf-8")


def _know(file: Path, password: str) -> None:
    file.touch(mode=0o600)
    file.write_text(f"*:*:*:watcher:{password}\n", encoding="utf-8")


# Disks that are full


@ONLY_ROOT
async def test_postgres_has_no_room_for_another_row(tmp_path, folders, postgres_server):
    """It answers, and goes on reading; what is to be stored it refuses."""
    with small_disk(folders(), 64) as disk:
        tables = disk.folder / "tables"
        tables.mkdir(mode=0o700)
        _give_to_postgres(tables, postgres_server)
        await said(postgres_server, f"create tablespace small location '{tables}'")
        await said(postgres_server, f"create database full_disk template {TEMPLATE} tablespace small")
        own = with_database(postgres_server, "full_disk")
        watched = await watched_on(own)

        async def fill() -> None:
            await disk.fill()
            await until(lambda: made.life.writer.is_away)

        try:
            async with proxy_before(own) as proxy, world(tmp_path, proxy.dsn, watched) as made:
                await outlast(made, fill, disk.free, lambda: own)
        finally:
            await said(postgres_server, "drop database full_disk with (force)")
            await said(postgres_server, "drop tablespace small")


def _give_to_postgres(folder: Path, dsn: str) -> None:
    """Let the account own ``folder`` under which the server of ``dsn`` runs."""
    socket = Path(parse_qs(urlsplit(dsn).query)["host"][0]).stat()
    os.chown(folder, socket.st_uid, socket.st_gid)


@ONLY_ROOT
@pytest.mark.deep
@pytest.mark.timeout(180)
async def test_postgres_has_no_room_for_its_log_dies_of_it_and_cannot_start(
    tmp_path, folders, prepared_cluster, monkeypatch
):
    monkeypatch.setattr(embedded, "LONGEST_RESTART_SECONDS", 1.0)
    server = Server(folders(), prepared_cluster)
    with small_disk(folders(), 40) as disk:
        log = server.folder / "postgres" / "pg_wal"
        copy(log, disk.folder / "wal")
        shutil.rmtree(log)
        log.symlink_to(disk.folder / "wal")
        try:
            own = await server.start()
            keeper = spawn(server.embedded.run(), name="embedded Postgres")

            async def fill() -> None:
                await disk.fill()
                with suppress(OSError, asyncpg.PostgresError):
                    for _ in range(4):  # it has some room of its own
                        await said(own, "create table more (id int); drop table more; select pg_switch_wal()")
                await until(lambda: "PANIC" in _log_of(server))
                await until(lambda: "startup process" in _log_of(server))  # that failed, too

            async with proxy_before(own) as proxy, world(tmp_path, proxy.dsn, await watched_on(own)) as made:
                await outlast(made, fill, disk.free, lambda: own)
            await cancel(keeper)
        finally:
            await server.stop()


def _log_of(server: Server) -> str:
    return server.embedded.log_file.read_text(encoding="utf-8")


@ONLY_ROOT
async def test_postgres_is_away_and_the_spools_disk_is_full(tmp_path, folders, db, database, pg_proxy, monkeypatch):
    """Memory is bounded, people are told; only single results are given up, and counted."""
    monkeypatch.setattr("servmon.store.backlog.QUEUE_LIMIT", 400)
    with small_disk(folders(), 4) as disk:

        async def fill() -> None:
            await disk.fill()
            pg_proxy.set("cut")
            await until(lambda: made.life.writer._spool_fails and made.dropped > 0)

        async def heal() -> None:
            assert made.life.writer.queued - made.life.writer.spooled <= 400 + 1  # and the outage
            await disk.free()
            pg_proxy.set("open")

        watched = await endpoints.insert(db, endpoint("a"))
        async with world(disk.folder, pg_proxy.dsn, watched) as made:
            await outlast(made, fill, heal, lambda: database, lossy=True)


@ONLY_ROOT
async def test_what_was_noted_is_read_from_a_full_disk(folders):
    """After an orderly stop, whose last connection leaves the one file alone."""
    with small_disk(folders(), 4) as disk:
        file = LocalFile(disk.folder)
        await Notebook(file).write({"endpoint": {"a": "what is known of it"}})
        await file.close()
        assert sorted(path.name for path in disk.folder.iterdir()) == [FILE]
        await disk.fill()
        again = LocalFile(disk.folder)
        await again.check()
        assert await Notebook(again).read("endpoint") == {"endpoint": {"a": "what is known of it"}}
        with pytest.raises(StoreUnavailableError, match="cannot be used"):
            await Notebook(again).write({"endpoint": {"b": "x" * 100_000}})
        await disk.free()
        await Notebook(again).write({"endpoint": {"b": "x" * 100_000}})
        await again.close()
