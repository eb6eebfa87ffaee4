"""Stored check results, read back."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

import pytest

from servmon.clock import now
from servmon.model import CheckSource, FailureKind, Phases, Status
from servmon.store import endpoints, statuses
from tests.store.seeds import endpoint, result, store

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def watched(db):
    return await endpoints.insert(db, endpoint("a"))


async def test_a_result_comes_back_as_it_was_found(db, database, watched):
    found = result(
        watched,
        Status.DEGRADED,
        response_time=1234.567,
        attempts=3,
        failure_kind=FailureKind.LOSS,
        error_message="2 of 5 packets lost, käse\0",
        phases=Phases(dns_ms=0.1234, connect_ms=1.5, first_byte_ms=20.25, transfer_ms=0.0),
        details={"address": "192.0.2.1", "banner": "nul \0 and \\u0000", "half": "\ud800"},
    )
    await store(database, found)
    (row,) = await statuses.history(db, "a", limit=10, before=None)
    assert (row.status, row.response_time, row.attempts) == (Status.DEGRADED, 1234.567, 3)
    assert (row.failure_kind, row.error_message) == (FailureKind.LOSS, "2 of 5 packets lost, käse\ufffd")
    assert (row.timestamp, row.phases) == (found.timestamp, found.phases)
    assert row.details == {"address": "192.0.2.1", "banner": "nul \ufffd and \\u0000", "half": "?"}
    assert (row.source, row.observer, row.elasticsearch_synced) == (CheckSource.SCHEDULE, "main", False)


async def test_history_is_newest_first_within_its_bounds(db, database, watched):
    other = await endpoints.insert(db, endpoint("b"))
    start = now() - 10 * MINUTE
    await store(database, *(result(watched, timestamp=start + number * MINUTE) for number in range(10)))
    await store(database, result(other))

    async def minutes(**bounds):
        rows = await statuses.history(db, "a", **{"limit": 100, "before": None} | bounds)
        return [round((row.timestamp - start) / MINUTE) for row in rows]

    assert await minutes() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert await minutes(limit=3) == [9, 8, 7]
    assert await minutes(limit=3, before=start + 7 * MINUTE) == [6, 5, 4]
    assert await minutes(since=start + 3 * MINUTE, until=start + 6 * MINUTE) == [5, 4, 3]
    assert await statuses.history(db, "nobody", limit=10, before=None) == []


async def test_history_reaches_as_far_back_as_it_has_to(db, database, watched):
    """It is looked for in the last days first; what is rare lies further back."""
    start = now() - timedelta(days=9)
    at = [start + number * timedelta(hours=13) for number in range(16)]
    await store(database, *(result(watched, timestamp=one) for one in at))
    for limit in (1, 3, 4, 5, 16, 20):
        for before in (None, at[15], at[7], at[1], at[0]):
            for since in (None, at[0], at[5], at[14]):
                found = await statuses.history(db, "a", limit=limit, before=before, since=since)
                wanted = [one for one in at if (before is None or one < before) and (since is None or one >= since)]
                assert [row.timestamp for row in found] == wanted[::-1][:limit]


async def test_a_manual_check_is_the_latest_and_not_rebuilt_from(db, database, watched):
    assert await statuses.latest(db, "a") is None
    await store(database, result(watched, Status.UP, now() - MINUTE))
    by_hand = result(watched, Status.DOWN, source=CheckSource.MANUAL, details={"address": "192.0.2.1"})
    row_id = await statuses.insert_manual(db, by_hand, 1)
    latest = await statuses.latest(db, "a")
    assert (latest.id, latest.status, latest.source) == (row_id, Status.DOWN, CheckSource.MANUAL)
    assert latest.details == {"address": "192.0.2.1"}
    assert [one.status for one in await statuses.recent_results(db)] == [Status.UP]
    assert await statuses.last_statuses(db) == {"a": Status.DOWN}


async def test_a_manual_check_makes_the_day_it_needs(db, watched):
    await statuses.insert_manual(db, result(watched, timestamp=now() - timedelta(days=400)), 1)
    assert len(await statuses.history(db, "a", limit=10, before=None)) == 1


async def test_a_calm_endpoint_is_rebuilt_from_its_newest_result(db, database, watched):
    at = now()
    await store(database, *(result(watched, timestamp=at - timedelta(seconds=age)) for age in [600, 200, 110, 50, 5]))
    (recent,) = await statuses.recent_results(db)
    assert recent.timestamp == at - timedelta(seconds=5)
    assert (recent.endpoint_id, recent.endpoint_key) == ("a", watched.key)


async def test_one_whose_packets_are_counted_is_rebuilt_from_its_last_five_results(db, database, watched):
    at = now()
    ages = [600, 200, 170, 110, 50, 5]
    packets = {"packets_sent": 5, "packets_received": 5}
    await store(database, *(result(watched, timestamp=at - timedelta(seconds=age), details=packets) for age in ages))
    recent = await statuses.recent_results(db)
    assert [one.timestamp for one in recent] == [at - timedelta(seconds=age) for age in ages[1:]]


async def test_a_troubled_endpoint_is_rebuilt_from_its_last_twenty_intervals(db, database, watched):
    at = now()
    ages = [1300, 1100, 900, 600, 200, 170, 110, 50]
    await store(database, *(result(watched, timestamp=at - timedelta(seconds=age)) for age in ages))
    await store(database, result(watched, timestamp=at - timedelta(seconds=5), attempts=2))
    recent = await statuses.recent_results(db)
    assert [one.timestamp for one in recent] == [at - timedelta(seconds=age) for age in [*ages[1:], 5]]


async def test_packets_are_rebuilt_from_and_other_details_are_not(db, database, watched):
    at = now()
    packets = {"packets_sent": 5, "packets_received": 4}
    await store(database, result(watched, timestamp=at - timedelta(seconds=9), details=packets))
    await store(database, result(watched, timestamp=at - timedelta(seconds=5), details={"address": "192.0.2.1"}))
    assert [one.details for one in await statuses.recent_results(db)] == [packets, None]


async def test_after_a_long_stop_the_newest_result_is_still_known(db, database, watched):
    gone = await endpoints.insert(db, endpoint("gone"))
    off = await endpoints.insert(db, endpoint("off", is_active=False))
    at = now()
    await store(
        database,
        result(watched, Status.UP, at - timedelta(hours=5)),
        result(watched, Status.DOWN, at - timedelta(hours=4)),
        result(gone, Status.UP, at - timedelta(hours=30)),
        result(off, Status.UP, at),
    )
    assert [(one.endpoint_id, one.status) for one in await statuses.recent_results(db)] == [("a", Status.DOWN)]
    assert await statuses.last_statuses(db) == {"a": Status.DOWN, "gone": Status.UP}


async def test_an_endpoint_without_results_counts_as_unknown(db, watched):
    assert await statuses.last_statuses(db) == {"a": Status.UNKNOWN}


@pytest.mark.alone
async def test_thousands_of_endpoints_are_rebuilt_in_a_moment(db):
    await endpoints.provision(
        db, "api", [endpoint(f"endpoint-{number}", check_interval=10) for number in range(10_000)]
    )
    await db.execute(
        "select ensure_status_partition((now() at time zone 'UTC')::date - n) from generate_series(0, 29) n"
    )
    await db.execute(
        "insert into service_status_row (timestamp, endpoint_key, status, observer, attempts)"
        " select now() - age * interval '10 seconds', key, 'UP', 1, 1 from generate_series(20, 0, -1) age,"
        " service_endpoint"
    )
    started = time.perf_counter()
    recent = await statuses.recent_results(db)
    rebuilt_after = time.perf_counter() - started
    assert len(recent) == 10_000
    started = time.perf_counter()
    assert set((await statuses.last_statuses(db)).values()) == {Status.UP}
    assert rebuilt_after < 6  # measured: about a second on an idle machine
    assert time.perf_counter() - started < 3


@pytest.mark.alone
async def test_the_newest_hundred_come_at_once(db, database, watched):
    await db.execute(
        "select ensure_status_partition((now() at time zone 'UTC')::date - n) from generate_series(0, 29) n"
    )
    await store(database, *(result(watched, timestamp=now() - timedelta(seconds=age)) for age in range(300)))
    times = []
    async with db.acquire() as connection:
        for _ in range(20):
            started = time.perf_counter()
            assert len(await statuses.history(connection, "a", limit=100, before=None)) == 100
            times.append(time.perf_counter() - started)
    assert min(times) < 0.01  # measured: about 2 ms, most of it Python


async def test_since_when_an_endpoint_fails_is_its_first_failure_after_the_last_good_check(db, database, watched):
    begin = now() - 60 * MINUTE
    words = {".": Status.UP, "x": Status.DOWN, "?": Status.UNKNOWN, "d": Status.DEGRADED}
    story = [replace(result(watched, words[char]), timestamp=begin + n * MINUTE) for n, char in enumerate("xx.xd?xx?x")]
    by_hand = replace(result(watched, Status.UP), timestamp=begin + 8.5 * MINUTE, source=CheckSource.MANUAL)
    await store(database, *story)
    await statuses.insert_manual(db, by_hand, observer=1)
    assert await statuses.failing_since(db, {"a": begin, "nobody": begin}, 3) == {"a": begin + 6 * MINUTE}
    assert await statuses.failing_since(db, {"a": begin + 7 * MINUTE}, 3) == {"a": begin + 7 * MINUTE}
    assert await statuses.failing_since(db, {}, 3) == {}
    after_a_gap = [replace(result(watched, Status.DOWN), timestamp=begin + n * MINUTE) for n in (20, 21, 24)]
    await store(database, *after_a_gap)
    assert await statuses.failing_since(db, {"a": begin}, 3) == {"a": begin + 20 * MINUTE}
