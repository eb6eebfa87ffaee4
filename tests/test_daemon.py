"""The whole daemon on real input: an outage's life, stops and crashes in the middle of one, and edits."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time

import asyncpg
import pytest

from servmon import cli
from servmon.api.events import HEARTBEAT_SECONDS
from tests.fix_daemon import FAST, QUICK, SEEING, SHOWING_CHECKS, is_alive
from tests.fix_servers import patience, settled


def watching(port: int, *, endpoint_id: str = "web", settings: str = SEEING) -> str:
    return (
        f'{settings}[[endpoints]]\nid = "{endpoint_id}"\nname = "A web server"\n'
        f'url = "http://127.0.0.1:{port}/"\ncheck_interval = 1\n'
    )


async def test_an_outage_is_declared_and_resolves_and_everything_agrees(servmon_daemon, site):
    daemon = servmon_daemon(watching(site.port))
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda found: found["status"] == "UP")
    await site.stop()
    (outage,) = (await daemon.get_until("/outages/active", lambda found: found["items"]))["items"]
    assert (await daemon.get("/services/status/summary"))["active_outages"] == 1
    await site.start()
    resolved = await daemon.get_until(f"/outages/{outage['id']}", lambda found: found["resolved"])
    history = (await daemon.get("/services/web/history?limit=1000"))["items"]
    down = [row["timestamp"] for row in history if row["status"] == "DOWN"]
    good_again = min(row["timestamp"] for row in history if row["status"] == "UP" and row["timestamp"] > max(down))
    assert resolved["start_time"] == min(down)
    assert resolved["resolved_at"] == good_again
    assert (await daemon.get("/outages/active"))["items"] == []
    summary = await daemon.get("/outages/summary")
    assert (summary["total"], summary["active"], summary["resolved"]) == (1, 0, 1)
    await _rows_agree(daemon, history)
    assert await daemon.stop() == 0


async def _rows_agree(daemon, history):
    connection = await asyncpg.connect(
        user="servmon", database="servmon", host=str(daemon.data_dir / "postgres"), port=5432
    )
    rows = await connection.fetch("select status::text, timestamp from service_status order by timestamp desc")
    outages = await connection.fetch("select resolved, elasticsearch_synced from service_outage")
    await connection.close()
    assert [row["status"] for row in rows][-len(history) :] == [row["status"] for row in history]
    assert [tuple(row) for row in outages] == [(True, False)]


async def test_killed_in_the_middle_of_an_outage_the_same_outage_goes_on_and_no_postgres_is_left(servmon_daemon, site):
    daemon = servmon_daemon(watching(site.port, settings=QUICK))
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda found: found["status"] == "UP")
    await site.stop()
    (before,) = (await daemon.get_until("/outages/active", lambda found: found["items"]))["items"]
    postgres = daemon.postgres_pid()
    await daemon.stop(signal.SIGKILL)
    await settled(lambda: not is_alive(postgres))
    await daemon.start()
    status = await daemon.get("/services/web/status")
    assert (status["state"], status["outage_id"]) == ("down", before["id"])
    await site.start()
    resolved = await daemon.get_until(f"/outages/{before['id']}", lambda found: found["resolved"])
    assert resolved["start_time"] == before["start_time"]
    assert (await daemon.get("/outages/summary"))["total"] == 1
    await daemon.stop()


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_asked_to_stop_it_ends_within_five_seconds_and_leaves_nothing_running(servmon_daemon, site, number):
    daemon = servmon_daemon(watching(site.port))
    await daemon.start()
    postgres = daemon.postgres_pid()
    began = time.monotonic()
    assert await daemon.stop(number) == 0
    assert time.monotonic() - began < 5
    assert not is_alive(postgres)


async def test_a_dead_postgres_is_started_again_and_no_result_is_lost(servmon_daemon, site):
    daemon = servmon_daemon(SHOWING_CHECKS + watching(site.port))
    await daemon.start()
    await daemon.get_until("/services/web/history", lambda found: found["items"])
    os.kill(daemon.postgres_pid(), signal.SIGKILL)
    await daemon.logged("PostgreSQL runs again")
    made = daemon.checked()
    await daemon.get_until("/services/web/history?limit=1000", lambda found: made <= ids_in(found))
    await daemon.stop()


def ids_in(answer) -> set[str]:
    return {one["id"] for one in answer["items"]}


async def test_an_edit_of_the_file_is_applied_and_a_broken_one_changes_nothing(servmon_daemon, site):
    daemon = servmon_daemon(watching(site.port))
    await daemon.start()
    daemon.configure(watching(site.port, endpoint_id="web2"))
    services = await daemon.get_until(
        "/services/", lambda found: {one["id"] for one in found["items"] if one["is_active"]} == {"web2"}
    )
    assert len(services["items"]) == 2  # the removed one keeps its history
    daemon.configure("[service]\ncheck_interval = -1\nnonsense = 3\n")
    await daemon.logged("configuration not applied")
    ready = await daemon.get("/readyz")
    assert any("check_interval" in one and "nonsense" in one for one in ready["degraded"])
    assert (await daemon.get("/services/web2"))["is_active"]
    assert "servmon_config_last_reload_successful 0" in (await daemon.text("/metrics")).splitlines()
    daemon.configure("[service]\nnonsense = 4\n")
    daemon.signal(signal.SIGHUP)
    await daemon.get_until("/readyz", lambda found: not any("not -1" in one for one in found["degraded"]))
    daemon.configure(watching(site.port))
    daemon.signal(signal.SIGHUP)
    await daemon.get_until("/readyz", lambda found: found["degraded"] == [])
    assert "servmon_config_last_reload_successful 1" in (await daemon.text("/metrics")).splitlines()
    refused, applied = await configuration_events(daemon)
    assert re.match(
        r"configuration refused: configuration not applied: .*servmon\.toml:8: service\.check_interval: must .* 1 more",
        refused,
    )
    assert applied == "configuration applied: the configuration is right again, and applied"
    await daemon.get_until("/services/web", lambda found: found["is_active"])
    await daemon.stop()


async def configuration_events(daemon) -> list[str]:
    """What was told of the configuration since the start, once it was told that all is well again."""
    connection = await asyncpg.connect(
        user="servmon", database="servmon", host=str(daemon.data_dir / "postgres"), port=5432
    )
    told: list[str] = []

    async def well_again() -> bool:
        rows = await connection.fetch("select kind, message from event where kind like 'configuration%' order by seq")
        told[:] = [f"{row['kind']}: {row['message']}" for row in rows]
        return len(told) >= 2

    await daemon.until(well_again, "the events", told)
    await connection.close()
    return told


async def test_sighup_reads_the_file_again(servmon_daemon, site):
    daemon = servmon_daemon(watching(site.port))
    await daemon.start()
    daemon.signal(signal.SIGHUP)
    await daemon.logged("configuration applied")
    assert (await daemon.get("/readyz"))["degraded"] == []
    await daemon.stop()


async def test_on_sigusr1_the_log_file_is_opened_anew_and_each_check_bears_the_apis_id(servmon_daemon, site):
    daemon = servmon_daemon('[log]\nlevel = "debug"\nfile = "own.log"\n' + watching(site.port))
    daemon.environment["SERVMON_INSTANCE"] = "second"  # whose rows bear another number than those of the first
    await daemon.start()
    own = daemon.folder / "own.log"
    before = own.read_text(encoding="utf-8")
    own.rename(own.with_suffix(".1"))
    daemon.signal(signal.SIGUSR1)

    async def written() -> bool:
        return own.exists() and "checked" in own.read_text(encoding="utf-8")

    await daemon.until(written, "a line in the new file")
    lines = [json.loads(line) for line in (before + own.read_text(encoding="utf-8")).splitlines()]
    check = next(line["check"] for line in reversed(lines) if line["event"] == "checked")
    await daemon.get_until("/services/web/history", lambda found: check in [one["id"] for one in found["items"]])
    await daemon.stop()


async def test_a_change_in_postgres_by_anybody_reaches_the_daemon_and_ends_a_revoked_stream(servmon_daemon, site):
    daemon = servmon_daemon(FAST)
    await daemon.start()
    connection = await asyncpg.connect(
        user="servmon", database="servmon", host=str(daemon.data_dir / "postgres"), port=5432
    )
    await connection.execute(
        "insert into service_endpoint (id, name, url, protocol, check_interval) values"
        f" ('by-hand', 'By hand', 'http://127.0.0.1:{site.port}/', 'HTTP', 1)"
    )
    await daemon.get_until("/services/status/summary", lambda found: found["up"] == 1)
    for revoke in (
        lambda made: daemon.answer("DELETE", f"/tokens/{made['id']}"),
        lambda made: connection.execute("update access_token set revoked_at = now() where id = $1", made["id"]),
        lambda made: connection.execute("delete from access_token where id = $1", made["id"]),
    ):
        made = await daemon.send("POST", "/tokens/", {"name": "wallboard"})
        async with daemon.events(made["token"]) as stream:
            await revoke(made)
            async with asyncio.timeout(HEARTBEAT_SECONDS - 5):  # before the stream looks round by itself
                await stream.read()
    await connection.close()
    await daemon.stop()


async def test_a_data_folder_of_an_external_database_never_gets_one_of_its_own_in_silence(servmon_daemon, database):
    daemon = servmon_daemon(f'[database]\nurl = "{database}"\n')
    await daemon.start()
    assert not (daemon.data_dir / "postgres").exists()
    await daemon.stop()
    daemon.configure("")
    code, said = await ended(daemon)
    assert code == cli.EXIT_CONFIGURATION
    assert "no [database] url (or DATABASE_URL) is set" in said
    assert not (daemon.data_dir / "postgres").exists()


async def ended(daemon) -> tuple[int, str]:
    """Run servmon where it cannot: its exit status and its last words."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servmon", "run", "--config", str(daemon.file)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert b"Traceback" not in said
    return process.returncode, said.decode()


