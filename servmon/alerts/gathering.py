"""What is told together: news is held back by passing reasons, gathered in groups, and in a storm into one."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

from servmon.alerts import window_ends
from servmon.alerts.alert import MessageKind, News
from servmon.alerts.routing import channels_of, stopped_by
from servmon.alerts.telling import Round, Telling
from servmon.alerts.waiting import Group, Waiting
from servmon.alerts.window_ends import WindowEnds

STORM = "storm"
STORM_WINDOW = timedelta(minutes=1)
HELD_LOOK = timedelta(seconds=5)
# Passing reasons: what they keep back is looked at again. The others are final: an outage that turns out not to be
# its parent's doing is news of its own.
PASSING = frozenset({"maintenance", "silence", "flapping", "when"})
# What quiet hours kept back is told in one message at their end.
QUIET = "quiet hours"


class Gathering:
    """The news that waits. What waits for a window's end is told with that window."""

    def __init__(self, telling: Telling, ends: WindowEnds) -> None:
        self.waiting = Waiting()
        self._telling = telling
        self._ends = ends
        self._look_at_held_at: datetime | None = None
        self._kept_back_by: dict[str, tuple[str, str]] = {}
        self._told_several_at: dict[str, datetime] = {}
        self._told_at: deque[datetime] = deque()

    def hold(self, news: News, stopped: tuple[str, str], at: Round) -> None:
        """Keep news back for a passing reason."""
        self.waiting.hold(news)
        self._kept_back_by[news.id] = stopped
        at.decide(news, *stopped)

    def forget(self, news: News) -> None:
        """It waits no longer."""
        self.waiting.drop(news)
        self._kept_back_by.pop(news.id, None)

    def join(self, news: News, at: Round) -> None:
        """Put news into its group, which is due at once unless there may be more of it soon."""
        kept_back_by, _ = self._kept_back_by.pop(news.id, ("", ""))
        if (ending := self._ends.awaited_by(news)) is not None:
            self.waiting.join(ending.group, news, ending.due_at)
            return
        if kept_back_by == "when":
            self.waiting.join(QUIET, news, at.now)
            return
        key = _group_of(news)
        due_at = at.now
        if (told_at := self._told_several_at.get(key)) is not None:
            due_at = max(due_at, told_at + self._telling.interval)
        if news.endpoint is not None and self._telling.facts.neighbour_suspected(news.endpoint):
            due_at = max(due_at, at.now + self._telling.wait)
        self.waiting.join(key, news, due_at)

    def look_at_held_again(self, at: Round) -> None:
        """Every few seconds: what nothing keeps back any more joins its group."""
        if self._look_at_held_at is not None and at.now < self._look_at_held_at:
            return
        self._look_at_held_at = at.now + HELD_LOOK
        for news in self.waiting.held:
            if (stopped := stopped_by(news, at.route)) is None:
                self.join(news, at)
            elif stopped[0] not in PASSING:
                self.forget(news)
                at.decide(news, *stopped)
            elif self._kept_back_by.get(news.id) != stopped:
                self.hold(news, stopped, at)

    def flush(self, at: Round) -> None:
        """Tell the groups that are due; in a storm they become one."""
        for key, group in list(self.waiting.groups.items()):
            if window_ends.is_group(key) and group.due_at > at.now - HELD_LOOK:
                continue  # told with its window; later only where that is gone
            if group.due_at > at.now and not self._is_settled(key, group, at.now):
                continue
            news = self.waiting.take(key)
            if key != STORM and self._is_storm(at.now):
                for one in news:
                    self.waiting.join(STORM, one, self._storm_due(at.now))
            else:
                self._tell_group(key, news, at)

    def _is_settled(self, key: str, group: Group, now: datetime) -> bool:
        """Whether waiting longer would gather nothing more: no neighbour is suspected any longer."""
        told_at = self._told_several_at.get(key)
        if key == STORM or (told_at is not None and told_at + self._telling.interval > now):
            return False
        endpoints = (news.endpoint for news in group.news.values())
        return not any(endpoint and self._telling.facts.neighbour_suspected(endpoint) for endpoint in endpoints)

    def _tell_group(self, key: str, news: list[News], at: Round) -> None:
        # One message has one set of readers and says one thing: what another rule tells gets one of its own.
        parts: dict[tuple[tuple[str, ...], str], list[News]] = {}
        for one in news:
            parts.setdefault((channels_of(one, at.route), one.rule.name if one.rule else ""), []).append(one)
        for part in parts.values():
            alert = self._telling.alert_of(part, at.route)
            told = self._telling.say(alert, MessageKind.DOWN, at, part)
            for one in part:
                at.sent(one, alert, told)
        self._told_at.append(at.now)
        if len(news) > 1 or key == STORM:
            self._told_several_at[key] = at.now

    def _is_storm(self, now: datetime) -> bool:
        while self._told_at and self._told_at[0] <= now - STORM_WINDOW:
            self._told_at.popleft()
        return STORM in self.waiting.groups or len(self._told_at) >= self._telling.settings.storm_limit

    def _storm_due(self, now: datetime) -> datetime:
        last = self._told_several_at.get(STORM)
        waited = now + self._telling.wait
        return waited if last is None else max(waited, last + self._telling.interval)


def _group_of(news: News) -> str:
    """What is told together: what stands at one site; an endpoint without a site stands alone."""
    if news.endpoint is None:
        return news.id
    by = f"{news.rule.name} " if news.rule else ""
    return f"{by}site {news.endpoint.site}" if news.endpoint.site else f"{by}endpoint {news.endpoint.id}"
