"""`servmon elastic status|resync|rebuild`: a lost mirror is whole again, and where it is not that is said."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import date

import pytest
from aiohttp import web
from typer.testing import CliRunner

from servmon.cli import app
from servmon.cli.elastic import _shown
from servmon.clock import now
from servmon.elastic.cluster import ElasticError
from servmon.elastic.comparison import compare
from servmon.elastic.mapping import MAINTENANCE_INDEX
from servmon.elastic.rebuild import TRIES, Rebuild
from servmon.elastic.sync import Sync
from servmon.metrics import Counters
from servmon.store import outages

FIRST = date(2026, 11, 20)


@pytest.fixture
async def filled(mirror, monkeypatch):
    """A mirror with two days of results on several pages, all of them sent."""
    monkeypatch.setattr("servmon.elastic.rebuild.PAGE", 200)
    site, dns = await mirror.watch("web", "dns")
    await mirror.check(site, 200)
    await mirror.check(dns, 400)
    await mirror.open_outage(site)
    await mirror.open_outage(dns, resolved=True, resolved_at=now())
    await mirror.plan("web")
    await mirror.pass_time(1)
    await mirror.is_whole()
    return mirror


class Seen:
    """A rebuild whose pauses cost nothing; what it tells is kept."""

    def __init__(self, mirror, db) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.said: list[str] = []
        self.slept = 0.0
        sync = Sync(db, mirror.cluster, counters=Counters())
        self.run = Rebuild(
            db,
            mirror.cluster,
            sync,
            progress=lambda *step: self.steps.append(step),
            say=self.said.append,
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        await asyncio.sleep(0)


@pytest.fixture
async def seen(mirror):
    return Seen(mirror, await mirror.fresh_reader())


async def differences(mirror) -> dict[str, str]:
    found = [one async for one in compare(await mirror.fresh_reader(), mirror.cluster, now().date())]
    return {one.index: one.difference for one in found if one.difference}


async def test_a_lost_cluster_is_whole_again(filled, seen):
    await filled.proxy.cluster.empty()
    assert set(await differences(filled)) == set(await filled.rows())
    await seen.run.since(FIRST)
    await filled.is_whole()
    assert await differences(filled) == {}
    assert seen.steps[-1] == ("maintenance windows", 1, 1)
    assert ("results of 2026-11-21", 570, 570) in seen.steps


async def test_it_is_rebuilt_beside_a_live_sync_and_new_rows(filled, seen):
    site = await filled.watch("other")
    await filled.proxy.cluster.empty()

    async def live() -> None:
        for _ in range(8):
            await filled.check(site, 50)
            await filled.pass_time(300)

    async with asyncio.TaskGroup() as group:
        group.create_task(live())
        group.create_task(seen.run.since(FIRST))
    await filled.pass_time(600)
    await filled.is_whole()


async def test_only_what_is_asked_for_is_sent_again(filled, seen):
    await filled.proxy.cluster.ask("DELETE", "/isp-service-status-2026.11.20")
    await filled.proxy.cluster.ask("DELETE", "/isp-service-status-2026.11.21")
    await seen.run.since(date(2026, 11, 21))
    assert await differences(filled) == {"isp-service-status-2026.11.20": "30 missing"}


async def test_documents_that_are_missing_or_too_many_are_told_by_day(filled):
    index = "isp-service-status-2026.11.21"
    there = await filled.proxy.cluster.documents(index)
    await filled.proxy.cluster.ask("DELETE", f"/{index}/_doc/{next(iter(there))}")
    for number in range(3):
        await filled.proxy.cluster.ask("PUT", f"/{MAINTENANCE_INDEX}/_doc/foreign-{number}", {"description": "?"})
    assert await differences(filled) == {index: "1 missing", MAINTENANCE_INDEX: "3 too many"}


async def test_what_is_still_on_its_way_is_no_difference(filled):
    site = await filled.watch("late")
    await filled.check(site, 10)
    await outages.resolve(filled.db, (await outages.open_outages(filled.db))[0].id, notes="x", at=now())
    await filled.open_outage(site)
    assert await differences(filled) == {}


async def test_resync_sends_at_once_what_waits_and_what_was_refused(mirror, seen):
    wrong = {"mappings": {"properties": {"error_message": {"type": "date"}}}}
    await mirror.proxy.cluster.ask("PUT", "/isp-service-status-2026.11.20", wrong)
    site = await mirror.watch("web")
    await mirror.check(site, 20)
    await mirror.open_outage(site)
    await mirror.pass_time(1)
    assert await mirror.db.fetchval("select count(*) from elasticsearch_dead_letter") > 0
    await mirror.proxy.cluster.ask("DELETE", "/isp-service-status-2026.11.20")
    await mirror.check(site, 1100)
    await seen.run.resync()
    step, total, done = seen.steps[-1]
    assert (step, done) == ("results", total)
    assert await mirror.db.fetchval("select count(*) from elasticsearch_dead_letter") == 0
    # What had arrived before the index was deleted is a rebuild's work.
    await seen.run.since(FIRST)
    await mirror.is_whole()


async def test_a_rebuild_outlives_failures_and_gives_up_with_a_sentence(filled, seen):
    await filled.proxy.cluster.empty()
    fail = iter([True, True, True])

    async def now_and_then(request, _body):
        return web.Response(status=503) if request.path == "/_bulk" and next(fail, False) else None

    filled.proxy.fault = now_and_then
    await seen.run.since(FIRST)
    await filled.is_whole()
    assert len(seen.said) == 3

    async def always(request, _body):
        return web.Response(status=503)

    filled.proxy.fault = always
    seen.slept = 0
    with pytest.raises(ElasticError, match="503"):
        await seen.run.since(FIRST)
    assert len(seen.said) == 3 + TRIES - 1
    assert 60 < seen.slept < 400


def configuration(mirror, tmp_path, **more: str) -> str:
    path = tmp_path / "servmon.toml"
    lines = [f"{key} = {value}" for key, value in more.items()]
    path.write_text(
        f'[servmon]\ndata_dir = "{tmp_path}"\n[database]\nurl = "{mirror.database}"\n'
        f'[elasticsearch]\nhosts = ["{mirror.proxy.url}"]\n' + "\n".join(lines),
        encoding="utf-8",
    )
    return str(path)


async def servmon(*arguments: str) -> tuple[int, str, str]:
    """The command, in a thread: its loop is another than the proxy's."""
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    return result.exit_code, result.stdout, result.stderr


