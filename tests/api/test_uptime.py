"""``/uptime`` against a sheet made by hand: a month in a time zone of half hours, to the second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from servmon.store import endpoints
from tests.store.seeds import endpoint, insert_outage

# October 2026 in India (+05:30) begins and ends at 18:30 UTC of the day before.
QUERY = "since=2026-10-01&until=2026-11-01&timezone=Asia/Kolkata"
MONTH = 31 * 86_400
FIRST, LAST = datetime(2026, 9, 30, 18, 0, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)

_CHECKED_EVERY_MINUTE = """
insert into service_status_row (timestamp, endpoint_key, status, observer, attempts)
select moment, $1, case
    when moment >= '2026-10-20 05:00Z' and moment < '2026-10-20 06:00Z' then 'UNKNOWN'
    when moment >= '2026-10-05 02:00Z' and moment <= '2026-10-05 02:10Z' then 'DOWN'
    when moment = '2026-10-07 12:00Z' then 'DOWN'
    else 'UP' end::service_status_type, 1, 1
from generate_series($2::timestamptz, $3::timestamptz, interval '1 minute') moment
where not (moment >= '2026-10-15 10:00Z' and moment < '2026-10-15 12:00Z')
"""


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}+00:00")


@pytest.fixture
async def month(connection):
    """A blip, outages over the month's ends, one into a window, one through isolation, and two hours without checks."""
    db = connection.pool
    web = await endpoints.insert(db, endpoint("web", check_interval=60))
    for number in range((LAST - FIRST).days + 2):
        await db.execute("select ensure_status_partition($1)", (FIRST + timedelta(days=number)).date())
    await db.execute(_CHECKED_EVERY_MINUTE, web.key, FIRST, LAST)
    for start, end in (
        ("09-30T18:00:00", "09-30T18:45:00"),  # 15 min of it in the month
        ("10-05T02:00:00", "10-05T02:10:30"),  # 630 s
        ("10-09T23:50:00", "10-10T00:20:00"),  # 10 min before the window
        ("10-20T04:30:00", "10-20T06:30:00"),  # half an hour before isolation, half an hour after it
        ("10-31T18:00:00", "10-31T19:00:00"),  # 30 min of it in the month
    ):
        moments = {"start_time": at(start), "resolved_at": at(end), "resolved": True}
        await insert_outage(db, web, **moments)


@pytest.mark.usefixtures("month")
async def test_a_month_equals_the_sheet_to_the_second(api):
    window = {
        "endpoint_ids": ["web"],
        "start_time": "2026-10-10T00:00:00Z",
        "end_time": "2026-10-10T04:00:00Z",
    }
    assert (await api.post("/maintenance", window)).status == 201
    found = (await api.get(f"/services/web/uptime?{QUERY}")).json
    outage = 900 + 630 + 600 + 2 * 1800 + 1800
    unobserved = (2 * 3600 - 120) + 3600  # the last check before the pause speaks for three intervals: 10:02 to 12:00
    up = MONTH - outage - unobserved - 4 * 3600
    assert (found["since"], found["until"]) == ("2026-09-30T18:30:00.000000Z", "2026-10-31T18:30:00.000000Z")
    assert found["timezone"] == "Asia/Kolkata"
    assert (found["outage_seconds"], found["unobserved_seconds"], found["maintenance_seconds"]) == (
        outage,
        unobserved,
        4 * 3600,
    )
    assert found["up_seconds"] == up
    assert found["availability"] == pytest.approx(100 * up / (up + outage), abs=1e-12)
    checks = 31 * 1440 - 120 - 60
    assert found["check_success"] == pytest.approx(100 * (checks - 12) / checks, abs=1e-12)
    assert [(span["kind"], span["start"][5:16]) for span in found["spans"]] == [
        ("outage", "09-30T18:30"),
        ("outage", "10-05T02:00"),
        ("outage", "10-09T23:50"),
        ("maintenance", "10-10T00:00"),
        ("unobserved", "10-15T10:02"),
        ("outage", "10-20T04:30"),
        ("unobserved", "10-20T05:00"),
        ("outage", "10-20T06:00"),
        ("outage", "10-31T18:00"),
    ]


@pytest.mark.usefixtures("month")
async def test_the_nights_of_a_recurring_window_are_taken_out_by_its_own_clock(api):
    """Mondays at four in Berlin, where summer time ends on the 25th; the third one is left out."""
    window = {
        "endpoint_ids": ["web"],
        "start_time": "2026-10-05T04:00:00+02:00",
        "end_time": "2026-10-05T06:00:00+02:00",
        "rrule": "FREQ=WEEKLY;BYDAY=MO",
        "timezone": "Europe/Berlin",
        "exdates": ["2026-10-19"],
    }
    assert (await api.post("/maintenance", window)).status == 201
    found = (await api.get(f"/services/web/uptime?{QUERY}")).json
    outage = 900 + 1800 + 2 * 1800 + 1800  # without the 630 s of the first Monday
    unobserved = (2 * 3600 - 120) + 3600
    planned = 3 * 7200
    assert [span["start"][5:16] for span in found["spans"] if span["kind"] == "maintenance"] == [
        "10-05T02:00",
        "10-12T02:00",
        "10-26T03:00",
    ]
    assert (found["outage_seconds"], found["unobserved_seconds"], found["maintenance_seconds"]) == (
        outage,
        unobserved,
        planned,
    )
    assert found["up_seconds"] == MONTH - outage - unobserved - planned


async def test_an_endpoint_that_was_never_checked_has_no_availability(api):
    assert (await api.post("/services/", {"id": "new", "url": "tcp://192.0.2.1:1"})).status == 201
    found = (await api.get("/services/new/uptime?since=2026-10-01&until=2026-10-02")).json
    assert (found["availability"], found["check_success"], found["up_seconds"]) == (None, None, 0)
    assert [span["kind"] for span in found["spans"]] == ["unobserved"]
    assert (await api.get("/services/unknown/uptime")).status == 404


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("since=yesterday", ["since"]),
        ("since=2026-10-02&until=2026-10-01", ["since"]),
        ("since=1900-01-01", ["since"]),
        ("since=2026-13-01&until=2026-10-01T00:00:00", ["since", "until"]),
        ("timezone=Mars/Olympus", ["timezone"]),
        ("timezone=../../etc/passwd", ["timezone"]),
        ("month=10", ["month"]),
        ("since=yesterday&timezone=Mars/Olympus&month=10", ["since", "timezone", "month"]),
    ],
)
async def test_a_wrong_period_is_named(api, query, fields):
    assert (await api.post("/services/", {"id": "new", "url": "tcp://192.0.2.1:1"})).status == 201
    reply = await api.get(f"/services/new/uptime?{query}")
    assert (reply.status, sorted(reply.wrong_fields)) == (422, sorted(fields))
