"""Stores what the checks found and what it meant: in batches, off the path of the checks, nothing twice.

The only way of check results into Postgres. A connection of its own, so that no reader ever waits for it or makes
it wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import asyncpg
import structlog

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import StoreUnavailableError
from servmon.metrics import Counters
from servmon.model import CheckResult, Outage, Transition
from servmon.store import rows
from servmon.store.pool import NEVER, connect, transaction
from servmon.store.spool import Entry, Spool
from servmon.tasks import cancel, spawn

_log = structlog.get_logger(__name__)

FLUSH_SECONDS = 0.25
FULL_BATCH = 500
# After a wait for Postgres, larger batches catch up faster; beyond this they only take longer to repeat.
LARGEST_BATCH = 5000
QUEUE_LIMIT = 200_000
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 5.0
# A server that does not answer for so long is given up with its connection, and asked again on another one.
PATIENCE_SECONDS = 5.0
# What waited on disk comes in large batches, for which a busy server may need longer.
REPLAY_PATIENCE_SECONDS = 30.0
# At the stop the process has to end soon; while Postgres takes batches it gets all the time it needs.
DRAIN_PATIENCE_SECONDS = 3.0

# Postgres is away, or refuses for now: full, read-only, shutting down, not migrated. The batch is kept.
_AWAY = (
    OSError,
    StoreUnavailableError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_COLUMNS = ", ".join(rows.STATUS_COLUMNS)

_STAGE = f"""
create temporary table if not exists service_status_staged on commit delete rows
as select {_COLUMNS} from service_status_row with no data
"""  # noqa: S608 - only column names stand in it

_UNSTAGE = f"""
insert into service_status_row ({_COLUMNS}) select {_COLUMNS} from service_status_staged on conflict do nothing
"""  # noqa: S608 - only column names stand in it

_ENSURE_PARTITIONS = """
select ensure_status_partition(day) from unnest($1::date[]) as day
"""

_OUTAGES_WRITTEN = """
written as (
    select * from jsonb_to_recordset($1::text::jsonb) as w(
        id uuid, endpoint_id text, severity severity_type, description text, start_time timestamptz,
        declared_at timestamptz, last_good_at timestamptz, resolved boolean, resolved_at timestamptz,
        resolution_notes text, notification_channels jsonb, evidence jsonb, revision bigint)
)
"""

# An endpoint has one open outage. Where another one still stands open, nobody follows it any more.
_CLOSE_FORGOTTEN = f"""
with {_OUTAGES_WRITTEN}
select close_outage(o.id, w.start_time, $2, 'outage superseded')
from written w
join service_outage o on o.endpoint_id = w.endpoint_id and not o.resolved and o.id <> w.id
where not w.resolved and not exists (select from written again where again.id = o.id)
"""  # noqa: S608 - made of the constant above

# What was resolved by somebody else stays as they left it. Resolved ones go first, to make room for a new open one.
_STORE_OUTAGES = f"""
with {_OUTAGES_WRITTEN}
insert into service_outage as stored (
    id, endpoint_id, severity, description, start_time, declared_at, last_good_at, resolved, resolved_at,
    resolution_notes, notification_channels, evidence, revision)
select
    id, endpoint_id, severity, description, start_time, declared_at, last_good_at, resolved,
    case when resolved then greatest(resolved_at, start_time) end,
    resolution_notes, notification_channels, evidence, revision
from written
order by resolved desc
on conflict (id) do update set
    severity = excluded.severity,
    description = excluded.description,
    last_good_at = excluded.last_good_at,
    resolved = excluded.resolved,
    resolved_at = excluded.resolved_at,
    resolution_notes = coalesce(excluded.resolution_notes, stored.resolution_notes),
    evidence = excluded.evidence,
    revision = greatest(stored.revision + 1, excluded.revision)