async def test_the_commands_say_what_is_wrong_mend_it_and_say_so(filled, tmp_path):
    config = configuration(filled, tmp_path)
    index = "isp-service-status-2026.11.21"
    await filled.proxy.cluster.ask("DELETE", f"/{index}")
    code, out, err = await servmon("elastic", "status", "--config", config)
    assert (code, "570 missing" in out, "rebuild --since DAY" in err) == (1, True, True)
    code, out, err = await servmon("elastic", "rebuild", "--since", "2026-11-21", "--config", config)
    assert (code, out) == (0, "everything since 2026-11-21 is there; `servmon elastic status` compares\n")
    assert "results of 2026-11-21: 570 sent" in err
    code, out, _ = await servmon("elastic", "status", "--json", "--config", config)
    told = {one["index"]: one for one in map(json.loads, out.splitlines())}
    assert (code, told[index]["there"], told[index]["difference"]) == (0, 570, None)
    await filled.check(await filled.watch("new"), 5)
    code, out, _ = await servmon("elastic", "resync", "--config", config)
    assert (code, out) == (0, "nothing waits any more\n")
    await filled.is_whole()


async def test_a_wrong_key_or_no_hosts_is_one_sentence(filled, tmp_path):
    async def refuse(_request, _body):
        return web.json_response({"error": {"type": "security_exception", "reason": "no"}}, status=401)

    filled.proxy.fault = refuse
    config = configuration(filled, tmp_path, api_key='"planted"')
    code, out, err = await servmon("elastic", "status", "--config", config)
    assert (code, out.count("\n")) == (1, 1)
    assert err.startswith("Elasticsearch: 401: our api_key")
    assert "planted" not in err
    none = tmp_path / "none.toml"
    none.write_text(f'[servmon]\ndata_dir = "{tmp_path}"\n', encoding="utf-8")
    code, _, err = await servmon("elastic", "resync", "--config", str(none))
    assert (code, err.count("\n")) == (2, 1)
    assert "[elasticsearch] hosts" in err


def test_on_a_terminal_each_step_is_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with _shown() as progress:
        progress("results of 2026-11-21", 200, 100)
        progress("results of 2026-11-21", 200, 200)
        progress("outages", 3, 3)
    shown = terminal.getvalue()
    assert "results of 2026-11-21" in shown
    assert shown.index("50%") < shown.index("100%") < shown.index("outages")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
