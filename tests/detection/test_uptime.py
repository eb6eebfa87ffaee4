"""Availability from outages, windows and blindness: against a slow count of seconds, and by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from servmon.detection.spans import Span
from servmon.detection.uptime import Kind, uptime

START = datetime(2026, 3, 1, tzinfo=UTC)
LENGTH = 60
moments = st.integers(-10, LENGTH + 10)
spans = st.lists(st.tuples(moments, moments).map(sorted).map(tuple), max_size=6)


def span(start: float, end: float) -> Span:
    return Span(START + timedelta(seconds=start), START + timedelta(seconds=end))


@given(outages=spans, windows=spans, blind=spans)
def test_every_second_is_counted_once_and_as_what_it_was(outages, windows, blind):
    found = uptime(
        span(0, LENGTH),
        [(str(number), span(*one)) for number, one in enumerate(outages)],
        [span(*one) for one in windows],
        [span(*one) for one in blind],
    )

    def covers(spans, second):
        return any(start <= second < end for start, end in spans)

    kinds = [
        Kind.MAINTENANCE
        if covers(windows, second)
        else Kind.UNOBSERVED
        if covers(blind, second)
        else Kind.OUTAGE
        if covers(outages, second)
        else None
        for second in range(LENGTH)
    ]
    assert found.maintenance_seconds == kinds.count(Kind.MAINTENANCE)
    assert found.unobserved_seconds == kinds.count(Kind.UNOBSERVED)
    assert found.outage_seconds == kinds.count(Kind.OUTAGE)
    assert found.up_seconds == kinds.count(None)
    for earlier, later in zip(found.stretches, found.stretches[1:], strict=False):
        assert earlier.span.end <= later.span.start
    assert sum(one.span.seconds for one in found.stretches) == LENGTH - kinds.count(None)


def test_a_period_in_which_nothing_was_seen_has_no_availability():
    assert uptime(span(0, 60), [("a", span(0, 60))], [], [span(0, 60)]).availability is None


def test_an_outage_that_outlasts_its_window_counts_from_the_windows_end():
    found = uptime(span(0, 60), [("a", span(10, 40))], [span(0, 30)], [])
    assert (found.outage_seconds, found.availability) == (10, 100 * 20 / 30)


@given(cuts=st.lists(st.integers(1, 30 * 86_400_000_000 - 1), min_size=1, max_size=4, unique=True).map(sorted))
def test_where_no_time_is_left_none_is_counted_as_up(cuts):
    """A month cut at odd microseconds: sums of floats leave crumbs, of which 100 % could be said."""
    ends = [START, *(START + timedelta(microseconds=cut) for cut in cuts), START + timedelta(days=30)]
    parts = [Span(*one) for one in pairwise(ends)]
    blind = uptime(Span(ends[0], ends[-1]), [], parts[::2], parts[1::2])
    assert (blind.up_seconds, blind.availability) == (0, None)
    down = uptime(Span(ends[0], ends[-1]), [("a", parts[0])], [], parts[1:])
    assert (down.up_seconds, down.availability) == (0, 0)
