"""Whatever happens on the way to Postgres, every check is in it once in the end, and people are told meanwhile."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from servmon.store import endpoints
from tests.fix_faults import outlast, until, world
from tests.fix_proxy import PostgresProxy
from tests.store.seeds import endpoint

pytestmark = pytest.mark.usefixtures("impatience")

COPY, COMMIT = b"service_status_row", b"commit"


class Faults:
    """What a test can do to the way to Postgres: each begins at once or at a moment of the conversation."""

    def __init__(self, proxy: PostgresProxy, db) -> None:
        self.proxy = proxy
        self.db = db

    async def cut(self) -> None:
        self.proxy.set("cut")

    async def cut_in_the_middle_of_a_batch(self) -> None:
        await self._at(COPY, "cut", after=True)

    async def cut_between_copy_and_commit(self) -> None:
        await self._at(COMMIT, "cut", after=False)

    async def cut_after_commit(self) -> None:
        await self._at(COMMIT, "cut", after=True)

    async def commit_is_heard_and_its_answer_lost(self) -> None:
        await self._at(COMMIT, "deaf", after=True)

    async def stalled(self) -> None:
        self.proxy.set("stalled")

    async def stalled_in_the_middle_of_a_batch(self) -> None:
        await self._at(COPY, "stalled", after=True)

    async def deaf(self) -> None:
        self.proxy.set("deaf")

    async def read_only(self) -> None:
        name = urlsplit(self.proxy.dsn).path[1:]
        await self.db.execute(f"alter database {name} set default_transaction_read_only = on")
        self.proxy.set("cut")
        self.proxy.set("open")

    async def _at(self, said: bytes, mode: str, *, after: bool) -> None:
        happened = asyncio.Event()
        self.proxy.when(said, lambda: (self.proxy.set(mode), happened.set()), after=after)
        await happened.wait()

    async def heal(self) -> None:
        name = urlsplit(self.proxy.dsn).path[1:]
        await self.db.execute(f"set default_transaction_read_only = off; alter database {name} reset all")
        self.proxy.set("cut")
        self.proxy.set("open")


QUICK = ["cut_between_copy_and_commit", "commit_is_heard_and_its_answer_lost", "stalled", "read_only"]
MORE = ["cut", "cut_in_the_middle_of_a_batch", "cut_after_commit", "stalled_in_the_middle_of_a_batch", "deaf"]


@pytest.mark.parametrize("fault", [*QUICK, *(pytest.param(one, marks=pytest.mark.deep) for one in MORE)])
async def test_a_fault_costs_nothing(fault, tmp_path, db, database, pg_proxy):
    faults = Faults(pg_proxy, db)
    async with world(tmp_path, pg_proxy.dsn, await endpoints.insert(db, endpoint("a"))) as made:
        await asyncio.sleep(0.2)
        await outlast(made, getattr(faults, fault), faults.heal, lambda: database)


@pytest.mark.deep
@pytest.mark.timeout(240)
async def test_stalled_for_a_minute(tmp_path, db, database, pg_proxy, monkeypatch):
    """With the spans of life."""
    monkeypatch.undo()
    faults = Faults(pg_proxy, db)
    async with world(tmp_path, pg_proxy.dsn, await endpoints.insert(db, endpoint("a"))) as made:

        async def a_minute_later() -> None:
            await asyncio.sleep(60)
            await faults.heal()

        await outlast(made, faults.stalled, a_minute_later, lambda: database)


async def test_cut_at_the_start_and_again_during_the_replay(tmp_path, db, database, pg_proxy):
    faults = Faults(pg_proxy, db)
    pg_proxy.set("cut")
    async with world(tmp_path, pg_proxy.dsn, await endpoints.insert(db, endpoint("a"))) as made:

        async def again() -> None:
            await until(lambda: made.life.writer.queued >= 500)
            pg_proxy.set("open")
            await faults.cut_between_copy_and_commit()

        await outlast(made, again, faults.heal, lambda: database)


@pytest.mark.deep
@pytest.mark.parametrize("mode", ["cut", "stalled", "deaf"])
async def test_one_fault_after_another(mode, tmp_path, db, database, pg_proxy):
    """The connection breaks again and again, at ever another moment."""
    faults = Faults(pg_proxy, db)
    async with world(tmp_path, pg_proxy.dsn, await endpoints.insert(db, endpoint("a"))) as made:

        async def often() -> None:
            for number in range(30):
                await asyncio.sleep(0.013 * number % 0.17)
                pg_proxy.set(mode)
                await asyncio.sleep(0.05)
                pg_proxy.set("open")
            pg_proxy.set("cut")

        await outlast(made, often, faults.heal, lambda: database)
