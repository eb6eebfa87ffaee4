"""``servmon report``: what a shift hands over; what people were told, in a dry run would have been, or were not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from servmon.cli.base import ConfigOption, JsonOption, fail, load, run_to_the_end, shown

if TYPE_CHECKING:
    from servmon.cli import handover
    from servmon.store.rows import Row

_SPAN = re.compile(r"([0-9]{1,5})(m|h|d)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def report(
    since: Annotated[str, typer.Option(help="A span such as 30m, 8h or 7d, or a time, or a day.")] = "8h",
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Say what a shift hands over: outages, planned work and silences, what was told, and what was not, and why."""
    from servmon.cli import handover
    from servmon.clock import now, rfc3339
    from servmon.database import reachable_database
    from servmon.store import alerts, notifications
    from servmon.store.pool import open_pool

    present = now()
    begin = _moment(since, present)
    settings = load(config).settings

    async def work() -> tuple[handover.Shift, list[Row], list[Row]]:
        async with reachable_database(settings) as dsn, await open_pool(dsn, max_size=1) as db:
            shift = await handover.shift_since(db, begin, present)
            return shift, await notifications.made_since(db, begin), await alerts.kept_back_since(db, begin)

    shift, messages, kept_back = run_to_the_end(work())
    if not as_json:
        typer.echo("\n".join((*handover.lines(shift), *_lines(begin, messages, kept_back))))
        return
    told = [{**_about(row), "at": rfc3339(row["created_at"])} for row in messages]
    typer.echo(
        json.dumps(
            {
                "since": rfc3339(begin),
                **handover.as_json(shift),
                "messages": told,
                "not_told": [dict(row) for row in kept_back],
            },
            indent=2,
        )
    )


def _moment(text: str, present: datetime) -> datetime:
    from servmon.services.moments import read_moment_or_day, read_zone

    if span := _SPAN.fullmatch(text):
        return present - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        return read_moment_or_day(text, read_zone(None))
    except ValueError as error:
        fail(f"--since {text}: {error}; or a span such as 30m, 8h or 7d", 2)


def _about(row: Row) -> dict[str, Any]:
    names = ("channel", "kind", "severity", "subject")
    return {**{name: row[name] for name in names}, "fate": _fate(row)}


def _fate(row: Row) -> str:
    if row["sent_at"]:
        return "sent"
    return f"not sent: {row['last_error']}" if row["given_up_at"] else "owed"


def _lines(begin: datetime, messages: Sequence[Row], kept_back: Sequence[Row]) -> Iterator[str]:
    fates = [_fate(row).partition(":")[0] for row in messages]
    counted = ", ".join(f"{fates.count(fate)} {fate}" for fate in dict.fromkeys(fates))
    yield f"since {begin:%Y-%m-%d %H:%M} UTC: {len(messages)} messages" + (f" ({counted})" if counted else "")
    for row in messages:
        yield f"  {row['created_at']:%m-%d %H:%M}  {row['channel']}: {shown(row['subject'])}: {shown(_fate(row))}"
    if kept_back:
        number = sum(row["number"] for row in kept_back)
        yield f"not told: {number} {'piece' if number == 1 else 'pieces'} of news"
    for row in kept_back:
        yield f"  {row['number']:6}  {row['stage']}: {row['reason']}"
