"""A real Postgres for the whole session, and a database of its own for each test that asks."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import asyncpg
import pytest

from servmon.store import postgres_binaries
from servmon.store.embedded import EmbeddedPostgres
from servmon.store.migrate import migrate
from servmon.store.pool import Pool, open_pool

TEMPLATE = "servmon_template"
_numbers = count(1)


def with_database(dsn: str, name: str) -> str:
    """The DSN of another database of the same server."""
    before, _, query = dsn.partition("?")
    return f"{before.rpartition('/')[0]}/{name}?{query}"


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a running server's own database, to make others from; use ``database`` in a test."""
    with running_postgres(request.config.getoption("postgres")) as dsn:
        yield dsn


@contextmanager
def running_postgres(programs: Path | None = None) -> Iterator[str]:
    """The DSN of a server with a template, run by ``programs`` such as ``/usr/lib/postgresql/15/bin``."""
    # The path of its socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="svm-", dir="/tmp"))
    server = EmbeddedPostgres(folder, settings={"fsync": "off", "max_connections": "100"})
    # Not the loop of any test: this one is entered before the first and after the last of them.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        try:
            with pytest.MonkeyPatch.context() as patch:
                if programs is not None:
                    patch.setattr(postgres_binaries, "_wheel_folder", lambda: None)
                    patch.setattr(postgres_binaries, "_system_folders", lambda: [programs])
                dsn = runner.run(server.start())
            runner.run(_make_template(dsn))
            yield dsn
        finally:
            runner.run(server.stop())
            shutil.rmtree(folder, ignore_errors=True)


async def _make_template(dsn: str) -> None:
    await _execute(dsn, f"create database {TEMPLATE}")
    await migrate(with_database(dsn, TEMPLATE))


async def _execute(dsn: str, command: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(command)
    finally:
        await connection.close()


@asynccontextmanager
async def made_from(server: str, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    await _execute(server, f"create database {name} template {template}")
    try:
        yield with_database(server, name)
    finally:
        await _execute(server, f"drop database if exists {name} with (force)")


@pytest.fixture
async def database(postgres_server: str) -> AsyncIterator[str]:
    """The DSN of a database with servmon's schema and nothing in it, gone after the test."""
    async with made_from(postgres_server, TEMPLATE) as dsn:
        yield dsn


@pytest.fixture
async def empty_database(postgres_server: str) -> AsyncIterator[str]:
    """The DSN of a database without any schema, gone after the test."""
    async with made_from(postgres_server, "template1") as dsn:
        yield dsn


@pytest.fixture
async def db(database: str) -> AsyncIterator[Pool]:
    """A pool on ``database``."""
    async with await open_pool(database) as pool:
        yield pool
