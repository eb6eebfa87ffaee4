"""`servmon kibana …`: the dashboard and the alert rules in Kibana."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from servmon.cli.base import EXIT_CONFIGURATION, ConfigOption, fail, load

if TYPE_CHECKING:
    from servmon.elastic.kibana.rules import Rule
    from servmon.elastic.kibana.saved_objects import SavedObject
    from servmon.settings import Loaded

app = typer.Typer(help="The dashboard and the alert rules in Kibana.", no_args_is_help=True)


@app.command()
def install(
    config: ConfigOption = None,
    space: Annotated[str | None, typer.Option(help="The id of a space, in the place of kibana.space.")] = None,
    connector: Annotated[str | None, typer.Option(help="The id of a connector: rules send messages by it.")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
) -> None:
    """Put the dashboard and the alert rules into Kibana, or bring them up to date."""
    from servmon.elastic.kibana import install as steps
    from servmon.elastic.kibana.actions import Connector
    from servmon.elastic.kibana.client import KibanaError, connected

    loaded = load(config)
    settings = loaded.settings
    chosen = _checked(space) if space is not None else settings.kibana.space
    url = settings.kibana.url
    if url is None:
        fail('kibana.url is not set; give [kibana] url = "https://kibana.example:5601"', EXIT_CONFIGURATION)
    out = Connector(connector, settings.servmon.public_url) if connector else None

    async def work() -> None:
        async with connected(settings.kibana, url, chosen) as kibana:
            await steps.install(kibana, _objects(loaded), _rules(loaded), out, dry_run=dry_run, say=typer.echo)

    if not settings.elasticsearch.hosts:
        typer.echo("warning: elasticsearch.hosts is not set: nothing is sent, so the dashboard stays empty", err=True)
    try:
        asyncio.run(work())
    except KibanaError as error:
        fail(str(error), 1)


@app.command()
def export(config: ConfigOption = None) -> None:
    """Print the dashboard and all it needs as NDJSON, for Kibana's Stack Management, Saved Objects, Import."""
    from servmon.elastic.kibana.saved_objects import as_ndjson

    typer.echo(as_ndjson(_objects(load(config))), nl=False)


def _objects(loaded: Loaded) -> list[SavedObject]:
    from servmon.elastic.kibana.dashboard import shipped, with_links

    url = loaded.settings.servmon.public_url
    return with_links(shipped(), url) if url else shipped()


def _rules(loaded: Loaded) -> list[Rule]:
    from servmon.elastic.kibana.rules import Pace, rules

    settings = loaded.settings
    longest = max([settings.service.check_interval, *(one.check_interval for one in loaded.endpoints)])
    sending = settings.elasticsearch
    return list(rules(settings.alert, Pace(sending.refresh_interval, sending.sync_interval, longest)))


def _checked(space: str) -> str:
    from servmon.elastic.kibana.settings import checked_space

    try:
        return checked_space(space)
    except ValueError as error:
        fail(f"--space: {error}", EXIT_CONFIGURATION)
