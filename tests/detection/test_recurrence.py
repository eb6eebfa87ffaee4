"""When recurring windows come: the rules of RFC 5545, over changes of the clock, within bounds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from hypothesis import assume, example, given
from hypothesis import strategies as st

from servmon.detection.recurrence import check, read_rule, recurrence

HOUR = timedelta(hours=1)
DAY = 24 * HOUR


def first(text: str, zone: str) -> datetime:
    """The UTC time at which clocks in ``zone`` show ``text``."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def begins(rule: str, start: str, zone: str, *, days: float = 40, since: float = 0, exdates: tuple = ()) -> list[str]:
    """When the occurrences of some days begin, in UTC."""
    at = first(start, zone) + timedelta(milliseconds=5)
    found = recurrence(rule, at, zone, exdates)
    check(found, HOUR)
    return [f"{one:%m-%d %H:%M}" for _, one in found.starts(at + since * DAY, at + (since + days) * DAY)]


# A window at 02:30 every night, over both nights in which clocks are changed.
NIGHTS = [
    # 02:30 does not exist: by the offset from before the gap it is 03:30 summer time.
    ("Europe/Berlin", "2026-03-28T02:30", ["03-28 01:30", "03-29 01:30", "03-30 00:30"]),
    # 02:30 comes twice: the first one counts.
    ("Europe/Berlin", "2026-10-24T02:30", ["10-24 00:30", "10-25 00:30", "10-26 01:30"]),
    ("America/New_York", "2026-03-07T02:30", ["03-07 07:30", "03-08 07:30", "03-09 06:30"]),
    # New York goes back from 02:00 to 01:00, so 01:30 comes twice.
    ("America/New_York", "2026-10-31T01:30", ["10-31 05:30", "11-01 05:30", "11-02 06:30"]),
    # Lord Howe Island changes by half an hour, and has summer when the others have winter.
    ("Australia/Lord_Howe", "2026-10-03T02:15", ["10-02 15:45", "10-03 15:45", "10-04 15:15"]),
    ("Australia/Lord_Howe", "2026-04-04T01:45", ["04-03 14:45", "04-04 14:45", "04-05 15:15"]),
]


@pytest.mark.parametrize(("zone", "start", "expected"), NIGHTS)
def test_no_night_is_left_out_because_clocks_are_changed_in_it(zone, start, expected):
    assert begins("FREQ=DAILY", start, zone, days=2.5) == expected


@pytest.mark.parametrize(
    ("rule", "start", "expected"),
    [
        ("FREQ=WEEKLY", "2026-11-29T02:00", ["11-29", "12-06", "12-13", "12-20", "12-27", "01-03"]),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=SU", "2026-11-29T02:00", ["11-29", "12-13", "12-27"]),
        ("FREQ=WEEKLY;BYDAY=TU,SU;COUNT=3", "2026-11-29T02:00", ["11-29", "12-01", "12-06"]),
        ("RRULE:FREQ=DAILY;INTERVAL=10", "2026-11-29T02:00", ["11-29", "12-09", "12-19", "12-29"]),
        ("freq=daily;until=20261201", "2026-11-29T02:00", ["11-29", "11-30", "12-01"]),
        ("FREQ=DAILY;UNTIL=20261201T010000Z", "2026-11-29T02:00", ["11-29", "11-30"]),
        ("FREQ=MONTHLY;BYDAY=-1SU", "2026-11-29T02:00", ["11-29", "12-27"]),
        ("FREQ=MONTHLY;BYDAY=2TU", "2026-12-08T02:00", ["12-08", "01-12"]),
        ("FREQ=MONTHLY;BYMONTHDAY=-1", "2026-11-30T02:00", ["11-30", "12-31"]),
        ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "2026-11-30T02:00", ["11-30", "12-31"]),
        ("FREQ=MONTHLY", "2026-12-31T02:00", ["12-31", "01-31"]),
        ("FREQ=YEARLY", "2026-11-29T02:00", ["11-29"]),
    ],
)
def test_rules_of_rfc_5545_say_the_days(rule, start, expected):
    assert [one[:5] for one in begins(rule, start, "UTC")] == expected


