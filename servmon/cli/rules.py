"""``servmon rules``: what is told of which endpoints to whom."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from servmon.cli.base import EXIT_CONFIGURATION, fail
from servmon.cli.desk import Desk, address, over_api
from servmon.cli.maintenance import EndpointOption, SiteOption, TagOption, covered
from servmon.cli.services import chosen
from servmon.cli.tables import Column, Row

app = typer.Typer(help="What is told of which endpoints to whom.", no_args_is_help=True)

# The model's own, which is not loaded only to read a command line.
Kinds = Literal["service_down", "response_time", "multiple_services_down", "active_outages", "long_outage"]
SEVERITIES = ("CRITICAL", "MAJOR", "MINOR", "WARNING")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name of a rule.")]
SeverityOption = Annotated[
    list[str] | None,
    typer.Option(
        "--severity",
        help="Only outages so severe, as CRITICAL; several times for several.",
        autocompletion=lambda incomplete: [one for one in SEVERITIES if one.startswith(incomplete.upper())],
    ),
]
ChannelOption = Annotated[
    list[str] | None, typer.Option("--channel", help="Who is told; several times for several, else as usual.")
]
KeyOption = Annotated[
    list[str] | None, typer.Option("--option", "-o", help="NAME=VALUE: any key of a rule of this kind, as after=7200.")
]


def _readers(rule: Row) -> str:
    return "default" if rule["channels"] is None else ", ".join(rule["channels"]) or "none"


COLUMNS = (
    Column("NAME", "name", least=16),
    Column("KIND", "kind"),
    Column("ON", lambda row: "yes" if row["enabled"] else "no"),
    Column("FOR", covered, least=12, rank=1),
    Column("CHANNELS", _readers, least=12),
    Column("FROM", "source"),
)


@app.command("list")
@over_api
def list_rules(desk: Desk) -> None:
    """List the alert rules: those of the file, those made over the API, and what holds where none is written."""
    desk.show_list(COLUMNS, desk.api.get("/alerts/rules")["items"], "there is no rule")


@app.command()
@over_api
def show(desk: Desk, name: NameArgument) -> None:
    """Show one rule with all its keys."""
    desk.show(desk.api.get(address("alerts", "rules", name)))


@app.command()
@over_api
def add(  # noqa: PLR0913 - they are the options of the command
    desk: Desk,
    name: Annotated[str, typer.Argument(help="Stands in messages and in the history; it cannot be changed.")],
    *,
    kind: Annotated[Kinds, typer.Option(help="What it looks at.")] = "service_down",
    endpoint: EndpointOption = None,
    tag: TagOption = None,
    site: SiteOption = None,
    severity: SeverityOption = None,
    channel: ChannelOption = None,
    option: KeyOption = None,
) -> None:
    """Make a rule, by which servmon goes within a second; what it does not narrow down it takes whole."""
    given = _given(endpoint, tag, site, severity, channel, option)
    made = desk.api.post("/alerts/rules", {"name": name, "kind": kind, **given})
    desk.done(_told(made), made)
    _warn_of_the_unselected(desk)


@app.command()
@over_api
def change(  # noqa: PLR0913 - they are the options of the command
    desk: Desk,
    name: NameArgument,
    *,
    endpoint: EndpointOption = None,
    tag: TagOption = None,
    site: SiteOption = None,
    severity: SeverityOption = None,
    channel: ChannelOption = None,
    option: KeyOption = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Whether it counts.")] = None,
) -> None:
    """Change what is given and leave the rest; a list that is given replaces the one there was."""
    changes = _given(endpoint, tag, site, severity, channel, option)
    changes |= {} if enabled is None else {"enabled": enabled}
    if not changes:
        fail("nothing is given that could change", EXIT_CONFIGURATION)
    made = desk.api.patch(address("alerts", "rules", name), changes)
    desk.done(_told(made), made)
    _warn_of_the_unselected(desk)


@app.command()
@over_api
def remove(desk: Desk, name: NameArgument) -> None:
    """Delete a rule; what it began is over."""
    desk.api.delete(address("alerts", "rules", name))
    desk.done(f"{name} is deleted", {"name": name})
    _warn_of_the_unselected(desk)


def _given(
    endpoint: list[str] | None,
    tag: list[str] | None,
    site: list[str] | None,
    severity: list[str] | None,
    channel: list[str] | None,
    option: list[str] | None,
) -> dict[str, Any]:
    severities = [one.upper() for one in severity or ()]
    named = {"ids": endpoint, "tags": tag, "sites": site, "severities": severities, "channels": channel}
    return {key: value for key, value in named.items() if value} | chosen(option, "after=7200")


def _told(rule: Row) -> str:
    off = "" if rule["enabled"] else "; it is off"
    return f"{rule['name']}: {rule['kind']} of {covered(rule) or 'everything'}, told to {_readers(rule)}{off}"


def _warn_of_the_unselected(desk: Desk) -> None:
    """Say it where outages are told to nobody by now: rules of this kind choose, as soon as there is one."""
    rules = [rule for rule in desk.api.get("/alerts/rules")["items"] if rule["kind"] == "service_down"]
    takes_all = any(rule["enabled"] and not (covered(rule) or rule["severities"]) for rule in rules)
    if rules and not takes_all:
        others = "outages that none of the service_down rules selects are told to nobody"
        typer.echo(f"note: {others}; one without a selection takes them", err=True)
