"""The daemon whose data folder is full: its own Postgres takes nothing, its spool neither, and people are told."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from servmon.store.embedded import running_dsn
from tests.alerts.test_telling import mail_to
from tests.fix_daemon import FAST, RunningServmon
from tests.fix_faults import ONLY_ROOT, small_disk
from tests.fix_servers import settled
from tests.test_faulty_servers import copy

pytestmark = [pytest.mark.deep, pytest.mark.timeout(180), ONLY_ROOT]

# So many that the room which Postgres has in its tables already is soon used up.
MORE = 60


async def test_people_are_told_and_afterwards_everything_is_stored(servmon_daemon, prepared_cluster, site, mail_server):
    mail = await mail_server()
    daemon = servmon_daemon(
        f'{FAST}[outage]\nwitnesses = ["127.0.0.1"]\n[alert]\n{mail_to(mail.port)}'
        + an_endpoint("web", f"http://127.0.0.1:{site.port}/")
        + "".join(an_endpoint(f"mail-{number}", f"tcp://127.0.0.1:{mail.port}") for number in range(MORE))
    )
    daemon.data_dir.mkdir()
    with small_disk(daemon.data_dir, 128) as disk:
        copy(prepared_cluster, daemon.data_dir / "postgres")
        await daemon.start()
        await daemon.get_until("/services/web/status", lambda found: found["status"] == "UP")
        await disk.fill()
        await asyncio.gather(
            daemon.logged("results wait for Postgres"), daemon.logged("the spool takes nothing, results wait in memory")
        )
        await site.stop()
        await settled(lambda: len(mail.mails) == 1, 60)
        (away,) = [one for one in (await daemon.get("/readyz"))["degraded"] if one.startswith("Postgres")]
        assert "takes no results just now" in away
        await disk.free()
        await daemon.logged("Postgres takes results again")
        await site.start()
        await settled(lambda: len(mail.mails) == 2, 60)
        await daemon.get_until("/outages/", lambda found: found["items"][0]["resolved"])
        assert [subject.split(":")[0] for subject in mail.subjects] == ["DOWN", "UP"]
        await every_check_is_stored(daemon)
        assert await daemon.stop() == 0


def an_endpoint(name: str, url: str) -> str:
    return f'[[endpoints]]\nid = "{name}"\nname = "{name}"\nurl = "{url}"\ncheck_interval = 1\n'


async def every_check_is_stored(daemon: RunningServmon) -> None:
    counted = dict(
        line.split()
        for line in (await daemon.text("/metrics")).splitlines()
        if line.startswith("servmon_") and " " in line
    )
    wanted = int(counted["servmon_checks_total"]) - int(counted["servmon_results_void_total"])
    assert wanted > MORE
    assert counted["servmon_results_dropped_total"] == "0"
    db = await asyncpg.connect(running_dsn(daemon.data_dir))

    async def are_stored() -> bool:
        return await db.fetchval("select count(*) from service_status_row") >= wanted

    await daemon.until(are_stored, f"{wanted} rows")
    assert await db.fetchval("select count(*) from service_outage") == 1
    await db.close()
