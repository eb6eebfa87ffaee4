"""How Postgres answers what is asked often: by an index, and without looking at days that are not asked about."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from servmon.store import alerts as stored_alerts
from servmon.store import endpoints, outages, retention, rollup_worker, rollups, state_changes, statuses, uptime
from servmon.store import notifications as stored_notifications
from servmon.store.partitions import ensure_partitions
from servmon.store.rollups import Period
from tests.store.seeds import endpoint

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 12
NUMBER = 300
MIDDLE = FIRST + timedelta(days=6, hours=7)

_RESULTS = """
insert into service_status_row (timestamp, endpoint_key, status, response_time, observer, attempts)
select $1::timestamptz + n * interval '1 hour' + key * interval '1 second', key, 'UP', 1, 1, 1
from generate_series(0, $2::int * 24 - 1) n, service_endpoint
"""

_HOURS = """
insert into service_status_hourly (start, endpoint_key, up, degraded, down, unknown)
select $1::timestamptz + n * interval '1 hour', key, 1, 0, 0, 0
from generate_series(0, $2::int * 24 - 1) n, service_endpoint
"""

_DAYS = """
insert into service_status_daily (start, endpoint_key, up, degraded, down, unknown)
select date_trunc('day', start, 'UTC'), endpoint_key, sum(up), 0, 0, 0 from service_status_hourly group by 1, 2
"""

_CHANGES = """
insert into state_change (id, endpoint_id, old_state, new_state, reason, at, processed_at)
select gen_random_uuid(), id, 'up', 'down', 'tested', $1::timestamptz + n * interval '6 hours', now()
from generate_series(0, $2::int * 4 - 1) n, service_endpoint
"""

_OUTAGES = """
insert into service_outage (id, endpoint_id, severity, start_time, declared_at, resolved, resolved_at, evidence)
select gen_random_uuid(), id, 'MAJOR', t, t, true, t + interval '5 min',
    case when n % 10 = 0 then '{"verification": 1}'::jsonb else '{}' end
