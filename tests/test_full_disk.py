"""The daemon whose data folder is full: its own Postgres takes nothing, its spool neither, and people are told."""

from __future__ import annotations

import asyncio
import signal

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


@pytest.fixture
async def full(servmon_daemon, prepared_cluster, site, mail_server):
    """A daemon that checks, and its mails; the disk with all it has is full."""
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
        yield daemon, mail, disk
        assert await daemon.stop() == 0


async def test_people_are_told_and_afterwards_everything_is_stored(full, site):
    daemon, mail, disk = full
    await site.stop()
    await settled(lambda: len(mail.mails) == 1, 60)
    (away,) = [one for one in (await daemon.get("/readyz"))["degraded"] if one.startswith("Postgres")]
    assert "takes no results just now" in away
    await disk.free()
    await daemon.logged("Postgres takes results again")
    await site.start()
    await told_of_the_recovery(daemon, mail)
    await every_check_is_stored(daemon)


async def test_a_start_on_a_full_disk_goes_on_from_what_was_known(full, site):
    """Postgres cannot even start, and the start needs no room of its own."""
    daemon, mail, disk = full
    await daemon.stop(signal.SIGKILL)
    await disk.fill()
    await daemon.start()
    await daemon.logged("PostgreSQL does not start yet")
    await site.stop()
    await settled(lambda: len(mail.mails) == 1, 60)
    await disk.free()
    await daemon.logged("Postgres is here: what is watched is as it says")
    await site.start()
    await told_of_the_recovery(daemon, mail)
    await every_check_is_stored(daemon)


async def told_of_the_recovery(daemon: RunningServmon, mail) -> None:
    await settled(lambda: len(mail.mails) == 2, 60)
    await daemon.get_until("/readyz", lambda found: not any(one.startswith("Postgres") for one in found["degraded"]))
    await daemon.get_until("/outages/", lambda found: found["items"][0]["resolved"])
    assert [subject.split(":")[0] for subject in mail.subjects] == ["DOWN", "UP"]


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
