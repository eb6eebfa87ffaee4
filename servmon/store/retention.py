"""Keeps each kind of record as long as ``[cleanup]`` says, and room for the results to come.

Single results and hours go by whole partitions. The rest goes a thousand rows at a time, oldest first, found by an
index: nobody waits for it, and it costs nothing where nothing is old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial

import structlog

from servmon.clock import SYSTEM_CLOCK, Clock, now, rfc3339
from servmon.store import partitions
from servmon.store.pool import Executor
from servmon.store.settings import CleanupSection

_log = structlog.get_logger(__name__)

DAYS_AHEAD = 3
ROUND_SECONDS = 3600.0
# How soon a changed setting is noticed.
LOOK_SECONDS = 15.0
# A slip in the configuration can be taken back for so long before anything is deleted.
GRACE = timedelta(hours=24)
# Results that are not summed up yet are kept so much longer, but not for ever: the disk would fill.
PATIENCE_DAYS = 3
ROWS_AT_ONCE = 1000
PAUSE_SECONDS = 0.1

_READ = """
select wanted_days, effective_days, changed_at from retention_setting where what = $1
"""

_REMEMBER = """
insert into retention_setting (what, wanted_days, effective_days, changed_at) values ($1, $2, $3, $4)
on conflict (what) do update set
    wanted_days = excluded.wanted_days,
    effective_days = excluded.effective_days,
    changed_at = excluded.changed_at
