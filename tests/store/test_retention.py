"""What is kept for how long besides single results, and what never goes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest

from servmon.model import State
from servmon.store import endpoints, retention
from servmon.store.partitions import HOURS, days_present, ensure_partitions
from servmon.store.retention import keep_once
from servmon.store.rollup_worker import sum_up_due
from servmon.store.settings import CleanupSection
from tests.store.seeds import change, declared, endpoint, insert_outage, outage, resolved, result, store
from tests.store.test_partitions import StandingClock

START = datetime(2030, 6, 15, 12, tzinfo=UTC)
DEFAULTS = CleanupSection()


@pytest.fixture
def clock():
    return StandingClock(START)


def ago(days: float) -> datetime:
    return START - timedelta(days=days)


async def test_hours_go_by_the_month_and_only_when_all_of_it_is_too_old(db, clock):
    for month in (date(2029, 3, 1), date(2029, 4, 1), date(2029, 5, 1), date(2029, 12, 1)):
        await db.execute("select ensure_hourly_partition($1)", month)
    await keep_once(db, DEFAULTS, clock)  # 400 days before is the 11th of May 2029
    assert await days_present(db, HOURS) == [date(2029, 5, 1), date(2029, 12, 1)]
    assert await db.fetchval("select dropped_before from retention_setting where what = 'hours'") == date(2029, 5, 1)


async def test_the_last_change_of_an_endpoint_and_those_of_an_open_outage_stay(db, database, clock):
    for name in "abc":
        await endpoints.insert(db, endpoint(name))
    still_open = outage("b", start_time=ago(1500))
    await store(
        database,
        change("a", State.UP, State.DOWN, ago(1200)),
        change("a", State.DOWN, State.UP, ago(1150)),
        change("a", State.UP, State.DOWN, ago(10)),
        (None, [declared(still_open)]),
        change("b", State.DOWN, State.DOWN, ago(1)),
        change("c", State.UP, State.DOWN, ago(3000)),
        change("c", State.DOWN, State.UP, ago(2000)),
    )
    await keep_once(db, DEFAULTS, clock)
    assert await db.fetchval("select count(*) from state_change") == 7  # people are still owed the news
    await db.execute("update state_change set processed_at = at")
    await keep_once(db, DEFAULTS, clock)
    kept = await db.fetch("select endpoint_id, at from state_change order by at")
    assert [(row["endpoint_id"], row["at"]) for row in kept] == [
        ("c", ago(2000)),
        ("b", still_open.declared_at),
        ("a", ago(10)),
        ("b", ago(1)),
    ]


async def test_evidence_is_thinned_out_and_what_is_computed_with_stays(db, database, clock):
    await endpoints.insert(db, endpoint("a"))
    evidence = {"verification": {"method": "look"}, "opened_by": "degraded", "run": 3}
    opened = outage("a", start_time=ago(100), evidence=evidence)
    await store(database, (None, [declared(opened)]), (None, [resolved(opened)]))
    await db.execute("update state_change set processed_at = at, evidence = $1", {**evidence, "flapping": True})
    await insert_outage(db, await endpoints.insert(db, endpoint("b")), start_time=ago(100))
    await db.execute("update service_outage set evidence = $1 where endpoint_id = 'b'", evidence)
    await keep_once(db, CleanupSection(evidence_days=99), clock)
    assert [row["evidence"] for row in await db.fetch("select evidence from state_change")] == [
        {"opened_by": "degraded", "flapping": True}
    ] * 2
    found = dict(await db.fetch("select endpoint_id, evidence from service_outage"))
    assert found == {"a": {"opened_by": "degraded"}, "b": evidence}  # that of b is not over


async def test_messages_alerts_decisions_silences_and_events_each_have_their_time(db, clock):
    for days in (91, 89):
        for column in ("sent_at", "given_up_at", None):
            ended = f", {column}" if column else ""
            await db.execute(
                f"insert into notification (id, alert_id, channel, kind, severity, subject, body, created_at{ended})"
                f" values ($1, $1, 'noc', 'down', 'MAJOR', 's', 'b', $2{', $2' if column else ''})",
                uuid4(),
                ago(days),
            )
    for days in (401, 399):
        for closed in (ago(days), None):
            await db.execute(
                "insert into alert (id, rule, title, severity, opened_at, told_at, channels, closed_at)"
                " values ($1, 'r', 't', 'MAJOR', $2, $2, '{}', $3)",
                uuid4(),
                ago(days),
                closed,
            )
        await db.execute(
            "insert into alert_decision (news_id, kind, stage, reason, at) values ($1, 'down', 's', 'r', $2)",
            uuid4(),
            ago(days),
        )
        await db.execute("insert into silence values ($1, '{}', 'r', $2, $3)", uuid4(), ago(days + 1), ago(days))
        for processed in (ago(days), None):
            await db.execute(
                "insert into event (id, kind, severity, message, at, processed_at)"
                " values ($1, 'k', 'MAJOR', 'm', $2, $3)",
                uuid4(),
                ago(days),
                processed,
            )
        await db.execute("insert into audit (at, who, action, target) values ($1, 'admin', 'create', 'web')", ago(days))
        await db.execute("insert into rejected (at, reason, body) values ($1, 'r', 'b')", ago(days))
    await db.execute("insert into alert_outage select id, $1, 'a', 'a', opened_at from alert", uuid4())
    await keep_once(db, DEFAULTS, clock)
    left = {
        table: await db.fetchval(f"select count(*) from {table}")
        for table in (
            "notification",
            "alert",
            "alert_outage",
            "alert_decision",
            "silence",
            "event",
            "audit",
            "rejected",
        )
    }
    # What is still owed, or still open, stays whatever its age.
    once = {"alert_decision": 1, "silence": 1, "audit": 1, "rejected": 1}
    assert left == {"notification": 4, "alert": 3, "alert_outage": 3, "event": 3, **once}


async def test_much_that_is_old_goes_in_small_steps(db, clock, monkeypatch):
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0)
    await db.execute(
        "insert into alert_decision (news_id, kind, stage, reason, at)"
        " select gen_random_uuid(), 'down', 's', 'r', $1 from generate_series(1, 45)",
        ago(500),
    )
    await keep_once(db, DEFAULTS, clock)
    assert await db.fetchval("select count(*) from alert_decision") == 0


async def test_every_kind_waits_24_hours_before_less_of_it_is_kept(db, clock, capsys):
    await db.execute(
        "insert into alert_decision (news_id, kind, stage, reason, at) values ($1, 'down', 's', 'r', $2)",
        uuid4(),
        ago(50),
    )
    await keep_once(db, DEFAULTS, clock)
    shorter = CleanupSection(alert_days=30)
    await keep_once(db, shorter, clock)
    assert "fewer days of alerts are to be kept" in capsys.readouterr().out
    assert await db.fetchval("select count(*) from alert_decision") == 1
    clock.at += timedelta(hours=24)
    await keep_once(db, shorter, clock)
    assert await db.fetchval("select count(*) from alert_decision") == 0


async def test_results_that_are_not_summed_up_stay_for_three_more_days(db, database, clock):
    watched = await endpoints.insert(db, endpoint("a"))
    at = ago(31.2)
    await store(database, result(watched, timestamp=at))
    await ensure_partitions(db, [(START - timedelta(days=40)).date()])
    await keep_once(db, DEFAULTS, clock)
    assert (await days_present(db))[0] == at.date()
    await sum_up_due(db, START, settle=timedelta(0))
    await keep_once(db, DEFAULTS, clock)
    assert at.date() not in await days_present(db)
    assert await db.fetchval("select up from service_status_daily") == 1
    await store(database, result(watched, timestamp=at + timedelta(minutes=1)))
    clock.at += timedelta(days=3)
    await keep_once(db, DEFAULTS, clock)
    assert at.date() not in await days_present(db)
