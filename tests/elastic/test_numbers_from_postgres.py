"""Each panel and rule, over what the sync itself brought from a real Postgres, gives what SQL says of the same rows."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from servmon.elastic.kibana.rules import Pace, rules
from servmon.model import AlertThresholds, CheckSource, Severity, Status
from tests.elastic.as_kibana_asks import BUCKET, fires, milliseconds, panel_rows
from tests.elastic.test_panels import IN_ORDER, LENSES
from tests.store.seeds import result, store

SECONDS = int(BUCKET.total_seconds())
CHECKS = "from service_status c join service_endpoint e on e.id = c.endpoint_id where c.source = 'schedule'"
CHECKS += " and c.timestamp between $1 and $2"
SEEN = "from service_outage o join service_endpoint e on e.id = o.endpoint_id where"
SEEN += " ((not o.resolved and $2::timestamptz is not null) or o.resolved_at >= $1)"
# The columns are called as those of the panel.
SQL = {
    "servmon-status-overview": f"select c.status::text as status, count(*) as checks {CHECKS} group by 1",
    "servmon-active-outages": f"select count(*) as outages {SEEN} and not o.resolved",
    "servmon-response-time": f"""
        select e.name as service, to_timestamp(floor(extract(epoch from c.timestamp) / {SECONDS}) * {SECONDS}) as time,
               avg(c.response_time) as "response-time" {CHECKS} group by 1, 2""",
    "servmon-status-history": f"""
        select c.status::text as status,
               to_timestamp(floor(extract(epoch from c.timestamp) / {SECONDS}) * {SECONDS}) as time,
               count(*) as checks {CHECKS} group by 1, 2""",
    "servmon-recent-outages": f"""
        select o.id::text as outage, o.start_time as started, e.name as service, o.severity::text as severity,
               o.resolved, o.resolved_at as ended, o.description {SEEN} order by o.start_time desc limit 20""",
    "servmon-outages-by-service": f"""
        select e.name as service, count(*) as outages {SEEN} group by 1 order by 2 desc, 1 limit 10""",
    "servmon-outages-by-severity": f"""
        select o.severity::text as severity,
               to_timestamp(floor(extract(epoch from o.start_time) / {SECONDS}) * {SECONDS}) as started,
               count(*) as outages {SEEN} group by 1, 2""",
    "servmon-maintenance-windows": """
        select id::text as window, start_time as begins, end_time as ends, description, mode::text as mode,
               rrule as recurs, created_by from maintenance_window
        where $1::timestamptz < $2::timestamptz order by start_time desc limit 20""",
}
PACE = Pace(refresh_interval=300, sync_interval=300, check_interval=60)
# Chosen so that each tells some of the services from the others.
THRESHOLDS = AlertThresholds(response_time_ms=450, multiple_services=2, long_outage_after=86_400)
RULES = {rule.key: rule for rule in rules(THRESHOLDS, PACE)}
# What each rule fires for at the moment $1.
OPEN = "from service_outage where not resolved and $1::timestamptz is not null"
FIRING = {
    "service-down": f"select endpoint_id {OPEN} and caused_by is null",
    "response-time": f"""
        select endpoint_id from service_status where source = 'schedule'
        and timestamp between $1::timestamptz - interval '{PACE.checks()} seconds' and $1
        group by 1 having avg(response_time) > {THRESHOLDS.response_time_ms}""",
    "multiple-services-down": f"select 'all' {OPEN} having count(*) >= {THRESHOLDS.multiple_services}",
    "active-outages": f"select 'all' {OPEN} having count(*) > 0",
    "long-outage": f"""
        select endpoint_id {OPEN} and caused_by is null
        and start_time <= $1 - interval '{THRESHOLDS.long_outage_after} seconds'""",
}


def test_every_panel_and_rule_has_its_sql():
    assert SQL.keys() == LENSES.keys()
    assert FIRING.keys() == RULES.keys()


@pytest.fixture
async def filled(mirror):
    """A mirror that has followed three services over some hours."""
    chance, until = random.Random(4), datetime.fromtimestamp(mirror.clock.wall(), UTC)
    watched = await mirror.watch("web", "dns", "mail")
    checks = []
    for number in range(300):
        status = chance.choices([Status.UP, Status.DEGRADED, Status.DOWN], [8, 1, 1])[0]
        checks.append(
            result(
                watched[number % 3],
                status,
                until - timedelta(minutes=number, seconds=1),
                response_time=None if status is Status.DOWN else chance.uniform(1, 900),
                source=chance.choices([CheckSource.SCHEDULE, CheckSource.MANUAL], [9, 1])[0],
            )
        )
    await store(mirror.database, *checks)
    for number in range(12):
        start = until - timedelta(days=3) if number == 0 else until - timedelta(minutes=30 * number)
        ended = {"resolved": True, "resolved_at": start + timedelta(minutes=9)} if number > 1 else {}
        outage = await mirror.open_outage(watched[number % 2 if number < 2 else 2], start_time=start, **ended)
        severity = chance.choice(list(Severity))
        await mirror.db.execute(
            "update service_outage set severity = $2::text::severity_type where id = $1::text::uuid",
            outage.id,
            severity,
        )
    await mirror.plan("web", "dns")
    await sync(mirror, 400)
    return mirror


async def sync(mirror, seconds: float) -> None:
    await mirror.pass_time(seconds)
    await mirror.is_whole()
    for index in await mirror.proxy.cluster.indices():
        await mirror.proxy.cluster.ask("POST", f"/{index}/_refresh")


async def test_every_panel_gives_what_postgres_says(filled):
    until = datetime.fromtimestamp(filled.clock.wall(), UTC)
    for id_, sql in SQL.items():
        for span in (timedelta(days=1), timedelta(minutes=15)):
            expected = [plain(row) for row in await filled.db.fetch(sql, until - span, until)]
            found = await panel_rows(filled.proxy.cluster, LENSES[id_], until - span, until)
            if id_ not in IN_ORDER:
                found, expected = sorted(found, key=_key), sorted(expected, key=_key)
            assert found == expected, f"{id_} over {span}"
            assert expected, f"{id_} over {span} shows nothing, which proves nothing"


async def test_every_rule_fires_for_what_postgres_says(filled):
    until = datetime.fromtimestamp(filled.clock.wall(), UTC)
    for key, sql in FIRING.items():
        expected = {row[0] for row in await filled.db.fetch(sql, until)}
        assert await fires(filled.proxy.cluster, RULES[key], until) == expected, key
        assert expected, f"{key} fires for nothing, which proves nothing"
        assert len(expected) < 3, f"{key} fires for everything, which proves little"
    await filled.db.execute(
        "update service_outage set resolved = true, resolved_at = $1, revision = revision + 1 where not resolved", until
    )
    await sync(filled, 20)
    assert await filled.db.fetchval("select count(*) from service_outage where not resolved") == 0
    for key in FIRING.keys() - {"response-time"}:
        assert await fires(filled.proxy.cluster, RULES[key], until + timedelta(seconds=20)) == set(), key


async def test_what_has_been_open_for_three_days_is_in_the_last_15_minutes(filled):
    until = datetime.fromtimestamp(filled.clock.wall(), UTC)
    rows = await panel_rows(
        filled.proxy.cluster, LENSES["servmon-recent-outages"], until - timedelta(minutes=15), until
    )
    assert [row["service"] for row in rows if not row["resolved"]] == ["The dns", "The web"]
    assert rows[-1]["started"] < milliseconds(until - timedelta(days=2))


def plain(row: Any) -> dict[str, Any]:
    """A row of Postgres as a panel gives it: times in milliseconds, figures to what a float holds."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return milliseconds(value)
    return pytest.approx(float(value), rel=1e-5) if isinstance(value, (float, Decimal)) else value


def _key(row: dict[str, Any]) -> list[str]:
    return [str(value) for name, value in row.items() if name != "response-time"]
