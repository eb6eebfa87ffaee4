"""One batch of results, transitions and events into Postgres, in one transaction and any number of times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import asyncpg

from servmon.errors import StoreUnavailableError
from servmon.model import Outage, Transition
from servmon.store import events, rollup_worker, rows, status_rows
from servmon.store.entries import Entry, events_in, results_in, transitions_in
from servmon.store.pool import Connection, transaction

_COLUMNS = ", ".join(status_rows.STATUS_COLUMNS)

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
        resolution_notes text, notification_channels jsonb, evidence jsonb, caused_by text, revision bigint)
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
    resolution_notes, notification_channels, evidence, caused_by, revision)
select
    id, endpoint_id, severity, description, start_time, declared_at, last_good_at, resolved,
    case when resolved then greatest(resolved_at, start_time) end,
    resolution_notes, notification_channels, evidence, caused_by, revision
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
    caused_by = excluded.caused_by,
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


async def write(connection: Connection, part: Sequence[Entry], observer: int) -> None:
    """Store the results, transitions and events of ``part`` in one transaction; what is there already stays as it is.

    ``observer`` is who found them out. Raises one of ``pool.NEVER`` where a row of it can never be stored, and
    ``StoreUnavailableError`` or the driver's errors where Postgres does not take it now.
    """
    records = [status_rows.status_record(result, observer) for result in results_in(part)]
    transitions = list(transitions_in(part))
    happened = events_in(part)
    copy = _copy
    for _ in range(3):  # at most one time each: some rows are there already, a day has no partition
        try:
            async with transaction(connection):
                if records:
                    await copy(connection, records)
                    await rollup_worker.mark(connection, [record[0] for record in records])
                if transitions:
                    await _store_transitions(connection, transitions)
                for event in happened:
                    await events.insert(connection, event)
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


async def _copy(connection: Connection, records: Sequence[status_rows.StatusRecord]) -> None:
    await connection.copy_records_to_table("service_status_row", records=records, columns=status_rows.STATUS_COLUMNS)


async def _copy_new(connection: Connection, records: Sequence[status_rows.StatusRecord]) -> None:
    """Store those of ``records`` that are not there yet. COPY knows no ON CONFLICT; twice as dear."""
    await connection.execute(_STAGE)
    await connection.copy_records_to_table("service_status_staged", records=records, columns=status_rows.STATUS_COLUMNS)
    await connection.execute(_UNSTAGE)


async def _store_transitions(connection: Connection, transitions: Sequence[Transition]) -> None:
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


def halves(part: list[Entry]) -> list[list[Entry]]:
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
