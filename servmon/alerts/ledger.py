"""What was decided and what became of messages: on disk before anything is sent, and from there to Postgres.

A start without Postgres takes it up from the disk: who was told of what, and who still has to be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from servmon.alerts.alert import Alert, Notification, Told
from servmon.alerts.outcomes import Mark
from servmon.alerts.record import record_of
from servmon.alerts.routing import Silence
from servmon.errors import StoreUnavailableError
from servmon.store import alerts, notifications, silences
from servmon.store.alerts import Record
from servmon.store.notebook import Notebook
from servmon.store.plain import dump, load
from servmon.store.pool import NEVER, Connection

_log = structlog.get_logger(__name__)

# The subjects of the pages, each by the id of what is on it.
ROUND, ALERT, OWED, MARK, SILENCE, ACKNOWLEDGED = "round", "alert", "owed", "mark", "silence", "acknowledged"
SETTLED = "settled"
SUBJECTS = (ROUND, ALERT, OWED, MARK, SILENCE, ACKNOWLEDGED, SETTLED)
# A failover to a replica may lose what was stored in the last minutes; until then it can be stored once more.
KEPT = timedelta(minutes=5)
# What was decided on lately is known by its id for longer than the spool holds it.
REMEMBERED = 2 * KEPT


@dataclass(frozen=True, slots=True)
class Round:
    """One round as it is stored; ``worse`` are the outages that were raised, so that nobody sees to them any more."""

    record: Record
    worse: Sequence[str]


@dataclass(frozen=True, slots=True)
class Noted:
    """What a start without Postgres knows: open alerts, messages owed, silences, and the outages somebody sees to.

    ``settled`` are the ids of the news that was decided on lately.
    """

    alerts: Sequence[Alert]
    owed: Sequence[Notification]
    silences: Sequence[Silence]
    acknowledged: frozenset[str]
    settled: frozenset[str]


class Ledger:
    """Rounds and marks that Postgres has not got yet, oldest first. Without a ``notebook`` they are in memory alone."""

    def __init__(self, notebook: Notebook | None = None) -> None:
        self._notebook = notebook
        self._number = 0
        self._rounds: deque[tuple[str, Round]] = deque()
        self._marks: dict[str, Mark] = {}
        self._recent: deque[tuple[str, Round]] = deque()
        self._recent_marks: dict[str, tuple[datetime, Mark]] = {}
        # What is to be taken out of the notebook, since Postgres has it.
        self._done: dict[str, dict[str, str | None]] = {}
        self._noted_people: tuple[Any, ...] = ()
        self._settled_at: dict[str, datetime] = {}

    @property
    def is_empty(self) -> bool:
        """Whether Postgres has everything."""
        return not self._rounds and not self._marks

    def settled(self) -> set[str]:
        """The ids of the news that was decided on in rounds which wait."""
        return {news_id for _, waiting in self._rounds for news_id in waiting.record.processed}

    async def recall(self) -> Noted:
        """Take up what waited at the end of an earlier run; returns what else was known then."""
        pages: Mapping[str, Mapping[str, str]] = {subject: {} for subject in SUBJECTS}
        if self._notebook is not None:
            with suppress(StoreUnavailableError):
                pages = await self._notebook.read(*SUBJECTS)
        for number, body in sorted(pages[ROUND].items()):
            self._rounds.append((number, load(Round, body)))
            self._number = int(number)
        self._marks = {key: load(Mark, body) for key, body in pages[MARK].items()}
        self._settled_at = {key: load(datetime, body) for key, body in pages[SETTLED].items()}
        return Noted(
            alerts=[load(Alert, body) for body in pages[ALERT].values()],
            owed=[self._as_marked(load(Notification, body)) for body in pages[OWED].values()],
            silences=[load(Silence, body) for body in pages[SILENCE].values()],
            acknowledged=frozenset(pages[ACKNOWLEDGED]),
            settled=frozenset(self._settled_at),
        )

    def _as_marked(self, owed: Notification) -> Notification:
        """The message with what had become of it."""
        mark = self._marks.get(owed.id)
        if mark is None:
            return owed
        return replace(owed, attempts=mark.attempts, last_error=mark.last_error, served=mark.served, lost=mark.lost)

    def forget(self) -> None:
        """Hold nothing any more; what is on disk stays there."""
        self._rounds.clear()
        self._marks.clear()
        self._recent.clear()
        self._recent_marks.clear()

    async def enter(self, told: Told, processed: Sequence[str], at: datetime) -> None:
        """Take a round; once this returns, it outlives the process."""
        self._number += 1
        key, decided = f"{self._number:012}", Round(record_of(told, processed, at), tuple(told.worse))
        self._rounds.append((key, decided))
        await self._write(
            {
                ROUND: {key: dump(decided)},
                ALERT: {one.id: None if one.closed_at else dump(one) for one in told.alerts.values()},
                OWED: {one.id: dump(one) for one in told.notifications},
                SETTLED: self._settle(processed, at),
            }
        )

    async def note_owed(self, stored: Sequence[Notification]) -> None:
        """Note messages that Postgres has, for a start without it."""
        await self._write({OWED: {one.id: dump(one) for one in stored}})

    def _settle(self, processed: Sequence[str], at: datetime) -> dict[str, str | None]:
        """Pages that say what is settled by now, and no longer what was long ago."""
        old = [key for key, settled_at in self._settled_at.items() if at - settled_at > REMEMBERED]
        for key in old:
            del self._settled_at[key]
        self._settled_at.update(dict.fromkeys(processed, at))
        return {**dict.fromkeys(old), **dict.fromkeys(processed, dump(at))}

    def mark(self, mark: Mark) -> None:
        """Take what became of a message."""
        self._marks[mark.id] = mark

    async def note_marks(self) -> None:
        """What became of messages outlives the process, too, where Postgres does not take it."""
        if self._marks:
            gone: dict[str, str | None] = {key: None for key, mark in self._marks.items() if mark.is_final}
            await self._write({MARK: {key: dump(mark) for key, mark in self._marks.items()}, OWED: gone})

    async def note_people(self, ongoing: Sequence[Silence], acknowledged: Iterable[str]) -> None:
        """Note the silences that are not over, and the outages somebody sees to."""
        people = (tuple(ongoing), frozenset(acknowledged))
        if self._notebook is None or people == self._noted_people:
            return
        with suppress(StoreUnavailableError):
            await self._notebook.replace(
                {SILENCE: {one.id: dump(one) for one in people[0]}, ACKNOWLEDGED: dict.fromkeys(people[1], "")}
            )
            self._noted_people = people

    async def store(self, db: Connection, unstored: set[str], at: datetime) -> None:
        """Bring what waits to Postgres, each round in one transaction, and none before the changes that it settles.

        ``unstored`` are the ids of changes and events that Postgres has not got yet.
        """
        self._forget(at)
        while self._rounds and unstored.isdisjoint(self._rounds[0][1].record.processed):
            key, waiting = self._rounds[0]
            await _store(db, waiting)
            self._recent.append(self._rounds.popleft())
            self._done.setdefault(ROUND, {})[key] = None
        if self._marks and not self._rounds:  # only then is there a message to be marked
            await self._store_marks(db, at)
        if self._done:
            done, self._done = self._done, {}
            await self._write(done)

    def store_again(self) -> None:
        """Another server may lack what the one before was given lately."""
        self._rounds.extendleft(reversed(self._recent))
        self._recent.clear()
        self._marks = {key: mark for key, (_, mark) in self._recent_marks.items()} | self._marks
        self._recent_marks.clear()

    async def _store_marks(self, db: Connection, at: datetime) -> None:
        marks = dict(self._marks)
        try:
            await notifications.mark(db, list(marks.values()))
        except NEVER as error:
            _log.error("what became of messages could not be stored", problem=str(error))
        for key, mark in marks.items():
            if self._marks.get(key) is mark:
                del self._marks[key]
            self._recent_marks[key] = (at, mark)
            # A start without Postgres has to know who was served of a message that is still owed.
            self._done.setdefault(MARK, {})[key] = dump(mark) if mark.served and not mark.is_final else None
            if mark.is_final:
                self._done.setdefault(OWED, {})[key] = None

    def _forget(self, at: datetime) -> None:
        while self._recent and at - self._recent[0][1].record.at > KEPT:
            self._recent.popleft()
        self._recent_marks = {key: kept for key, kept in self._recent_marks.items() if at - kept[0] <= KEPT}

    async def _write(self, pages: Mapping[str, Mapping[str, str | None]]) -> None:
        """Where the disk fails too, people are told all the same."""
        if self._notebook is not None:
            with suppress(StoreUnavailableError):
                await self._notebook.write(pages)


async def _store(db: Connection, waiting: Round) -> None:
    try:
        await alerts.record(db, waiting.record)
    except NEVER as error:  # people were told; one round that cannot be stored holds up no other
        _log.error("decisions could not be stored", problem=str(error))
        await alerts.record(db, waiting.record.only_settled())
    if waiting.worse:
        await silences.unacknowledge(db, waiting.worse, "servmon", waiting.record.at, "it became worse")
