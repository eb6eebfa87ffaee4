"""Times that people write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from servmon.services.moments import read_moment

AT = datetime(2026, 11, 23, 15, 43, 49, tzinfo=UTC)


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-23T15:43:49Z",
        "2026-11-23t15:43:49z",
        "2026-11-23 15:43:49Z",
        "2026-11-23T15:43:49.000000000Z",
        "2026-11-23T17:43:49+02:00",
        "2026-11-23T15:43:49-00:00",
        AT,
        AT.replace(tzinfo=None),
        AT.astimezone(timezone(timedelta(hours=-9))),
    ],
)
def test_every_way_to_write_a_moment_means_the_same_moment_in_utc(written):
    assert read_moment(written) == AT
    assert read_moment(written).tzinfo is UTC


@pytest.mark.parametrize("written", ["2026-11-23T15:43:49", "2026-11-23 15:43:49.5"])
def test_text_without_an_offset_is_refused_and_told_so(written):
    with pytest.raises(ValueError, match="needs an offset"):
        read_moment(written)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "tomorrow",
        "2026-11-23",
        "2026-11-23T15:43Z",
        "20261123T154349Z",
        "2026-W47-1",
        "2026-02-30T00:00:00Z",
        "2026-11-23T25:00:00Z",
        "2026-11-23T15:43:49+25:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "٢٠٢٦-11-23T15:43:49Z",
        "2026-11-23T15:43:49Z\n",
        1_763_912_629,
        None,
        True,
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ],
)
def test_what_is_no_moment_is_refused_with_a_sentence(written):
    with pytest.raises(ValueError, match=r"must be a time|no such time"):
        read_moment(written)
