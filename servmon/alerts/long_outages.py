"""Outages that last long: told once more, once for each alert, to whom a rule names."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import NAMESPACE_OID, uuid5

from servmon.alerts.alert import Alert, MessageKind, News, NewsKind
from servmon.alerts.gathering import Gathering
from servmon.alerts.lines import lasted
from servmon.alerts.routing import channels_of, rule_selects, stopped_by
from servmon.alerts.settings import RuleKind, RuleSection
from servmon.alerts.telling import Round, Telling
from servmon.alerts.window_ends import WindowEnds
from servmon.model import Endpoint, Outage


class LongOutages:
    """Looks at the open outages. What was told stands with the alert, so a restart repeats nothing."""

    def __init__(self, telling: Telling, gathering: Gathering, ends: WindowEnds) -> None:
        self._telling = telling
        self._gathering = gathering
        self._ends = ends
        # What was decided last, by the news: it is stored again only where it is another.
        self._decided: dict[str, tuple[str, str]] = {}

    def look(self, at: Round) -> None:
        """Tell what has lasted for so long."""
        rules = self._telling.settings.rules_of(RuleKind.LONG_OUTAGE)
        seen: dict[str, tuple[str, str]] = {}
        for endpoint, outage in self._telling.open_outages() if rules else ():
            for rule in rules:
                after = self._after(rule)
                lasts = at.now - outage.start_time >= after and self._is_due(outage, after, at)
                if lasts and rule_selects(rule, endpoint, outage.severity):
                    news = _news(rule, endpoint, outage, at.now, after)
                    if (decided := self._take(news, rule, at)) is not None:
                        seen[news.id] = decided
        self._decided = seen

    def _after(self, rule: RuleSection) -> timedelta:
        return timedelta(seconds=rule.after or self._telling.settings.long_outage_after)

    def _is_due(self, outage: Outage, after: timedelta, at: Round) -> bool:
        """Whether it is time: of what was told late, or lately, that is after the same time from then on."""
        alert = self._telling.alerts.of_outage(outage.id)
        if alert is None:
            return True
        # What began in a window was told as long as it is; so was what waited for a window's end.
        was_long = alert.opened_at - outage.start_time >= after
        if not was_long and alert.told_at - outage.declared_at <= after / 12:
            return True
        return at.now - (alert.opened_at if alert.reminders else alert.told_at) >= after

    def _take(self, news: News, rule: RuleSection, at: Round) -> tuple[str, str] | None:
        """Tell it, or keep why not; returns what is decided by now."""
        before = self._decided.get(news.id)
        waits = self._gathering.waiting.of_outage(news.outage_id or "") is not None
        if waits or self._ends.awaited(news.endpoint_id or ""):
            return before  # its beginning waits to be told, or its window's end
        alert = self._telling.alerts.of_outage(news.outage_id)
        if alert is None and rule.is_unwritten:
            return before
        if alert is not None and rule.name in alert.said:
            decided = before or ("already told", f"in the alert {alert.title!r}")
            news = replace(news, id=_id(rule, news.outage_id, "again"))  # what was sent before a restart stays known
        elif (stopped := stopped_by(news, at.route)) is not None:
            decided = stopped
        else:
            self._tell(news, rule, alert, at)
            return "sent", ""
        if decided != before:
            at.decide(news, *decided, alert.id if alert else None)
        return decided

    def _tell(self, news: News, rule: RuleSection, alert: Alert | None, at: Round) -> None:
        readers = channels_of(news, at.route)
        if alert is None:
            said = replace(self._telling.alert_of([news], at.route), said=(rule.name,))
        else:
            if rule.channels is None:
                readers = alert.channels
            said = replace(
                alert, said=(*alert.said, rule.name), channels=tuple(dict.fromkeys((*alert.channels, *readers)))
            )
            if set(readers) >= set(alert.channels):  # as good as a reminder
                said = replace(said, told_at=at.now, reminders=alert.reminders + 1)
        told = self._telling.say(said, MessageKind.LONG, at, [news], to=readers)
        at.sent(news, said, told, f": {news.reason}")


def _news(rule: RuleSection, endpoint: Endpoint, outage: Outage, now: datetime, after: timedelta) -> News:
    reason = f"it lasts for {lasted(now - outage.start_time)}, at least {lasted(after)}"
    return News(_id(rule, outage.id), NewsKind.LONG, now, outage.severity, reason, endpoint, outage, rule=rule)


def _id(rule: RuleSection, outage_id: str | None, *more: str) -> str:
    """The same after a restart, so that what is decided again replaces what was."""
    return str(uuid5(NAMESPACE_OID, " ".join((rule.name, outage_id or "", *more))))
