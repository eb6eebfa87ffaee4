"""What every part of the dispatcher needs: what stands, how an alert and its messages are made, how a no is kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from servmon.alerts import messages, sites
from servmon.alerts.alert import RANK, Alert, Decision, Member, MessageKind, News, Notification, Told
from servmon.alerts.lines import one_line
from servmon.alerts.open_alerts import OpenAlerts
from servmon.alerts.routing import LASTING, Facts, Route, Silence, channels_of, rule_of, still_there
from servmon.alerts.settings import AlertSection, RuleKind
from servmon.model import Endpoint, Outage, Severity

OVER_REMEMBERED = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Round:
    """One round: what its stages know, and what it decided so far."""

    route: Route
    told: Told

    @property
    def now(self) -> datetime:
        """When it is."""
        return self.route.now

    def decide(self, news: News, stage: str, reason: str, alert_id: str | None = None) -> None:
        """Keep what became of a piece of news, and why."""
        self.told.decisions.append(
            Decision(news.id, news.kind, stage, reason, self.now, news.outage_id, news.endpoint_id, alert_id)
        )

    def sent(self, news: News, alert: Alert, to: Collection[str], remark: str = "") -> None:
        """Keep that a piece of news was told in ``alert``, by the channels that ``say`` found to be there."""
        if to:
            self.decide(news, "sent", f"to {', '.join(to)}{remark}", alert.id)
        else:
            self.decide(news, "whom", f"none of its channels is there any more{remark}", alert.id)


class Telling:
    """The settings, the people's word, and the open alerts. ``channel_names`` are the channels that exist."""

    def __init__(
        self, settings: AlertSection, channel_names: tuple[str, ...], facts: Facts, ids: Callable[[], str]
    ) -> None:
        self.settings = settings
        self.channel_names = channel_names
        self.silences: Sequence[Silence] = ()
        self.acknowledged: frozenset[str] = frozenset()
        self.facts = facts
        self.ids = ids
        self.alerts = OpenAlerts()
        self._over: dict[str, datetime] = {}

    @property
    def wait(self) -> timedelta:
        """How long news waits for more of its group."""
        return timedelta(seconds=self.settings.group_wait)

    @property
    def interval(self) -> timedelta:
        """How far apart the messages of one group are."""
        return timedelta(seconds=self.settings.group_interval)

    def note_over(self, outage_id: str, now: datetime) -> None:
        """The end of an outage was taken; what is known of the present may lag behind."""
        self._over[outage_id] = now
        while now - self._over[oldest := next(iter(self._over))] > OVER_REMEMBERED:
            del self._over[oldest]

    def open_outages(self) -> Iterator[tuple[Endpoint, Outage]]:
        """The outages that are open as far as people were told, with their endpoints."""
        return (one for one in self.facts.open_outages() if one[1].id not in self._over)

    def begin_round(self, now: datetime) -> Round:
        """What holds at ``now``, and nothing decided yet."""
        route = Route(
            settings=self.settings,
            channel_names=self.channel_names,
            silences=self.silences,
            standing=self.alerts.standing_rules,
            acknowledged=self.acknowledged,
            facts=self.facts,
            now=now,
        )
        return Round(route, Told())

    def say(
        self,
        alert: Alert,
        kind: MessageKind,
        at: Round,
        news: Sequence[News],
        *,
        besides: Mapping[str, Member] | None = None,
        to: Collection[str] | None = None,
    ) -> tuple[str, ...]:
        """Tell everybody who reads of ``alert``, or those of them in ``to``; returns the channels that are told by.

        ``besides`` its members the message is about those of others.
        """
        self.alerts.keep(alert)
        at.told.alerts[alert.id] = alert
        shown = replace(alert, members=alert.members | dict(besides)) if besides else alert
        readers = [channel for channel in alert.channels if to is None or channel in to]
        told = still_there(readers, at.route)
        at.told.notifications += [self._message(channel, shown, kind, at, news) for channel in told]
        return told

    def _message(self, channel: str, alert: Alert, kind: MessageKind, at: Round, news: Sequence[News]) -> Notification:
        notification_id = self.ids()
        try:
            return messages.compose(notification_id, channel, alert, kind, at.now, news)
        except Exception as error:  # noqa: BLE001 - told in plain words is better than not told
            at.told.defects.append(error)
            return messages.plain(notification_id, channel, alert, kind, at.now)

    def alert_of(self, news: Sequence[News], route: Route) -> Alert:
        """A new alert of this news, which has the same readers."""
        members = self.members_of(news)
        severity = min((one.severity for one in news), key=RANK.__getitem__, default=Severity.MAJOR)
        kind = self._kind_of(news, members)
        return Alert(
            id=self.ids(),
            rule=self._rule_name(kind, news, members),
            title=messages.title(news, self.facts),
            severity=severity,
            opened_at=route.now,
            told_at=route.now,
            channels=channels_of(news[0], route),
            members=members,
            kind=kind,
            reason=_why(news),
        )

    def _kind_of(self, news: Sequence[News], members: Mapping[str, Member]) -> str:
        if news[0].rule is not None:
            return news[0].rule.kind.value
        return RuleKind.SERVICE_DOWN.value if members else news[0].kind.value

    def _rule_name(self, kind: str, news: Sequence[News], members: Mapping[str, Member]) -> str:
        if members and sites.site_down(news, self.facts):
            return sites.RULE
        rule = rule_of(news[0], self.settings)
        return rule.name if rule else kind

    def members_of(self, news: Sequence[News]) -> dict[str, Member]:
        """The outages that begin in this news, by their ids."""
        return {
            one.outage.id: Member(
                one.outage.id,
                one.endpoint.id,
                one.endpoint.name,
                one.outage.start_time,
                one.outage.description,
                takes_down=() if one.rule else self.facts.takes_down(one.endpoint.id),
            )
            for one in news
            if one.outage and one.endpoint and one.kind in LASTING
        }


def _why(news: Sequence[News]) -> str:
    """Why an alert fired, by the first of its news."""
    first = news[0]
    said = first.outage.description if first.outage else ""
    return one_line("; ".join(part for part in (first.reason, said) if part))
