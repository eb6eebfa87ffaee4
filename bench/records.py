"""`python -m bench.records`: what five million kept results cost: room, deleting a day, summing up, reading, memory.

Thirty days of one check a minute, a tenth of them failures with messages, phases and details, through the code that
the writer uses, into a Postgres of servmon's own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from bench.daemon import _resident_mib, _tree_cpu, scratch
from servmon.clock import now
from servmon.model import CheckResult, Endpoint, FailureKind, Phases, Status
from servmon.store import batch, endpoints, partitions, rollup_worker, statuses
from servmon.store.embedded import EmbeddedPostgres
from servmon.store.migrate import migrate
from servmon.store.pool import Pool, connect, open_pool
from servmon.store.space import in_words

DAYS = 30
ROWS_AT_ONCE = 5000
EVERY = timedelta(minutes=1)
MANY_ENDPOINTS = 10_000
MESSAGES = (
    (FailureKind.TIMEOUT, "no answer within 5 s while connecting to 192.0.2.{number}"),
    (FailureKind.REFUSED, "192.0.2.{number} refused the connection"),
    (FailureKind.STATUS, "status 503 instead of 200-299: Service Unavailable (request {number})"),
)


def main() -> None:
    """Measure, print, and one JSON line at the end."""
    parser = argparse.ArgumentParser(prog="bench.records", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    rows = parser.parse_args().rows
    with scratch() as folder:
        print(json.dumps(asyncio.run(_run(folder, rows))))


async def _run(folder: Path, rows: int) -> dict[str, Any]:
    async with EmbeddedPostgres(folder) as dsn:
        await migrate(dsn)
        async with await open_pool(dsn) as pool:
            return await _measure(pool, dsn, rows)


async def _measure(pool: Pool, dsn: str, rows: int) -> dict[str, Any]:
    first = now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS)
    number = -(-rows // (DAYS * 1440))
    watched = await _watch(pool, number, EVERY)
    await partitions.ensure_partitions(pool, [(first + timedelta(days=day)).date() for day in range(DAYS + 2)])
    found: dict[str, Any] = {"endpoints": number}
    found |= await _fill(dsn, watched, first)
    found |= await _room(pool, first, number * 1440)
    found |= await _sum_up(pool, found["rows"])
    found |= await _read(pool, first)
    for day in (first.date(), (first + timedelta(days=1)).date()):
        took = await _timed(lambda day=day: partitions.drop(pool, [day]))
        found[f"dropping a day of {number * 1440} rows, ms"] = round(took * 1000, 1)
    for what, figure in found.items():
        print(f"{what:60} {figure}", file=sys.stderr)
    return found


async def _watch(pool: Pool, number: int, every: timedelta) -> list[Endpoint]:
    names = [f"e{n}" for n in range(number)]
    interval = int(every.total_seconds())
    wanted = [Endpoint(name, name, f"tcp://{name}:1", "TCP", check_interval=interval) for name in names]
    await endpoints.provision(pool, "bench", wanted)
    return [endpoint for endpoint in (await endpoints.changed_since(pool, 0)).endpoints if endpoint.source == "bench"]


def _results(watched: list[Endpoint], first: datetime) -> Iterator[CheckResult]:
    """In the order in which a daemon stores them; the first day has no failures."""
    chance = random.Random(1)
    spread = EVERY / len(watched)
    for minute in range(DAYS * 1440):
        at = first + minute * EVERY
        for place, endpoint in enumerate(watched):
            fails = minute >= 1440 and chance.random() < 0.1
            yield (_failure if fails else _success)(endpoint, at + place * spread, chance)


def _success(endpoint: Endpoint, at: datetime, chance: random.Random) -> CheckResult:
    took = chance.uniform(5, 80)
    phases = Phases(dns_ms=0.3, connect_ms=took / 4, tls_ms=took / 4, first_byte_ms=took / 3, transfer_ms=took / 6)
    return CheckResult(endpoint.id, endpoint.key, Status.UP, at, response_time=took, phases=phases)


def _failure(endpoint: Endpoint, at: datetime, chance: random.Random) -> CheckResult:
    kind, message = chance.choice(MESSAGES)
    return CheckResult(
        endpoint.id,
        endpoint.key,
        Status.DOWN,
        at,
        attempts=4,
        failure_kind=kind,
        error_message=message.format(number=chance.randrange(255)),
        phases=Phases(dns_ms=0.3, connect_ms=chance.uniform(1, 5000)),
        details={"address": f"192.0.2.{chance.randrange(255)}"},
    )


async def _fill(dsn: str, watched: list[Endpoint], first: datetime) -> dict[str, Any]:
    results, connection = _results(watched, first), await connect(dsn)
    stored, memory, server = 0, [], -_server_cpu()
    began = time.monotonic()
    while part := list(islice(results, ROWS_AT_ONCE)):
        await batch.write(connection, [(result, ()) for result in part], 1)
        stored += len(part)
        if stored // ROWS_AT_ONCE % 20 == 10:
            memory.append(_resident_mib(os.getpid()))
    took, server = time.monotonic() - began, server + _server_cpu()
    await connection.close()
    return {
        "rows": stored,
        "storing, Postgres' CPU microseconds a row": round(server / stored * 1e6, 2),
        "storing, rows a second": round(stored / took),
        "own memory while storing, MiB, first and last": [round(memory[0], 1), round(memory[-1], 1)],
    }


async def _room(pool: Pool, first: datetime, a_day: int) -> dict[str, Any]:
    async def bytes_of(day: int) -> float:
        name = f"service_status_row_{first + timedelta(days=day):%Y%m%d}"
        return float(await pool.fetchval("select pg_total_relation_size($1::text::regclass)", name)) / a_day

    whole = await pool.fetchval("select pg_database_size(current_database())")
    return {
        "bytes a row without messages (all phases)": round(await bytes_of(0), 1),
        "bytes a row with a tenth of failures": round(await bytes_of(5), 1),
        "the whole database": in_words(whole),
    }


async def _sum_up(pool: Pool, rows: int) -> dict[str, Any]:
    await pool.execute("update rollup_due set marked_at = marked_at - interval '1 hour'")
    notes = await pool.fetchval("select count(*) from rollup_due")
    server, began, memory = -_server_cpu(), time.monotonic(), _resident_mib(os.getpid())
    while await rollup_worker.sum_up_due(pool, now(), settle=timedelta(0)):
        pass
    took, server = time.monotonic() - began, server + _server_cpu()
    counted = await pool.fetchval("select sum(up + down) from service_status_daily")
    hours = await pool.fetchval("select sum(up + down) from service_status_hourly")
    assert counted == hours == rows, (counted, hours, rows)
    size = await pool.fetchrow(
        "select sum(pg_total_relation_size(c.oid)) as bytes, (select count(*) from service_status_hourly) as hours"
        " from pg_class c join pg_inherits i on i.inhrelid = c.oid"
        " where i.inhparent = 'service_status_hourly'::regclass and c.relkind = 'r'"
    )
    return {
        "notes of hours": notes,
        "summing up hours and days, Postgres' CPU microseconds a row": round(server / rows * 1e6, 2),
        "summing up, seconds with its pauses": round(took, 1),
        "summing up, own memory grew by, MiB": round(_resident_mib(os.getpid()) - memory, 1),
        "bytes an hour": round(float(size["bytes"]) / size["hours"], 1),
    }


async def _read(pool: Pool, first: datetime) -> dict[str, Any]:
    await _watch(pool, MANY_ENDPOINTS, EVERY)
    await pool.execute(
        "insert into service_status_row (timestamp, endpoint_key, status, observer, attempts)"
        " select now() - age * interval '1 minute' + key * interval '1 microsecond', key, 'UP', 1, 1"
        " from generate_series(10, 1, -1) age, service_endpoint"
    )
    await pool.execute("vacuum analyze service_status_row")
    newest = [await _timed(lambda: statuses.history(pool, "e7", limit=100, before=None)) for _ in range(50)]
    middle = first + timedelta(days=15, hours=1)
    old = [await _timed(lambda: statuses.history(pool, "e7", limit=100, before=middle)) for _ in range(50)]
    summary = [await _timed(lambda: statuses.last_statuses(pool)) for _ in range(10)]
    return {
        "newest 100 of one endpoint, ms, median": round(median(newest) * 1000, 2),
        "100 in the middle of the month, ms, median": round(median(old) * 1000, 2),
        "last status of 10,000 endpoints from Postgres, ms, median": round(median(summary) * 1000, 2),
    }


async def _timed(work: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def _server_cpu() -> float:
    """CPU seconds of the children of this process: Postgres is the only one."""
    own = os.times()
    return _tree_cpu(os.getpid()) - own.user - own.system


if __name__ == "__main__":
    main()
