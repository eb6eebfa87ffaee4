"""Carries rows from Postgres to Elasticsearch, a page at a time: each becomes exactly one document.

A page is sent, what is refused for what it is becomes a dead letter, and only then it counts as synced. Whatever
breaks off in between is sent again, and arrives at the same index and id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.elastic import bulk, mapping
from servmon.elastic.bulk import Outcome
from servmon.elastic.cluster import Cluster, ElasticError
from servmon.elastic.mapping import Document, Kind
from servmon.metrics import Counters
from servmon.model import Outage
from servmon.store import elastic_cursor, elastic_due
from servmon.store.elastic_cursor import Numbered, Subjects
from servmon.store.elastic_due import DeadLetter, DueOutage
from servmon.store.pool import Connection

PAGE = 1000
# Where so many documents are refused, it is the index that is wrong: better to wait than to bury every row.
MOST_DEAD_LETTERS = 1000
WIDEST_SPAN = 1 << 30


class Sync:
    """One way from a database to a cluster. ``db`` is an ``elastic_cursor.open_reader``.

    Every method raises ``ElasticError`` where the cluster does not do its part, and the store's errors.
    """

    def __init__(
        self, db: Connection, cluster: Cluster, *, counters: Counters, ecs: bool = False, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._db = db
        self._cluster = cluster
        self._counters = counters
        self._ecs = ecs
        self._clock = clock
        self._subjects = Subjects()
        self._mark = -1
        self._span = PAGE
        self._letters: int | None = None

    @property
    def subjects(self) -> Subjects:
        """The endpoints that were read already."""
        return self._subjects

    async def statuses(self) -> int:
        """Send the next page of results, oldest first; returns how many may be left.

        A round goes to a number below which no row will appear any more; the next one begins where it ended.
        """
        cursor = await elastic_cursor.cursor(self._db)
        if cursor >= self._mark:
            self._letters = None
            await self._subjects.renew(self._db)
            await elastic_cursor.summarize(self._db)
            self._mark = await elastic_cursor.settled_mark(self._db)
        if cursor >= self._mark:
            return 0
        until = min(self._mark, cursor + self._span)
        page, end = await elastic_cursor.page(self._db, self._subjects, cursor, until, PAGE)
        # Numbers without rows were given to what was stored already, in thousands after an outage of Postgres.
        self._span = PAGE if page else min(2 * self._span, WIDEST_SPAN)
        await self.deliver(self.status_documents(page))
        await elastic_cursor.advance(self._db, end)
        return self._mark - end

    def status_documents(self, page: Sequence[Numbered]) -> list[Document]:
        """The documents of some results."""
        return [mapping.status_document(row.status, row.endpoint, seq=row.seq, ecs=self._ecs) for row in page]

    async def outages(self) -> bool:
        """Send some outages that changed; returns whether there may be more."""
        await self._subjects.renew(self._db)
        due = await elastic_due.outages_due(self._db, self._subjects, PAGE)
        await self._send_outages(due)
        return len(due) == PAGE

    async def refresh_open(self) -> None:
        """Say again of every open outage that it is."""
        last: Outage | None = None
        while True:
            page = await elastic_due.open_outages(self._db, self._subjects, last, PAGE)
            await self._send_outages(page)
            if len(page) < PAGE:
                return
            last = page[-1].outage

    async def outages_since(self, since: datetime, after: Outage | None) -> list[DueOutage]:
        """Send a page of the outages that lasted at ``since`` or began later, whether they were sent before or not."""
        page = await elastic_due.outages_since(self._db, self._subjects, since, after, PAGE)
        await self._send_outages(page)
        return page

    async def _send_outages(self, due: Sequence[DueOutage]) -> None:
        seen_at = now(self._clock)
        by_id = {one.outage.id: one for one in due}
        documents = [mapping.outage_document(one.outage, one.endpoint, seen_at=seen_at, ecs=self._ecs) for one in due]
        outcome = await self._send(documents)
        await elastic_due.outages_synced(self._db, [by_id[document.id] for document in outcome.arrived])
        _insist(outcome)

    async def windows(self, *, all_of_them: bool = False) -> int:
        """Send the windows that changed, or all, and take away those that were deleted; returns how many were sent."""
        last, number = None, 0
        while page := await elastic_due.windows_due(self._db, last, PAGE, all_of_them=all_of_them):
            by_id = {due.window.id: due for due in page}
            outcome = await self._send(
                [mapping.maintenance_document(due.window, due.names, version=due.version) for due in page]
            )
            await elastic_due.windows_synced(self._db, [by_id[document.id] for document in outcome.arrived])
            _insist(outcome)
            last, number = page[-1].window.id, number + len(page)
        await self._remove_windows()
        return number

    async def _remove_windows(self) -> None:
        while gone := await elastic_due.windows_gone(self._db, PAGE):
            version = round(self._clock.wall() * 1_000_000)
            _insist(await bulk.remove(self._cluster, mapping.MAINTENANCE_INDEX, gone, version))
            await elastic_due.forget_windows(self._db, gone)

    async def offer_dead_letters(self) -> None:
        """Try once more what was refused."""
        await elastic_due.offer_again(self._db)
        self._letters = None
        last = None
        while page := await elastic_due.dead_letters(self._db, Kind.STATUS, last, PAGE):
            await self.deliver(
                Document(Kind.STATUS, one.index_name, one.document_id, one.version, one.document) for one in page
            )
            last = page[-1].document_id

    async def deliver(self, documents: Iterable[Document]) -> None:
        """Send documents; all of them have arrived or are dead letters afterwards."""
        _insist(await self._send(documents))

    async def _send(self, documents: Iterable[Document]) -> Outcome:
        outcome = await bulk.send(self._cluster, documents)
        self._counters.elasticsearch_documents += len(outcome.arrived)
        self._counters.elasticsearch_refused += len(outcome.refused)
        await self._forget_letters(outcome.arrived)
        await self._bury(outcome)
        return outcome

    async def _forget_letters(self, arrived: Sequence[Document]) -> None:
        if self._letters is None:
            self._letters, _ = await elastic_due.count_letters(self._db)
        if self._letters and arrived:
            await elastic_due.delivered(self._db, ((document.kind, document.id) for document in arrived))

    async def _bury(self, outcome: Outcome) -> None:
        if not outcome.refused:
            return
        await elastic_due.bury(
            self._db,
            [
                DeadLetter(one.kind, one.id, one.version, one.index, one.source, reason, 1)
                for one, reason in outcome.refused
            ],
        )
        self._letters, newest = await elastic_due.count_letters(self._db)
        if self._letters > MOST_DEAD_LETTERS:
            raise ElasticError(
                f"{self._letters} documents are refused, so no more are sent: {newest}. Mend or delete the index, then"
                " run `servmon elastic resync`"
            )


def _insist(outcome: Outcome) -> None:
    if outcome.later:
        raise bulk.first_reason(outcome)
