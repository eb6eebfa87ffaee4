"""News of outages: that they began, became worse, or are over."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from servmon.alerts import sites, window_ends
from servmon.alerts.alert import RANK, Alert, MessageKind, News
from servmon.alerts.gathering import PASSING, Gathering
from servmon.alerts.routing import channels_of, stopped_by
from servmon.alerts.telling import Round, Telling


class OutageNews:
    """Brings what happened to outages into the alerts that they are told in, or to what waits to be told."""

    def __init__(self, telling: Telling, gathering: Gathering) -> None:
        self._telling = telling
        self._gathering = gathering
        self._partly_due: dict[str, datetime] = {}

    def restore(self, alert: Alert) -> None:
        """Take up an alert that was open when servmon stopped."""
        if any(member.resolved_at for member in alert.members.values()):
            self._partly_due[alert.id] = alert.told_at + self._telling.interval

    def take_down(self, news: News, at: Round) -> None:
        """An outage began, or became worse."""
        self._supersede(news, at)
        stopped = stopped_by(news, at.route)
        alert = self._telling.alerts.of_outage(news.outage_id) or (
            None if stopped or news.rule else self._join_site(news, at)
        )
        if stopped is not None and stopped[0] == "dependency":
            at.decide(news, *stopped)
        elif alert is not None and RANK[news.severity] >= RANK[alert.severity]:
            at.decide(news, "already told", f"in the alert {alert.title!r}", alert.id)
        elif alert is not None:
            at.told.worse.append(news.outage_id or "")
            raised = replace(alert, severity=news.severity, told_at=at.now)
            self._telling.say(raised, MessageKind.RAISED, at, [news])
            at.decide(news, "sent", f"raised to {news.severity}", alert.id)
        elif stopped is None:
            self._gathering.join(news, at)
        elif stopped[0] in PASSING:
            self._gathering.hold(news, stopped, at)
        else:
            at.decide(news, *stopped)

    def _join_site(self, news: News, at: Round) -> Alert | None:
        """The alert of its whole site, which an outage that was declared a little later is part of."""
        channels = channels_of(news, at.route)
        for alert in self._telling.alerts.of_rule(sites.RULE):
            if alert.channels == channels and sites.belongs_to(alert, news, self._telling.facts):
                alert.members.update(self._telling.members_of([news]))
                self._telling.alerts.keep(alert)
                at.told.alerts[alert.id] = alert
                return alert
        return None

    def _supersede(self, news: News, at: Round) -> None:
        """What waits to be told of the same outage is older than this."""
        waiting = self._gathering.waiting.of_outage(news.outage_id or "")
        if waiting is not None:
            self._gathering.forget(waiting)
            at.decide(waiting, "superseded", "something newer is known of the outage")

    def take_recovered(self, news: News, at: Round) -> None:
        """An outage is over."""
        outage_id = news.outage_id or ""
        self._telling.note_over(outage_id, at.now)
        down = self._gathering.waiting.of_outage(outage_id)
        alert = self._telling.alerts.of_outage(outage_id)
        if down is not None:
            self._meet(down, news, at)
        elif alert is None:
            at.decide(news, "never told", "nobody was told of the outage")
        else:
            member = alert.members[outage_id]
            over_at = news.outage.resolved_at if news.outage else None
            below = member.takes_down or self._telling.facts.takes_down(member.endpoint_id)
            alert.members[outage_id] = replace(member, resolved_at=over_at or news.at, takes_down=below)
            at.told.ended.setdefault(alert.id, []).append(news)
            at.decide(news, "sent", news.reason, alert.id)

    def _meet(self, down: News, up: News, at: Round) -> None:
        """The end of an outage arrives while its beginning still waits."""
        waiting = self._gathering.waiting
        # What comes back in the grace after its window did what was planned.
        held = waiting.is_held(down) or window_ends.is_group(waiting.group_of(down) or "")
        self._gathering.forget(down)
        if not held:
            self._tell_brief(down, up, at)
            return
        at.decide(down, "never told", f"over at {_end(up)}, and kept back until then")
        at.decide(up, "never told", "nobody was told of the outage")

    def _tell_brief(self, down: News, up: News, at: Round) -> None:
        alert = replace(self._telling.alert_of([down], at.route), closed_at=at.now)
        over_at = up.outage.resolved_at if up.outage else None
        for outage_id, member in alert.members.items():
            alert.members[outage_id] = replace(member, resolved_at=over_at or up.at)
        self._telling.say(alert, MessageKind.BRIEF, at, [down, up])
        for news in (down, up):
            at.decide(news, "sent", "down and up in one message", alert.id)

    def settle_ended(self, at: Round) -> None:
        """Tell of alerts that are over; what is over only in part is told together, a little later."""
        for alert_id, news in at.told.ended.items():
            alert = self._telling.alerts.get(alert_id)
            if alert is None:
                continue
            down = len(alert.still_down)
            if not down:
                self._telling.say(replace(alert, closed_at=at.now, told_at=at.now), MessageKind.RECOVERED, at, news)
                continue
            at.told.alerts[alert_id] = alert
            first = down + len(news) == len(alert.members)
            due_at = at.now + self._telling.wait if first else max(at.now, alert.told_at + self._telling.interval)
            self._partly_due.setdefault(alert_id, due_at)

    def tell_partly(self, at: Round) -> None:
        """Tell of alerts that were over in part for a while."""
        for alert_id, due_at in list(self._partly_due.items()):
            alert = self._telling.alerts.get(alert_id)
            if alert is None:
                del self._partly_due[alert_id]
            elif due_at <= at.now:
                del self._partly_due[alert_id]
                self._telling.say(replace(alert, told_at=at.now), MessageKind.PARTLY, at, [])


def _end(news: News) -> str:
    return f"{(news.outage and news.outage.resolved_at) or news.at:%H:%M:%S} UTC"