def test_an_excluded_day_is_left_out_and_counts_all_the_same():
    without = (date(2026, 11, 30),)
    found = begins("FREQ=DAILY;COUNT=3", "2026-11-29T02:00", "UTC", exdates=without)
    assert [one[:5] for one in found] == ["11-29", "12-01"]


def test_years_later_the_same_days_come_without_counting_from_the_first():
    late = begins("FREQ=WEEKLY;INTERVAL=3;BYDAY=SU", "2001-01-07T02:00", "UTC", since=9000, days=60)
    assert late == ["09-07 02:00", "09-28 02:00", "10-19 02:00"]


@pytest.mark.parametrize(
    ("rule", "start", "sentence"),
    [
        ("FREQ=HOURLY", "2026-11-29T02:00", "at most once a day"),
        ("FREQ=MINUTELY;INTERVAL=5", "2026-11-29T02:00", "at most once a day"),
        ("BYDAY=SU", "2026-11-29T02:00", "at most once a day"),
        ("every sunday", "2026-11-29T02:00", "such as FREQ=WEEKLY;BYDAY=SU"),
        ("", "2026-11-29T02:00", "such as FREQ=WEEKLY;BYDAY=SU"),
        ("FREQ=DAILY;FREQ=DAILY", "2026-11-29T02:00", "FREQ twice"),
        ("FREQ=DAILY;BYHOUR=1,2,3", "2026-11-29T02:00", "BYHOUR, which is not supported"),
        ("FREQ=DAILY;INTERVAL=0", "2026-11-29T02:00", "INTERVAL"),
        ("FREQ=DAILY;INTERVAL=99999", "2026-11-29T02:00", "INTERVAL"),
        ("FREQ=DAILY;COUNT=1000000", "2026-11-29T02:00", "COUNT"),
        ("FREQ=DAILY;COUNT=2;UNTIL=20270101", "2026-11-29T02:00", "only one of them"),
        ("FREQ=DAILY;UNTIL=tomorrow", "2026-11-29T02:00", "UNTIL"),
        ("FREQ=DAILY;UNTIL=20260101", "2026-11-29T02:00", "ends before start_time"),
        ("FREQ=WEEKLY;BYDAY=2SU", "2026-11-29T02:00", "need FREQ=MONTHLY"),
        ("FREQ=MONTHLY;BYDAY=XX", "2026-11-29T02:00", "BYDAY"),
        ("FREQ=MONTHLY;BYMONTHDAY=32", "2026-11-29T02:00", "BYMONTHDAY"),
        ("FREQ=WEEKLY;BYMONTHDAY=3", "2026-11-29T02:00", "does not allow"),
        ("FREQ=DAILY;BYSETPOS=1", "2026-11-29T02:00", "BYSETPOS"),
        ("FREQ=DAILY;WKST=XX", "2026-11-29T02:00", "WKST"),
        # None of these ever occurs; the first occurrence shows it.
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "2026-11-29T02:00", "2026-11-29 is a Sunday"),
        ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "2026-02-28T02:00", "FREQ=MONTHLY says the same"),
        ("FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30", "2026-02-28T02:00", "first occurrence"),
        ("FREQ=DAILY;INTERVAL=7;BYDAY=MO", "2026-11-29T02:00", "first occurrence"),
        ("FREQ=MONTHLY;BYMONTHDAY=1;BYDAY=5MO", "2027-02-01T02:00", "first occurrence"),
        ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=1", "2026-11-30T02:00", "first occurrence"),
        ("FREQ=DAILY", "1999-12-31T02:00", "2000-01-01"),
    ],
)
def test_a_rule_that_never_comes_or_comes_too_often_is_refused_with_a_sentence(rule, start, sentence):
    with pytest.raises(ValueError, match=sentence):
        begins(rule, start, "UTC")


