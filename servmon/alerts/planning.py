"""Tells people of planned work: stored with what they know by then, sent through the outbox, once, over any restart.

A follower: it delays no check and no alert. While Postgres is away it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from servmon.alerts import plan_messages
from servmon.alerts.alert import Notification
from servmon.alerts.alerting import Alerting
from servmon.alerts.dispatcher import Dispatcher
from servmon.alerts.plans import ENDS_SOON, LOOKED_BACK, Notice, Present, Told, due, forgettable
from servmon.alerts.routing import Facts
from servmon.alerts.window_ends import ending_id
from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.detection.maintenance import Covered
from servmon.model import MaintenanceWindow
from servmon.store import plans
from servmon.store.pool import Pool

ROUND_SECONDS = 5.0
# No lead time is longer.
LONGEST_LEAD = timedelta(days=60)
_TIMES = ("start_time", "end_time", "warned_end")


class Planning:
    """Looks every few seconds what people have to hear of the windows in Postgres."""

    def __init__(
        self, db: Pool, alerting: Alerting, dispatcher: Dispatcher, facts: Facts, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._db = db
        self._alerting = alerting
        self._dispatcher = dispatcher
        self._facts = facts
        self._clock = clock
        # Of these nobody knows whether they were stored when the connection was lost.
        self._unsure: list[Notification] = []

    async def follow(self) -> None:
        """Tell what is due, for ever; raises where Postgres is away."""
        await self._alerting.restored.wait()  # what is owed from before must not be sent beside this
        while True:
            await self.round()
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> None:
        """Tell what is due now."""
        async with self._db.acquire() as connection:
            await self._settle_unsure(connection)
            at = now(self._clock)
            windows = await plans.windows_to_tell(connection, at - LOOKED_BACK, at + LONGEST_LEAD)
            known = [told_in(row) for row in await plans.told(connection)]
            messages, changed = self.look(windows, known, at)
            gone = [(one.window_id, one.key) for one in forgettable(known, at)]
            if not (changed or gone):
                return
            self._unsure = messages
            await plans.record(connection, messages, changed, gone)
            await self._hand_over(messages)

    def look(
        self, windows: Sequence[MaintenanceWindow], known: Sequence[Told], at: datetime
    ) -> tuple[list[Notification], list[Told]]:
        """The messages that are due, and what people know afterwards, where that changes."""
        covered = {(one.occurrence.window_id, one.occurrence.key): one for one in self._facts.covered()}
        notices, changed = due(windows, known, self._present(at, covered))
        return [message for notice in notices for message in self._composed(notice, at, covered)], changed

    def _present(self, at: datetime, covered: dict[tuple[str, str], Covered]) -> Present:
        down, ended = {}, {}
        for key, one in covered.items():
            end = one.occurrence.end_time
            if end - ENDS_SOON <= at < end:
                down[key] = self._silent(one)
            elif end <= at and (known := self._dispatcher.window_ends.told.get(ending_id(one))) is not None:
                ended[key] = known
        return Present(at, down, ended, self._dispatcher.settings.notification_channels)

    def _composed(
        self, notice: Notice, at: datetime, covered: dict[tuple[str, str], Covered]
    ) -> Iterator[Notification]:
        one = covered.get((notice.told.window_id, notice.told.key))
        runs = notice.told.begun and one is not None
        down = self._silent(one) if one and runs else []
        return plan_messages.compose(notice, at, len(one.endpoint_ids) if one else None, down)

    def _silent(self, covered: Covered) -> list[str]:
        return sorted(one for one in covered.endpoint_ids if self._facts.does_not_answer(one))

    async def _settle_unsure(self, connection: Any) -> None:
        if self._unsure:
            stored = await plans.stored(connection, [one.id for one in self._unsure])
            await self._hand_over([one for one in self._unsure if one.id in stored])

    async def _hand_over(self, messages: list[Notification]) -> None:
        self._unsure = []
        await self._alerting.send(messages)


def told_in(row: dict[str, Any]) -> Told:
    """What people know of an occurrence, as it was stored."""
    known = {field.name: row[field.name] for field in fields(Told) if field.name in row}
    times = {name: datetime.fromisoformat(row[name]) for name in _TIMES if row.get(name)}
    return Told(**{**known, **times, "channels": tuple(row["channels"])})