async def test_two_daemons_do_not_share_a_data_folder(servmon_daemon):
    daemon = servmon_daemon(FAST)
    await daemon.start()
    code, said = await ended(daemon)
    assert code == cli.EXIT_CONFIGURATION
    assert str(daemon.data_dir) in said
    await daemon.stop()


def made_at(check: str) -> int:
    """When a check was made, in microseconds, by its id."""
    return int(check.rpartition("-")[2])


def many(number: int) -> str:
    return SEEING + "".join(
        f'[[endpoints]]\nid = "e{n}"\nurl = "icmp://127.0.0.1"\ncheck_interval = 60\n' for n in range(number)
    )


async def active(daemon) -> int:
    return sum(one["is_active"] for one in (await daemon.get("/services/?limit=1000"))["items"])


async def test_a_file_that_lost_many_endpoints_takes_none_out_neither_at_a_reload_nor_at_a_start(servmon_daemon):
    daemon = servmon_daemon(many(50))
    await daemon.start()
    daemon.configure(many(40))
    daemon.signal(signal.SIGHUP)
    await daemon.logged("it would remove 10 of 50 endpoints, such as e40, e41, e42")
    assert await active(daemon) == 50
    daemon.configure(many(41))
    daemon.signal(signal.SIGHUP)
    await daemon.logged("configuration applied")
    assert await active(daemon) == 41
    await daemon.stop(signal.SIGKILL)
    daemon.configure(many(3))
    await daemon.start()
    assert await active(daemon) == 41
    assert any("they stay until" in one for one in (await daemon.get("/readyz"))["degraded"])
    await daemon.stop()


