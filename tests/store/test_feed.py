"""A daemon hears of every change: at once while it listens, and of what it missed as soon as it listens again."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest

from servmon.store import endpoints, feed
from servmon.store.feed import ChangeFeed
from servmon.tasks import cancel, spawn
from tests.fix_servers import patience
from tests.store.seeds import endpoint

LISTENERS = "select pid from pg_stat_activity where datname = current_database() and query ilike 'listen%'"


@pytest.fixture
async def changes(database):
    """A feed that is connected."""
    made = ChangeFeed(database)
    await made.wait()
    yield made
    made.close()


async def soon(waiting) -> None:
    async with patience():
        await waiting


@pytest.fixture
def never_looks(monkeypatch):
    """Who waits does not look for itself, so that only a notice wakes it."""
    monkeypatch.setattr(feed, "LONGEST_WAIT_SECONDS", 3600)


@asynccontextmanager
async def refusing(dsn: str):
    """The database lets nobody in; gives what lets them in again."""
    before, _, query = dsn.partition("?")
    name = before.rpartition("/")[2]
    admin = await asyncpg.connect(f"{before.rpartition('/')[0]}/servmon?{query}")

    async def allow(yes: str) -> None:
        await admin.execute(f"alter database {name} with allow_connections {yes}")
        await admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name)

    try:
        await allow("false")
        yield lambda: allow("true")
    finally:
        await allow("true")
        await admin.close()


@pytest.mark.usefixtures("never_looks")
async def test_a_change_wakes_the_waiter_at_once(db, changes):
    waiting = spawn(changes.wait(), name="follower")
    await asyncio.sleep(0)
    await endpoints.insert(db, endpoint("a"))
    await soon(waiting)


@pytest.mark.usefixtures("never_looks")
async def test_a_change_between_two_waits_is_not_missed(db, changes):
    await endpoints.insert(db, endpoint("a"))
    await db.execute("select pg_sleep(0.05)")
    await soon(changes.wait())


async def test_many_changes_at_once_wake_once(db, changes, monkeypatch):
    await db.execute("select pg_notify('servmon_changes', n::text) from generate_series(1, 50) n")
    await soon(changes.wait())
    monkeypatch.setattr(feed, "LONGEST_WAIT_SECONDS", 0.2)
    started = time.monotonic()
    await soon(changes.wait())
    assert time.monotonic() - started >= 0.2


async def test_without_any_change_it_returns_after_ten_seconds(changes, monkeypatch):
    assert feed.LONGEST_WAIT_SECONDS == 10
    monkeypatch.setattr(feed, "LONGEST_WAIT_SECONDS", 0.1)
    started = time.monotonic()
    await soon(changes.wait())
    assert time.monotonic() - started >= 0.1


@pytest.mark.usefixtures("never_looks")
async def test_a_lost_connection_is_made_again_and_wakes_the_waiter(db, changes):
    waiting = spawn(changes.wait(), name="follower")
    await asyncio.sleep(0)
    assert await db.fetchval(f"select count(pg_terminate_backend(pid)) from ({LISTENERS}) l") == 1
    await soon(waiting)
    await endpoints.insert(db, endpoint("a"))
    await soon(changes.wait())


async def test_while_postgres_is_away_it_tries_again_and_says_so_once(database, changes, monkeypatch, capsys):
    monkeypatch.setattr(feed, "LONGEST_WAIT_SECONDS", 0.2)
    async with refusing(database) as let_in_again:
        for _ in range(4):
            await soon(changes.wait())
        await let_in_again()
        while changes._connection is None:
            await soon(changes.wait())
    said = capsys.readouterr().out
    assert said.count("hears of changes only every 10 s") == 1
    assert said.count("hears of changes at once again") == 1


async def test_a_connection_that_says_nothing_any_more_is_given_up(database, monkeypatch):
    silent = asyncio.Event()
    host = database.rpartition("?host=")[2]

    async def forward(client_reader, client_writer):
        server_reader, server_writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.5432")

        async def copy(reader, writer):
            while chunk := await reader.read(65536):
                if silent.is_set():
                    await asyncio.Event().wait()
                writer.write(chunk)

        try:
            with suppress(ConnectionError):
                async with asyncio.TaskGroup() as group:
                    group.create_task(copy(client_reader, server_writer))
                    group.create_task(copy(server_reader, client_writer))
        finally:
            client_writer.close()
            server_writer.close()

    monkeypatch.setattr(feed, "LONGEST_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(feed, "PROBE_SECONDS", 0.1)
    proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    name = database.rpartition("/test_")[2].partition("?")[0]
    changes = ChangeFeed(f"postgresql://servmon@127.0.0.1:{port}/test_{name}")
    await changes.wait()
    silent.set()
    await soon(changes.wait())
    assert changes._connection is None
    silent.clear()
    while changes._connection is None:
        await soon(changes.wait())
    changes.close()
    proxy.close()


async def test_a_follower_that_is_cancelled_leaves_no_connection(db, changes):
    waiting = spawn(changes.wait(), name="follower")
    await asyncio.sleep(0)
    await cancel(waiting)
    async with patience():
        while await db.fetchval(f"select count(pg_sleep(0.01)) from ({LISTENERS}) l"):
            pass


async def test_one_who_takes_long_over_a_change_holds_up_no_other(db, changes):
    heard: asyncio.Queue[str] = asyncio.Queue()
    began = asyncio.Event()

    async def slow() -> None:
        began.set()
        await asyncio.Event().wait()

    async def quick() -> None:
        heard.put_nowait("a change")

    following = spawn(changes.follow(slow, quick), name="follower")
    for endpoint_id in ("a", "b"):
        await endpoints.insert(db, endpoint(endpoint_id))
        await soon(heard.get())
    assert began.is_set()
    await cancel(following)


async def test_what_one_of_them_fails_of_is_what_ends_it(db, changes):
    async def broken() -> None:
        raise ValueError("it is broken")

    following = spawn(changes.follow(broken), name="follower")
    await endpoints.insert(db, endpoint("a"))
    with pytest.raises(ValueError, match="it is broken"):
        await soon(following)
