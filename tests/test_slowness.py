"""Response times come from what the monitor holds, and only where a rule asks for them."""

from __future__ import annotations

from types import SimpleNamespace

from servmon.alerts.response_times import ResponseTimes
from servmon.alerts.settings import AlertSection, RuleKind, RuleSection
from servmon.slowness import Slowness
from tests.alerts.test_dispatcher import START, endpoint
from tests.alerts.test_rules import answer

RULE = RuleSection(name="slow", kind=RuleKind.RESPONSE_TIME, ids=("api",))


class Machine:
    """A monitor's endpoints with the last check of each, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.watched: dict[str, SimpleNamespace] = {}
        self.seconds = 0.0

    def wall(self) -> float:
        return START.timestamp() + self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def checked(self, name: str, ms: float) -> None:
        plan = SimpleNamespace(endpoint=endpoint(name))
        self.watched[name] = SimpleNamespace(plan=plan, state=SimpleNamespace(last=answer(self.seconds, ms, name=name)))


async def test_only_what_a_rule_selects_is_watched_and_its_threshold_is_that_of_the_settings():
    machine, times = Machine(), ResponseTimes()
    settings = AlertSection(rules=(RULE,), response_time_ms=250)
    slowness = Slowness(machine, times, lambda: settings, clock=machine)
    for second in range(0, 660, 60):
        machine.seconds = second
        machine.checked("api", 300)
        machine.checked("other", 300)
        await slowness.look()
    assert [(name, reading.threshold) for name, reading in times.slow(RULE)] == [("api", 250)]
    settings = AlertSection()
    await slowness.look()
    assert list(times.slow(RULE)) == []
    assert times._windows == {}


async def test_an_endpoint_that_is_gone_leaves_nothing_and_a_check_is_counted_once():
    machine, times = Machine(), ResponseTimes()
    slowness = Slowness(machine, times, lambda: AlertSection(rules=(RULE,)), clock=machine)
    machine.checked("api", 5000)
    for second in range(0, 660, 5):
        machine.seconds = second
        await slowness.look()
    assert list(times.slow(RULE)) == []  # one answer, seen again and again
    machine.watched.clear()
    await slowness.look()
    assert times._windows == {}
