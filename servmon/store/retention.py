"""Keeps single check results as long as ``[cleanup] retention_days`` says, and room for those to come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import structlog

from servmon.clock import SYSTEM_CLOCK, Clock, now, rfc3339
from servmon.store.partitions import drop_older_than, ensure_partitions
from servmon.store.pool import Executor

_log = structlog.get_logger(__name__)

DAYS_AHEAD = 3
ROUND_SECONDS = 3600.0
# How soon a changed setting is noticed.
LOOK_SECONDS = 15.0
# A slip in the configuration can be taken back for so long before anything is deleted.
GRACE = timedelta(hours=24)

_READ = """
select retention_days, effective_days, changed_at from retention_setting
"""

_REMEMBER = """
insert into retention_setting (retention_days, effective_days, changed_at) values ($1, $2, $3)
on conflict (only_row) do update set
    retention_days = excluded.retention_days,
    effective_days = excluded.effective_days,
    changed_at = excluded.changed_at
"""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long results are to be kept (``wanted``, set at ``changed_at``), and how long they are kept for now."""

    wanted: int
    effective: int
    changed_at: datetime


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


async def keep_partitions(db: Executor, retention_days: Callable[[], int], clock: Clock = SYSTEM_CLOCK) -> None:
    """Once an hour, and soon after ``retention_days`` changed, do what is due; for ever."""
    while True:
        days = retention_days()
        await keep_once(db, days, clock)
        next_round = clock.monotonic() + ROUND_SECONDS
        while retention_days() == days and clock.monotonic() < next_round:  # noqa: ASYNC110 - a number in memory rings no bell
            await asyncio.sleep(LOOK_SECONDS)


async def keep_once(db: Executor, retention_days: int, clock: Clock = SYSTEM_CLOCK) -> list[date]:
    """Make the partitions of today and the next days, and drop those that are too old; returns their days."""
    at = now(clock)
    today = at.date()
    await ensure_partitions(db, [today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)])
    holds = await _settle_stored(db, retention_days, at)
    return await drop_older_than(db, today - timedelta(days=holds.effective))


async def _settle_stored(db: Executor, wanted: int, at: datetime) -> Retention:
    row = await db.fetchrow(_READ)
    known = Retention(row["retention_days"], row["effective_days"], row["changed_at"]) if row else None
    holds = settle(known, wanted, at)
    if holds != known:
        await db.execute(_REMEMBER, holds.wanted, holds.effective, holds.changed_at)
    if known and holds != known:
        _say(known, holds)
    return holds


def _say(known: Retention, holds: Retention) -> None:
    if holds.wanted < holds.effective:
        _log.warning(
            "fewer days of results are to be kept: older ones are deleted in 24 h, unless retention_days is raised",
            retention_days=holds.wanted,
            until_then=holds.effective,
            takes_effect_at=rfc3339(holds.changed_at + GRACE),
        )
    elif holds.effective != known.effective:
        _log.info("results are kept for another number of days from now on", retention_days=holds.effective)