where not stored.resolved and (excluded.resolved or stored.revision < excluded.revision)
"""  # noqa: S608 - made of the constant above

_STORE_CHANGES = """
insert into state_change (id, endpoint_id, old_state, new_state, reason, evidence, at, outage_id)
select id, endpoint_id, old_state, new_state, reason, evidence, at, outage_id
from rows from (jsonb_to_recordset($1::text::jsonb) as (
    id uuid, endpoint_id text, old_state text, new_state text, reason text, evidence jsonb, at timestamptz,
    outage_id uuid
)) with ordinality
order by ordinality
on conflict (id) do nothing
"""

_CLOSE_UNWATCHED = """
select close_outages_of_unwatched()
"""

SUPERSEDED = "Closed because a newer outage of the endpoint was declared"


class Writer:
    """Takes results and transitions at any time and stores them soon, each with its transitions in one transaction.

    ``observer`` is this daemon's number in the rows. While Postgres is away everything goes to ``spool`` and from
    there to Postgres, oldest first, once it is back. Without a spool, or where its disk fails, all waits in memory:
    beyond 200,000 waiting results the oldest are dropped and counted, transitions never.
    """

    def __init__(self, dsn: str, counters: Counters, observer: int, spool: Spool | None = None) -> None:
        self._dsn = dsn
        self._counters = counters
        self._observer = observer
        self._spool = spool
        # The transitions in the spool, for those who need to know what Postgres does not.
        self._spooled: list[Transition] = []
        self._queue: deque[Entry] = deque()
        self._rescued: list[Entry] = []
        # What is being stored, in parts: more than one where a row that can never be stored is looked for.
        self._parts: deque[list[Entry]] = deque()
        self._filled = asyncio.Event()
        self._hurry = asyncio.Event()
        self._turn = asyncio.Lock()
        self._connection: Any = None
        self._runs = False
        self._away = False
        self._spool_fails = False

    @property
    def is_away(self) -> bool:
        """Whether Postgres did not take the last batch."""
        return self._away

    @property
    def accepts(self) -> bool:
        """Whether results still find room; otherwise the oldest are being dropped."""
        return len(self._queue) < QUEUE_LIMIT

    @property
    def queued(self) -> int:
        """How many results and separate transitions are not stored yet."""
        spooled = self._spool.count if self._spool else 0
        return len(self._queue) + len(self._rescued) + sum(map(len, self._parts)) + spooled

    def unstored(self) -> list[Transition]:
        """The transitions that wait to be stored, oldest first."""
        entries = chain(chain.from_iterable(self._parts), self._rescued, self._queue)
        return [*self._spooled, *(transition for _, transitions in entries for transition in transitions)]

    def put(self, result: CheckResult | None, transitions: Sequence[Transition]) -> None:
        """Queue a result and its transitions to be stored together; a transition is stored at once."""
        if result is None and not transitions:
            return
        queue = self._queue
        if not queue:
            self._filled.set()
        queue.append((result, transitions))
        if transitions or len(queue) == FULL_BATCH:
            self._hurry.set()
        if len(queue) > QUEUE_LIMIT:
            self._drop_oldest()

    async def run(self) -> None:
        """Store what is queued, at the latest every 250 ms or 500 results, for ever; afterwards ``drain`` the rest."""
        self._runs = True
        wait = FIRST_RETRY_SECONDS
        try:
            while True:
                await self._wait_for_a_batch()
                if await self._store_batch(PATIENCE_SECONDS):
                    wait = FIRST_RETRY_SECONDS
                elif self._spool is not None:
                    await self._bridge()
                else:
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, LONGEST_RETRY_SECONDS)
        finally:
            self._runs = False

    async def replay(self) -> None:
        """Store what an earlier run left in the spool; returns once Postgres has all of it."""
        if self._spool is None:
            return
        await self._spool.open()
        if self._spool.count:
            _log.info("results of an earlier run are stored", results=self._spool.count)
            await self._replay()

    async def drain(self) -> None:
        """Bring all that is queued to Postgres, or else to the spool, and return.

        Without a spool, what Postgres does not take for some seconds is given up, loudly.
        """
        give_up_at = SYSTEM_CLOCK.monotonic() + DRAIN_PATIENCE_SECONDS
        try:
            while self._in_memory:
                behind = self._spool is not None and self._spool.count > 0
                if not behind and await self._store_batch(DRAIN_PATIENCE_SECONDS):
                    give_up_at = SYSTEM_CLOCK.monotonic() + DRAIN_PATIENCE_SECONDS
                elif await self._keep():
                    _log.warning("results wait on disk for the next start", results=self.queued)
                elif SYSTEM_CLOCK.monotonic() >= give_up_at:
                    _log.error("results not stored: Postgres is away", results=self.queued)
                    return
                else:
                    await asyncio.sleep(FIRST_RETRY_SECONDS)
        finally:
            if not self._runs:
                await self._close()

    @property
    def _in_memory(self) -> bool:
        return bool(self._queue or self._rescued or self._parts)

    async def _bridge(self) -> None:
        """While Postgres is away: what arrives goes to disk within 250 ms, and from there to Postgres when it can."""
        replay = spawn(self._replay(), name="replay of the spool")
        try:
            while not replay.done():
                if not await self._keep():
                    await asyncio.sleep(FLUSH_SECONDS)
                await self._wait_for_more(replay)
            with suppress(
                StoreUnavailableError
            ):  # of the spool itself: what is in memory goes to Postgres all the same
                await replay
        finally:
            await cancel(replay)

    async def _wait_for_more(self, replay: asyncio.Task[None]) -> None:
        more = spawn(self._filled.wait(), name="more results")
        await asyncio.wait({more, replay}, return_when=asyncio.FIRST_COMPLETED)
        await cancel(more)
        if not replay.done() and not self._hurry.is_set():
            await asyncio.wait({replay}, timeout=FLUSH_SECONDS)

    async def _keep(self) -> bool:
        """Whether everything in memory is on disk now; where the disk fails it stays in memory."""
        if self._spool is None:
            return False
        async with self._turn:
            self._take_batch(limit=QUEUE_LIMIT)
            entries = [entry for part in self._parts for entry in part]
            try:
                dropped = await self._spool.put(entries) if entries else 0
            except StoreUnavailableError as error:
                if not self._spool_fails:
                    _log.error("the spool takes nothing, results wait in memory", problem=str(error))
                self._spool_fails = True
                return False
            self._spool_fails = False
            self._parts.clear()
            self._spooled.extend(transition for _, transitions in entries for transition in transitions)
            self._count_dropped(dropped)
            return True

    async def _replay(self) -> None:
        """Store the spool's entries, oldest first, until it is empty."""
        assert self._spool is not None  # noqa: S101 - only called where there is one
        wait = FIRST_RETRY_SECONDS
        while (spooled := await self._spool.oldest(LARGEST_BATCH)).entries:
            parts = deque([spooled.entries])
            while not await self._store_parts(parts, REPLAY_PATIENCE_SECONDS):
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_RETRY_SECONDS)
            wait = FIRST_RETRY_SECONDS
            await self._spool.drop(spooled.last)
        self._spooled.clear()

    async def _wait_for_a_batch(self) -> None:
        if self._parts or self._rescued:
            return
        await self._filled.wait()
        if not self._hurry.is_set():
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def _store_batch(self, patience: float) -> bool:
        """Whether Postgres took the next batch; if it did not, the batch stays where it is."""
        async with self._turn:
            if not self._parts:
                self._take_batch(limit=LARGEST_BATCH)
            return await self._store_parts(self._parts, patience)

    async def _store_parts(self, parts: deque[list[Entry]], patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                while parts:
                    await self._store_part(await self._connected(), parts)
        except _AWAY as error:
            self._counters.store_errors += 1
            self._hang_up()
            if not self._away:
                _log.warning("results wait for Postgres", error=str(error) or type(error).__name__)
            self._away = True
            return False
        except asyncio.CancelledError:
            self._hang_up()  # in the middle of a statement: of no use any more
            raise
        if self._away:
            _log.info("Postgres takes results again", results=self.queued)
        self._away = False
        return True

    def _take_batch(self, limit: int) -> None:
        batch, self._rescued = self._rescued, []
        queue = self._queue
        while queue and len(batch) < limit:
            batch.append(queue.popleft())
        if batch:
            self._parts.append(batch)
        if not queue:
            self._filled.clear()
            self._hurry.clear()

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn)
        return self._connection

    async def _store_part(self, connection: Any, parts: deque[list[Entry]]) -> None:
        part = parts[0]
        try:
            await self._write(connection, part)
        except NEVER as error:  # one row of the part can never be stored; the others can
            parts.popleft()
            halves = _halves(part)
            if not halves:
                self._counters.store_errors += 1
                _log.error("could not be stored, dropped", entry=repr(part), error=str(error))
            parts.extendleft(reversed(halves))
        else:
            parts.popleft()
            self._counters.batches_stored += 1
            self._counters.rows_stored += sum(result is not None for result, _ in part)

    async def _write(self, connection: Any, part: list[Entry]) -> None:
        observer = self._observer
        records = [rows.status_record(result, observer) for result, _ in part if result is not None]
        transitions = [transition for _, caused in part for transition in caused]
        copy = _copy
        for _ in range(3):  # at most one time each: some rows are there already, a day has no partition
            try:
                async with transaction(connection):
                    await copy(connection, records)
                    if transitions:
                        await _store_transitions(connection, transitions)
                break
            except asyncpg.UniqueViolationError:
                copy = _copy_new
            except asyncpg.CheckViolationError as error:
                # The words are in the server's language; only a missing partition has no constraint's name.
                if error.constraint_name is not None:
                    raise
                await connection.execute(_ENSURE_PARTITIONS, list({record[0].date() for record in records}))
        else:
            raise StoreUnavailableError("another writer stored the same outage or the same day just now")
        if any(transition.outage and not transition.outage.resolved for transition in transitions):
            await connection.execute(_CLOSE_UNWATCHED)

    def _drop_oldest(self) -> None:
        result, transitions = self._queue.popleft()
        if transitions:
            self._rescued.append((None, transitions))
        self._count_dropped(result is not None)

    def _count_dropped(self, number: int) -> None:
        if number and not self._counters.results_dropped:
            _log.error("too many results wait for Postgres, the oldest are dropped")
        self._counters.results_dropped += number

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _close(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            try:
                await self._connection.close(timeout=1)
            except (*_AWAY, TimeoutError):
                self._connection.terminate()
        self._connection = None


async def _copy(connection: Any, records: Sequence[rows.StatusRecord]) -> None:
    if records:
        await connection.copy_records_to_table("service_status_row", records=records, columns=rows.STATUS_COLUMNS)


async def _copy_new(connection: Any, records: Sequence[rows.StatusRecord]) -> None:
    """Store those of ``records`` that are not there yet. COPY knows no ON CONFLICT; twice as dear."""
    await connection.execute(_STAGE)
    await connection.copy_records_to_table("service_status_staged", records=records, columns=rows.STATUS_COLUMNS)
    await connection.execute(_UNSTAGE)


async def _store_transitions(connection: Any, transitions: Sequence[Transition]) -> None:
    outages = _final([transition.outage for transition in transitions if transition.outage])
    if outages:
        written = rows.to_json([rows.outage_fields(outage) for outage in outages])
        await connection.execute(_CLOSE_FORGOTTEN, written, SUPERSEDED)
        await connection.execute(_STORE_OUTAGES, written)
    changes = [rows.state_change_fields(transition.change) for transition in transitions]
    await connection.execute(_STORE_CHANGES, rows.to_json(changes))


def _final(outages: Iterable[Outage]) -> list[Outage]:
    """Each outage once, as it stands at the end; of an endpoint's open ones only the last is still open."""
    last = {outage.id: outage for outage in outages}
    open_of: dict[str, Outage] = {}
    for outage in list(last.values()):
        if outage.resolved:
            continue
        if earlier := open_of.get(outage.endpoint_id):
            last[earlier.id] = replace(
                earlier,
                resolved=True,
                resolved_at=outage.start_time,
                resolution_notes=SUPERSEDED,
                revision=earlier.revision + 1,
            )
        open_of[outage.endpoint_id] = outage
    return list(last.values())


def _halves(part: list[Entry]) -> list[list[Entry]]:
    """``part`` in two or more smaller ones, in order; nothing where it cannot be divided any further."""
    if len(part) > 1:
        middle = len(part) // 2
        return [part[:middle], part[middle:]]
    ((result, transitions),) = part
    if result is not None and transitions:
        return [[(result, ())], [(None, transitions)]]
    if len(transitions) > 1:
        return [[(None, (transition,))] for transition in transitions]
    return []