def test_occurrences_that_overlap_are_refused():
    found = recurrence("FREQ=WEEKLY;BYDAY=SU,MO", datetime(2026, 11, 29, 2, tzinfo=UTC), "UTC")
    check(found, 24 * HOUR)
    with pytest.raises(ValueError, match="overlap"):
        check(found, 25 * HOUR)


def test_the_last_occurrence_is_known_where_there_is_one():
    def last(rule: str) -> datetime | None:
        return recurrence(rule, datetime(2026, 11, 29, 2, tzinfo=UTC), "UTC").last_start()

    assert last("FREQ=DAILY") is None
    assert last("FREQ=DAILY;COUNT=3") == datetime(2026, 12, 1, 2, tzinfo=UTC)
    assert last("FREQ=DAILY;UNTIL=20261130") == datetime(2026, 11, 30, 2, tzinfo=UTC)
    assert last("FREQ=YEARLY;COUNT=1000") is None


DAYS = st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"])


@st.composite
def rules(draw) -> str:
    frequency = draw(st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]))
    parts = [f"FREQ={frequency}", f"INTERVAL={draw(st.integers(1, 5))}", f"WKST={draw(DAYS)}"]
    if draw(st.booleans()):
        days = draw(st.lists(DAYS, min_size=1, max_size=3, unique=True))
        numbered = frequency in ("MONTHLY", "YEARLY") and draw(st.booleans())
        parts.append(
            "BYDAY=" + ",".join((draw(st.sampled_from(["1", "2", "-1"])) if numbered else "") + d for d in days)
        )
    elif frequency in ("MONTHLY", "YEARLY") and draw(st.booleans()):
        parts.append(f"BYMONTHDAY={draw(st.sampled_from([1, 15, 28, 31, -1, -2]))}")
    if draw(st.booleans()):
        parts.append(f"BYMONTH={draw(st.sampled_from(['1,2,3', '11', '4,11,12', '2']))}")
    if draw(st.booleans()):
        parts.append(draw(st.sampled_from(["COUNT=7", "UNTIL=20290101", "UNTIL=20280301T010000Z"])))
    return ";".join(parts)


@pytest.mark.deepable
@example(rule="FREQ=WEEKLY;INTERVAL=1;WKST=MO;UNTIL=20290101", day=date(2027, 8, 16), later=105)
@given(rule=rules(), day=st.dates(date(2026, 1, 1), date(2027, 12, 31)), later=st.integers(0, 2000))
def test_what_is_skipped_to_is_what_counting_from_the_first_gives(rule, day, later):
    """Against dateutil alone, which counts every occurrence from the first on."""
    start = datetime(day.year, day.month, day.day, 2, 30, tzinfo=UTC)
    found = recurrence(rule, start, "UTC")
    try:
        check(found, HOUR)
    except ValueError:
        assume(False)
    since, until = start + later * DAY, start + (later + 400) * DAY
    # A day as UNTIL is meant with all its hours here; dateutil takes its first moment.
    told = rule.replace("T010000Z", "T010000").replace("UNTIL=20290101", "UNTIL=20290101T235959")
    plain = rrulestr(told, dtstart=start.replace(tzinfo=None))
    counted = takewhile(lambda at: at < until.replace(tzinfo=None), plain)
    expected = [at.replace(tzinfo=UTC) for at in counted if at.replace(tzinfo=UTC) >= since]
    assert [at for _, at in found.starts(since, until)] == expected


def test_a_rule_is_read_by_the_clock_of_its_zone():
    rule = read_rule("FREQ=DAILY;UNTIL=20261201T000000Z", datetime(2026, 11, 29, 2), ZoneInfo("Asia/Kolkata"))  # noqa: DTZ001
    assert rule.until == datetime(2026, 12, 1, 5, 30)  # noqa: DTZ001 - a clock's time