"""

_DROPPING = """
update retention_setting set dropped_before = greatest(dropped_before, $2) where what = $1
"""

_FIRST_UNSUMMED = """
select min(start) from rollup_due
"""

# The last change of an endpoint tells its state, and those of an open outage its beginning.
_STATE_CHANGES = """
delete from state_change where id = any(array(
    select c.id from state_change c
    where c.at < $1 and c.processed_at is not null
    and exists (select from state_change n where n.endpoint_id = c.endpoint_id and n.at > c.at)
    and not exists (select from service_outage o where o.id = c.outage_id and not o.resolved)
    order by c.at limit $2
))
"""

# What a second look found in full; that there was one, and what else is needed to compute with, stays.
_CHANGES_EVIDENCE = """
update state_change set evidence = evidence - 'verification' - 'run' where id = any(array(
    select id from state_change where at < $1 and evidence ? 'verification' and processed_at is not null
    order by at limit $2
))
"""

_OUTAGES_EVIDENCE = """
update service_outage set evidence = evidence - 'verification' - 'run' where id = any(array(
    select id from service_outage where resolved_at < $1 and evidence ? 'verification' order by resolved_at limit $2
))
"""

_MESSAGES = """
delete from notification where id = any(array(
    select id from notification where created_at < $1 and (sent_at is not null or given_up_at is not null)
    order by created_at limit $2
))
"""

_ALERTS = """
delete from alert where id = any(array(
    select id from alert where closed_at < $1 order by closed_at limit $2
))
"""

_DECISIONS = """
delete from alert_decision where news_id = any(array(
    select news_id from alert_decision where at < $1 order by at limit $2
))
"""

_SILENCES = """
delete from silence where id = any(array(
    select id from silence where ends_at < $1 order by ends_at limit $2
))
"""

_EVENTS = """
delete from event where id = any(array(
    select id from event where at < $1 and processed_at is not null order by at limit $2
))
"""

_AUDIT = """
delete from audit where number = any(array(
    select number from audit where at < $1 order by at limit $2
))
"""

_REJECTED = """
delete from rejected where id = any(array(
    select id from rejected where at < $1 order by id limit $2
))
"""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long records are to be kept (``wanted``, set at ``changed_at``), and how long they are kept for now."""

    wanted: int
    effective: int
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of record: its name in ``retention_setting``, the field of ``[cleanup]``, and what lets old ones go."""

    what: str
    setting: str
    clear: Callable[[Executor, date], Awaitable[None]]


def settle(known: Retention | None, wanted: int, at: datetime) -> Retention:
    """What holds ``at`` that moment: more days hold at once, fewer only 24 h after they were first wanted."""
    if known is None or wanted >= known.effective:
        same = known is not None and known.wanted == known.effective == wanted
        return known if known and same else Retention(wanted, wanted, at)
    if wanted != known.wanted:
        return Retention(wanted, known.effective, at)
    if at - known.changed_at >= GRACE:
        return Retention(wanted, wanted, at)
    return known


async def keep_records(db: Executor, cleanup: Callable[[], CleanupSection], clock: Clock = SYSTEM_CLOCK) -> None:
    """Once an hour, and soon after ``cleanup`` changed, do what is due; for ever."""
    while True:
        settings = cleanup()
        await keep_once(db, settings, clock)
        next_round = clock.monotonic() + ROUND_SECONDS
        while cleanup() == settings and clock.monotonic() < next_round:  # noqa: ASYNC110 - settings in memory ring no bell
            await asyncio.sleep(LOOK_SECONDS)


async def keep_once(db: Executor, settings: CleanupSection, clock: Clock = SYSTEM_CLOCK) -> None:
    """Make the partitions of today and the next days, and let go what is older than it is to be kept."""
    at = now(clock)
    today = at.date()
    await partitions.ensure_partitions(db, [today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)])
    for kind in KINDS:
        holds = await _settle_stored(db, kind, getattr(settings, kind.setting), at)
        await kind.clear(db, today - timedelta(days=holds.effective))


async def _settle_stored(db: Executor, kind: Kind, wanted: int, at: datetime) -> Retention:
    row = await db.fetchrow(_READ, kind.what)
    known = Retention(row["wanted_days"], row["effective_days"], row["changed_at"]) if row else None
    holds = settle(known, wanted, at)
    if holds != known:
        await db.execute(_REMEMBER, kind.what, holds.wanted, holds.effective, holds.changed_at)
    if known and holds != known:
        _say(kind, known, holds)
    return holds


def _say(kind: Kind, known: Retention, holds: Retention) -> None:
    if holds.wanted < holds.effective:
        _log.warning(
            f"fewer days of {kind.what} are to be kept: older go in 24 h, unless {kind.setting} is raised again",
            **{kind.setting: holds.wanted},
            until_then=holds.effective,
            takes_effect_at=rfc3339(holds.changed_at + GRACE),
        )
    elif holds.effective != known.effective:
        _log.info(f"{kind.what} are kept for another number of days from now on", **{kind.setting: holds.effective})


async def _drop_results(db: Executor, before: date) -> None:
    unsummed = await db.fetchval(_FIRST_UNSUMMED)
    if unsummed is not None:
        before = min(before, max(unsummed.date(), before - timedelta(days=PATIENCE_DAYS)))
    await _drop(partitions.RESULTS, db, before)


async def _drop(of: partitions.Partitioned, db: Executor, before: date) -> None:
    old = [day for day in await partitions.days_present(db, of) if of.end_of(day) <= before]
    if old:
        await db.execute(_DROPPING, of.what, of.end_of(old[-1]))  # first: who sums up late results has to know
        await partitions.drop(db, old, of)


async def _thin_out(statements: Mapping[str, str], db: Executor, before: date) -> None:
    moment = datetime.combine(before, datetime.min.time(), UTC)
    for what, statement in statements.items():
        gone = 0
        while True:
            done = await db.execute(statement, moment, ROWS_AT_ONCE)
            number = int(done.rpartition(" ")[2])
            gone += number
            if number < ROWS_AT_ONCE:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        if gone:
            _log.info(f"old {what} deleted", number=gone, before=str(before))


def _thinning(**statements: str) -> Callable[[Executor, date], Awaitable[None]]:
    return partial(_thin_out, {name.replace("_", " "): statement for name, statement in statements.items()})


KINDS = (
    Kind("results", "retention_days", _drop_results),
    Kind("hours", "hourly_days", partial(_drop, partitions.HOURS)),
    Kind("state changes", "state_change_days", _thinning(state_changes=_STATE_CHANGES)),
    Kind("evidence", "evidence_days", _thinning(evidence=_CHANGES_EVIDENCE, evidence_of_outages=_OUTAGES_EVIDENCE)),
    Kind("messages", "message_days", _thinning(messages=_MESSAGES)),
    Kind("alerts", "alert_days", _thinning(alerts=_ALERTS, decisions=_DECISIONS, silences=_SILENCES)),
    Kind("events", "event_days", _thinning(events=_EVENTS, rejected_rows=_REJECTED)),
    Kind("audit", "audit_days", _thinning(audit_entries=_AUDIT)),
)
