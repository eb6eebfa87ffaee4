"""Inside a daemon the answers come from its memory, and every change reaches it at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from servmon.clock import now
from servmon.model import CheckResult, CheckSource, Endpoint, Status
from servmon.probes.network import Network
from servmon.services.availability import AvailabilityService
from servmon.store import notes, rows
from servmon.store.endpoints import provision
from servmon.store.local import LocalFile
from servmon.store.notebook import Notebook
from servmon.tasks import spawn
from tests.fix_api import NOTHING, serving
from tests.fix_live import Daemon


async def create(daemon, endpoint_id: str, **fields) -> None:
    await daemon.availability.create_endpoint({"id": endpoint_id, "url": "tcp://192.0.2.1:1", **fields})


async def test_a_created_endpoint_is_watched_when_the_answer_comes(daemon):
    await create(daemon, "a")
    await create(daemon, "off", is_active=False)
    assert daemon.monitor.watched.keys() == {"a"}
    await daemon.availability.update_endpoint("a", {"timeout": 1})
    assert daemon.monitor.watched["a"].plan.endpoint.timeout == 1
    await daemon.availability.delete_endpoint("a")
    assert not daemon.monitor.watched


async def test_checks_go_on_between_the_changes_of_many_endpoints(daemon, connection, tmp_path, monkeypatch):
    monkeypatch.setattr("servmon.tasks.TURN_SECONDS", -1.0)  # so each piece that gives way at all does so every time
    turns = 0

    async def check() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    wanted = [Endpoint(f"e{n}", f"e{n}", "tcp://192.0.2.1:1", "TCP") for n in range(200)]
    await provision(connection.pool, "config:main", wanted)
    done_in: defaultdict[str, set[int]] = defaultdict(set)

    def recorded(owner: Any, name: str) -> None:
        work = getattr(owner, name)

        def record(*arguments: Any) -> Any:
            done_in[name].add(turns)
            return work(*arguments)

        monkeypatch.setattr(owner, name, record)

    recorded(rows, "endpoint")
    recorded(daemon.monitor, "watch")
    recorded(notes, "endpoint_body")
    file = LocalFile(tmp_path)
    notebook = Notebook(file)
    daemon.view._notebook = notebook
    checks = spawn(check(), name="checks")
    await daemon.view.refresh()
    checks.cancel()
    assert {name: len(in_turns) for name, in_turns in done_in.items()} == {
        "endpoint": len(wanted),
        "watch": len(wanted),
        "endpoint_body": len(wanted),
    }
    assert len(daemon.monitor.watched) == len((await notebook.read("endpoint"))["endpoint"]) == len(wanted)
    await file.close()


async def test_the_memory_tells_the_status_and_counts_for_the_summary(daemon):
    for endpoint_id in ("a", "b"):
        await create(daemon, endpoint_id)
    await create(daemon, "off", is_active=False)
    await daemon.finds("a", Status.DOWN)
    current = await daemon.availability.get_current_status("a")
    assert (current.status, current.consecutive_failures) == (Status.DOWN, 1)
    assert current.outage_id is not None
    assert (await daemon.availability.get_current_status("off")).timestamp is None
    summary = await daemon.availability.get_status_summary()
    assert (summary["total"], summary["down"], summary["unknown"], summary["active_outages"]) == (2, 1, 1, 1)
    assert summary == await AvailabilityService(daemon.availability._connection).get_status_summary()


async def test_a_manual_check_changes_nothing_in_the_memory(daemon, open_port):
    await create(daemon, "a", url=f"tcp://127.0.0.1:{open_port}")
    await daemon.finds("a", Status.DOWN)
    before = await daemon.availability.get_current_status("a")
    checked = await daemon.availability.check_endpoint("a")
    assert (checked.status, checked.source) == (Status.UP, CheckSource.MANUAL)
    assert await daemon.availability.get_current_status("a") == before
    history = await daemon.availability.get_status_history("a")
    assert [(row.status, row.source.value) for row in history] == [(Status.UP, "manual"), (Status.DOWN, "schedule")]


async def test_a_resolved_outage_is_closed_in_the_memory_too_and_a_new_failure_opens_another(daemon):
    await create(daemon, "a")
    await daemon.finds("a", Status.DOWN)
    (opened,) = await daemon.outages.get_active_outages()
    resolved = await daemon.outages.resolve_outage(opened.id)
    assert (resolved.resolved, resolved.still_down) == (True, True)
    assert (await daemon.availability.get_current_status("a")).outage_id is None
    await daemon.finds("a", Status.DOWN)
    (again,) = await daemon.outages.get_active_outages()
    assert again.id != opened.id


@pytest.mark.parametrize("changes", [{"is_active": False}, {"url": "tcp://192.0.2.2:1"}])
async def test_an_endpoint_that_asks_another_question_has_no_outage_any_more(daemon, changes):
    await create(daemon, "a")
    await daemon.finds("a", Status.DOWN)
    await daemon.availability.update_endpoint("a", changes)
    assert await daemon.outages.get_active_outages() == []
    assert (await daemon.availability.get_status_summary())["active_outages"] == 0


async def test_a_window_is_in_force_when_the_answer_comes(daemon):
    await create(daemon, "a")
    hour = timedelta(hours=1)
    at = datetime.now(UTC)  # noqa: TID251 - windows are active in real time
    fields = {"endpoint_ids": ["a"], "start_time": at - hour, "end_time": at + hour}
    window = await daemon.outages.create_maintenance_window(fields)
    assert (await daemon.availability.get_current_status("a")).in_maintenance
    await daemon.finds("a", Status.DOWN)
    assert await daemon.outages.get_active_outages() == []
    await daemon.outages.delete_maintenance_window(window.id)
    assert not (await daemon.availability.get_current_status("a")).in_maintenance


async def test_a_window_over_a_tag_is_in_force_from_its_creation_to_its_early_end(daemon):
    await create(daemon, "a", tags=["core"])
    planned = {"tags": ["core"], "start_time": now() - timedelta(hours=25), "end_time": now() - timedelta(hours=23)}
    window = await daemon.outages.create_maintenance_window({**planned, "rrule": "FREQ=DAILY"})
    assert daemon.view.current("a").in_maintenance
    await create(daemon, "b", tags=["core"])
    assert daemon.view.current("b").in_maintenance
    await daemon.finds("a", Status.DOWN)
    assert daemon.view.current("a").outage_id is None
    await daemon.outages.extend_maintenance_window(window.id, {"minutes": 5})
    assert daemon.monitor.covered[0].occurrence.end_time - window.end_time in (
        timedelta(minutes=5),  # of the day before, which is over
        timedelta(days=1, minutes=5),
    )
    daemon.scheduler._slots["a"].soon = False
    await daemon.outages.end_maintenance_window(window.id)
    assert not daemon.view.current("a").in_maintenance
    # What failed in it is asked again at once.
    assert daemon.scheduler._slots["a"].soon
    await daemon.finds("a", Status.DOWN)
    assert daemon.view.current("a").outage_id is not None


async def test_a_restart_within_a_window_knows_since_when_an_endpoint_fails(database, connection, daemon):
    await create(daemon, "a")
    start = now() - timedelta(minutes=10)
    window = {"endpoint_ids": ["a"], "start_time": start, "end_time": start + timedelta(hours=1)}
    await daemon.outages.create_maintenance_window(window)
    endpoint = daemon.monitor.watched["a"].plan.endpoint
    for second in range(200):  # more than a start looks at
        status = Status.UP if second == 3 else Status.DOWN
        moment = start + timedelta(seconds=second)
        daemon.writer.put(CheckResult(endpoint.id, endpoint.key, status, moment), ())
    await daemon.writer.drain()
    async with Network() as network:
        again = Daemon(database, connection, network)
        again.view.load(await again.view.recollect(), again.writer)
    assert again.monitor.watched["a"].state.first_failure_at == start + timedelta(seconds=4)
    assert again.view.current("a").outage_id is None


async def test_metrics_show_the_last_check_of_every_endpoint_that_could_be_asked(daemon):
    for endpoint_id, status in (("a", Status.DOWN), ("b", Status.UP), ("c", Status.UNKNOWN)):
        await create(daemon, endpoint_id)
        await daemon.finds(endpoint_id, status)
    async with serving(
        replace(NOTHING, availability=daemon.availability, outages=daemon.outages), live=daemon.view
    ) as api:
        lines = (await api.get("/metrics")).body.decode().splitlines()
    assert [line for line in lines if line.startswith("probe_success{")] == [
        'probe_success{endpoint="a",target="tcp://192.0.2.1:1",protocol="TCP"} 0',
        'probe_success{endpoint="b",target="tcp://192.0.2.1:1",protocol="TCP"} 1',
    ]
    assert 'probe_duration_seconds{endpoint="b",target="tcp://192.0.2.1:1",protocol="TCP"} 0.0125' in lines
