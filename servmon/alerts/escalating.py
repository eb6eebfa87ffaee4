"""What nobody sees to is told to others, step by step; an acknowledgement stops that, windows and silences pause it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import NAMESPACE_OID, uuid5

from servmon.alerts.alert import Alert, MessageKind, News, NewsKind
from servmon.alerts.lines import lasted
from servmon.alerts.repeating import Repeating
from servmon.alerts.settings import EscalationStep, RuleKind
from servmon.alerts.telling import Round, Telling

KINDS = frozenset({RuleKind.SERVICE_DOWN, RuleKind.RESPONSE_TIME, RuleKind.LONG_OUTAGE})


class Escalating:
    """Looks at the open alerts. Which steps were made stands with each, so a restart repeats none."""

    def __init__(self, telling: Telling, repeating: Repeating) -> None:
        self._telling = telling
        self._repeating = repeating
        # Steps that were due and not made, so that the reason is stored once.
        self._stopped: set[str] = set()

    def look(self, at: Round) -> None:
        """Make the steps that are due."""
        for alert in self._telling.alerts:
            if alert.members and alert.kind in KINDS:
                self._look_at(alert, at)

    def _look_at(self, alert: Alert, at: Round) -> None:
        for number, step in enumerate(self._steps(alert), start=2):
            if f"step {number}" in alert.said:
                continue
            after = timedelta(seconds=step.after)
            if at.now < alert.opened_at + after:
                return
            news = _news(alert, number, after, at)
            if (why := self._repeating.mute(alert, at.route)) is not None:
                self._keep_why(news, why, alert, at)
                return
            alert = self._make(alert, number, step, news, at)

    def _steps(self, alert: Alert) -> Sequence[EscalationStep]:
        settings = self._telling.settings
        rule = next((rule for rule in settings.rules if rule.name == alert.rule), None)
        return rule.escalation if rule is not None and rule.escalation is not None else settings.escalation

    def _keep_why(self, news: News, why: tuple[str, str], alert: Alert, at: Round) -> None:
        if (key := f"{news.id} {why[0]}") not in self._stopped:
            self._stopped.add(key)
            at.decide(news, *why, alert.id)

    def _make(self, alert: Alert, number: int, step: EscalationStep, news: News, at: Round) -> Alert:
        self._stopped = {key for key in self._stopped if not key.startswith(news.id)}
        channels = tuple(dict.fromkeys((*alert.channels, *step.channels)))
        escalated = replace(alert, said=(*alert.said, f"step {number}"), channels=channels)
        told = self._telling.say(escalated, MessageKind.ESCALATED, at, [news], to=step.channels)
        gone = ", ".join(name for name in step.channels if name not in self._telling.channel_names)
        at.sent(news, alert, told, f": {news.reason}" + (f"; there is no channel {gone} any more" if gone else ""))
        return escalated


def _news(alert: Alert, number: int, after: timedelta, at: Round) -> News:
    news_id = str(uuid5(NAMESPACE_OID, f"{alert.id} step {number}"))
    reason = f"step {number}: nobody saw to it for {lasted(after)}"
    return News(news_id, NewsKind.STEP, at.now, alert.severity, reason, lines=(reason,))
