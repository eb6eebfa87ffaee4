"""The room's main flow: read what is owed → decide → store → send → mark. A follower: it delays no check.

While Postgres is away the changes that wait for it are decided on all the same; what was decided is stored once it
is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

import structlog

from servmon.alerts.alert import News, Notification, Told, news_of, news_of_event
from servmon.alerts.channels.base import Channel
from servmon.alerts.dispatcher import Dispatcher
from servmon.alerts.outbox import GIVE_UP_AFTER, Mark, Outbox
from servmon.alerts.record import alert_in, news_in, notification_in, record_of, silence_in
from servmon.alerts.settings import AlertSection
from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.model import Endpoint, Event, Transition
from servmon.store import alerts, notifications, silences
from servmon.store.pool import AWAY, NEVER, Connection, connect

_log = structlog.get_logger(__name__)

T = TypeVar("T")

ROUND_SECONDS = 1.0
# A Postgres that takes longer counts as away: people are told all the same.
PATIENCE_SECONDS = 5.0
READ_ALL_EVERY = timedelta(seconds=10)


class Alerting:
    """Decides on all news and sees to it that what is owed leaves.

    ``transitions`` and ``events`` are those that wait for Postgres; ``endpoint`` finds an endpoint under watch.
    """

    def __init__(
        self,
        dsn: str,
        dispatcher: Dispatcher,
        *,
        transitions: Callable[[], Sequence[Transition]],
        events: Callable[[], Sequence[Event]],
        endpoint: Callable[[str], Endpoint | None],
        troubles: dict[str, str],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._dsn = dsn
        self._connection: Connection = None
        self._dispatcher = dispatcher
        self._transitions = transitions
        self._events = events
        self._endpoint = endpoint
        self._clock = clock
        self.outbox = Outbox(
            marked=self._mark,
            added=self._add,
            over=lambda alert_id: alert_id not in dispatcher.alerts,
            troubles=troubles,
            dry_run=lambda: dispatcher.settings.dry_run,
            clock=clock,
        )
        self._restored = False
        # What is decided and not stored yet, each round with the ids of the news that it settles.
        self._rounds: list[tuple[Told, list[str]]] = []
        # News that was decided on before Postgres had it; once it is read there it is settled.
        self._decided_away: set[str] = set()
        self._marks: dict[str, Mark] = {}
        self._marked = asyncio.Event()
        self._cursor = 0
        self._read_all_at = now(clock)

    @property
    def owed(self) -> int:
        """How many messages wait to be sent."""
        return self.outbox.waiting

    def configure(self, settings: AlertSection, channels: Mapping[str, tuple[Channel, str | None]]) -> None:
        """Go by these settings from the next round on."""
        self._dispatcher.settings = settings
        self._dispatcher.channel_names = tuple(channels)
        self.outbox.open(channels)

    async def run(self) -> None:
        """Decide and send, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.outbox.run(), name="outbox")
            group.create_task(self._decide(), name="alert decisions")

    async def _decide(self) -> None:
        try:
            while True:
                await self.round()
                await self._wait_for_a_round()
        finally:
            self._hang_up()

    async def _wait_for_a_round(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(ROUND_SECONDS):
                await self._marked.wait()

    async def _restore(self, db: Connection) -> None:
        """Take up alerts and owed messages as they were when servmon stopped."""
        opened = [alert_in(row) for row in await alerts.open_alerts(db)]
        owed = [notification_in(row) for row in await notifications.owed(db)]
        around = await notifications.told_around(db, now(self._clock) - GIVE_UP_AFTER)
        self._dispatcher.restore(opened)
        self.outbox.restore(owed, around)
        self._restored = True

    async def round(self) -> None:
        """Decide on what arrived and on what is due, store that, and hand the messages over."""
        away = False
        try:
            news, settles = await self._ask(self._read)
        except AWAY:
            away = True
            news, settles = [one for one in self._unstored_news() if one.id not in self._decided_away], []
            self._decided_away.update(one.id for one in news)
        told = self._dispatcher.step(news, now(self._clock))
        decided = {decision.news_id for decision in told.decisions}
        settles += [news_id for news_id in decided if not self._dispatcher.is_waiting(news_id)]
        for defect in told.defects:
            _log.error("news could not be judged", exc_info=defect)
        if told or settles:
            self._rounds.append((told, settles))
        try:
            if not away:
                await self._ask(self._store)
        except AWAY:
            away = True
        finally:
            # Stored, or Postgres is away: either way people are told.
            self.outbox.put(told.notifications)
        if away:
            self._marked.clear()  # stored in a later round, which need not come at once

    async def _ask(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do ``work`` on a connection of our own, which a server that hangs loses after some seconds."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await connect(self._dsn)
                return await work(self._connection)
        except BaseException:
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _read(self, db: Connection) -> tuple[list[News], list[str]]:
        """News to decide on, and ids of changes that are none or were decided on while Postgres was away."""
        if not self._restored:
            await self._restore(db)
        present = now(self._clock)
        settled = {news_id for _, ids in self._rounds for news_id in ids}
        if present >= self._read_all_at:
            # What waits may read otherwise by now, and a change may have become visible after a later one.
            self._cursor = 0
            self._dispatcher.silences = [silence_in(row) for row in await silences.not_ended(db, present)]
            self._dispatcher.acknowledged = frozenset(await silences.acknowledged(db))
        news: list[News] = []
        settles: list[str] = []
        cursor, more = self._cursor, True
        while more:
            owed = await alerts.owed(db, cursor)
            found, nothing = news_in(owed)
            news += found
            settles += nothing
            cursor, more = owed.last, owed.more
        self._cursor = cursor
        if present >= self._read_all_at:
            self._read_all_at = present + READ_ALL_EVERY
        away = [one.id for one in news if one.id in self._decided_away and not self._dispatcher.is_waiting(one.id)]
        self._decided_away.difference_update(one.id for one in news)
        known = settled.union(away)
        return [one for one in news if one.id not in known], [one for one in settles if one not in settled] + away

    def _unstored_news(self) -> Iterator[News]:
        for transition in self._transitions():
            change = transition.change
            endpoint = self._endpoint(change.endpoint_id)
            if endpoint and (news := news_of(change, transition.outage, endpoint)):
                yield news
        yield from map(news_of_event, self._events())

    async def _store(self, db: Connection) -> None:
        """Store every round that is not stored yet, each in one transaction, and what became of messages."""
        while self._rounds:
            told, settles = self._rounds[0]
            record = record_of(told, settles, now(self._clock))
            try:
                await alerts.record(db, record)
            except NEVER as error:  # people were told; one round that cannot be stored holds up no other
                _log.error("decisions could not be stored", problem=str(error))
                await alerts.record(db, record.only_settled())
            if told.worse:
                await silences.unacknowledge(db, told.worse)
            del self._rounds[0]
        if self._marks:
            marks, self._marks = self._marks, {}
            self._marked.clear()
            try:
                await notifications.mark(db, list(marks.values()))
            except NEVER as error:
                _log.error("what became of messages could not be stored", problem=str(error))
            except BaseException:
                self._marks = marks | self._marks
                raise

    def _mark(self, mark: Mark) -> None:
        self._marks[mark.id] = mark
        # Soon: what is sent and not marked is sent again after a crash.
        self._marked.set()

    def _add(self, notification: Notification) -> None:
        self._rounds.append((Told(notifications=[notification]), []))
