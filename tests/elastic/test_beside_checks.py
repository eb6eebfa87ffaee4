"""What a cluster in trouble does to the checks and to memory: nothing, against the same daemon without a cluster."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from aiohttp import web

from servmon.clock import SYSTEM_CLOCK
from servmon.elastic.cluster import REQUEST_SECONDS
from tests.elastic.test_backlog import count_peak_from_here, figures, memory_mb
from tests.elastic.test_live import elasticsearch_is_degraded
from tests.fix_servers import PATIENCE_SECONDS, is_silent

ENDPOINTS, SECONDS = 200, 60
CHECKED = """
[service]
check_interval = 1
check_timeout = 0.5
"""


async def hangs(_request, _body):
    await asyncio.sleep(3600)


async def has_too_much_to_do(_request, _body):
    return web.Response(status=429, text='{"error": "too many requests"}', content_type="application/json")


async def answers_nonsense(_request, _body):
    return web.Response(status=503, text="<html>" + 100_000 * "x", content_type="text/html")


@dataclass
class Minute:
    """What a minute of checks cost: checks, those later than 0.1 s, skipped slots, and the peak of memory in MB."""

    checks: float
    late: float
    skipped: float
    peak: float


async def a_minute(running) -> Minute:
    count_peak_from_here(running.process.pid)
    before = await figures(running)
    await asyncio.sleep(SECONDS)
    after = await figures(running)

    def of(name: str) -> float:
        return after[name] - before[name]

    late = of("servmon_check_lateness_seconds_count") - of('servmon_check_lateness_seconds_bucket{le="0.1"}')
    peak = memory_mb(running.process.pid, "VmHWM")
    return Minute(of("servmon_checks_total"), late, of("servmon_checks_skipped_total"), peak)


@pytest.mark.deep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("trouble", [None, hangs, has_too_much_to_do, answers_nonsense])
async def test_checks_are_on_time_and_memory_is_flat_beside_a_cluster_in_trouble(
    servmon_daemon, proxy, tcp_server, trouble
):
    open_port = (await tcp_server(is_silent)).port
    watched = "".join(
        f'[[endpoints]]\nid = "e{one}"\nurl = "tcp://127.0.0.1:{open_port}"\n' for one in range(ENDPOINTS)
    )
    running = servmon_daemon(CHECKED + watched)
    await running.start()
    await asyncio.sleep(20)
    alone = await a_minute(running)
    proxy.fault = trouble
    if trouble is None:
        await proxy.stop()
    running.configure(CHECKED + f'[elasticsearch]\nhosts = ["{proxy.url}"]\nsync_interval = 1\n' + watched)
    async with asyncio.timeout(2 * REQUEST_SECONDS + PATIENCE_SECONDS):
        while not elasticsearch_is_degraded(await running.get("/readyz")):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.5)
    beside = await a_minute(running)
    started = SYSTEM_CLOCK.monotonic()
    assert await running.stop() == 0
    stopped = SYSTEM_CLOCK.monotonic() - started
    name = trouble.__name__ if trouble else "refuses"
    print(f"\n{name}: without {alone}, with {beside}, stopped in {stopped:.1f} s")  # noqa: T201 - what the run is for
    assert beside.skipped == alone.skipped == 0
    assert beside.checks >= 0.99 * alone.checks
    assert beside.late <= alone.late + 0.001 * beside.checks
    # The client is loaded with the first request; nothing more comes of trouble.
    assert beside.peak <= alone.peak + 40
    assert stopped < 10  # what the operator is promised
