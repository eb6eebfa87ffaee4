"""servmon's own private PostgreSQL: its files in the data folder, its server a child of this process.

Nobody else gets in: it listens on a unix socket in a folder of mode 0700 and on no network. It ends when this
process does, even by kill -9, and loses nothing that was committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from urllib.parse import quote

import asyncpg
import structlog

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import StartError
from servmon.store import data_folder
from servmon.store.postgres_binaries import (
    Account,
    Binaries,
    choose_account,
    find_binaries,
    last_line,
    let_in,
    prepare_cluster,
)
from servmon.store.postmaster import POLL_SECONDS, QUIT_SECONDS, STOP_SECONDS, Postmaster, end_leftover, pid_of, serves

_log = structlog.get_logger(__name__)

ROLE = "servmon"
DATABASE = "servmon"
# Enough for a small monitor; a big one runs a Postgres of its own.
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "max_connections": "40",
        "shared_buffers": "64MB",
        "fsync": "on",
        "synchronous_commit": "on",
        "autovacuum": "on",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_line_prefix": "%m [%p] ",
    }
)
LARGEST_LOG = 8 * 1024 * 1024
LOG_CHECK_SECONDS = 600.0
# Crash recovery reads all that was written since the last checkpoint; that may take minutes, not longer.
START_SECONDS = 300.0
FIRST_RESTART_SECONDS = 0.5
LONGEST_RESTART_SECONDS = 30.0


class EmbeddedPostgres:
    """One PostgreSQL in ``data_dir/postgres``, for as long as the context; gives its DSN.

    Start it in the main thread: the kernel takes the end of the starting thread for the end of the process.
    ``settings`` are PostgreSQL's own, beside or instead of ``SETTINGS``.
    """

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.folder = self.data_dir / "postgres"
        self.log_file = self.data_dir / "postgres.log"
        self._settings = {**SETTINGS, **(settings or {})}
        self._lock: int | None = None
        self._socket_folder = self.folder
        self._account: Account | None = None
        self._binaries: Binaries | None = None
        self._postmaster: Postmaster | None = None
        self._log_start = 0

    @property
    def dsn(self) -> str:
        """Where the database is, as a URL."""
        return self._dsn_of(DATABASE)

    async def start(self, patience: float | None = None) -> str:
        """Make the database if there is none, start its server, and return the DSN once it answers.

        Raises ``StartError`` with a sentence that says what stands in the way. With ``patience`` a server that does not
        start, or does not answer within so many seconds, is left to ``run``, and the DSN is where it will be.
        """
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            with data_folder.in_a_sentence(f"cannot use the data folder {self.data_dir}"):
                self.data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
                self._lock = data_folder.take(self.data_dir)
                await asyncio.to_thread(self._prepare)
                await self._launch_within(patience)
            undo.pop_all()
        return self.dsn

    async def stop(self) -> None:
        """End the server in order, and let others have the data folder."""
        await self._end()
        if self._socket_folder != self.folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = self.folder
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def wait_died(self) -> int:
        """Return the server's exit status (negative: the signal) once it and all its processes have ended."""
        if self._postmaster is None:
            raise StartError("the embedded PostgreSQL was not started")
        return await self._postmaster.died()

    async def run(self) -> None:
        """Start the server again whenever it dies, later each time, for ever."""
        pause = FIRST_RESTART_SECONDS
        while True:
            started = SYSTEM_CLOCK.monotonic()
            if self._postmaster is not None:
                status = await self._wait_died_watching_log()
                _log.error("PostgreSQL died, starting it again", exit_status=status, log=str(self.log_file))
            if SYSTEM_CLOCK.monotonic() - started > LONGEST_RESTART_SECONDS:
                pause = FIRST_RESTART_SECONDS
            pause = await self._launch_again(pause)
            _log.info("PostgreSQL runs again")

    async def __aenter__(self) -> str:
        return await self.start()

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _prepare(self) -> None:
        """Everything that has to stand before the server starts; blocks for as long as initdb takes."""
        self._account = choose_account(self.folder, self.data_dir)
        if self._account:
            let_in(self._account, self.data_dir)
        self._binaries = find_binaries(self._account, self.data_dir)
        sync = self._settings["fsync"] != "off"
        prepare_cluster(self.folder, self._binaries, self._account, role=ROLE, sync=sync)
        assert self._lock is not None  # noqa: S101 - for the type checker; start takes it first
        self._socket_folder = data_folder.socket_folder(self.folder, self._lock, self._account)

    async def _launch(self) -> None:
        """Start the server and wait until it answers."""
        await self._end()
        await end_leftover(self.folder)
        give_up_at = SYSTEM_CLOCK.monotonic() + STOP_SECONDS
        while True:
            self._spawn()
            try:
                await self._wait_ready()
            except StartError as error:
                # Processes of a server that was killed may outlive it for a moment.
                if "shared memory block" not in str(error) or SYSTEM_CLOCK.monotonic() > give_up_at:
                    raise
                await self._end()
                await asyncio.sleep(FIRST_RESTART_SECONDS)
            else:
                return

    async def _launch_within(self, patience: float | None) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._launch()
        except (StartError, OSError) as error:
            if patience is None:
                raise
            problem = "it recovers from a crash, or hangs" if isinstance(error, TimeoutError) else str(error)
            _log.error("PostgreSQL does not start yet, going on without it", problem=problem)

    async def _launch_again(self, pause: float) -> float:
        """Try until the server runs; returns the pause to make before the next try."""
        said = ""
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_RESTART_SECONDS)
            try:
                with data_folder.in_a_sentence("cannot start PostgreSQL"):
                    await self._launch()
            except StartError as error:
                if str(error) != said:
                    _log.error("PostgreSQL does not start", problem=str(error))
                said = str(error)
            else:
                return pause

    def _spawn(self) -> None:
        assert self._binaries is not None  # noqa: S101 - for the type checker; start finds them first
        settings = {**self._settings, "unix_socket_directories": str(self._socket_folder)}
        server = [str(self._binaries.folder / "postgres"), "-D", str(self.folder)]
        server += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        log = self._open_log()
        try:
            self._log_start = os.fstat(log).st_size
            self._postmaster = Postmaster(server, self._account, self.folder, log)
        finally:
            os.close(log)

    async def _wait_ready(self) -> None:
        assert self._postmaster is not None  # noqa: S101 - for the type checker; it was just started
        give_up_at = SYSTEM_CLOCK.monotonic() + START_SECONDS
        while True:
            try:
                connection = await asyncpg.connect(self._dsn_of("postgres"), timeout=QUIT_SECONDS)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                if self._postmaster.has_died:
                    raise StartError(f"PostgreSQL does not start: {self._why()} ({self.log_file} says more)") from None
                if SYSTEM_CLOCK.monotonic() > give_up_at:
                    raise StartError(f"PostgreSQL in {self.folder} does not answer: {error}") from None
                await asyncio.sleep(POLL_SECONDS)
                continue
            break
        try:
            if pid_of(self.folder) != self._postmaster.pid:
                raise StartError(f"another PostgreSQL serves {self.folder}; end it first")
            if not await connection.fetchval("select 1 from pg_database where datname = $1", DATABASE):
                await connection.execute(f"create database {DATABASE}")
        finally:
            connection.terminate()

    async def _end(self) -> None:
        if self._postmaster is not None:
            await self._postmaster.end()
            self._postmaster = None

    async def _wait_died_watching_log(self) -> int:
        while True:
            try:
                async with asyncio.timeout(LOG_CHECK_SECONDS):
                    return await self.wait_died()
            except TimeoutError:
                os.close(self._open_log())

    def _open_log(self) -> int:
        """The log, open for appending; emptied where it has grown too long."""
        log = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        if os.fstat(log).st_size > LARGEST_LOG:
            os.ftruncate(log, 0)
        return log

    def _why(self) -> str:
        """The server's last words in its log."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            said = log.read(LARGEST_LOG)
        fatal = [line for line in said.splitlines() if b"FATAL:" in line]
        return last_line(fatal[-1] if fatal else said).rpartition("FATAL:")[2].strip()

    def _dsn_of(self, database: str) -> str:
        return _dsn(str(self._socket_folder), database)


def running_dsn(data_dir: Path) -> str | None:
    """The DSN of the server of ``data_dir`` where one runs already, such as that of a running servmon."""
    folder = data_dir.absolute() / "postgres"
    pid = pid_of(folder)
    if pid is None or not serves(pid, folder):
        return None
    with contextlib.suppress(OSError, IndexError):
        return _dsn((folder / "postmaster.pid").read_text().splitlines()[4], DATABASE)
    return None


def _dsn(socket_folder: str, database: str) -> str:
    return f"postgresql://{ROLE}@/{database}?host={quote(socket_folder)}"
