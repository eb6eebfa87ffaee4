"""Endpoints whose answers are slow: told as outages are, in groups, with reminders and an end, under their rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from servmon.alerts.alert import Alert, News, NewsKind
from servmon.alerts.response_times import LOOK_SECONDS, Reading, ResponseTimes
from servmon.alerts.settings import RuleKind, RuleSection
from servmon.alerts.telling import Telling
from servmon.detection.changes import RECOVERED
from servmon.model import Endpoint, Outage, Severity

# A rule's name and an endpoint's id.
Key = tuple[str, str]


class SlowAnswers:
    """Makes news of what the rules of response times read. What fires is known over a restart by its open alert."""

    def __init__(self, telling: Telling) -> None:
        self.times = ResponseTimes()
        self._telling = telling
        self._firing: dict[Key, News] = {}
        self._look_at: datetime | None = None

    def restore(self, alert: Alert) -> None:
        """Take up what was told to be slow when servmon stopped."""
        if alert.kind != RuleKind.RESPONSE_TIME:
            return
        rule = RuleSection(name=alert.rule, kind=RuleKind.RESPONSE_TIME)
        for member in alert.still_down:
            endpoint = Endpoint(member.endpoint_id, member.name, "", "")
            outage = Outage(
                member.outage_id, endpoint.id, alert.severity, "", member.start_time, declared_at=member.start_time
            )
            news = News(
                member.outage_id, NewsKind.DOWN, alert.opened_at, alert.severity, "", endpoint, outage, rule=rule
            )
            self._firing[alert.rule, endpoint.id] = news

    def look(self, now: datetime) -> Iterator[News]:
        """Every few seconds: what became slow, and what is no longer."""
        if self._look_at is not None and now < self._look_at:
            return
        self._look_at = now + timedelta(seconds=LOOK_SECONDS)
        rules = {rule.name: rule for rule in self._telling.settings.rules_of(RuleKind.RESPONSE_TIME)}
        yield from self._over(rules, now)
        for rule in rules.values():
            for endpoint_id, reading in self.times.slow(rule):
                key = rule.name, endpoint_id
                # What is out is told as that.
                if key not in self._firing and self._telling.facts.open_outage(endpoint_id) is None:
                    yield from self._begin(key, rule, reading, now)

    def _begin(self, key: Key, rule: RuleSection, reading: Reading, now: datetime) -> Iterator[News]:
        endpoint = self._telling.facts.endpoint(key[1])
        if endpoint is None:
            return
        severity = rule.severity or Severity.WARNING
        outage = Outage(self._telling.ids(), endpoint.id, severity, str(reading), start_time=now, declared_at=now)
        news = News(self._telling.ids(), NewsKind.DOWN, now, severity, "answers are slow", endpoint, outage, rule=rule)
        self._firing[key] = news
        yield news

    def _over(self, rules: dict[str, RuleSection], now: datetime) -> Iterator[News]:
        for (name, endpoint_id), fired in list(self._firing.items()):
            rule, endpoint = rules.get(name), self._telling.facts.endpoint(endpoint_id)
            reading = self.times.reading(rule, endpoint_id) if rule else None
            if rule is None:
                reason = "the rule is gone or off"
            elif endpoint is None:
                reason = "it is no longer watched"
            elif reading is not None and reading.is_fast_again:
                reason = RECOVERED
            else:
                continue  # without answers nobody knows
            del self._firing[name, endpoint_id]
            over = replace(fired.outage, resolved=True, resolved_at=now) if fired.outage else None
            lines = (str(reading),) if reading else ()
            yield replace(
                fired,
                id=self._telling.ids(),
                kind=NewsKind.RECOVERED,
                at=now,
                reason=reason,
                endpoint=endpoint or fired.endpoint,
                outage=over,
                lines=lines,
            )
