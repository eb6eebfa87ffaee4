"""Two daemons on one database, and somebody at psql who changes its tables under them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from servmon.store.migrate import migrate, migrations_folder, read_migrations
from servmon.store.postgres_binaries import find_binaries
from servmon.tasks import cancel, spawn
from tests.fix_daemon import FAST, RunningServmon
from tests.fix_servers import settled

pytestmark = [pytest.mark.deep, pytest.mark.timeout(240)]

PSQL = find_binaries(None, Path()).folder / "psql"
NUMBER = 30
# What people do by hand: an index beside everything, and columns, which need each table for themselves.
BY_HAND = """
create index concurrently by_hand on service_outage (severity);
drop index concurrently by_hand;
begin; alter table service_endpoint add column by_hand int; select pg_sleep(0.2); commit;
alter table service_endpoint drop column by_hand;
begin; alter table service_status_row add column by_hand int; select pg_sleep(0.2); commit;
alter table service_status_row drop column by_hand;
create index concurrently by_hand on state_change (reason);
drop index concurrently by_hand;
"""


class Asked:
    """A service that counts who connects."""

    def __init__(self) -> None:
        self.count = 0

    async def serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        writer.close()


async def work_by_hand(dsn: str) -> None:
    """One round after the other, for ever; psql stops at the first error."""
    while True:
        psql = await asyncio.create_subprocess_exec(
            *(str(PSQL), "-X", "-q", "-v", "ON_ERROR_STOP=1", dsn),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await psql.communicate(BY_HAND.encode())
        assert (psql.returncode, said) == (0, b"")


async def told(daemon: RunningServmon, method: str, path: str, body) -> None:
    """As people do it: where a table is being changed at this very moment, once more."""

    async def taken() -> bool:
        answer = await daemon.answer(method, path, body)
        assert answer.startswith(("20", "503")), answer
        return not answer.startswith("503")

    await daemon.until(taken, f"{method} {path}")


async def test_two_daemons_and_a_psql_change_the_tables_at_once(servmon_daemon, empty_database):
    """From the first schema: both update it at once; afterwards each check of either is stored once."""
    await migrate(empty_database, upto=2)
    text = f'{FAST}[database]\nurl = "{empty_database}"\n[outage]\nwitnesses = ["127.0.0.1"]\n'
    first, second = servmon_daemon(text), servmon_daemon(text)
    second.environment["SERVMON_INSTANCE"] = "lab"
    by_hand = spawn(work_by_hand(empty_database), name="psql")
    asked = Asked()
    server = await asyncio.start_server(asked.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        await asyncio.gather(first.start(), second.start())
        for number in range(NUMBER):
            fields = {"id": f"e{number}", "name": "e", "url": f"tcp://127.0.0.1:{port}", "check_interval": 1}
            await told((first, second)[number % 2], "POST", "/services", fields)
        db = await asyncpg.connect(empty_database)
        await settled(lambda: asked.count > NUMBER * 20, 120)
        for number in range(NUMBER):
            await told((first, second)[number % 2], "PATCH", f"/services/e{number}", {"is_active": False})

        async def everything_is_stored() -> bool:
            return await db.fetchval("select count(*) from service_status_row") == asked.count

        await first.until(everything_is_stored, f"{asked.count} rows")
        assert not by_hand.done()
    finally:
        await cancel(by_hand)
        server.close()
    assert await first.stop() == await second.stop() == 0
    assert await db.fetchval("select count(*) from service_status_row") == asked.count
    assert await db.fetchval("select count(distinct observer) from service_status_row") == 2
    assert await db.fetchval("select deadlocks from pg_stat_database where datname = current_database()") == 0
    applied = await db.fetchval("select array_agg(name order by number) from schema_migration")
    assert applied == [one.name for one in read_migrations(migrations_folder())]
    assert await db.fetchval("select count(*) from rejected") == 0
    await db.close()
