"""Windows that are changed while they run: what they covered stays, what is to come is as the change says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from servmon.detection.maintenance import next_occurrences, occurrences
from servmon.errors import ConflictError, InvalidInputError
from servmon.model import MaintenanceWindow
from servmon.services.windows import ended, extended, over_at, replaced

START = datetime(2026, 11, 23, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = 24 * HOUR
ONCE = MaintenanceWindow("w", "card swap", START, START + 2 * HOUR, ("a",))
NIGHTLY = replace(ONCE, rrule="FREQ=DAILY")


def covered(window: MaintenanceWindow, days: float = 4) -> list[tuple[str, str]]:
    found = occurrences(window, START - DAY, START + days * DAY)
    return [(f"{one.start_time:%d %H:%M}", f"{one.end_time:%d %H:%M}") for one in found]


def test_a_changed_rule_leaves_past_nights_as_they_were():
    wanted = replace(NIGHTLY, start_time=START + 20 * HOUR, end_time=START + 21 * HOUR)
    changed = replaced(NIGHTLY, wanted, START + DAY + 12 * HOUR)
    assert covered(changed, days=3) == [
        ("23 02:00", "23 04:00"),
        ("24 02:00", "24 04:00"),
        ("24 22:00", "24 23:00"),
        ("25 22:00", "25 23:00"),
    ]


def test_a_night_that_runs_goes_on_as_the_new_rule_says():
    changed = replaced(NIGHTLY, replace(NIGHTLY, end_time=START + 4 * HOUR), START + DAY + HOUR)
    assert covered(changed, days=2) == [("23 02:00", "23 04:00"), ("24 02:00", "24 06:00")]


def test_a_night_that_runs_ends_now_where_the_new_rule_has_none():
    wanted = replace(NIGHTLY, start_time=START + 3 * DAY, end_time=START + 3 * DAY + HOUR)
    changed = replaced(NIGHTLY, wanted, START + DAY + HOUR)
    assert covered(changed) == [("23 02:00", "23 04:00"), ("24 02:00", "24 03:00"), ("26 02:00", "26 03:00")]


def test_an_excluded_day_of_the_past_stays_covered():
    changed = replaced(NIGHTLY, replace(NIGHTLY, exdates=(date(2026, 11, 23), date(2026, 11, 25))), START + 30 * HOUR)
    assert [start for start, _ in covered(changed)] == ["23 02:00", "24 02:00", "26 02:00"]


def test_other_words_change_nothing_about_its_times():
    changed = replaced(NIGHTLY, replace(NIGHTLY, description="new words"), START + 30 * HOUR)
    assert (changed.rule_from, changed.recorded, changed.description) == (None, (), "new words")


def test_a_window_becomes_recurring_and_happens_once_again():
    later = START + DAY + 12 * HOUR
    once = replaced(NIGHTLY, replace(ONCE, start_time=START + 3 * DAY, end_time=START + 3 * DAY + HOUR), later)
    assert covered(once) == [("23 02:00", "23 04:00"), ("24 02:00", "24 04:00"), ("26 02:00", "26 03:00")]


def test_extending_moves_the_end_of_what_runs_only():
    longer = extended(NIGHTLY, {"minutes": 30}, START + DAY + HOUR)
    assert covered(longer, days=3) == [("23 02:00", "23 04:00"), ("24 02:00", "24 04:30"), ("25 02:00", "25 04:00")]
    again = extended(longer, {"end_time": (START + DAY + 4 * HOUR).isoformat()}, START + DAY + 2.2 * HOUR)
    assert covered(again, days=2)[-1] == ("24 02:00", "24 06:00")
    assert covered(extended(ONCE, {"minutes": 30}, START - HOUR)) == [("23 02:00", "23 04:30")]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "minutes"),
        ({"minutes": 5, "end_time": "2026-11-23T05:00:00Z"}, "minutes"),
        ({"minutes": 0}, "minutes"),
        ({"minutes": True}, "minutes"),
        ({"minutes": 10.5}, "minutes"),
        ({"minutes": 23 * 60}, "minutes"),
        ({"end_time": "2026-11-23T04:00:00Z"}, "end_time"),
        ({"end_time": "soon"}, "end_time"),
        ({"hours": 1}, "hours"),
    ],
)
def test_an_extension_that_makes_no_sense_is_refused(fields, wrong):
    with pytest.raises(InvalidInputError) as caught:
        extended(NIGHTLY, fields, START + HOUR)
    assert [problem.field for problem in caught.value.problems] == [wrong]


def test_what_does_not_run_cannot_be_extended_or_ended():
    for change, window, at in (
        (lambda *args: extended(args[0], {"minutes": 5}, args[1]), NIGHTLY, START + 5 * HOUR),
        (lambda *args: extended(args[0], {"minutes": 5}, args[1]), ONCE, START + 5 * HOUR),
        (ended, NIGHTLY, START + 5 * HOUR),
        (ended, ONCE, START - HOUR),
    ):
        with pytest.raises(ConflictError, match="does not run now"):
            change(window, at)


def test_ending_now_leaves_later_nights():
    assert covered(ended(NIGHTLY, START + DAY + HOUR), days=3) == [
        ("23 02:00", "23 04:00"),
        ("24 02:00", "24 03:00"),
        ("25 02:00", "25 04:00"),
    ]
    assert covered(ended(ONCE, START + HOUR)) == [("23 02:00", "23 03:00")]


def test_a_deleted_window_covers_what_it_covered():
    gone = replace(NIGHTLY, deleted_at=START + DAY + HOUR)
    assert covered(gone) == [("23 02:00", "23 04:00"), ("24 02:00", "24 03:00")]
    assert covered(replace(ONCE, deleted_at=START - HOUR)) == []
    assert next_occurrences(gone, START, 5) == []


def test_the_next_occurrences_begin_with_the_one_that_runs():
    found = next_occurrences(NIGHTLY, START + DAY + HOUR, 3)
    assert [one.key for one in found] == ["2026-11-24", "2026-11-25", "2026-11-26"]
    assert next_occurrences(ONCE, START + HOUR, 3)[0].start_time == START
    assert next_occurrences(ONCE, START + 2 * HOUR, 3) == []
    leap = replace(NIGHTLY, start_time=datetime(2028, 2, 29, tzinfo=UTC), end_time=datetime(2028, 3, 1, tzinfo=UTC))
    assert len(next_occurrences(replace(leap, rrule="FREQ=YEARLY"), leap.end_time, 2)) == 2


def test_a_recurring_window_is_over_at_the_end_of_its_last_occurrence():
    assert over_at(replace(NIGHTLY, rrule="FREQ=DAILY;COUNT=2")) == START + DAY + 2 * HOUR
    assert over_at(NIGHTLY) is over_at(ONCE) is None
