"""Response times of the last minutes, for the rules about them: compact windows, and what they say. Pure.

What is missing never fires: a window needs three answers at least, half of those that were to come, and has to have
been watched for its whole length.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil, isfinite

from servmon.alerts.routing import rule_selects
from servmon.alerts.settings import RuleSection
from servmon.model import AVAILABLE, CheckResult, Endpoint

FEWEST_ANSWERS = 3
# So often the last checks are looked at: of an endpoint that is checked more often it is one in some.
LOOK_SECONDS = 5.0
# Fast again is what is a tenth below the threshold, or a value around it would be told for ever.
FAST_AGAIN = 0.9


@dataclass(frozen=True, slots=True)
class Reading:
    """What a window says: milliseconds, over so many answers in so many seconds."""

    value: float
    threshold: float
    answers: int
    window: float
    statistic: str

    @property
    def is_slow(self) -> bool:
        """Whether it is above the threshold."""
        return self.value > self.threshold

    @property
    def is_fast_again(self) -> bool:
        """Whether it is far enough below the threshold to be over."""
        return self.value <= FAST_AGAIN * self.threshold

    def __str__(self) -> str:
        name = "average" if self.statistic == "average" else "95th percentile"
        return (
            f"{name} {self.value:.0f} ms over {self.window:.0f} s ({self.answers} answers), "
            f"threshold {self.threshold:.0f} ms"
        )


class Window:
    """The answers of one endpoint: epoch seconds and milliseconds, oldest first."""

    __slots__ = ("_times", "_values", "began_at", "last_at")

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.last_at = float("-inf")
        self._times = array("d")
        self._values = array("f")

    def add(self, at: float, value: float) -> None:
        """Take one answer, later than those before."""
        self._times.append(at)
        self._values.append(value)

    def forget_before(self, at: float) -> None:
        """Drop what is older."""
        gone = bisect_left(self._times, at)
        del self._times[:gone], self._values[:gone]

    def since(self, at: float) -> Sequence[float]:
        """The answers from then on."""
        return self._values[bisect_left(self._times, at) :]


class ResponseTimes:
    """The windows of all endpoints that a rule looks at, and for each rule what it reads there."""

    def __init__(self, ms: float = 1000) -> None:
        # The threshold of rules that name none.
        self.default_ms = ms
        self._windows: dict[str, Window] = {}
        self._readings: dict[str, dict[str, Reading]] = {}

    def take(self, endpoint: Endpoint, last: CheckResult | None, rules: Sequence[RuleSection], now: datetime) -> None:
        """Take an endpoint's last check, if it is another one, and read for each rule that selects it."""
        at = now.timestamp()
        looking = [rule for rule in rules if rule_selects(rule, endpoint, endpoint.severity)]
        if not looking:
            self._windows.pop(endpoint.id, None)
        else:
            window = self._windows.setdefault(endpoint.id, Window(at))
            _take(window, last)
            window.forget_before(at - max(_length(rule, endpoint) for rule in looking))
            for rule in looking:
                self._note(rule, endpoint, self._read(window, rule, endpoint, at))
        for rule in rules:
            if rule not in looking:
                self._note(rule, endpoint, None)

    def keep(self, rules: Collection[RuleSection], endpoint_ids: Collection[str]) -> None:
        """Forget what no rule asks for any more, and endpoints that are gone."""
        names = {rule.name for rule in rules}
        self._readings = {
            name: {one: reading for one, reading in found.items() if one in endpoint_ids}
            for name, found in self._readings.items()
            if name in names
        }
        self._windows = {one: window for one, window in self._windows.items() if rules and one in endpoint_ids}

    def slow(self, rule: RuleSection) -> Iterator[tuple[str, Reading]]:
        """The endpoints above a rule's threshold."""
        found = self._readings.get(rule.name, {})
        return ((endpoint_id, reading) for endpoint_id, reading in found.items() if reading.is_slow)

    def reading(self, rule: RuleSection, endpoint_id: str) -> Reading | None:
        """What a rule reads of an endpoint; ``None`` where too little is known."""
        return self._readings.get(rule.name, {}).get(endpoint_id)

    def _note(self, rule: RuleSection, endpoint: Endpoint, reading: Reading | None) -> None:
        found = self._readings.setdefault(rule.name, {})
        if reading is None:
            found.pop(endpoint.id, None)
        else:
            found[endpoint.id] = reading

    def _read(self, window: Window, rule: RuleSection, endpoint: Endpoint, at: float) -> Reading | None:
        length = _length(rule, endpoint)
        answers = window.since(at - length)
        between = max(endpoint.check_interval, LOOK_SECONDS)
        enough = max(FEWEST_ANSWERS, length / between / 2)
        if len(answers) < enough or window.began_at > at - length + between:
            return None
        value = sum(answers) / len(answers) if rule.statistic == "average" else percentile(answers, 95)
        return Reading(value, rule.threshold_ms or self.default_ms, len(answers), length, rule.statistic)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values``, which must not be empty, that so many percent of them do not exceed."""
    return sorted(values)[max(ceil(len(values) * percent / 100) - 1, 0)]


def _take(window: Window, last: CheckResult | None) -> None:
    if last is None or (at := last.timestamp.timestamp()) <= window.last_at:
        return
    window.last_at = at
    value = last.response_time
    if last.status in AVAILABLE and value is not None and isfinite(value) and value >= 0:
        window.add(at, value)


def _length(rule: RuleSection, endpoint: Endpoint) -> float:
    """Seconds; never less than three checks take."""
    return max(rule.window, FEWEST_ANSWERS * endpoint.check_interval)
