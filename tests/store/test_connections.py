"""Ways to Postgres: several hosts, hosts that do not answer, and poolers in between."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import asyncpg
import pytest

from servmon.errors import StoreUnavailableError
from servmon.metrics import Counters
from servmon.model import State
from servmon.store import endpoints, pool, pooler
from servmon.store.endpoints import Part
from servmon.store.hosts import hosts_of
from servmon.store.pool import AWAY, connect, is_pooled, open_pool
from servmon.store.writer import Writer
from tests.store.seeds import change, endpoint, result


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://servmon:p@db/servmon", []),
        ("postgresql://servmon@/servmon?host=/tmp/x", []),
        ("postgresql://servmon:p%2C@db1,db2:5433/servmon", [("db1", 5432), ("db2", 5433)]),
        ("postgresql://[::1]:5432,[fe80::1]/servmon", [("::1", 5432), ("fe80::1", 5432)]),
        ("postgresql:///servmon?host=db1,db2&port=5433", [("db1", 5433), ("db2", 5433)]),
        ("postgresql:///servmon?host=db1,db2&port=5432,5433", [("db1", 5432), ("db2", 5433)]),
    ],
)
def test_a_url_may_name_several_hosts(url, hosts):
    assert hosts_of(url) == hosts


async def test_a_host_that_never_answers_does_not_use_up_the_time_of_the_others(pg_proxy, monkeypatch):
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        path = urlsplit(pg_proxy.dsn).path
        both = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{pg_proxy.port}"
        connection = await connect(f"postgresql://servmon@{both}{path}")
        assert await connection.fetchval("select 1") == 1
        await connection.close()


async def test_of_several_hosts_one_that_takes_writes_is_used(db, pg_proxy):
    """A standby answers, and is passed over; with nobody else there is none."""
    await db.execute(f"alter database {urlsplit(pg_proxy.dsn).path[1:]} set default_transaction_read_only = on")
    hosts = f"127.0.0.1:{pg_proxy.port},127.0.0.1:{pg_proxy.port}"
    with pytest.raises(StoreUnavailableError, match="cannot connect to the database"):
        await connect(f"postgresql://servmon@{hosts}{urlsplit(pg_proxy.dsn).path}")
    any_will_do = await connect(f"postgresql://servmon@{hosts}{urlsplit(pg_proxy.dsn).path}?target_session_attrs=any")
    await any_will_do.close()


async def test_a_server_that_has_ended_a_session_whose_connection_still_stands_is_away(db, pg_proxy):
    connection = await connect(pg_proxy.dsn)
    pid = await connection.fetchval("select pg_backend_pid()")
    pg_proxy.set("clinging")
    await db.fetchval("select pg_terminate_backend($1, 5000)", pid)
    for _ in range(100):  # the farewell is on its way through the proxy, which is in this loop
        await asyncio.sleep(0)
    with pytest.raises(AWAY) as farewell:
        await connection.fetchval("select pg_backend_pid()")
    assert farewell.type is asyncpg.InternalClientError
    connection.terminate()


async def test_a_pooler_by_the_transaction_is_noticed_and_takes_all_that_is_stored(pgbouncer, db, monkeypatch):
    url = await pgbouncer("transaction")
    watched = await endpoints.insert(db, endpoint("a"))
    writer = Writer(url, Counters(), observer=1)
    for _ in range(3):
        writer.put(result(watched), ())
        writer.put(*change("a", State.UP, State.SUSPECTED, result(watched).timestamp))
        await writer._pass_on(5)
    await writer.drain()
    assert await db.fetchval("select count(*) from service_status_row") == 3
    assert is_pooled(url)
    assert await pooler.shares_sessions(url)
    async with await open_pool(url) as through:
        ids = [[one.id for one in await endpoints.get_page(through, Part(9))] for _ in range(20)]
    assert ids == [["a"]] * 20
    troubles: dict[str, str] = {}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await pooler.tell_of_pooler(url, troubles)
    assert "listen_url" in troubles["database"]


async def test_a_pooler_by_the_session_is_nothing_to_tell(pgbouncer, db):
    url = await pgbouncer("session")
    (await connect(url)).terminate()
    assert is_pooled(url)
    assert not await pooler.shares_sessions(url)


async def test_nothing_in_between_is_no_pooler(pg_proxy):
    (await connect(pg_proxy.dsn)).terminate()
    assert not is_pooled(pg_proxy.dsn)
    assert not await pooler.shares_sessions(pg_proxy.dsn)
