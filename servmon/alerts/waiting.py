"""News that is not told yet: gathered in groups that are due at some time, or held back by a passing reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from servmon.alerts.alert import News


@dataclass(slots=True)
class Group:
    """News that is told in one message once ``due_at`` has come."""

    due_at: datetime
    news: dict[str, News] = field(default_factory=dict)


class Waiting:
    """Each piece of news once, found by its id, by its outage and by its group."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self._held: dict[str, News] = {}
        # Where each piece is: the key of its group, or None while it is held.
        self._places: dict[str, str | None] = {}
        self._of_outage: dict[str, str] = {}

    def __contains__(self, news_id: str) -> bool:
        return news_id in self._places

    @property
    def held(self) -> tuple[News, ...]:
        """What a passing reason keeps back, oldest first."""
        return tuple(self._held.values())

    def hold(self, news: News) -> None:
        """Keep ``news`` back until it is dropped or joins a group."""
        self._held[news.id] = news
        self._note(news, None)

    def join(self, key: str, news: News, due_at: datetime) -> None:
        """Gather ``news`` in the group ``key``; a new group is due at ``due_at``."""
        self._held.pop(news.id, None)
        self.groups.setdefault(key, Group(due_at)).news[news.id] = news
        self._note(news, key)

    def refresh(self, news: News) -> None:
        """Take what is known by now of news that waits."""
        key = self._places[news.id]
        (self._held if key is None else self.groups[key].news)[news.id] = news

    def of_outage(self, outage_id: str) -> News | None:
        """The news of an outage that waits, if it does."""
        news_id = self._of_outage.get(outage_id)
        if news_id is None:
            return None
        key = self._places[news_id]
        return (self._held if key is None else self.groups[key].news)[news_id]

    def is_held(self, news: News) -> bool:
        """Whether a passing reason keeps it back, rather than its group's time."""
        return news.id in self._held

    def group_of(self, news: News) -> str | None:
        """The group in which it waits; ``None`` while it is held."""
        return self._places.get(news.id)

    def drop(self, news: News) -> None:
        """Forget one piece of news; an empty group goes with it."""
        key = self._places.pop(news.id)
        self._of_outage.pop(news.outage_id or "", None)
        if key is None:
            del self._held[news.id]
            return
        del self.groups[key].news[news.id]
        if not self.groups[key].news:
            del self.groups[key]

    def take(self, key: str) -> list[News]:
        """A group's news, which waits no longer."""
        return list(self._taken(key))

    def _taken(self, key: str) -> Iterator[News]:
        for news in self.groups.pop(key).news.values():
            del self._places[news.id]
            self._of_outage.pop(news.outage_id or "", None)
            yield news

    def _note(self, news: News, key: str | None) -> None:
        self._places[news.id] = key
        if news.outage_id:
            self._of_outage[news.outage_id] = news.id
