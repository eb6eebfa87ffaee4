"""``servmon alerts`` and ``servmon channels``: who was told and why, and whether a way out works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from servmon.cli import rules
from servmon.cli.base import ConfigOption, fail, load, shown
from servmon.cli.desk import Desk, address, over_api

alerts_app = typer.Typer(help="Who was told of what.", no_args_is_help=True)
alerts_app.add_typer(rules.app, name="rules", hidden=True)
channels_app = typer.Typer(help="The ways out.", no_args_is_help=True)


@alerts_app.command()
@over_api
def explain(desk: Desk, outage: Annotated[str, typer.Argument(help="The id of an outage.")]) -> None:
    """Say who was told of an outage and who was not, with the reason of each; asks the servmon that runs here."""
    found = desk.api.get(address("outages", outage, "alerts"))
    if desk.as_json:
        desk.json(found)
        return
    for line in _lines(found):
        typer.echo(shown(line))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    for decision in found["decisions"]:
        yield f"{decision['at']}  {decision['kind']}: {decision['stage']}: {decision['reason']}"
    for sent in found["notifications"]:
        yield f"{sent['created_at']}  {sent['channel']}: {sent['subject']}: {_fate(sent)}"
    if found["acknowledgement"]:
        seen = found["acknowledgement"]
        note = f": {seen['note']}" if seen["note"] else ""
        yield f"{seen['acknowledged_at']}  acknowledged by {seen['acknowledged_by']}{note}"
    if not found["decisions"]:
        yield "nothing was decided on it yet"


def _fate(sent: dict[str, Any]) -> str:
    tries = f" after {sent['attempts']} tries" if sent["attempts"] > 1 else ""
    if sent["sent_at"]:
        return f"sent {sent['sent_at']}{tries}"
    if sent["given_up_at"]:
        return f"given up: {sent['last_error']}"
    return f"owed{tries}" + (f": {sent['last_error']}" if sent["last_error"] else "")


@channels_app.command("test")
def send_trial(
    name: Annotated[str, typer.Argument(help="The name in [channels.NAME].")], config: ConfigOption = None
) -> None:
    """Send a test message through one channel, and say how that went."""
    from servmon.alerts.channels import open_channel
    from servmon.alerts.channels.base import ChannelError
    from servmon.alerts.messages import trial
    from servmon.clock import now

    channels = load(config).settings.channels
    if name not in channels:
        known = f"there are {', '.join(sorted(channels))}" if channels else "there is none at all"
        fail(f"there is no channel {name!r}; {known}", 2)
    try:
        asyncio.run(open_channel(channels[name]).send(trial(name, now())))
    except ChannelError as error:
        fail(f"{name}: {error}", 1)
    typer.echo(f"{name}: sent; look whether it arrived")
