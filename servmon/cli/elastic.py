"""`servmon elastic …`: whether the mirror in Elasticsearch is whole, and making it so."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from servmon.cli.base import EXIT_CONFIGURATION, ConfigOption, fail, load

if TYPE_CHECKING:
    from pathlib import Path

    from servmon.elastic.comparison import Compared
    from servmon.elastic.rebuild import Progress, Rebuild
    from servmon.settings import Settings

app = typer.Typer(help="The mirror in Elasticsearch.", no_args_is_help=True)


@app.command()
def status(
    config: ConfigOption = None, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False
) -> None:
    """Count rows and documents day by day, and say where they differ; exits 1 where they do."""
    from servmon.clock import now
    from servmon.elastic.comparison import compare
    from servmon.store import elastic_due

    async def work(settings: Settings, reached: Reached) -> bool:
        whole = True
        if not as_json:
            typer.echo(f"{'index':<32}{'rows':>12}{'synced':>12}{'documents':>12}")
        days = settings.elasticsearch.retention_days
        async for compared in compare(reached.db, reached.cluster, now().date(), days):
            whole &= compared.difference is None
            typer.echo(
                json.dumps(asdict(compared) | {"difference": compared.difference}) if as_json else _row(compared)
            )
        letters, newest = await elastic_due.count_letters(reached.db)
        if letters:
            typer.echo(f"{letters} documents are refused, the newest because: {newest}", err=True)
        return whole

    if not _with_mirror(config, work):
        fail("they differ: `servmon elastic rebuild --since DAY` sends everything of a day and later again", 1)


def _row(compared: Compared) -> str:
    there = "gone" if compared.dropped else "none" if compared.there is None else f"{compared.there:,}"
    difference = f"  {compared.difference}" if compared.difference else ""
    return f"{compared.index:<32}{compared.stored:>12,}{compared.synced:>12,}{there:>12}{difference}"


@app.command()
def resync(config: ConfigOption = None) -> None:
    """Send all that waits now, and offer once more what was refused."""

    async def work(_settings: Settings, reached: Reached) -> None:
        with _shown() as progress:
            await reached.rebuild(progress).resync()

    _with_mirror(config, work)
    typer.echo("nothing waits any more")


@app.command()
def rebuild(
    since: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The first day (UTC) to send again.")],
    config: ConfigOption = None,
) -> None:
    """Send everything since a day again: makes a lost cluster whole, also while servmon runs."""
    from servmon.clock import now

    async def work(settings: Settings, reached: Reached) -> None:
        days = settings.elasticsearch.retention_days
        oldest = now().date() - timedelta(days=days) if days else date.min
        with _shown() as progress:
            await reached.rebuild(progress).since(since.date(), oldest)

    _with_mirror(config, work)
    typer.echo(f"everything since {since:%Y-%m-%d} is there; `servmon elastic status` compares")


class Reached:
    """Both ends of the mirror."""

    def __init__(self, settings: Settings, db: Any, cluster: Any) -> None:
        self._settings = settings
        self.db = db
        self.cluster = cluster

    def rebuild(self, progress: Progress) -> Rebuild:
        """A run that shows its progress."""
        from servmon.elastic.rebuild import Rebuild
        from servmon.elastic.sync import Sync
        from servmon.metrics import Counters

        sync = Sync(self.db, self.cluster, counters=Counters(), ecs=self._settings.elasticsearch.ecs_fields)

        def say(sentence: str) -> None:
            typer.echo(sentence, err=True)

        return Rebuild(self.db, self.cluster, sync, progress=progress, say=say)


def _with_mirror(config: Path | None, work: Callable[[Settings, Reached], Awaitable[Any]]) -> Any:
    from servmon.database import reachable_database
    from servmon.elastic.cluster import Cluster
    from servmon.errors import ServmonError
    from servmon.store.elastic_cursor import open_reader
    from servmon.store.pool import AWAY

    settings = load(config).settings
    if not settings.elasticsearch.hosts:
        fail('no Elasticsearch is configured: set [elasticsearch] hosts = ["https://…:9200"]', EXIT_CONFIGURATION)

    async def reached() -> Any:
        async with AsyncExitStack() as ladder:
            dsn = await ladder.enter_async_context(reachable_database(settings))
            db = await open_reader(dsn)
            ladder.callback(db.terminate)
            cluster = await ladder.enter_async_context(Cluster(settings.elasticsearch))
            return await work(settings, Reached(settings, db, cluster))

    try:
        return asyncio.run(reached())
    except ServmonError as error:
        fail(f"Elasticsearch: {error}" if type(error).__module__ == "servmon.elastic.cluster" else str(error), 1)
    except AWAY as error:
        fail(f"Postgres: {error}", 1)


@contextmanager
def _shown() -> Iterator[Progress]:
    """Progress as a bar for each step on a terminal; elsewhere a line when a step is done."""
    if not sys.stderr.isatty():
        yield _line_when_done
        return
    with ExitStack() as open_bar:
        shown: dict[str, Any] = {}

        def advance(step: str, total: int, done: int) -> None:
            if step not in shown:
                open_bar.close()
                bar = typer.progressbar(length=max(total, 1), label=f"{step:<22}", file=sys.stderr)
                shown[step] = open_bar.enter_context(bar)
            shown[step].length = max(total, 1)
            shown[step].update(done - shown[step].pos)

        yield advance


def _line_when_done(step: str, total: int, done: int) -> None:
    if done >= total:
        typer.echo(f"{step}: {done:,} sent", err=True)