async def test_started_with_a_broken_file_it_runs_the_last_good_one_and_says_so(servmon_daemon, site):
    daemon = servmon_daemon(watching(site.port))
    await daemon.start()
    await daemon.stop()
    daemon.configure("[service\n")
    await daemon.start()
    (trouble,) = (await daemon.get("/readyz"))["degraded"]
    assert "the last good one runs" in trouble
    assert "servmon.toml:7: not valid TOML" in trouble
    await daemon.get_until("/services/web/status", lambda found: found["status"] == "UP")
    daemon.configure(watching(site.port))
    daemon.signal(signal.SIGHUP)
    await daemon.get_until("/readyz", lambda found: found["degraded"] == [])
    await daemon.stop()


async def test_the_service_manager_hears_of_start_reload_and_stop_and_the_watchdog_is_fed(servmon_daemon, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        heard: list[str] = []

        async def hear(words: str) -> None:
            async with patience():
                while words not in "\n".join(heard).splitlines():
                    heard.append((await asyncio.get_running_loop().sock_recv(manager, 4096)).decode())

        daemon = servmon_daemon(many(2))
        daemon.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        await daemon.start()
        await hear("READY=1")
        await hear("STATUS=2 endpoints: 2 up, 0 degraded, 0 down, 0 unknown; 0 open outages")
        await hear("WATCHDOG=1")
        heard.clear()
        daemon.signal(signal.SIGHUP)
        await hear("RELOADING=1")
        await hear("READY=1")
        await daemon.stop()
        await hear("STOPPING=1")


async def test_a_crash_while_postgres_hangs_leaves_no_gap_in_the_history(servmon_daemon, site):
    daemon = servmon_daemon(SHOWING_CHECKS + watching(site.port))
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda status: status["status"] == "UP")
    with daemon.hanging_postgres():
        await daemon.logged("results wait for Postgres")
        before = daemon.results_on_disk()

        async def has_five_more() -> bool:
            return len(daemon.results_on_disk() - before) >= 5

        await daemon.until(has_five_more, "results on disk")
        await daemon.stop(signal.SIGKILL)
    made, owed = daemon.checked(), daemon.results_on_disk()
    await daemon.start()
    await daemon.logged("results of an earlier run are stored")
    stored = ids_in(await daemon.get("/services/web/history?limit=1000"))
    assert owed - stored == set()
    # Lost is at most what was found in the last moment, and nothing in between.
    assert all(later > max(map(made_at, owed)) for later in map(made_at, made - stored))
    await daemon.stop()


