"""A start while Postgres is away goes on from what was known, and is brought up to date when it comes."""

from __future__ import annotations

import signal

import pytest

from tests.fix_daemon import QUICK


def watching(port: int, dsn: str) -> str:
    return (
        f'{QUICK}[database]\nurl = "{dsn}"\n'
        f'[[endpoints]]\nid = "web"\nname = "A web server"\nurl = "http://127.0.0.1:{port}/"\ncheck_interval = 1\n'
    )


async def test_a_start_without_postgres_goes_on_with_the_same_outage(servmon_daemon, site, pg_proxy, db):
    daemon = servmon_daemon(watching(site.port, pg_proxy.dsn))
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda found: found["status"] == "UP")
    await site.stop()
    (before,) = (await daemon.get_until("/outages/active", lambda found: found["items"]))["items"]
    await daemon.stop(signal.SIGKILL)
    pg_proxy.set("cut")
    await daemon.start()
    await daemon.logged("Postgres is away: starting from what is known")
    status = await daemon.get_until("/services/web/status", lambda found: found["state"] == "down")
    assert status["outage_id"] == before["id"]
    for path in (
        "/services/",
        "/services/web",
        "/outages/active",
        f"/outages/{before['id']}",
        "/services/status/summary",
    ):
        reply = await ask(daemon, "GET", path)
        assert (reply.status, reply.headers.get("Servmon-Stale")) == (200, "true"), path
    assert (await daemon.get("/outages/active"))["items"][0]["id"] == before["id"]
    assert [one["id"] for one in (await daemon.get("/services/"))["items"]] == ["web"]
    assert (await ask(daemon, "POST", "/services/", json={"url": "tcp://192.0.2.1:1"})).status == 503
    assert (await ask(daemon, "GET", "/services/web/history")).status == 503
    await site.start()
    await daemon.get_until("/services/web/status", lambda found: found["state"] == "up")
    pg_proxy.set("open")
    await daemon.logged("Postgres is here")
    resolved = await daemon.get_until(f"/outages/{before['id']}", lambda found: found["resolved"])
    assert resolved["start_time"] == before["start_time"]
    assert "Servmon-Stale" not in (await ask(daemon, "GET", "/services/")).headers
    assert await db.fetchval("select count(*) from service_outage") == 1
    assert await daemon.stop() == 0


async def ask(daemon, method: str, path: str, **options):
    async with daemon._session.request(method, f"http://127.0.0.1:{daemon.port}{path}", **options) as answer:
        await answer.read()
        return answer


async def test_a_first_start_without_postgres_says_so_and_ends(servmon_daemon, pg_proxy):
    pg_proxy.set("cut")
    daemon = servmon_daemon(watching(1, pg_proxy.dsn))
    with pytest.raises(AssertionError, match="cannot connect to the database"):
        await daemon.start()
    assert daemon.process.returncode == 1
