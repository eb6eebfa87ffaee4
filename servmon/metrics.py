"""What servmon counts about itself: plain numbers on the hot path, text for Prometheus when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def _counter(meaning: str) -> Any:
    return field(default=0, metadata={"help": meaning})


@dataclass(slots=True)
class Counters:
    """Counted since the start of the process. One object per daemon; everybody adds to it directly."""

    checks: int = _counter("Checks that ended with a result.")
    checks_skipped: int = _counter("Due times that passed without a check: the one before was under way, or no socket.")
    checks_failed: int = _counter("Checks that ended DOWN.")
    attempts: int = _counter("Probe calls; a check has one or more.")
    probe_errors: int = _counter("Checks that ended UNKNOWN because the probe itself failed.")
    results_void: int = _counter("Failures and slow answers that may have been our own lateness; they are asked again.")
    falters: int = _counter("Times at which the loop was more than 2 s late, or the wall clock jumped.")
    isolations: int = _counter("Times at which all witnesses fell silent.")
    verifications: int = _counter("Second looks before an outage is declared.")
    verifications_refuted: int = _counter("Second looks that found the target well.")
    outages_declared: int = _counter("Outages declared.")
    outages_resolved: int = _counter("Outages resolved by good checks.")
    rows_stored: int = _counter("Check results that Postgres took.")
    batches_stored: int = _counter("Batches that Postgres took.")
    store_errors: int = _counter("Batches that Postgres did not take; they are tried again.")
    rows_rejected: int = _counter("Results and changes that can never be stored; the table rejected has them.")
    elasticsearch_documents: int = _counter("Documents that Elasticsearch took, or had already.")
    elasticsearch_refused: int = _counter("Documents that Elasticsearch refused for what they are; each try counts.")
    elasticsearch_failures: int = _counter("Times at which Elasticsearch did not do its part; it is tried again.")
    results_dropped: int = _counter("Check results lost because too many waited for Postgres.")


class Gauge(NamedTuple):
    """One figure that a part of servmon shows of itself."""

    name: str
    meaning: str
    value: float


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


def labels(pairs: Mapping[str, str | None]) -> str:
    """The labels of a sample as both formats write them; those without a value are left out."""
    written = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs.items() if value is not None)
    return f"{{{written}}}" if written else ""


class Exposition:
    """Metric families in the Prometheus text format 0.0.4, or as OpenMetrics 1.0, growing line by line.

    Written by hand, since a client library takes seconds for what tens of thousands of series need.
    """

    def __init__(self, *, openmetrics: bool = False) -> None:
        self.content_type = OPENMETRICS if openmetrics else PROMETHEUS
        self._openmetrics = openmetrics
        self._begun = ""
        self._lines: list[str] = []

    def family(self, name: str, kind: str, meaning: str) -> None:
        """Begin a metric family; the samples that follow belong to it."""
        family = name.removesuffix("_total") if self._openmetrics else name
        self._begun = name
        self._lines += (f"# HELP {family} {meaning}", f"# TYPE {family} {kind}")

    def sample(self, name: str, value: float, labelled: str = "") -> None:
        """One value of the family begun last; ``labelled`` is what ``labels`` makes."""
        self._lines.append(f"{name}{labelled} {value:.10g}")

    def gauge(self, gauge: Gauge) -> None:
        """A family of one value."""
        self.family(gauge.name, "gauge", gauge.meaning)
        self.sample(gauge.name, gauge.value)

    def gauges(self, name: str, meaning: str, values: Iterable[tuple[str, float]]) -> None:
        """A family of many values with their labels, or more values of the family begun last.

        Where there are no values there is no family.
        """
        if lines := "\n".join([f"{name}{labelled} {value:.10g}" for labelled, value in values]):
            if name != self._begun:
                self.family(name, "gauge", meaning)
            self._lines.append(lines)

    def counters(self, counters: Counters) -> None:
        """Every counter as ``servmon_<name>_total``."""
        for counter in fields(counters):
            self.counter(f"servmon_{counter.name}_total", counter.metadata["help"], getattr(counters, counter.name))

    def counter(self, name: str, meaning: str, value: float) -> None:
        """What only grows; its name ends in ``_total``."""
        self.family(name, "counter", meaning)
        self.sample(name, value)

    def histogram(self, name: str, meaning: str, histogram: Histogram) -> None:
        """Cumulative buckets, sum and count."""
        self.family(name, "histogram", meaning)
        below = 0
        for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
            below += count
            self.sample(f"{name}_bucket", below, labels({"le": str(bound)}))
        self.sample(f"{name}_sum", histogram.total)
        self.sample(f"{name}_count", below)

    def text(self) -> str:
        """All of it."""
        end = ["# EOF"] if self._openmetrics else []
        return "\n".join((*self._lines, *end)) + "\n"
