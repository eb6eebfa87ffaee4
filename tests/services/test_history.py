"""Which of results, hours and days a history is told in."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from servmon.errors import InvalidInputError
from servmon.services.history import Asked, Resolution, choose, read_asked
from servmon.store.rollups import Dropped

PRESENT = datetime(2026, 11, 25, 12, tzinfo=UTC)
NOTHING = Dropped(None, None)
DROPPED = Dropped(date(2026, 10, 26), date(2025, 10, 1))


def ago(days: float, *, lasting: float | None = None) -> Asked:
    since = PRESENT - timedelta(days=days)
    return Asked(since, None if lasting is None else since + timedelta(days=lasting))


@pytest.mark.parametrize(
    ("asked", "dropped", "expected"),
    [
        (Asked(), DROPPED, Resolution.RAW),
        (Asked(until=PRESENT), DROPPED, Resolution.RAW),
        (ago(1), DROPPED, Resolution.RAW),
        (ago(2), DROPPED, Resolution.RAW),
        (ago(2.01), DROPPED, Resolution.HOUR),
        (ago(2.01, lasting=2), DROPPED, Resolution.RAW),
        (ago(31, lasting=1), DROPPED, Resolution.HOUR),
        (ago(31, lasting=1), NOTHING, Resolution.RAW),
        (ago(62), DROPPED, Resolution.HOUR),
        (ago(63), DROPPED, Resolution.DAY),
        (ago(500, lasting=1), DROPPED, Resolution.DAY),
        (ago(1, lasting=400), DROPPED, Resolution.RAW),  # what is to come is not yet there
        (Asked(resolution=Resolution.DAY), DROPPED, Resolution.DAY),
    ],
)
def test_the_finest_that_is_kept_and_suits_the_length_is_chosen(asked, dropped, expected):
    assert choose(asked, dropped, PRESENT) is expected


def test_what_is_asked_for_is_read_with_every_mistake_named():
    assert read_asked({"since": "2026-11-01", "until": "2026-11-02T00:00:00Z", "resolution": "hour"}) == Asked(
        datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC), Resolution.HOUR
    )
    assert read_asked({"resolution": "auto"}) == read_asked({}) == Asked()
    with pytest.raises(InvalidInputError) as wrong:
        read_asked({"since": "yesterday", "until": "2026-02-30", "resolution": "week"})
    assert [problem.field for problem in wrong.value.problems] == ["since", "until", "resolution"]
    with pytest.raises(InvalidInputError, match="must be before until"):
        read_asked({"since": "2026-11-02", "until": "2026-11-01"})
