"""What is told, when, and together with what: holds news back for a moment, groups it, and repeats what stays true.

Pure: news and a time go in, messages and decisions come out; no I/O, no clock. The parts stand beside it, by subject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import chain

from servmon.alerts.alert import Alert, News, NewsKind, Told
from servmon.alerts.conditions import Conditions
from servmon.alerts.escalating import Escalating
from servmon.alerts.gathering import Gathering
from servmon.alerts.long_outages import LongOutages
from servmon.alerts.outage_news import OutageNews
from servmon.alerts.repeating import Repeating
from servmon.alerts.routing import Facts
from servmon.alerts.settings import AlertSection
from servmon.alerts.slow import SlowAnswers
from servmon.alerts.tallies import Tallies
from servmon.alerts.telling import Round, Telling
from servmon.alerts.window_ends import WindowEnds
from servmon.alerts.window_telling import tell_window_end


class Dispatcher(Telling):
    """The rounds: what arrived is taken, then what is due is told. ``channel_names`` are those that exist."""

    def __init__(
        self, settings: AlertSection, channel_names: tuple[str, ...], facts: Facts, ids: Callable[[], str]
    ) -> None:
        super().__init__(settings, channel_names, facts, ids)
        self.window_ends = WindowEnds(facts)
        self._gathering = Gathering(self, self.window_ends)
        self._outages = OutageNews(self, self._gathering)
        self._conditions = Conditions(self)
        self._repeating = Repeating(self, self.window_ends)
        self._escalating = Escalating(self, self._repeating)
        self._slow = SlowAnswers(self)
        self._long = LongOutages(self, self._gathering, self.window_ends)
        self._tallies = Tallies(self, self._gathering, self.window_ends)
        # What the rules about response times look at; filled from outside.
        self.response_times = self._slow.times

    def restore(self, alerts: Iterable[Alert], told_windows: Iterable[str] = ()) -> None:
        """Take up the alerts that were open when servmon stopped, and which windows' ends were told."""
        self.window_ends.restore(told_windows)
        for alert in alerts:
            self.alerts.keep(alert)
            self._outages.restore(alert)
            self._slow.restore(alert)

    def is_waiting(self, news_id: str) -> bool:
        """Whether this news was taken and is not decided yet."""
        return news_id in self._gathering.waiting

    def step(self, arrived: Iterable[News], now: datetime) -> Told:
        """One round: take what arrived, in its order, and tell what is due."""
        at = self.begin_round(now)
        ended = self.window_ends.look(now, timedelta(seconds=self.settings.end_grace))
        self._gathering.look_at_held_again(at)
        for news in chain(arrived, self._slow.look(now)):
            try:
                self._take(news, at)
            except Exception as error:  # noqa: BLE001 - one of the five places that may: no news stops the others
                at.told.defects.append(error)
                at.decide(news, "defect", f"could not be judged: {type(error).__name__}")
        self._outages.settle_ended(at)
        for ending in ended:
            tell_window_end(self, self.window_ends, self._gathering.waiting, ending, at)
        self._gathering.flush(at)
        self._long.look(at)
        self._tallies.look(at)
        self._outages.tell_partly(at)
        self._escalating.look(at)
        self._repeating.remind(at)
        return at.told

    def _take(self, news: News, at: Round) -> None:
        if self.is_waiting(news.id):
            self._gathering.waiting.refresh(news)
        elif news.kind is NewsKind.RECOVERED:
            self._outages.take_recovered(news, at)
        elif news.kind is NewsKind.DOWN:
            self._outages.take_down(news, at)
        else:
            self._conditions.take(news, at)
