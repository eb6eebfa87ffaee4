"""``servmon db``: bring the schema up to date, back up and restore, and say how much room the records take."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servmon.cli.base import ConfigOption, JsonOption, fail, load, run_to_the_end

if TYPE_CHECKING:
    from servmon.settings import Settings
    from servmon.store.archive import Contents
    from servmon.store.space import Space

app = typer.Typer(help="The database.", no_args_is_help=True)


@app.command()
def migrate(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Bring the schema of the configured database up to date."""
    from servmon.database import reachable_database
    from servmon.store.migrate import migrate as migrate_

    async def work() -> list[str]:
        async with reachable_database(load(config).settings) as dsn:
            return await migrate_(dsn)

    applied = run_to_the_end(work())
    lines = "\n".join(f"applied {name}" for name in applied) or "nothing to do: the schema is up to date"
    typer.echo(json.dumps({"applied": applied}) if as_json else lines)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write, such as servmon-2026-11-25.zip.")],
    config: ConfigOption = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write all records, as of one moment, into one file that only you can read; servmon may run meanwhile."""
    from servmon.database import reachable_database
    from servmon.store import archive

    if os.access(file, os.F_OK) and not force:
        fail(f"{file} exists already; name another, or say --force", 1)

    async def work() -> Contents:
        async with reachable_database(load(config).settings) as dsn:
            with _progress("Backing up") as progress:
                return await archive.backup(dsn, file, progress)

    _say(run_to_the_end(work()), file, "holds", as_json=as_json)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `servmon db backup` wrote.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Fill an empty database with what a backup holds, all or nothing; servmon must not run meanwhile."""
    from servmon.database import database
    from servmon.store import archive

    settings = load(config).settings

    async def work() -> Contents:
        async with database(settings) as (dsn, _postgres):
            with _progress("Restoring") as progress:
                return await archive.restore(dsn, file, progress)

    _say(run_to_the_end(work()), file, "restored:", as_json=as_json)


@app.command()
def status(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Say how much room the records take, how fast they grow, and how long the disk suffices."""
    from servmon.clock import now
    from servmon.database import reachable_database
    from servmon.store.space import measure

    settings = load(config).settings

    async def work() -> Space:
        async with reachable_database(settings) as dsn:
            return await measure(dsn, settings.cleanup, _free(settings))

    space = run_to_the_end(work())
    forecast = space.forecast(now())
    if as_json:
        typer.echo(
            json.dumps({**asdict(space), "bytes_a_day": round(space.bytes_a_day), "forecast": forecast}, indent=2)
        )
    else:
        typer.echo("\n".join(_lines(space, settings, forecast)))


def _free(settings: Settings) -> int | None:
    """What is free beside servmon's own Postgres; of another one's disk nothing is known here."""
    return None if settings.database.url is not None else shutil.disk_usage(settings.servmon.data_dir).free


def _lines(space: Space, settings: Settings, forecast: str) -> Iterator[str]:
    from servmon.store.space import in_words

    yield f"{space.place}, PostgreSQL {space.postgres}: {in_words(space.bytes)}"
    if space.pending_migrations:
        yield f"its schema lacks {', '.join(space.pending_migrations)}; run: servmon db migrate"
        return
    pace = f"{space.results_a_day:,} results a day, {space.bytes_a_result:.0f} bytes each"
    yield f"{space.endpoints:,} endpoints make {pace}"
    since = f", since {space.oldest_day}" if space.oldest_day else ""
    days = "day" if space.days_kept == 1 else "days"
    yield f"{space.days_kept} {days} of results are there{since}; {settings.cleanup.retention_days} are kept"
    yield f"forecast: {forecast}"
    yield ""
    yield f"{'table':32}{'size':>10}{'rows, about':>14}"
    for table in space.tables:
        yield f"{table.name:32}{in_words(table.bytes):>10}{table.rows:>14,}"


def _say(contents: Contents, file: Path, verb: str, *, as_json: bool) -> None:
    from servmon.store.space import in_words

    size = file.stat().st_size
    counted = {table.root: 0 for table in contents.tables}
    for table in contents.tables:
        counted[table.root] += table.rows
    if as_json:
        about = {"file": str(file), "bytes": size, "made_at": contents.made_at, "servmon": contents.servmon}
        typer.echo(json.dumps({**about, "rows": contents.rows, "tables": counted}))
        return
    results, outages = counted.get("service_status_row", 0), counted.get("service_outage", 0)
    typer.echo(
        f"{file} ({in_words(size)}) {verb} {contents.rows:,} rows of {contents.made_at}, among them"
        f" {results:,} results and {outages:,} outages"
    )


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda _done, _total, _what: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{title} {what}")

        yield show
