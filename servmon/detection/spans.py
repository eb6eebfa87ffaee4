"""Stretches of time, [start, end), and what is left of them when others are taken away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple


class Span(NamedTuple):
    """The time from ``start`` until ``end``, which is no longer part of it."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end - self.start).total_seconds()


def clipped(spans: Iterable[Span], period: Span) -> Iterator[Span]:
    """What of ``spans`` lies in ``period``."""
    for start, end in spans:
        if start < period.end and end > period.start and start < end:
            yield Span(max(start, period.start), min(end, period.end))


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same time in order, without overlaps and without seams."""
    result: list[Span] = []
    for span in sorted(spans):
        if result and span.start <= result[-1].end:
            result[-1] = Span(result[-1].start, max(result[-1].end, span.end))
        else:
            result.append(span)
    return result


def without(spans: Iterable[Span], taken: Iterable[Span]) -> Iterator[Span]:
    """What is left of ``spans`` outside of ``taken``; both are as ``merged`` makes them."""
    taken = list(taken)
    first = 0
    for start, end in spans:
        while first < len(taken) and taken[first].end <= start:
            first += 1
        for hole in taken[first:]:
            if hole.start >= end or start >= end:
                break
            if hole.start > start:
                yield Span(start, hole.start)
            start = max(start, hole.end)  # noqa: PLW2901 - what is left of this span
        if start < end:
            yield Span(start, end)


def total_seconds(spans: Iterable[Span]) -> float:
    """How long all of ``spans`` are together."""
    return sum(span.seconds for span in spans)