async def test_a_dead_parent_is_told_once_and_its_children_stand_as_its_doing_over_a_restart(servmon_daemon, site):
    record = "import sys, pathlib; pathlib.Path(sys.argv[1]).open('a').write(sys.stdin.read() + '\\n')"
    configuration = watching(site.port, endpoint_id="router")
    for name in ("c1", "c2", "c3"):
        url = f"http://127.0.0.1:{site.port}/?{name}"
        configuration += f'[[endpoints]]\nid = "{name}"\nurl = "{url}"\ncheck_interval = 1\nsite = "pop"\n'
    daemon = servmon_daemon("")
    told = daemon.folder / "told"
    daemon.configure(
        f'{configuration}[[dependencies]]\nchildren = {{ site = "pop" }}\nparents = ["router"]\n'
        f'[alert]\nnotification_channels = ["log"]\n[channels.log]\nkind = "exec"\n'
        f"command = {json.dumps([sys.executable, '-c', record, str(told)])}\n"
    )
    await daemon.start()
    await daemon.get_until("/services/status/summary", lambda found: found["up"] == 4)
    await site.stop()
    active = await daemon.get_until("/outages/active", lambda found: len(found["items"]) == 4)
    assert {one["endpoint_id"]: one["caused_by"] for one in active["items"]} == {
        "router": None,
        **dict.fromkeys(("c1", "c2", "c3"), "router"),
    }
    impact = await daemon.get("/services/router/impact")
    assert (impact["takes_down"], impact["caused_by"]) == (["c1", "c2", "c3"], None)
    (root,) = (one["id"] for one in active["items"] if one["endpoint_id"] == "router")
    await daemon.get_until(
        f"/outages/{root}/alerts", lambda found: [one for one in found["notifications"] if one["sent_at"]]
    )
    await daemon.stop(signal.SIGKILL)
    await daemon.start()
    again = await daemon.get("/outages/active")
    assert {one["id"]: one["caused_by"] for one in again["items"]} == {
        one["id"]: one["caused_by"] for one in active["items"]
    }
    await site.start()
    await daemon.get_until("/outages/active", lambda found: found["items"] == [])
    alerts = await daemon.get_until("/alerts/", lambda found: found["items"] and found["items"][0]["closed_at"])
    assert [one["title"] for one in alerts["items"]] == ["A web server"]
    changes = (await daemon.get("/services/c1/state-changes"))["items"]
    assert any("cut off by router" in one["reason"] for one in changes)
    # The message of its end may say it once more.
    messages = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
    down = [str(one) for one in messages if one["subject"].startswith("DOWN")]
    assert len(down) == 1, [one["subject"] for one in messages]
    assert "Cuts off 3 endpoints that depend on it: c1, c2, c3" in down[0]
    await daemon.stop()
