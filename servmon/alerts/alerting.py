"""The room's main flow: read what is owed → decide → store → send → mark. A follower: it delays no check.

While Postgres is away the changes that wait for it are decided on all the same; what was decided is stored once it
is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import structlog

from servmon.alerts import window_ends
from servmon.alerts.alert import News, Notification, Told, news_of, news_of_event
from servmon.alerts.channels.base import Channel
from servmon.alerts.content import INSTEAD_OF
from servmon.alerts.dispatcher import Dispatcher
from servmon.alerts.ledger import Ledger, Noted
from servmon.alerts.outbox import GIVE_UP_AFTER, Outbox
from servmon.alerts.outcomes import Mark
from servmon.alerts.record import alert_in, news_in, notification_in, silence_in
from servmon.alerts.settings import AlertSection
from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.errors import StoreUnavailableError
from servmon.model import Endpoint, Event, Transition
from servmon.store import alerts, notifications, silences
from servmon.store.own_connection import OwnConnection
from servmon.store.pool import AWAY, Connection

_log = structlog.get_logger(__name__)

ROUND_SECONDS = 1.0
READ_ALL_EVERY = timedelta(seconds=10)
# Longer than a window is looked at after its end.
REMEMBERED_ENDS = timedelta(hours=3)


class Found(NamedTuple):
    """News, ids of changes that are none, how far was read, and when to read all of it the next time."""

    news: list[News]
    settles: list[str]
    cursor: int
    read_all_at: datetime


class Unstored(Protocol):
    """What waits for Postgres; the writer's."""

    @property
    def is_away(self) -> bool:
        """Whether Postgres takes nothing just now, though it may still answer."""
        ...

    @property
    def servers_met(self) -> int:
        """How often another server stood in for the one before."""
        ...

    async def lately(self) -> tuple[Sequence[Transition], Sequence[Event]]:
        """Those of the last minutes, whether or not Postgres has them."""
        ...

    def unstored(self) -> Sequence[Transition]:
        """The transitions that wait, oldest first."""
        ...

    def unstored_events(self) -> Sequence[Event]:
        """The events that wait, oldest first."""
        ...


