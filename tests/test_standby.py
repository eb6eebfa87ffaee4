"""Two daemons of one instance on one database: one checks, the other stands by and takes over when that one is gone."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta

import pytest

from servmon.errors import DeposedError
from servmon.store import leadership as leading
from servmon.store.leadership import Leadership
from servmon.tasks import cancel, spawn
from tests.alerts.test_telling import mail_to
from tests.fix_daemon import QUICK
from tests.fix_servers import settled


def a_daemon(dsn: str, holder: str, instance: str = "main") -> Leadership:
    return Leadership(dsn, instance, holder, f"{holder}.example (process 1)")


async def test_one_leads_and_the_others_learn_who(database):
    first, second, other = a_daemon(database, "a"), a_daemon(database, "b"), a_daemon(database, "c", "lab")
    assert await first.take() is None
    leader = await second.take()
    assert (leader.name, leader.is_self) == ("a.example (process 1)", False)
    assert await other.take() is None  # another instance has a leader of its own
    await first.let_go()
    assert await second.take() is None
    await second.let_go()
    await other.let_go()


async def test_after_a_kill_the_same_daemon_leads_at_once_and_another_one_after_a_while(database, db):
    first, again, second = a_daemon(database, "a"), a_daemon(database, "a"), a_daemon(database, "b")
    assert await first.take() is None
    assert (await again.take()).is_self
    first._hang_up()
    await until(lambda: leads(again))
    again._hang_up()
    await until(lock_is(False, db))
    assert (await second.take()).name == "a.example (process 1)"  # it may have lost Postgres for a moment only
    await db.execute("update leader set seen_at = now() - interval '13 seconds'")
    assert await second.take() is None
    await second.let_go()


async def test_a_leader_that_is_silent_loses_its_lock(database, db):
    first, second = a_daemon(database, "a"), a_daemon(database, "b")
    assert await first.take() is None
    await db.execute("update leader set seen_at = now() - interval '21 seconds'")
    await until(lambda: leads(second))
    assert await db.fetchval("select holder from leader") == "b"
    await second.let_go()


async def test_a_leader_goes_on_without_postgres_and_stands_back_when_another_one_leads(
    database, db, pg_proxy, monkeypatch
):
    monkeypatch.setattr(leading, "SEEN_EVERY_SECONDS", 0.05)
    first, second = a_daemon(pg_proxy.dsn, "a"), a_daemon(database, "b")
    assert await first.take() is None
    holding = spawn(_hold(first), name="leader")
    pg_proxy.set("cut")
    await until(lock_is(False, db))
    assert not holding.done()
    pg_proxy.set("open")
    await until(lock_is(True, db))  # it leads again
    pg_proxy.set("cut")
    await db.execute("update leader set seen_at = now() - interval '21 seconds'")
    await until(lambda: leads(second))
    pg_proxy.set("open")
    assert "b.example" in await holding
    await second.let_go()
    await cancel(holding)


async def settled_in(db, question: str, *arguments) -> None:
    async def holds() -> bool:
        return await db.fetchval(question, *arguments)

    await until(holds)


async def until(holds) -> None:
    while not await holds():  # noqa: ASYNC110 - another process rings no bell here
        await asyncio.sleep(0.02)


async def leads(one: Leadership) -> bool:
    return await one.take() is None


def lock_is(held: bool, db):
    async def holds() -> bool:
        found = await db.fetchval("select exists (select from pg_locks where locktype = 'advisory')")
        return found is held

    return holds


async def _hold(one: Leadership) -> str:
    try:
        await one.hold()
    except DeposedError as error:
        return str(error)


@pytest.mark.parametrize("waits", [False, pytest.param(True, marks=pytest.mark.deep)])
async def test_kill_the_first_and_the_second_checks_and_tells(waits, servmon_daemon, site, mail_server, database, db):
    mail = await mail_server()
    text = (
        f'{QUICK}[database]\nurl = "{database}"\n[alert]\n'
        f'{mail_to(mail.port)}[[endpoints]]\nid = "web"\nname = "A web server"\n'
        f'url = "http://127.0.0.1:{site.port}/"\ncheck_interval = 1\n'
    )
    first, second = servmon_daemon(text), servmon_daemon(text)
    await first.start()
    await first.get_until("/services/web/status", lambda found: found["status"] == "UP")
    await second.start()
    await second.logged("standing by")
    (standing_by,) = [one for one in (await second.get("/readyz"))["degraded"] if "leads" in one]
    assert f"process {first.process.pid}" in standing_by
    assert (await second.get("/services/web/status"))["status"] == "UP"
    await site.stop()
    await first.get_until("/outages/active", lambda found: found["items"])
    await settled(lambda: len(mail.mails) == 1)
    await first.stop(signal.SIGKILL)
    killed_at = await db.fetchval("select now()")
    if not waits:
        await db.execute("update leader set seen_at = seen_at - interval '12 seconds'")
    await second.logged("servmon runs")
    await settled_in(db, "select exists (select from service_status_row where timestamp > $1)", killed_at)
    pause = await db.fetchval("select min(timestamp) - $1 from service_status_row where timestamp > $1", killed_at)
    assert pause < timedelta(seconds=30)
    await site.start()
    await settled(lambda: any(subject.startswith("UP") for subject in mail.subjects))
    await second.get_until("/outages/", lambda found: found["items"][0]["resolved"])
    assert await second.stop() == 0
    # A kill between sending and marking may repeat a mail, which then bears the same id.
    heads = {one["Message-ID"]: one["Subject"].split(":")[0] for one in mail.mails}
    assert list(heads.values()) == ["DOWN", "UP"]
    assert await db.fetchval("select count(*) from service_outage") == 1
    assert await db.fetchval("select count(*) from leader") == 0
