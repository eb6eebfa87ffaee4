"""Availability of one endpoint over a period, from its outages, its maintenance windows and what nobody saw.

Availability is 1 − (outage time outside windows) / (observed time outside windows). A moment belongs to one kind:
maintenance, else unobserved, else outage, else up. So work that was planned and time that nobody saw count neither
for nor against, whatever happened meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from servmon.detection.spans import Span, clipped, merged, total_seconds, without


class Kind(StrEnum):
    """What a stretch of time was, where it was not simply up."""

    MAINTENANCE = "maintenance"
    UNOBSERVED = "unobserved"
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the period that was not simply up; ``outage_id`` names the outage it belongs to."""

    span: Span
    kind: Kind
    outage_id: str | None = None


@dataclass(frozen=True, slots=True)
class Uptime:
    """How a period went; the four durations, in seconds, add up to its length.

    ``stretches`` are in order and do not overlap.
    """

    period: Span
    up_seconds: float
    outage_seconds: float
    unobserved_seconds: float
    maintenance_seconds: float
    stretches: tuple[Stretch, ...]

    @property
    def availability(self) -> float | None:
        """Percent; ``None`` where nothing was observed outside of windows."""
        observed = self.up_seconds + self.outage_seconds
        return 100 * self.up_seconds / observed if observed else None


def uptime(
    period: Span, outages: Iterable[tuple[str, Span]], windows: Iterable[Span], unobserved: Iterable[Span]
) -> Uptime:
    """How ``period`` went; ``outages`` are ids with their times, open ones ending with the period or later."""
    maintenance = merged(clipped(windows, period))
    blind = list(without(merged(clipped(unobserved, period)), maintenance))
    stretches = [Stretch(span, Kind.MAINTENANCE) for span in maintenance]
    stretches += [Stretch(span, Kind.UNOBSERVED) for span in blind]
    down = list(_down(period, outages, merged([*maintenance, *blind])))
    stretches = sorted([*stretches, *down], key=lambda stretch: stretch.span)
    maintenance_seconds, unobserved_seconds = total_seconds(maintenance), total_seconds(blind)
    outage_seconds = total_seconds(stretch.span for stretch in down)
    # Differences of floats leave a crumb where nothing is left, and 100 % of a crumb would be said.
    rest = period.seconds - maintenance_seconds - unobserved_seconds - outage_seconds
    return Uptime(
        period=period,
        up_seconds=max(round(rest, 6), 0.0),
        outage_seconds=outage_seconds,
        unobserved_seconds=unobserved_seconds,
        maintenance_seconds=maintenance_seconds,
        stretches=tuple(stretches),
    )


def _down(period: Span, outages: Iterable[tuple[str, Span]], uncounted: Sequence[Span]) -> Iterator[Stretch]:
    """The counted time of each outage; where two overlap, by an edit of a row, the earlier one has it."""
    counted_until = period.start
    for outage_id, span in sorted(outages, key=lambda outage: outage[1]):
        rest = Span(max(span.start, counted_until), span.end)
        for part in without(clipped([rest], period), uncounted):
            yield Stretch(part, Kind.OUTAGE, outage_id)
        counted_until = max(counted_until, span.end)