from generate_series(0, 39) n, service_endpoint, lateral (select $1::timestamptz + n * interval '6 hours' as t) at
"""

_DECISIONS = """
insert into alert_decision (news_id, kind, stage, reason, at)
select gen_random_uuid(), 'down', 's', 'r', $1::timestamptz + n * interval '1 min' from generate_series(1, 5000) n
"""

_MESSAGES = """
insert into notification (id, alert_id, channel, kind, severity, subject, body, created_at, sent_at)
select gen_random_uuid(), gen_random_uuid(), 'noc', 'down', 'MAJOR', 's', 'b', t, t
from generate_series(1, 5000) n, lateral (select $1::timestamptz + n * interval '1 min' as t) at
"""

_EVENTS = """
insert into event (id, kind, severity, message, at, processed_at)
select gen_random_uuid(), 'k', 'MAJOR', 'm', t, t
from generate_series(1, 5000) n, lateral (select $1::timestamptz + n * interval '1 min' as t) at
"""


_AUDIT = """
insert into audit (at, who, action, target)
select $1::timestamptz + n * interval '1 min', 'admin', 'create', 'web' from generate_series(1, 5000) n
"""


async def fill(db) -> None:
    await endpoints.provision(db, "api", [endpoint(f"e{number}") for number in range(NUMBER)])
    await ensure_partitions(db, [(FIRST + timedelta(days=day)).date() for day in range(DAYS)])
    for month in ("2026-02-01", "2026-03-01", "2026-04-01"):
        await db.execute("select ensure_hourly_partition($1::text::date)", month)
    for statement in (_RESULTS, _HOURS, _CHANGES):
        await db.execute(statement, FIRST, DAYS)
    for statement in (_OUTAGES, _DECISIONS, _MESSAGES, _EVENTS, _AUDIT):
        await db.execute(statement, FIRST)
    await db.execute(_DAYS)
    await db.execute("vacuum analyze")


async def plan_of(db, query: str, *arguments: Any) -> dict[str, Any]:
    """How the query was carried out; what it changed is taken back."""
    async with db.acquire() as connection:
        change = connection.transaction()
        await change.start()
        (row,) = await connection.fetch(f"explain (analyze, timing off, format json) {query}", *arguments)
        await change.rollback()
    (found,) = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return found["Plan"]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def tables_read(plan: dict[str, Any]) -> dict[str, set[str]]:
    """By table, how it was read; what was planned and never begun is left out."""
    found: dict[str, set[str]] = {}
    for node in nodes(plan):
        if "Relation Name" in node and node["Actual Loops"]:
            found.setdefault(node["Relation Name"], set()).add(node["Node Type"])
    return found


LARGE = re.compile("service_status_|state_change|service_outage|alert_decision|notification|event|audit")


def check(plan: dict[str, Any], *, days: set[str] = frozenset(), scanned: set[str] = frozenset()) -> None:
    """Nothing large was read whole but ``scanned``, and of the days only ``days``, which all were."""
    read = tables_read(plan)
    whole = {name for name, how in read.items() if LARGE.match(name) and "Seq Scan" in how}
    assert whole <= scanned, read
    looked_at = {name.removeprefix("service_status_row_") for name in read if name.startswith("service_status_row_")}
    assert looked_at == days, read


def day(number: int) -> str:
    return f"{FIRST + timedelta(days=number):%Y%m%d}"


@pytest.fixture
async def filled(db):
    await fill(db)
    return db


async def test_histories_read_the_days_they_are_about(filled):
    newest = await plan_of(filled, statuses._HISTORY, "e7", None, None, None, 20)
    check(newest, days={day(DAYS - 1)})
    middle = await plan_of(filled, statuses._HISTORY, "e7", None, MIDDLE, MIDDLE + timedelta(days=1), 1000)
    check(middle, days={day(6), day(7)})
    page = await plan_of(filled, statuses._HISTORY, "e7", MIDDLE, MIDDLE - timedelta(days=2), None, 1000)
    check(page, days={day(4), day(5), day(6)})


async def test_hours_and_days_are_found_by_their_endpoint(filled):
    end = FIRST + timedelta(days=31)
    for period, table in ((Period.HOUR, "service_status_hourly_202603"), (Period.DAY, "service_status_daily")):
        for query in (rollups._STORED_OF[period], rollups._LAST_OF[period]):
            arguments = ("e7", FIRST, end, 100) if "limit" in query else ("e7", FIRST)
            plan = await plan_of(filled, query, *arguments)
            check(plan)
            assert table in tables_read(plan)
            assert "service_status_hourly_202602" not in tables_read(plan)
    fresh = await plan_of(filled, rollups._FRESH, "e7", MIDDLE, MIDDLE + timedelta(hours=6), "hour")
    check(fresh, days={day(6)})


async def test_summing_up_reads_one_day_by_its_index(filled):
    keys = [row["key"] for row in await filled.fetch("select key from service_endpoint limit 100")]
    start = MIDDLE.replace(hour=3)
    hour = await plan_of(filled, rollup_worker._SUM_UP_PERIOD[Period.HOUR], start, start + timedelta(hours=1), keys)
    check(hour, days={day(6)})


async def test_uptime_reads_the_days_it_is_about(filled):
    until = MIDDLE + timedelta(days=2)
    for query in (uptime._GAPS, uptime._COUNTS):
        arguments = ("e7", MIDDLE, until) if query is uptime._COUNTS else ("e7", MIDDLE, until, timedelta(minutes=3))
        check(await plan_of(filled, query, *arguments), days={day(6), day(7), day(8)})
    check(await plan_of(filled, uptime._OUTAGES, "e7", MIDDLE, until))
    recorded = await plan_of(filled, uptime._RECORDED_GAPS, "e7", MIDDLE, until)
    check(recorded, scanned={"event"})  # isolations of all endpoints: there are few


async def test_what_is_owed_and_open_is_found_among_what_is_over(filled):
    check(await plan_of(filled, stored_alerts._CHANGES, 0, 2000))
    check(await plan_of(filled, stored_alerts._EVENTS, 2000))
    check(await plan_of(filled, stored_notifications._OWED))
    check(await plan_of(filled, outages._OPEN_OUTAGES))
    check(await plan_of(filled, state_changes._LAST_CHANGES))


async def test_what_grew_old_is_found_by_its_age(filled):
    for statement in (
        retention._STATE_CHANGES,
        retention._CHANGES_EVIDENCE,
        retention._OUTAGES_EVIDENCE,
        retention._MESSAGES,
        retention._ALERTS,
        retention._DECISIONS,
        retention._EVENTS,
        retention._AUDIT,
    ):
        check(await plan_of(filled, statement, FIRST + timedelta(hours=7), 20))
        check(await plan_of(filled, statement, FIRST - timedelta(days=1), retention.ROWS_AT_ONCE))


async def test_how_some_stand_is_one_look_by_an_index_for_each(filled):
    ids = [f"e{number}" for number in range(20)]
    check(await plan_of(filled, statuses._STANDINGS, ids), days={day(number) for number in range(DAYS - 5, DAYS)})
    check(await plan_of(filled, state_changes._LAST_OF, ids))
    check(await plan_of(filled, outages._OPEN_AT, ids))


async def test_the_last_status_of_all_is_one_look_into_the_newest_day_each(filled):
    check(await plan_of(filled, statuses._LAST_STATUSES), days={day(DAYS - 1)})
