"""``servmon outages``: what is or was down, who sees to it, and a person's word that it is over."""

from __future__ import annotations

from typing import Annotated

import typer

from servmon.cli.alerts import explain
from servmon.cli.desk import Desk, address, over_api
from servmon.cli.tables import Column
from servmon.cli.when import lasted, readable

app = typer.Typer(help="What is or was down.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="OUTAGE", help="The id of an outage.")]

COLUMNS = (
    Column("ENDPOINT", "endpoint_id", least=12),
    Column("SEVERITY", "severity", rank=4),
    Column("SINCE", lambda row: readable(row["start_time"]), rank=5),
    Column("LASTED", lambda row: lasted(row["start_time"], row["resolved_at"]), rank=1),
    Column("STATE", lambda row: "resolved" if row["resolved"] else "open", rank=2),
    Column("CAUSED BY", "caused_by", least=12, rank=3),
    Column("ID", "id"),
    Column("WHAT", "description", least=20, rank=3),
)
# Of those that are open the state says nothing.
OPEN = tuple(column._replace(rank=6) if column.title == "STATE" else column for column in COLUMNS)
HAPPENED = (
    Column("AT", lambda row: readable(row["at"])),
    Column("WHAT", "kind"),
    Column("BY", "by", least=12, rank=1),
    Column("TEXT", "text", least=20),
)


@app.command("list")
@over_api
def list_outages(
    desk: Desk,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most with --all.")] = 100,
) -> None:
    """List the open outages, newest first."""
    if everything:
        desk.show_list(COLUMNS, list(desk.api.first(limit, "/outages/")), "there was no outage yet")
    else:
        desk.show_list(OPEN, list(desk.api.pages("/outages/active")), "no outage is open")


@app.command()
@over_api
def show(desk: Desk, outage: IdArgument) -> None:
    """Show one outage with its evidence."""
    desk.show(desk.api.get(address("outages", outage)))


@app.command()
@over_api
def acknowledge(
    desk: Desk, outage: IdArgument, note: Annotated[str, typer.Argument(help="What you want to say.")] = ""
) -> None:
    """Say that you see to an open outage, so that nobody is reminded."""
    seen = desk.api.post(address("outages", outage, "acknowledge"), {"note": note})
    desk.done(f"acknowledged by {seen['acknowledged_by']}: nobody is reminded of it", seen)


@app.command()
@over_api
def unacknowledge(desk: Desk, outage: IdArgument) -> None:
    """Take an acknowledgement back."""
    desk.api.post(address("outages", outage, "unacknowledge"), {})
    desk.done("nobody sees to it now: people are reminded again", {"outage_id": outage})


@app.command()
@over_api
def resolve(
    desk: Desk, outage: IdArgument, note: Annotated[str | None, typer.Argument(help="How it ended.")] = None
) -> None:
    """Close an open outage by your word; says where the last check failed all the same."""
    outage_ = desk.api.post(address("outages", outage, "resolve"), {"resolution_notes": note})
    still = "; its last check failed all the same" if outage_["still_down"] else ""
    desk.done(f"the outage of {outage_['endpoint_id']} is resolved{still}", outage_)


@app.command()
@over_api
def timeline(desk: Desk, outage: IdArgument) -> None:
    """Show all that happened with an outage and was said of it, oldest first."""
    desk.show_list(HAPPENED, desk.api.get(address("outages", outage, "timeline"))["items"], "nothing happened yet")


@app.command()
@over_api
def note(desk: Desk, outage: IdArgument, text: Annotated[str, typer.Argument(help="What there is to say.")]) -> None:
    """Write a note down beside an outage, open or over."""
    desk.done("noted", desk.api.post(address("outages", outage, "notes"), {"text": text}))


@app.command()
@over_api
def exclude(
    desk: Desk,
    outage: IdArgument,
    reason: Annotated[str, typer.Argument(help="Why it does not count.")],
    *,
    false_alarm: Annotated[bool, typer.Option("--false-alarm", help="There was no outage at all.")] = False,
) -> None:
    """Let an outage not count against availability."""
    wanted = {"reason": reason, "false_alarm": false_alarm}
    excluded = desk.api.post(address("outages", outage, "exclude"), wanted)
    desk.done(f"the outage of {excluded['endpoint_id']} does not count against availability", excluded)


@app.command()
@over_api
def include(desk: Desk, outage: IdArgument) -> None:
    """Let an outage count against availability again."""
    included = desk.api.post(address("outages", outage, "include"), {})
    desk.done(f"the outage of {included['endpoint_id']} counts again", included)


app.command()(explain)
