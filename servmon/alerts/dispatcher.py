"""What is told, when, and together with what: holds news back for a moment, groups it, and repeats what stays true.

Pure: news and a time go in, messages and decisions come out; no I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from servmon.alerts import messages, sites, window_ends
from servmon.alerts.alert import RANK, Alert, Decision, Member, MessageKind, News, NewsKind, Notification, Told
from servmon.alerts.open_alerts import OpenAlerts
from servmon.alerts.routing import Facts, Route, Silence, channels_of, flapping_rule, rule_of, stopped_by
from servmon.alerts.settings import SERVICE_DOWN, AlertSection, RuleSection
from servmon.alerts.waiting import Group, Waiting
from servmon.alerts.window_ends import Ending, Part, WindowEnds
from servmon.model import EventKind, Outage, Severity

STORM = "storm"
# Events that have an end, by what ends them; the others are said once.
ENDED_BY = {EventKind.CONNECTED: EventKind.ISOLATED, EventKind.CONFIGURATION_APPLIED: EventKind.CONFIGURATION_REFUSED}
LASTING = frozenset(begun.value for begun in ENDED_BY.values())
STORM_WINDOW = timedelta(minutes=1)
LONGEST_REMINDER = timedelta(days=1)
HELD_LOOK = timedelta(seconds=5)
# Passing reasons: what they keep back is looked at again. The others are final: an outage that turns out not to be
# its parent's doing is news of its own.
PASSING = frozenset({"maintenance", "silence", "flapping"})


class Dispatcher:
    """Holds the open alerts and the news that waits. ``channel_names`` are those that exist."""

    def __init__(
        self, settings: AlertSection, channel_names: tuple[str, ...], facts: Facts, ids: Callable[[], str]
    ) -> None:
        self.settings = settings
        self.channel_names = channel_names
        self.silences: Sequence[Silence] = ()
        self.acknowledged: frozenset[str] = frozenset()
        self._facts = facts
        self._ids = ids
        self.alerts = OpenAlerts()
        self._waiting = Waiting()
        self._look_at_held_at: datetime | None = None
        self._kept_back_by: dict[str, tuple[str, str]] = {}
        self._partly_due: dict[str, datetime] = {}
        self._told_several_at: dict[str, datetime] = {}
        self._told_at: deque[datetime] = deque()
        self.window_ends = WindowEnds(facts)

    def restore(self, alerts: Iterable[Alert], told_windows: Iterable[str] = ()) -> None:
        """Take up the alerts that were open when servmon stopped, and which windows' ends were told."""
        self.window_ends.restore(told_windows)
        for alert in alerts:
            self.alerts.keep(alert)
            if any(member.resolved_at for member in alert.members.values()):
                self._partly_due[alert.id] = alert.told_at + self._interval

    def is_waiting(self, news_id: str) -> bool:
        """Whether this news was taken and is not decided yet."""
        return news_id in self._waiting

    def step(self, arrived: Iterable[News], now: datetime) -> Told:
        """One round: take what arrived, in its order, and tell what is due."""
        told = Told()
        route = self._route(now)
        ended = self.window_ends.look(now, timedelta(seconds=self.settings.end_grace))
        self._look_at_held_again(route, told)
        for news in arrived:
            try:
                self._take(news, route, told)
            except Exception as error:  # noqa: BLE001 - one of the five places that may: no news stops the others
                told.defects.append(error)
                self._decide(news, "defect", f"could not be judged: {type(error).__name__}", now, told)
        self._settle_ended(now, told)
        for ending in ended:
            self._tell_window_end(ending, route, told)
        self._flush(route, told)
        self._tell_partly(now, told)
        self._remind(route, told)
        return told

    # Taking news.

    def _take(self, news: News, route: Route, told: Told) -> None:
        if news.id in self._waiting:
            self._waiting.refresh(news)
        elif news.kind is NewsKind.RECOVERED:
            self._recover(news, route, told)
        elif news.kind is NewsKind.DOWN:
            self._take_down(news, route, told)
        else:
            self._take_condition(news, route, told)

    def _take_down(self, news: News, route: Route, told: Told) -> None:
        self._supersede(news, route, told)
        stopped = stopped_by(news, route)
        alert = self.alerts.of_outage(news.outage_id) or (None if stopped else self._join_site(news, route, told))
        if stopped is not None and stopped[0] == "dependency":
            self._decide(news, *stopped, route.now, told)
        elif alert is not None and RANK[news.severity] >= RANK[alert.severity]:
            self._decide(news, "already told", f"in the alert {alert.title!r}", route.now, told, alert.id)
        elif alert is not None:
            told.worse.append(news.outage_id or "")
            raised = replace(alert, severity=news.severity, told_at=route.now)
            self._say(raised, MessageKind.RAISED, route.now, told, [news])
            self._decide(news, "sent", f"raised to {news.severity}", route.now, told, alert.id)
        elif stopped is None:
            self._join_group(news, route)
        elif stopped[0] in PASSING:
            self._hold(news, stopped, route, told)
        else:
            self._decide(news, *stopped, route.now, told)

    def _join_site(self, news: News, route: Route, told: Told) -> Alert | None:
        """The alert of its whole site, which an outage that was declared a little later is part of."""
        channels = channels_of(news, route)
        for alert in self.alerts.of_rule(sites.RULE):
            if alert.channels == channels and sites.belongs_to(alert, news, self._facts):
                alert.members.update(self._members([news]))
                self.alerts.keep(alert)
                told.alerts[alert.id] = alert
                return alert
        return None

    def _supersede(self, news: News, route: Route, told: Told) -> None:
        """What waits to be told of the same outage is older than this."""
        waiting = self._waiting.of_outage(news.outage_id or "")
        if waiting is not None:
            self._forget_waiting(waiting)
            self._decide(waiting, "superseded", "something newer is known of the outage", route.now, told)

    def _forget_waiting(self, news: News) -> None:
        self._waiting.drop(news)
        self._kept_back_by.pop(news.id, None)

    def _hold(self, news: News, stopped: tuple[str, str], route: Route, told: Told) -> None:
        self._waiting.hold(news)
        self._kept_back_by[news.id] = stopped
        self._decide(news, *stopped, route.now, told)

    def _join_group(self, news: News, route: Route) -> None:
        self._kept_back_by.pop(news.id, None)
        if (ending := self.window_ends.awaited_by(news)) is not None:
            self._waiting.join(ending.group, news, ending.due_at)
            return
        key = _group_of(news)
        due_at = route.now
        if (told_at := self._told_several_at.get(key)) is not None:
            due_at = max(due_at, told_at + self._interval)
        if news.endpoint is not None and self._facts.neighbour_suspected(news.endpoint):
            due_at = max(due_at, route.now + self._wait)
        self._waiting.join(key, news, due_at)

    def _recover(self, news: News, route: Route, told: Told) -> None:
        outage_id = news.outage_id or ""
        down = self._waiting.of_outage(outage_id)
        alert = self.alerts.of_outage(outage_id)
        if down is not None:
            self._meet(down, news, route, told)
        elif alert is None:
            self._decide(news, "never told", "nobody was told of the outage", route.now, told)
        else:
            member = alert.members[outage_id]
            over_at = news.outage.resolved_at if news.outage else None
            below = member.takes_down or self._facts.takes_down(member.endpoint_id)
            alert.members[outage_id] = replace(member, resolved_at=over_at or news.at, takes_down=below)
            told.ended.setdefault(alert.id, []).append(news)
            self._decide(news, "sent", news.reason, route.now, told, alert.id)

    def _meet(self, down: News, up: News, route: Route, told: Told) -> None:
        """The end of an outage arrives while its beginning still waits."""
        # What comes back in the grace after its window did what was planned.
        held = self._waiting.is_held(down) or window_ends.is_group(self._waiting.group_of(down) or "")
        self._forget_waiting(down)
        if not held:
            self._tell_brief(down, up, route, told)
            return
        self._decide(down, "never told", f"over at {_end(up)}, and kept back until then", route.now, told)
        self._decide(up, "never told", "nobody was told of the outage", route.now, told)

    def _settle_ended(self, now: datetime, told: Told) -> None:
        """Tell of alerts that are over; what is over only in part is told together, a little later."""
        for alert_id, news in told.ended.items():
            alert = self.alerts.get(alert_id)
            if alert is None:
                continue
            down = len(alert.still_down)
            if not down:
                self._say(replace(alert, closed_at=now, told_at=now), MessageKind.RECOVERED, now, told, news)
                continue
            told.alerts[alert_id] = alert
            first = down + len(news) == len(alert.members)
            due_at = now + self._wait if first else max(now, alert.told_at + self._interval)
            self._partly_due.setdefault(alert_id, due_at)

    def _tell_brief(self, down: News, up: News, route: Route, told: Told) -> None:
        alert = replace(self._alert([down], route), closed_at=route.now)
        over_at = up.outage.resolved_at if up.outage else None
        for outage_id, member in alert.members.items():
            alert.members[outage_id] = replace(member, resolved_at=over_at or up.at)
        self._say(alert, MessageKind.BRIEF, route.now, told, [down, up])
        for news in (down, up):
            self._decide(news, "sent", "down and up in one message", route.now, told, alert.id)

    def _take_condition(self, news: News, route: Route, told: Told) -> None:
        """What begins, stands for a while and ends without being an outage, or is said once."""
        rule, ends = _condition_of(news)
        standing = self.alerts.standing(rule)
        if ends and standing is None:
            self._decide(news, "never told", "nobody was told that it began", route.now, told)
        elif ends and standing is not None:
            kind = MessageKind.STEADY if news.kind is NewsKind.STEADY else MessageKind.EVENT_OVER
            self._say(replace(standing, closed_at=route.now, told_at=route.now), kind, route.now, told, [news])
            self._decide(news, "sent", news.reason, route.now, told, standing.id)
        elif standing is not None:
            self._decide(news, "already told", f"in the alert {standing.title!r}", route.now, told, standing.id)
        elif (stopped := stopped_by(news, route)) is not None:
            self._decide(news, *stopped, route.now, told)
        else:
            self._begin_condition(rule, news, route, told)

    def _begin_condition(self, rule: str, news: News, route: Route, told: Told) -> None:
        alert = replace(self._alert([news], route), rule=rule)
        if rule not in LASTING and news.kind is NewsKind.EVENT:
            alert = replace(alert, closed_at=route.now)
        kind = MessageKind.EVENT if news.kind is NewsKind.EVENT else MessageKind.FLAPPING
        self._say(alert, kind, route.now, told, [news])
        self._decide(news, "sent", f"to {', '.join(alert.channels)}", route.now, told, alert.id)

    # Telling what is due.

    def _look_at_held_again(self, route: Route, told: Told) -> None:
        if self._look_at_held_at is not None and route.now < self._look_at_held_at:
            return
        self._look_at_held_at = route.now + HELD_LOOK
        for news in self._waiting.held:
            if (stopped := stopped_by(news, route)) is None:
                self._join_group(news, route)
            elif stopped[0] not in PASSING:
                self._forget_waiting(news)
                self._decide(news, *stopped, route.now, told)
            elif self._kept_back_by.get(news.id) != stopped:
                self._hold(news, stopped, route, told)

    def _flush(self, route: Route, told: Told) -> None:
        for key, group in list(self._waiting.groups.items()):
            if window_ends.is_group(key) and group.due_at > route.now - HELD_LOOK:
                continue  # told with its window; later only where that is gone
            if group.due_at > route.now and not self._is_settled(key, group, route.now):
                continue
            news = self._waiting.take(key)
            if key != STORM and self._is_storm(route.now):
                for one in news:
                    self._waiting.join(STORM, one, self._storm_due(route.now))
            else:
                self._tell_group(key, news, route, told)

    def _is_settled(self, key: str, group: Group, now: datetime) -> bool:
        """Whether waiting longer would gather nothing more: no neighbour is suspected any longer."""
        if key == STORM or (key in self._told_several_at and self._told_several_at[key] + self._interval > now):
            return False
        endpoints = (news.endpoint for news in group.news.values())
        return not any(endpoint and self._facts.neighbour_suspected(endpoint) for endpoint in endpoints)

    def _tell_group(self, key: str, news: list[News], route: Route, told: Told) -> None:
        # One message has one set of readers: those of another rule get one of their own.
        by_channels: dict[tuple[str, ...], list[News]] = {}
        for one in news:
            by_channels.setdefault(channels_of(one, route), []).append(one)
        for part in by_channels.values():
            alert = self._alert(part, route)
            self._say(alert, MessageKind.DOWN, route.now, told, part)
            for one in part:
                self._decide(one, "sent", f"to {', '.join(alert.channels)}", route.now, told, alert.id)
        self._told_at.append(route.now)
        if len(news) > 1 or key == STORM:
            self._told_several_at[key] = route.now

    def _tell_window_end(self, ending: Ending, route: Route, told: Told) -> None:
        """What a window left behind: what was declared since its end, and what was told before it began."""
        news = self._waiting.take(ending.group) if ending.group in self._waiting.groups else []
        down = self.window_ends.still_down(ending)
        parts = window_ends.parts_of(news, self._said_before(down, route.now, told), route)
        self.window_ends.settle(ending, down=bool(parts))
        notify = ending.covered.window.notify
        for channels, part in parts.items():
            first = next(iter(parts)) is channels
            alert = replace(
                self._alert(part.news, route) if part.news else self._nothing_new(part, route.now),
                id=ending.id if first else self._ids(),
                rule=window_ends.RULE,
                title=ending.title(max(len(down), len(news))),
                channels=tuple(dict.fromkeys((*channels, *notify))) if first else channels,
            )
            self._say(alert, MessageKind.WINDOW_OVER, route.now, told, part.news, besides=part.known)
            for one in part.news:
                why = f"to {', '.join(alert.channels)}, with its window"
                self._decide(one, "sent", why, route.now, told, alert.id)

    def _said_before(self, down: Iterable[Outage], now: datetime, told: Told) -> Iterator[tuple[Alert, Member]]:
        """Those of the outages that are told already; they are said again now, so the next reminder is far away."""
        for outage in down:
            alert = self.alerts.of_outage(outage.id)
            if alert is not None:
                told.alerts[alert.id] = replace(alert, told_at=now)
                self.alerts.keep(told.alerts[alert.id])
                yield alert, alert.members[outage.id]

    def _nothing_new(self, part: Part, now: datetime) -> Alert:
        return Alert(
            id=self._ids(),
            rule=window_ends.RULE,
            title="",
            severity=part.severity,
            opened_at=now,
            told_at=now,
            channels=(),
            closed_at=now,
        )

    def _is_storm(self, now: datetime) -> bool:
        while self._told_at and self._told_at[0] <= now - STORM_WINDOW:
            self._told_at.popleft()
        return STORM in self._waiting.groups or len(self._told_at) >= self.settings.storm_limit

    def _storm_due(self, now: datetime) -> datetime:
        last = self._told_several_at.get(STORM)
        return now + self._wait if last is None else max(now + self._wait, last + self._interval)

    def _tell_partly(self, now: datetime, told: Told) -> None:
        for alert_id, due_at in list(self._partly_due.items()):
            alert = self.alerts.get(alert_id)
            if alert is None:
                del self._partly_due[alert_id]
            elif due_at <= now:
                del self._partly_due[alert_id]
                self._say(replace(alert, told_at=now), MessageKind.PARTLY, now, told, [])

    def _remind(self, route: Route, told: Told) -> None:
        if not self.settings.reminder_after:
            return
        for alert in self.alerts:
            if route.now < alert.told_at + self._reminder_wait(alert) or self._is_muted(alert, route):
                continue
            reminded = replace(alert, told_at=route.now, reminders=alert.reminders + 1)
            self._say(reminded, MessageKind.REMINDER, route.now, told, [])

    def _reminder_wait(self, alert: Alert) -> timedelta:
        doubled: int = self.settings.reminder_after << min(alert.reminders, 10)
        return min(timedelta(seconds=doubled), LONGEST_REMINDER)

    def _is_muted(self, alert: Alert, route: Route) -> bool:
        """Whether nobody needs to be reminded: all that is still down is planned, silenced, or somebody sees to it."""
        return all(self._is_seen_to(member, route) for member in alert.still_down)

    def _is_seen_to(self, member: Member, route: Route) -> bool:
        planned = self._facts.in_maintenance(member.endpoint_id) or self.window_ends.awaited(member.endpoint_id)
        if planned or member.outage_id in self.acknowledged:
            return True
        endpoint = self._facts.endpoint(member.endpoint_id)
        return endpoint is not None and route.silenced(endpoint) is not None

    # What is kept.

    def _say(
        self,
        alert: Alert,
        kind: MessageKind,
        now: datetime,
        told: Told,
        news: Sequence[News],
        besides: Mapping[str, Member] | None = None,
    ) -> None:
        """Tell everybody who reads of ``alert``; ``besides`` its members the message is about those of others."""
        self.alerts.keep(alert)
        told.alerts[alert.id] = alert
        shown = replace(alert, members=alert.members | dict(besides)) if besides else alert
        for channel in alert.channels:
            if channel in self.channel_names:
                told.notifications.append(self._message(channel, shown, kind, now, told, news))

    def _message(
        self, channel: str, alert: Alert, kind: MessageKind, now: datetime, told: Told, news: Sequence[News]
    ) -> Notification:
        notification_id = self._ids()
        try:
            return messages.compose(notification_id, channel, alert, kind, now, news)
        except Exception as error:  # noqa: BLE001 - told in plain words is better than not told
            told.defects.append(error)
            return messages.plain(notification_id, channel, alert, kind, now)

    def _alert(self, news: Sequence[News], route: Route) -> Alert:
        members = self._members(news)
        severity = min((one.severity for one in news), key=RANK.__getitem__, default=Severity.MAJOR)
        rule = rule_of(news[0].endpoint, news[0], self.settings) if news[0].endpoint else None
        return Alert(
            id=self._ids(),
            rule=self._rule_name(rule, news, members),
            title=messages.title(news, self._facts),
            severity=severity,
            opened_at=route.now,
            told_at=route.now,
            channels=channels_of(news[0], route),
            members=members,
        )

    def _rule_name(self, rule: RuleSection | None, news: Sequence[News], members: Mapping[str, Member]) -> str:
        if members and sites.site_down(news, self._facts):
            return sites.RULE
        return rule.name if rule else SERVICE_DOWN if members else news[0].kind.value

    def _members(self, news: Sequence[News]) -> dict[str, Member]:
        return {
            one.outage.id: Member(
                one.outage.id,
                one.endpoint.id,
                one.endpoint.name,
                one.outage.start_time,
                one.outage.description,
                takes_down=self._facts.takes_down(one.endpoint.id),
            )
            for one in news
            if one.outage and one.endpoint and one.kind is NewsKind.DOWN
        }

    def _decide(
        self, news: News, stage: str, reason: str, now: datetime, told: Told, alert_id: str | None = None
    ) -> None:
        told.decisions.append(
            Decision(news.id, news.kind, stage, reason, now, news.outage_id, news.endpoint_id, alert_id)
        )

    def _route(self, now: datetime) -> Route:
        return Route(
            settings=self.settings,
            channel_names=self.channel_names,
            silences=self.silences,
            standing=self.alerts.standing_rules,
            acknowledged=self.acknowledged,
            facts=self._facts,
            now=now,
        )

    @property
    def _wait(self) -> timedelta:
        return timedelta(seconds=self.settings.group_wait)

    @property
    def _interval(self) -> timedelta:
        return timedelta(seconds=self.settings.group_interval)


def _group_of(news: News) -> str:
    """What is told together: what stands at one site; an endpoint without a site stands alone."""
    if news.endpoint is None:
        return news.id
    return f"site {news.endpoint.site}" if news.endpoint.site else f"endpoint {news.endpoint.id}"


def _condition_of(news: News) -> tuple[str, bool]:
    """The rule under which news that is no outage stands, and whether this is its end."""
    if news.event is not None:
        begun = ENDED_BY.get(news.event.kind)
        return (begun or news.event.kind).value, begun is not None
    return flapping_rule(news.endpoint_id or ""), news.kind is NewsKind.STEADY


def _end(news: News) -> str:
    return f"{(news.outage and news.outage.resolved_at) or news.at:%H:%M:%S} UTC"