class Alerting:
    """Decides on all news and sees to it that what is owed leaves.

    ``waiting`` is what waits for Postgres; ``endpoint`` finds an endpoint under watch.
    """

    def __init__(
        self,
        dsn: str,
        dispatcher: Dispatcher,
        *,
        waiting: Unstored,
        endpoint: Callable[[str], Endpoint | None],
        troubles: dict[str, str],
        ledger: Ledger | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._postgres = OwnConnection(dsn)
        self._dispatcher = dispatcher
        self._waiting = waiting
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
        self._ledger = ledger or Ledger()
        self._servers_known = 0
        self._noted: Noted | None = None
        # Copies for fallbacks, which the outbox makes by itself.
        self._added: list[Notification] = []
        self.restored = asyncio.Event()
        # News that was decided on before Postgres had it; once it is read there it is settled.
        self._decided_away: set[str] = set()
        self._marked = asyncio.Event()
        self._cursor = 0
        self._read_all_at = now(clock)

    @property
    def owed(self) -> int:
        """How many messages wait to be sent."""
        return self.outbox.waiting

    def go_by(self, settings: AlertSection) -> None:
        """Go by these settings from the next round on; the ways out stay as they are."""
        self._dispatcher.settings = settings

    def configure(self, settings: AlertSection, channels: Mapping[str, tuple[Channel, str | None]]) -> None:
        """Go by these settings from the next round on."""
        self.go_by(settings)
        self._dispatcher.channel_names = tuple(channels)
        self.outbox.open(channels)

    async def run(self) -> None:
        """Decide and send, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.outbox.run(), name="outbox")
            group.create_task(self._decide(), name="alert decisions")

    async def send(self, stored: Sequence[Notification]) -> None:
        """See to it that messages leave which are in Postgres already."""
        await self._ledger.note_owed(stored)
        self.outbox.put(stored)

    async def hand_over(self) -> None:
        """Store what an earlier run decided; another daemon goes on from there."""
        await self._ledger.recall()
        try:
            await self._postgres.ask(self._store)
        finally:
            self._postgres.hang_up()
            self._ledger.forget()

    async def _decide(self) -> None:
        try:
            while True:
                await self.round()
                await self._wait_for_a_round()
        finally:
            self._postgres.hang_up()

    async def _wait_for_a_round(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(ROUND_SECONDS):
                await self._marked.wait()

    async def _restore(self, db: Connection) -> None:
        """Take up alerts and owed messages as they were when servmon stopped."""
        await self._store(db)
        if not self._ledger.is_empty:
            raise StoreUnavailableError("decisions of an earlier run wait for their changes")
        opened = [alert_in(row) for row in await alerts.open_alerts(db)]
        owed = [notification_in(row) for row in await notifications.owed(db)]
        around = await notifications.told_around(db, now(self._clock) - GIVE_UP_AFTER)
        told_windows = await alerts.opened_since(db, window_ends.RULE, now(self._clock) - REMEMBERED_ENDS)
        self._dispatcher.restore(opened, told_windows)
        self.outbox.restore(owed, around)
        self.restored.set()

    async def _restore_noted(self, noted: Noted) -> list[News]:
        """Take them up as they were last noted, since Postgres is away; returns what nobody had decided on by then."""
        self._decided_away |= self._ledger.settled() | noted.settled
        self._dispatcher.silences, self._dispatcher.acknowledged = noted.silences, noted.acknowledged
        self._dispatcher.restore(noted.alerts)
        self.outbox.restore(noted.owed, [one.content[INSTEAD_OF] for one in noted.owed if INSTEAD_OF in one.content])
        self.restored.set()
        return list(self._news_of(*await self._waiting.lately()))

    async def round(self) -> None:
        """Decide on what arrived and on what is due, store that, and hand the messages over."""
        if self._noted is None:
            self._noted = await self._ledger.recall()
        away = False
        try:
            news, settles = self._take(await self._postgres.ask(self._read))
        except AWAY:
            away = True
            news, settles = await self._read_unstored(self._noted), []
        told = self._dispatcher.step(news, now(self._clock))
        decided = {decision.news_id for decision in told.decisions}
        settles += [news_id for news_id in decided if not self._dispatcher.is_waiting(news_id)]
        for defect in told.defects:
            _log.error("news could not be judged", exc_info=defect)
        await self._enter(told, settles)
        self._marked.clear()  # what is marked meanwhile is stored in a round that comes at once
        try:
            if not away:
                await self._postgres.ask(self._store)
        except AWAY:
            away = True
        finally:
            # Stored, or on disk: either way people are told.
            self.outbox.put(told.notifications)
        if not self._ledger.is_empty:
            await self._ledger.note_marks()
            self._marked.clear()  # stored in a later round, which need not come at once

    async def _enter(self, told: Told, settles: Sequence[str]) -> None:
        copies, self._added = self._added, []
        if copies:
            await self._ledger.enter(Told(notifications=copies), (), now(self._clock))
        if told or settles:
            await self._ledger.enter(told, settles, now(self._clock))

    async def _read_unstored(self, noted: Noted) -> list[News]:
        """News that Postgres has not got, while it is away."""
        found = [] if self.restored.is_set() else await self._restore_noted(noted)
        found += self._news_of(self._waiting.unstored(), self._waiting.unstored_events())
        news = {one.id: one for one in found if one.id not in self._decided_away}
        self._decided_away.update(news)
        return list(news.values())

    async def _read(self, db: Connection) -> Found:
        """What is owed since the last time, or from time to time all of it."""
        if self._waiting.is_away:
            raise StoreUnavailableError("Postgres takes nothing just now")
        if not self.restored.is_set():
            await self._restore(db)
        cursor, read_all_at = self._cursor, self._read_all_at
        if (present := now(self._clock)) >= read_all_at:
            # What waits may read otherwise by now, and a change may have become visible after a later one.
            cursor, read_all_at = 0, present + READ_ALL_EVERY
            self._dispatcher.silences = [silence_in(row) for row in await silences.not_ended(db, present)]
            self._dispatcher.acknowledged = frozenset(await silences.acknowledged(db))
            await self._ledger.note_people(self._dispatcher.silences, self._dispatcher.acknowledged)
        news: list[News] = []
        settles: list[str] = []
        more = True
        while more:
            owed = await alerts.owed(db, cursor)
            found, nothing = news_in(owed)
            news += found
            settles += nothing
            cursor, more = owed.last, owed.more
        return Found(news, settles, cursor, read_all_at)

    def _take(self, found: Found) -> tuple[list[News], list[str]]:
        """What of it is to be decided on, and ids of what only has to be settled.

        Nothing here waits or fails: what was read in a round that failed is read once more.
        """
        news, settles, self._cursor, self._read_all_at = found
        if self._servers_known != self._waiting.servers_met:
            self._servers_known = self._waiting.servers_met
            self._ledger.store_again()
        settled = self._ledger.settled()
        away = [one.id for one in news if one.id in self._decided_away and not self._dispatcher.is_waiting(one.id)]
        self._decided_away.difference_update(one.id for one in news)
        known = settled.union(away)
        return [one for one in news if one.id not in known], [one for one in settles if one not in settled] + away

    def _news_of(self, transitions: Sequence[Transition], events: Sequence[Event]) -> Iterator[News]:
        for transition in transitions:
            change = transition.change
            endpoint = self._endpoint(change.endpoint_id)
            if endpoint and (news := news_of(change, transition.outage, endpoint)):
                yield news
        yield from map(news_of_event, events)

    async def _store(self, db: Connection) -> None:
        unstored = {one.change.id for one in self._waiting.unstored()} | {
            one.id for one in self._waiting.unstored_events()
        }
        await self._ledger.store(db, unstored, now(self._clock))

    def _mark(self, mark: Mark) -> None:
        self._ledger.mark(mark)
        # Soon: what is sent and not marked is sent again after a crash.
        self._marked.set()

    def _add(self, notification: Notification) -> None:
        self._added.append(notification)
