"""What begins, stands for a while and ends without being an outage, or is said once: flapping, isolation, events."""

from __future__ import annotations

from dataclasses import replace

from servmon.alerts.alert import MessageKind, News, NewsKind
from servmon.alerts.routing import flapping_rule, stopped_by
from servmon.alerts.telling import Round, Telling
from servmon.model import EventKind

# Events that have an end, by what ends them; the others are said once.
ENDED_BY = {EventKind.CONNECTED: EventKind.ISOLATED, EventKind.CONFIGURATION_APPLIED: EventKind.CONFIGURATION_REFUSED}
LASTING = frozenset(begun.value for begun in ENDED_BY.values())


class Conditions:
    """Each stands under its rule while it lasts, in an alert without outages."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling

    def take(self, news: News, at: Round) -> None:
        """A condition began or is over, or something happened once."""
        rule, ends = _condition_of(news)
        standing = self._telling.alerts.standing(rule)
        if ends and standing is None:
            at.decide(news, "never told", "nobody was told that it began")
        elif ends and standing is not None:
            kind = MessageKind.STEADY if news.kind is NewsKind.STEADY else MessageKind.EVENT_OVER
            self._telling.say(replace(standing, closed_at=at.now, told_at=at.now), kind, at, [news])
            at.decide(news, "sent", news.reason, standing.id)
        elif standing is not None:
            at.decide(news, "already told", f"in the alert {standing.title!r}", standing.id)
        elif (stopped := stopped_by(news, at.route)) is not None:
            at.decide(news, *stopped)
        else:
            self._begin(rule, news, at)

    def _begin(self, rule: str, news: News, at: Round) -> None:
        alert = replace(self._telling.alert_of([news], at.route), rule=rule)
        if rule not in LASTING and news.kind is NewsKind.EVENT:
            alert = replace(alert, closed_at=at.now)
        kind = MessageKind.EVENT if news.kind is NewsKind.EVENT else MessageKind.FLAPPING
        at.sent(news, alert, self._telling.say(alert, kind, at, [news]))


def _condition_of(news: News) -> tuple[str, bool]:
    """The rule under which news that is no outage stands, and whether this is its end."""
    if news.event is not None:
        begun = ENDED_BY.get(news.event.kind)
        return (begun or news.event.kind).value, begun is not None
    return flapping_rule(news.endpoint_id or ""), news.kind is NewsKind.STEADY
