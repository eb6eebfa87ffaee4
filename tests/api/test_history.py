"""``/history`` over any period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from servmon.clock import rfc3339
from servmon.store import endpoints
from servmon.store.rollup_worker import sum_up_due
from tests.store.seeds import endpoint, result, store
from tests.store.test_partitions import StandingClock

HOUR = timedelta(hours=1)
PRESENT = datetime(2026, 11, 25, 20, 30, tzinfo=UTC)


@pytest.fixture
async def hours(connection, database):
    """Ten hours with three checks each, up to this one, none summed up yet; gives the first one's beginning."""
    connection.clock = StandingClock(PRESENT)
    watched = await endpoints.insert(connection.pool, endpoint("web"))
    first = PRESENT.replace(minute=0) - 9 * HOUR
    await store(
        database,
        *(
            result(
                watched, timestamp=first + hour * HOUR + number * timedelta(milliseconds=1), response_time=number + 1.5
            )
            for hour in range(10)
            for number in range(3)
        ),
    )
    return first


async def test_hours_and_days_are_told_with_their_figures(api, hours):
    found = (await api.get("/services/web/history?resolution=hour&limit=2")).json
    assert found["resolution"] == "hour"
    newest = found["items"][0]
    assert newest["start"] == rfc3339(hours + 9 * HOUR)
    assert newest["checks"] == {"up": 3, "degraded": 0, "down": 0, "unknown": 0}
    assert newest["response_time"] == {"min": 1.5, "avg": 2.5, "p50": 2.5, "p95": 3.4, "p99": 3.48, "max": 3.5}
    assert newest["loss_percent"] is None
    days = (await api.get("/services/web/history?resolution=day")).json
    assert sum(day["checks"]["up"] for day in days["items"]) == 30
    assert (await api.get("/services/nobody/history?resolution=day")).status == 404


@pytest.mark.parametrize(("days", "expected"), [(1, "raw"), (30, "hour"), (365, "day")])
async def test_the_period_chooses(api, hours, days, expected):
    since = (PRESENT - timedelta(days=days)).strftime("%Y-%m-%d")
    found = (await api.get(f"/services/web/history?since={since}")).json
    assert found["resolution"] == expected
    assert len(found["items"]) == {"raw": 30, "hour": 7, "day": 1}[expected]


async def test_what_is_summed_up_reaches_further_back_than_results_do(api, hours, connection):
    await sum_up_due(connection.pool, PRESENT, settle=timedelta(0))
    await connection.pool.execute("truncate service_status_row")
    found = (await api.get("/services/web/history?resolution=hour")).json["items"]
    assert [hour["checks"]["up"] for hour in found] == [3] * 9
    assert found[-1]["start"] == rfc3339(hours)


@pytest.mark.parametrize(("query", "number"), [("resolution=raw", 30), ("resolution=hour", 7)])
async def test_every_entry_stands_on_one_page(api, hours, query, number):
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await api.get(f"/services/web/history?{query}&limit=4{cursor}")).json
        seen += [item.get("start") or item["timestamp"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == number
    assert seen == sorted(seen, reverse=True)


async def test_the_plain_call_is_the_seeds(api, hours):
    found = (await api.get("/services/web/history?limit=1")).json
    assert set(found) == {"items", "next_cursor"}
    assert found["items"][0]["timestamp"]
    assert (await api.get(f"/services/web/history?since=2026-01-01&cursor={found['next_cursor']}")).status == 422


async def test_bad_periods_are_named(api, hours):
    refused = await api.get("/services/web/history?since=x&resolution=week&limit=0&month=10")
    assert (refused.status, set(refused.wrong_fields)) == (422, {"since", "resolution", "limit", "month"})
