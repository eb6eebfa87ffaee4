"""A backlog of a million results: what it costs servmon to send it, while it goes on checking."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from pathlib import Path

import asyncpg
import pytest
from aiohttp import web

from servmon.clock import SYSTEM_CLOCK
from servmon.store.embedded import running_dsn
from tests.fix_servers import is_silent

ENDPOINTS = 100
CHECKED = """
[service]
check_interval = 1
check_timeout = 0.5
"""
FILL = """
insert into service_status_row (timestamp, endpoint_key, status, response_time, dns_ms, connect_ms, tls_ms,
    first_byte_ms, transfer_ms, observer, attempts, failure_kind, error_message)
select date_trunc('day', now()) - interval '3 days' + number * interval '0.2 seconds', 1 + number % $2,
    (case when number % 50 = 0 then 'DOWN' else 'UP' end)::service_status_type, 12.5, 1, 2, 3, 4, 5, 1, 1,
    case when number % 50 = 0 then 1 end, case when number % 50 = 0 then 'no answer within 5 s' end
from generate_series(1, $1::int) number
"""


def cpu_seconds(pid: int) -> float:
    """Of the process alone: its Postgres is another."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int, which: str) -> float:
    found = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    return int(found[1]) / 1024


def count_peak_from_here(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


async def figures(running) -> dict[str, float]:
    lines = (await running.text("/metrics")).splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


class Sink:
    """Takes batches in the cluster's place, since a million documents take our servers a quarter of an hour."""

    def __init__(self) -> None:
        self.taken: Counter[bytes] = Counter()

    async def __call__(self, request: web.Request, body: bytes) -> web.Response | None:
        if request.path != "/_bulk":
            return None
        self.taken.update(re.findall(rb'^{"create":({[^}]*})}$', body, flags=re.MULTILINE))
        return web.Response(
            text='{"errors":false}', content_type="application/json", headers={"X-Elastic-Product": "Elasticsearch"}
        )


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("number", "to_sink"), [(50_000, False), (1_000_000, True)])
async def test_a_million_results_are_sent_within_the_budget_while_checks_are_on_time(
    servmon_daemon, cluster, proxy, tcp_server, number, to_sink
):
    sink = Sink()
    if to_sink:
        proxy.fault = sink
    open_port = (await tcp_server(is_silent)).port
    watched = "".join(
        f'[[endpoints]]\nid = "e{one}"\nname = "e{one}"\nurl = "tcp://127.0.0.1:{open_port}"\n'
        for one in range(ENDPOINTS)
    )
    running = servmon_daemon(CHECKED + watched)
    await running.start()
    connection = await asyncpg.connect(running_dsn(running.data_dir))
    for day in range(3):
        await connection.execute("select ensure_status_partition(current_date - 1 - $1::int)", day)
    await connection.execute(FILL, number, ENDPOINTS, timeout=600)
    pid = running.process.pid
    began = cpu_seconds(pid)
    await asyncio.sleep(10)
    idle_share = (cpu_seconds(pid) - began) / 10
    rest, before = memory_mb(pid, "VmRSS"), await figures(running)
    count_peak_from_here(pid)
    used, started = cpu_seconds(pid), SYSTEM_CLOCK.monotonic()
    running.configure(CHECKED + f'[elasticsearch]\nhosts = ["{proxy.url}"]\nsync_interval = 300\n' + watched)
    async with asyncio.timeout(1500):
        while await connection.fetchval("select seq from elasticsearch_cursor") < number:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    seconds = SYSTEM_CLOCK.monotonic() - started
    each = (cpu_seconds(pid) - used - idle_share * seconds) / number * 1e6
    grown, after = memory_mb(pid, "VmHWM") - rest, await figures(running)
    late = after["servmon_check_lateness_seconds_count"] - after['servmon_check_lateness_seconds_bucket{le="0.1"}']
    late -= before["servmon_check_lateness_seconds_count"] - before['servmon_check_lateness_seconds_bucket{le="0.1"}']
    checked = after["servmon_checks_total"] - before["servmon_checks_total"]
    print(  # noqa: T201 - the figures are what the run is for
        f"\n{'a sink' if to_sink else cluster.kind}: {number:,} results in {seconds:.0f} s, {each:.0f} µs of CPU each,"
        f" {grown:.0f} MB more at the peak; meanwhile {checked:.0f} checks, {late:.0f} of them later than 0.1 s"
    )
    assert each <= 100
    assert grown <= 150
    assert after["servmon_checks_skipped_total"] == before["servmon_checks_skipped_total"]
    assert late <= 0.01 * checked
    if to_sink:
        assert len(sink.taken) >= number
        assert set(sink.taken.values()) == {1}
    else:
        await each_day_is_whole(cluster, connection)
    await connection.close()


async def each_day_is_whole(cluster, connection) -> None:
    days = (
        "select timestamp::date as day, count(*) as number from service_status_row"
        " where timestamp < current_date group by 1"
    )
    for row in await connection.fetch(days):
        index = f"isp-service-status-{row['day']:%Y.%m.%d}"
        await cluster.ask("POST", f"/{index}/_refresh")
        _, counted = await cluster.ask("GET", f"/{index}/_count")
        assert counted["count"] == row["number"]
