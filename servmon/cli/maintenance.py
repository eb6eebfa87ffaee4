"""``servmon maintenance``: windows of planned work."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from servmon.cli.base import EXIT_CONFIGURATION, fail
from servmon.cli.desk import Desk, address, over_api
from servmon.cli.tables import Column, Row
from servmon.cli.when import later, moment, readable, span

app = typer.Typer(help="Planned work.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="WINDOW", help="The id of a window.")]
EndpointOption = Annotated[list[str] | None, typer.Option("--endpoint", help="An id; several times for several.")]
TagOption = Annotated[list[str] | None, typer.Option("--tag", help="A tag; several times for several.")]
SiteOption = Annotated[list[str] | None, typer.Option("--site", help="A site; several times for several.")]
ForOption = Annotated[timedelta, typer.Option("--for", parser=span, metavar="SPAN", help="How long, such as 2h.")]


def covered(row: Row) -> str:
    """Whom a window or a silence covers, in a few words."""
    endpoints = row.get("endpoint_ids") or row.get("ids") or ()
    named = [*endpoints, *(f"site {one}" for one in row["sites"]), *(f"tag {one}" for one in row["tags"])]
    return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")


def _span_of(row: Row) -> tuple[str, str]:
    """The running or next occurrence; where none comes any more, the times that were given."""
    coming = row["next_occurrences"]
    chosen = coming[0] if coming else row
    return chosen["start_time"], chosen["end_time"]


COLUMNS = (
    Column("BEGINS", lambda row: readable(_span_of(row)[0]), rank=1),
    Column("ENDS", lambda row: readable(_span_of(row)[1])),
    Column("FOR", covered, least=12, rank=4),
    Column("MODE", "mode", rank=5),
    Column("AGAIN", "rrule", least=10, rank=6),
    Column("BY", "created_by", least=8, rank=7),
    Column("ID", "id"),
    Column("WHAT", "description", least=12, rank=3),
)


@app.command("list")
@over_api
def list_windows(
    desk: Desk,
    *,
    active: Annotated[bool, typer.Option("--active", help="Only those that hold now.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
) -> None:
    """List windows, the latest start first."""
    found = desk.api.get("/maintenance/active")["items"] if active else list(desk.api.first(limit, "/maintenance/"))
    desk.show_list(COLUMNS, found, "no window holds now" if active else "no work is planned")


@app.command()
@over_api
def show(desk: Desk, window: IdArgument) -> None:
    """Show one window with its next occurrences."""
    desk.show(desk.api.get(address("maintenance", window)))


@app.command()
@over_api
def add(  # noqa: PLR0913 - they are the options of the command
    desk: Desk,
    description: Annotated[str, typer.Argument(help="What is done.")],
    *,
    length: ForOption,
    endpoint: EndpointOption = None,
    tag: TagOption = None,
    site: SiteOption = None,
    wait: Annotated[timedelta | None, typer.Option("--in", parser=span, metavar="SPAN", help="Begins after.")] = None,
    at: Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME", help="Begins at.")] = None,
    pause: Annotated[bool, typer.Option("--pause", help="Do not even check meanwhile.")] = False,
    notify: Annotated[list[str] | None, typer.Option(help="A channel that is told of it.")] = None,
    rrule: Annotated[str | None, typer.Option(help="Comes again by this rule (RFC 5545).")] = None,
    timezone: Annotated[str | None, typer.Option(help="Whose clocks the rule means, such as Europe/Berlin.")] = None,
) -> None:
    """Plan work, from now on unless --in or --at says later: meanwhile failures count for nothing."""
    if wait is not None and at is not None:
        fail("--in and --at both say when it begins: give one of them", EXIT_CONFIGURATION)
    begin = later(at, wait)
    wanted: dict[str, Any] = {
        "description": description,
        "start_time": begin,
        "end_time": later(datetime.fromisoformat(begin), length),
        "endpoint_ids": endpoint or [],
        "tags": tag or [],
        "sites": site or [],
        "mode": "pause" if pause else "mute",
        "notify": notify or [],
        "rrule": rrule,
        "timezone": timezone,
    }
    made = desk.api.post("/maintenance/", {name: value for name, value in wanted.items() if value is not None})
    desk.done(f"{made['id']}: {_told(made)}", made)


@app.command()
@over_api
def update(  # noqa: PLR0913 - they are the options of the command
    desk: Desk,
    window: IdArgument,
    *,
    description: Annotated[str | None, typer.Option(help="What is done.")] = None,
    at: Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME", help="Begins at.")] = None,
    until: Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME", help="Ends at.")] = None,
    endpoint: EndpointOption = None,
    tag: TagOption = None,
    site: SiteOption = None,
    pause: Annotated[bool | None, typer.Option("--pause/--mute", help="Whether to check meanwhile.")] = None,
    notify: Annotated[list[str] | None, typer.Option(help="A channel that is told of it.")] = None,
    rrule: Annotated[str | None, typer.Option(help="Comes again by this rule; an empty one: only once.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Whose clocks the rule means.")] = None,
) -> None:
    """Change what is given and leave the rest; a list that is given replaces the one there was."""
    given: dict[str, Any] = {
        "description": description,
        "start_time": later(at, None) if at else None,
        "end_time": later(until, None) if until else None,
        "endpoint_ids": endpoint or None,
        "tags": tag or None,
        "sites": site or None,
        "mode": None if pause is None else "pause" if pause else "mute",
        "notify": notify or None,
        "rrule": rrule,
        "timezone": timezone,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        fail("nothing is given that could change", EXIT_CONFIGURATION)
    made = desk.api.patch(address("maintenance", window), {**changes, **({"rrule": None} if rrule == "" else {})})
    desk.done(f"{made['id']}: {_told(made)}", made)


@app.command()
@over_api
def extend(
    desk: Desk,
    window: IdArgument,
    more: Annotated[timedelta, typer.Argument(parser=span, metavar="SPAN", help="Such as 30m.")],
) -> None:
    """Let what runs now end later."""
    minutes = -(-int(more.total_seconds()) // 60)
    made = desk.api.post(address("maintenance", window, "extend"), {"minutes": minutes})
    desk.done(_told(made), made)


@app.command()
@over_api
def end(desk: Desk, window: IdArgument) -> None:
    """Let what runs now end at once; later occurrences stay."""
    made = desk.api.post(address("maintenance", window, "end"), {})
    desk.done(f"{window} has ended; what is still down in a few minutes is told", made)


@app.command()
@over_api
def remove(desk: Desk, window: IdArgument) -> None:
    """Delete a window; what it covered stays covered."""
    desk.api.delete(address("maintenance", window))
    desk.done(f"{window} is deleted", {"id": window})


def _told(window: Row) -> str:
    begins, ends = _span_of(window)
    return f"{covered(window)} from {readable(begins)} to {readable(ends)}"
