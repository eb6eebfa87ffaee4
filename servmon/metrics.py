"""What servmon counts about itself: plain numbers on the hot path, Prometheus text when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(slots=True)
class Counters:
    """Counted since the start of the process. One object per daemon; everybody adds to it directly."""

    checks: int = 0
    checks_skipped: int = 0
    checks_failed: int = 0
    attempts: int = 0
    probe_errors: int = 0
    verifications: int = 0
    verifications_refuted: int = 0
    outages_declared: int = 0
    outages_resolved: int = 0
    rows_stored: int = 0
    batches_stored: int = 0
    store_errors: int = 0
    results_dropped: int = 0


# Seconds; fine where a scheduler should be, coarse where it should never be.
LATENESS_BOUNDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


class Histogram:
    """How often a value fell into each of a few fixed ranges; observing costs one list increment."""

    def __init__(self, bounds: tuple[float, ...] = LATENESS_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def render(self, name: str) -> Iterator[str]:
        """The histogram in the Prometheus text format: cumulative buckets, sum and count."""
        yield f"# TYPE {name} histogram"
        below = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self.total:.10g}"
        yield f"{name}_count {below}"


def render_counters(counters: Counters) -> Iterator[str]:
    """Every counter as ``servmon_<name>_total``."""
    for field in fields(counters):
        yield from render(f"servmon_{field.name}_total", "counter", [({}, getattr(counters, field.name))])


def render(name: str, kind: str, samples: Iterable[tuple[dict[str, str], float]]) -> Iterator[str]:
    """One metric family in the Prometheus text format 0.0.4, a line each, without line ends."""
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        pairs = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
        yield f"{name}{{{pairs}}} {value:.10g}" if pairs else f"{name} {value:.10g}"
